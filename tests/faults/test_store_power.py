"""Power loss on real files: what was not synced is cut off or zeroed, in the log of LevelDB and in segments.

The files are watched, not the calls: after each synced write the length of LevelDB's log is safe, and after each
`fdatasync` the pages of a segment. A crash copies the directory, spoils what is not safe, and opens the copy.
(`ipcs.testing.store_power` does the same in memory, thousands of times, and at every step of a collection.)
"""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from ipcs.cid import multihash_of
from ipcs.store.disk import DiskDirectory, DiskFile
from ipcs.store.layout import PAGE
from ipcs.store.leveldb import LevelDBDatastore
from ipcs.store.store import Store, StoreOptions
from ipcs.testing.dags import links_of, make_dag

MEMORY = Path("/dev/shm")
BLOBS = 8


class WatchedDatastore(LevelDBDatastore):
    """Knows how much of its log is safe. Nothing is compacted: all of a test's pairs fit into one memtable."""

    def __init__(self, path):
        super().__init__(path)
        self.path = path
        self.safe = self.lengths()

    def write(self, batch, *, sync):
        super().write(batch, sync=sync)
        if sync:
            self.safe = self.lengths()

    def lengths(self):
        return {log.name: log.stat().st_size for log in self.path.glob("*.log")}

    def spoil(self, copy, source):
        """Cut the log of `copy` somewhere behind what is safe, or zero its end."""
        for log in copy.glob("*.log"):
            safe, size = self.safe.get(log.name, 0), log.stat().st_size
            keep = source.randint(safe, size)
            with log.open("r+b") as file:
                file.truncate(keep)
                if source.random() < 0.3:
                    file.truncate(size)


class WatchedFile(DiskFile):
    """Tells its directory which pages are written, and when all of them are safe."""

    def __init__(self, path, flags, unsafe):
        super().__init__(path, flags)
        self.unsafe = unsafe

    def write(self, buffers, offset):
        super().write(buffers, offset)
        size = sum(map(len, buffers))
        self.unsafe.update(range(offset // PAGE, -(-(offset + size) // PAGE)))

    def sync(self):
        super().sync()
        self.unsafe.clear()


class WatchedDirectory(DiskDirectory):
    """Knows the unsafe pages of its files."""

    def __init__(self, path):
        super().__init__(path)
        self.path = path
        self.unsafe = {}

    def open(self, name, *, create=False):
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        return WatchedFile(str(self.path / name), flags, self.unsafe.setdefault(name, set()))

    def spoil(self, copy, source):
        """Zero pages of `copy` that are not safe, and cut files off."""
        for file in sorted(copy.iterdir()):
            unsafe = sorted(self.unsafe.get(file.name, ()))
            with file.open("r+b") as data:
                for page in unsafe:
                    if source.random() < 0.5:
                        data.seek(page * PAGE)
                        data.write(bytes(PAGE))
                if unsafe and source.random() < 0.5:
                    data.truncate(source.choice(unsafe) * PAGE)


def blob(number):
    source = random.Random(number)
    leaves = [source.randbytes(source.choice((300, 5000, 40_000))) for _ in range(source.randint(2, 12))]
    return make_dag([*leaves, b"shared" * 2000], 4)


def operate(store, source, held):
    """One random operation; `held` is what it promised."""
    dag = blob(source.randrange(BLOBS))
    kind = source.choice(("ingest", "ingest", "fetch", "fetch", "drop", "collect"))
    if kind == "fetch":
        store.blocks.put_many(dag.blocks[: source.randint(1, len(dag.blocks))])
    elif kind == "ingest":
        store.blocks.put_many(dag.blocks)
        store.commit_blob(dag.record(), "user/me")
        held.add(dag.record().digest)
    elif kind == "drop":
        store.references.drop("user/me", dag.record().digest)
        held.discard(dag.record().digest)
    else:
        store.collect()


def check(store, held):
    """Every promise is kept, and every block that is there is right."""
    assert {at.root for at in store.references.held_by()} == held
    for number in range(BLOBS):
        dag = blob(number)
        found = store.blocks.get_many([multihash_of(block.cid) for block in dag.blocks])
        for data, block in zip(found, dag.blocks, strict=True):
            assert data is None or bytes(data) == block.data
        if dag.record().digest in held:
            assert store.blobs.get(dag.record().digest) is not None
            assert None not in found
    assert store.fsck().problems == ()


@pytest.mark.parametrize("seed", range(4))
def test_power_loss(seed):
    source = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ipcs-power-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        path, held = Path(folder) / "0", set()
        for crash in range(8):
            datastore, directory = WatchedDatastore(path / "index"), WatchedDirectory(path / "blocks")
            store = Store(datastore, directory, links_of, StoreOptions(segment_size=1 << 20))
            check(store, held)
            for _ in range(source.randint(1, 12)):
                operate(store, source, held)
            copy = Path(folder) / str(crash + 1)
            subprocess.run(["cp", "-r", "--sparse=always", path, copy], check=True)  # holes stay holes
            datastore.spoil(copy / "index", source)
            directory.spoil(copy / "blocks", source)
            store.close()
            shutil.rmtree(path)
            path = copy
