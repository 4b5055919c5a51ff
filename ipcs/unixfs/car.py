"""CAR archives, versions 1 and 2: a header with roots, then blocks, each with its CID. Streamed and verified.

    reader = CarReader()
    for piece in pieces:
        store.put_many(reader.feed(piece))
    reader.finish()
    reader.roots

A length in the archive never makes the reader allocate: bytes are collected as they arrive, up to the limits below.

Sources: ipld.io/specs/transport/car (v1, v2); ipld/go-car. Its advisory GHSA-f2gr-7299-487h is why lengths are limited
and every block is hashed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..block import MAX_BLOCK_SIZE, Block, Data, check_block, identity_data
from ..cid import Cid, read_cid, read_varint, write_varint
from ..errors import HashMismatch, InvalidArgument, LimitExceeded, MalformedBlock
from ..hashes import MAX_DIGEST
from . import cbor

MAX_HEADER = 64 * 1024
"""Bytes of a header: about 1,600 roots. go-car takes 32 MiB, which costs its reader a million CIDs to parse."""

MAX_CID = MAX_DIGEST + 32
"""Bytes of a CID in a section: the longest digest that policy takes, and its prefix."""

MAX_SECTION = MAX_BLOCK_SIZE + MAX_CID
"""Bytes of a CID and its block: a larger block could not be sent to any peer (go-car: 8 MiB)."""

MAX_ROOTS = 1024
"""Roots of one archive."""

PRAGMA_V2 = bytes.fromhex("0aa16776657273696f6e02")
"""What a version 2 file begins with: a version 1 header that says 2."""

_HEADER_V2 = struct.Struct("<16sQQQ")
_MAX_VARINT = 9


class CarReader:
    """Parses one archive, fed in pieces of any size.

    `roots` is there as soon as the header is. Blocks that identity CIDs carry are checked and left out. Raises
    `MalformedBlock` for bytes that are no CAR, `HashMismatch` for a block that is not its CID's, `InvalidArgument`
    for a hash that policy refuses, `LimitExceeded`.
    """

    def __init__(self) -> None:
        self.version = 1
        self.roots: list[Cid] = []
        self._buffer = bytearray()
        self._position = 0
        self._payload_end: int | None = None
        self._skip_to = 0
        self._step: Callable[[], Block | bool | None] = self._read_header

    def feed(self, data: Data) -> list[Block]:
        """The blocks that `data` completes."""
        self._buffer += data
        blocks: list[Block] = []
        while (done := self._step()) is not False:
            if isinstance(done, Block) and identity_data(done.cid) is None:
                blocks.append(done)
        return blocks

    def finish(self) -> None:
        """The archive ends here. Raises `MalformedBlock` when it is cut off."""
        complete_v2 = self._payload_end is not None and self._position >= self._payload_end
        if self._step == self._read_section and (complete_v2 or (self._payload_end is None and not self._buffer)):
            return
        raise MalformedBlock(f"CAR is cut off after {self._position + len(self._buffer)} bytes")

    def _take(self, size: int) -> bytes | None:
        """The next `size` bytes once they are there."""
        if len(self._buffer) < size:
            return None
        taken = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        self._position += size
        return taken

    def _take_prefixed(self, limit: int, what: str) -> bytes | None:
        """The next length-prefixed bytes once they are all there."""
        head = bytes(self._buffer[:_MAX_VARINT])
        if not head or (len(head) < _MAX_VARINT and head[-1] & 0x80 and all(byte & 0x80 for byte in head)):
            return None
        try:
            length, at = read_varint(head)
        except InvalidArgument as exc:
            raise MalformedBlock(f"CAR {what} at byte {self._position} has a bad length: {exc.message}") from exc
        if length > limit:
            raise LimitExceeded(f"CAR {what} at byte {self._position} declares {length} bytes, allowed are {limit}")
        if length == 0:
            raise MalformedBlock(f"CAR {what} at byte {self._position} is empty")
        taken = self._take(at + length)
        return None if taken is None else taken[at:]

    def _read_header(self) -> bool:
        if self._position == 0 and self._buffer.startswith(PRAGMA_V2):
            self._take(len(PRAGMA_V2))
            self.version = 2
            self._step = self._read_header_v2
            return True
        header = self._take_prefixed(MAX_HEADER, "header")
        if header is None:
            return False
        self.roots = decode_header(header)
        self._step = self._read_section
        return True

    def _read_header_v2(self) -> bool:
        header = self._take(_HEADER_V2.size)
        if header is None:
            return False
        _characteristics, offset, size, _index = _HEADER_V2.unpack(header)
        if offset < self._position or size == 0:
            raise MalformedBlock(f"CARv2 declares {size} bytes of payload at byte {offset}")
        self._skip_to, self._payload_end = offset, offset + size
        self._step = self._skip
        return True

    def _skip(self) -> bool:
        self._take(min(len(self._buffer), self._skip_to - self._position))
        if self._position < self._skip_to:
            return False
        self._step = self._read_header
        return True

    def _read_section(self) -> Block | bool:
        if self._payload_end is not None and self._position >= self._payload_end:
            if self._position > self._payload_end:
                raise MalformedBlock("CARv2 payload ends inside a section")
            self._payload_end = self._position
            self._buffer.clear()  # what follows is the index, which a streaming reader has no use for
            return False
        begin = self._position
        section = self._take_prefixed(MAX_SECTION, "section")
        if section is None:
            return False
        try:
            cid, at = read_cid(section, 0, MAX_DIGEST)
        except InvalidArgument as exc:
            raise MalformedBlock(f"CAR section at byte {begin} has a bad CID: {exc.message}") from exc
        try:
            return check_block(cid, memoryview(section)[at:])
        except HashMismatch as exc:
            raise HashMismatch(f"CAR section at byte {begin}: {exc.message}", subject=exc.subject) from exc


def decode_header(header: Data) -> list[Cid]:
    """The roots in a version 1 header. Raises `MalformedBlock`, `LimitExceeded`."""
    value = cbor.decode(header)
    roots = value.get("roots") if isinstance(value, dict) and value.get("version") == 1 else None
    if not isinstance(roots, list):
        raise MalformedBlock("CAR header is not {roots, version: 1}")
    if len(roots) > MAX_ROOTS:
        raise LimitExceeded(f"CAR header has {len(roots)} roots, allowed are {MAX_ROOTS}")
    if not all(cbor.is_link(root) for root in roots):
        raise MalformedBlock("CAR header has a root that is no CID")
    return cbor.links(roots)


def encode_header(roots: Sequence[Cid]) -> bytes:
    """A version 1 header with its length."""
    header = cbor.encode_car_header(roots)
    return write_varint(len(header)) + header


def encode_section(block: Block) -> bytes:
    """One block with its CID and length."""
    return b"".join((write_varint(len(block.cid) + len(block.data)), block.cid, block.data))


def encode_car(roots: Sequence[Cid], blocks: Iterable[Block]) -> Iterator[bytes]:
    """The pieces of a version 1 archive, lazily."""
    yield encode_header(roots)
    for block in blocks:
        yield encode_section(block)


def header_v2(payload_size: int) -> bytes:
    """What stands before a version 1 archive of `payload_size` bytes to make it a version 2 file without an index."""
    offset = len(PRAGMA_V2) + _HEADER_V2.size
    return PRAGMA_V2 + _HEADER_V2.pack(bytes(16), offset, payload_size, 0)
