"""The muxer's shell under a fake clock: two of them, or one against hand-made frames, over channels in memory."""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from ipcs.errors import RemoteProtocolError
from ipcs.net import multistream
from ipcs.net.muxer import CLOSE_TIMEOUT, NEGOTIATE_TIMEOUT
from ipcs.net.outbox import OUTBOX, WRITE_STALL
from ipcs.net.yamux_frames import ACK, FIN, INITIAL_WINDOW, RST, SYN, FrameType, GoAwayCode, Limits
from ipcs.testing.channel import Side, channel_pair, muxer_pair
from ipcs.testing.net import RecordingInbound

DATA, UPDATE, PING, GO_AWAY = FrameType
PUSHED = "/test/pushed/1"
ECHO = "/test/echo/1"


def frame(kind, flags, stream, length, payload=b""):
    return struct.pack("!BBHII", 0, kind, flags, stream, length) + payload


def data(stream, payload, flags=0):
    return frame(DATA, flags, stream, len(payload), payload)


def hello(protocol):
    return multistream.HEADER + multistream.message(protocol)


async def write_for_ever(stream):
    while True:
        await stream.write([bytes(10_000)])


async def sleepy(_stream):
    await trio.sleep_forever()


async def echo(stream):
    while chunk := await stream.read(65536):
        await stream.write([chunk])


def push_to(side):
    seen = RecordingInbound()
    side.services.pushed[PUSHED] = seen
    return seen


@asynccontextmanager
async def against_frames(limits=None):
    """Our muxer `b`, and the other end of its channel for hand-made frames."""
    ours, theirs = channel_pair()
    side = Side("b", "a", ours, initiator=False, limits=limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.muxer.run)
        await side.muxer.running.wait()
        yield side, theirs
        nursery.cancel_scope.cancel()


async def frames_from(theirs, count):
    """The next `count` frames, pings left out: (type, flags, stream, length, payload)."""
    got, wire = [], bytearray()
    while len(got) < count:
        received = await theirs.receive()
        assert received, f"the connection ended after {got}"
        wire += received
        while len(wire) >= 12:
            _, kind, flags, stream, length = struct.unpack_from("!BBHII", wire)
            size = length if kind == DATA else 0
            if len(wire) < 12 + size:
                break
            if kind != PING:
                got.append((FrameType(kind), flags, stream, length, bytes(wire[12 : 12 + size])))
            del wire[: 12 + size]
    return got


async def test_streams_both_ways_at_once(autojump_clock):
    async with muxer_pair() as (a, b):
        seen = push_to(b)
        a.services.handlers[ECHO] = echo
        out = await a.muxer.open_stream([PUSHED])
        back = await b.muxer.open_stream([ECHO])
        await out.write([b"x" * 700_000])
        await back.write([b"ping"])
        assert await back.read(10) == b"ping"
        await out.aclose()
        await seen.ended()
        assert len(seen.sinks[0].data) == 700_000
        await back.aclose()
        assert await back.read(10) == b""
        await wait_all_tasks_blocked()
        assert (a.muxer.streams, b.muxer.streams) == (0, 0)


async def test_a_known_protocol_needs_no_round_trip(autojump_clock):
    async with muxer_pair() as (a, b):
        seen = push_to(b)
        a.channel.other.frozen = True  # nothing comes back
        stream = await a.muxer.open_stream([PUSHED], known=[PUSHED])
        assert stream.protocol == PUSHED
        await stream.write([b"at once"])
        await seen.received(7)


async def test_a_known_protocol_that_is_refused_after_all(autojump_clock):
    async with muxer_pair() as (a, _b):
        stream = await a.muxer.open_stream([PUSHED], known=[PUSHED])
        await stream.write([b"into the void"])
        await wait_all_tasks_blocked()
        with pytest.raises(RemoteProtocolError, match="does not speak /test/pushed/1"):
            await stream.write([b"more"])


