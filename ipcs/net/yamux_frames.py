"""The words of yamux: frame headers, limits of a connection, and the events that received frames cause."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

PROTOCOL_ID = "/yamux/1.0.0"
INITIAL_WINDOW = 256 * 1024
"""Bytes each side may send on a new stream at once (fixed by the protocol)."""

MAX_WINDOW = 16 * 1024 * 1024
"""A receive window never grows beyond this: 16 MiB keep a 1 Gbit/s path of 130 ms full (go-yamux's maximum as well)."""

MAX_FRAME = 256 * 1024
"""Data bytes per frame that we send. Kubo and js-libp2p accept any length within the window; larger frames would let
one stream hold up the others for longer."""

HEADER = 12
"""Bytes of a frame header."""

HEADER_LAYOUT = struct.Struct("!BBHII")
"""Version, type, flags, stream, length: 12 bytes, big-endian."""


class FrameType(IntEnum):
    """The second byte of a header."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


SYN, ACK, FIN, RST = 1, 2, 4, 8


class GoAwayCode(IntEnum):
    """Why a side ends the connection."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True)
class Limits:
    """Bounds of one connection."""

    inbound_streams: int = 1024
    """Streams the peer may have open; the next is reset (go-libp2p: 1,000). Kubo has 8 Bitswap responses in flight."""
    outbound_streams: int = 1024
    """Streams we may have open."""
    unacknowledged: int = 256
    """Streams that we opened and the peer has not acknowledged (`AcceptBacklog` of go-yamux)."""
    refused_streams: int = 4096
    """A peer that had so many streams reset for `inbound_streams` floods: the connection ends."""
    window_budget: int = 32 * 1024 * 1024
    """Bytes of receive windows beyond the initial ones, over all streams."""
    unread: int = 16 * 1024 * 1024
    """Bytes received and not consumed, over all streams; the stream that exceeds it is reset."""
    control_frames: int = 8192
    """Frames that may wait to be sent in answer to the peer's. Only one that does not read ours gets there."""
    ping_after: float = 10.0
    """Seconds of silence before the peer is asked for a sign of life."""
    pong_within: float = 20.0
    """Seconds it has for that: a dead or partitioned peer is noticed after `ping_after` + `pong_within`, 30 s, and a
    living one may hold its reader back (a slow disk) for as long."""


# ---- events


@dataclass(slots=True)
class StreamOpened:
    """The peer opened `stream`."""

    stream: int


@dataclass(slots=True)
class DataReceived:
    """`data` of `stream`, in order. A view into what was received: valid until the next call."""

    stream: int
    data: memoryview


@dataclass(slots=True)
class StreamEnded:
    """The peer will send no more on `stream`."""

    stream: int
    closed: bool = False
    """Whether we had ended too: the stream is gone, regularly."""


@dataclass(slots=True)
class StreamReset:
    """`stream` is gone, by the peer's will or for exceeding a limit."""

    stream: int
    reason: str


@dataclass(slots=True)
class WindowOpened:
    """More may be sent on `stream`."""

    stream: int


@dataclass(slots=True)
class PongReceived:
    """The peer answered a ping after `round_trip` seconds."""

    round_trip: float


@dataclass(slots=True)
class GoAwayReceived:
    """The peer opens and accepts no more streams; with a code other than NORMAL it ends the connection."""

    code: int


@dataclass(slots=True)
class PeerSilent:
    """The peer gave no sign of life in time: the connection is dead."""

    seconds: float


Event = (
    StreamOpened | DataReceived | StreamEnded | StreamReset | WindowOpened | PongReceived | GoAwayReceived | PeerSilent
)
