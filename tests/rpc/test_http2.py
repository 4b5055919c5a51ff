"""The protocol core against a client written here: any cut of the bytes, any windows, and what a client must not do."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs.rpc import http2
from ipcs.rpc.events import Drained, Ended, Message, Request, Reset
from ipcs.rpc.framing import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEAD,
    MAX_MESSAGE,
    PADDED,
    PAIR,
    PREFACE,
    PREFIX,
    Http2Error,
    Kind,
    Reason,
    Setting,
    frame,
    message_head,
    number,
    settings,
)
from ipcs.rpc.http2 import MAX_STREAMS, STREAM_WINDOW, Http2Server
from ipcs.rpc.status import Code

PSEUDO = [(":method", "POST"), (":scheme", "http"), (":path", "/s/M")]
HEADERS = [*PSEUDO, ("content-type", "application/grpc"), ("te", "trailers")]


class Client:
    """Speaks to a core, and reads its answers as a client must: windows, order, frames."""

    def __init__(self, window=http2.FIRST_WINDOW):
        self.core = Http2Server()
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.window = {0: http2.FIRST_WINDOW}
        self.first_window = window
        self.granted = {0: http2.FIRST_WINDOW}
        self.body = {}
        self.trailers = {}
        self.resets = {}
        self.goodbye = None
        self.events = self.core.receive(PREFACE + settings({Setting.INITIAL_WINDOW_SIZE: window}))
        self.read()

    def headers(self, stream, *, end=False, headers=HEADERS):
        self.window[stream] = self.first_window
        self.granted[stream] = STREAM_WINDOW
        self.body[stream] = b""
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frame(Kind.HEADERS, flags, stream, self.encoder.encode(headers))

    def say(self, data):
        events = self.core.receive(data)
        self.events += events
        self.read()
        return events

    def read(self):
        data = b"".join(bytes(part) for part in self.core.take())
        while data:
            high, low, kind, flags, stream = HEAD.unpack_from(data)
            length = high << 8 | low
            payload, data = data[9 : 9 + length], data[9 + length :]
            assert len(payload) == length
            match kind:
                case Kind.DATA:
                    self.window[0] -= length
                    self.window[stream] -= length
                    assert self.window[0] >= 0
                    assert self.window[stream] >= 0
                    self.body[stream] += payload
                case Kind.HEADERS:
                    fields = dict(self.decoder.decode(payload))
                    if flags & END_STREAM:
                        assert stream not in self.trailers
                        self.trailers[stream] = fields
                case Kind.WINDOW_UPDATE:
                    self.granted[stream] += int.from_bytes(payload, "big")
                case Kind.RST_STREAM:
                    self.resets[stream] = int.from_bytes(payload, "big")
                case Kind.GOAWAY:
                    self.goodbye = int.from_bytes(payload[4:8], "big")


def grpc(*messages):
    return b"".join(message_head(len(message)) + message for message in messages)


def answers(body):
    found = []
    while body:
        _, size = PREFIX.unpack_from(body)
        found.append(body[5 : 5 + size])
        assert len(found[-1]) == size
        body = body[5 + size :]
    return found


@given(
    calls=st.lists(st.lists(st.binary(max_size=40), max_size=4), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    frames=st.integers(1, 50),
)
def test_any_cut_of_the_bytes_means_the_same(calls, cuts, frames):
    client = Client()
    script = b""
    for index, messages in enumerate(calls):
        stream = 2 * index + 1
        script += client.headers(stream)
        body = grpc(*messages)
        for at in range(0, len(body), frames):
            script += frame(Kind.DATA, 0, stream, body[at : at + frames])
        script += frame(Kind.DATA, END_STREAM, stream, b"")
    at = turn = 0
    while at < len(script):
        step = cuts[turn % len(cuts)]
        client.say(script[at : at + step])
        at, turn = at + step, turn + 1
    for index, messages in enumerate(calls):
        mine = [event for event in client.events if not isinstance(event, Drained) and event.stream == 2 * index + 1]
        assert isinstance(mine[0], Request)
        assert mine[0].headers[":path"] == "/s/M"
        assert [event.data for event in mine if isinstance(event, Message)] == messages
        assert isinstance(mine[-1], Ended)


@given(
    messages=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    window=st.integers(0, 2000),
    grants=st.lists(st.tuples(st.booleans(), st.integers(1, 1500)), max_size=60),
)
def test_windows_are_kept_and_nothing_is_lost(messages, window, grants):
    client = Client(window)
    client.say(client.headers(1, end=True) + frame(Kind.SETTINGS, ACK, 0, b""))
    sent = [bytes([index + 1]) * size for index, size in enumerate(messages)]
    for message in sent:
        client.core.send(1, message)
    client.core.finish(1, Code.OK)
    client.read()
    for whole, more in [*grants, (False, 20000)]:
        if 1 in client.trailers:
            break
        stream = 0 if whole else 1
        client.window[stream] += more
        client.say(frame(Kind.WINDOW_UPDATE, 0, stream, number(more)))
    assert answers(client.body[1]) == sent
    assert client.trailers[1] == {"grpc-status": "0"}
    assert client.core.backlog(1) == 0


def test_the_window_of_the_connection_bounds_all_calls_together():
    client = Client(window=60_000)
    client.say(client.headers(1, end=True) + client.headers(3, end=True))
    for stream in (1, 3):
        client.core.send(stream, b"x" * 50_000)
    client.read()
    assert len(client.body[1]) + len(client.body[3]) == http2.FIRST_WINDOW
    client.window[0] += 50_000
    client.say(frame(Kind.WINDOW_UPDATE, 0, 0, number(50_000)))
    assert answers(client.body[3]) == [b"x" * 50_000]


def test_a_changed_first_window_reaches_open_calls():
    client = Client(window=10)
    client.say(client.headers(1, end=True))
    client.core.send(1, b"x" * 100)
    client.read()
    assert len(client.body[1]) == 10
    client.window[1] += 40
    client.say(settings({Setting.INITIAL_WINDOW_SIZE: 50}))
    assert len(client.body[1]) == 50


def test_calls_may_send_the_longest_message_at_any_time():
    """A client that keeps to its windows is never stuck, however its messages are cut into the windows."""
    client = Client()
    client.say(client.headers(1))
    chunk = http2.FIRST_FRAME
    taken = 0
    for size in (300_000, 400_000, 700_000, MAX_MESSAGE, 100, MAX_MESSAGE, MAX_MESSAGE - 1):
        body = grpc(bytes(size))
        for at in range(0, len(body), chunk):
            part = body[at : at + chunk]
            for stream in (0, 1):
                client.granted[stream] -= len(part)
                assert client.granted[stream] >= 0, f"no window for a message of {size} bytes"
            for event in client.say(frame(Kind.DATA, 0, 1, part)):
                assert isinstance(event, Message)
                assert len(event.data) == size
                taken += 1
                client.core.consumed(1, event.data)
                client.read()
    assert taken == 7


def test_unread_messages_are_bounded():
    client = Client()
    client.say(client.headers(1))
    body = grpc(bytes(1 << 20))
    for _ in range(40):
        for at in range(0, len(body), 1 << 16):
            client.say(frame(Kind.DATA, 0, 1, body[at : at + (1 << 16)]))
    assert client.resets[1] == Reason.FLOW_CONTROL_ERROR
    received = sum(len(event.data) for event in client.events if isinstance(event, Message))
    assert received <= STREAM_WINDOW


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_headers_in_pieces_with_padding_and_priority(cut):
    client = Client()
    block = client.encoder.encode(HEADERS)
    first = bytes([4]) + bytes(5) + block[:cut] + bytes(4)
    client.say(frame(Kind.HEADERS, PADDED | HAS_PRIORITY | END_STREAM, 1, first))
    client.say(frame(Kind.CONTINUATION, 0, 1, block[cut:30]) + frame(Kind.CONTINUATION, END_HEADERS, 1, block[30:]))
    assert [type(event) for event in client.events] == [Request, Ended]
    assert client.events[0].headers["te"] == "trailers"


def test_padding_of_data_is_no_message():
    client = Client()
    body = grpc(b"hello")
    client.say(client.headers(1) + frame(Kind.DATA, PADDED | END_STREAM, 1, bytes([3]) + body + bytes(3)))
    assert client.events[1:] == [Message(1, b"hello", True)]


def test_headers_that_only_name_places_follow_the_table():
    """The same bytes mean other headers once the table has moved."""
    client = Client()
    paths = ["/s/A", "/s/A", "/s/B", "/s/B", "/s/A", "/s/B"]
    heard = []
    for index, path in enumerate(paths):
        headers = [*PSEUDO[:2], (":path", path)]
        client.say(client.headers(2 * index + 1, end=True, headers=headers))
        heard.append(client.events[-2].headers[":path"])
    assert heard == paths


NO_REQUESTS = {
    "not a POST": [(":method", "GET"), *PSEUDO[1:]],
    "no method": PSEUDO[1:],
    "no scheme": [PSEUDO[0], PSEUDO[2]],
    "no path": PSEUDO[:2],
    "empty path": [*PSEUDO[:2], (":path", "")],
    "path twice": [*PSEUDO, (":path", "/s/N")],
    "pseudo-header of an answer": [*PSEUDO, (":status", "200")],
    "pseudo-header behind a header": [*PSEUDO[:2], ("te", "trailers"), PSEUDO[2]],
    "upper case": [*PSEUDO, ("Content-Type", "application/grpc")],
    "of the connection": [*PSEUDO, ("connection", "close")],
    "te of another kind": [*PSEUDO, ("te", "gzip")],
}


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_headers_that_begin_no_request_reset_their_stream_only(name):
    client = Client()
    for stream in (1, 3):  # the second time its fields may be in the table
        client.say(client.headers(stream, headers=NO_REQUESTS[name]))
        assert client.resets[stream] == Reason.PROTOCOL_ERROR
    assert client.events == []
    client.say(client.headers(5, end=True))
    assert [type(event) for event in client.events] == [Request, Ended]


def test_data_behind_the_end_of_a_call_resets_it():
    client = Client()
    client.say(client.headers(1, end=True) + frame(Kind.DATA, 0, 1, grpc(b"more")))
    assert client.resets == {1: Reason.STREAM_CLOSED}
    assert client.events[-1] == Reset(1)


def test_a_window_of_nothing_resets_its_call():
    client = Client()
    client.say(client.headers(1) + frame(Kind.WINDOW_UPDATE, 0, 1, number(0)))
    assert client.resets == {1: Reason.PROTOCOL_ERROR}


def test_only_the_end_of_headers_counts_in_a_continuation():
    client = Client()
    block = client.encoder.encode(HEADERS)
    client.say(frame(Kind.HEADERS, 0, 1, block[:5]) + frame(Kind.CONTINUATION, END_HEADERS | END_STREAM, 1, block[5:]))
    assert [type(event) for event in client.events] == [Request]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (PREFIX.pack(1, 3) + b"zip", Code.UNIMPLEMENTED),
        (PREFIX.pack(0, MAX_MESSAGE + 1), Code.RESOURCE_EXHAUSTED),
    ],
)
def test_messages_that_are_refused_end_their_call_only(message, code):
    client = Client()
    client.say(client.headers(1) + client.headers(3) + frame(Kind.DATA, 0, 1, message))
    assert client.trailers[1]["grpc-status"] == str(int(code))
    assert client.events[-1] == Reset(1)
    client.say(frame(Kind.DATA, END_STREAM, 3, grpc(b"fine")))
    assert client.events[-1] == Message(3, b"fine", True)


def test_a_call_that_ends_inside_a_message_fails():
    client = Client()
    client.say(client.headers(1) + frame(Kind.DATA, END_STREAM, 1, grpc(b"whole")[:-1]))
    assert client.trailers[1]["grpc-status"] == str(int(Code.INTERNAL))


def test_calls_at_once_are_bounded():
    client = Client()
    for index in range(MAX_STREAMS + 1):
        client.say(client.headers(2 * index + 1))
    assert client.resets == {2 * MAX_STREAMS + 1: Reason.REFUSED_STREAM}
    client.core.finish(1, Code.OK)
    client.read()
    client.say(client.headers(2 * MAX_STREAMS + 3))
    assert isinstance(client.events[-1], Request)


def test_after_goodbye_no_call_begins():
    client = Client()
    client.say(client.headers(1))
    client.core.leave()
    client.read()
    assert client.goodbye == Reason.NO_ERROR
    client.say(client.headers(3))
    assert client.resets == {3: Reason.REFUSED_STREAM}
    client.core.finish(1, Code.OK)
    client.read()
    assert client.trailers[1]["grpc-status"] == "0"


def test_a_message_that_names_errors_survives_its_header():
    client = Client()
    client.say(client.headers(1, end=True))
    client.core.finish(1, Code.NOT_FOUND, "content sha256:ab: 100 % gone\nnächste")
    client.read()
    assert client.trailers[1]["grpc-message"] == "content sha256:ab: 100 %25 gone%0An%C3%A4chste"


def test_pings_are_answered_and_answers_are_not():
    client = Client()
    client.core.receive(frame(Kind.PING, 0, 0, b"12345678") + frame(Kind.PING, ACK, 0, b"87654321"))
    assert b"".join(client.core.take()) == frame(Kind.PING, ACK, 0, b"12345678")


BROKEN = {
    "no preface": (b"GET / HTTP/1.1\r\n\r\n.......", Reason.PROTOCOL_ERROR),
    "frame too long": (HEAD.pack(0x401, 0, Kind.DATA, 0, 1), Reason.FRAME_SIZE_ERROR),
    "data before a call": (frame(Kind.DATA, 0, 1, b""), Reason.PROTOCOL_ERROR),
    "data of no stream": (frame(Kind.DATA, 0, 0, b""), Reason.PROTOCOL_ERROR),
    "even stream": (frame(Kind.HEADERS, END_HEADERS, 2, b"\x82"), Reason.PROTOCOL_ERROR),
    "lone continuation": (frame(Kind.CONTINUATION, END_HEADERS, 1, b"\x82"), Reason.PROTOCOL_ERROR),
    "interrupted headers": (
        frame(Kind.HEADERS, 0, 1, b"\x82") + frame(Kind.PING, 0, 0, bytes(8)),
        Reason.PROTOCOL_ERROR,
    ),
    "endless headers": (
        frame(Kind.HEADERS, 0, 1, b"\x82") + frame(Kind.CONTINUATION, 0, 1, b"\x82" * 9000) * 2,
        Reason.ENHANCE_YOUR_CALM,
    ),
    "bad header block": (frame(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), Reason.COMPRESSION_ERROR),
    "padding longer than frame": (frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b"\x09\x82"), Reason.PROTOCOL_ERROR),
    "reset of nothing": (frame(Kind.RST_STREAM, 0, 1, number(0)), Reason.PROTOCOL_ERROR),
    "short settings": (frame(Kind.SETTINGS, 0, 0, b"\0\0\0"), Reason.PROTOCOL_ERROR),
    "window of nothing": (frame(Kind.WINDOW_UPDATE, 0, 0, number(0)), Reason.PROTOCOL_ERROR),
    "short window": (frame(Kind.WINDOW_UPDATE, 0, 0, b"\0\0\1"), Reason.FRAME_SIZE_ERROR),
    "priority of no stream": (frame(Kind.PRIORITY, 0, 0, bytes(5)), Reason.PROTOCOL_ERROR),
    "short priority": (frame(Kind.PRIORITY, 0, 1, bytes(4)), Reason.FRAME_SIZE_ERROR),
    "goodbye of a stream": (frame(Kind.GOAWAY, 0, 1, bytes(8)), Reason.PROTOCOL_ERROR),
    "push wanted twice": (frame(Kind.SETTINGS, 0, 0, PAIR.pack(Setting.ENABLE_PUSH, 2)), Reason.PROTOCOL_ERROR),
    "window overflow": (frame(Kind.WINDOW_UPDATE, 0, 0, number(2**31 - 1)), Reason.FLOW_CONTROL_ERROR),
    "push": (frame(Kind.PUSH_PROMISE, 0, 1, bytes(4)), Reason.PROTOCOL_ERROR),
    "short ping": (frame(Kind.PING, 0, 0, b"1"), Reason.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_client_must_not_do_ends_its_connection(name):
    data, reason = BROKEN[name]
    core = Http2Server()
    if name != "no preface":
        data = PREFACE + data
    core.take()
    with pytest.raises(Http2Error) as caught:
        core.receive(data)
    assert caught.value.reason is reason
    last = bytes(core.take()[-1])
    assert last[3] == Kind.GOAWAY
    assert int.from_bytes(last[13:17], "big") == reason
