"""Whole exchanges on the memory network: 296 MB over links of 1 Gbit/s and 5 ms, in simulated time, replayable by seed.

"Ideal" is size / link rate. What a node may ask twice is only what is overdue; `SharedBlockstore` refuses every block
that is not part of the simulation, so no liar's byte is ever stored.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from ipcs.bitswap.limits import WINDOW_START, Config
from ipcs.cid import PeerId
from ipcs.testing.swarm import SharedBlockstore, open_swarm, random_blocks, run_simulation

SEED = 20261124
GBIT = 125e6
LEAF = 262144
COUNT = 1130
SIZE = COUNT * LEAF
IDEAL = SIZE / GBIT


async def fetch(node, blocks, hints=()):
    """Seconds until `node` has all of `blocks`."""
    start = trio.current_time()
    async with node.exchange.session(blocks[0].cid, hints, block_estimate=LEAF) as session:
        with trio.fail_after(300):
            await session.get_many([blocks[0].cid])
            await session.fetch_many([block.cid for block in blocks])
    return trio.current_time() - start


@asynccontextmanager
async def providers_and_fetcher(rates, *, count=COUNT, holds=None, seed=SEED, **link):
    async with open_swarm(seed) as swarm:
        blocks = random_blocks(count, LEAF, seed)
        for index, rate in enumerate(rates):
            await swarm.add(f"p{index}", up=rate, down=rate, holds=blocks if holds is None else holds(index, blocks))
        fetcher = await swarm.add("f", up=GBIT, down=GBIT)
        for index in range(len(rates)):
            swarm.network.connect(f"p{index}", "f", **({"latency": 0.005} | link))
        yield swarm, fetcher, blocks


def received(fetcher):
    return {peer: stats.bytes_received for peer, stats in fetcher.exchange.statistics().peers.items()}


@pytest.mark.parametrize("rates", [[GBIT], [GBIT] * 3, [10e6, 30e6, 60e6]], ids=["one", "three", "three unequal"])
def test_full_providers_share_the_work(rates):
    async def simulation():
        async with providers_and_fetcher(rates) as (_, fetcher, blocks):
            seconds = await fetch(fetcher, blocks)
            return seconds, received(fetcher), fetcher.exchange.statistics().duplicate_bytes

    seconds, shares, duplicates = run_simulation(simulation)
    assert duplicates < 0.002 * SIZE
    assert seconds < 1.1 * SIZE / min(GBIT, sum(rates))
    for rate, share in zip(rates, shares.values(), strict=True):
        assert share == pytest.approx(SIZE * rate / sum(rates), rel=0.2)


def test_a_run_is_a_function_of_its_seed():
    async def simulation():
        async with providers_and_fetcher([GBIT, GBIT], count=200, jitter=0.003, loss=0.01) as (_, fetcher, blocks):
            return await fetch(fetcher, blocks), received(fetcher), fetcher.host.bytes_sent

    assert run_simulation(simulation) == run_simulation(simulation)


def test_a_frozen_provider_costs_little():
    rate = GBIT / 3

    async def simulation():
        async with providers_and_fetcher([rate] * 3) as (swarm, fetcher, blocks), trio.open_nursery() as nursery:

            async def freeze():
                await trio.sleep(1)
                swarm.nodes["p0"].host.freeze()

            nursery.start_soon(freeze)
            return await fetch(fetcher, blocks), fetcher.exchange.statistics().duplicate_bytes

    seconds, duplicates = run_simulation(simulation)
    ideal = 1 + (SIZE - 3 * rate) / (2 * rate)
    assert seconds < ideal + 1.5
    assert duplicates < 0.002 * SIZE


def test_providers_that_hold_a_third_each():
    async def simulation():
        def third(index, blocks):
            return [blocks[0], *blocks[1 + index :: 3]]

        async with providers_and_fetcher([GBIT] * 3, holds=third) as (_, fetcher, blocks):
            return await fetch(fetcher, blocks), fetcher.exchange.statistics().duplicate_bytes

    seconds, duplicates = run_simulation(simulation)
    assert seconds < 1.5 * IDEAL
    assert duplicates < 0.002 * SIZE


@pytest.mark.slow
def test_a_seed_and_eight_simultaneous_fetchers():
    async def simulation():
        async with open_swarm(SEED) as swarm:
            blocks = random_blocks(COUNT, LEAF, SEED)
            seed = await swarm.add("seed", up=GBIT, down=GBIT, holds=blocks)
            fetchers = [await swarm.add(f"f{index}", up=GBIT, down=GBIT) for index in range(8)]
            swarm.connect_all(latency=0.005)
            times = []

            async def one(fetcher):
                times.append(await fetch(fetcher, blocks))

            async with trio.open_nursery() as nursery:
                for fetcher in fetchers:
                    nursery.start_soon(one, fetcher)
            duplicates = sum(fetcher.exchange.statistics().duplicate_bytes for fetcher in fetchers)
            return max(times), seed.exchange.statistics().bytes_sent, duplicates

    last, uploaded, duplicates = run_simulation(simulation)
    assert uploaded <= 1.3 * SIZE
    assert last <= 1.5 * IDEAL
    assert duplicates < 0.002 * 8 * SIZE


@pytest.mark.slow
@pytest.mark.parametrize("link", [{"loss": 0.002}, {"jitter": 0.02}, {"loss": 0.01, "jitter": 0.01}], ids=str)
def test_loss_and_reordering(link):
    async def simulation():
        async with providers_and_fetcher([GBIT] * 2, **link) as (_, fetcher, blocks):
            return await fetch(fetcher, blocks), fetcher.exchange.statistics().duplicate_bytes

    seconds, duplicates = run_simulation(simulation)
    assert seconds < 4 * IDEAL
    assert duplicates < 0.05 * SIZE


@pytest.mark.slow
def test_a_partition_heals():
    """Everybody is cut off for two minutes in the middle; the transfer goes on by itself."""

    async def simulation():
        async with providers_and_fetcher([GBIT] * 2) as (swarm, fetcher, blocks), trio.open_nursery() as nursery:

            async def cut():
                await trio.sleep(1)
                swarm.network.partition(["f"])
                await trio.sleep(120)
                swarm.network.heal()

            nursery.start_soon(cut)
            return await fetch(fetcher, blocks)

    assert run_simulation(simulation) < 120 + IDEAL + 20


class Liar(SharedBlockstore):
    """Says that it has everything and serves garbage of the right size."""

    def get_many(self, keys):
        return [None if data is None else bytes(len(data)) for data in super().get_many(keys)]


def test_a_liar_costs_its_window_and_is_banned():
    async def simulation():
        async with open_swarm(SEED) as swarm:
            blocks = random_blocks(COUNT, LEAF, SEED)
            for name in ("honest0", "honest1"):
                await swarm.add(name, up=GBIT, down=GBIT, holds=blocks)
            await swarm.add("liar", up=GBIT, down=GBIT, holds=blocks, store=Liar(swarm.universe))
            fetcher = await swarm.add("f", up=GBIT, down=GBIT)
            for name in ("liar", "honest0", "honest1"):
                swarm.network.connect(name, "f", latency=0.005)
            seconds = await fetch(fetcher, blocks, [PeerId("liar")])
            (ban,) = fetcher.exchange.bans()
            before = fetcher.exchange.statistics()
            swarm.network.connect("liar", "f")
            await trio.sleep(1)
            refused = "liar" not in fetcher.host.links
            assert fetcher.exchange.lift_ban(PeerId("liar"))
            swarm.network.connect("liar", "f")
            await trio.sleep(1)
            return seconds, ban, before, refused, "liar" in fetcher.host.links, ban.until - trio.current_time()

    seconds, ban, statistics, refused, back, left = run_simulation(simulation)
    assert ban.peer == "liar"
    assert 590 < left < 600
    assert refused
    assert back
    assert statistics.unasked_bytes <= 2 * WINDOW_START
    assert seconds < IDEAL + 1.5


def test_rate_limits():
    async def simulation():
        async with open_swarm(SEED) as swarm:
            blocks = random_blocks(200, LEAF, SEED)
            await swarm.add("p", holds=blocks, config=Config(upload_rate=20e6))
            fetcher = await swarm.add("f", config=Config(download_rate=10e6))
            other = await swarm.add("g")
            for node in (fetcher, other):
                swarm.network.connect("p", node.peer, latency=0.005)
            alone = await fetch(fetcher, blocks)
            return alone, await fetch(other, blocks)

    limited, upload_limited = run_simulation(simulation)
    assert limited == pytest.approx(200 * LEAF / 10e6, rel=0.1)
    assert upload_limited == pytest.approx(200 * LEAF / 20e6, rel=0.1)


def test_one_rotten_block_does_not_exile_a_node():
    async def simulation():
        class Rotten(SharedBlockstore):
            def get_many(self, keys):
                return [bytes(LEAF) if data == rotten.data else data for data in super().get_many(keys)]

        async with open_swarm(SEED) as swarm:
            blocks = random_blocks(200, LEAF, SEED)
            rotten = blocks[100]
            await swarm.add("p", up=GBIT, down=GBIT, holds=blocks, store=Rotten(swarm.universe))
            await swarm.add("q", up=GBIT / 10, down=GBIT, holds=blocks)
            fetcher = await swarm.add("f", up=GBIT, down=GBIT)
            for name in "pq":
                swarm.network.connect(name, "f", latency=0.005)
            await fetch(fetcher, blocks)
            return fetcher.exchange.bans(), fetcher.exchange.statistics().unasked_blocks

    bans, unasked = run_simulation(simulation)
    assert bans == []
    assert unasked >= 1
