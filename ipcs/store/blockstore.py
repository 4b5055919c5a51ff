"""What the rest of ipcs demands of a store of blocks, and the memory implementation of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..block import Block, Data
from ..cid import Multihash, multihash_of


class Blockstore(Protocol):
    """Blocks by multihash. Synchronous and thread-safe: the caller decides which thread pays.

    Keys are multihashes, so that the v0 and v1 CIDs of one block are one block. All calls take and give batches.
    Errors: `StoreCorrupt` for a block that no longer hashes to its key, `ResourceExhausted` for a full disk; both
    concern this call only.
    """

    def put_many(self, blocks: Sequence[Block]) -> None:
        """Store blocks that the caller has verified. Present ones are left as they are."""
        ...

    def get_many(self, keys: Sequence[Multihash]) -> list[Data | None]:
        """The bytes of each key, None where absent, in order. Views stay valid as long as they are referenced."""
        ...

    def has_many(self, keys: Sequence[Multihash]) -> list[bool]:
        """Whether each key is present, in order."""
        ...

    def size_many(self, keys: Sequence[Multihash]) -> list[int | None]:
        """Length in bytes of each block, None where absent, in order; reads no values."""
        ...

    def delete_many(self, keys: Sequence[Multihash]) -> None:
        """Forget blocks; absent ones are ignored. The space comes back by collection."""
        ...

    def keys(self) -> Iterator[Multihash]:
        """All keys, as of some moment during the call, in no order."""
        ...


class MemoryBlockstore:
    """A `Blockstore` in a dict, for tests and for data that need not outlive the process."""

    def __init__(self) -> None:
        self._blocks: dict[bytes, Data] = {}
        self._lock = threading.Lock()

    def put_many(self, blocks: Sequence[Block]) -> None:
        with self._lock:
            for block in blocks:
                self._blocks.setdefault(multihash_of(block.cid), bytes(block.data))

    def get_many(self, keys: Sequence[Multihash]) -> list[Data | None]:
        return [self._blocks.get(key) for key in keys]

    def has_many(self, keys: Sequence[Multihash]) -> list[bool]:
        return [key in self._blocks for key in keys]

    def size_many(self, keys: Sequence[Multihash]) -> list[int | None]:
        found = self.get_many(keys)
        return [None if data is None else len(data) for data in found]

    def delete_many(self, keys: Sequence[Multihash]) -> None:
        with self._lock:
            for key in keys:
                self._blocks.pop(key, None)

    def keys(self) -> Iterator[Multihash]:
        return iter([Multihash(key) for key in list(self._blocks)])
