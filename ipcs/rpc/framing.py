"""Frames of HTTP/2 and messages of gRPC: bytes to values and back. Pure.

Source: RFC 9113 sections 4 to 6, RFC 7541 section 6.2, grpc/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from urllib.parse import quote

from ..block import Data
from ..errors import RemoteProtocolError
from .status import Code

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes in one message, both ways. containerd allows 16 MiB and 1.6 does not split larger writes (defaults.go)."""

DETAILS = 4096
"""Characters of an error's message that are sent: clients refuse header blocks above 8 or 16 KiB."""


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Reason(IntEnum):
    """Why a stream or connection ends early."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Settings that matter to a server which sends no compressed headers."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEAD = Struct(">HBBBI")
"""Length (as 16 and 8 bits), type, flags, stream."""

PREFIX = Struct(">BI")
"""Of a gRPC message: compressed or not, length in bytes."""

PAIR = Struct(">HI")


class Http2Error(RemoteProtocolError):
    """The client broke the protocol; its connection ends with `reason`."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"gRPC client: {message}")
        self.reason = reason


class MessageError(RemoteProtocolError):
    """A message that is refused; its call ends with `code`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def frame_head(length: int, kind: Kind, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of `length` bytes."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: Kind, flags: int, stream: int, payload: bytes) -> bytes:
    """One whole frame."""
    return frame_head(len(payload), kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(PAIR.pack(key, value) for key, value in values.items()))


def number(value: int) -> bytes:
    """A 31 or 32 bit number, as WINDOW_UPDATE and RST_STREAM carry it."""
    return value.to_bytes(4, "big")


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a DATA or HEADERS frame without padding and priority. Raises `Http2Error`."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start = 1
        end -= payload[0] if payload else 1
    if flags & HAS_PRIORITY:
        start += 5
    if start > end:
        raise Http2Error(Reason.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[start:end] if start or end != len(payload) else payload


def _literal(name: str, value: str) -> bytes:
    """A header that enters no table."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    size = len(data)
    if size < 0x7F:
        return bytes((size,)) + data
    prefix = bytearray((0x7F,))
    size -= 0x7F
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + data


HEADERS = b"\x88" + _literal("content-type", "application/grpc")
""":status 200 is the eighth entry of the static table."""

_SUCCESS = _literal("grpc-status", "0")


def trailers(code: Code, message: str) -> bytes:
    """The header block that ends a call."""
    if code is Code.OK:
        return _SUCCESS
    kept = quote(message[:DETAILS], safe=" !\"#$&'()*+,/:;<=>?@[\\]^_`{|}~-.")
    return _literal("grpc-status", str(int(code))) + _literal("grpc-message", kept)


def message_head(size: int) -> bytes:
    """The five bytes before a message of `size` bytes."""
    return PREFIX.pack(0, size)


class Messages:
    """Cuts what a stream brings into messages."""

    __slots__ = ("_awaited", "_have", "_parts")

    def __init__(self) -> None:
        self._parts: list[Data] = []
        self._have = 0
        self._awaited = PREFIX.size

    def feed(self, data: bytes) -> list[bytes]:
        """Messages that are whole now. Raises `MessageError`."""
        if not self._parts and len(data) >= PREFIX.size and self._need(data, 0) == len(data):
            return [data[PREFIX.size :]]
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._awaited:
            return []
        joined = b"".join(self._parts)
        found: list[bytes] = []
        at, self._awaited = 0, PREFIX.size
        while len(joined) - at >= PREFIX.size:
            need = self._need(joined, at)
            if len(joined) - at < need:
                self._awaited = need
                break
            found.append(joined[at + PREFIX.size : at + need])
            at += need
        self._have = len(joined) - at
        self._parts = [joined[at:]] if self._have else []
        return found

    @property
    def partial(self) -> bool:
        """Whether a message has begun that is not whole."""
        return self._have > 0

    def _need(self, data: Data, at: int) -> int:
        compressed, size = PREFIX.unpack_from(data, at)
        if compressed:
            raise MessageError(Code.UNIMPLEMENTED, "compressed messages are not taken: ask without grpc-encoding")
        if size > MAX_MESSAGE:
            raise MessageError(
                Code.RESOURCE_EXHAUSTED, f"a message of {size} bytes is larger than max ({MAX_MESSAGE} bytes)"
            )
        return PREFIX.size + int(size)
