"""Identify: what two peers tell each other about themselves. Pure codec with bounds.

Source: libp2p/specs identify/README.md; bounds after go-libp2p p2p/protocol/identify/id.go (8 KiB a message, at most
10 messages, merged) and its connectedPeerMaxAddrs. Everything in it is the peer's own claim: the secure channel has
proven its key, nothing else here is proven.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..cid import read_varint, write_varint
from ..errors import InvalidArgument, LimitExceeded, RemoteProtocolError

ID = "/ipfs/id/1.0.0"
PUSH_ID = "/ipfs/id/push/1.0.0"
PROTOCOL_VERSION = "ipfs/0.1.0"

MAX_MESSAGE = 8 * 1024
"""Bytes of one message (go-libp2p `signedIDSize`)."""

MAX_MESSAGES = 10
"""Messages that are merged into one answer (go-libp2p `maxMessages`)."""

MAX_BYTES = MAX_MESSAGES * (MAX_MESSAGE + 2)
"""Bytes that are read from an identify stream at most."""

MAX_ADDRESSES = 128
"""Listen addresses kept of one peer; go-libp2p keeps 500, a cluster node has a handful."""

MAX_PROTOCOLS = 256
"""Protocol ids kept of one peer; Kubo 0.22 lists about 30."""

MAX_TEXT = 256
"""Characters kept of a protocol id, an agent or a version."""

_PUBLIC_KEY, _LISTEN, _PROTOCOL, _OBSERVED, _VERSION, _AGENT = 1, 2, 3, 4, 5, 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Identify:
    """One peer's description. Addresses are binary multiaddrs, unchecked."""

    agent: str = ""
    protocol_version: str = ""
    protocols: tuple[str, ...] = ()
    listen_addresses: tuple[bytes, ...] = ()
    observed_address: bytes = b""
    public_key: bytes = b""
    """Public key protobuf; empty when the peer left it out."""


def encode(message: Identify) -> bytes:
    """`message` with its length prefix, as it goes on the stream.

    Raises `LimitExceeded` when it is longer than peers accept.
    """
    fields: list[tuple[int, bytes]] = [(_PUBLIC_KEY, message.public_key)]
    fields += [(_LISTEN, address) for address in message.listen_addresses]
    fields += [(_PROTOCOL, protocol.encode()) for protocol in message.protocols]
    fields.append((_OBSERVED, message.observed_address))
    fields.append((_VERSION, message.protocol_version.encode()))
    fields.append((_AGENT, message.agent.encode()))
    body = b"".join(write_varint(number << 3 | _BYTES) + write_varint(len(v)) + v for number, v in fields if v)
    if len(body) > MAX_MESSAGE:
        raise LimitExceeded(f"identify message of {len(body)} bytes; peers accept {MAX_MESSAGE}")
    return write_varint(len(body)) + body


def decode(data: bytes) -> Identify:
    """All of an identify stream (length-prefixed messages, merged) as one description.

    What exceeds `MAX_ADDRESSES`, `MAX_PROTOCOLS` and `MAX_TEXT` is dropped. Raises `RemoteProtocolError` when `data` is
    empty, malformed, or longer than its bounds.
    """
    if not data:
        raise RemoteProtocolError("identify: empty answer")
    protocols: dict[str, None] = {}
    addresses: dict[bytes, None] = {}
    single: dict[int, bytes] = {}
    try:
        for message in _messages(data):
            for number, value in _fields(message):
                if number == _LISTEN and len(addresses) < MAX_ADDRESSES:
                    addresses[value] = None
                elif number == _PROTOCOL and len(protocols) < MAX_PROTOCOLS and len(value) <= MAX_TEXT:
                    protocols[value.decode(errors="replace")] = None
                elif number in (_PUBLIC_KEY, _OBSERVED, _VERSION, _AGENT):
                    single[number] = value
    except InvalidArgument as exc:
        raise RemoteProtocolError(f"identify: {exc.message}") from exc
    return Identify(
        agent=_text(single.get(_AGENT, b"")),
        protocol_version=_text(single.get(_VERSION, b"")),
        protocols=tuple(protocols),
        listen_addresses=tuple(addresses),
        observed_address=single.get(_OBSERVED, b""),
        public_key=single.get(_PUBLIC_KEY, b""),
    )


def _text(value: bytes) -> str:
    """For logs and terminals: no control characters, bounded."""
    text = value[: 4 * MAX_TEXT].decode(errors="replace")[:MAX_TEXT]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _messages(data: bytes) -> Iterator[bytes]:
    at = count = 0
    while at < len(data):
        length, at = read_varint(data, at)
        count += 1
        if length > MAX_MESSAGE or count > MAX_MESSAGES:
            raise LimitExceeded(f"message {count} of {length} bytes; at most {MAX_MESSAGES} of {MAX_MESSAGE} are read")
        if at + length > len(data):
            raise InvalidArgument("message is cut off")
        yield data[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Length-delimited fields; others are skipped (protobuf's rule for unknown fields)."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = read_varint(message, at)
            continue
        if kind == _BYTES:
            length, at = read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise InvalidArgument(f"wire type {kind} is not known")
        if at + length > len(message):
            raise InvalidArgument("field is cut off")
        if kind == _BYTES:
            yield tag >> 3, message[at : at + length]
        at += length
