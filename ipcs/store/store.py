"""The store as the rest of ipcs sees it: blocks, blob records, references and collection behind one object."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Self

from . import layout
from .blobs import BlobRecord, BlobTable
from .counts import Counter, LinksOf
from .datastore import Datastore, MemoryDatastore, Namespace, Transaction
from .holds import Hold, Holds
from .layout import Root
from .leveldb import LevelDBDatastore
from .logstore import LogBlockstore
from .references import Reference, References
from .roots import RootTable

TOUCH_INTERVAL = 60 * 10**9
"""ns between two writes of the last use of one root: the order of eviction needs no finer clock."""

OnWithdraw = Callable[[Sequence[str]], None]
"""Told the digests of blobs whose bytes are about to go, so that announcements end first. Must not raise."""


def _nobody(digests: Sequence[str]) -> None:
    """Nobody to tell."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store behaves. Sizes in bytes.

    `storage_max` 0 stands for half the file system. `durability` is `commit` (a committed blob and a reference
    survive power loss) or `none` (they survive a crash of the process only). `hash_on_read` re-hashes every block that
    is read, for disks that one does not trust (Kubo's Datastore.HashOnRead): 0.64 s of CPU a GB.
    """

    storage_max: int = 0
    durability: str = "commit"
    hash_on_read: bool = False
    clock: Callable[[], int] = field(default=time.time_ns)


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection did, or with `dry_run` would do. Bytes; `freed_bytes` is measured on the file system."""

    dry_run: bool
    blobs: int
    blocks: int
    block_bytes: int
    freed_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A snapshot. Bytes; `disk_bytes` is measured on the file system."""

    blocks: int
    block_bytes: int
    disk_bytes: int
    storage_max: int


class Store:
    """Made by `open_store` or `memory_store`. Thread-safe; a context manager that closes itself.

    `blocks` is a `Blockstore`, `blobs` and `references` are the tables, `records` is a `Datastore` for other layers.
    """

    def __init__(self, datastore: Datastore, links_of: LinksOf, options: StoreOptions, on_withdraw: OnWithdraw) -> None:
        self._datastore = datastore
        self._lock = RLock()
        self._clock = options.clock
        self._options = options
        self.on_withdraw = on_withdraw
        serial = itertools.count(_next_serial(datastore))
        self.blocks = LogBlockstore(datastore, self._lock, options.clock, serial)
        self._roots = RootTable(Counter(links_of, self.blocks.read), serial, options.clock)
        self._holds = Holds(self.blocks.put_many, self._lock)
        self._touched: dict[Root, int] = {}
        self.blobs = BlobTable(datastore)
        self.references = References(datastore, self._roots, self._lock, options.clock)
        self.records = Namespace(datastore, layout.RECORDS)

    def commit_blob(self, record: BlobRecord, owner: str | None = None, *, name: str = "") -> None:
        """Make `record`, with all blocks of its DAG, survive a power loss; `owner` keeps it, None leaves it as cache.

        One durability barrier. Raises `NotFound` naming the first block of the DAG that is not in the store,
        `ResourceExhausted` for a full disk; nothing is committed then.
        """
        self.barrier()
        with self._lock:
            transaction = Transaction(self._datastore)
            self._roots.add_blob(transaction, record)
            if owner is not None:
                self.references.put(transaction, Reference(owner, record.digest, name, self._clock()))
            transaction.commit(sync=True)

    def barrier(self) -> None:
        """Return when every block put before this call would survive a power loss."""
        self._datastore.write([(layout.BARRIER, b"")], sync=True)

    def touch(self, root: Root) -> None:
        """`root` was served to somebody: it goes to the young end of the eviction order. Cheap; not synced."""
        now = self._clock()
        if now - self._touched.get(root, -TOUCH_INTERVAL) < TOUCH_INTERVAL:
            return
        self._touched[root] = now
        with self._lock:
            transaction = Transaction(self._datastore)
            cid = self._roots.dag_of(transaction, root)
            if cid is not None and self._roots.touch(transaction, cid):
                transaction.commit(sync=False)

    def hold(self, root: Root | None = None) -> Hold:
        """Keep `root` from collection while the returned context manager is open; None for an ingest (see `Hold`)."""
        return self._holds.open(root)

    def collect(self, *, dry_run: bool = False, down_to: int = 0) -> CollectReport:
        """Free what is cache, least recently served first, until the store takes at most `down_to` bytes of disk."""
        raise NotImplementedError

    def statistics(self) -> StoreStatistics:
        """Counts and sizes."""
        sizes = [size or 0 for size in self.blocks.size_many(list(self.blocks.keys()))]
        return StoreStatistics(len(sizes), sum(sizes), self._datastore.size(), self._options.storage_max)

    def close(self) -> None:
        """Make everything durable and release the files. Idempotent."""
        self._datastore.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _next_serial(datastore: Datastore) -> int:
    """One above the newest pending decrement that an earlier process left."""
    used = [layout.STAMP.unpack_from(key, len(layout.PENDING))[0] for key, _ in datastore.scan(layout.PENDING)]
    return max(used, default=0) + 1


def open_store(
    path: Path, links_of: LinksOf, options: StoreOptions | None = None, *, on_withdraw: OnWithdraw = _nobody
) -> Store:
    """The store in directory `path`, created if missing.

    `links_of` reads the links of a block (`ipcs.unixfs` has one). Raises `FailedPrecondition` when the store is open
    elsewhere, may not be written or has a newer format; `StoreCorrupt`; `ResourceExhausted`.
    """
    path.mkdir(parents=True, exist_ok=True)
    return Store(LevelDBDatastore(path / "index"), links_of, options or StoreOptions(), on_withdraw)


def memory_store(links_of: LinksOf, options: StoreOptions | None = None, *, on_withdraw: OnWithdraw = _nobody) -> Store:
    """A store that behaves the same and is gone with the process."""
    return Store(MemoryDatastore(), links_of, options or StoreOptions(), on_withdraw)
