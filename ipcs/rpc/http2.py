"""The server's side of one HTTP/2 connection that carries gRPC: bytes in, events and bytes out. Pure.

Only what gRPC uses: no push, no priorities, no trailers from the client, and responses whose few headers are constants,
so nothing of ours ever enters the client's header table. Source: RFC 9113.
"""

from __future__ import annotations

from collections import deque

from ..block import Data
from . import framing
from .events import Drained, Ended, Event, Message, Request, Reset
from .framing import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD,
    MAX_MESSAGE,
    PREFACE,
    Http2Error,
    Kind,
    MessageError,
    Messages,
    Reason,
    Setting,
    unpadded,
)
from .hpack import HeaderDecoder
from .status import Code

MAX_STREAMS = 1024
"""Calls of one connection at once. containerd sends all its calls over one."""

MAX_FRAME = 256 * 1024
"""Bytes of one frame that we take; grpcio sends larger ones than the 16 KiB that Go sends."""

STREAM_WINDOW = MAX_MESSAGE + 1024 * 1024
"""Bytes of a call that may be unread: one message of full length always fits, so no message can wait for itself."""

GRANT = 512 * 1024
"""Bytes read before the client is told; less than what `STREAM_WINDOW` has to spare over the longest message."""

CONNECTION_WINDOW = 64 * 1024 * 1024
"""Bytes that may be on their way over all calls; given back on arrival, for calls must not block each other."""

FIRST_WINDOW = 65535
FIRST_FRAME = 16384
MAX_WINDOW = 2**31 - 1
MAX_HEADER_BLOCK = 16 * 1024
"""Bytes of one request's headers; containerd's are below 1 KiB."""


class _Stream:
    __slots__ = (
        "answered",
        "backlog",
        "ended",
        "id",
        "messages",
        "pending",
        "receive_window",
        "send_window",
        "trailers",
        "unread",
    )

    def __init__(self, number: int, send_window: int) -> None:
        self.id = number
        self.messages = Messages()
        self.receive_window = STREAM_WINDOW
        self.unread = 0
        self.send_window = send_window
        self.pending: deque[Data] = deque()
        self.backlog = 0
        self.trailers: bytes | None = None
        self.answered = False
        self.ended = False