async def test_the_first_protocol_that_both_speak(autojump_clock):
    async with muxer_pair() as (a, b):
        b.services.handlers[ECHO] = echo
        stream = await a.muxer.open_stream(["/test/none/1", "/test/none/2", ECHO])
        assert stream.protocol == ECHO
        with pytest.raises(RemoteProtocolError, match="does not speak /test/none/2"):
            await a.muxer.open_stream(["/test/none/1", "/test/none/2"])
        assert a.muxer.streams == 1


async def test_a_peer_that_never_answers_a_negotiation(autojump_clock):
    async with against_frames(Limits(ping_after=1000)) as (side, _theirs):
        started = trio.current_time()
        with pytest.raises(RemoteProtocolError, match="gave no stream"):
            await side.muxer.open_stream([ECHO])
        assert trio.current_time() - started == NEGOTIATE_TIMEOUT
        assert side.muxer.streams == 0


async def test_opening_waits_for_a_free_stream(autojump_clock):
    async with muxer_pair(limits=(Limits(outbound_streams=1), None)) as (a, b):
        b.services.handlers[ECHO] = echo
        first = await a.muxer.open_stream([ECHO])

        async def close_later():
            await trio.sleep(5)
            await first.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_later)
            await a.muxer.open_stream([ECHO])
        assert trio.current_time() == 5


async def test_a_dialler_that_sends_its_header_and_waits(autojump_clock):
    async with against_frames() as (side, theirs):
        seen = push_to(side)
        await theirs.send([data(1, multistream.HEADER, SYN)])
        assert await frames_from(theirs, 1) == [(DATA, ACK, 1, 20, multistream.HEADER)]
        await theirs.send([data(1, multistream.message("/test/none/1"))])
        assert (await frames_from(theirs, 1))[0][4] == multistream.message("na")
        await theirs.send([data(1, multistream.message(PUSHED) + b"and data", FIN)])
        await seen.ended()
        assert bytes(seen.sinks[0].data) == b"and data"
        echoed = (await frames_from(theirs, 1))[0]
        assert echoed[4] == multistream.message(PUSHED)


async def test_all_at_once_as_kubo_does_it_is_answered_in_one_batch(autojump_clock):
    async with against_frames() as (side, theirs):
        push_to(side)
        await theirs.send([frame(UPDATE, SYN, 1, 0) + data(1, hello(PUSHED) + b"block") + frame(UPDATE, FIN, 1, 0)])
        assert await frames_from(theirs, 2) == [
            (DATA, ACK, 1, len(hello(PUSHED)), hello(PUSHED)),
            (UPDATE, FIN, 1, 0, b""),
        ]
        assert side.muxer.streams == 0
        await theirs.send([data(3, hello(PUSHED) + b"the beginning of a block", SYN)])
        assert (await frames_from(theirs, 2))[1] == (UPDATE, 0, 3, 768 * 1024 + len(hello(PUSHED)), b"")


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "not a multistream line"),
        (b"\xff\xff\xff\xff", "endless length"),
        (b"\x14/multistream/2.0.0\n\x00", "another version"),
        (multistream.HEADER + multistream.message("/test/none/1") * 65, "too many proposals"),
    ],
)
async def test_streams_that_do_not_negotiate_are_reset(autojump_clock, first, reason):
    async with against_frames() as (side, theirs):
        await theirs.send([data(1, first, SYN)])
        while (await frames_from(theirs, 1))[-1][1] & RST == 0:
            pass
        assert side.muxer.streams == 0
        assert not side.muxer.end_reason


async def test_half_open_streams_are_given_up(autojump_clock):
    async with against_frames(Limits(ping_after=3, pong_within=1000)) as (side, theirs):
        await theirs.send([data(1, multistream.HEADER[:7], SYN) + frame(UPDATE, SYN, 3, 0)])
        await trio.sleep(NEGOTIATE_TIMEOUT + 1000)
        assert side.muxer.streams == 0


