"""Bitswap messages as values, and how they are written. Pure.

A message is written by hand into a list of buffers, so that the bytes of a block are never copied: small headers
alternate with views of the blocks. `decoder` reads them.

Source: ipfs/specs bitswap-protocol.md; boxo bitswap/message/pb/message.proto. Field numbers:

    Message    1 wantlist  2 blocks (1.0.0)  3 payload (1.1.0)  4 blockPresences (1.2.0)  5 pendingBytes
    Wantlist   1 entries   2 full
    Entry      1 block (CID)  2 priority  3 cancel  4 wantType  5 sendDontHave
    Block      1 prefix    2 data
    Presence   1 cid       2 type
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..block import Data
from ..cid import Cid, write_varint
from ..errors import LocalProtocolError
from .limits import MAX_MESSAGE_SIZE

WANT_BLOCK = 0
WANT_HAVE = 1

PRIORITY_MAX = 2**31 - 1
PRIORITY_STANDING = 1
"""Our own word for "no hurry, I expect to get it from a neighbour": the lowest priority Kubo never sends."""

_V0_PREFIX = b"\x00\x70\x12\x20"
_VERSIONS_WITH_PRESENCES = ("/ipfs/bitswap/1.2.0",)
_VERSIONS_WITH_PAYLOAD = ("/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0")


class Entry(NamedTuple):
    """One line of a wantlist."""

    cid: Cid
    priority: int = PRIORITY_MAX
    cancel: bool = False
    want_have: bool = False
    send_dont_have: bool = False


class WireBlock(NamedTuple):
    """A block as it travels: the CID without its digest (empty in the 1.0.0 form), and the bytes."""

    prefix: bytes
    data: Data


@dataclass(slots=True)
class Message:
    """One message. Order within each list is kept; a CID is not both in `blocks` and in a presence."""

    entries: Sequence[Entry] = ()
    full: bool = False
    blocks: list[WireBlock] = field(default_factory=list)
    haves: list[Cid] = field(default_factory=list)
    dont_haves: list[Cid] = field(default_factory=list)
    pending_bytes: int = 0

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.entries or self.full or self.blocks or self.haves or self.dont_haves)


def speaks_presences(protocol: str) -> bool:
    """Whether `protocol` knows want-have, sendDontHave and presences."""
    return protocol in _VERSIONS_WITH_PRESENCES


def encode(message: Message, protocol: str) -> list[Data]:
    """`message`, length prefix first, in the form that `protocol` (of the stream written to) can carry.

    Presences and want-haves are left out for peers before 1.2.0, and blocks that 1.0.0 would take for another CID.
    The wantlist is written even when empty: boxo before 0.33 panics without it.
    Raises `LocalProtocolError` when the message is over the limit that every peer refuses.
    """
    presences = speaks_presences(protocol)
    head = bytearray()
    wantlist = _wantlist(message, presences)
    head += b"\x0a" + write_varint(len(wantlist)) + wantlist
    tail = bytearray()
    if presences:
        for cid in message.haves:
            tail += _presence(cid, b"")
        for cid in message.dont_haves:
            tail += _presence(cid, b"\x10\x01")
        if message.pending_bytes:
            tail += b"\x28" + write_varint(message.pending_bytes)
    parts = _blocks(message.blocks, protocol, head)
    if tail:
        parts.append(bytes(tail))
    total = sum(map(len, parts))
    if total > MAX_MESSAGE_SIZE:
        raise LocalProtocolError(f"a bitswap message of {total} bytes is over the limit of {MAX_MESSAGE_SIZE}")
    parts[0] = write_varint(total) + parts[0]
    return parts


def _blocks(blocks: Sequence[WireBlock], protocol: str, head: bytearray) -> list[Data]:
    """The buffers of a message that starts with `head`: a block's header is joined to what precedes it."""
    parts: list[Data] = []
    payload = protocol in _VERSIONS_WITH_PAYLOAD
    for prefix, data in blocks:
        size = write_varint(len(data))
        if payload:
            inner = 1 + len(write_varint(len(prefix))) + len(prefix) + 1 + len(size) + len(data)
            head += b"\x1a" + write_varint(inner) + b"\x0a" + write_varint(len(prefix)) + prefix + b"\x12" + size
        elif prefix == _V0_PREFIX:
            head += b"\x12" + size
        else:
            continue
        parts += (bytes(head), data)
        head = bytearray()
    if head:
        parts.append(bytes(head))
    return parts


def _wantlist(message: Message, presences: bool) -> bytes:  # noqa: FBT001 - a private detail of `encode`
    out = bytearray()
    for cid, priority, cancel, want_have, send_dont_have in message.entries:
        if want_have and not presences and not cancel:
            continue
        entry = b"\x0a" + write_varint(len(cid)) + cid
        if priority and not cancel:
            entry += b"\x10" + write_varint(priority & 0xFFFFFFFFFFFFFFFF)
        if cancel:
            entry += b"\x18\x01"
        elif presences:
            if want_have:
                entry += b"\x20\x01"
            if send_dont_have:
                entry += b"\x28\x01"
        out += b"\x0a" + write_varint(len(entry)) + entry
    if message.full:
        out += b"\x10\x01"
    return bytes(out)


def _presence(cid: Cid, kind: bytes) -> bytes:
    body = b"\x0a" + write_varint(len(cid)) + cid + kind
    return b"\x22" + write_varint(len(body)) + body


def entry_size(cid: Cid) -> int:
    """Upper bound of the bytes one want entry or presence of `cid` takes in a message."""
    return len(cid) + 24


def block_size(size: int) -> int:
    """Upper bound of the bytes one block of `size` bytes takes in a message."""
    return size + 64
