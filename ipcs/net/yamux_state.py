"""What a yamux connection keeps of each stream, and of the frame that is arriving."""

from __future__ import annotations

from dataclasses import dataclass

from .yamux_frames import INITIAL_WINDOW


@dataclass(slots=True)
class StreamState:
    send_window: int = INITIAL_WINDOW
    receive_window: int = INITIAL_WINDOW
    """Bytes the peer may still send."""
    target: int = INITIAL_WINDOW
    """The size that `receive_window` + `unread` is brought back to."""
    unread: int = 0
    acknowledged: bool = True
    """Ours: the peer has acknowledged it."""
    owes_ack: bool = False
    """The peer's: our first frame on it carries ACK."""
    we_ended: bool = False
    peer_ended: bool = False


@dataclass(slots=True)
class ArrivingFrame:
    """The data frame that is arriving."""

    stream: int = 0
    left: int = 0
    flags: int = 0
    """What takes effect at its end: FIN, RST."""
