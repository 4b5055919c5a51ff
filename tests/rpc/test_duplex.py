"""Calls of many requests and answers: what may be answered while their handler waits, and what that must not change."""

import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import hpack
import pytest
import trio

from ipcs import errors
from ipcs.rpc import framing
from ipcs.rpc.call import Call, duplex
from ipcs.rpc.connection import Connection
from ipcs.rpc.server import serve

PATH = "/test.Echo/Talk"
READER = "ipcs-rpc-connection"


def talk(path, messages):
    """Answers to `messages`, each sent when the one before was answered."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        answers = []
        turn = threading.Semaphore(1)

        def requests():
            for message in messages:
                turn.acquire(timeout=10)
                yield message

        for answer in channel.stream_stream(PATH)(requests(), timeout=20):
            answers.append(answer)
            turn.release()
        return answers


class Talker:
    """Upper-cases messages; in the reading thread those that do not begin with `s`. Remembers who answered."""

    def __init__(self):
        self.threads = []
        self.ended = threading.Event()

    def shout(self, request):
        self.threads.append(threading.current_thread().name)
        if request == b"bad":
            raise errors.OutOfRange("bad word")
        return request.upper()

    def quick(self, request):
        return None if request.startswith(b"s") else self.shout(request)

    def handler(self, requests, call):
        try:
            for request in requests:
                yield self.shout(request)
                call.quick = self.quick
        finally:
            self.ended.set()

    def methods(self, _bridge):
        return {PATH: duplex(self.handler)}


async def test_a_waiting_handler_is_not_woken_for_what_is_quick(tmp_path):
    talker = Talker()
    async with serve(tmp_path / "s", talker.methods):
        answers = await trio.to_thread.run_sync(talk, tmp_path / "s", [b"%d" % n for n in range(50)])
    assert answers == [b"%d" % n for n in range(50)]
    assert talker.threads[0] != READER
    # A handler that has not come back to wait in time is woken once more; from then on it waits.
    assert talker.threads.count(READER) >= 40


async def test_quick_and_slow_messages_keep_their_order(tmp_path):
    talker = Talker()
    messages = [(b"s%d" if n % 3 == 0 else b"q%d") % n for n in range(300)]
    async with serve(tmp_path / "s", talker.methods):

        def all_at_once():
            with grpc.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
                return list(channel.stream_stream(PATH)(iter(messages), timeout=20))

        assert await trio.to_thread.run_sync(all_at_once) == [message.upper() for message in messages]
        assert await trio.to_thread.run_sync(talk, tmp_path / "s", messages) == [m.upper() for m in messages]
    assert READER in talker.threads


async def test_what_fails_while_the_handler_waits_ends_the_handler(tmp_path):
    talker = Talker()
    async with serve(tmp_path / "s", talker.methods):
        with pytest.raises(grpc.RpcError) as caught:
            await trio.to_thread.run_sync(talk, tmp_path / "s", [*[b"good"] * 20, b"bad", b"never"])
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert caught.value.details() == "bad word"
        assert talker.ended.wait(5)
    assert talker.threads[-1] == READER


def waiting_call():
    """A call whose handler waits in a thread for the first message, and what it gets."""
    call, got, done = Call(1, duplex(lambda requests, call: iter(()))), [], threading.Event()

    def handler():
        try:
            while (message := call.get()) is not None:
                got.append(message)
        except errors.IpcsError as exc:
            got.append(exc)
        done.set()

    threading.Thread(target=handler, daemon=True).start()
    call.quick = bytes.upper
    return call, got, done


def test_a_message_behind_one_that_waits_in_the_queue_is_not_answered_first():
    call = Call(1, duplex(lambda requests, call: iter(())))
    call.quick = bytes.upper
    call.put(b"first")
    call.put(b"second")
    assert call.get() == b"first"
    assert call.answer(b"third") is None
    assert call.get() == b"second"


def test_nothing_is_answered_for_a_call_that_was_cancelled():
    call, got, done = waiting_call()
    while call.answer(b"x") is None:
        done.wait(0.001)  # until the thread waits
    call.cancel()
    assert call.answer(b"y") is None
    assert done.wait(5)
    assert got == []


def test_answers_do_not_pile_up_for_a_client_that_does_not_read():
    ours, theirs = socket.socketpair()
    answered = itertools.count()
    with ThreadPoolExecutor(2) as workers, theirs:

        def quick(request):
            next(answered)
            return bytes(20_000)

        def handler(requests, call):
            call.quick = quick
            for _ in requests:
                next(answered)
                yield bytes(20_000)

        connection = Connection(ours, {PATH: duplex(handler)}, workers)
        connection.thread.start()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", PATH), ("content-type", "application/grpc")]
        block = hpack.Encoder().encode(headers)
        message = framing.message_head(1) + b"x"
        theirs.sendall(
            framing.PREFACE
            + framing.settings({})
            + framing.frame(framing.Kind.HEADERS, framing.END_HEADERS, 1, block)
            + framing.frame(framing.Kind.DATA, 0, 1, message * 1000)
        )
        got = 0
        while got < 65535:  # the first windows of call and connection
            got += len(theirs.recv(1 << 20))
        theirs.sendall(framing.frame(framing.Kind.PING, 0, 0, bytes(8)))
        while not theirs.recv(1 << 20).endswith(bytes(8)):
            pass  # its answer: everything before it was looked at
        connection.close()
        connection.thread.join(5)
    assert next(answered) <= 6  # three fill the windows, one more may wait in each thread
