"""containerd's content.Store as a library, over the blockstore.

    content = ContentStore(store, Path("ingests"))
    with content.writer("my-ref", total=len(data)) as writer:
        writer.write(data)
        writer.commit(len(data), digest)
    content.reader(digest).read(0, 100)

Synchronous and thread-safe. A blob exists here when containerd committed or adopted it: its other life, as cache that
serves peers, is the store's business. Semantics and words: containerd core/content/content.go and its test suite.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import NotFound
from ..store.blobs import BlobRecord
from ..store.holds import Hold
from ..store.references import CONTAINERD
from ..store.store import Store
from ..unixfs.profile import IPCS_V1, Profile
from .descriptor import Info, Status, check_labels, digest_bytes, updated
from .filters import info_field, parse_filters, status_field
from .ingests import Ingests, Progress, Writer
from .reader import BlobReader, read_leaves
from .records import Promise, Promises, Records, reconcile

READERS = 256
"""Blobs whose leaf tables stay in memory: 100 bytes a leaf, 40 kB for a 100 MB layer."""

STRIPES = 64
"""Locks that digests share: more than the commits that ever run at once."""


class ContentStore:
    """The blobs and ingests of one containerd. `directory` holds the journals of open ingests.

    Two containerds must not share one: each would collect what only the other knows.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        profile: Profile = IPCS_V1,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Mends what a crash left and begins to re-hash open ingests. Raises `InvalidArgument` for a profile whose
        leaves are not raw and of one size.
        """
        self._store = store
        self._profile = profile
        self._clock = clock
        self._records = Records(store.records)
        self.promises = Promises(store.records)
        self.on_commit: Callable[[BlobRecord], None] = lambda _record: None
        reconcile(store, self._records, self.promises)
        self._ingests = Ingests(store, directory, profile, clock, self)
        # Reference and entry of one digest change together; a commit waits for the disk, so one lock would not do.
        self._stripes = [threading.Lock() for _ in range(STRIPES)]
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, tuple[BlobReader, Hold]] = OrderedDict()

    # ---- blobs

    def info(self, digest: str) -> Info:
        """Raises `NotFound`, `InvalidArgument` for a malformed digest."""
        return self._records.get(digest)

    def exists(self, digest: str) -> bool:
        """Raises `InvalidArgument` for a malformed digest."""
        return self._records.has(digest)

    def update(self, info: Info, *paths: str) -> Info:
        """Change labels: all of them, or those that the mask `paths` names (`labels`, `labels.<key>`).

        Raises `NotFound`, `InvalidArgument`.
        """
        with self._changing(info.digest):
            now = updated(self.info(info.digest), info, paths, self._clock())
            self._records.put(now)
        return now

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Blobs that match any of `filters`, by digest; all without one. Raises `InvalidArgument`."""
        return filter(parse_filters(filters, info_field), self._records)

    def delete(self, digest: str) -> None:
        """containerd needs it no longer: it becomes cache, and goes on serving peers until its space is needed.

        Raises `NotFound`, `InvalidArgument`.
        """
        with self._changing(digest):
            self._records.get(digest)
            self._records.delete(digest)
            with self._lock:
                self._forget_reader(digest)
            self._store.references.drop(CONTAINERD, digest)
            self.promises.delete(digest)

    def reader(self, digest: str) -> BlobReader:
        """Raises `NotFound`, `InvalidArgument`, and `StoreCorrupt` for a DAG that is not what its record says."""
        with self._lock:
            cached = self._readers.get(digest)
            if cached is not None:
                self._readers.move_to_end(digest)
                return cached[0]
        self._records.get(digest)
        record = self._store.blobs.get(digest)
        if record is None:
            raise NotFound(f"content {digest}: its bytes are not here", subject=digest)
        reader = BlobReader(self._store.blocks, read_leaves(self._store.blocks, record.root, record.size))
        with self._lock:
            if not self._records.has(digest):  # deleted meanwhile
                raise NotFound(f"content {digest}: not found", subject=digest)
            if digest not in self._readers:
                self._readers[digest] = (reader, self._store.hold(digest))
            while len(self._readers) > READERS:
                self._readers.popitem(last=False)[1][1].close()
        self._store.touch(digest)
        return reader

    def commit(self, record: BlobRecord, labels: Mapping[str, str]) -> Info:
        """Show containerd the blob `record`, whose blocks are all in the store; keeps a promise of it. One durability
        barrier; `on_commit` is called afterwards.

        Raises what `Store.commit_blob` raises, `InvalidArgument` for labels too long.
        """
        check_labels(labels)
        with self._changing(record.digest):
            record = self._store.blobs.get(record.digest) or record
            self._store.commit_blob(record, CONTAINERD)
            if self._records.has(record.digest):
                info = self._records.get(record.digest)
            else:
                now = self._clock()
                info = Info(record.digest, record.size, now, now, dict(labels))
                self._records.put(info)
            self.promises.delete(record.digest)
        self.on_commit(record)
        return info

    def promise(self, promise: Promise) -> Info:
        """Show containerd a blob whose bytes are still to come: `commit` keeps the promise, `delete` takes it back."""
        now = self._clock()
        with self._changing(promise.digest):
            self.promises.put(promise)
            self._store.references.add(CONTAINERD, promise.digest)
            info = Info(promise.digest, promise.size, now, now)
            self._records.put(info)
        return info

    # ---- ingests

    def follow_ingests(self, progress: Progress) -> None:
        """Have `progress` told of leaves as they are written."""
        self._ingests.progress = progress

    def writer(self, ref: str, total: int = 0, expected: str = "") -> Writer:
        """Open or resume the ingest `ref`, and lock it for this writer.

        Raises `Unavailable` when it is locked, `AlreadyExists` when `expected` is here, `InvalidArgument` without a
        ref, `FailedPrecondition` when another total was declared before.
        """
        return self._ingests.open(ref, total, expected)

    def status(self, ref: str) -> Status:
        """Raises `NotFound`."""
        return self._ingests.status(ref)

    def list_statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        """Open ingests that match any of `filters`. Raises `InvalidArgument`."""
        return list(filter(parse_filters(filters, status_field), self._ingests.statuses()))

    def abort(self, ref: str) -> None:
        """Drop the ingest `ref` and what it wrote. Raises `NotFound`, `Unavailable` while a writer holds it."""
        self._ingests.abort(ref)

    def close(self) -> None:
        """Make open ingests durable and let go of files and holds. Writers must be closed."""
        self._ingests.close()
        with self._lock:
            for digest in list(self._readers):
                self._forget_reader(digest)

    def _changing(self, digest: str) -> threading.Lock:
        return self._stripes[digest_bytes(digest)[0] % STRIPES]

    def _forget_reader(self, digest: str) -> None:
        cached = self._readers.pop(digest, None)
        if cached is not None:
            cached[1].close()
