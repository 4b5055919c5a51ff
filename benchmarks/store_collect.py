"""Collection beside readers and a writer, and what it costs: `python -m benchmarks.store_collect [--json]`.

Two tables. The first: 8 threads read blocks of 256 KiB of held blobs as fast as they can while one ingests blobs as
cache, in phases with and without a thread that collects without pause, by turns; percentiles of a read in ms. The
second: seconds to collect some of many blobs of 8 blocks that share half of them, against how many go and how many
stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ipcs.block import Block, make_block
from ipcs.cid import Multihash, multihash_of
from ipcs.store.store import Store, open_store
from ipcs.testing.dags import Dag, links_of, make_node

from .store import LEAF, show

READERS = 8
PHASE = 3.0
"""Seconds of each phase."""

Row = dict[str, float | str]


def random_blob(source: random.Random, leaves: int) -> Dag:
    """A blob of random leaves of 256 KiB."""
    blocks = [make_block(source.randbytes(LEAF)) for _ in range(leaves)]
    node = make_node([block.cid for block in blocks])
    return Dag(node.cid, [*blocks, node])


class Load:
    """Readers of held blobs and a writer of cache; the latencies of the reads in one phase."""

    def __init__(self, store: Store, keys: Sequence[Multihash], cache: Sequence[Dag]) -> None:
        self._store = store
        self._keys = keys
        self._cache = cache
        self._done = threading.Event()
        self.latencies: list[float] = []
        self.written = 0
        self.collected = 0

    def run(self, *, collecting: bool) -> None:
        """Run one phase."""
        threads = [threading.Thread(target=self._read, args=(number,)) for number in range(READERS)]
        threads.append(threading.Thread(target=self._write))
        if collecting:
            threads.append(threading.Thread(target=self._collect))
        for thread in threads:
            thread.start()
        time.sleep(PHASE)
        self._done.set()
        for thread in threads:
            thread.join()

    def _read(self, number: int) -> None:
        source = random.Random(number)
        mine = []
        while not self._done.is_set():
            key = source.choice(self._keys)
            started = time.perf_counter()
            (data,) = self._store.blocks.get_many([key])
            mine.append(time.perf_counter() - started)
            assert data is not None, "a reader failed"
            assert len(data) == LEAF, "a reader failed"
        self.latencies += mine

    def _write(self) -> None:
        for turn in range(1 << 30):
            for dag in self._cache:
                if self._done.is_set():
                    return
                with self._store.hold() as hold:
                    hold.put_many(dag.blocks)
                    self._store.commit_blob(dag.record(at=turn))
                self.written += sum(len(block.data) for block in dag.blocks)

    def _collect(self) -> None:
        while not self._done.is_set():
            self.collected += self._store.collect().block_bytes


def beside(path: Path, turns: int) -> list[Row]:
    """Percentiles of reads with and without collection."""
    source = random.Random(1)
    held = [random_blob(source, 64) for _ in range(16)]
    cache = [random_blob(source, 8) for _ in range(24)]
    with open_store(path, links_of) as store:
        for dag in held:
            store.blocks.put_many(dag.blocks)
            store.commit_blob(dag.record(), "containerd")
        keys = [multihash_of(block.cid) for dag in held for block in dag.blocks[:-1]]
        loads: dict[bool, list[Load]] = {False: [], True: []}
        for _ in range(turns):
            for collecting in (False, True):
                load = Load(store, keys, cache)
                load.run(collecting=collecting)
                loads[collecting].append(load)
                store.collect()
    return [_row(collecting=collecting, loads=found) for collecting, found in loads.items()]


def _row(*, collecting: bool, loads: list[Load]) -> Row:
    def percentile(share: float) -> float:
        return statistics.median(sorted(load.latencies)[int(len(load.latencies) * share)] * 1e3 for load in loads)

    return {
        "collection": "running" if collecting else "none",
        "reads/s": statistics.median(len(load.latencies) / PHASE for load in loads),
        "p50 ms": percentile(0.5),
        "p90 ms": percentile(0.9),
        "p99 ms": percentile(0.99),
        "p99.9 ms": percentile(0.999),
        "written MB/s": statistics.median(load.written / PHASE / 1e6 for load in loads),
        "collected MB/s": statistics.median(load.collected / PHASE / 1e6 for load in loads),
    }


def curve(path: Path, kept: int, steps: Sequence[int]) -> list[Row]:
    """Seconds to collect each number of `steps` out of `kept` blobs that stay."""
    source = random.Random(2)
    shared = [make_block(source.randbytes(5000)) for _ in range(1000)]
    rows: list[Row] = []
    with open_store(path, links_of) as store:
        for number in range(kept):
            _commit_small(store, source, shared, f"kept {number}", owner="containerd")
        for step in steps:
            for number in range(step):
                _commit_small(store, source, shared, f"gone {step} {number}", owner=None)
            started = os.times()
            report = store.collect()
            used = os.times()
            assert report.blobs == step
            rows.append(
                {
                    "blobs kept": kept,
                    "blobs gone": step,
                    "blocks gone": report.blocks,
                    "seconds": report.seconds,
                    "CPU s": used.user + used.system - started.user - started.system,
                    "ms a blob": report.seconds / step * 1e3,
                    "MB freed": report.freed_bytes / 1e6,
                }
            )
    return rows


def _commit_small(
    store: Store, source: random.Random, shared: Sequence[Block], name: str, *, owner: str | None
) -> None:
    own = [make_block(f"{name} {index}".encode() * 250) for index in range(4)]
    leaves = [*own, *source.sample(shared, 4)]
    node = make_node([block.cid for block in leaves])
    store.blocks.put_many([*leaves, node])
    store.commit_blob(Dag(node.cid, [*leaves, node]).record(), owner)


def main() -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--turns", type=int, default=3, help="pairs of phases (default: 3)")
    parser.add_argument("--directory", type=Path, help="where to put the stores (default: a temporary directory)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ipcs-bench-collect-", dir=options.directory))
    try:
        reads = beside(folder / "beside", options.turns)
        costs = [row for kept in (1000, 10_000) for row in curve(folder / str(kept), kept, (30, 100, 300, 1000, 3000))]
    finally:
        shutil.rmtree(folder)
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {time.strftime('%F')}"
    if options.json:
        json.dump({"machine": machine, "beside": reads, "curve": costs}, sys.stdout, indent=1)
        return
    print(machine, f"\n\n{READERS} readers and a writer")
    show(reads)
    print("cost of a collection")
    show(costs)


if __name__ == "__main__":
    main()
