"""What a hostile peer may try against Bitswap; the wire is in `test_codec.py`, single rules in `test_server.py`."""

from __future__ import annotations

import gc
import itertools
import random
import resource

import pytest
import trio

from ipcs.bitswap.limits import MAX_MESSAGE_SIZE, MAX_UNASKED_BYTES, MAX_WANTS_PER_PEER, Config
from ipcs.bitswap.message import Entry, Message, WireBlock, encode
from ipcs.bitswap.network import PROTOCOLS
from ipcs.block import make_block, prefix_of
from ipcs.cid import RAW, PeerId, cid_v1, sha256_multihash, write_varint
from ipcs.errors import RemoteProtocolError
from ipcs.testing.swarm import open_swarm, random_blocks, run_simulation

V12 = PROTOCOLS[0]


class Attacker:
    """A bare host in a swarm: it writes what it likes and reads what it likes."""

    def __init__(self, swarm, name="attacker"):
        self.swarm = swarm
        self.host = swarm.network.add(name)
        self.host.attach(self)
        self.gone = False
        self.left = trio.Event()

    def connected(self, peer):
        self.gone = False

    def disconnected(self, peer):
        self.gone = True
        self.left.set()

    def accept(self, peer, protocol):
        return self

    async def flush(self, peer):
        await trio.lowlevel.checkpoint()

    def feed(self, chunk):
        pass

    def eof(self):
        pass

    def reset(self):
        pass

    async def send(self, *messages, to="victim"):
        stream = await self.host.open_stream(PeerId(to))
        for message in messages:
            await stream.write(message if isinstance(message, list) else encode(message, V12))
        await trio.sleep(0.01)
        return stream


def distinct(count, rng):
    return [cid_v1(RAW, sha256_multihash(rng.randbytes(32))) for _ in range(count)]


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_100_000_distinct_wants_over_and_over_with_reconnects():
    async def simulation():
        async with open_swarm(1) as swarm:
            victim = await swarm.add("victim")
            attacker = Attacker(swarm)
            rng = random.Random(1)
            sizes = []
            for round_number in range(8):
                swarm.network.connect("attacker", "victim")
                for _ in range(4):
                    entries = [Entry(cid, send_dont_have=False) for cid in distinct(25_000, rng)]
                    await attacker.send(Message(entries))
                    assert victim.exchange.statistics().peers["attacker"].wants == MAX_WANTS_PER_PEER
                swarm.network.disconnect("attacker", "victim")
                await trio.sleep(1)
                gc.collect()
                assert not victim.exchange.statistics().peers
                if round_number >= 2:
                    sizes.append(resident())
            return sizes

    sizes = run_simulation(simulation)
    assert sizes[-1] - sizes[0] < 8 * 1024 * 1024


def test_want_and_cancel_churn_leaves_nothing():
    async def simulation():
        async with open_swarm(1) as swarm:
            block = make_block(bytes(5000))
            victim = await swarm.add("victim", holds=[block])
            attacker = Attacker(swarm)
            swarm.network.connect("attacker", "victim")
            cids = distinct(1000, random.Random(1))
            for _ in range(15):
                await attacker.send(Message([Entry(cid) for cid in cids]))
                await attacker.send(Message([Entry(cid, cancel=True) for cid in cids]))
                await attacker.send(Message([Entry(block.cid)], full=True), Message([], full=True))
            ledger = victim.exchange.statistics().peers["attacker"]
            return ledger.wants

    assert run_simulation(simulation) == 0


def test_unasked_blocks_are_not_stored_and_end_in_a_ban():
    async def simulation():
        async with open_swarm(1) as swarm:
            victim = await swarm.add("victim")
            attacker = Attacker(swarm)
            swarm.network.connect("attacker", "victim")
            data = bytes(1024 * 1024)
            flood = Message(blocks=[WireBlock(b"\x01\x55\x12\x20", data)])
            sent = 0
            stream = await attacker.host.open_stream(PeerId("victim"))
            while not stream.dead:
                await stream.write(encode(flood, V12))
                await trio.sleep(0.001)
                sent += len(data)
                assert sent < 2**30
            return attacker.gone, sent, list(victim.store.keys()), victim.exchange.bans()

    gone, sent, stored, bans = run_simulation(simulation)
    assert gone
    assert sent <= MAX_UNASKED_BYTES + 4 * 1024 * 1024
    assert stored == []
    assert [ban.peer for ban in bans] == ["attacker"]


def test_small_unasked_blocks_beside_real_work_do_not_slow_it():
    async def simulation():
        async with open_swarm(1) as swarm:
            blocks = random_blocks(200, 262144, 1)
            await swarm.add("honest", up=125e6, holds=blocks)
            victim = await swarm.add("victim", down=125e6)
            attacker = Attacker(swarm)
            swarm.network.connect("honest", "victim", latency=0.005)
            swarm.network.connect("attacker", "victim", latency=0.005)

            async def flood():
                await trio.sleep(0.1)
                stream = await attacker.host.open_stream(PeerId("victim"))
                for number in itertools.count():
                    message = Message(blocks=[WireBlock(b"\x01\x55\x12\x20", number.to_bytes(8, "big"))])
                    if stream.dead:
                        return
                    await stream.write(encode(message, V12))
                    await trio.sleep(0.0001)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood)
                start = trio.current_time()
                async with victim.exchange.session(blocks[0].cid) as session:
                    await session.fetch_many([block.cid for block in blocks])
                return trio.current_time() - start

    assert run_simulation(simulation) < 1.2 * 200 * 262144 / 125e6


