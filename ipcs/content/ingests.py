"""Open ingests: one lock per ref, leaves to the store as they fill, a journal for the restart.

A hash state cannot be saved, so after a restart each ingest is re-hashed from its stored leaves in a worker thread.
Until that is done its ref is locked, which a client waits out as it waits for another writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ..block import Data
from ..cid import RAW, Multihash, codec_of, multihash_of
from ..errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted, StoreCorrupt, Unavailable
from ..store.blobs import BlobRecord
from ..store.holds import Hold
from ..store.store import Store
from ..unixfs.profile import Profile
from .descriptor import Info, Status
from .ingest import Ingest
from .journal import Journal, Saved, journals

SYNC_EVERY = 64 * 1024 * 1024
"""Bytes of an ingest between two durability barriers: what a power loss may cost of a pull."""

REHASH_BATCH = 16
"""Leaves read at once when an ingest is rebuilt: 4 MiB."""


class Catalog(Protocol):
    """Where finished blobs go (`ContentStore`)."""

    def exists(self, digest: str) -> bool:
        """Whether containerd has it already."""
        ...

    def commit(self, record: BlobRecord, labels: Mapping[str, str]) -> Info:
        """Show it to containerd."""
        ...


Progress = Callable[[str, int, Sequence[Multihash]], None]
"""Told (ref, index of the first, leaves) when leaves of an ingest are in the store; quick, from writers' threads."""


def _nobody(_ref: str, _first: int, _leaves: Sequence[Multihash]) -> None:
    """Nobody follows."""


@dataclass(slots=True)
class Entry:
    """An open ingest. `locked_since` (ns) is 0 when nobody holds it; `ingest` is None while it is being re-hashed.
    `status` is what is in the journal, so what would survive.
    """

    journal: Journal
    hold: Hold
    locked_since: int
    status: Status
    ingest: Ingest | None = None
    unsynced: int = 0


