"""The `Blockstore` on LevelDB with a value log (after WiscKey, FAST '16): keys in the index, larger values in segments.

Value first, index second: an entry never points at bytes that were not written before it. Writes share one lock with
commits and collection; reads take none, and notice a range freed under them by `SegmentLog.freed`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from threading import RLock

from .. import hashes
from ..block import Block, Data
from ..cid import SHA2_256_PREFIX, Multihash, multihash_of
from ..errors import FailedPrecondition, IpcsError, ResourceExhausted, StoreCorrupt
from . import layout
from .barrier import Barrier
from .datastore import Datastore, Mutation, Transaction
from .layout import Entry
from .segments import Location, SegmentLog

INLINE_MAX = 2048
"""Largest block, in bytes, kept in the index: there it is written twice, here it takes a page (docs/adr/0011)."""

MIN_FREE = 64 << 20
"""Free bytes of the file system below which no block is accepted: the index needs room for its own log and tables."""

READ_ATTEMPTS = 3
"""Reads of one batch before the reader makes collection wait for it."""


class LogBlockstore:
    """Blocks by multihash in `datastore` and `segments`; `lock` is the store's."""

    def __init__(
        self,
        datastore: Datastore,
        segments: SegmentLog,
        barrier: Barrier,
        lock: RLock,
        *,
        clock: Callable[[], int],
        serial: Iterator[int],
        hash_on_read: bool,
    ) -> None:
        self._datastore = datastore
        self._segments = segments
        self._barrier = barrier
        self._lock = lock
        self._clock = clock
        self._serial = serial
        self._hash_on_read = hash_on_read
        self._abandoned: list[tuple[Multihash, Location]] = []

    def put_many(self, blocks: Sequence[Block]) -> None:
        offered = {multihash_of(block.cid): block.data for block in blocks}
        keys = [layout.BLOCK + multihash for multihash in offered]
        with self._lock:
            values = self._datastore.get_many(keys)
            wanted = [
                (multihash, data, value)
                for (multihash, data), value in zip(offered.items(), values, strict=True)
                if value is None or layout.is_missing(value)
            ]
            if wanted:
                self._store(wanted)

    def get_many(self, keys: Sequence[Multihash]) -> list[Data | None]:
        index_keys = [layout.BLOCK + key for key in keys]
        for _ in range(READ_ATTEMPTS):
            freed = self._segments.freed
            values = self._datastore.get_many(index_keys)
            found = self._read_many(values)
            if freed == self._segments.freed:
                break
        else:
            with self._segments.free_lock:
                values = self._datastore.get_many(index_keys)
                found = self._read_many(values)
        return [
            self._checked(key, value, data) if value is not None else None
            for key, value, data in zip(keys, values, found, strict=True)
        ]

    def has_many(self, keys: Sequence[Multihash]) -> list[bool]:
        values = self._datastore.get_many([layout.BLOCK + key for key in keys])
        return [value is not None and not layout.is_missing(value) for value in values]

    def size_many(self, keys: Sequence[Multihash]) -> list[int | None]:
        values = self._datastore.get_many([layout.BLOCK + key for key in keys])
        return [
            None if value is None or layout.is_missing(value) else layout.unpack_entry(value).length for value in values
        ]

    def delete_many(self, keys: Sequence[Multihash]) -> None:
        """As the protocol says; raises `FailedPrecondition` for a block of a DAG that has a record or a reference."""
        with self._lock:
            transaction = Transaction(self._datastore)
            for key in keys:
                value = transaction.get(layout.BLOCK + key)
                if value is None:
                    continue
                if layout.unpack_entry(value).counted:
                    raise FailedPrecondition(
                        f"block {key.hex()} belongs to a DAG that is kept: drop its references first", subject=key.hex()
                    )
                discard(transaction, key, value)
            transaction.commit(sync=True)

    def keys(self) -> Iterator[Multihash]:
        for key, value in self._datastore.scan(layout.BLOCK):
            if not layout.is_missing(value):
                yield Multihash(key[len(layout.BLOCK) :])

    def read_whole(self, multihash: Multihash, value: bytes) -> Data | None:
        """The bytes of one block that nobody can free now, hashed; None when they are gone or corrupt."""
        data = self._read_many([value])[0]
        return None if isinstance(data, StoreCorrupt) or data is None or not matches(multihash, data) else data

    def read_checked(self, multihash: Multihash, value: bytes) -> Data | None:
        """`read_whole`, with what is corrupt quarantined."""
        data = self.read_whole(multihash, value)
        if data is None and not layout.is_missing(value):
            self.quarantine(multihash, value)
        return data

    def quarantine(self, multihash: Multihash, value: bytes) -> None:
        """Set the bytes of a corrupt block aside: it is absent from now on, and can be put again.

        A block that is counted keeps its count, so that the DAG is whole again once it is back.
        """
        key = layout.BLOCK + multihash
        with self._lock:
            if self._datastore.get(key) != value:
                return
            entry = layout.unpack_entry(value)
            missing = entry._replace(segment=layout.MISSING, page=0)
            batch: list[Mutation] = [(key, layout.ENTRY.pack(*missing) if entry.counted else None)]
            if not layout.is_inline(value):
                place = layout.QUARANTINE + layout.PLACE.pack(entry.segment, entry.page)
                batch.append((place, layout.LENGTH.pack(entry.length) + multihash))
            self._datastore.write(batch, sync=True)

    def _store(self, wanted: list[tuple[Multihash, Data, bytes | None]]) -> None:
        if self._segments.space()[1] < MIN_FREE:
            raise ResourceExhausted(
                f"fewer than {MIN_FREE >> 20} MiB are free: free space, lower --storage-max or run `ipcs gc`"
            )
        places = self._segments.append([data for _, data, _ in wanted if len(data) > INLINE_MAX])
        locations = iter(places)
        batch = self._give_up()
        for multihash, data, previous in wanted:
            counted, codec = (0, 0) if previous is None else layout.unpack_entry(previous)[3:]
            if len(data) > INLINE_MAX:
                value = layout.ENTRY.pack(*next(locations), counted, codec)
            else:
                value = layout.ENTRY.pack(layout.INLINE, 0, len(data), counted, codec) + data
            batch.append((layout.BLOCK + multihash, value))
        queued = layout.pack_loose(self._clock(), [multihash for multihash, _, _ in wanted])
        batch.append((layout.LOOSE + layout.STAMP.pack(next(self._serial)), queued))
        try:
            self._datastore.write(batch, sync=False)
        except IpcsError:
            large = [multihash for multihash, data, _ in wanted if len(data) > INLINE_MAX]
            self._abandoned += zip(large, places, strict=True)
            raise
        self._abandoned.clear()
        self._barrier.appended()

    def _give_up(self) -> list[Mutation]:
        """List for punching what was appended for an index write that failed, unless that was applied after all."""
        return [
            layout.freed(*at)
            for multihash, at in self._abandoned
            if (value := self._datastore.get(layout.BLOCK + multihash)) is None
            or location(layout.unpack_entry(value)) != at
        ]

    def _read_many(self, values: Sequence[bytes | None]) -> list[Data | StoreCorrupt | None]:
        entries = [None if value is None else layout.unpack_entry(value) for value in values]
        places = [at for entry in entries if (at := location(entry)) is not None]
        read = iter(self._segments.read_many(places))
        found: list[Data | StoreCorrupt | None] = []
        for entry, value in zip(entries, values, strict=True):
            if entry is None or value is None or entry.segment == layout.MISSING:
                found.append(None)
            elif entry.segment == layout.INLINE:
                found.append(memoryview(value)[layout.ENTRY.size :])
            else:
                found.append(next(read))
        return found

    def _checked(self, multihash: Multihash, value: bytes, data: Data | StoreCorrupt | None) -> Data | None:
        if data is None:
            return None
        if not isinstance(data, StoreCorrupt):
            whole = len(data) == layout.unpack_entry(value).length
            if whole and not (self._hash_on_read and not matches(multihash, data)):
                return data
        try:
            self.quarantine(multihash, value)
        except ResourceExhausted:
            return None  # a full disk: the next read finds it corrupt again
        return None


def location(entry: Entry | None) -> Location | None:
    """Where the bytes of `entry` lie in the log, None when they do not."""
    if entry is None or entry.segment in (layout.INLINE, layout.MISSING):
        return None
    return Location(entry.segment, entry.page, entry.length)


def discard(transaction: Transaction, multihash: Multihash, value: bytes) -> Location | None:
    """Delete the entry of a loose block and list its range for punching; the range. To be committed with a sync."""
    transaction.delete(layout.BLOCK + multihash)
    at = location(layout.unpack_entry(value))
    if at is not None:
        transaction.put(*layout.freed(*at))
    return at


def matches(multihash: Multihash, data: Data) -> bool:
    """Whether `data` hashes to `multihash`."""
    if multihash[:2] == SHA2_256_PREFIX:
        return hashlib.sha256(data).digest() == multihash[2:]
    return hashes.verify(multihash, data)