async def test_a_silent_peer_is_noticed_within_the_stated_time(autojump_clock):
    limits = Limits()
    async with muxer_pair() as (a, b):
        b.services.handlers[ECHO] = echo
        stream = await a.muxer.open_stream([ECHO])
        await wait_all_tasks_blocked()
        started = trio.current_time()
        a.channel.frozen = b.channel.frozen = True
        with pytest.raises(RemoteProtocolError, match="no sign of life for"):
            await stream.read(1)
        assert trio.current_time() - started <= limits.ping_after + limits.pong_within
        assert a.muxer.is_closed
        assert not a.muxer.clean


async def test_an_idle_connection_lives_on(autojump_clock):
    async with muxer_pair() as (a, b):
        await trio.sleep(3600)
        assert (a.muxer.end_reason, b.muxer.end_reason) == ("", "")
        assert a.muxer.round_trip is not None


async def test_a_consumer_holds_its_peer_back_and_is_not_taken_for_dead(autojump_clock):
    async with muxer_pair(capacity=200_000) as (a, b):
        seen = push_to(b)
        seen.open_gate = trio.Event()
        stream = await a.muxer.open_stream([PUSHED], known=[PUSHED])
        sent = 0
        with trio.move_on_after(25):
            while True:
                await stream.write([bytes(100_000)])
                sent += 1
        assert sent * 100_000 <= OUTBOX + 600_000
        assert b.muxer.end_reason == ""
        seen.open_gate.set()
        await trio.sleep(1)
        assert b.muxer.end_reason == ""


