"""Two yamux cores joined by wires that may be cut anywhere, as a hypothesis state machine with mutants to kill."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ipcs.errors import IpcsError
from ipcs.net.yamux import Yamux
from ipcs.net.yamux_frames import (
    INITIAL_WINDOW,
    DataReceived,
    FrameType,
    Limits,
    StreamEnded,
    StreamOpened,
    StreamReset,
)

LIMITS = Limits(inbound_streams=4, outbound_streams=5, unacknowledged=5, window_budget=3 * INITIAL_WINDOW)
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([INITIAL_WINDOW // 2, INITIAL_WINDOW]))
CONTENT = bytes(range(251)) * (4 * INITIAL_WINDOW // 251 + 2)


class OneWay:
    """One direction of one stream, as it should be."""

    def __init__(self):
        self.sent = bytearray()
        self.got = bytearray()
        self.consumed = 0
        self.ended = False
        self.end_seen = False


class Pair(RuleBasedStateMachine):
    make = Yamux

    def __init__(self):
        super().__init__()
        self.cores = [self.make(initiator=side == 0, now=0.0, limits=LIMITS) for side in (0, 1)]
        self.wires = [bytearray(), bytearray()]
        self.streams: dict[int, tuple[OneWay, OneWay]] = {}
        self.known: list[set[int]] = [set(), set()]
        self.reset: set[int] = set()

    def pick(self, data, side, condition=lambda _stream: True):
        choices = [s for s in sorted(self.known[side]) if self.cores[side].is_open(s) and condition(s)]
        return data.draw(st.sampled_from(choices)) if choices else None

    @rule(side=st.sampled_from([0, 1]))
    def opens(self, side):
        if sum(s % 2 != side for s in self.known[side] if self.cores[side].is_open(s)) >= LIMITS.outbound_streams:
            return
        stream = self.cores[side].open_stream()
        assert stream not in self.streams
        assert stream % 2 != side
        self.streams[stream] = (OneWay(), OneWay())
        self.known[side].add(stream)

    @rule(data=st.data(), side=st.sampled_from([0, 1]), size=SIZES)
    def sends(self, data, side, size):
        stream = self.pick(data, side, lambda s: not self.streams[s][side].ended)
        if stream is None:
            return
        way = self.streams[stream][side]
        size = min(size, self.cores[side].send_window(stream))
        start = len(way.sent) % 251
        piece = CONTENT[start : start + size]
        middle = data.draw(st.integers(0, len(piece)))
        self.cores[side].send(stream, [piece[:middle], memoryview(piece)[middle:]])
        way.sent += piece

    @rule(data=st.data(), side=st.sampled_from([0, 1]))
    def ends(self, data, side):
        stream = self.pick(data, side)
        if stream is not None:
            self.cores[side].end(stream)
            self.streams[stream][side].ended = True

    @rule(data=st.data(), side=st.sampled_from([0, 1]))
    def resets(self, data, side):
        stream = self.pick(data, side)
        if stream is not None:
            self.cores[side].reset(stream)
            self.reset.add(stream)

    @rule(data=st.data(), side=st.sampled_from([0, 1]), part=st.floats(0, 1))
    def consumes(self, data, side, part):
        stream = self.pick(data, side)
        if stream is not None:
            way = self.streams[stream][1 - side]
            count = int((len(way.got) - way.consumed) * part)
            self.cores[side].consumed(stream, count)
            way.consumed += count

    @rule(data=st.data(), side=st.sampled_from([0, 1]), repeats=st.integers(1, 4))
    def transfers(self, data, side, repeats):
        self.settle()
        stream = self.pick(data, side, lambda s: not self.streams[s][side].ended and s in self.known[1 - side])
        if stream is None or not self.cores[1 - side].is_open(stream):
            return
        way = self.streams[stream][side]
        for _ in range(repeats):
            size = self.cores[side].send_window(stream)
            piece = bytes(size)
            self.cores[side].send(stream, [piece])
            way.sent += piece
            self.settle()
            self.cores[1 - side].consumed(stream, len(way.got) - way.consumed)
            way.consumed = len(way.got)
            self.delivers_all()

    @rule(side=st.sampled_from([0, 1]), count=st.integers(0, 60))
    def delivers_some(self, side, count):
        self.collect(side)
        self.deliver(side, count)

    @rule()
    def delivers_all(self):
        self.settle()
        for side in (0, 1):
            for stream in self.known[side] - self.reset:
                self.check_settled(side, stream)
            assert not any(self.cores[side].is_open(stream) for stream in self.reset)

    def collect(self, side):
        for part in self.cores[side].data_to_send():
            self.wires[side] += part

    def deliver(self, side, count):
        piece = bytes(self.wires[side][:count])
        del self.wires[side][:count]
        for event in self.cores[1 - side].receive(memoryview(piece), 0.0):
            self.happens(1 - side, event)

    def settle(self):
        while True:
            for side in (0, 1):
                self.collect(side)
            if not any(self.wires):
                return
            for side in (0, 1):
                self.deliver(side, len(self.wires[side]))

    def happens(self, side, event):
        if isinstance(event, StreamOpened):
            assert event.stream % 2 == side
            assert event.stream not in self.known[side], "opened twice"
            self.known[side].add(event.stream)
        elif isinstance(event, DataReceived):
            way = self.streams[event.stream][1 - side]
            assert not way.end_seen
            way.got += event.data
        elif isinstance(event, StreamEnded):
            self.streams[event.stream][1 - side].end_seen = True
        elif isinstance(event, StreamReset):
            refused = event.stream not in self.known[1 - side]
            assert event.stream in self.reset or refused
            self.reset.add(event.stream)

    def check_settled(self, side, stream):
        if stream not in self.known[1 - side]:
            return
        out, back = self.streams[stream][side], self.streams[stream][1 - side]
        assert out.got == out.sent
        assert out.end_seen == out.ended
        assert self.cores[side].is_open(stream) == (not (out.ended and back.ended))
        if self.cores[side].is_open(stream) and out.consumed == len(out.got) and not out.ended:
            assert self.cores[side].send_window(stream) > INITIAL_WINDOW // 2, "window was lost"

    @invariant()
    def nothing_is_invented_or_reordered(self):
        for ways in self.streams.values():
            for way in ways:
                assert way.sent[: len(way.got)] == way.got

    @invariant()
    def accounts_are_right(self):
        for side in (0, 1):
            open_here = [s for s in self.known[side] if self.cores[side].is_open(s)]
            assert self.cores[side].streams == len(open_here)
            assert self.cores[side].inbound_streams == sum(s % 2 == side for s in open_here)
            unread = sum(len(self.streams[s][1 - side].got) - self.streams[s][1 - side].consumed for s in open_here)
            assert self.cores[side].unread == unread
            assert 0 <= self.cores[side]._granted <= LIMITS.window_budget
            assert self.cores[side]._granted == sum(
                self.cores[side]._streams[s].target - INITIAL_WINDOW for s in open_here
            )


SETTINGS = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPair = Pair.TestCase
TestPair.settings = SETTINGS


class LosesWindow(Yamux):
    """Takes the credit and does not tell the peer."""

    def grow(self, stream, target):
        self._control_frame, kept = (lambda *_: None), self._control_frame
        try:
            super().grow(stream, target)
        finally:
            self._control_frame = kept


class OverdrawsWindow(Yamux):
    def send_window(self, stream):
        return super().send_window(stream) + 1

    def send(self, stream, parts):
        entry = self._streams[stream]
        entry.send_window += 1
        super().send(stream, parts)
        entry.send_window -= 1


class ForgetsFin(Yamux):
    def _finish_flags(self, flags, stream, events):
        super()._finish_flags(flags & ~4, stream, events)


class ForgetsReset(Yamux):
    def reset(self, stream):
        if stream in self._streams:
            self._drop(stream)


class KeepsBudget(Yamux):
    def _drop(self, stream):
        kept = self._granted
        super()._drop(stream)
        self._granted = kept


class KeepsUnread(Yamux):
    def _drop(self, stream):
        kept = self._unread
        super()._drop(stream)
        self._unread = kept


class IgnoresBudget(Yamux):
    def grow(self, stream, target):
        self._granted, kept = 0, self._granted
        super().grow(stream, target)
        self._granted += kept


class CountsOneSide(Yamux):
    def _drop(self, stream):
        super()._drop(stream)
        self._counts[True], self._counts[False] = self._counts[False], self._counts[True]


class LosesHeaderByte(Yamux):
    def receive(self, data, now):
        if self._header:
            self._header.pop()
        return super().receive(data, now)


class SwapsParts(Yamux):
    def send(self, stream, parts):
        super().send(stream, list(parts)[::-1])


class DropsFrameEnd(Yamux):
    def _take_data(self, piece, events):
        super()._take_data(piece, events)
        if self._frame.left and events and isinstance(events[-1], DataReceived):
            events.pop()


class EndsBeforeData(Yamux):
    def end(self, stream):
        out, self._out = self._out, []
        super().end(stream)
        self._out += out


MUTANTS = [
    LosesWindow,
    OverdrawsWindow,
    ForgetsFin,
    ForgetsReset,
    KeepsBudget,
    KeepsUnread,
    IgnoresBudget,
    CountsOneSide,
    LosesHeaderByte,
    SwapsParts,
    DropsFrameEnd,
    EndsBeforeData,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_mutants_are_killed(mutant):
    machine = type("Mutated", (Pair,), {"make": mutant})
    config = settings(
        SETTINGS,
        max_examples=600,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((AssertionError, IpcsError, KeyError)):  # a failed check, or what a sound core never raises
        run_state_machine_as_test(machine, settings=config)


def test_frame_types_are_those_of_the_specification():
    assert [int(kind) for kind in FrameType] == [0, 1, 2, 3]
