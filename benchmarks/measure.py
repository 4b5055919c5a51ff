"""What one run costs: CPU of each process, peak memory; medians with their spread; the record in JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from ipcs.testing.peers import background

PROJECT = Path(__file__).resolve().parents[1]
MEMORY_POLL = 0.02
"""Seconds between looks at a process's memory: 60 us each, so 0.3 % of one core for each process watched."""
_CPUCLOCK_SCHED = 2
"""clock_getcpuclockid(3): the clock of a process is `~pid << 3 | 2`; it counts all threads, ended ones too, in ns."""


def cpu_seconds(pid: int) -> float:
    """User and system seconds that process `pid` has used."""
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def anonymous_bytes(pid: int) -> int:
    """RssAnon of process `pid`: what it allocated, without mapped files and shared memory. 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(slots=True)
class Cost:
    """CPU-seconds used and peak RssAnon in bytes while measured."""

    fetcher_cpu: float = 0.0
    provider_cpu: float = 0.0
    """Of all providers together."""
    fetcher_peak: int = 0
    provider_peak: int = 0
    """Of the largest provider."""


@asynccontextmanager
async def watch(fetcher: int, providers: Sequence[int]) -> AsyncIterator[Cost]:
    """Measure the processes with these pids from entry to exit; the yielded `Cost` is complete on exit."""
    cost = Cost()
    fetcher_before = cpu_seconds(fetcher)
    providers_before = sum(map(cpu_seconds, providers))

    async def poll() -> None:
        while True:
            cost.fetcher_peak = max(cost.fetcher_peak, anonymous_bytes(fetcher))
            cost.provider_peak = max([cost.provider_peak, *map(anonymous_bytes, providers)])
            await trio.sleep(MEMORY_POLL)

    async with background(poll):
        yield cost
    cost.fetcher_cpu = cpu_seconds(fetcher) - fetcher_before
    cost.provider_cpu = sum(map(cpu_seconds, providers)) - providers_before


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of some figures, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Raises `statistics.StatisticsError` for no figures."""
        return cls(statistics.median(figures), min(figures), max(figures))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, kernel, Python, load when it began."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def commit() -> str:
    """The checkout's commit, with `-dirty` when files differ from it; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


@dataclass(frozen=True, slots=True)
class Record:
    """One session of measurements, as it is kept."""

    command: str
    results: list[dict[str, Any]]
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    commit: str = field(default_factory=commit)
    machine: dict[str, Any] = field(default_factory=machine)
    began: float = field(default_factory=time.monotonic, repr=False)

    def write(self, path: Path, *, complete: bool) -> None:
        """Write what there is, whole or not at all; a session that is cut short keeps what it wrote last."""
        kept = asdict(self) | {"minutes": round((time.monotonic() - self.began) / 60, 1), "complete": complete}
        del kept["began"]
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(kept, indent=1) + "\n")
        fresh.replace(path)
