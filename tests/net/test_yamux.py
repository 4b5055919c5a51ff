"""The yamux core: frames, violations, limits and time."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs.errors import LocalProtocolError, RemoteProtocolError, ResourceExhausted
from ipcs.net.yamux import Yamux
from ipcs.net.yamux_frames import (
    ACK,
    FIN,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_WINDOW,
    RST,
    SYN,
    DataReceived,
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

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "net_libp2p.json").read_text())["vectors"]
DATA, UPDATE, PING, GO_AWAY = FrameType


def frame(kind, flags, stream, length, payload=b""):
    return struct.pack("!BBHII", 0, kind, flags, stream, length) + payload


def data(stream, payload, flags=0):
    return frame(DATA, flags, stream, len(payload), payload)


def core(*, initiator=False, limits=None, now=0.0):
    return Yamux(initiator=initiator, now=now, limits=limits)


def feed(side, *frames, now=0.0):
    """The events, with views made bytes so that they compare and last."""
    events = side.receive(memoryview(b"".join(frames)), now)
    return [DataReceived(e.stream, bytes(e.data)) if isinstance(e, DataReceived) else e for e in events]


def sent(side):
    return b"".join(side.data_to_send())


def headers(side):
    out, at, wire = [], 0, sent(side)
    while at < len(wire):
        _, kind, flags, stream, length = struct.unpack_from("!BBHII", wire, at)
        out.append((FrameType(kind), flags, stream, length))
        at += 12 + (length if kind == DATA else 0)
    return out


def test_headers_of_the_specification():
    wanted = {v["meaning"]: bytes.fromhex(v["hex"]) for v in VECTORS if v["kind"] == "yamux-frame"}
    side = core()
    assert feed(side, wanted["Data SYN stream 1, length 0"]) == [StreamOpened(1)]
    assert sent(side) == wanted["WindowUpdate ACK stream 1"]
    side.reset(1)
    assert sent(side) == wanted["WindowUpdate RST stream 1"]
    feed(side, frame(PING, SYN, 0, 42))
    assert sent(side) == wanted["Ping ACK opaque 42"]
    side.go_away(GoAwayCode.PROTOCOL_ERROR)
    assert sent(side) == wanted["GoAway protocol error"]


def test_a_stream_of_the_peers_from_first_to_last_byte():
    side = core()
    assert feed(side, frame(UPDATE, SYN, 1, 100), data(1, b"hello"), data(1, b" peer", FIN)) == [
        StreamOpened(1),
        WindowOpened(1),
        DataReceived(1, b"hello"),
        DataReceived(1, b" peer"),
        StreamEnded(1),
    ]
    assert side.send_window(1) == INITIAL_WINDOW + 100
    side.send(1, [b"answer"])
    side.end(1)
    assert headers(side) == [(DATA, ACK, 1, 6), (UPDATE, FIN, 1, 0)]
    assert side.streams == 0


def test_a_stream_of_ours():
    side = core(initiator=True)
    assert (side.open_stream(), side.open_stream()) == (1, 3)
    side.send(1, [b"a" * 12, memoryview(b"b" * MAX_FRAME)[: MAX_FRAME - 13]])
    assert headers(side) == [(UPDATE, SYN, 1, 0), (UPDATE, SYN, 3, 0), (DATA, 0, 1, MAX_FRAME - 1)]
    with pytest.raises(LocalProtocolError, match="exceed the window"):
        side.send(1, [b"xx"])
    assert feed(side, frame(UPDATE, ACK, 1, MAX_FRAME + 1)) == [WindowOpened(1)]
    side.send(1, [b"a" * 13, b"b" * (MAX_FRAME - 11)])
    assert headers(side) == [(DATA, 0, 1, MAX_FRAME), (DATA, 0, 1, 2)]
    assert feed(side, frame(UPDATE, RST, 3, 0)) == [StreamReset(3, "the peer reset it")]
    assert not side.is_open(3)


def test_data_is_passed_on_before_its_frame_is_complete():
    side = core()
    whole = data(1, bytes(range(200)), SYN | FIN)
    assert feed(side, whole[:5]) == []
    assert feed(side, whole[5:20]) == [StreamOpened(1), DataReceived(1, bytes(range(8)))]
    assert feed(side, whole[20:]) == [DataReceived(1, bytes(range(8, 200))), StreamEnded(1)]


def test_the_window_opens_early_and_grows_with_use():
    side = core()
    feed(side, frame(UPDATE, SYN, 1, 0))
    side.grow(1, 4 * INITIAL_WINDOW)
    assert headers(side) == [(UPDATE, ACK, 1, 3 * INITIAL_WINDOW)]
    for used in (1, 2 * INITIAL_WINDOW):  # it is not worth a frame before half of it is used
        feed(side, data(1, bytes(used)))
        side.consumed(1, used)
        if used == 1:
            assert headers(side) == []
    assert headers(side) == [(UPDATE, 0, 1, 6 * INITIAL_WINDOW + 1)]


def test_growth_stays_within_the_budget_and_is_given_back():
    side = core(limits=Limits(window_budget=5 * INITIAL_WINDOW))
    feed(side, frame(UPDATE, SYN, 1, 0), frame(UPDATE, SYN, 3, 0))
    side.grow(1, MAX_WINDOW * 2)
    side.grow(3, MAX_WINDOW)
    assert headers(side) == [(UPDATE, ACK, 1, 5 * INITIAL_WINDOW), (UPDATE, ACK, 3, 0)]
    feed(side, frame(UPDATE, RST, 1, 0))
    side.grow(3, MAX_WINDOW)
    assert headers(side) == [(UPDATE, 0, 3, 5 * INITIAL_WINDOW)]


def test_a_window_never_exceeds_its_maximum():
    side = core(limits=Limits(window_budget=10 * MAX_WINDOW))
    feed(side, frame(UPDATE, SYN, 1, 0))
    side.grow(1, 100 * MAX_WINDOW)
    assert headers(side) == [(UPDATE, ACK, 1, MAX_WINDOW - INITIAL_WINDOW)]


VIOLATIONS = {
    "version": b"\x01" + frame(DATA, 0, 1, 0)[1:],
    "frame type": frame(4, 0, 0, 0),
    "stream of our own parity": frame(UPDATE, SYN, 2, 0),
    "stream 0": frame(UPDATE, SYN, 0, 0),
    "stream opened twice": frame(UPDATE, SYN, 1, 0) * 2,
    "one byte beyond the window": frame(DATA, SYN, 1, INITIAL_WINDOW + 1),
    "window used up, then one byte": data(1, bytes(INITIAL_WINDOW), SYN) + data(1, b"x"),
    "a 4 GiB frame": frame(DATA, SYN, 1, 0xFFFFFFFF),
    "a 4 GiB frame on no stream": frame(DATA, 0, 77, 0xFFFFFFFF),
    "data behind the end": data(1, b"x", SYN | FIN) + data(1, b"y"),
}


@pytest.mark.parametrize("wire", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_violations_end_the_connection_and_say_so(wire):
    side = core()
    with pytest.raises(RemoteProtocolError, match="yamux"):
        feed(side, wire)
    assert (GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR) in headers(side)


def test_frames_for_streams_that_are_gone_are_skipped():
    side = core()
    feed(side, frame(UPDATE, SYN, 1, 0))
    side.reset(1)
    assert feed(side, data(1, b"was on its way"), frame(UPDATE, FIN, 1, 5), data(3, b"next", SYN)) == [
        StreamOpened(3),
        DataReceived(3, b"next"),
    ]


def test_a_stream_reset_in_the_middle_of_its_frame():
    side = core()
    whole = data(1, b"0123456789", SYN)
    feed(side, whole[:15])
    side.reset(1)
    assert feed(side, whole[15:], data(3, b"x", SYN)) == [StreamOpened(3), DataReceived(3, b"x")]
    assert side.unread == 1


def test_streams_over_the_limit_are_reset_and_a_flood_ends_the_connection():
    side = core(limits=Limits(inbound_streams=2, refused_streams=3))
    opens = [frame(UPDATE, SYN, n, 0) for n in range(1, 15, 2)]
    assert feed(side, *opens[:2], data(5, b"refused", SYN), opens[3], opens[4]) == [StreamOpened(1), StreamOpened(3)]
    assert [h for h in headers(side) if h[1] == RST] == [(UPDATE, RST, n, 0) for n in (5, 7, 9)]
    assert side.inbound_streams == 2
    with pytest.raises(RemoteProtocolError, match="floods"):
        feed(side, opens[5])
    side = core(limits=Limits(inbound_streams=1))
    feed(side, opens[0], frame(UPDATE, RST, 1, 0), opens[1])
    assert side.is_open(3)


def test_what_nobody_reads_resets_its_stream_only():
    side = core(limits=Limits(unread=INITIAL_WINDOW + 10))
    feed(side, data(1, bytes(INITIAL_WINDOW), SYN))
    events = feed(side, data(3, bytes(11), SYN), data(5, bytes(9), SYN))
    assert [e for e in events if isinstance(e, StreamReset)] == [
        StreamReset(3, f"more than {INITIAL_WINDOW + 10} bytes wait to be read")
    ]
    assert side.unread == INITIAL_WINDOW + 9
    assert (UPDATE, RST, 3, 0) in headers(side)
    side.consumed(1, INITIAL_WINDOW)
    assert feed(side, data(7, bytes(11), SYN))[-1] == DataReceived(7, bytes(11))


def test_answers_that_nobody_reads_do_not_pile_up():
    side = core(limits=Limits(control_frames=100))
    feed(side, *[frame(PING, SYN, 0, n) for n in range(100)])
    with pytest.raises(RemoteProtocolError, match="does not read"):
        feed(side, frame(PING, SYN, 0, 1))
    side = core(limits=Limits(control_frames=100))
    for n in range(1000):
        feed(side, frame(PING, SYN, 0, n))
        assert headers(side) == [(PING, ACK, 0, n)]


def test_our_streams_are_bounded_too():
    side = core(initiator=True, limits=Limits(outbound_streams=3, unacknowledged=2))
    side.open_stream()
    side.open_stream()
    with pytest.raises(ResourceExhausted, match="not acknowledged"):
        side.open_stream()
    feed(side, frame(UPDATE, ACK, 1, 0), frame(UPDATE, ACK, 1, 0))
    side.open_stream()
    with pytest.raises(ResourceExhausted):
        side.open_stream()
    feed(side, frame(UPDATE, RST, 3, 0), frame(UPDATE, RST, 1, 0))
    assert side.open_stream() == 7


def test_stream_numbers_run_out():
    side = core(initiator=True)
    side._next_id = 0xFFFFFFFF
    assert side.open_stream() == 0xFFFFFFFF
    with pytest.raises(ResourceExhausted, match="used up"):
        side.open_stream()


def test_going_away():
    side = core(initiator=True)
    mine = side.open_stream()
    assert feed(side, frame(GO_AWAY, 0, 0, 0)) == [GoAwayReceived(0)]
    with pytest.raises(RemoteProtocolError, match="no more streams"):
        side.open_stream()
    assert feed(side, data(mine, b"still served", ACK)) == [DataReceived(mine, b"still served")]
    other = core()
    other.go_away()
    other.go_away()
    assert headers(other) == [(GO_AWAY, 0, 0, 0)]
    feed(other, frame(UPDATE, SYN, 1, 0))
    assert headers(other) == [(UPDATE, RST, 1, 0)]
    with pytest.raises(RemoteProtocolError):
        other.open_stream()


def test_a_silent_peer_is_pinged_then_found_dead_within_the_stated_time():
    limits = Limits()
    side = core(now=100.0)
    assert side.timer(105.0) == []
    assert headers(side) == []
    assert side.next_deadline() == 100.0 + limits.ping_after
    assert side.timer(side.next_deadline()) == []
    assert headers(side) == [(PING, SYN, 0, 1)]
    dead = side.next_deadline()
    assert dead == 100.0 + limits.ping_after + limits.pong_within
    assert side.timer(dead - 0.001) == []
    assert side.timer(dead) == [PeerSilent(dead - 100.0)]


def test_any_sign_of_life_postpones_the_end():
    side = core()
    side.timer(10.0)
    assert feed(side, frame(PING, ACK, 0, 1), now=10.5) == [PongReceived(0.5)]
    assert feed(side, frame(PING, ACK, 0, 1), frame(PING, ACK, 0, 9), now=11.0)[1:] == []
    assert side.next_deadline() == 21.0
    side.timer(21.0)
    feed(side, frame(UPDATE, SYN, 1, 0), now=25.0)
    assert side.timer(41.0) == []
    side.heard(50.0)
    assert side.next_deadline() == 60.0


@given(st.binary(max_size=200), st.integers(1, 60))
def test_any_bytes_are_events_or_the_peers_fault(wire, cut):
    side = core()
    try:
        for at in range(0, len(wire), cut):
            feed(side, wire[at : at + cut])
            sent(side)
    except RemoteProtocolError:
        assert GO_AWAY in [kind for kind, *_ in headers(side)]
