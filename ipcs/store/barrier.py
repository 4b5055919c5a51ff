"""The durability barrier: when it returns, everything put before survives a power loss.

First the segments are synced, then one synced batch goes to the index. That batch holds all that it vouches for, since
LevelDB does not sync the older of its log files: the entries of the blocks it counts, the record, the reference, and
the barrier's own position, up to which recovery need not look.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from threading import RLock
from typing import NamedTuple

from ..errors import IpcsError
from . import layout
from .datastore import Datastore, Transaction
from .segments import SegmentLog

SYNC_DISTANCE = 16 << 20
"""Unsynced bytes after which a sync begins in the background: a commit then waits for about this much, and an open
after a crash hashes about twice as much."""


class Mark(NamedTuple):
    """A point in the order of puts whose bytes are on disk: the next serial number, and where the log stood."""

    serial: int
    segment: int
    page: int


class Barrier:
    """Syncs `segments` and notes in `datastore` how far; with a thread that does so in the background.

    `durable` False (durability `none`) leaves out every wait of a caller; the background goes on.
    """

    def __init__(
        self, datastore: Datastore, segments: SegmentLog, lock: RLock, serial: Iterator[int], *, durable: bool
    ) -> None:
        self._datastore = datastore
        self._segments = segments
        self._lock = lock
        self._serial = serial
        self._durable = durable
        self._noted = Mark(0, 0, 0)
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._sync_behind, name="ipcs-store-sync", daemon=True)
        self._thread.start()

    def reach(self) -> Mark | None:
        """Sync the segments; the mark reached, to be committed under the lock. Errors as `SegmentLog.sync`."""
        return self._reach() if self._durable else None

    def commit(self, transaction: Transaction, mark: Mark | None) -> None:
        """Commit `transaction` durably, and note `mark` in it. The caller holds the lock."""
        self._note(transaction, mark)
        transaction.commit(sync=self._durable)

    def complete(self) -> Mark:
        """A whole barrier by itself, whatever the durability; the mark that is now on disk."""
        mark = self._reach()
        with self._lock:
            transaction = Transaction(self._datastore)
            transaction.put(layout.BARRIER, layout.BARRIER_VALUE.pack(*max(mark, self._noted)))
            transaction.commit(sync=True)
            self._noted = max(mark, self._noted)
            return self._noted

    def appended(self) -> None:
        """Bytes were appended: begin to sync them when there are many."""
        if self._segments.unsynced_bytes >= SYNC_DISTANCE:
            self._wake.set()

    def close(self) -> None:
        """End the background thread and set a last barrier. Errors as `complete`."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        self.complete()

    def _reach(self) -> Mark:
        with self._lock:
            mark = Mark(next(self._serial), *self._segments.position)
        self._segments.sync()
        return mark

    def _note(self, transaction: Transaction, mark: Mark | None) -> None:
        """Never backwards: the collector takes blocks off the queue that recovery would look for behind it."""
        if mark is not None and mark > self._noted:
            transaction.put(layout.BARRIER, layout.BARRIER_VALUE.pack(*mark))
            self._noted = mark

    def _sync_behind(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closing:
                return
            try:
                mark = self._reach()
                with self._lock:
                    transaction = Transaction(self._datastore)
                    self._note(transaction, mark)
                    transaction.commit(sync=False)
            except IpcsError:
                continue  # whoever commits meets the same error, and is told
