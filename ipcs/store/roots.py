"""Counted DAGs: which roots there are, when each was last used, and which of them nobody references."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..cid import Cid
from . import layout
from .blobs import BlobRecord, delete_blob, put_blob, unpack_blob
from .counts import Counter, distinct, pend
from .datastore import Transaction
from .layout import Root


class RootTable:
    """Changes to the set of roots, inside a transaction of the caller, who holds the store's lock."""

    def __init__(self, counter: Counter, serial: Iterator[int], clock: Callable[[], int]) -> None:
        self._counter = counter
        self._serial = serial
        self._clock = clock

    def add_blob(self, transaction: Transaction, record: BlobRecord) -> None:
        """Write `record` and count its DAG; an older record of the same digest gives way to it.

        Raises `NotFound` naming the first missing block.
        """
        self._add(transaction, record.root)
        packed = layout.pack_digest(record.digest)
        value = transaction.get(layout.BLOB + packed)
        if value is not None:
            previous = unpack_blob(packed, value)
            delete_blob(transaction, previous)
            if previous.root != record.root:
                self._settle(transaction, previous.root)
        put_blob(transaction, record)
        self.touch(transaction, record.root)

    def referenced(self, transaction: Transaction, root: Root) -> None:
        """A reference to `root` was written: a CID becomes a counted DAG, a known blob leaves the cache."""
        if not isinstance(root, str):
            self._add(transaction, root)
        self.settle(transaction, root)

    def settle(self, transaction: Transaction, root: Root) -> None:
        """Put the DAG of `root` into the queue of unheld roots, or take it out, as its references now stand."""
        cid = self.dag_of(transaction, root)
        if cid is not None:
            self._settle(transaction, cid)

    def dag_of(self, transaction: Transaction, root: Root) -> Cid | None:
        """The root CID that `root` means, None for a digest without a record."""
        if not isinstance(root, str):
            return root
        packed = layout.pack_digest(root)
        value = transaction.get(layout.BLOB + packed)
        return None if value is None else unpack_blob(packed, value).root

    def touch(self, transaction: Transaction, cid: Cid) -> bool:
        """Note that the DAG was served just now; False when it is not counted."""
        value = transaction.get(layout.ROOT + cid)
        if value is None:
            return False
        transaction.delete(layout.UNHELD + value + cid)
        transaction.put(layout.ROOT + cid, layout.STAMP.pack(self._clock()))
        self._settle(transaction, cid)
        return True

    def drop(self, transaction: Transaction, cid: Cid) -> bool:
        """Forget a root that nobody references, and its blob records; False when it has gone or is referenced.

        The decrement of its first block is then pending.
        """
        value = transaction.get(layout.ROOT + cid)
        if value is None or transaction.get(layout.UNHELD + value + cid) is None:
            return False
        for record in self.records_of(transaction, cid):
            delete_blob(transaction, record)
        transaction.delete(layout.ROOT + cid)
        transaction.delete(layout.UNHELD + value + cid)
        pend(transaction, list(distinct([cid])), self._serial)
        return True

    def requeue(self, transaction: Transaction, key: bytes, cid: Cid) -> None:
        """Take the `UNHELD` key `key` away, and put in the one that `cid` should have, if any.

        The two differ when a power loss has undone a `touch`, which is not synced.
        """
        transaction.delete(key)
        self._settle(transaction, cid)

    def records_of(self, transaction: Transaction, cid: Cid) -> list[BlobRecord]:
        """The blob records of a root."""
        prefix = layout.by_root_prefix(cid)
        records = []
        for key, _ in transaction.scan(prefix):
            digest = key[len(prefix) :]
            value = transaction.get(layout.BLOB + digest)
            if value is not None:
                records.append(unpack_blob(digest, value))
        return records

    def names_of(self, transaction: Transaction, root: Root) -> list[Root]:
        """Everything by which the DAG that `root` means can be referenced: its CID and the digests of its records."""
        cid = self.dag_of(transaction, root)
        if cid is None:
            return [root]
        return [cid, *(record.digest for record in self.records_of(transaction, cid))]

    def is_held(self, transaction: Transaction, cid: Cid) -> bool:
        """Whether anyone references the root itself or a blob that it is."""
        return any(
            next(iter(transaction.scan(layout.holder_prefix(layout.pack_root(name)))), None) is not None
            for name in self.names_of(transaction, cid)
        )

    def _add(self, transaction: Transaction, cid: Cid) -> None:
        if transaction.get(layout.ROOT + cid) is None:
            self._counter.add(transaction, cid)
            transaction.put(layout.ROOT + cid, layout.STAMP.pack(self._clock()))

    def _settle(self, transaction: Transaction, cid: Cid) -> None:
        value = transaction.get(layout.ROOT + cid)
        if value is None:
            return
        key = layout.UNHELD + value + cid
        if self.is_held(transaction, cid):
            transaction.delete(key)
        else:
            transaction.put(key, b"")
