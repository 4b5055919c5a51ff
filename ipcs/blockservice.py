"""Blocks for whoever reads DAGs: from the store first, from peers else.

`BlockSource` is what `ipcs.unixfs` demands; `LocalBlocks` meets it from a store alone, an exchange session (see
`ipcs.bitswap.exchange`) by fetching what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .block import Data
from .cid import Cid, format_cid, multihash_of
from .errors import NotFound
from .store.blockstore import Blockstore


class BlockSource(Protocol):
    """Verified bytes by CID. Waiting is bounded by the caller's cancel scope, memory by the caller's batch."""

    async def get_many(self, cids: Sequence[Cid]) -> list[Data]:
        """The bytes of each CID, in order, once all are there. Raises `NotFound` when one cannot be had."""
        ...

    async def fetch_many(self, cids: Sequence[Cid]) -> None:
        """Return when all are in the local store; reads no values. Raises `NotFound` when one cannot be had."""
        ...

    def prefetch(self, cids: Sequence[Cid]) -> None:
        """Start fetching, in this order of urgency, what a later call will ask for. Never waits, never raises."""
        ...

    def describe(self) -> str:
        """What is being waited for, and what was tried: for the message of a timeout."""
        ...


class LocalBlocks:
    """A `BlockSource` over a store: what is not in it cannot be had."""

    def __init__(self, store: Blockstore) -> None:
        self._store = store

    async def get_many(self, cids: Sequence[Cid]) -> list[Data]:
        found = self._store.get_many([multihash_of(cid) for cid in cids])
        blocks = [data for data in found if data is not None]
        if len(blocks) != len(cids):
            raise missing_block(cids[found.index(None)])
        return blocks

    async def fetch_many(self, cids: Sequence[Cid]) -> None:
        present = self._store.has_many([multihash_of(cid) for cid in cids])
        if not all(present):
            raise missing_block(cids[present.index(False)])

    def prefetch(self, cids: Sequence[Cid]) -> None:
        """Nothing to do: the store is at hand."""

    def describe(self) -> str:
        """It never waits."""
        return "only the local store was asked"


def missing_block(cid: Cid) -> NotFound:
    """The error of a store that does not hold the block of `cid`."""
    text = format_cid(cid)
    return NotFound(f"block {text} is not in the local store", subject=text)
