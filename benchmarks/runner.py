"""One scenario: providers that stay, a fresh fetcher for each run, the contenders in turn."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from ipcs.errors import DeadlineExceeded
from ipcs.testing.peers import Peer

from .contenders import Blob, Contender, Share
from .measure import Cost, watch
from .scenarios import KIB, MB, Scenario

WARM_UP = 4 * MB
"""Bytes of the file that each fetcher gets first: as in a running node the connection is open and the code loaded."""


@dataclass(frozen=True, slots=True)
class Run:
    """One fetch of one scenario by one contender."""

    contender: str
    scenario: Scenario
    round: int
    seconds: float
    cost: Cost
    duplicates: int | None
    """Bytes received more than once, where the contender tells."""
    stalls: int
    """Fetchers given up before this one ended."""

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.scenario.size / MB / self.seconds

    @property
    def cpu(self) -> float:
        """CPU-seconds per GB of both sides together."""
        return (self.cost.fetcher_cpu + self.cost.provider_cpu) / self.scenario.size * 1e9

    def row(self) -> dict[str, Any]:
        """As it is kept in JSON."""
        return asdict(self) | {
            "scenario": self.scenario.name,
            "size": self.scenario.size,
            "rate": self.rate,
            "cpu": self.cpu,
        }


@contextmanager
def workdir(scenario: Scenario, disk: Path) -> Iterator[Path]:
    """A directory for the stores of this process, removed afterwards."""
    path = (disk if scenario.durable else Path("/dev/shm")) / f"ipcs-bench-{os.getpid()}"
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def make_blob(path: Path, size: int, leaf: int, seed: int) -> Blob:
    """A file of incompressible bytes."""
    source = random.Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, MB):
            file.write(source.randbytes(min(MB, size - start)))
    return Blob(path, size, leaf)


def touch_memory(path: Path, size: int) -> None:
    """Write `size` bytes to /dev/shm and remove them, so that the run gets memory that the machine has at hand.

    In a virtual machine the first touch of memory costs a fault in the host: up to 1.5 CPU-s/GB, by chance of what ran
    before.
    """
    zeros = bytes(MB)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // MB + 1):
            file.write(zeros)
    path.unlink()


class Loaded:
    """One contender's providers, holding the warm-up file and the file."""

    def __init__(self, contender: Contender, scenario: Scenario, directory: Path) -> None:
        self.contender = contender
        self._scenario = scenario
        self._directory = directory
        self._providers: list[Peer] = []
        self._warm_up = self._root = ""
        self._fetchers = 0

    @asynccontextmanager
    async def open(self, warm_up: Blob, blob: Blob) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for index in range(self._scenario.providers):
                place = self._directory / f"{self.contender.name}-provider-{index}"
                provider = self.contender.provider
                peer = await stack.enter_async_context(provider.open(place, durable=self._scenario.durable))
                share = Share(index, self._scenario.providers) if self._scenario.thirds else Share()
                self._warm_up = await provider.load(peer, place, warm_up, Share())
                self._root = await provider.load(peer, place, blob, share)
                self._providers.append(peer)
            yield

    async def run(self, number: int) -> Run | None:
        """Fetch once with a fresh node; None when every try stalled."""
        for stalls in range(self.contender.tries):
            self._fetchers += 1
            place = self._directory / f"{self.contender.name}-fetcher-{self._fetchers}"
            try:
                return await self._fetch(place, number, stalls)
            except DeadlineExceeded:
                continue
            finally:
                await trio.to_thread.run_sync(shutil.rmtree, place)
        return None

    async def _fetch(self, place: Path, number: int, stalls: int) -> Run:
        scenario, software = self._scenario, self.contender.fetcher
        extra = {"path": str(place / "copy")} if software.fetch == "get" else {}
        async with software.open(place, durable=scenario.durable) as fetcher:
            for provider in self._providers:
                await fetcher.call("connect", addr=provider.addr)
            await fetcher.call(software.fetch, cid=self._warm_up, timeout=scenario.stall, **extra)
            if scenario.durable:
                await trio.to_thread.run_sync(os.sync)
            else:
                await trio.to_thread.run_sync(touch_memory, place / "touched", scenario.size)
            pids = [provider.process.pid for provider in self._providers]
            async with watch(fetcher.process.pid, pids) as cost:
                answer = await fetcher.call(software.fetch, cid=self._root, timeout=scenario.stall, **extra)
        return Run(self.contender.name, scenario, number, answer["seconds"], cost, answer.get("duplicates"), stalls)


async def alternate(
    scenario: Scenario, contenders: Sequence[Contender], rounds: int, disk: Path, report: Callable[[Run | None], None]
) -> None:
    """`rounds` runs of each contender, in turn; `report` gets each, or None when every try of it stalled."""
    with workdir(scenario, disk) as directory:
        warm_up = make_blob(directory / "warm-up", WARM_UP, 256 * KIB, seed=1)
        blob = make_blob(directory / "blob", scenario.size, scenario.leaf, seed=2)
        async with AsyncExitStack() as stack:
            loaded = [Loaded(contender, scenario, directory) for contender in contenders]
            for one in loaded:
                await stack.enter_async_context(one.open(warm_up, blob))
            for number in range(rounds):
                for one in loaded:
                    report(await one.run(number))
