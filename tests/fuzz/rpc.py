"""Target for the server's side of HTTP/2: containerd and the command line are trusted, a bug of theirs is not."""

from __future__ import annotations

from ipcs.rpc.events import Drained, Event
from ipcs.rpc.framing import PREFACE, Http2Error
from ipcs.rpc.http2 import Http2Server


def http2(data: bytes) -> None:
    """However the bytes are cut, the events and the answer are the same; a violation ends the connection."""
    assert _heard([data]) == _heard([data[at : at + 7] for at in range(0, len(data), 7)])


def _heard(pieces: list[bytes]) -> tuple[list[Event] | None, bytes]:
    core = Http2Server()
    events: list[Event] | None = core.receive(PREFACE)
    try:
        for piece in pieces:
            events += core.receive(piece)
    except Http2Error:
        events = None  # what the same piece brought before the violation ends with the connection
    answer = b"".join(map(bytes, core.take()))
    return events and [event for event in events if not isinstance(event, Drained)], answer
