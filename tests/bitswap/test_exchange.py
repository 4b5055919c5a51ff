"""Whole nodes over the memory network: what callers of the exchange see."""

from __future__ import annotations

import pytest
import trio

from ipcs.bitswap.exchange import open_exchange
from ipcs.bitswap.network import PROTOCOLS
from ipcs.bitswap.session import Holding
from ipcs.block import Block, make_block
from ipcs.cid import DAG_PB, IDENTITY, RAW, Cid, PeerId, cid_v1, multihash_of, sha256_multihash
from ipcs.errors import InvalidArgument, NotFound, ResourceExhausted
from ipcs.hashes import multihash
from ipcs.store.blockstore import MemoryBlockstore
from ipcs.testing.network import MemoryNetwork, run_inline
from ipcs.testing.swarm import SharedBlockstore, open_swarm, random_blocks

V12, V11, V10, UNVERSIONED = PROTOCOLS


async def get(node, blocks, hints=(), seconds=30):
    async with node.exchange.session(blocks[0].cid, hints) as session:
        with trio.fail_after(seconds):
            return await session.get_many([block.cid for block in blocks])


async def test_two_nodes_exchange_blocks(autojump_clock):
    blocks = random_blocks(300, 4096, 1)
    async with open_swarm(1) as swarm:
        await swarm.add("b", holds=blocks)
        a = await swarm.add("a")
        swarm.network.connect("a", "b", latency=0.005)
        assert await get(a, blocks) == [block.data for block in blocks]
        assert all(a.store.has_many([multihash_of(block.cid) for block in blocks]))
        (stats,) = a.exchange.statistics().peers.values()
        assert (stats.blocks_received, stats.duplicate_blocks, stats.asks) == (300, 0, 0)
        assert swarm.nodes["b"].exchange.statistics().blocks_sent == 300


async def test_a_node_that_is_still_downloading_serves(autojump_clock):
    """b relays from a to c, which are not connected, while b itself fetches."""
    blocks = random_blocks(400, 65536, 1)
    async with open_swarm(1) as swarm:
        await swarm.add("a", up=10e6, holds=blocks)
        b, c = await swarm.add("b"), await swarm.add("c")
        swarm.network.connect("a", "b", latency=0.005)
        swarm.network.connect("b", "c", latency=0.005)
        ends = {}

        async def fetch(node):
            await get(node, blocks)
            ends[node.peer] = trio.current_time()

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, b)
            nursery.start_soon(fetch, c)
        alone = ends["b"] - start
        assert ends["c"] - start < 1.2 * alone


async def test_wants_are_kept_until_the_block_is_stored(autojump_clock):
    (block,) = random_blocks(1, 4096, 1)
    async with open_swarm(1) as swarm:
        a, b = await swarm.add("a"), await swarm.add("b")
        swarm.network.connect("a", "b", latency=0.005)
        async with a.exchange.session(block.cid) as session:
            with trio.move_on_after(20) as scope:
                await session.get_many([block.cid])
            assert scope.cancelled_caught
            status = session.status()
            assert status.missing == (block.cid,)
            assert status.peers == ((PeerId("b"), Holding.NONE, 0),)
            assert "b: none, owes 0" in session.describe()

            async def put():
                await trio.sleep(1)
                b.store.hold([block])
                b.exchange.notify_stored([block.cid])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(put)
                with trio.fail_after(1.1):
                    assert await session.get_many([block.cid]) == [block.data]


async def test_a_local_put_meets_our_own_want(autojump_clock):
    (block,) = random_blocks(1, 4096, 1)
    async with open_swarm(1) as swarm:
        a = await swarm.add("a")
        async with a.exchange.session(block.cid) as session, trio.open_nursery() as nursery:
            nursery.start_soon(session.fetch_many, [block.cid])
            await trio.sleep(1)
            a.store.hold([block])
            a.exchange.notify_stored([block.cid])


@pytest.mark.parametrize(
    ("protocol", "codec"),
    [(V11, RAW), (V11, DAG_PB), (V10, None), (UNVERSIONED, None)],
    ids=["1.1", "1.1 v0", "1.0", "old"],
)
async def test_peers_before_1_2_fetch_and_serve(protocol, codec, autojump_clock):
    blocks = [make_block(bytes([number]) * 5000, codec or DAG_PB) for number in range(40)]
    if codec is None:
        blocks = [Block(Cid(multihash_of(block.cid)), block.data) for block in blocks]
    async with open_swarm(1) as swarm:
        a, b = await swarm.add("a"), await swarm.add("b", holds=blocks)
        for node in (a, b):
            node.host.protocols = [protocol]
        swarm.network.connect("a", "b", latency=0.005)
        assert await get(a, blocks) == [block.data for block in blocks]
        assert a.exchange.statistics().duplicate_blocks == 0


async def test_an_old_peer_without_the_blocks_does_not_hold_up_the_others(autojump_clock):
    blocks = random_blocks(40, 5000, 1)
    async with open_swarm(1) as swarm:
        a, old = await swarm.add("a"), await swarm.add("old")
        old.host.protocols = [V11]
        swarm.network.connect("a", "old", latency=0.005)
        await swarm.add("b", holds=blocks)
        async with a.exchange.session(blocks[0].cid) as session:
            session.prefetch([block.cid for block in blocks])
            await trio.sleep(5)
            swarm.network.connect("a", "b", latency=0.005)
            with trio.fail_after(2):
                await session.fetch_many([block.cid for block in blocks])


