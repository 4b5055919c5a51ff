"""multistream-select 1.0: agreeing on the protocol of a stream, without I/O.

Source: multiformats/multistream-select README; libp2p/specs connections/README.md. A message is a varint length and a
line with its newline. The dialler may send its choice and first data without waiting ("lazy"): a listener answers
header and choice in one write when it got both at once, and waits when it did not, as some dialers do.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from enum import Enum, auto

from ..cid import read_varint, write_varint
from ..errors import InvalidArgument, RemoteProtocolError

HEADER_LINE = "/multistream/1.0.0"
NOT_AVAILABLE = "na"

MAX_LINE = 1024
"""Bytes of one message: protocol ids are short (go-multistream reads up to 64 KiB, py-libp2p 1 MiB)."""

MAX_PROPOSALS = 64
"""Protocol ids a dialler may try on one stream."""


def message(line: str) -> bytes:
    """`line` as a message."""
    data = line.encode() + b"\n"
    return write_varint(len(data)) + data


HEADER = message(HEADER_LINE)

_SHORT = 128
"""Bytes of the longest proposal whose length is one byte."""
_NEWLINE = ord("\n")


def opening(data: memoryview) -> tuple[str, int]:
    """The protocol that `data`, the first bytes of a stream, propose right behind the header, and the bytes that this
    takes; ("", 0) when they are not so simple, and a `Listener` has to look."""
    head = bytes(data[: len(HEADER) + _SHORT])
    end = len(HEADER) + 1 + head[len(HEADER)] if len(head) > len(HEADER) else 0
    if not len(HEADER) + 1 < end <= len(head) or not head.startswith(HEADER) or head[end - 1] != _NEWLINE:
        return "", 0
    return head[len(HEADER) + 1 : end - 1].decode(errors="replace"), end


class _Lines:
    """Takes messages off the front of what arrives; what follows the last one is `rest`."""

    def __init__(self) -> None:
        self.rest = bytearray()

    def next(self) -> str | None:
        """The next line, or None while it is incomplete. Raises `RemoteProtocolError` for an impossible one."""
        head = bytes(self.rest[:3])
        if len(head) < 3 and all(byte >= 0x80 for byte in head):
            return None
        try:
            length, start = read_varint(head)
        except InvalidArgument:
            length, start = MAX_LINE + 1, 0
        if not 0 < length <= MAX_LINE:
            raise RemoteProtocolError(f"multistream: a line of {length} bytes; 1 to {MAX_LINE} are possible")
        if len(self.rest) < start + length:
            return None
        line = bytes(self.rest[start : start + length])
        if not line.endswith(b"\n"):
            raise RemoteProtocolError("multistream: a line without its newline")
        del self.rest[: start + length]
        return line[:-1].decode(errors="replace")


class Listener:
    """The side that is offered protocols. `known` are those it speaks."""

    def __init__(self, known: Container[str]) -> None:
        self._known = known
        self._lines = _Lines()
        self._header_seen = False
        self._proposals = 0
        self.protocol = ""
        """What was agreed on; empty until then."""

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take `data`, return the answer. After the agreement, `rest()` is the stream's own data.

        Raises `RemoteProtocolError` when this is not multistream, or after too many proposals.
        """
        self._lines.rest += data
        answer = bytearray()
        while not self.protocol and (line := self._lines.next()) is not None:
            if not self._header_seen:
                if line != HEADER_LINE:
                    raise RemoteProtocolError(f"multistream: {line[:80]!r} instead of {HEADER_LINE}")
                self._header_seen = True
                answer += HEADER
                continue
            self._proposals += 1
            if self._proposals > MAX_PROPOSALS:
                raise RemoteProtocolError(f"multistream: more than {MAX_PROPOSALS} proposals")
            if line in self._known:
                self.protocol = line
                answer += message(line)
            else:
                answer += message(NOT_AVAILABLE)
        return bytes(answer)

    def rest(self) -> bytearray:
        """What followed the agreement."""
        return self._lines.rest


class DialState(Enum):
    """Where a dialler stands."""

    WAITING = auto()
    AGREED = auto()
    REFUSED = auto()


class Dialler:
    """The side that offers `protocols`, in order."""

    def __init__(self, protocols: Sequence[str]) -> None:
        self._left = list(protocols)
        self._lines = _Lines()
        self._header_seen = False
        self.state = DialState.WAITING
        self.protocol = self._left.pop(0)
        """The protocol on offer; in AGREED the one agreed on."""

    def begin(self) -> bytes:
        """The first bytes to send."""
        return HEADER + message(self.protocol)

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take `data`, return what to send now. Raises `RemoteProtocolError` when the answer makes no sense."""
        self._lines.rest += data
        answer = b""
        while self.state is DialState.WAITING and (line := self._lines.next()) is not None:
            if not self._header_seen:
                if line != HEADER_LINE:
                    raise RemoteProtocolError(f"multistream: {line[:80]!r} instead of {HEADER_LINE}")
                self._header_seen = True
            elif line == self.protocol:
                self.state = DialState.AGREED
            elif line != NOT_AVAILABLE:
                raise RemoteProtocolError(f"multistream: {line[:80]!r} in answer to {self.protocol}")
            elif self._left:
                self.protocol = self._left.pop(0)
                answer += message(self.protocol)
            else:
                self.state = DialState.REFUSED
        return answer

    def rest(self) -> bytearray:
        """What followed the agreement: the peer's data."""
        return self._lines.rest
