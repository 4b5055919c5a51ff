"""The `Blockstore` over a datastore: values inline in the index for now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import RLock

from ..block import Block, Data
from ..cid import Multihash, multihash_of
from ..errors import FailedPrecondition
from . import layout
from .datastore import Datastore, Mutation


class LogBlockstore:
    """Blocks by multihash. Reads take no lock; writes take `lock`, which collection and commits share."""

    def __init__(self, datastore: Datastore, lock: RLock, clock: Callable[[], int], serial: Iterator[int]) -> None:
        self._datastore = datastore
        self._lock = lock
        self._clock = clock
        self._serial = serial

    def put_many(self, blocks: Sequence[Block]) -> None:
        with self._lock:
            offered = {multihash_of(block.cid): block.data for block in blocks}
            values = self._datastore.get_many([layout.BLOCK + key for key in offered])
            batch: list[Mutation] = []
            fresh = []
            for (key, data), value in zip(offered.items(), values, strict=True):
                if value is None:
                    entry = layout.Entry(layout.INLINE, 0, len(data), 0, 0)
                    batch.append((layout.BLOCK + key, layout.ENTRY.pack(*entry) + data))
                    fresh.append(key)
            if fresh:
                stamp = layout.STAMP.pack(self._clock()) + layout.STAMP.pack(next(self._serial))
                batch.append((layout.LOOSE + stamp, layout.pack_multihashes(fresh)))
                self._datastore.write(batch, sync=False)

    def get_many(self, keys: Sequence[Multihash]) -> list[Data | None]:
        values = self._datastore.get_many([layout.BLOCK + key for key in keys])
        return [None if value is None else memoryview(value)[layout.ENTRY.size :] for value in values]

    def has_many(self, keys: Sequence[Multihash]) -> list[bool]:
        return [value is not None for value in self._datastore.get_many([layout.BLOCK + key for key in keys])]

    def size_many(self, keys: Sequence[Multihash]) -> list[int | None]:
        values = self._datastore.get_many([layout.BLOCK + key for key in keys])
        return [None if value is None else layout.unpack_entry(value).length for value in values]

    def delete_many(self, keys: Sequence[Multihash]) -> None:
        with self._lock:
            values = self._datastore.get_many([layout.BLOCK + key for key in keys])
            batch: list[Mutation] = []
            for key, value in zip(keys, values, strict=True):
                if value is not None and layout.unpack_entry(value).count:
                    raise FailedPrecondition(f"block {key.hex()} belongs to a DAG that is kept", subject=key.hex())
                batch.append((layout.BLOCK + key, None))
            self._datastore.write(batch, sync=False)

    def keys(self) -> Iterator[Multihash]:
        for key, _ in self._datastore.scan(layout.BLOCK):
            yield Multihash(key[1:])

    def read(self, _multihash: Multihash, _entry: layout.Entry, value: bytes) -> Data:
        """The bytes behind an index entry."""
        return memoryview(value)[layout.ENTRY.size :]
