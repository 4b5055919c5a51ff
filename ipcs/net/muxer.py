"""yamux over a secure channel: the tasks of one connection.

One task reads, one writes, one watches the clock; nothing else touches the channel. The reader hands every batch to the
pure core (`yamux`), its events to the endpoints of the streams (`streams`), and then lets the consumers it fed hold it
back: that is the back-pressure of pushed streams. The writer sends what the core has queued, a batch at a time, and is
cancelled only when the connection ends, so no frame is ever cut by somebody else's cancellation.

Whatever goes wrong in here ends this connection: an exception that left `run` would end the whole py-libp2p host.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Protocol

import trio

from ..block import Data
from ..cid import PeerId
from ..errors import RemoteProtocolError
from . import multistream
from .accepting import Negotiation
from .channel import Channel
from .interface import Inbound
from .outbox import OUTBOX, Outbox, take_front
from .services import Containment, Services
from .streams import Endpoint, MuxedStream
from .yamux import Yamux
from .yamux_frames import (
    DataReceived,
    Event,
    GoAwayCode,
    Limits,
    PeerSilent,
    PongReceived,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
)

log = logging.getLogger(__name__)

NEGOTIATE_TIMEOUT = 10.0
"""Seconds a peer has to name the protocol of a stream it opened, and to answer the offers on one that we opened."""

CLOSE_TIMEOUT = 0.5
"""Seconds for the last frames at a close."""


class Owner(Protocol):
    """The host, as a connection sees it."""

    def opened(self, connection: Muxer) -> None:
        """The connection carries streams from now on."""
        ...

    def closed(self, connection: Muxer) -> None:
        """The connection is gone; `connection.end_reason` says why."""
        ...


class Muxer:
    """One connection to `peer`."""

    def __init__(
        self,
        channel: Channel,
        peer: PeerId,
        *,
        initiator: bool,
        services: Services,
        owner: Owner,
        limits: Limits | None = None,
        first: bytes = b"",
        security: str = "",
    ) -> None:
        """`first` is plaintext that was received behind the negotiation of the muxer, `security` the protocol id of
        the channel."""
        self.peer = peer
        self.security = security
        self.local, self.remote = channel.addresses
        self.initiator = initiator
        self.round_trip: float | None = None
        """Seconds, of the last ping."""
        self.end_reason = ""
        """Why the connection ended; empty while it lives."""
        self.clean = False
        """Whether it ended with the peer's or our GO_AWAY."""
        self.running = trio.Event()
        self._channel = channel
        self._services = services
        self._owner = owner
        self._first = first
        self._limits = limits or Limits()
        self._core = Yamux(initiator=initiator, now=trio.current_time(), limits=self._limits)
        self._endpoints: dict[int, Endpoint] = {}
        self._negotiating: dict[int, float] = {}
        self._to_flush: dict[int, Inbound] = {}
        self._holding = False
        self._outbox = Outbox(self._core, channel, peer)
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._progress = trio.Event()
        self._closed = trio.Event()
        self._others_in, self.others = trio.open_memory_channel[MuxedStream](64)

    def __repr__(self) -> str:
        role = "dialled" if self.initiator else "accepted"
        return f"<connection {role}, {self.peer}: {self.end_reason or f'{self._core.streams} streams'}>"

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._closed.is_set()

    @property
    def takes_streams(self) -> bool:
        """Whether it lives and neither side has said GO_AWAY."""
        return not self.end_reason and not self._core.going_away

    @property
    def streams(self) -> int:
        """Open streams, of both sides."""
        return self._core.streams

    # ---- life

    async def run(self) -> None:
        """Serve the connection until it ends. Raises nothing but cancellation."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._owner.opened(self)
                    self.running.set()
                    self._core.ping(trio.current_time())
                    for loop in (self._outbox.run, self._watch_loop, self._read_loop):
                        nursery.start_soon(self._guarded, loop)
        finally:
            self._nursery = None
            self._ended(self.end_reason or "the host closes")
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT, shield=True):
                await self._channel.aclose()

    async def aclose(self, reason: str = "closed here") -> None:
        """Say GO_AWAY, send what is queued within `CLOSE_TIMEOUT`, and end."""
        if not self.end_reason and self._nursery is not None:
            self._core.go_away(GoAwayCode.NORMAL)
            self.clean = True
            await self._outbox.drain(CLOSE_TIMEOUT)
        self.end_connection(reason)
        if self.running.is_set():
            # Not shielded: the caller may be a handler or consumer of this very connection, which is cancelled with it.
            with trio.move_on_after(2 * CLOSE_TIMEOUT):
                await self.wait_closed()

    async def wait_closed(self) -> None:
        """Return when it has ended."""
        await self._closed.wait()

    def end_connection(self, reason: str) -> None:
        """End it at once; streams are reset."""
        if not self.end_reason:
            self.end_reason = reason
            log.debug("%s ends", self)
        self._scope.cancel()

    def _ended(self, reason: str) -> None:
        self.end_reason = reason
        endpoints, self._endpoints = self._endpoints, {}
        for endpoint in endpoints.values():
            endpoint.on_reset(reason)
        self._others_in.close()
        self._outbox.close()
        self._signal_progress()
        if self.running.is_set() and not self.is_closed:
            self._closed.set()
            self._owner.closed(self)
        self._closed.set()

    async def _guarded(self, loop: Callable[[], Awaitable[None]]) -> None:
        with self._services.contain(f"connection to {self.peer}") as run:
            try:
                await loop()
            except RemoteProtocolError as exc:
                self.end_connection(exc.message)
            except trio.ClosedResourceError:
                self.end_connection("the channel was closed")
        if run.raised:
            self.end_connection("internal error")

    # ---- the three loops

    async def _read_loop(self) -> None:
        if self._first:
            await self._take(memoryview(self._first))
            self._first = b""
        while data := await self._channel.receive():
            await self._take(data)
        self.clean = self._core.remote_gone_away == GoAwayCode.NORMAL or not self._core.streams
        self.end_connection("the peer closed the connection")

    async def _take(self, data: memoryview) -> None:
        try:
            events = self._core.receive(data, trio.current_time())
        except RemoteProtocolError:
            await self._outbox.drain(CLOSE_TIMEOUT)  # the GO_AWAY that says so
            raise
        for event in events:
            self._dispatch(event)
        self._signal_progress()
        self._outbox.wake()
        while self._to_flush:
            _, inbound = self._to_flush.popitem()
            self._holding = True
            try:
                await inbound.flush(self.peer)
            finally:
                self._holding = False
            self._core.heard(trio.current_time())

    async def _watch_loop(self) -> None:
        while True:
            # An answer moves the deadline back to one that may be earlier than what we sleep for.
            await trio.sleep_until(min(self._core.next_deadline(), trio.current_time() + self._limits.ping_after))
            now = trio.current_time()
            if self._holding or self._outbox.sending:
                self._core.heard(now)  # we do not listen, or the peer does not: `WRITE_STALL` bounds that
            for event in self._core.timer(now):
                self._dispatch(event)
            self._outbox.wake()
            for stream, since in list(self._negotiating.items()):
                if now - since >= NEGOTIATE_TIMEOUT:
                    self.reset(stream, "no protocol was agreed on in time")

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, DataReceived):  # one for every frame: before all others
            if (endpoint := self._endpoints.get(event.stream)) is not None:  # else reset earlier in the same batch
                endpoint.on_data(event.data)
        elif isinstance(event, StreamEnded | WindowOpened):
            self._to_endpoint(event)
        elif isinstance(event, StreamOpened):
            self._endpoints[event.stream] = Negotiation(self, event.stream, self._services, self._others_in)
            self._negotiating[event.stream] = trio.current_time()
        elif isinstance(event, StreamReset):
            self._gone(event.stream, event.reason)
        elif isinstance(event, PongReceived):
            self.round_trip = event.round_trip
        elif isinstance(event, PeerSilent):
            self.end_connection(f"no sign of life for {event.seconds:.0f} s")
        elif event.code != GoAwayCode.NORMAL:
            self.end_connection(f"the peer ends the connection with code {event.code}")

    def _to_endpoint(self, event: StreamEnded | WindowOpened) -> None:
        endpoint = self._endpoints.get(event.stream)
        if endpoint is None:
            return
        if isinstance(event, StreamEnded):
            endpoint.on_end()
            if event.closed:  # not merely gone by now: a reset may follow in the same batch, and has to be told
                self._endpoints.pop(event.stream, None)
        else:
            endpoint.on_window()

    def _gone(self, stream: int, reason: str) -> None:
        self._negotiating.pop(stream, None)
        endpoint = self._endpoints.pop(stream, None)
        if endpoint is not None:
            endpoint.on_reset(reason)

    def _forget_if_closed(self, stream: int) -> None:
        if not self._core.is_open(stream):
            self._endpoints.pop(stream, None)
            self._negotiating.pop(stream, None)

    # ---- streams of ours

    async def open_stream(self, protocols: Sequence[str], known: Container[str] = ()) -> MuxedStream:
        """A new stream under the first of `protocols` that the peer speaks.

        A protocol that is among `known` (those it listed) is used without waiting for its answer. Waits while too many
        streams are open. Raises `RemoteProtocolError` when the peer speaks none, does not answer in time or the
        connection ends.
        """
        sure = next((protocol for protocol in protocols if protocol in known), None)
        if sure is not None and self._core.can_open:
            return self.open_raw(multistream.Dialler([sure]))
        stream: MuxedStream | None = None
        try:
            with trio.fail_after(NEGOTIATE_TIMEOUT):
                stream = await self._open_waiting(multistream.Dialler([sure] if sure is not None else protocols))
                if sure is None:
                    await stream.agreed()
        except trio.TooSlowError:
            raise RemoteProtocolError(
                f"{self.peer} gave no stream for {protocols[0]} within {NEGOTIATE_TIMEOUT:.0f} s", subject=self.peer
            ) from None
        finally:
            if stream is not None and sure is None and not stream.is_agreed:
                stream.reset()
        return stream

    async def _open_waiting(self, dialler: multistream.Dialler) -> MuxedStream:
        while not self._core.can_open and not self.end_reason:
            await self._progress.wait()
        return self.open_raw(dialler)

    def open_raw(self, dialler: multistream.Dialler | None = None) -> MuxedStream:
        """A new stream; without `dialler` its negotiation is the caller's.

        Raises `RemoteProtocolError` when the connection is ending, `ResourceExhausted` when too many streams are open.
        """
        if self.end_reason:
            raise RemoteProtocolError(f"connection to {self.peer} is gone: {self.end_reason}", subject=self.peer)
        stream = MuxedStream(self, self._core.open_stream(), dialler=dialler)
        self._endpoints[stream.id] = stream
        if dialler is not None:
            self._core.send(stream.id, [dialler.begin()])
        self._outbox.wake()
        return stream

    async def write(self, stream: MuxedStream, parts: Sequence[Data]) -> None:
        """See `interface.OutStream.write`: queued whole where the window allows, else as it opens."""
        await trio.lowlevel.checkpoint()
        stream.check_writable()
        left = deque(view for part in parts if len(view := memoryview(part).cast("B")))
        begun = False
        try:
            while left:
                room = min(await self._outbox.room(stream), OUTBOX)
                self._core.send(stream.id, take_front(left, room))
                begun = True
                self._outbox.wake()
        except trio.Cancelled:
            if begun:
                self.reset(stream.id, "cancelled inside a write")
            raise

    # ---- what endpoints ask for

    def send_now(self, stream: int, parts: Sequence[Data]) -> None:
        """See `streams.Connection`."""
        if sum(map(len, parts)) > self._core.send_window(stream):
            self.reset(stream, "no window for the negotiation")
            return
        self._core.send(stream, parts)
        self._outbox.wake()

    def consumed(self, stream: int, count: int) -> None:
        """See `streams.Connection`."""
        self._core.consumed(stream, count)
        self._outbox.wake()

    def grow(self, stream: int, target: int) -> None:
        """See `streams.Connection`."""
        self._core.grow(stream, target)

    def end(self, stream: int) -> None:
        """See `streams.Connection`."""
        self._core.end(stream)
        self._forget_if_closed(stream)
        self._outbox.wake()

    def reset(self, stream: int, reason: str) -> None:
        """See `streams.Connection`."""
        self._core.reset(stream)
        self._gone(stream, reason)
        self._outbox.wake()

    def flush_after_batch(self, inbound: Inbound) -> None:
        """See `streams.Connection`."""
        self._to_flush[id(inbound)] = inbound

    def contain(self, what: str) -> Containment:
        """See `streams.Connection`."""
        return self._services.contain(f"{what} of {self.peer}")

    def become(self, stream: int, endpoint: Endpoint) -> None:
        """See `streams.Connection`."""
        self._negotiating.pop(stream, None)
        self._endpoints[stream] = endpoint

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """See `streams.Connection`."""
        if self._nursery is not None:
            self._nursery.start_soon(task)

    def _signal_progress(self) -> None:
        """Something arrived, which may have freed a stream; or the connection ended."""
        self._progress.set()
        self._progress = trio.Event()
