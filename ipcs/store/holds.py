"""What must not be collected just now, though nobody references it: DAGs being read or fetched, ingests in progress.

Holds live in memory only: a crash ends every reader and every fetch, and what an ingest had written by then is cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from types import TracebackType
from typing import Self

from ..block import Block
from ..cid import Multihash, multihash_of
from .layout import Root


class Hold:
    """A context manager: until it is left, `root` and all blocks put through `put_many` here stay.

    The blocks of a held root that has no record yet (a fetch) are kept as far as they hang together from the root
    down; those of an ingest, whose root is not known until its end, by `put_many`.
    """

    def __init__(self, holds: Holds, root: Root | None) -> None:
        self.root = root
        self.keys: set[Multihash] = set()
        self._holds = holds

    def put_many(self, blocks: Sequence[Block]) -> None:
        """`Blockstore.put_many`, and keep these blocks (stored now or before) while the hold lasts."""
        self._holds.put_many(self, blocks)

    def close(self) -> None:
        """End the hold. Idempotent."""
        self._holds.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Holds:
    """All holds of a store. The collector asks under the same lock under which holds begin."""

    def __init__(self, put_many: Callable[[Sequence[Block]], None], lock: RLock) -> None:
        self._put_many = put_many
        self._lock = lock
        self._holds: set[Hold] = set()

    def open(self, root: Root | None) -> Hold:
        hold = Hold(self, root)
        with self._lock:
            self._holds.add(hold)
        return hold

    def put_many(self, hold: Hold, blocks: Sequence[Block]) -> None:
        with self._lock:
            hold.keys.update([multihash_of(block.cid) for block in blocks])
        self._put_many(blocks)

    def discard(self, hold: Hold) -> None:
        with self._lock:
            self._holds.discard(hold)

    def roots(self) -> set[Root]:
        """The roots held now."""
        with self._lock:
            return {hold.root for hold in self._holds if hold.root is not None}

    def keeps(self, key: Multihash) -> bool:
        """Whether an ingest in progress has put `key`. The caller holds the lock."""
        return any(key in hold.keys for hold in self._holds)