class Ingests:
    """All open ingests of a content store. Thread-safe."""

    def __init__(
        self, store: Store, directory: Path, profile: Profile, clock: Callable[[], int], catalog: Catalog
    ) -> None:
        kind, _, size = profile.chunker.partition("-")
        if kind != "size" or not profile.raw_leaves:
            raise InvalidArgument(
                f"profile {profile.name} cannot take ingests: it needs raw leaves of one size", subject=profile.name
            )
        self.store = store
        self.profile = profile
        self.leaf_size = int(size)
        self.clock = clock
        self.catalog = catalog
        self.progress: Progress = _nobody
        self._directory = directory
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="ipcs-rehash")
        for saved in journals(directory):
            status = Status(saved.ref, 0, saved.total, saved.expected, saved.started_at, saved.updated_at)
            entry = Entry(Journal(directory, saved.ref), store.hold(), clock(), status)
            self._entries[saved.ref] = entry
            self._worker.submit(self._rebuild, saved.ref, entry)

    def open(self, ref: str, total: int, expected: str) -> Writer:
        """A writer that holds the lock of `ref`; see `ContentStore.writer`."""
        if not ref:
            raise InvalidArgument("a writer needs a ref")
        now = self.clock()
        with self._lock:
            entry = self._entries.get(ref)
            if entry is None:
                entry = self._entries[ref] = self._begin(ref, total, expected, now)
            elif entry.locked_since:
                raise Unavailable(f"ref {ref} locked for {(now - entry.locked_since) / 1e9:.1f} s", subject=ref)
            entry.locked_since = now
        writer = Writer(self, entry)
        try:
            writer.reopen(total, expected)
        except BaseException:  # whatever ended it, the ref must not stay locked
            writer.close()
            raise
        return writer

    def status(self, ref: str) -> Status:
        """Raises `NotFound`."""
        entry = self._entries.get(ref)
        if entry is None:
            raise NotFound(f"ref {ref}: not found", subject=ref)
        return entry.status

    def statuses(self) -> list[Status]:
        """Of all open ingests."""
        with self._lock:
            entries = list(self._entries.values())
        return [entry.status for entry in entries]

    def abort(self, ref: str) -> None:
        """Raises `NotFound`, `Unavailable`."""
        with self._lock:
            entry = self._entries.get(ref)
            if entry is None:
                raise NotFound(f"ref {ref}: not found", subject=ref)
            if entry.locked_since:
                raise Unavailable(f"ref {ref} locked: close its writer first", subject=ref)
            self._drop(ref, entry)

    def finish(self, ref: str, entry: Entry) -> None:
        """Its writer committed it, or found that it is not needed."""
        entry.unsynced = 0
        with self._lock:
            self._drop(ref, entry)

    def release(self, entry: Entry) -> None:
        """Its writer is done: another may open it."""
        with self._lock:
            entry.locked_since = 0

    def restart(self, ref: str, entry: Entry) -> None:
        """A write failed half-way, so memory is ahead of the journal: go back to what that says."""
        entry.ingest = None
        entry.journal.close()
        self._worker.submit(self._rebuild, ref, entry)

    def sync(self, entry: Entry) -> None:
        """Put an ingest behind a durability barrier: leaves first, then the journal that names them."""
        if entry.unsynced:
            self.store.barrier()
            entry.journal.sync()
            entry.unsynced = 0

    def close(self) -> None:
        """Let go of everything; called once, when no writer is left."""
        self._worker.shutdown(cancel_futures=True)
        for entry in self._entries.values():
            entry.journal.close()
            entry.hold.close()

    def _begin(self, ref: str, total: int, expected: str, now: int) -> Entry:
        journal = Journal(self._directory, ref)
        with full_disk(ref):
            journal.begin(ref, total, expected, now)
        ingest = Ingest(ref, self.profile, now, total, expected)
        return Entry(journal, self.store.hold(), now, ingest.status(), ingest)

    def _drop(self, ref: str, entry: Entry) -> None:
        self._entries.pop(ref, None)
        entry.journal.drop()
        entry.hold.close()

    def _rebuild(self, ref: str, entry: Entry) -> None:
        """In the worker: re-hash what the journal says is there, then unlock the ref."""
        try:
            entry.ingest = self._rehash(entry, entry.journal.load())
            entry.status = entry.ingest.status()
        except (ValueError, OSError):
            # A journal that cannot be read holds nothing to resume from, so its ref begins again.
            self.finish(ref, entry)
        finally:
            self.release(entry)

    def _rehash(self, entry: Entry, saved: Saved) -> Ingest:
        """The longest prefix whose leaves are all there, and the tail behind it."""
        ingest = Ingest(saved.ref, self.profile, saved.started_at, saved.total, saved.expected)
        for at in range(0, len(saved.leaves), REHASH_BATCH):
            keys = saved.leaves[at : at + REHASH_BATCH]
            try:
                found = self.store.blocks.get_many(keys)
            except StoreCorrupt:
                break
            whole = found.index(None) if None in found else len(found)
            for data in found[:whole]:
                entry.hold.put_many(ingest.write(data or b"", saved.updated_at))
            if whole < len(keys):
                break
        ingest.write(entry.journal.resume(ingest.offset // self.leaf_size, saved.updated_at), saved.updated_at)
        return ingest


class Writer:
    """One session on a ref: a context manager that unlocks it at its end. Used by one thread at a time."""

    def __init__(self, ingests: Ingests, entry: Entry) -> None:
        ingest = entry.ingest
        assert ingest is not None, "an unlocked entry has been re-hashed"
        self.ref = ingest.ref
        self._total = ingest.total
        self._expected = ingest.expected
        self._ingests = ingests
        self._entry = entry
        self._ingest = ingest
        self._is_open = True
        self._is_broken = False

    def status(self) -> Status:
        """Offset, times, running digest, and what this session declared. Cheap."""
        return replace(self._ingest.status(), total=self._total, expected=self._expected)

    def reopen(self, total: int, expected: str) -> None:
        """What the opening of a writer declares. Raises `FailedPrecondition`, `AlreadyExists`."""
        self._ingest.reopen(total, expected)
        self._entry.status = self._ingest.status()
        self._total, self._expected = self._ingest.total, self._ingest.expected
        self._refuse_existing(expected)

    def declare(self, total: int, expected: str) -> None:
        """Later word of total and digest, as any message of a write stream may bring; 0 and "" say nothing.

        It holds for this session only: a commit that fails over it leaves the ingest as it was declared.

        Raises `AlreadyExists`, and drops the ingest, when `expected` is here already.
        """
        self._total = total or self._total
        self._expected = expected or self._expected
        self._refuse_existing(expected)

    def seek(self, offset: int) -> None:
        """Where the next write goes: the current offset, or 0 to start over. Raises `OutOfRange`."""
        ingest = self._ingest
        if ingest.seek(offset, self._ingests.clock()):
            with self._consistently():
                self._entry.journal.begin(ingest.ref, ingest.total, ingest.expected, ingest.started_at)
                self._entry.journal.append([], b"", ingest.updated_at)
            self._entry.status = ingest.status()

    def truncate(self, size: int = 0) -> None:
        """Start over. Raises `InvalidArgument` for a size other than 0, which containerd does not support either."""
        if size:
            raise InvalidArgument(f"cannot truncate ref {self.ref} to {size}: only to 0", subject=self.ref)
        self.seek(0)

    def write(self, data: Data) -> int:
        """Append `data`; returns the offset behind it, which survives kill -9.

        Raises `ResourceExhausted` for a full disk; the ref stays locked until it has been re-hashed.
        """
        ingest, entry = self._ingest, self._entry
        behind = ingest.offset
        with self._consistently():
            blocks = ingest.write(data, self._ingests.clock())
            entry.hold.put_many(blocks)
            leaves = [multihash_of(block.cid) for block in blocks if codec_of(block.cid) == RAW]
            tail = ingest.offset % self._ingests.leaf_size if leaves else len(data)
            entry.journal.append(leaves, memoryview(data)[len(data) - tail :], ingest.updated_at)
            entry.status = ingest.status()
            if leaves:
                self._ingests.progress(self.ref, behind // self._ingests.leaf_size, leaves)
            syncing = self.is_syncing(len(data))
            entry.unsynced += len(data)
            if syncing:
                self._ingests.sync(entry)
        return ingest.offset

    def is_syncing(self, size: int) -> bool:
        """Whether a write of `size` bytes waits for the disk."""
        return self._entry.unsynced + size >= SYNC_EVERY

    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> Info:
        """Make the bytes a blob; `size` 0 and `expected` "" check nothing. The ingest is gone afterwards.

        Raises `FailedPrecondition` when size or digest differ (the ingest is kept), `AlreadyExists` when the blob is
        here (it is dropped), `ResourceExhausted` for a full disk.
        """
        ingest = self._ingest
        digest = ingest.check(size, expected)
        self._refuse_existing(digest)
        with self._consistently():
            blocks, root = ingest.build()
            self._entry.hold.put_many(blocks)
            last = [multihash_of(block.cid) for block in blocks if codec_of(block.cid) == RAW]
            self._ingests.progress(self.ref, ingest.offset // self._ingests.leaf_size, last)
            now = self._ingests.clock()
            record = BlobRecord(digest, ingest.offset, root, self._ingests.profile.name, now, now, verified=True)
            info = self._ingests.catalog.commit(record, labels or {})
        self._ingests.finish(self.ref, self._entry)
        return info

    def close(self) -> None:
        """Unlock the ref, with what was written made durable. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        if self._is_broken:
            self._ingests.restart(self.ref, self._entry)
            return
        try:
            self._ingests.sync(self._entry)
        finally:
            self._ingests.release(self._entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refuse_existing(self, expected: str) -> None:
        if expected and self._ingests.catalog.exists(expected):
            self._ingests.finish(self.ref, self._entry)
            raise AlreadyExists(f"content {expected}: already exists", subject=expected)

    @contextmanager
    def _consistently(self) -> Iterator[None]:
        """What fails in here leaves memory ahead of the journal."""
        try:
            with full_disk(self.ref):
                yield
        except BaseException:  # an interrupt in here leaves as much undone as an error
            self._is_broken = True
            raise


@contextmanager
def full_disk(ref: str) -> Iterator[None]:
    """What the file system says of a journal, as an error of ours."""
    try:
        yield
    except OSError as exc:
        raise ResourceExhausted(f"cannot write the journal of ref {ref}: {exc}", subject=ref) from exc
