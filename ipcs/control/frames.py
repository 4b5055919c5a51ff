"""The wire format of the control service: JSON documents and raw bytes, in one stream each way.

    service Control { rpc <Method>(stream Frame) returns (stream Frame); }      // ipcs.control.v1
    message Frame { oneof kind { string json = 1; bytes data = 2; } }

The client's first frame is the JSON object of parameters. The server's frames are JSON objects with one key: `item`
(one row of a listing), `progress` (something a terminal may show), or `result` (the last frame); data frames carry
file content. Encoded by hand: one field, and content must not be copied through a message object.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from ..block import Data
from ..cid import read_varint, write_varint
from ..errors import RemoteProtocolError

SERVICE = "ipcs.control.v1.Control"

CHUNK = 1024 * 1024
"""Bytes of content in one data frame: gRPC's cost is per message, and falls no further above 1 MiB."""

Frame: TypeAlias = dict[str, Any] | memoryview
"""A decoded frame: a JSON object, or content."""

_JSON, _DATA = 0x0A, 0x12


def encode(frame: dict[str, Any] | Data) -> bytes:
    """A JSON object or content as one message."""
    if isinstance(frame, dict):
        body: Data = json.dumps(frame, separators=(",", ":")).encode()
        tag = _JSON
    else:
        body, tag = frame, _DATA
    return b"".join((bytes((tag,)), write_varint(len(body)), body))


def decode(message: bytes) -> Frame:
    """The inverse of `encode`. Raises `RemoteProtocolError` for anything else."""
    if not message or message[0] not in (_JSON, _DATA):
        raise RemoteProtocolError("control frame has no known field; do both sides have the same version of ipcs?")
    length, at = read_varint(message, 1)
    if len(message) - at != length:
        raise RemoteProtocolError(f"control frame declares {length} bytes and has {len(message) - at}")
    body = memoryview(message)[at:]
    if message[0] == _DATA:
        return body
    try:
        document = json.loads(bytes(body))
    except ValueError as exc:
        raise RemoteProtocolError(f"control frame holds malformed JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise RemoteProtocolError("control frame holds JSON that is not an object")
    return document
