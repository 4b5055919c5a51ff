"""A file's bytes out of its DAG, as a state machine: it says which blocks it needs and turns them into bytes.

    reader = FileReader(root, offset, length)
    blocks = []
    while True:
        for piece in reader.supply(blocks):
            out.write(piece)
        if not (wanted := reader.wanted()):
            break
        blocks = get(wanted)

Only blocks that the range touches are asked for. Whoever drives it decides how: from the store in a gRPC thread, or
from peers (`ipcs.unixfs.exporter`). Bytes come out only when the block's length is what its parent declared, so that
a DAG with lying sizes cannot shift a range.

Sources: ipfs/specs `src/unixfs.md`; boxo `ipld/unixfs/io/dagreader.go`, which trusts the declared sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..block import Data, identity_data
from ..cid import DAG_PB, RAW, Cid, codec_of, format_cid
from ..errors import InvalidArgument, MalformedBlock
from . import dag_pb, node
from .budget import DEFAULT_BUDGET, Spending
from .node import Kind, UnixFS

BATCH_SIZE = 1 << 20
"""Bytes of leaves asked for at once: enough to pay for a thread hop, little enough to hold."""

READ_AHEAD = 8 << 20
"""Bytes that `ahead` announces beyond what has been read: the window that keeps a peer busy over one round trip."""

MAX_SIZE = (1 << 63) - 1
"""Largest file size that a reader believes: POSIX `off_t`."""


@dataclass(slots=True)
class _Pending:
    """A subtree still to be read: where in the file it begins, and how long its parent says it is."""

    cid: Cid
    start: int
    size: int | None
    depth: int
    data: Data | None = None
    announced: bool = False


class FileReader:
    """Reads `length` bytes from `offset` (to the end by default) of the file at `root`.

    A range beyond the end gives what there is. All calls raise `MalformedBlock` for nodes that are not a well-formed
    file, `InvalidArgument` when `root` is a directory or a symlink, and `LimitExceeded` beyond the budget of
    `spending`. `data` is the block of `root` where the caller has it already.
    """

    def __init__(
        self,
        root: Cid,
        offset: int = 0,
        length: int | None = None,
        spending: Spending | None = None,
        data: Data | None = None,
    ) -> None:
        if offset < 0 or (length is not None and length < 0):
            raise InvalidArgument(f"range {offset}+{length} is negative")
        self._root = root
        self._offset = offset
        self._end = MAX_SIZE if length is None else offset + length
        self._spending = spending or Spending(DEFAULT_BUDGET, root)
        self._stack = [_Pending(root, 0, None, 0, identity_data(root) if data is None else data)]  # the next one last
        self._asked: list[_Pending] = []

    def wanted(self) -> list[Cid]:
        """The blocks needed next, in order; empty when all has been read. None of them is an identity CID."""
        self._asked, size = [], 0
        for pending in reversed(self._stack):
            if self._asked and size + (pending.size or 0) > BATCH_SIZE:
                break
            if pending.data is None:
                self._asked.append(pending)
                size += pending.size or 0
        return [pending.cid for pending in self._asked]

    def ahead(self) -> list[Cid]:
        """The blocks that have come within `READ_AHEAD` bytes since the last call, in order."""
        size, found = 0, []
        for pending in reversed(self._stack):
            if size >= READ_AHEAD:
                break
            size += pending.size or 0
            if not pending.announced and pending.data is None:
                pending.announced = True
                found.append(pending.cid)
        return found

    def supply(self, blocks: Sequence[Data]) -> list[Data]:
        """The next bytes of the range, given what `wanted` asked for (at first nothing); slices of the blocks."""
        for pending, data in zip(self._asked, blocks, strict=True):
            pending.data = data
        self._asked = []
        pieces: list[Data] = []
        while self._stack and self._stack[-1].data is not None:
            pending = self._stack.pop()
            assert pending.data is not None
            self._visit(pending, pending.data, pieces)
        return pieces

    def _visit(self, pending: _Pending, data: Data, pieces: list[Data]) -> None:
        self._spending.check_depth(pending.depth)
        self._spending.add_block()
        codec = codec_of(pending.cid)
        if codec == RAW:
            self._check_size(pending, len(data))
            self._emit(pending.start, data, pieces)
        elif codec == DAG_PB:
            self._visit_node(pending, data, pieces)
        else:
            raise self._malformed(pending.cid, f"has codec {codec:#x}, not one of a file")

    def _visit_node(self, pending: _Pending, data: Data, pieces: list[Data]) -> None:
        links, message = decode_file(pending.cid, data, is_root=pending.depth == 0)
        payload = message.data or b""
        total = len(payload) + sum(message.blocksizes)
        if total > MAX_SIZE or message.filesize not in (None, total):
            raise self._malformed(pending.cid, f"declares {message.filesize} bytes, its parts sum up to {total}")
        self._check_size(pending, total)
        self._emit(pending.start, payload, pieces)
        at = pending.start + len(payload)
        below = []
        for link, size in zip(links, message.blocksizes, strict=True):
            if at < self._end and at + size > self._offset and size:
                below.append(_Pending(link.cid, at, size, pending.depth + 1, identity_data(link.cid)))
            at += size
        self._stack.extend(reversed(below))

    def _check_size(self, pending: _Pending, size: int) -> None:
        if pending.size not in (None, size):
            raise self._malformed(pending.cid, f"holds {size} bytes, its parent declares {pending.size}")

    def _emit(self, start: int, data: Data, pieces: list[Data]) -> None:
        begin, end = max(self._offset - start, 0), min(self._end - start, len(data))
        if begin < end:
            self._spending.add_size(end - begin)
            whole = begin == 0 and end == len(data)
            pieces.append(data if whole else memoryview(data)[begin:end])

    def _malformed(self, cid: Cid, what: str) -> MalformedBlock:
        return MalformedBlock(f"{format_cid(cid)} in file {format_cid(self._root)} {what}", subject=format_cid(cid))


def decode_file(cid: Cid, data: Data, *, is_root: bool) -> tuple[list[dag_pb.Link], UnixFS]:
    """The links and the message of a file's dag-pb node, their agreement checked.

    Raises `InvalidArgument` when a root is a directory or a symlink, `MalformedBlock` when it is no file's node.
    """
    pb = dag_pb.decode(data)
    if pb.data is None:
        raise MalformedBlock(f"{format_cid(cid)} is a dag-pb node without UnixFS data", subject=format_cid(cid))
    message = node.decode(pb.data)
    if message.kind not in (Kind.FILE, Kind.RAW):
        error = InvalidArgument if is_root else MalformedBlock
        raise error(f"{format_cid(cid)} is a {message.kind.name.lower()}, not a file", subject=format_cid(cid))
    if len(pb.links) != len(message.blocksizes):
        what = f"has {len(pb.links)} links and {len(message.blocksizes)} block sizes"
        raise MalformedBlock(f"{format_cid(cid)} {what}", subject=format_cid(cid))
    if any(link.name for link in pb.links):
        raise MalformedBlock(f"{format_cid(cid)} is a file and has a named link", subject=format_cid(cid))
    return pb.links, message
