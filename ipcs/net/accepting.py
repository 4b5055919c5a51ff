"""Streams that peers open: agreeing on their protocol inside the muxer, and handing them to who serves it.

`Negotiation` is the first endpoint of such a stream. Kubo opens one for every block it sends; with py-libp2p's own way
(five tasks and 22 locks a stream) that was the largest cost of a transfer, here it is two function calls.
"""

from __future__ import annotations

import logging
from functools import partial

import trio

from ..errors import IpcsError, RemoteProtocolError
from . import multistream
from .interface import Handler, Inbound, StreamSink
from .services import Services
from .streams import Connection, MuxedStream

log = logging.getLogger(__name__)

PUSHED_WINDOW = 1024 * 1024
"""Receive window of a pushed stream, opened with its first frame: Kubo sends a block per stream, and one of 256 KiB
with its header is more than the initial window."""


class Negotiation:
    """An inbound stream whose protocol is not known yet."""

    def __init__(
        self, connection: Connection, stream: int, services: Services, others: trio.MemorySendChannel[MuxedStream]
    ) -> None:
        """`others` takes the streams of protocols that py-libp2p serves itself."""
        self._connection = connection
        self._stream = stream
        self._services = services
        self._others = others
        self._listener = multistream.Listener(services)
        self._first = bytearray()

    def on_data(self, data: memoryview) -> None:
        """Answer, and hand over once agreed."""
        if not self._first:
            protocol, size = multistream.opening(data)
            if inbound := self._services.pushed.get(protocol):  # with a block behind it, which is not to be copied
                self._connection.send_now(self._stream, [multistream.HEADER + multistream.message(protocol)])
                self._connection.consumed(self._stream, size)
                self._push(inbound, protocol, data[size:])
                return
        self._first += data
        try:
            answer = self._listener.receive(data)
        except RemoteProtocolError as exc:
            self._connection.reset(self._stream, exc.message)
            return
        if answer:
            self._connection.send_now(self._stream, [answer])
        if self._listener.protocol:
            self._hand_over(self._listener.protocol)

    def _hand_over(self, protocol: str) -> None:
        rest = bytes(self._listener.rest())
        if inbound := self._services.pushed.get(protocol):
            self._connection.consumed(self._stream, len(self._first) - len(rest))
            self._push(inbound, protocol, memoryview(rest))
            return
        duplex = MuxedStream(self._connection, self._stream, protocol=protocol)
        self._connection.become(self._stream, duplex)
        if handler := self._services.handlers.get(protocol):
            self._connection.consumed(self._stream, len(self._first) - len(rest))
            duplex.put_back(rest)
            self._connection.start(partial(serve, handler, duplex, self._connection))
            return
        again = multistream.HEADER + multistream.message(protocol) + rest  # py-libp2p negotiates for itself, once more
        self._connection.consumed(self._stream, len(self._first) - len(again))
        duplex.put_back(again)
        try:
            self._others.send_nowait(duplex)
        except (trio.WouldBlock, trio.BrokenResourceError):
            duplex.abandon("too many streams wait to be accepted")

    def _push(self, inbound: Inbound, protocol: str, rest: memoryview) -> None:
        sink = None
        with self._connection.contain("accepting a stream"):
            sink = inbound.accept(self._connection.peer, protocol)
        if sink is None:
            self._connection.reset(self._stream, "refused")
            return
        endpoint = Pushed(self._connection, self._stream, inbound, sink)
        self._connection.become(self._stream, endpoint)
        self._connection.grow(self._stream, PUSHED_WINDOW)
        if rest:
            endpoint.on_data(rest)

    def on_end(self) -> None:
        """Ended before a protocol was named."""
        self._connection.reset(self._stream, "ended before a protocol was agreed on")

    def on_reset(self, reason: str) -> None:
        """Nothing depends on it yet."""

    def on_window(self) -> None:
        """Answers are small; nothing waits."""


class Pushed:
    """An inbound stream whose bytes go straight into a sink. We send nothing on it but our FIN."""

    def __init__(self, connection: Connection, stream: int, inbound: Inbound, sink: StreamSink) -> None:
        self._connection = connection
        self._stream = stream
        self._inbound = inbound
        self._sink: StreamSink | None = sink
        self._contained = connection.contain("a stream sink")

    def on_data(self, data: memoryview) -> None:
        """Feed the sink. What it raises ends this stream."""
        if self._sink is None:
            return
        with self._contained:
            try:
                self._sink.feed(data)
            except IpcsError as exc:
                self._connection.reset(self._stream, exc.message)
                return
        if self._contained.raised:
            self._connection.reset(self._stream, "internal error")
            return
        self._connection.consumed(self._stream, len(data))
        self._connection.flush_after_batch(self._inbound)

    def on_end(self) -> None:
        """The regular end: ours follows."""
        sink, self._sink = self._sink, None
        self._connection.end(self._stream)
        if sink is None:
            return
        with self._contained:
            try:
                sink.eof()
            except IpcsError as exc:
                log.debug("stream of %s: %s", self._connection.peer, exc.message)
        self._connection.flush_after_batch(self._inbound)

    def on_reset(self, _reason: str) -> None:
        """The abrupt end."""
        sink, self._sink = self._sink, None
        if sink is not None:
            with self._contained:
                sink.reset()

    def on_window(self) -> None:
        """Nothing is sent here."""


async def serve(handler: Handler, stream: MuxedStream, connection: Connection) -> None:
    """Run `handler`. What it raises ends its stream."""
    with connection.contain(f"the handler of {stream.protocol}"):
        try:
            await handler(stream)
            stream.finish()
        except RemoteProtocolError as exc:
            log.debug("%s: %s", stream, exc.message)
        finally:
            stream.reset_unless_ended()
