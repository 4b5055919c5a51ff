"""The store beside plain LevelDB values and one file per block: `python -m benchmarks.store [--quick] [--json]`.

Every figure of one table comes from one run of this program. MB is 10^6 bytes; CPU is user and system time of the whole
process, threads of LevelDB included; write amplification is /proc/self/io's write_bytes over the bytes of the blocks,
read after everything has been synced. All disks are quiet when a part begins, and the page cache has been as large as
it gets before the first: memory that the system has to find costs several times the write into it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import plyvel

from ipcs.block import Block, make_block
from ipcs.cid import Multihash, multihash_of
from ipcs.store.store import Store, open_store
from ipcs.testing.dags import Dag, links_of, make_node

LEAF = 256 << 10
LEAVES_PER_BLOB = 64
BATCH_BYTES = 2 << 20
READS = 4000


@dataclass
class Cost:
    """What a measured section took."""

    seconds: float = 0.0
    cpu: float = 0.0
    written: int = 0


@contextmanager
def measured(*, settle: bool = False) -> Iterator[Cost]:
    """Fill a `Cost` around the section; with `settle` the disk is quiet before, and synced before `written` is read."""
    if settle:
        os.sync()
    cost = Cost()
    written, cpu, started = _written(), _cpu(), time.perf_counter()
    yield cost
    cost.seconds, cost.cpu = time.perf_counter() - started, _cpu() - cpu
    if settle:
        os.sync()
    cost.written = _written() - written


def _cpu() -> float:
    used = os.times()
    return used.user + used.system


def _written() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def disk_use(path: Path) -> int:
    """Bytes of disk under `path`, as the file system says."""
    return sum(found.stat().st_blocks * 512 for found in path.rglob("*") if found.is_file())


def make_blobs(count: int) -> list[Dag]:
    """Blobs of `LEAVES_PER_BLOB` random leaves under one node, hashed beforehand."""
    source = random.Random(1)
    blobs = []
    for _ in range(count):
        leaves = [make_block(source.randbytes(LEAF)) for _ in range(LEAVES_PER_BLOB)]
        node = make_node([leaf.cid for leaf in leaves])
        blobs.append(Dag(node.cid, [*leaves, node]))
    return blobs


def batches(blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """Batches as the exchange delivers them."""
    step = max(1, BATCH_BYTES // max(1, len(blocks[0].data)))
    for start in range(0, len(blocks), step):
        yield blocks[start : start + step]


class StoreSubject:
    """ipcs: value log and index; one commit, with its durability barrier, per blob."""

    name = "ipcs store"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = open_store(path, links_of)

    def put(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            for batch in batches(blob.blocks):
                self.store.blocks.put_many(batch)
            self.store.commit_blob(blob.record(), "containerd")

    def get(self, key: Multihash) -> int:
        (data,) = self.store.blocks.get_many([key])
        assert data is not None
        return len(data)

    def has(self, key: Multihash) -> bool:
        return self.store.blocks.has_many([key])[0]

    def delete(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            self.store.references.drop("containerd", blob.record().digest)
        self.store.collect()

    def close(self) -> None:
        self.store.close()


class PageCacheSubject(StoreSubject):
    """The same without commits, as a fetch in progress writes: the background sync runs beside."""

    name = "ipcs store, no commit"

    def put(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            for batch in batches(blob.blocks):
                self.store.blocks.put_many(batch)

    def delete(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            self.store.blocks.delete_many([multihash_of(block.cid) for block in blob.blocks])
        self.store.collect(down_to=sys.maxsize)


class LevelDBSubject:
    """plyvel with its defaults, one value per block, one write batch per 2 MiB."""

    name = "LevelDB values"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = plyvel.DB(str(path), create_if_missing=True)

    def put(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            for batch in batches(blob.blocks):
                with self.database.write_batch() as writes:
                    for block in batch:
                        writes.put(multihash_of(block.cid), bytes(block.data))

    def get(self, key: Multihash) -> int:
        return len(self.database.get(key))

    def has(self, key: Multihash) -> bool:
        return self.database.get(key) is not None

    def delete(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            for block in blob.blocks:
                self.database.delete(multihash_of(block.cid))
        self.database.compact_range()

    def close(self) -> None:
        self.database.close()


class FilesSubject:
    """One file per block in 256 directories, without fsync."""

    name = "files"
    durable = False

    def __init__(self, path: Path) -> None:
        self.path = path
        for prefix in range(256):
            (path / f"{prefix:02x}").mkdir(parents=True, exist_ok=True)

    def put(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            for block in blob.blocks:
                self._put(block)

    def _put(self, block: Block) -> None:
        path = self._path(multihash_of(block.cid))
        draft = path + ".new"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, block.data)
        if self.durable:
            os.fsync(descriptor)
        os.close(descriptor)
        os.rename(draft, path)
        if self.durable:
            directory = os.open(os.path.dirname(path), os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)

    def get(self, key: Multihash) -> int:
        descriptor = os.open(self._path(key), os.O_RDONLY)
        try:
            return len(os.read(descriptor, LEAF))
        finally:
            os.close(descriptor)

    def has(self, key: Multihash) -> bool:
        return os.path.exists(self._path(key))

    def delete(self, blobs: Sequence[Dag]) -> None:
        for blob in blobs:
            for block in blob.blocks:
                os.unlink(self._path(multihash_of(block.cid)))

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, key: Multihash) -> str:
        return f"{self.path}/{key[-1]:02x}/{key.hex()}"


class DurableFilesSubject(FilesSubject):
    """The same, file and directory synced for each block (as Kubo's flatfs does)."""

    name = "files, fsync each"
    durable = True


Subject = StoreSubject | LevelDBSubject | FilesSubject


def large_blocks(make: Callable[[Path], Subject], path: Path, blobs: Sequence[Dag]) -> dict[str, float | str]:
    """Put, get, delete half and reopen 256 KiB blocks."""
    subject = make(path)
    size = sum(len(block.data) for blob in blobs for block in blob.blocks)
    with measured(settle=True) as put:
        subject.put(blobs)
    keys = [multihash_of(block.cid) for blob in blobs for block in blob.blocks[:-1]]
    source = random.Random(2)
    rates, cpus = [], []
    for _ in range(3):
        sample = source.choices(keys, k=READS // 4)
        with measured() as get:
            read = sum(subject.get(key) for key in sample)
        rates.append(read / 1e6 / get.seconds)
        cpus.append(get.cpu / (read / 1e9))
    with measured(settle=True) as delete:
        subject.delete(blobs[::2])
    live = sum(len(block.data) for blob in blobs[1::2] for block in blob.blocks)
    subject.close()
    used = disk_use(path)
    started = time.perf_counter()
    subject = make(path)
    opened = time.perf_counter() - started
    assert subject.has(keys[-1])
    assert not subject.has(keys[0])
    subject.close()
    return {
        "subject": subject.name,
        "MB": size / 1e6,
        "put MB/s": size / 1e6 / put.seconds,
        "put CPU s/GB": put.cpu / (size / 1e9),
        "write amp": put.written / size,
        "get MB/s": statistics.median(rates),
        "get CPU s/GB": statistics.median(cpus),
        "delete half s": delete.seconds,
        "disk/live": used / live,
        "open ms": opened * 1e3,
    }


def small_blocks(path: Path, count: int) -> dict[str, float | str]:
    """Put and get blocks of 4 KiB through the store, three times; the first writes to memory the system has to find."""
    source = random.Random(3)
    blocks = [make_block(source.randbytes(4096)) for _ in range(count)]
    keys = [multihash_of(block.cid) for block in blocks]
    puts = []
    for _ in range(3):
        shutil.rmtree(path, ignore_errors=True)
        with open_store(path, links_of) as store, measured(settle=True) as put:
            for batch in batches(blocks):
                store.blocks.put_many(batch)
        puts.append(put)
    with open_store(path, links_of) as store:
        source.shuffle(keys)
        with measured() as one:
            for key in keys[: count // 4]:
                store.blocks.get_many([key])
        with measured() as many:
            for start in range(0, count // 4, 64):
                store.blocks.get_many(keys[start : start + 64])
    settled = statistics.median([put.seconds for put in puts])
    return {
        "blocks of 4 KiB": count,
        "puts/s, first": count / puts[0].seconds,
        "puts/s": count / settled,
        "put CPU us": statistics.median([put.cpu for put in puts]) / count * 1e6,
        "write amp": statistics.median([put.written for put in puts]) / (count * 4096),
        "gets/s": count // 4 / one.seconds,
        "gets/s, 64 at once": count // 4 / many.seconds,
    }


def many_keys(path: Path, count: int) -> dict[str, float | str]:
    """`has` and open with `count` keys. The blocks are 64 bytes long, so that only the index is large."""
    with open_store(path, links_of) as store:
        started = time.perf_counter()
        for start in range(0, count, 1024):
            store.blocks.put_many([make_block(index.to_bytes(64, "big")) for index in range(start, start + 1024)])
        put = time.perf_counter() - started
    opens = []
    for _ in range(5):
        started = time.perf_counter()
        store = open_store(path, links_of)
        opens.append(time.perf_counter() - started)
        store.close()
    with open_store(path, links_of) as store:
        source = random.Random(4)
        hits = [_key(source.randrange(count)) for _ in range(50_000)]
        misses = [_key(-index) for index in range(1, 50_001)]
        row: dict[str, float | str] = {
            "keys": count,
            "puts/s": count / put,
            "open ms": statistics.median(opens) * 1e3,
            "index MB": disk_use(path) / 1e6,
        }
        for name, keys, batch in (
            ("has hit us", hits, 1),
            ("has miss us", misses, 1),
            ("has hit us, 16 at once", hits, 16),
            ("has miss us, 16 at once", misses, 16),
        ):
            row[name] = statistics.median([_time_has(store, keys, batch) for _ in range(3)])
        return row


def _key(index: int) -> Multihash:
    data = index.to_bytes(64, "big", signed=index < 0)
    return Multihash(b"\x12\x20" + hashlib.sha256(data).digest())


def _time_has(store: Store, keys: Sequence[Multihash], batch: int) -> float:
    started = time.perf_counter()
    for start in range(0, len(keys), batch):
        store.blocks.has_many(keys[start : start + batch])
    return (time.perf_counter() - started) / len(keys) * 1e6


def show(rows: Sequence[dict[str, float | str]]) -> None:
    """Print rows of one shape as a table."""
    names = list(rows[0])
    cells = [[value if isinstance(value, str) else f"{value:,.4g}" for value in row.values()] for row in rows]
    widths = [max(len(name), *(len(row[column]) for row in cells)) for column, name in enumerate(names)]
    for line in [names, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, for a look")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--directory", type=Path, help="where to put the stores (default: a temporary directory)")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    folder = Path(tempfile.mkdtemp(prefix="ipcs-bench-store-", dir=options.directory))
    try:
        blobs = make_blobs(80 // scale)
        large = []
        large_blocks(FilesSubject, folder / "warm-up", blobs)  # finds memory for the page cache, and is not reported
        shutil.rmtree(folder / "warm-up")
        for make, some in (
            (StoreSubject, blobs),
            (PageCacheSubject, blobs),
            (LevelDBSubject, blobs[: max(2, 18 // scale)]),
            (FilesSubject, blobs),
            (DurableFilesSubject, blobs[: max(2, 8 // scale)]),
        ):
            large.append(large_blocks(make, folder / make.__name__, some))
            shutil.rmtree(folder / make.__name__)
        del blobs
        small = small_blocks(folder / "small", 100_000 // scale)
        shutil.rmtree(folder / "small")
        keys = many_keys(folder / "keys", 1_024_000 // scale)
    finally:
        shutil.rmtree(folder)
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {time.strftime('%F')}"
    if options.json:
        json.dump({"machine": machine, "256 KiB": large, "4 KiB": small, "keys": keys}, sys.stdout, indent=1)
        return
    print(machine, "\n\n256 KiB blocks")
    show(large)
    print("4 KiB blocks")
    show([small])
    print("many keys")
    show([keys])


if __name__ == "__main__":
    main()