class Http2Server:
    """One connection. Not thread-safe. What is to be sent is fetched by `take` after each call of anything else."""

    def __init__(self) -> None:
        self._rest = b""
        self._greeted = False
        self._decoder = HeaderDecoder(MAX_HEADER_BLOCK)
        self._streams: dict[int, _Stream] = {}
        self._newest = 0
        self._block: tuple[int, int, bytes] | None = None  # stream, flags, what came of a header block
        self._send_window = FIRST_WINDOW
        self._stream_window = FIRST_WINDOW
        self._frame_size = FIRST_FRAME
        self._receive_window = CONNECTION_WINDOW
        self._leaving = False
        self._output: list[Data] = [
            framing.settings(
                {
                    Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                    Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    Setting.MAX_FRAME_SIZE: MAX_FRAME,
                    Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_BLOCK,
                }
            ),
            self._window_update(0, CONNECTION_WINDOW - FIRST_WINDOW),
        ]

    # ---- what arrives

    def receive(self, data: Data) -> list[Event]:
        """What `data`, the next bytes of the connection, mean.

        Raises `Http2Error`; the connection must end then, after what `take` gives.
        """
        events: list[Event] = []
        buffer = self._rest + bytes(data)
        at = 0
        try:
            if not self._greeted:
                if not buffer.startswith(PREFACE[: len(buffer)]):
                    raise Http2Error(Reason.PROTOCOL_ERROR, "no HTTP/2 preface")
                if len(buffer) < len(PREFACE):
                    self._rest = buffer
                    return events
                self._greeted = True
                at = len(PREFACE)
            while len(buffer) - at >= HEAD.size:
                high, low, kind, flags, stream = HEAD.unpack_from(buffer, at)
                length = high << 8 | low
                if length > MAX_FRAME:
                    raise Http2Error(Reason.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
                end = at + HEAD.size + length
                if end > len(buffer):
                    break
                self._frame(kind, flags, stream & MAX_WINDOW, buffer[at + HEAD.size : end], events)
                at = end
        except Http2Error as exc:
            self._goodbye(exc.reason)
            raise
        self._rest = buffer[at:]
        return events

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        if self._block is not None and (kind != Kind.CONTINUATION or stream != self._block[0]):
            raise Http2Error(Reason.PROTOCOL_ERROR, "a header block was interrupted")
        match kind:
            case Kind.DATA:
                self._on_data(flags, stream, payload, events)
            case Kind.HEADERS:
                self._on_headers(stream, flags, unpadded(flags, payload), events)
            case Kind.CONTINUATION:
                if self._block is None:
                    raise Http2Error(Reason.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
                self._on_headers(stream, self._block[1] | flags & END_HEADERS, self._block[2] + payload, events)
            case Kind.WINDOW_UPDATE:
                self._on_window_update(stream, payload, events)
            case _:
                self._control(kind, flags, stream, payload, events)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        match kind:
            case Kind.RST_STREAM:
                _check(0 < stream <= self._newest and len(payload) == 4, what="RST_STREAM")
                if self._streams.pop(stream, None) is not None:
                    events.append(Reset(stream))
            case Kind.SETTINGS:
                self._on_settings(flags, stream, payload, events)
            case Kind.PING:
                _check(stream == 0 and len(payload) == 8, what="PING")
                if not flags & ACK:
                    self._output.append(framing.frame(Kind.PING, ACK, 0, payload))
            case Kind.PUSH_PROMISE:
                raise Http2Error(Reason.PROTOCOL_ERROR, "a client cannot push")
            case Kind.GOAWAY:
                _check(stream == 0, what="GOAWAY")
            case Kind.PRIORITY:
                _check(stream != 0, what="PRIORITY")
                _check(len(payload) == 5, what="PRIORITY", reason=Reason.FRAME_SIZE_ERROR)
            case _:
                pass  # types still to be invented change nothing here

    def _on_headers(self, stream: int, flags: int, block: bytes, events: list[Event]) -> None:
        if len(block) > MAX_HEADER_BLOCK:
            raise Http2Error(Reason.ENHANCE_YOUR_CALM, f"headers of more than {MAX_HEADER_BLOCK} bytes")
        if not flags & END_HEADERS:
            self._block = (stream, flags, block)
            return
        self._block = None
        headers = self._decoder.decode(block)
        known = self._streams.get(stream)
        if known is not None:  # trailers
            if not flags & END_STREAM or known.ended:
                raise Http2Error(Reason.PROTOCOL_ERROR, f"headers inside call {stream}")
            self._end(known, events)
            return
        if stream % 2 == 0 or stream <= self._newest:
            raise Http2Error(Reason.PROTOCOL_ERROR, f"stream {stream} cannot begin a call")
        self._newest = stream
        if headers is None or self._leaving or len(self._streams) >= MAX_STREAMS:
            self._reset(stream, Reason.PROTOCOL_ERROR if headers is None else Reason.REFUSED_STREAM)
            return
        new = self._streams[stream] = _Stream(stream, self._stream_window)
        events.append(Request(stream, headers))
        if flags & END_STREAM:
            self._end(new, events)

    def _on_data(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        _check(stream != 0 and stream <= self._newest, what="DATA")
        self._receive_window -= len(payload)
        if self._receive_window < 0:
            raise Http2Error(Reason.FLOW_CONTROL_ERROR, "more bytes than the connection's window")
        if self._receive_window < CONNECTION_WINDOW // 2:
            self._output.append(self._window_update(0, CONNECTION_WINDOW - self._receive_window))
            self._receive_window = CONNECTION_WINDOW
        call = self._streams.get(stream)
        if call is None:
            return  # sent before the client heard that the call had ended
        call.receive_window -= len(payload)
        if call.ended or call.receive_window < 0:
            self._drop(call, Reason.STREAM_CLOSED if call.ended else Reason.FLOW_CONTROL_ERROR, events)
            return
        body = unpadded(flags & framing.PADDED, payload)
        call.receive_window += len(payload) - len(body)
        call.unread += len(body)
        last = bool(flags & END_STREAM)
        try:
            found = call.messages.feed(body)
        except MessageError as exc:
            self.finish(stream, exc.code, exc.message)
            events.append(Reset(stream))
            return
        if last and found and not call.messages.partial:
            call.ended = True
            events += [Message(stream, data, data is found[-1]) for data in found]
            return
        events += [Message(stream, data, False) for data in found]
        if last:
            self._end(call, events)

    def _end(self, call: _Stream, events: list[Event]) -> None:
        call.ended = True
        if call.messages.partial:
            self.finish(call.id, Code.INTERNAL, "the call ended inside a message")
            events.append(Reset(call.id))
        else:
            events.append(Ended(call.id))

    def _on_window_update(self, stream: int, payload: bytes, events: list[Event]) -> None:
        _check(len(payload) == 4, what="WINDOW_UPDATE", reason=Reason.FRAME_SIZE_ERROR)
        more = int.from_bytes(payload, "big") & MAX_WINDOW
        _check(stream <= self._newest and (more or stream), what="WINDOW_UPDATE")
        if stream == 0:
            self._send_window += more
            if self._send_window > MAX_WINDOW:
                raise Http2Error(Reason.FLOW_CONTROL_ERROR, "the connection's window does not add up")
            self._pump_all(events)
            return
        call = self._streams.get(stream)
        if call is None:
            return
        call.send_window += more
        if not more or call.send_window > MAX_WINDOW:
            self._drop(call, Reason.FLOW_CONTROL_ERROR if more else Reason.PROTOCOL_ERROR, events)
        elif call.backlog:
            self._pump(call)
            events.append(Drained())

    def _on_settings(self, flags: int, stream: int, payload: bytes, events: list[Event]) -> None:
        _check(stream == 0 and len(payload) % 6 == 0, what="SETTINGS")
        if flags & ACK:
            return
        for key, value in framing.PAIR.iter_unpack(payload):
            if key == Setting.INITIAL_WINDOW_SIZE:
                _check(value <= MAX_WINDOW, what="INITIAL_WINDOW_SIZE")
                for call in self._streams.values():
                    call.send_window += value - self._stream_window
                self._stream_window = value
            elif key == Setting.ENABLE_PUSH:
                _check(value <= 1, what="ENABLE_PUSH")
            elif key == Setting.MAX_FRAME_SIZE:
                _check(FIRST_FRAME <= value < 1 << 24, what="MAX_FRAME_SIZE")
                self._frame_size = value
        self._output.append(framing.frame(Kind.SETTINGS, ACK, 0, b""))
        self._pump_all(events)

    # ---- what is answered

    def take(self) -> list[Data]:
        """Bytes to be sent now, in order."""
        output, self._output = self._output, []
        return output

    def send(self, stream: int, message: Data) -> None:
        """One message of the answer; nothing when the call has ended. What no window takes now waits in `backlog`."""
        call = self._streams.get(stream)
        if call is None or call.trailers is not None:
            return
        if not call.answered:
            call.answered = True
            self._output.append(framing.frame(Kind.HEADERS, END_HEADERS, stream, framing.HEADERS))
        call.pending += (framing.message_head(len(message)), message)
        call.backlog += framing.PREFIX.size + len(message)
        self._pump(call)

    def finish(self, stream: int, code: Code, message: str = "") -> None:
        """End a call, behind what still waits for a window; nothing when it has ended."""
        call = self._streams.get(stream)
        if call is None or call.trailers is not None:
            return
        block = framing.trailers(code, message)
        call.trailers = block if call.answered else framing.HEADERS + block
        self._pump(call)

    def refuse(self, stream: int) -> None:
        """Give up a call that was not begun; the client may try it again."""
        if self._streams.pop(stream, None) is not None:
            self._reset(stream, Reason.REFUSED_STREAM)

    def backlog(self, stream: int) -> int:
        """Bytes of a call that wait for the client to read; 0 for one that has ended."""
        call = self._streams.get(stream)
        return call.backlog if call is not None else 0

    def consumed(self, stream: int, message: Data) -> None:
        """A message was taken: the client may send as much again."""
        call = self._streams.get(stream)
        if call is None:
            return
        call.unread -= framing.PREFIX.size + len(message)
        more = STREAM_WINDOW - call.receive_window - call.unread
        if more >= GRANT and not call.ended:
            call.receive_window += more
            self._output.append(self._window_update(stream, more))

    def leave(self) -> None:
        """Begin no more calls."""
        if not self._leaving:
            self._leaving = True
            self._goodbye(Reason.NO_ERROR)

    def _pump_all(self, events: list[Event]) -> None:
        for call in [call for call in self._streams.values() if call.backlog]:
            self._pump(call)
            events.append(Drained())

    def _pump(self, call: _Stream) -> None:
        while call.backlog:
            size = min(self._frame_size, call.backlog, call.send_window, self._send_window)
            if size <= 0:
                return
            self._output.append(framing.frame_head(size, Kind.DATA, 0, call.id))
            call.send_window -= size
            self._send_window -= size
            call.backlog -= size
            while size:
                part = call.pending.popleft()
                if len(part) > size:
                    view = memoryview(part)
                    call.pending.appendleft(view[size:])
                    part = view[:size]
                self._output.append(part)
                size -= len(part)
        if call.trailers is not None:
            flags = END_HEADERS | END_STREAM
            self._output.append(framing.frame(Kind.HEADERS, flags, call.id, call.trailers))
            del self._streams[call.id]
            if not call.ended:
                self._reset(call.id, Reason.NO_ERROR)

    def _drop(self, call: _Stream, reason: Reason, events: list[Event]) -> None:
        del self._streams[call.id]
        self._reset(call.id, reason)
        events.append(Reset(call.id))

    def _reset(self, stream: int, reason: Reason) -> None:
        self._output.append(framing.frame(Kind.RST_STREAM, 0, stream, framing.number(reason)))

    def _goodbye(self, reason: Reason) -> None:
        payload = framing.number(self._newest) + framing.number(reason)
        self._output.append(framing.frame(Kind.GOAWAY, 0, 0, payload))

    @staticmethod
    def _window_update(stream: int, more: int) -> bytes:
        return framing.frame(Kind.WINDOW_UPDATE, 0, stream, framing.number(more))


def _check(good: object, *, what: str, reason: Reason = Reason.PROTOCOL_ERROR) -> None:
    if not good:
        raise Http2Error(reason, f"{what} that makes no sense")
