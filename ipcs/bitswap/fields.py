"""The small parts of a message: varints, and the fields of a wantlist or a presence, which are parsed whole. Pure."""

from __future__ import annotations

from ..cid import Cid, check_cid
from ..errors import InvalidArgument, RemoteProtocolError
from .limits import MAX_CID_SIZE, MAX_ENTRIES_PER_MESSAGE
from .message import Entry

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_COMMON = (b"\x01\x55\x12\x20", b"\x01\x70\x12\x20")
_COMMON_START, _PRIORITY = b"\x0a\x24", b"\x10"
_COMMON_ENDS = {
    b"": (False, False, False),
    b"\x18\x01": (True, False, False),
    b"\x20\x01": (False, True, False),
    b"\x28\x01": (False, False, True),
    b"\x20\x01\x28\x01": (False, True, True),
}
"""What may follow CID and priority of an entry: cancel, want-have, send-dont-have."""
_IDENTITY_HASH = 0


def varint(data: memoryview | bytes, at: int, end: int) -> tuple[int, int]:
    """A protobuf varint: (value, offset after it); the offset is -1 when `end` cuts it off."""
    if at < end and (byte := data[at]) < 0x80:
        return byte, at + 1
    value = shift = 0
    for position in range(at, min(end, at + 10)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + 1
        shift += 7
    if end - at >= 10:
        raise RemoteProtocolError("a varint in a bitswap message is longer than ten bytes")
    return 0, -1


def _fields(data: bytes, at: int, end: int, what: str) -> list[tuple[int, int, int]]:
    """(key, value or offset of the body, offset of its end) of each field in `data[at:end]`."""
    found: list[tuple[int, int, int]] = []
    while at < end:
        key, at = varint(data, at, end)
        wire = key & 7
        if at >= 0 and wire in (_VARINT, _LENGTH):
            value, at = varint(data, at, end)
            if wire == _LENGTH and at >= 0:
                value, at = at, at + value
        elif at >= 0 and wire in (_FIXED64, _FIXED32):
            value, at = 0, at + (8 if wire == _FIXED64 else 4)
        elif at >= 0:
            raise RemoteProtocolError(f"bitswap {what} has a field of wire type {wire}")
        if at < 0 or at > end:
            raise RemoteProtocolError(f"bitswap {what} ends within a field")
        found.append((key, value, at))
        if len(found) > MAX_ENTRIES_PER_MESSAGE:
            raise RemoteProtocolError(f"more than {MAX_ENTRIES_PER_MESSAGE} fields in one bitswap {what}")
    return found


def parse_wantlist(data: bytes, entries: list[Entry]) -> tuple[list[Entry], bool]:
    """`entries` with those of this Wantlist added (a repeated submessage is merged), and its `full` flag."""
    full = False
    for key, value, end in _fields(data, 0, len(data), "wantlist"):
        if key == 0x0A:
            entry = _parse_entry(data, value, end)
            if entry is not None:
                entries.append(entry)
        elif key == 0x10:
            full = value != 0
    if len(entries) > MAX_ENTRIES_PER_MESSAGE:
        raise RemoteProtocolError(f"more than {MAX_ENTRIES_PER_MESSAGE} wants in one bitswap message")
    return entries, full


def _parse_entry(data: bytes, at: int, end: int) -> Entry | None:
    return parse_common_entry(data, at, end) or parse_any_entry(data, at, end)


def parse_common_entry(data: bytes, at: int, end: int) -> Entry | None:
    """The form in which boxo and we write nearly all entries, at a third of the general way's cost; None for others."""
    if data[at : at + 2] != _COMMON_START or data[at + 2 : at + 6] not in _COMMON:
        return None
    after, priority = at + 38, 0
    if data[after : after + 1] == _PRIORITY:
        priority, after = varint(data, after + 1, end)
    flags = _COMMON_ENDS.get(data[after:end]) if 0 <= after <= end else None
    return None if flags is None else Entry(Cid(data[at + 2 : at + 38]), _signed(priority), *flags)


def parse_any_entry(data: bytes, at: int, end: int) -> Entry | None:
    """One entry in any form; None for one that is ignored. Raises `RemoteProtocolError`."""
    cid: Cid | None = None
    named = cancel = want_have = send_dont_have = False
    priority = 0
    for key, value, stop in _fields(data, at, end, "want"):
        if key == 0x0A:
            cid, named = _parse_cid(data[value:stop]), True
        elif key == 0x10:
            priority = _signed(value)
        elif key == 0x18:
            cancel = value != 0
        elif key == 0x20:  # only 0 is a block; an unknown type is a want-have, as in boxo
            want_have = value != 0
        elif key == 0x28:
            send_dont_have = value != 0
    if not named:
        raise RemoteProtocolError("a want in a bitswap message names no CID")
    return None if cid is None else Entry(cid, priority, cancel, want_have, send_dont_have)


def _signed(value: int) -> int:
    """A varint as protobuf's int32."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def parse_presence(data: bytes) -> tuple[Cid | None, bool]:
    cid: Cid | None = None
    named = absent = False
    for key, value, stop in _fields(data, 0, len(data), "presence"):
        if key == 0x0A:
            cid, named = _parse_cid(data[value:stop]), True
        elif key == 0x10:
            absent = value != 0
    if not named:
        raise RemoteProtocolError("a presence in a bitswap message names no CID")
    return cid, absent


def _parse_cid(data: bytes) -> Cid | None:
    """A CID; None for one that is ignored (too long, or identity). Raises for one that cannot be parsed."""
    if len(data) == 36 and data[:4] in _COMMON:
        return Cid(data)
    if len(data) > MAX_CID_SIZE:
        return None
    try:
        cid = check_cid(data)
    except InvalidArgument as exc:
        raise RemoteProtocolError(f"a bitswap message holds a malformed CID: {exc.message}") from exc
    return None if _is_identity(cid) else cid


def _is_identity(cid: Cid) -> bool:
    at = varint(cid, 1, len(cid))[1]
    return cid[0] == 1 and cid[at] == _IDENTITY_HASH


def merge(entries: list[Entry]) -> list[Entry]:
    """One entry a CID (boxo message `addEntry`): flags only turn on, a want-block beats a want-have."""
    merged: dict[Cid, Entry] = {}
    for entry in entries:
        known = merged.get(entry.cid)
        if known is None:
            merged[entry.cid] = entry
            continue
        merged[entry.cid] = Entry(
            entry.cid,
            entry.priority if entry.want_have == known.want_have else known.priority,
            known.cancel or entry.cancel,
            known.want_have and entry.want_have,
            known.send_dont_have or entry.send_dont_have,
        )
    return list(merged.values())
