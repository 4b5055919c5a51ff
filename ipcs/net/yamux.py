"""The stream muxer yamux, without I/O: bytes in, events and bytes out. Time is an argument.

Source: libp2p/specs yamux/README.md, hashicorp/yamux spec.md; behaviour where they are silent follows
libp2p/go-yamux v4. Three things differ from a plain reading, for bulk transfers:

- Data is passed on as it arrives, not when its frame is complete, so a frame costs no memory.
- A receive window is opened early (`grow`, and doubling each time it is used up), so that a sender does not wait for a
  round trip per window. What all streams of a connection may have outstanding beyond the initial windows is one budget.
- Data that nobody has read yet is counted over all streams. The stream that exceeds the bound is reset; the others and
  the connection go on.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..block import Data
from ..errors import LocalProtocolError, RemoteProtocolError, ResourceExhausted
from .keepalive import Keepalive
from .yamux_frames import (
    ACK,
    FIN,
    HEADER,
    HEADER_LAYOUT,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_WINDOW,
    RST,
    SYN,
    DataReceived,
    Event,
    FrameType,
    GoAwayCode,
    GoAwayReceived,
    Limits,
    PeerSilent,
    PongReceived,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
)
from .yamux_state import ArrivingFrame, StreamState


class Yamux:
    """One connection. Feed `receive`, send what `data_to_send` returns, call `timer` at `next_deadline`."""

    def __init__(self, *, initiator: bool, now: float, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._streams: dict[int, StreamState] = {}
        self._next_id = 1 if initiator else 2
        self._parity = self._next_id % 2
        self._counts = {True: 0, False: 0}
        self._unacknowledged = 0
        self._refused = 0
        self._granted = 0
        self._unread = 0
        self._header = bytearray()
        self._frame = ArrivingFrame()
        self._out: list[Data] = []
        self._out_size = 0
        self._control = 0
        self._to_acknowledge: list[int] = []
        self._keepalive = Keepalive(now, self._limits.ping_after, self._limits.pong_within)
        self._gone_away = False
        self.remote_gone_away: int | None = None
        """The code of the peer's GO_AWAY, once it came."""

    # ---- what can be asked

    @property
    def streams(self) -> int:
        """Open streams."""
        return len(self._streams)

    @property
    def inbound_streams(self) -> int:
        """Open streams of the peer's."""
        return self._counts[False]

    @property
    def unread(self) -> int:
        """Bytes received and not consumed."""
        return self._unread

    @property
    def has_output(self) -> bool:
        """Whether `data_to_send` would return anything."""
        return bool(self._out or self._to_acknowledge)

    @property
    def queued(self) -> int:
        """Bytes waiting in `data_to_send`."""
        return self._out_size

    def is_open(self, stream: int) -> bool:
        """Whether `stream` exists."""
        return stream in self._streams

    def send_window(self, stream: int) -> int:
        """Bytes that `send` takes on `stream` now."""
        entry = self._streams.get(stream)
        return 0 if entry is None or entry.we_ended else entry.send_window

    # ---- what can be done

    @property
    def going_away(self) -> bool:
        """Whether either side has said GO_AWAY."""
        return self._gone_away or self.remote_gone_away is not None

    @property
    def can_open(self) -> bool:
        """Whether the limits leave room for another stream of ours."""
        return self._counts[True] < self._limits.outbound_streams and self._unacknowledged < self._limits.unacknowledged

    def open_stream(self) -> int:
        """Open a stream: its number. The peer hears of it with the next bytes sent.

        Raises `ResourceExhausted` at a limit, `RemoteProtocolError` after a GO_AWAY.
        """
        if self.going_away:
            raise RemoteProtocolError("yamux: the connection takes no more streams")
        if not self.can_open:
            raise ResourceExhausted(
                f"yamux: {self._counts[True]} streams open, {self._unacknowledged} of them not acknowledged"
            )
        stream = self._next_id
        if stream > 0xFFFFFFFF:
            raise ResourceExhausted("yamux: stream numbers are used up; connect anew")
        self._next_id += 2
        self._streams[stream] = StreamState(acknowledged=False)
        self._counts[True] += 1
        self._unacknowledged += 1
        self._control_frame(FrameType.WINDOW_UPDATE, SYN, stream, 0)
        return stream

    def send(self, stream: int, parts: Sequence[Data]) -> None:
        """Queue all `parts` as data of `stream`, referring to them.

        Raises `LocalProtocolError` when they exceed `send_window` or the stream was closed.
        """
        entry = self._streams.get(stream)
        total = sum(memoryview(part).nbytes for part in parts)
        if entry is None or entry.we_ended or total > entry.send_window:
            raise LocalProtocolError(f"yamux: {total} bytes exceed the window of stream {stream}")
        entry.send_window -= total
        self._out_size += total
        left = 0
        for part in parts:
            view = memoryview(part).cast("B")
            while len(view):
                if not left:
                    left = min(total, MAX_FRAME)
                    self._queue(HEADER_LAYOUT.pack(0, FrameType.DATA, self._ack_flag(entry), stream, left))
                piece = view[:left]
                self._out.append(piece)
                view = view[len(piece) :]
                left -= len(piece)
                total -= len(piece)

    def consumed(self, stream: int, count: int) -> None:
        """`count` bytes of `stream` were taken: the window opens again, and grows when it was used up."""
        entry = self._streams.get(stream)
        if entry is None:
            return
        entry.unread -= count
        self._unread -= count
        missing = entry.target - entry.receive_window - entry.unread
        if 2 * missing >= entry.target and not entry.peer_ended:
            self.grow(stream, 2 * entry.target)

    def grow(self, stream: int, target: int) -> None:
        """Open the receive window of `stream` to `target` bytes, as far as budget and `MAX_WINDOW` allow."""
        entry = self._streams.get(stream)
        if entry is None or entry.peer_ended:
            return
        extra = min(min(target, MAX_WINDOW) - entry.target, self._limits.window_budget - self._granted)
        if extra > 0:
            entry.target += extra
            self._granted += extra
        delta = entry.target - entry.receive_window - entry.unread
        if delta > 0:
            entry.receive_window += delta
            self._control_frame(FrameType.WINDOW_UPDATE, self._ack_flag(entry), stream, delta)

    def end(self, stream: int) -> None:
        """We send no more on `stream` (FIN)."""
        entry = self._streams.get(stream)
        if entry is None or entry.we_ended:
            return
        entry.we_ended = True
        self._control_frame(FrameType.WINDOW_UPDATE, self._ack_flag(entry) | FIN, stream, 0)
        if entry.peer_ended:
            self._drop(stream)

    def reset(self, stream: int) -> None:
        """Abandon `stream` in both directions (RST)."""
        if stream in self._streams:
            self._drop(stream)
            self._control_frame(FrameType.WINDOW_UPDATE, RST, stream, 0)

    def ping(self, now: float) -> None:
        """Ask for a sign of life; `PongReceived` tells the round trip."""
        self._control_frame(FrameType.PING, SYN, 0, self._keepalive.ping(now))

    def go_away(self, code: GoAwayCode = GoAwayCode.NORMAL) -> None:
        """Tell the peer that the connection ends."""
        if not self._gone_away:
            self._gone_away = True
            self._control_frame(FrameType.GO_AWAY, 0, 0, code)

    def data_to_send(self) -> list[Data]:
        """Everything queued, in order; the queue is empty afterwards."""
        for stream in self._to_acknowledge:
            entry = self._streams.get(stream)
            if entry is not None and entry.owes_ack:
                self._control_frame(FrameType.WINDOW_UPDATE, self._ack_flag(entry), stream, 0)
        self._to_acknowledge.clear()
        out, self._out, self._out_size, self._control = self._out, [], 0, 0
        return out

    # ---- time

    def next_deadline(self) -> float:
        """When to call `timer`."""
        return self._keepalive.next_deadline()

    def timer(self, now: float) -> list[Event]:
        """Time has passed: ping a silent peer, or find it dead."""
        if now < self.next_deadline():
            return []
        silence = self._keepalive.silence(now)
        if silence is not None:
            return [PeerSilent(silence)]
        self.ping(now)
        return []

    def heard(self, now: float) -> None:
        """The peer is alive. For the owner who did not read for a while: the silence was its own doing."""
        self._keepalive.heard(now)

    # ---- bytes in

    def receive(self, data: memoryview, now: float) -> list[Event]:
        """Take all of `data`: what it meant.

        Raises `RemoteProtocolError` when the peer broke the protocol; a GO_AWAY saying so is then queued, and the
        connection has to end. Events before the fault are lost with it.
        """
        self.heard(now)
        events: list[Event] = []
        at = 0
        try:
            while at < len(data):
                if self._frame.left:
                    piece = data[at : at + self._frame.left]
                    at += len(piece)
                    self._take_data(piece, events)
                elif self._header or len(data) - at < HEADER:
                    piece = data[at : at + HEADER - len(self._header)]
                    at += len(piece)
                    self._header += piece
                    if len(self._header) == HEADER:
                        header = bytes(self._header)
                        self._header.clear()
                        self._take_header(HEADER_LAYOUT.unpack(header), events, now)
                else:
                    self._take_header(HEADER_LAYOUT.unpack_from(data, at), events, now)
                    at += HEADER
            if self._control > self._limits.control_frames:
                raise RemoteProtocolError(f"yamux: {self._control} answers wait; the peer asks and does not read")
        except RemoteProtocolError:
            self.go_away(GoAwayCode.PROTOCOL_ERROR)
            raise
        return events

    def _take_header(self, header: tuple[int, int, int, int, int], events: list[Event], now: float) -> None:
        version, kind, flags, stream, length = header
        if version != 0:
            raise RemoteProtocolError(f"yamux: version {version} is not known")
        if kind == FrameType.DATA:
            self._start_data(flags, stream, length, events)
        elif kind == FrameType.WINDOW_UPDATE:
            entry = self._flagged(flags, stream, events)
            if entry is not None:
                if length:
                    entry.send_window += length
                    events.append(WindowOpened(stream))
                self._finish_flags(flags, stream, events)
        elif kind == FrameType.PING:
            self._take_ping(flags, length, events, now)
        elif kind == FrameType.GO_AWAY:
            self.remote_gone_away = length
            events.append(GoAwayReceived(length))
        else:
            raise RemoteProtocolError(f"yamux: frame type {kind} is not known")

    def _start_data(self, flags: int, stream: int, length: int, events: list[Event]) -> None:
        entry = self._flagged(flags, stream, events)
        if length > MAX_WINDOW:
            raise RemoteProtocolError(f"yamux: a frame of {length} bytes on stream {stream} exceeds any window")
        if entry is not None and length > entry.receive_window:
            raise RemoteProtocolError(
                f"yamux: {length} bytes on stream {stream} exceed its window of {entry.receive_window}"
            )
        if entry is not None and entry.peer_ended and length:
            raise RemoteProtocolError(f"yamux: {length} bytes on stream {stream} behind its end")
        self._frame = ArrivingFrame(stream, length, flags)
        if entry is not None:
            entry.receive_window -= length
            if not length:
                self._finish_flags(flags, stream, events)

    def _take_data(self, piece: memoryview, events: list[Event]) -> None:
        frame = self._frame
        frame.left -= len(piece)
        entry = self._streams.get(frame.stream)
        if entry is None:  # it was reset; what was on its way is dropped
            return
        if self._unread + len(piece) > self._limits.unread:
            self.reset(frame.stream)
            events.append(StreamReset(frame.stream, f"more than {self._limits.unread} bytes wait to be read"))
            return
        entry.unread += len(piece)
        self._unread += len(piece)
        events.append(DataReceived(frame.stream, piece))
        if not frame.left:
            self._finish_flags(frame.flags, frame.stream, events)

    def _flagged(self, flags: int, stream: int, events: list[Event]) -> StreamState | None:
        """SYN and ACK of a frame; its stream, or None when the frame is to be skipped."""
        if flags & SYN:
            return self._accept(stream, events)
        entry = self._streams.get(stream)
        if entry is not None and flags & ACK and not entry.acknowledged:
            entry.acknowledged = True
            self._unacknowledged -= 1
        return entry

    def _accept(self, stream: int, events: list[Event]) -> StreamState | None:
        if stream == 0 or stream % 2 == self._parity or stream in self._streams:
            raise RemoteProtocolError(f"yamux: the peer opens stream {stream}, which is not its to open")
        if self._counts[False] >= self._limits.inbound_streams or self._gone_away:
            self._refused += 1
            if self._refused > self._limits.refused_streams:
                raise RemoteProtocolError(f"yamux: {self._refused} streams over the limit; the peer floods")
            self._control_frame(FrameType.WINDOW_UPDATE, RST, stream, 0)
            return None
        self._streams[stream] = entry = StreamState(owes_ack=True)
        self._counts[False] += 1
        self._to_acknowledge.append(stream)
        events.append(StreamOpened(stream))
        return entry

    def _finish_flags(self, flags: int, stream: int, events: list[Event]) -> None:
        entry = self._streams.get(stream)
        if entry is None:
            return
        if flags & RST:
            self._drop(stream)
            events.append(StreamReset(stream, "the peer reset it"))
        elif flags & FIN and not entry.peer_ended:
            entry.peer_ended = True
            events.append(StreamEnded(stream, closed=entry.we_ended))
            if entry.we_ended:
                self._drop(stream)

    def _take_ping(self, flags: int, opaque: int, events: list[Event], now: float) -> None:
        if flags & SYN:
            self._control_frame(FrameType.PING, ACK, 0, opaque)
        elif flags & ACK and (round_trip := self._keepalive.pong(opaque, now)) is not None:
            events.append(PongReceived(round_trip))

    # ---- inside

    def _drop(self, stream: int) -> None:
        entry = self._streams.pop(stream)
        self._counts[stream % 2 == self._parity] -= 1
        self._granted -= entry.target - INITIAL_WINDOW
        self._unread -= entry.unread
        if not entry.acknowledged:
            self._unacknowledged -= 1

    def _ack_flag(self, entry: StreamState) -> int:
        if entry.owes_ack:
            entry.owes_ack = False
            return ACK
        return 0

    def _control_frame(self, kind: FrameType, flags: int, stream: int, value: int) -> None:
        self._control += 1
        self._queue(HEADER_LAYOUT.pack(0, kind, flags, stream, value))

    def _queue(self, header: bytes) -> None:
        self._out.append(header)
        self._out_size += HEADER
