"""The protobuf wire primitives that dag-pb and UnixFS share.

Sources: protobuf.dev "Encoding"; google.golang.org/protobuf `protowire`, whose leniency this has: a varint may have
redundant bytes, up to ten in all, and its value must stay below 2^64.
"""

from __future__ import annotations

from ..block import Data
from ..cid import write_varint
from ..errors import MalformedBlock

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

_MAX_VARINT_BYTES = 10


def read_uvarint(data: Data, at: int, end: int) -> tuple[int, int]:
    """The varint at `at` of `data[:end]`: (value below 2^64, offset after it). Raises `MalformedBlock`."""
    value = shift = 0
    for position in range(at, min(at + _MAX_VARINT_BYTES, end)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, position + 1
        shift += 7
    raise MalformedBlock(f"varint at byte {at} is cut off or too large")


def read_bytes(data: Data, at: int, end: int) -> tuple[int, int]:
    """The field whose length is at `at`: (its first byte, offset after its last). Raises `MalformedBlock`."""
    length, begin = read_uvarint(data, at, end)
    if length > end - begin:
        raise MalformedBlock(f"field at byte {at} declares {length} bytes, {end - begin} are left")
    return begin, begin + length


def skip_field(data: Data, wire_type: int, at: int, end: int) -> int:
    """The offset after a field of `wire_type` whose value is at `at`. Raises `MalformedBlock`."""
    if wire_type == VARINT:
        return read_uvarint(data, at, end)[1]
    if wire_type == BYTES:
        return read_bytes(data, at, end)[1]
    size = {FIXED64: 8, FIXED32: 4}.get(wire_type)
    if size is None or at + size > end:
        raise MalformedBlock(f"field at byte {at} has wire type {wire_type} or is cut off")
    return at + size


def bytes_field(tag: int, value: Data) -> bytes:
    """A length-delimited field under the one-byte `tag`."""
    return b"".join((bytes((tag,)), write_varint(len(value)), value))


def varint_field(tag: int, value: int) -> bytes:
    """A varint field under the one-byte `tag`; a negative int64 takes ten bytes."""
    return bytes((tag,)) + write_varint(value & 0xFFFF_FFFF_FFFF_FFFF)
