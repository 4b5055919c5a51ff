"""The leaves of a blob in file order: what turns (offset, size) into blocks without walking the DAG again.

The walk is sans-IO: a generator asks for blocks by CID, level by level, and is sent their bytes. So the same code
flattens a DAG that is local and one whose inner nodes still come from peers, and what a hostile DAG can cost is bounded
in one place: every node's links must add up to the bytes its parent said, and the root's to the size of the blob.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from typing import NamedTuple

from ..block import Data
from ..cid import DAG_PB, RAW, Cid, codec_of, format_cid
from ..errors import HashMismatch, LimitExceeded, MalformedBlock
from ..unixfs import dag_pb, node

MAX_DEPTH = 32
"""Levels of a blob's DAG: two links a node reach 16 GB in 256 KiB leaves with half of it."""

MAX_LEAVES = 4_000_000
"""Leaves of one blob: 1 TB in 256 KiB leaves; more is an attack on our memory."""

BATCH = 64
"""Nodes asked for at once: where leaves are dag-pb they are among them, and would otherwise all be in memory."""


class Span(NamedTuple):
    """`length` bytes of the blob from `start` on are the file bytes of block `cid`."""

    start: int
    length: int
    cid: Cid


class Leaves:
    """Spans in file order, without gaps. `inner` are the CIDs of the nodes above them."""

    def __init__(self, spans: Sequence[Span], inner: Sequence[Cid]) -> None:
        self.inner = inner
        self.cids = [span.cid for span in spans]
        self._starts = [span.start for span in spans]
        self.size = spans[-1].start + spans[-1].length if spans else 0

    def __len__(self) -> int:
        return len(self.cids)

    def __getitem__(self, index: int) -> Span:
        start = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self._starts) else self.size
        return Span(start, end - start, self.cids[index])

    def at(self, offset: int) -> int:
        """Index of the span that holds byte `offset` (below `size`)."""
        return bisect_right(self._starts, offset) - 1

    def covering(self, offset: int, size: int) -> range:
        """Indices of the spans that hold any of `size` bytes (> 0) from `offset` on."""
        return range(self.at(offset), self.at(min(offset + size, self.size) - 1) + 1)


Walk = Generator[list[Cid], Sequence[Data], Leaves]
"""Yields CIDs of the blocks it needs, is sent their verified bytes in the same order, returns the leaves."""


def walk_leaves(root: Cid, size: int) -> Walk:
    """Flatten the DAG `root` of a blob of `size` bytes.

    Raises `MalformedBlock` when nodes contradict one another or the size, `LimitExceeded` beyond the limits above.
    """
    level = [_Part(Span(0, size, root), codec_of(root) != RAW)]
    inner: list[Cid] = []
    for _ in range(MAX_DEPTH):
        if not any(part.is_node for part in level):
            return Leaves([part.span for part in level if part.span.length], inner)
        below: list[_Part] = []
        for at in range(0, len(level), BATCH):
            batch = level[at : at + BATCH]
            cids = [part.span.cid for part in batch if part.is_node]
            inner += cids
            blocks = iter((yield cids) if cids else ())
            for part in batch:
                below += _parts(part.span, next(blocks)) if part.is_node else (part,)
            if len(below) > MAX_LEAVES:
                raise LimitExceeded(f"{format_cid(root)} has more than {MAX_LEAVES} leaves", subject=format_cid(root))
        level = below
    raise LimitExceeded(f"{format_cid(root)} is deeper than {MAX_DEPTH} levels", subject=format_cid(root))


class _Part(NamedTuple):
    span: Span
    is_node: bool


def _parts(span: Span, block: Data) -> list[_Part]:
    """What the node at `span` holds: its own bytes, then its children, adding up to the span's length."""
    if codec_of(span.cid) != DAG_PB:
        raise MalformedBlock(f"block {format_cid(span.cid)} of a file is neither raw nor dag-pb")
    links, data = dag_pb.decode(block)
    message = node.decode(data if data is not None else b"")
    if message.kind not in (node.Kind.FILE, node.Kind.RAW) or len(links) != len(message.blocksizes):
        raise MalformedBlock(f"block {format_cid(span.cid)} is no file node, or lacks sizes of its links")
    own = len(message.data) if message.data else 0
    if own + sum(message.blocksizes) != span.length:
        raise MalformedBlock(f"the parts of {format_cid(span.cid)} do not add up to its {span.length} bytes")
    start = span.start + own
    parts = [_Part(Span(span.start, own, span.cid), is_node=False)] if own else []
    for link, length in zip(links, message.blocksizes, strict=True):
        parts.append(_Part(Span(start, length, link.cid), codec_of(link.cid) != RAW))
        start += length
    return parts


def file_bytes(span: Span, block: Data) -> Data:
    """The bytes of the blob in `block`, of exactly the span's length. Raises `HashMismatch` when there are others."""
    data = block
    if codec_of(span.cid) == DAG_PB:
        message = node.decode(dag_pb.decode(block).data or b"")
        data = message.data if message.data is not None else b""
    if len(data) != span.length:
        raise HashMismatch(
            f"block {format_cid(span.cid)} holds {len(data)} bytes of its blob instead of {span.length}",
            subject=format_cid(span.cid),
        )
    return data