@pytest.mark.parametrize(
    "parts",
    [
        [write_varint(MAX_MESSAGE_SIZE + 1)],
        [write_varint(2**63)],
        [b"\x80" * 64],
        [b"\x05\x0a\x03abc"],
    ],
    ids=["4 MiB + 1", "2^63", "endless varint", "no wantlist"],
)
def test_a_malformed_stream_is_reset_and_the_next_one_works(parts):
    async def simulation():
        async with open_swarm(1) as swarm:
            block = make_block(bytes(5000))
            victim = await swarm.add("victim", holds=[block])
            attacker = Attacker(swarm)
            swarm.network.connect("attacker", "victim")
            broken = await attacker.send(parts)
            assert broken.dead
            assert not attacker.gone
            await attacker.send(Message([Entry(block.cid)]))
            return victim.exchange.statistics().blocks_sent

    assert run_simulation(simulation) == 1


def test_inbound_streams_are_bounded_and_come_back():
    async def simulation():
        async with open_swarm(1) as swarm:
            await swarm.add("victim", config=Config(max_streams_per_peer=8))
            attacker = Attacker(swarm)
            swarm.network.connect("attacker", "victim")
            half_open = write_varint(MAX_MESSAGE_SIZE) + b"\x0a\x00\x1a" + write_varint(MAX_MESSAGE_SIZE - 10)
            streams = [await attacker.send([half_open]) for _ in range(8)]
            with pytest.raises(RemoteProtocolError):
                await attacker.send(Message())
            streams[0].reset()
            await attacker.send(Message())

    run_simulation(simulation)


def test_wants_for_huge_cids_are_ignored():
    async def simulation():
        async with open_swarm(1) as swarm:
            victim = await swarm.add("victim")
            attacker = Attacker(swarm)
            swarm.network.connect("attacker", "victim")
            huge = b"\x01\x55\x1e" + write_varint(2_000_000) + bytes(2_000_000)
            await attacker.send(Message([Entry(huge), Entry(huge[:164] + bytes(5))]))
            return victim.exchange.statistics().peers["attacker"].wants, attacker.gone

    assert run_simulation(simulation) == (0, False)


def test_a_block_under_another_codec_or_with_a_flipped_bit_is_not_taken():
    async def simulation():
        async with open_swarm(1) as swarm:
            (block,) = random_blocks(1, 5000, 1)
            victim = await swarm.add("victim")
            attacker = Attacker(swarm)
            swarm.network.connect("attacker", "victim")
            async with victim.exchange.session(block.cid, [PeerId("attacker")]) as session:
                session.prefetch([block.cid])
                await trio.sleep(0.01)
                flipped = bytes([block.data[0] ^ 1]) + bytes(block.data[1:])
                await attacker.send(
                    Message(blocks=[WireBlock(prefix_of(block.cid), flipped)]),
                    Message(blocks=[WireBlock(b"\x01\x70\x12\x20", block.data)]),
                )
                assert session.status().missing == (block.cid,)
                await attacker.send(Message(blocks=[WireBlock(prefix_of(block.cid), block.data)]))
                assert session.status().missing == ()
            return victim.exchange.statistics().unasked_blocks

    assert run_simulation(simulation) == 2


def test_a_peer_that_stalls_the_negotiation_holds_up_nobody():
    """It accepts our streams and never answers: others are served, and it is dropped in bounded time."""

    async def simulation():
        async with open_swarm(1) as swarm:
            blocks = random_blocks(20, 65536, 1)
            victim = await swarm.add("victim", holds=blocks)
            attacker = Attacker(swarm)
            honest = await swarm.add("honest")
            open_stream = victim.host.open_stream

            async def stalled(peer, protocols=PROTOCOLS):
                if peer == "attacker":
                    await trio.sleep_forever()
                return await open_stream(peer, protocols)

            victim.host.open_stream = stalled
            swarm.network.connect("attacker", "victim")
            swarm.network.connect("honest", "victim")
            await attacker.send(Message([Entry(block.cid) for block in blocks]))
            async with honest.exchange.session(blocks[0].cid) as session:
                with trio.fail_after(1):
                    await session.fetch_many([block.cid for block in blocks])
            gone_at_once = attacker.gone
            with trio.fail_after(60):
                await attacker.left.wait()
            return gone_at_once, list(victim.exchange.statistics().peers)

    assert run_simulation(simulation) == (False, ["honest"])


@pytest.mark.slow
def test_slow_readers_are_dropped_and_others_are_served_meanwhile():
    async def simulation():
        async with open_swarm(1) as swarm:
            blocks = random_blocks(100, 262144, 1)
            victim = await swarm.add("victim", up=125e6, holds=blocks)
            slow = [Attacker(swarm, f"slow{index}") for index in range(64)]
            for attacker in slow:
                swarm.network.connect(attacker.host.peer, "victim")
                await attacker.send(Message([Entry(block.cid) for block in blocks]))
                attacker.host.freeze()
            honest = await swarm.add("honest", down=125e6)
            swarm.network.connect("honest", "victim")
            start = trio.current_time()
            async with honest.exchange.session(blocks[0].cid) as session:
                await session.fetch_many([block.cid for block in blocks])
            return trio.current_time() - start, victim.exchange.statistics().peers["honest"].blocks_sent

    seconds, sent = run_simulation(simulation)
    assert sent == 100
    assert seconds < 20
