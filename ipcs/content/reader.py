"""Reading a blob that is in the store: any window, as views of its leaves, in whatever thread asks."""

from __future__ import annotations

from collections.abc import Sequence

from ..block import Data
from ..cid import Cid, format_cid, multihash_of
from ..errors import NotFound
from ..store.blockstore import Blockstore
from .dag import Leaves, Span, file_bytes, walk_leaves


class BlobReader:
    """A blob whose blocks are all local. Thread-safe.

    The last leaf read is kept: at unpack containerd reads 32 KiB windows one after another, eight to a leaf.
    """

    def __init__(self, blocks: Blockstore, leaves: Leaves) -> None:
        self._blocks = blocks
        self._leaves = leaves
        self._last: tuple[int, Data] = (-1, b"")
        self.size = leaves.size

    def read(self, offset: int, size: int) -> list[Data]:
        """The bytes from `offset` on, at most `size`, fewer at the end; empty at or past it.

        Raises `NotFound` when a block is gone (a collection or a corrupt disk), `StoreCorrupt`, `HashMismatch`.
        """
        end = min(offset + size, self.size)
        if offset >= end:
            return []
        indices = self._leaves.covering(offset, end - offset)
        parts = self._spans(indices)
        first, last = self._leaves[indices[0]], self._leaves[indices[-1]]
        parts[-1] = memoryview(parts[-1])[: end - last.start]
        parts[0] = memoryview(parts[0])[offset - first.start :]
        return parts

    def _spans(self, indices: range) -> list[Data]:
        if len(indices) == 1 and self._last[0] == indices[0]:
            return [self._last[1]]
        spans = [self._leaves[index] for index in indices]
        parts = [file_bytes(span, block) for span, block in zip(spans, self._get(spans), strict=True)]
        self._last = (indices[-1], parts[-1])
        return parts

    def _get(self, spans: Sequence[Span]) -> list[Data]:
        return get_blocks(self._blocks, [span.cid for span in spans])


def get_blocks(blocks: Blockstore, cids: Sequence[Cid]) -> list[Data]:
    """The bytes of `cids`, all of them local. Raises `NotFound` naming the first that is not."""
    found = blocks.get_many([multihash_of(cid) for cid in cids])
    present = [data for data in found if data is not None]
    if len(present) != len(cids):
        text = format_cid(cids[found.index(None)])
        raise NotFound(f"block {text} is not in the local store; run `ipcs fsck`", subject=text)
    return present


def read_leaves(blocks: Blockstore, root: Cid, size: int) -> Leaves:
    """The leaves of a DAG whose inner nodes are local. Raises what `walk_leaves` and `get_blocks` raise."""
    walk = walk_leaves(root, size)
    try:
        wanted = next(walk)
        while True:
            wanted = walk.send(get_blocks(blocks, wanted))
    except StopIteration as done:
        leaves: Leaves = done.value
        return leaves
