"""Swarms of real exchanges on a `MemoryNetwork`: what simulations and whole-node tests are built from."""

from __future__ import annotations

import importlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import trio
import trio.testing

from ipcs.bitswap.exchange import Exchange, open_exchange
from ipcs.bitswap.limits import Config
from ipcs.block import Block, Data, make_block
from ipcs.cid import Multihash, PeerId, multihash_of
from ipcs.errors import HashMismatch

from .network import MemoryHost, MemoryNetwork, run_inline

T = TypeVar("T")


class SharedBlockstore:
    """A `Blockstore` of a simulated node: only its keys are its own, so that many nodes fit into one memory.

    `universe` holds the bytes of all blocks there are; a put of anything else is refused, which is the check that no
    node ever stores what it was not meant to.
    """

    def __init__(self, universe: dict[Multihash, Data]) -> None:
        self._universe = universe
        self._keys: set[Multihash] = set()

    def put_many(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            key = multihash_of(block.cid)
            if self._universe.get(key) != block.data:
                raise HashMismatch("a node stored a block that is not part of the simulation", subject=block.cid.hex())
            self._keys.add(key)

    def hold(self, blocks: Sequence[Block]) -> None:
        """Have `blocks` from the start."""
        self._universe.update((multihash_of(block.cid), block.data) for block in blocks)
        self._keys.update(multihash_of(block.cid) for block in blocks)

    def get_many(self, keys: Sequence[Multihash]) -> list[Data | None]:
        return [self._universe[key] if key in self._keys else None for key in keys]

    def has_many(self, keys: Sequence[Multihash]) -> list[bool]:
        return [key in self._keys for key in keys]

    def size_many(self, keys: Sequence[Multihash]) -> list[int | None]:
        return [None if data is None else len(data) for data in self.get_many(keys)]

    def delete_many(self, keys: Sequence[Multihash]) -> None:
        self._keys.difference_update(keys)

    def keys(self) -> Iterator[Multihash]:
        return iter(list(self._keys))


@dataclass(frozen=True)
class SimulatedNode:
    """One node of a swarm."""

    peer: PeerId
    host: MemoryHost
    store: SharedBlockstore
    exchange: Exchange


class Swarm:
    """Nodes of one simulation. Made by `open_swarm`."""

    def __init__(self, network: MemoryNetwork, stack: AsyncExitStack, seed: int) -> None:
        self.network = network
        self.nodes: dict[str, SimulatedNode] = {}
        self.universe: dict[Multihash, Data] = {}
        self._stack = stack
        self._seed = seed

    async def add(
        self,
        name: str,
        *,
        up: float = inf,
        down: float = inf,
        holds: Sequence[Block] = (),
        config: Config | None = None,
        store: SharedBlockstore | None = None,
    ) -> SimulatedNode:
        """A new node that is connected to nobody. Rates in bytes a second."""
        store = store or SharedBlockstore(self.universe)
        store.hold(holds)
        host = self.network.add(name, up=up, down=down)
        exchange = await self._stack.enter_async_context(
            open_exchange(host, store, config, seed=self._seed + len(self.nodes), run_sync=run_inline)
        )
        node = self.nodes[name] = SimulatedNode(host.peer, host, store, exchange)
        return node

    def connect_all(self, *, latency: float = 0.0, jitter: float = 0.0, loss: float = 0.0) -> None:
        """A full mesh."""
        names = list(self.nodes)
        for index, name in enumerate(names):
            for other in names[:index]:
                self.network.connect(name, other, latency=latency, jitter=jitter, loss=loss)


@asynccontextmanager
async def open_swarm(seed: int) -> AsyncIterator[Swarm]:
    """A swarm without nodes. `seed` decides all chance in it."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        yield Swarm(MemoryNetwork(nursery, seed), stack, seed)
        nursery.cancel_scope.cancel()


def random_blocks(count: int, size: int, seed: int) -> list[Block]:
    """`count` different raw blocks of `size` bytes."""
    rng = random.Random(seed)
    filler = rng.randbytes(size)
    return [make_block(index.to_bytes(8, "big") + filler[8:]) for index in range(count)]


def run_simulation(simulation: Callable[[], Awaitable[T]]) -> T:
    """`simulation` under a clock that jumps, with trio's scheduler made deterministic: the same seed, the same run.

    The two switches are trio's own, for its tests and hypothesis-trio; they are set back afterwards.
    """
    order: Any = importlib.import_module("trio._core._run")
    before = order._ALLOW_DETERMINISTIC_SCHEDULING
    order._ALLOW_DETERMINISTIC_SCHEDULING = True
    order._r.seed(0)
    try:
        return trio.run(simulation, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        order._ALLOW_DETERMINISTIC_SCHEDULING = before
