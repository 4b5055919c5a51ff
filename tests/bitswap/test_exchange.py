"""Whole nodes over the memory network."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from ipcs.bitswap.exchange import open_exchange
from ipcs.block import make_block
from ipcs.cid import multihash_of
from ipcs.store.blockstore import MemoryBlockstore
from ipcs.testing.network import MemoryNetwork, run_inline


def blocks_of(count, size):
    return [make_block(index.to_bytes(8, "big") * (size // 8)) for index in range(1, count + 1)]


@asynccontextmanager
async def swarm(*names, seed=1, **rates):
    """Named nodes, not connected: {name: (exchange, store)}, and their network."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        network = MemoryNetwork(nursery, seed)
        nodes = {}
        for name in names:
            store = MemoryBlockstore()
            host = network.add(name, **rates)
            exchange = await stack.enter_async_context(open_exchange(host, store, seed=seed, run_sync=run_inline))
            nodes[name] = (exchange, store)
        yield network, nodes
        nursery.cancel_scope.cancel()


async def test_two_nodes_exchange_blocks(autojump_clock):
    blocks = blocks_of(300, 4096)
    async with swarm("a", "b") as (network, nodes):
        exchange, store = nodes["a"]
        nodes["b"][1].put_many(blocks)
        network.connect("a", "b", latency=0.005)
        async with exchange.session(blocks[0].cid) as session:
            with trio.fail_after(5):
                first = await session.get_many([blocks[0].cid])
                rest = await session.get_many([block.cid for block in blocks])
        assert first == [blocks[0].data]
        assert rest == [block.data for block in blocks]
        assert all(store.has_many([multihash_of(block.cid) for block in blocks]))
        (stats,) = exchange.statistics().peers.values()
        assert (stats.blocks_received, stats.duplicate_blocks, stats.asks) == (300, 0, 0)


async def test_wants_are_kept_until_the_block_is_stored(autojump_clock):
    (block,) = blocks_of(1, 4096)
    async with swarm("a", "b") as (network, nodes):
        network.connect("a", "b", latency=0.005)
        async with nodes["a"][0].session(block.cid) as session:
            with trio.move_on_after(20):
                await session.get_many([block.cid])
                pytest.fail("nobody has the block yet")
            status = session.status()
            assert status.missing == (block.cid,)
            assert "b: none, owes 0" in status.describe()

            async def put():
                await trio.sleep(1)
                nodes["b"][1].put_many([block])
                nodes["b"][0].notify_stored([block.cid])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(put)
                with trio.fail_after(1.1):
                    assert await session.get_many([block.cid]) == [block.data]