async def test_a_peer_that_takes_nothing_is_dropped(autojump_clock):
    ours, theirs = channel_pair(capacity=1000)
    side = Side("b", "a", ours, initiator=False, limits=Limits(ping_after=10_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.muxer.run)
        await side.muxer.running.wait()
        await theirs.send([data(1, hello(ECHO), SYN)])
        side.services.handlers[ECHO] = echo
        stream = side.muxer.open_raw()
        await theirs.send([frame(UPDATE, ACK, stream.id, 1 << 30)])
        with pytest.raises(RemoteProtocolError):
            await write_for_ever(stream)
        assert "took nothing for 30 s" in side.muxer.end_reason
        assert trio.current_time() <= WRITE_STALL + 1


async def test_a_peer_that_opens_no_window_loses_the_stream_only(autojump_clock):
    async with muxer_pair() as (a, b):
        b.services.handlers["/test/sleepy/1"] = sleepy
        b.services.handlers[ECHO] = echo
        stream = await a.muxer.open_stream(["/test/sleepy/1"])
        with pytest.raises(RemoteProtocolError, match="read nothing for 30 s"):
            await stream.write([bytes(INITIAL_WINDOW + 1)])
        other = await a.muxer.open_stream([ECHO])
        await other.write([b"alive"])
        assert await other.read(5) == b"alive"


async def test_a_write_cancelled_before_it_began_or_after_it_was_queued_does_no_harm(autojump_clock):
    async with muxer_pair() as (a, b):
        seen = push_to(b)
        stream = await a.muxer.open_stream([PUSHED])
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.write([b"never"])
        await stream.write([b"first "])
        with trio.CancelScope() as scope:
            await stream.write([b"second"])
            scope.cancel()
        await stream.aclose()
        await seen.ended()
        assert bytes(seen.sinks[0].data) == b"first second"


async def test_a_write_cancelled_in_the_middle_resets_its_stream_only(autojump_clock):
    async with muxer_pair() as (a, b):
        b.services.handlers["/test/sleepy/1"] = sleepy
        b.services.handlers[ECHO] = echo
        stream = await a.muxer.open_stream(["/test/sleepy/1"])
        with trio.move_on_after(1):
            await stream.write([bytes(2 * INITIAL_WINDOW)])
        with pytest.raises(RemoteProtocolError, match="cancelled inside a write"):
            await stream.write([b"x"])
        other = await a.muxer.open_stream([ECHO])
        await other.write([b"alive"])
        assert await other.read(5) == b"alive"


async def test_cancelling_many_writers_leaves_the_connection_whole(autojump_clock):
    async with muxer_pair(capacity=50_000) as (a, b):
        seen = push_to(b)
        b.services.handlers[ECHO] = echo
        with trio.move_on_after(0.5):
            async with trio.open_nursery() as nursery:
                for size in range(1, 40):

                    async def write(size=size):
                        while True:
                            stream = await a.muxer.open_stream([PUSHED], known=[PUSHED])
                            await stream.write([bytes(size * 10_000)])
                            await stream.aclose()

                    nursery.start_soon(write)
                    nursery.start_soon(trio.sleep, 0.5)
                while len(seen.sinks) < 100:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        other = await a.muxer.open_stream([ECHO])
        await other.write([b"alive"])
        assert await other.read(5) == b"alive"


async def test_regular_and_abrupt_ends_are_told_apart(autojump_clock):
    async with muxer_pair() as (a, b):
        seen = push_to(b)
        stream = await a.muxer.open_stream([PUSHED])
        await stream.write([b"x"])
        await seen.received(1)
        await a.muxer.aclose()
        await b.muxer.wait_closed()
        assert (a.muxer.clean, b.muxer.clean) == (True, True)
        assert seen.sinks[0].end == "reset", "the stream had not ended"
    async with muxer_pair() as (a, b):
        seen = push_to(b)
        stream = await a.muxer.open_stream([PUSHED])
        await stream.write([b"x"])
        await seen.received(1)
        a.channel.break_off()
        await b.muxer.wait_closed()
        assert (b.muxer.clean, b.muxer.end_reason) == (False, "connection reset by peer")
        with pytest.raises(RemoteProtocolError, match="connection reset by peer"):
            await stream.write([b"y"])
        with pytest.raises(RemoteProtocolError, match="is gone"):
            await a.muxer.open_stream([PUSHED])


async def test_what_was_sent_before_the_end_stays_readable(autojump_clock):
    async with muxer_pair() as (a, b):

        async def answer(stream):
            await stream.read(10)
            await stream.write([b"the whole answer"])

        b.services.handlers[ECHO] = answer
        stream = await a.muxer.open_stream([ECHO])
        await stream.write([b"?"])
        await wait_all_tasks_blocked()
        await b.muxer.aclose()
        await a.muxer.wait_closed()
        assert await stream.read(100) == b"the whole answer"
        assert await stream.read(100) == b""


async def test_closing_is_bounded_when_the_peer_takes_nothing(autojump_clock):
    async with muxer_pair(capacity=100) as (a, b):
        b.channel.other.frozen = False
        b.muxer._holding = True
        stream = a.muxer.open_raw()
        with trio.move_on_after(0.1):
            await stream.write([bytes(200_000)])
        started = trio.current_time()
        await a.muxer.aclose()
        assert trio.current_time() - started <= 3 * CLOSE_TIMEOUT
        assert a.muxer.is_closed


async def test_a_handler_or_consumer_may_close_its_own_connection(autojump_clock):
    class Leaving(RecordingInbound):
        async def flush(self, _peer):
            await b.muxer.aclose("the consumer leaves")

    async def leave(_stream):
        await b.muxer.aclose("the handler leaves")

    for protocol in (ECHO, PUSHED):
        async with muxer_pair() as (a, b):
            b.services.handlers[ECHO] = leave
            b.services.pushed[PUSHED] = Leaving()
            stream = await a.muxer.open_stream([protocol])
            started = trio.current_time()
            await stream.write([b"x"])
            await b.muxer.wait_closed()
            await a.muxer.wait_closed()
            assert trio.current_time() == started
            assert b.services.failures == 0
            assert b.muxer.end_reason.endswith("leaves")


async def test_what_comes_after_its_handler_is_done_resets_the_stream(autojump_clock):
    async def answer_only(stream):
        await stream.write([b"answer"])

    async with muxer_pair() as (a, b):
        b.services.handlers[ECHO] = answer_only
        early = await a.muxer.open_stream([ECHO])
        assert await early.read(10) == b"answer"
        await early.write([b"too late"])
        late = await a.muxer.open_stream([ECHO], known=[ECHO])
        await late.write([b"unasked"])
        await wait_all_tasks_blocked()
        assert b.muxer.streams == 0
        assert b.muxer._core.unread == 0
        for stream in (early, late):
            with pytest.raises(RemoteProtocolError):
                await stream.write([b"x"])
        ended = await a.muxer.open_stream([ECHO])
        await ended.aclose()
        assert await ended.read(10) == b"answer"
        assert await ended.read(10) == b""


async def test_a_large_message_does_not_fill_the_outbox(autojump_clock):
    async with muxer_pair(capacity=100_000) as (a, b):
        b.services.handlers["/test/sleepy/1"] = sleepy
        stream = await a.muxer.open_stream(["/test/sleepy/1"])
        b.muxer.grow(stream.id, 16 << 20)
        b.muxer._outbox.wake()
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await stream.write([bytes(8 << 20)])
        assert a.muxer._core.queued <= 2 * OUTBOX + 1000


@pytest.mark.parametrize(
    "wire",
    [
        frame(DATA, SYN, 1, INITIAL_WINDOW + 1),
        frame(9, 0, 0, 0),
        data(1, b"x", SYN) + frame(DATA, 0, 1, 0xFFFFFFFF),
        frame(UPDATE, SYN, 2, 0),
    ],
    ids=["window overflow", "unknown type", "impossible length", "stream not its to open"],
)
async def test_a_peer_that_breaks_the_protocol_is_told_and_left(autojump_clock, wire):
    async with against_frames() as (side, theirs):
        await theirs.send([wire])
        frames = await frames_from(theirs, 1)
        assert frames[0][:4] == (GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)
        await side.muxer.wait_closed()
        assert side.muxer.end_reason.startswith("yamux: ")
        assert side.services.failures == 0


async def open_streams(side, theirs, limit):
    for number in range(1, 400, 2):
        await theirs.send([frame(UPDATE, SYN, number, 0)])
        assert side.muxer.streams <= limit


async def test_a_flood_of_streams_is_refused_and_then_ended(autojump_clock):
    async with against_frames(Limits(inbound_streams=10, refused_streams=50)) as (side, theirs):
        with pytest.raises(RemoteProtocolError, match="connection broke"):
            await open_streams(side, theirs, 10)
        assert "floods" in side.muxer.end_reason


async def test_an_end_with_an_error_code_ends_everything(autojump_clock):
    async with against_frames() as (side, theirs):
        await theirs.send([frame(GO_AWAY, 0, 0, GoAwayCode.INTERNAL_ERROR)])
        await side.muxer.wait_closed()
        assert "code 2" in side.muxer.end_reason


async def test_a_bug_in_a_consumer_is_counted_and_contained(autojump_clock):
    class Broken(RecordingInbound):
        def accept(self, _peer, _protocol):
            raise ZeroDivisionError("accept")

    async with muxer_pair() as (a, b):
        b.services.pushed["/test/broken/1"] = Broken()
        seen = push_to(b)
        seen.poison, seen.error = b"!", ZeroDivisionError("feed")
        stream = await a.muxer.open_stream(["/test/broken/1"], known=["/test/broken/1"])
        await wait_all_tasks_blocked()
        with pytest.raises(RemoteProtocolError):
            await stream.write([b"x"])
        other = await a.muxer.open_stream([PUSHED])
        await other.write([b"!"])
        await wait_all_tasks_blocked()
        with pytest.raises(RemoteProtocolError):
            await other.write([b"x"])
        assert b.services.failures == 2
        assert not b.muxer.end_reason


async def test_a_consumer_that_fails_in_flush_ends_the_connection_not_the_host(autojump_clock):
    class Broken(RecordingInbound):
        async def flush(self, _peer):
            raise ZeroDivisionError("flush")

    async with muxer_pair() as (a, b):
        b.services.pushed[PUSHED] = Broken()
        stream = await a.muxer.open_stream([PUSHED])
        await stream.write([b"x"])
        await b.muxer.wait_closed()
        assert b.muxer.end_reason == "internal error"
        assert b.services.failures == 1
