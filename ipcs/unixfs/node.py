"""The UnixFS message inside a dag-pb node's Data: what the node is, and the file bytes below each link.

Sources: ipfs/specs `src/unixfs.md`; boxo `ipld/unixfs/pb/unixfs.proto` and `ipld/unixfs/unixfs.go`. Read as a proto2
reader does: fields in any order, unknown ones skipped, the last of a repeated scalar wins, block sizes packed or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from ..block import Data
from ..errors import InvalidArgument, MalformedBlock
from . import wire


class Kind(IntEnum):
    """The type of a node. 3 (Metadata) was never written by a released Kubo and is refused."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    SYMLINK = 4
    HAMT_SHARD = 5


class Mtime(NamedTuple):
    """A modification time: seconds since 1970 (may be negative) and nanoseconds, 0 to 999,999,999."""

    seconds: int
    nanoseconds: int = 0


class Attributes(NamedTuple):
    """What `ipfs add --mode --mtime` records; on the root node of a file, a directory or a symlink only."""

    mode: int | None = None
    mtime: Mtime | None = None


class UnixFS(NamedTuple):
    """The message. `data` is file bytes, a symlink's target or a shard's bitfield; sizes are in bytes."""

    kind: Kind
    data: Data | None = None
    filesize: int | None = None
    blocksizes: Sequence[int] = ()
    hash_type: int | None = None
    fanout: int | None = None
    mode: int | None = None
    mtime: Mtime | None = None


MODE_BITS = 0o7777
"""The bits of a POSIX mode that UnixFS records: permissions, setuid, setgid, sticky."""

_MAX_NANOSECONDS = 999_999_999
_INT64_SIGN = 1 << 63


def encode(message: UnixFS) -> bytes:
    """The bytes of `message`: fields ascending, block sizes unpacked, empty data and zero mode left out.

    Raises `InvalidArgument` for nanoseconds or seconds out of range.
    """
    out = [b"\x08" + bytes((message.kind,))]
    if message.data:
        out.append(wire.bytes_field(0x12, message.data))
    if message.filesize is not None:
        out.append(wire.varint_field(0x18, message.filesize))
    out += [wire.varint_field(0x20, size) for size in message.blocksizes]
    if message.hash_type is not None:
        out.append(wire.varint_field(0x28, message.hash_type))
    if message.fanout is not None:
        out.append(wire.varint_field(0x30, message.fanout))
    if message.mode and message.mode & MODE_BITS:
        out.append(wire.varint_field(0x38, message.mode & MODE_BITS))
    if message.mtime is not None:
        out.append(wire.bytes_field(0x42, _encode_mtime(message.mtime)))
    return b"".join(out)


def _encode_mtime(mtime: Mtime) -> bytes:
    if not 0 <= mtime.nanoseconds <= _MAX_NANOSECONDS or not -_INT64_SIGN <= mtime.seconds < _INT64_SIGN:
        raise InvalidArgument(f"mtime {mtime.seconds}.{mtime.nanoseconds:09} is out of range")
    out = wire.varint_field(0x08, mtime.seconds)
    if mtime.nanoseconds:
        out += b"\x15" + mtime.nanoseconds.to_bytes(4, "little")
    return out


def decode(data: Data) -> UnixFS:
    """The message in `data`; its `data` is a slice of it. Raises `MalformedBlock`."""
    values: dict[int, int] = {}
    sizes: list[int] = []
    payload: Data | None = None
    mtime: Mtime | None = None
    at, end = 0, len(data)
    while at < end:
        tag, at = wire.read_uvarint(data, at, end)
        if tag == 0x12:
            begin, at = wire.read_bytes(data, at, end)
            payload = data[begin:at]
        elif tag == 0x20:
            size, at = wire.read_uvarint(data, at, end)
            sizes.append(size)
        elif tag == 0x22:
            begin, at = wire.read_bytes(data, at, end)
            sizes += _packed(data, begin, at)
        elif tag == 0x42:
            begin, at = wire.read_bytes(data, at, end)
            mtime = _decode_mtime(data, begin, at)
        elif tag in (0x08, 0x18, 0x28, 0x30, 0x38):
            values[tag], at = wire.read_uvarint(data, at, end)
        else:
            at = wire.skip_field(data, tag & 7, at, end)
    return _checked(values, payload, sizes, mtime)


def _packed(data: Data, at: int, end: int) -> list[int]:
    sizes = []
    while at < end:
        size, at = wire.read_uvarint(data, at, end)
        sizes.append(size)
    return sizes


def _checked(values: dict[int, int], payload: Data | None, sizes: list[int], mtime: Mtime | None) -> UnixFS:
    kind = values.get(0x08)
    if kind is None or kind not in Kind._value2member_map_:
        raise MalformedBlock(f"UnixFS node has type {kind}")
    mode = values.get(0x38)
    if mode is not None and mode >> 32:
        raise MalformedBlock(f"UnixFS mode {mode} does not fit 32 bits")
    return UnixFS(Kind(kind), payload, values.get(0x18), sizes, values.get(0x28), values.get(0x30), mode, mtime)


def _decode_mtime(data: Data, at: int, end: int) -> Mtime:
    seconds: int | None = None
    nanoseconds = 0
    while at < end:
        tag, at = wire.read_uvarint(data, at, end)
        if tag == 0x08:
            value, at = wire.read_uvarint(data, at, end)
            seconds = value - (1 << 64) if value >= _INT64_SIGN else value
        elif tag == 0x15:
            after = wire.skip_field(data, wire.FIXED32, at, end)
            nanoseconds, at = int.from_bytes(data[at:after], "little"), after
            if not 1 <= nanoseconds <= _MAX_NANOSECONDS:
                raise MalformedBlock(f"UnixFS mtime has {nanoseconds} nanoseconds")
        else:
            at = wire.skip_field(data, tag & 7, at, end)
    if seconds is None:
        raise MalformedBlock("UnixFS mtime has no seconds")
    return Mtime(seconds, nanoseconds)
