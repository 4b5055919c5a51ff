"""Messages of `containerd.services.content.v1.Content`, written and read by hand.

protobuf objects cost four times the server's CPU at 1 MiB a message (a Read answer is a header and the leaf's own
bytes here), and with the primitives at hand the small messages need no generated code either.

Source: containerd api/services/content/v1/content.proto; encoding: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..block import Data
from ..errors import InvalidArgument
from .descriptor import Info, Status

SERVICE = "containerd.services.content.v1.Content"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NS = 1_000_000_000


class WriteAction(enum.IntEnum):
    """What a message of a Write stream asks for."""

    STAT = 0
    WRITE = 1
    COMMIT = 2


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One message of a Write stream. `data` is a view into the message."""

    action: WriteAction = WriteAction.STAT
    ref: str = ""
    total: int = 0
    expected: str = ""
    offset: int = 0
    data: Data = b""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A window of a blob; size 0 reads to the end."""

    digest: str
    offset: int
    size: int


# ---- primitives


def _varint(value: int) -> bytes:
    if value < 0:
        value += 1 << 64  # int64: two's complement in ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(number: int, value: int) -> bytes:
    return bytes((number << 3 | _VARINT,)) + _varint(value) if value else b""


def _message(number: int, body: bytes) -> bytes:
    return bytes((number << 3 | _BYTES,)) + _varint(len(body)) + body


def _text(number: int, value: str) -> bytes:
    return _message(number, value.encode()) if value else b""


def _texts(number: int, values: Sequence[str]) -> bytes:
    """A repeated string: unlike a single one, an empty value is written."""
    return b"".join(_message(number, value.encode()) for value in values)


def _time(number: int, ns: int) -> bytes:
    """google.protobuf.Timestamp."""
    seconds, nanos = divmod(ns, _NS)
    return _message(number, _int(1, seconds) + _int(2, nanos))


def _labels(number: int, labels: Mapping[str, str]) -> bytes:
    return b"".join(_message(number, _text(1, key) + _text(2, value)) for key, value in labels.items())


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70 and at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise InvalidArgument("message ends inside a varint, or the varint is longer than 10 bytes")


def _fields(data: Data) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field in order: ints for varints, views for everything else."""
    view = memoryview(data)
    at, end = 0, len(view)
    while at < end:
        key, at = _read_varint(view, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(view, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise InvalidArgument(f"message holds a field of unknown wire type {kind}")
        if length > end - at:
            raise InvalidArgument("message ends inside a field")
        yield key >> 3, view[at : at + length]
        at += length


class _Message:
    """Fields of a decoded message with protobuf's defaults; the last of a repeated scalar wins."""

    def __init__(self, data: Data) -> None:
        self._values: dict[int, list[int | memoryview]] = {}
        for number, value in _fields(data):
            self._values.setdefault(number, []).append(value)

    def integer(self, number: int) -> int:
        """An int64."""
        value = self._values.get(number, [0])[-1]
        if not isinstance(value, int):
            raise InvalidArgument(f"field {number} is not a number")
        return value - (1 << 64) if value >> 63 else value

    def views(self, number: int) -> list[memoryview]:
        values = self._values.get(number, [])
        if any(isinstance(value, int) for value in values):
            raise InvalidArgument(f"field {number} is a number")
        return values  # type: ignore[return-value]  # just checked

    def data(self, number: int) -> memoryview:
        return (self.views(number) or [memoryview(b"")])[-1]

    def texts(self, number: int) -> list[str]:
        try:
            return [str(value, "utf-8") for value in self.views(number)]
        except UnicodeDecodeError as exc:
            raise InvalidArgument(f"field {number} is not UTF-8: {exc}") from exc

    def text(self, number: int) -> str:
        return (self.texts(number) or [""])[-1]

    def labels(self, number: int) -> dict[str, str]:
        entries = [_Message(entry) for entry in self.views(number)]
        return {entry.text(1): entry.text(2) for entry in entries}

    def time(self, number: int) -> int:
        stamp = _Message(self.data(number))
        return stamp.integer(1) * _NS + stamp.integer(2)


# ---- requests


def decode_digest_request(data: bytes) -> str:
    """InfoRequest, DeleteContentRequest: the digest. StatusRequest, AbortRequest: the ref."""
    return _Message(data).text(1)


def decode_filters(data: bytes) -> list[str]:
    """ListContentRequest, ListStatusesRequest."""
    return _Message(data).texts(1)


def decode_update_request(data: bytes) -> tuple[Info, list[str]]:
    """UpdateRequest: the info and the paths of its field mask."""
    message = _Message(data)
    return decode_info(message.data(1)), _Message(message.data(2)).texts(1)


def decode_read_request(data: bytes) -> ReadRequest:
    """ReadContentRequest."""
    message = _Message(data)
    return ReadRequest(message.text(1), message.integer(2), message.integer(3))


def decode_write_request(data: bytes) -> WriteRequest:
    """WriteContentRequest; raises `InvalidArgument` for an unknown action."""
    message = _Message(data)
    action = message.integer(1)
    if action not in (0, 1, 2):
        raise InvalidArgument(f"write action {action} is not known")
    return WriteRequest(
        WriteAction(action),
        message.text(2),
        message.integer(3),
        message.text(4),
        message.integer(5),
        message.data(6),
        message.labels(7),
    )


def decode_info(data: Data) -> Info:
    """Info."""
    message = _Message(data)
    return Info(message.text(1), message.integer(2), message.time(3), message.time(4), message.labels(5))


# ---- responses


def encode_info(info: Info) -> bytes:
    """InfoResponse and UpdateResponse; one entry of ListContentResponse too (the same field number)."""
    return _message(
        1,
        _text(1, info.digest)
        + _int(2, info.size)
        + _time(3, info.created_at)
        + _time(4, info.updated_at)
        + _labels(5, info.labels),
    )


def encode_list(infos: Iterable[Info], limit: int) -> Iterator[bytes]:
    """ListContentResponses of about `limit` bytes each."""
    batch: list[bytes] = []
    size = 0
    for info in infos:
        batch.append(encode_info(info))
        size += len(batch[-1])
        if size >= limit:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


def encode_status(status: Status) -> bytes:
    """StatusResponse; one entry of ListStatusesResponse too (the same field number)."""
    return _message(
        1,
        _time(1, status.started_at)
        + _time(2, status.updated_at)
        + _text(3, status.ref)
        + _int(4, status.offset)
        + _int(5, status.total)
        + _text(6, status.expected),
    )


def encode_read(offset: int, parts: Sequence[Data]) -> bytes:
    """ReadContentResponse: one join is the only copy."""
    size = sum(map(len, parts))
    return b"".join((_int(1, offset), b"\x12", _varint(size), *parts))


def encode_write(action: WriteAction, status: Status) -> bytes:
    """WriteContentResponse."""
    return (
        _int(1, action)
        + _time(2, status.started_at)
        + _time(3, status.updated_at)
        + _int(4, status.offset)
        + _int(5, status.total)
        + _text(6, status.digest)
    )


# ---- the client's side, for the shipped conformance suite and `ipcs containerd check`


def encode_digest_request(subject: str) -> bytes:
    """InfoRequest, DeleteContentRequest, StatusRequest, AbortRequest."""
    return _text(1, subject)


def encode_filters(filters: Sequence[str]) -> bytes:
    """ListContentRequest, ListStatusesRequest."""
    return _texts(1, filters)


def encode_read_request(request: ReadRequest) -> bytes:
    """ReadContentRequest."""
    return _text(1, request.digest) + _int(2, request.offset) + _int(3, request.size)


def encode_update_request(info: Info, paths: Sequence[str]) -> bytes:
    """UpdateRequest."""
    mask = _texts(1, paths)
    return encode_info(info) + (_message(2, mask) if paths else b"")


def encode_write_request(request: WriteRequest) -> bytes:
    """WriteContentRequest."""
    head = (
        _int(1, request.action)
        + _text(2, request.ref)
        + _int(3, request.total)
        + _text(4, request.expected)
        + _int(5, request.offset)
        + _labels(7, request.labels)
    )
    data = request.data
    return b"".join((head, b"\x32", _varint(len(data)), data)) if data else head


def decode_infos(data: bytes) -> list[Info]:
    """ListContentResponse; InfoResponse and UpdateResponse hold exactly one."""
    return [decode_info(entry) for entry in _Message(data).views(1)]


def decode_statuses(data: bytes) -> list[Status]:
    """ListStatusesResponse; StatusResponse holds exactly one."""
    messages = [_Message(entry) for entry in _Message(data).views(1)]
    return [
        Status(m.text(3), m.integer(4), m.integer(5), m.text(6), started_at=m.time(1), updated_at=m.time(2))
        for m in messages
    ]


def decode_names(data: bytes) -> list[str]:
    """Names in a ListNamespacesResponse of containerd's namespaces service (each entry's field 1)."""
    return [_Message(entry).text(1) for entry in _Message(data).views(1)]


def decode_read(data: bytes) -> memoryview:
    """The bytes in a ReadContentResponse."""
    return _Message(data).data(2)


def decode_write(data: bytes) -> tuple[WriteAction, Status]:
    """WriteContentResponse (its status has no ref)."""
    m = _Message(data)
    status = Status("", m.integer(4), m.integer(5), started_at=m.time(2), updated_at=m.time(3), digest=m.text(6))
    return WriteAction(m.integer(1)), status
