"""What must not be collected just now, though nobody references it: DAGs being read or fetched, ingests in progress.

Holds live in memory only: a crash ends every reader and every fetch, and what an ingest had written by then is cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from types import TracebackType
from typing import Self

from ..block import Block
from ..cid import RAW, Cid, Multihash, codec_of, multihash_of
from . import layout
from .counts import LinksOf, ReadBlock, distinct
from .datastore import Transaction
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


class Fetches:
    """The blocks present of held DAGs that are not counted yet, followed from their roots as they arrive."""

    def __init__(self, holds: Holds, links_of: LinksOf, read_block: ReadBlock) -> None:
        self._holds = holds
        self._links_of = links_of
        self._read_block = read_block
        self._roots: set[Cid] = set()
        self._absent: dict[Multihash, Cid] = {}
        self.reached: set[Multihash] = set()

    def follow(self, transaction: Transaction) -> None:
        """Bring `reached` up to now. The caller holds the lock.

        Leaves are kept whether they are here or not, so that only inner nodes are asked for again at each step.
        """
        begun = {root for root in self._holds.roots() if not isinstance(root, str)} - self._roots
        self._roots |= begun
        batches = [self._absent, distinct(begun)]
        self._absent = {}
        while batches:
            links = batches.pop()
            nodes = {multihash: cid for multihash, cid in links.items() if codec_of(cid) != RAW}
            self.reached.update(links.keys() - nodes.keys())
            values = transaction.get_many([layout.BLOCK + multihash for multihash in nodes])
            for (multihash, cid), value in zip(nodes.items(), values, strict=True):
                if value is None or layout.is_missing(value):
                    self._absent[multihash] = cid
                elif multihash not in self.reached:
                    self.reached.add(multihash)
                    data = self._read_block(multihash, value)
                    if data is not None:
                        batches.append(distinct(self._links_of(cid, data)))