async def test_a_peer_that_speaks_no_bitswap_is_left_alone_until_it_does(autojump_clock):
    (block,) = random_blocks(1, 5000, 1)
    async with open_swarm(1) as swarm:
        a, b = await swarm.add("a"), await swarm.add("b", holds=[block])
        b.host.protocols = ["/other"]
        swarm.network.connect("a", "b")
        async with a.exchange.session(block.cid) as session:
            session.prefetch([block.cid])
            await trio.sleep(30)
            assert a.exchange.statistics().peers == {}
            assert "b" in a.host.links
            b.host.protocols = PROTOCOLS
            async with b.exchange.session(block.cid) as back:
                back.prefetch([random_blocks(1, 10, 2)[0].cid])
                with trio.fail_after(2):
                    await session.fetch_many([block.cid])


async def test_routing_is_asked_when_no_peer_has_it(autojump_clock):
    (block,) = random_blocks(1, 5000, 1)
    async with trio.open_nursery() as nursery:
        network = MemoryNetwork(nursery, 1)
        asked = []

        async def find(root):
            asked.append((root, trio.current_time()))
            if len(asked) == 1:
                raise NotFound("not yet")
            network.connect("a", "b")
            return [PeerId("b")]

        store = MemoryBlockstore()
        store.put_many([block])
        async with (
            open_exchange(network.add("b"), store, run_sync=run_inline),
            open_exchange(network.add("a"), MemoryBlockstore(), find_providers=find, run_sync=run_inline) as exchange,
            exchange.session(block.cid) as session,
        ):
            start = trio.current_time()
            with trio.fail_after(40):
                await session.fetch_many([block.cid])
            assert [root for root, _ in asked] == [block.cid] * 2
            assert asked[0][1] - start == pytest.approx(1, abs=0.1)
            nursery.cancel_scope.cancel()


class FullStore(SharedBlockstore):
    def put_many(self, blocks):
        raise ResourceExhausted("the disk is full")


async def test_a_full_disk_fails_the_callers_and_nothing_else(autojump_clock):
    blocks = random_blocks(20, 5000, 1)
    async with open_swarm(1) as swarm:
        await swarm.add("b", holds=blocks)
        a = await swarm.add("a", store=FullStore(swarm.universe))
        swarm.network.connect("a", "b", latency=0.005)
        with pytest.raises(ResourceExhausted):
            await get(a, blocks)
        await trio.sleep(1)
        assert a.exchange.statistics().wants == 0


async def test_what_holds_no_bytes_is_resolved_without_a_peer(autojump_clock):
    empty = make_block(b"")
    inlined = cid_v1(RAW, multihash(IDENTITY, b"in the CID itself"))
    async with open_swarm(1) as swarm:
        a = await swarm.add("a")
        a.store.hold([])
        swarm.universe[multihash_of(empty.cid)] = b""
        async with a.exchange.session(empty.cid) as session:
            with trio.fail_after(1):
                assert await session.get_many([inlined, empty.cid]) == [b"in the CID itself", b""]


async def test_forbidden_hashes_are_refused_at_once(autojump_clock):
    murmur = cid_v1(RAW, b"\x22\x10" + bytes(16))
    async with open_swarm(1) as swarm:
        a = await swarm.add("a")
        async with a.exchange.session(murmur) as session:
            session.prefetch([murmur])
            with pytest.raises(InvalidArgument, match="may not be fetched"):
                await session.get_many([murmur])


async def test_a_block_no_message_can_carry_is_not_offered(autojump_clock):
    big = make_block(bytes(4_194_304))
    async with open_swarm(1) as swarm:
        a, b = await swarm.add("a"), await swarm.add("b", holds=[big])
        swarm.network.connect("a", "b")
        async with a.exchange.session(big.cid) as session:
            session.prefetch([big.cid])
            await trio.sleep(5)
            assert "b: none" in session.describe()
        assert b.exchange.statistics().blocks_sent == 0


async def test_leaving_a_session_takes_its_wants_back(autojump_clock):
    (block,) = random_blocks(1, 4096, 1)
    async with open_swarm(1) as swarm:
        a, b = await swarm.add("a"), await swarm.add("b")
        swarm.network.connect("a", "b")
        async with a.exchange.session(block.cid) as session:
            session.prefetch([block.cid])
            await trio.sleep(1)
            assert b.exchange.statistics().peers["a"].wants == 1
        await trio.sleep(1)
        assert b.exchange.statistics().peers["a"].wants == 0
        assert a.exchange.statistics().wants == 0


async def test_v0_and_v1_of_one_block_are_two_wants(autojump_clock):
    node = make_block(bytes(5000), DAG_PB)
    old = Block(Cid(sha256_multihash(multihash_of(node.cid)[2:])), node.data)
    async with open_swarm(1) as swarm:
        a = await swarm.add("a")
        await swarm.add("b", holds=[node])
        swarm.network.connect("a", "b", latency=0.005)
        assert await get(a, [old, node]) == [node.data] * 2
