"""The store as the rest of ipcs sees it: blocks, blob records, references and collection behind one object."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Literal, Self

from ..errors import FailedPrecondition
from . import layout
from .barrier import Barrier
from .blobs import BlobRecord, BlobTable
from .collector import Collector, CollectReport, OnWithdraw
from .counts import Counter, LinksOf
from .datastore import Datastore, MemoryDatastore, Namespace, Transaction
from .disk import Directory, DiskDirectory, sync_directory, translate
from .fsck import FsckReport, fsck
from .holds import Hold, Holds
from .layout import Root
from .leveldb import LevelDBDatastore
from .logstore import LogBlockstore, matches
from .memory import MemoryDirectory
from .recovery import recover
from .references import Reference, References
from .roots import RootTable
from .segments import SEGMENT_SIZE

TOUCH_INTERVAL = 60 * 10**9
"""ns between two writes of the last use of one root: the order of eviction needs no finer clock."""

TOUCHED_ROOTS = 10_000
"""Roots whose last touch is remembered, to leave out writes; then all are forgotten."""

HIGH_WATERMARK = 0.8
"""Share of `storage_max` above which cache should be collected (Kubo's StorageGCWatermark is 0.9; layers are large)."""

LOW_WATERMARK = 0.6
"""Share of `storage_max` down to which it is then collected, so that collections are rare."""


def _nobody(digests: Sequence[str]) -> None:
    """Nobody to tell."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store behaves. Sizes in bytes.

    `storage_max` 0 stands for half the file system. `durability` is `commit` (a committed blob and a reference
    survive power loss) or `none` (they survive a crash of the process only). `hash_on_read` re-hashes every block that
    is read, for disks that one does not trust (Kubo's Datastore.HashOnRead): 0.64 s of CPU a GB.
    `clock` gives ns since 1970.
    """

    storage_max: int = 0
    durability: Literal["commit", "none"] = "commit"
    hash_on_read: bool = False
    segment_size: int = SEGMENT_SIZE
    clock: Callable[[], int] = field(default=time.time_ns)


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A snapshot. Bytes; `disk_bytes` is measured on the file system, the watermarks are those of `storage_max`."""

    disk_bytes: int
    storage_max: int
    high_watermark: int
    low_watermark: int
    free_bytes: int
    blobs: int
    quarantined: int
    forgotten_at_open: int


class Store:
    """Made by `open_store` or `memory_store`. Thread-safe; a context manager that closes itself.

    `blocks` is a `Blockstore`, `blobs` and `references` are the tables, `records` is a `Datastore` for other layers.
    """

    def __init__(
        self,
        datastore: Datastore,
        directory: Directory,
        links_of: LinksOf,
        options: StoreOptions,
        on_withdraw: OnWithdraw = _nobody,
    ) -> None:
        self.on_withdraw = on_withdraw
        self._datastore = datastore
        self._links_of = links_of
        self._lock = RLock()
        self._clock = options.clock
        self._storage_max = options.storage_max or directory.space()[0] // 2
        self._closed = False
        self._segments, first_serial, self._forgotten = recover(datastore, directory, matches, options.segment_size)
        serial = itertools.count(first_serial)
        self._barrier = Barrier(datastore, self._segments, self._lock, serial, durable=options.durability == "commit")
        self.blocks = LogBlockstore(
            datastore,
            self._segments,
            self._barrier,
            self._lock,
            clock=options.clock,
            serial=serial,
            hash_on_read=options.hash_on_read,
        )
        self._roots = RootTable(Counter(links_of, self.blocks.read_checked), serial, options.clock)
        self._holds = Holds(self.blocks.put_many, self._lock)
        self._touched: dict[Root, int] = {}
        self.blobs = BlobTable(datastore)
        self.references = References(datastore, self._roots, self._barrier, self._lock, options.clock)
        self.records = Namespace(datastore, layout.RECORDS)
        self._collector = Collector(
            datastore,
            self._segments,
            self._barrier,
            self._roots,
            self._holds,
            lock=self._lock,
            clock=options.clock,
            serial=serial,
            links_of=links_of,
            read_block=self.blocks.read_checked,
        )

    def commit_blob(self, record: BlobRecord, owner: str | None = None, *, name: str = "") -> None:
        """Make `record`, with all blocks of its DAG, survive a power loss; `owner` keeps it, None leaves it as cache.

        One durability barrier. Raises `NotFound` naming the first block of the DAG that is not in the store,
        `ResourceExhausted` for a full disk; nothing is committed then.
        """
        mark = self._barrier.reach()
        with self._lock:
            transaction = Transaction(self._datastore)
            self._roots.add_blob(transaction, record)
            if owner is not None:
                self.references.put(transaction, Reference(owner, record.digest, name, self._clock()))
            self._barrier.commit(transaction, mark)

    def barrier(self) -> None:
        """Return when every block put, and everything written to `records`, before would survive a power loss."""
        mark = self._barrier.reach()
        with self._lock:
            self._barrier.commit(Transaction(self._datastore), mark)

    def touch(self, root: Root) -> None:
        """`root` was served to somebody: it goes to the young end of the eviction order. Cheap; not synced."""
        now = self._clock()
        if now - self._touched.get(root, -TOUCH_INTERVAL) < TOUCH_INTERVAL:
            return
        if len(self._touched) >= TOUCHED_ROOTS:
            self._touched.clear()
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
        """Free what is cache, least recently served first, until the store takes at most `down_to` bytes of disk; with
        0 all of it.

        Expired references go first; `on_withdraw` is called before blobs go. With `dry_run` nothing changes.
        Works on a full disk. Runs beside reads and writes; another collection waits for this one.
        """
        if not dry_run:
            self.references.expire()
        return self._collector.collect(dry_run=dry_run, down_to=down_to, on_withdraw=self.on_withdraw)

    def fsck(self, *, repair: bool = False) -> FsckReport:
        """Read and check everything; with `repair` quarantine and mend. Writers wait during the second half."""
        return fsck(
            self._datastore,
            self._segments,
            self.blocks,
            self._collector,
            self._lock,
            self._links_of,
            repair=repair,
        )

    @property
    def low_watermark(self) -> int:
        """Bytes of disk down to which cache is collected once the high watermark is passed."""
        return int(self._storage_max * LOW_WATERMARK)

    def is_over_high_watermark(self) -> bool:
        """Whether it is time to collect down to the low watermark."""
        return self._collector.used() > self._storage_max * HIGH_WATERMARK

    def statistics(self) -> StoreStatistics:
        """Sizes and counts; reads the record of each blob."""
        return StoreStatistics(
            disk_bytes=self._collector.used(),
            storage_max=self._storage_max,
            high_watermark=int(self._storage_max * HIGH_WATERMARK),
            low_watermark=self.low_watermark,
            free_bytes=self._segments.space()[1],
            blobs=sum(1 for _ in self._datastore.scan(layout.BLOB)),
            quarantined=sum(1 for _ in self._datastore.scan(layout.QUARANTINE)),
            forgotten_at_open=self._forgotten,
        )

    def close(self) -> None:
        """Make everything durable and release the files. Idempotent."""
        if not self._closed:
            self._closed = True
            try:
                self._barrier.close()
            finally:
                self._segments.close()
                self._datastore.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(
    path: Path, links_of: LinksOf, options: StoreOptions | None = None, *, on_withdraw: OnWithdraw = _nobody
) -> Store:
    """The store in directory `path`, created if missing.

    `links_of` reads the links of a block (`ipcs.unixfs` has one). Raises `FailedPrecondition` when the store is open
    elsewhere, may not be written or has a newer format; `StoreCorrupt`; `ResourceExhausted`.
    """
    with translate(str(path)):
        path.mkdir(parents=True, exist_ok=True)
        check_version(path)
    datastore = LevelDBDatastore(path / "index")
    try:
        return Store(datastore, DiskDirectory(path / "blocks"), links_of, options or StoreOptions(), on_withdraw)
    except BaseException:  # whatever ended it, LevelDB's lock must not stay
        datastore.close()
        raise


def memory_store(links_of: LinksOf, options: StoreOptions | None = None, *, on_withdraw: OnWithdraw = _nobody) -> Store:
    """A store that behaves the same and is gone with the process."""
    return Store(MemoryDatastore(), MemoryDirectory(), links_of, options or StoreOptions(), on_withdraw)


def check_version(path: Path) -> None:
    """Mark a new store with its format version; raise `FailedPrecondition` for one that we cannot read."""
    marker = path / "version"
    if not marker.exists():
        draft = path / "version.new"
        draft.write_text(f"{layout.FORMAT_VERSION}\n")
        draft.replace(marker)
        sync_directory(path)
    found = marker.read_text().strip()
    if found != str(layout.FORMAT_VERSION):
        raise FailedPrecondition(
            f"the store in {path} has format {found}, this version of ipcs reads format {layout.FORMAT_VERSION}: "
            "use the ipcs that wrote it, or another --store",
            subject=str(path),
        )
