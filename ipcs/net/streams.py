"""The ends of streams over our muxer: what a frame of each stream is handed to.

An `Endpoint` gets synchronous calls from the muxer's read loop, and asks things of its `Connection`. `MuxedStream` is
the endpoint that tasks read and write; those of inbound streams begin in `accepting`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from ..block import Data
from ..cid import PeerId
from ..errors import RemoteProtocolError
from . import multistream
from .interface import Inbound
from .services import Containment


class Endpoint(Protocol):
    """Takes what arrives for one stream. No call blocks."""

    def on_data(self, data: memoryview) -> None:
        """Bytes in order; the view is valid during the call."""
        ...

    def on_end(self) -> None:
        """The peer sends no more."""
        ...

    def on_reset(self, reason: str) -> None:
        """The stream or its connection is gone."""
        ...

    def on_window(self) -> None:
        """More may be sent."""
        ...


class Connection(Protocol):
    """What endpoints ask of their connection (`muxer.Muxer`)."""

    peer: PeerId

    def send_now(self, stream: int, parts: Sequence[Data]) -> None:
        """Queue `parts`, which fit the window."""
        ...

    async def write(self, stream: MuxedStream, parts: Sequence[Data]) -> None:
        """Queue `parts` as window and outbox allow."""
        ...

    def consumed(self, stream: int, count: int) -> None:
        """`count` bytes were taken."""
        ...

    def grow(self, stream: int, target: int) -> None:
        """Open the receive window."""
        ...

    def end(self, stream: int) -> None:
        """Send FIN."""
        ...

    def reset(self, stream: int, reason: str) -> None:
        """Send RST; the endpoint is told."""
        ...

    def become(self, stream: int, endpoint: Endpoint) -> None:
        """`endpoint` takes what arrives for `stream` from now on; its protocol is agreed on."""
        ...

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run `task` while the connection lives."""
        ...

    def flush_after_batch(self, inbound: Inbound) -> None:
        """`inbound` was fed: let it hold the reader back."""
        ...

    def contain(self, what: str) -> Containment:
        """Keep exceptions of foreign code in."""
        ...


