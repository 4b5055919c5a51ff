"""Measurements behind the layout of the store (docs/adr/0010 to 0012): `python -m benchmarks.store_layout`.

Page-aligned values against values behind a header; punching holes against rewriting sparse segments; blocks in the
index against blocks in the log, by size. All on one file system, by turns, medians of three.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ipcs.block import Block, make_block
from ipcs.cid import multihash_of
from ipcs.store import logstore
from ipcs.store.disk import DiskDirectory
from ipcs.store.segments import Location, SegmentLog
from ipcs.store.store import open_store
from ipcs.testing.dags import links_of

from .store import LEAF, Cost, disk_use, measured, show

TURNS = 3
VALUES = 1200
BATCH = 8
HEADER = 48
"""Bytes of a record header: magic, length, multihash."""

Row = dict[str, float | str]


def alignment(folder: Path) -> list[Row]:
    """Write, read and punch every other value: bare at page boundaries, or packed behind headers."""
    source = random.Random(1)
    values = [source.randbytes(LEAF) for _ in range(BATCH)]
    header = source.randbytes(HEADER)
    costs: dict[str, list[tuple[Cost, Cost, int]]] = {"aligned": [], "packed": []}
    for turn in range(TURNS + 1):
        for name in sorted(costs, reverse=bool(turn % 2)):
            path = folder / name
            stride = LEAF + (HEADER if name == "packed" else 0)
            buffers = [part for value in values for part in ([header, value] if name == "packed" else [value])]
            cost = _alignment(path, buffers, stride)
            path.unlink()
            if turn:  # the first finds memory for the page cache
                costs[name].append(cost)
    return [
        {
            "values": name,
            "write MB/s": _median([_rate(write) for write, _, _ in found]),
            "write CPU s/GB": _median([_per_gb(write) for write, _, _ in found]),
            "read MB/s": _median([_rate(read) for _, read, _ in found]),
            "read CPU s/GB": _median([_per_gb(read) for _, read, _ in found]),
            "disk/live after punching half": _median([2 * used / (VALUES * LEAF) for _, _, used in found]),
        }
        for name, found in costs.items()
    ]


def _alignment(path: Path, buffers: list[bytes], stride: int) -> tuple[Cost, Cost, int]:
    directory = DiskDirectory(path.parent)
    file = directory.open(path.name, create=True)
    with measured(settle=True) as write:
        for start in range(0, VALUES, BATCH):
            file.write(buffers, start * stride)
    order = random.Random(2).sample(range(VALUES), VALUES)
    with measured() as read:
        for index in order:
            file.read(LEAF, index * stride + stride - LEAF)
    for index in range(0, VALUES, 2):
        file.punch(index * stride, stride)
    return write, read, path.stat().st_blocks * 512


def views(folder: Path) -> list[Row]:
    """Read cached values at random: pread into new bytes, or a view of a mapping that the reader copies or hashes."""
    path = folder / "mapped"
    path.write_bytes(random.Random(1).randbytes(LEAF * 400))
    descriptor = os.open(path, os.O_RDONLY)
    mapping = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    readers: dict[str, Callable[[int], object]] = {
        "pread": lambda at: os.pread(descriptor, LEAF, at),
        "view, all of it copied": lambda at: bytes(mapping[at : at + LEAF]),
        "view, 32 KiB of it copied": lambda at: bytes(mapping[at : at + (32 << 10)]),
    }
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(TURNS):
        for name, read in readers.items():
            order = random.Random(3).choices(range(400), k=2000)
            with measured() as cost:
                for index in order:
                    read(index * LEAF)
            rates[name].append(cost.seconds / len(order) * 1e6)
    os.close(descriptor)
    return [{"read of 256 KiB": name, "us": _median(found)} for name, found in rates.items()]


def reclaiming(folder: Path) -> list[Row]:
    """Free every other run of 16 values: by punching them out, or by copying the others and unlinking the segments."""
    rows: dict[str, list[tuple[Cost, float]]] = {"punch holes": [], "rewrite segments": []}
    for _ in range(TURNS):
        for name, found in rows.items():
            path = folder / "reclaim"
            log = SegmentLog(DiskDirectory(path), 1)
            source = random.Random(1)
            places: list[Location] = []
            for _ in range(0, VALUES, BATCH):
                places += log.append([source.randbytes(LEAF) for _ in range(BATCH)])
            log.sync()
            dead = [at for index, at in enumerate(places) if index // 16 % 2 == 0]
            live = [at for index, at in enumerate(places) if index // 16 % 2]
            with measured(settle=True) as cost:
                if name == "punch holes":
                    log.free(dead)
                else:
                    _rewrite(DiskDirectory(path), log, live)
                log.sync()
            found.append((cost, log.allocated() / (len(live) * LEAF)))
            log.close()
            shutil.rmtree(path)
    return [
        {
            "reclaim half of 315 MB": name,
            "seconds": _median([cost.seconds for cost, _ in found]),
            "CPU s": _median([cost.cpu for cost, _ in found]),
            "MB written": _median([cost.written / 1e6 for cost, _ in found]),
            "disk/live": _median([used for _, used in found]),
        }
        for name, found in rows.items()
    ]


def _rewrite(directory: DiskDirectory, log: SegmentLog, live: list[Location]) -> None:
    """Copy what is live behind the last segment, make it durable, and only then unlink the old ones."""
    old = log.segments()
    fresh = SegmentLog(directory, old[-1] + 1)
    for start in range(0, len(live), BATCH):
        fresh.append([log.read(at) for at in live[start : start + BATCH]])
    fresh.sync()
    for segment in old:
        log.remove(segment)
    fresh.close()


def thresholds(folder: Path, limit: int) -> list[Row]:
    """Blocks of one size in the index or in the log: 20 MB of each."""
    rows: list[Row] = []
    kept = logstore.INLINE_MAX
    for size in (256, 512, 1024, 2048, 4096):
        count = min(limit, 20_000_000 // size)
        source = random.Random(size)
        blocks = [make_block(source.randbytes(size)) for _ in range(count)]
        for place, inline_max in (("index", 1 << 20), ("log", 0)):
            found = []
            for _ in range(TURNS):
                logstore.INLINE_MAX = inline_max
                found.append(_threshold(folder / "threshold", blocks, size))
            rows.append(
                {
                    "size": size,
                    "in the": place,
                    "puts/s": _median([count / put.seconds for put, _, _ in found]),
                    "gets/s": _median([count / get for _, get, _ in found]),
                    "write amp": _median([put.written / (count * size) for put, _, _ in found]),
                    "disk/bytes": _median([used / (count * size) for _, _, used in found]),
                }
            )
    logstore.INLINE_MAX = kept
    return rows


def _threshold(path: Path, blocks: list[Block], size: int) -> tuple[Cost, float, int]:
    step = max(1, (1 << 20) // size)
    with open_store(path, links_of) as store:
        with measured(settle=True) as put:
            for start in range(0, len(blocks), step):
                store.blocks.put_many(blocks[start : start + step])
        keys = [multihash_of(block.cid) for block in blocks]
        random.Random(5).shuffle(keys)
        started = time.perf_counter()
        for key in keys:
            store.blocks.get_many([key])
        get = time.perf_counter() - started
    used = disk_use(path) - (path / "index.reserve").stat().st_size
    shutil.rmtree(path)
    return put, get, used


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _rate(cost: Cost) -> float:
    return VALUES * LEAF / 1e6 / cost.seconds


def _per_gb(cost: Cost) -> float:
    return cost.cpu / (VALUES * LEAF / 1e9)


def main() -> None:
    """Run all and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary directory)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ipcs-bench-layout-", dir=options.directory))
    try:
        show(alignment(folder))
        show(views(folder))
        show(reclaiming(folder))
        show(thresholds(folder, 20_000))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
