"""Files out of a `BlockSource`: streamed, any range, with a read-ahead window."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

from ..block import Data
from ..blockservice import BlockSource, missing_block
from ..cid import Cid, multihash_of
from ..store.blockstore import Blockstore
from .budget import DEFAULT_BUDGET, Budget, Spending
from .reader import FileReader


def read(
    source: BlockSource,
    root: Cid,
    offset: int = 0,
    length: int | None = None,
    budget: Budget = DEFAULT_BUDGET,
) -> AsyncGenerator[Data, None]:
    """The file at `root` from byte `offset`, `length` bytes or to its end, in pieces of at most a block.

    An async generator: close it (`contextlib.aclosing`) when it may be left early.
    Only blocks that the range touches are read; those ahead are announced to `source.prefetch`. Raises `NotFound` for
    a block that cannot be had, and what `FileReader` raises.
    """
    return drive(source, FileReader(root, offset, length, Spending(budget, root)))


async def drive(source: BlockSource, reader: FileReader) -> AsyncGenerator[Data, None]:
    """The bytes that `reader` was made for."""
    blocks: Sequence[Data] = ()
    while True:
        for piece in reader.supply(blocks):
            yield piece
        if not (wanted := reader.wanted()):
            return
        source.prefetch(reader.ahead())
        blocks = await source.get_many(wanted)


def read_stored(
    store: Blockstore,
    root: Cid,
    offset: int = 0,
    length: int | None = None,
    budget: Budget = DEFAULT_BUDGET,
) -> Iterator[Data]:
    """Like `read`, from a store alone and without an event loop, for callers in a thread of their own."""
    reader = FileReader(root, offset, length, Spending(budget, root))
    blocks: Sequence[Data] = ()
    while True:
        yield from reader.supply(blocks)
        if not (wanted := reader.wanted()):
            return
        found = store.get_many([multihash_of(cid) for cid in wanted])
        blocks = [data for data in found if data is not None]
        if len(blocks) != len(wanted):
            raise missing_block(wanted[found.index(None)])
