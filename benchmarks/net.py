"""What the network costs: two processes on loopback, blocks of 256 KiB on one stream, and a stream for every block.

    python benchmarks/net.py [--security noise|tls] [--megabytes 512] [--runs 3] [--json FILE]

The receiver hashes every block with sha256, as a verified transfer has to, and stores nothing. `cpu` is user and system
time of a process during its transfer, in seconds per GB (10^9 bytes) or microseconds per stream. Run it alone on the
machine; on a busy one only the CPU figures mean anything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import trio

from ipcs.cid import PeerId
from ipcs.net.host import Host, HostConfig, open_host
from ipcs.net.keys import Identity

BLOCK = 256 * 1024
SMALL = 1024
DONE = "/ipcs/benchmark/done/1"


@dataclass(frozen=True)
class Scenario:
    """`count` blocks of `size` bytes: all on one stream, or a stream each with `parallel` of them open at once."""

    name: str
    size: int
    count: int
    parallel: int = 0

    @property
    def stream_each(self) -> bool:
        """Whether each block has a stream of its own, as Kubo does it."""
        return self.parallel > 0


class Receiver:
    """An `Inbound` that hashes blocks of `size` bytes."""

    def __init__(self) -> None:
        self.blocks = 0
        self.size = BLOCK

    def connected(self, peer: PeerId) -> None:
        """Nothing to do."""

    def disconnected(self, peer: PeerId) -> None:
        """Nothing to do."""

    def accept(self, _peer: PeerId, _protocol: str) -> HashingSink:
        """A sink for the next stream."""
        return HashingSink(self)

    async def flush(self, peer: PeerId) -> None:
        """Never holds the reader back."""


class HashingSink:
    """Hashes what arrives, a block at a time, where it lies."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._left = receiver.size
        self._hash = hashlib.sha256()

    def feed(self, chunk: memoryview) -> None:
        """Hash it."""
        while chunk:
            piece = chunk[: self._left]
            chunk = chunk[len(piece) :]
            self._hash.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._hash.digest()
                self._receiver.blocks += 1
                self._left = self._receiver.size
                self._hash = hashlib.sha256()

    def eof(self) -> None:
        """The stream is over."""

    def reset(self) -> None:
        """Never, in a benchmark that works."""
        raise RuntimeError("stream reset")


def cpu() -> float:
    """User and system seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def receive(pipe: Connection, security: str) -> None:
    """The receiving process: says where it listens, then reports after each scenario."""

    async def main() -> None:
        config = HostConfig(Identity(b"receiver".ljust(32)), security=[security])
        async with open_host(config) as host:
            receiver = Receiver()
            host.attach(receiver)
            pipe.send(host.addresses[0])
            while (command := await trio.to_thread.run_sync(pipe.recv)) != "quit":
                receiver.size, receiver.blocks, count = command["size"], 0, command["count"]
                started = cpu()
                pipe.send("ready")
                while receiver.blocks < count:  # noqa: ASYNC110 - a look each millisecond costs nothing
                    await trio.sleep(0.001)
                pipe.send({"cpu": cpu() - started, "rss": peak_rss()})

    trio.run(main)


def peak_rss() -> int:
    """Largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


async def send_all(host: Host, peer: PeerId, scenario: Scenario) -> None:
    """Send the blocks of `scenario`."""
    block = os.urandom(scenario.size)
    if not scenario.stream_each:
        stream = await host.open_stream(peer)
        for _ in range(scenario.count):
            await stream.write([block])
        await stream.aclose()
        return

    async def send_each() -> None:
        for _ in range(scenario.count // scenario.parallel):
            stream = await host.open_stream(peer)
            await stream.write([block])
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(scenario.parallel):
            nursery.start_soon(send_each)


async def measure(pipe: Connection, host: Host, peer: PeerId, scenario: Scenario) -> dict[str, Any]:
    """Run `scenario` once."""
    pipe.send({"size": scenario.size, "count": scenario.count})
    await trio.to_thread.run_sync(pipe.recv)
    started, started_cpu = time.perf_counter(), cpu()
    await send_all(host, peer, scenario)
    report = await trio.to_thread.run_sync(pipe.recv)
    seconds = time.perf_counter() - started
    sending = cpu() - started_cpu
    gigabytes = scenario.size * scenario.count / 1e9
    return {
        "scenario": scenario.name,
        "MB/s": gigabytes * 1000 / seconds,
        "receive CPU-s/GB": report["cpu"] / gigabytes,
        "send CPU-s/GB": sending / gigabytes,
        "streams/s": scenario.count / seconds if scenario.stream_each else None,
        "receive us/stream": 1e6 * report["cpu"] / scenario.count if scenario.stream_each else None,
        "receiver RSS MB": report["rss"],
        "sender RSS MB": peak_rss(),
    }


def scenarios(megabytes: int) -> list[Scenario]:
    """What is measured, for about `megabytes` of blocks."""
    blocks = megabytes * 1_000_000 // BLOCK
    return [
        Scenario("256 KiB, one stream", BLOCK, blocks),
        Scenario("256 KiB, 8 streams", BLOCK, blocks // 8 * 8, parallel=8),
        Scenario("1 KiB, 1 stream", SMALL, 10_000, parallel=1),
        Scenario("1 KiB, 8 streams", SMALL, 10_000, parallel=8),
    ]


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All runs of all scenarios."""
    pipe, other = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=receive, args=(other, arguments.security), daemon=True)
    child.start()
    address = pipe.recv()
    results: list[dict[str, Any]] = []

    async def main() -> None:
        config = HostConfig(Identity(b"sender".ljust(32)), listen=[], security=[arguments.security])
        async with open_host(config) as host:
            peer = await host.connect(address)
            await host.wait_identified(peer)
            await measure(pipe, host, peer, Scenario("warm-up", BLOCK, 100))
            alternating = scenarios(arguments.megabytes) * arguments.runs
            results.extend([await measure(pipe, host, peer, scenario) for scenario in alternating])
        pipe.send("quit")

    trio.run(main)
    child.join(10)
    return results


def summary(results: list[dict[str, Any]]) -> list[str]:
    """A table: median and spread over the runs."""
    lines = []
    for name in dict.fromkeys(result["scenario"] for result in results):
        rows = [result for result in results if result["scenario"] == name]
        cells = []
        for column, form in COLUMNS.items():
            values = [row[column] for row in rows if row[column] is not None]
            if values:
                cells.append(f"{column} {form(statistics.median(values))} [{form(min(values))}-{form(max(values))}]")
        lines.append(f"{name:22} " + "  ".join(cells))
    return lines


def whole(value: float) -> str:
    """Without decimals."""
    return f"{value:.0f}"


def fine(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


COLUMNS: dict[str, Callable[[float], str]] = {
    "MB/s": whole,
    "receive CPU-s/GB": fine,
    "send CPU-s/GB": fine,
    "receive us/stream": whole,
    "receiver RSS MB": whole,
}


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--security", choices=["noise", "tls"], default="noise")
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    results = run(arguments)
    print(f"{arguments.security}, {platform.machine()}, {os.cpu_count()} CPUs, {time.strftime('%F')}")
    print("\n".join(summary(results)))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
