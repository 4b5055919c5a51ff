"""Ordered key-value pairs with atomic batches: what the store demands of LevelDB, and a memory implementation.

Shape after go-datastore's `Batching` (github.com/ipfs/go-datastore), reduced to what an LSM tree does well.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

Mutation: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value, None to delete it."""


class Datastore(Protocol):
    """Bytes to bytes, keys in order. Synchronous and thread-safe: the caller decides which thread pays.

    Errors: `ResourceExhausted` for a full disk or too many open files, `StoreCorrupt` for unreadable files. A write
    that raises has been applied as a whole or not at all, and the next one may succeed.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, None where absent."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where absent, in order."""
        ...

    def write(self, batch: Sequence[Mutation], *, sync: bool) -> None:
        """Apply all of `batch` or nothing; a later mutation of a key wins.

        With `sync` this batch and all before it would survive a power loss when this returns.
        """
        ...

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key begins with `prefix` and is not below `start`, in key order.

        Writes made while the iterator is alive may or may not be seen.
        """
        ...

    def size(self) -> int:
        """Bytes on disk, roughly."""
        ...

    def close(self) -> None:
        """Release files. Idempotent; any other call afterwards is an error."""
        ...


class MemoryDatastore:
    """A `Datastore` in a dict, for tests and for data that need not outlive the process."""

    def __init__(self) -> None:
        self._pairs: dict[bytes, bytes] = {}
        self._order: list[bytes] = []
        self._stale = False
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        return self._pairs.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._pairs.get(key) for key in keys]

    def write(self, batch: Sequence[Mutation], *, sync: bool) -> None:  # noqa: ARG002 - nothing here outlives us
        with self._lock:
            for key, value in batch:
                if value is None:
                    self._stale |= self._pairs.pop(key, None) is not None
                else:
                    self._stale |= key not in self._pairs
                    self._pairs[key] = value

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._lock:
            if self._stale:
                self._order = sorted(self._pairs)
                self._stale = False
            order = self._order
        for position in range(bisect_left(order, max(prefix, start)), len(order)):
            key = order[position]
            if not key.startswith(prefix):
                return
            value = self._pairs.get(key)
            if value is not None:
                yield key, value

    def size(self) -> int:
        return sum(len(key) + len(value) for key, value in list(self._pairs.items()))

    def close(self) -> None:
        """Nothing to release."""


class Namespace:
    """The part of a `Datastore` whose keys begin with `prefix`, which callers of this object never see."""

    def __init__(self, datastore: Datastore, prefix: bytes) -> None:
        self._datastore = datastore
        self._prefix = prefix

    def get(self, key: bytes) -> bytes | None:
        return self._datastore.get(self._prefix + key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._datastore.get_many([self._prefix + key for key in keys])

    def write(self, batch: Sequence[Mutation], *, sync: bool) -> None:
        self._datastore.write([(self._prefix + key, value) for key, value in batch], sync=sync)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        skip = len(self._prefix)
        for key, value in self._datastore.scan(self._prefix + prefix, self._prefix + start if start else b""):
            yield key[skip:], value

    def size(self) -> int:
        return self._datastore.size()

    def close(self) -> None:
        """The whole datastore has one owner, and that is not the user of a part."""


class Transaction:
    """Reads and writes over a `Datastore`: reads see the writes, and `commit` applies them at once.

    Not thread-safe, and no isolation: whoever opens one holds the store's lock until it is committed.
    """

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore
        self._writes: dict[bytes, bytes | None] = {}
        self._put: dict[bytes, dict[bytes, bytes]] = {}

    def __len__(self) -> int:
        return len(self._writes)

    def get(self, key: bytes) -> bytes | None:
        if key in self._writes:
            return self._writes[key]
        return self._datastore.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found = self._datastore.get_many(keys)
        if not self._writes:
            return found
        return [self._writes.get(key, value) for key, value in zip(keys, found, strict=True)]

    def put(self, key: bytes, value: bytes) -> None:
        self._writes[key] = value
        self._put.setdefault(key[:1], {})[key] = value

    def delete(self, key: bytes) -> None:
        self._writes[key] = None
        self._put.get(key[:1], {}).pop(key, None)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Pairs as `Datastore.scan` would give them after `commit`; those written here come last."""
        for key, value in self._datastore.scan(prefix, start):
            if key not in self._writes:
                yield key, value
        for key, written in list(self._put.get(prefix[:1], {}).items()):
            if key.startswith(prefix) and key >= start:
                yield key, written

    def commit(self, *, sync: bool) -> None:
        """Write everything in one batch. Errors as `Datastore.write`."""
        if self._writes:
            self._datastore.write(list(self._writes.items()), sync=sync)
            self._writes.clear()
            self._put.clear()