class MuxedStream:
    """A stream that is read and written by a task of ours. Meets `interface.Stream`."""

    def __init__(
        self, connection: Connection, stream: int, *, protocol: str = "", dialler: multistream.Dialler | None = None
    ) -> None:
        self.id = stream
        self.peer = connection.peer
        self._connection = connection
        self._dialler = dialler
        self._protocol = protocol
        self._received: deque[memoryview] = deque()
        self._negotiated = 0
        self._peer_ended = False
        self._ended = False
        self._finished = False
        self._gone: str | None = None
        self._wake = trio.Event()

    def __repr__(self) -> str:
        state = self._gone or ("ended" if self._ended else "open")
        return f"<stream {self.id} of {self.peer} {self.protocol or 'without protocol'}: {state}>"

    @property
    def protocol(self) -> str:
        """The id that was agreed on, or that was sent without waiting for the answer."""
        return self._dialler.protocol if self._dialler is not None else self._protocol

    @property
    def is_agreed(self) -> bool:
        """Whether the peer has accepted the protocol."""
        return self._dialler is None or self._dialler.state is multistream.DialState.AGREED

    # ---- for tasks

    async def agreed(self) -> None:
        """Wait for the answer to the protocols that were offered.

        Raises `RemoteProtocolError` when the peer speaks none, or the stream ended.
        """
        while self._dialler is not None and self._dialler.state is multistream.DialState.WAITING:
            self.check()
            await self.changed()
        self.check()

    async def write(self, parts: Sequence[Data]) -> None:
        """See `interface.OutStream`. Cancelled while it waits for the window, it resets the stream, since the peer has
        a part of it by then; the framing of the connection is never at risk."""
        await self._connection.write(self, parts)

    async def read(self, max_bytes: int) -> bytes:
        """See `interface.Stream`."""
        if not self._peer_ended:
            await self.agreed()
        while not self._received and not self._peer_ended:
            self.check()
            await self.changed()
        return self.read_nowait(max_bytes)

    def read_nowait(self, max_bytes: int) -> bytes:
        """Up to `max_bytes` of what is here."""
        out = bytearray()
        while self._received and len(out) < max_bytes:
            piece = self._received.popleft()
            room = max_bytes - len(out)
            if len(piece) > room:
                self._received.appendleft(piece[room:])
                piece = piece[:room]
            out += piece
        if out:
            self._connection.consumed(self.id, len(out))
        return bytes(out)

    async def aclose(self) -> None:
        """See `interface.OutStream`."""
        await trio.lowlevel.checkpoint()
        self.end()

    def end(self) -> None:
        """We send no more."""
        if not self._ended and self._gone is None:
            self._ended = True
            self._connection.end(self.id)

    def reset(self) -> None:
        """See `interface.OutStream`."""
        self.abandon("reset here")

    def abandon(self, reason: str) -> None:
        """Reset it and remember why."""
        if self._gone is None:
            self._connection.reset(self.id, reason)
            self.on_reset(reason)

    def finish(self) -> None:
        """We send no more, and nobody will read: what still comes resets the stream."""
        self.end()
        self._finished = True
        if self._received:
            self._drop_unread()

    def _drop_unread(self) -> None:
        self._received.clear()
        if not self._peer_ended:
            self.abandon("nobody reads it any more")

    def reset_unless_ended(self) -> None:
        """What a handler that did not come to its end leaves behind is abandoned."""
        if not self._ended:
            self.reset()

    def check(self) -> None:
        """Raises `RemoteProtocolError` when the stream is gone."""
        if self._gone is not None:
            raise RemoteProtocolError(
                f"stream {self.protocol} with {self.peer} is gone: {self._gone}", subject=self.peer
            )

    def check_writable(self) -> None:
        """Raises `RemoteProtocolError` when nothing can be sent."""
        self.check()
        if self._ended:
            raise RemoteProtocolError(f"stream {self.protocol} with {self.peer} was closed here", subject=self.peer)

    async def changed(self) -> None:
        """Wait until something happens to the stream."""
        await self._wake.wait()

    # ---- for the muxer

    def on_data(self, data: memoryview) -> None:
        """Keep a copy until it is read; first the answer of the negotiation."""
        if self._dialler is not None and self._dialler.state is multistream.DialState.WAITING:
            self._negotiate(self._dialler, data)
        elif self._finished:
            self._drop_unread()
        else:
            self._received.append(memoryview(bytes(data)))
        self._signal()

    def _negotiate(self, dialler: multistream.Dialler, data: memoryview) -> None:
        self._negotiated += len(data)
        try:
            answer = dialler.receive(data)
        except RemoteProtocolError as exc:
            self._connection.reset(self.id, exc.message)
            return
        if answer:
            self._connection.send_now(self.id, [answer])
        if dialler.state is multistream.DialState.REFUSED:
            self._connection.reset(self.id, f"the peer does not speak {dialler.protocol}")
        elif dialler.state is multistream.DialState.AGREED:
            self._connection.consumed(self.id, self._negotiated - len(dialler.rest()))
            self.put_back(bytes(dialler.rest()))

    def put_back(self, data: bytes) -> None:
        """Bytes of this stream, received and not consumed, to read before all others."""
        if data:
            self._received.appendleft(memoryview(data))
            self._signal()

    def on_end(self) -> None:
        """The peer's regular end. What it sent before stays readable, whatever happens to the connection."""
        if self._dialler is not None and self._dialler.state is multistream.DialState.WAITING:
            self.abandon(f"the peer ended it without an answer to {self._dialler.protocol}")
            return
        self._peer_ended = True
        self._signal()

    def on_reset(self, reason: str) -> None:
        """The abrupt end."""
        if self._gone is None:
            self._gone = reason
            if not self._peer_ended:
                self._received.clear()
            self._signal()

    def on_window(self) -> None:
        """A waiting write goes on."""
        self._signal()

    def _signal(self) -> None:
        self._wake.set()
        self._wake = trio.Event()
