"""The gRPC rim on a real unix socket: mode, stale and live sockets, errors, cancellation, stop."""

import os
import socket
import stat
import threading
from pathlib import Path

import grpc
import hpack
import pytest
import trio

from ipcs import errors
from ipcs.rpc import framing
from ipcs.rpc.bridge import Bridge
from ipcs.rpc.call import duplex, streaming, unary
from ipcs.rpc.framing import MAX_MESSAGE
from ipcs.rpc.server import serve
from ipcs.rpc.status import STATUS, Code, status_of

SERVICE = "test.Echo"


def service(calls):
    """Methods from {name: (bridge, request, call) -> bytes}."""

    def build(bridge: Bridge):
        return {
            f"/{SERVICE}/{name}": unary(lambda request, call, work=work: work(bridge, request, call))
            for name, work in calls.items()
        }

    return build


async def call(path: Path, name: str, request: bytes = b"", timeout=10.0):
    def blocking():
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
            return channel.unary_unary(f"/{SERVICE}/{name}")(request, timeout=timeout)

    return await trio.to_thread.run_sync(blocking)


def echo(bridge, request, context):
    return request


async def test_answers_large_messages_on_a_private_socket(tmp_path):
    path = tmp_path / "s"
    async with serve(path, service({"Echo": echo})):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        big = os.urandom(MAX_MESSAGE - 1024)
        assert await call(path, "Echo", big) == big
        with pytest.raises(grpc.RpcError) as caught:
            await call(path, "Echo", bytes(MAX_MESSAGE + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not path.exists()


async def test_bind_leaves_the_umask_alone(tmp_path):
    before = os.umask(0o022)
    try:
        async with serve(tmp_path / "s", service({"Echo": echo})):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


async def test_replaces_a_stale_socket(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serve(path, service({"Echo": echo})):
        assert await call(path, "Echo", b"x") == b"x"


async def test_refuses_a_live_socket_and_leaves_it(tmp_path):
    path = tmp_path / "s"
    async with serve(path, service({"Echo": echo})):
        with pytest.raises(errors.Unavailable, match="another process serves"):
            async with serve(path, service({"Echo": echo})):
                raise AssertionError("started twice")
        assert await call(path, "Echo", b"x") == b"x"


async def test_refuses_what_is_no_socket(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(errors.InvalidArgument, match="not a socket"):
        async with serve(path, service({})):
            raise AssertionError("started")
    assert path.read_text() == "precious"


async def test_refuses_a_path_that_does_not_fit_or_exist(tmp_path):
    with pytest.raises(errors.InvalidArgument, match="107 bytes"):
        async with serve(tmp_path / ("x" * 120), service({})):
            raise AssertionError("started")
    with pytest.raises(errors.InvalidArgument, match="directory"):
        async with serve(tmp_path / "absent" / "s", service({})):
            raise AssertionError("started")


@pytest.mark.parametrize("kind", sorted(STATUS, key=lambda cls: cls.__name__))
async def test_errors_become_their_status(tmp_path, kind):
    def fail(bridge, request, context):
        raise kind("what failed", subject="it")

    async with serve(tmp_path / "s", service({"Fail": fail})):
        with pytest.raises(grpc.RpcError) as caught:
            await call(tmp_path / "s", "Fail")
    assert (caught.value.code().value[0], caught.value.details()) == (STATUS[kind], "what failed")


def test_a_subclass_has_the_status_of_its_parent():
    assert status_of(errors.LimitExceeded("x")) is Code.INVALID_ARGUMENT
    assert status_of(errors.IpcsError("x")) is Code.UNKNOWN


def test_only_a_locked_ref_is_unavailable():
    """containerd retries UNAVAILABLE for ever."""
    assert [cls for cls, code in STATUS.items() if code is Code.UNAVAILABLE] == [errors.Unavailable]


async def test_bridge_brings_results_and_errors(tmp_path):
    async def double(request):
        await trio.lowlevel.checkpoint()
        if not request:
            raise errors.NotFound("nothing to double")
        return request * 2

    async with serve(tmp_path / "s", service({"Double": lambda b, r, c: b.run(c, double, r)})):
        assert await call(tmp_path / "s", "Double", b"ab") == b"abab"
        with pytest.raises(grpc.RpcError) as caught:
            await call(tmp_path / "s", "Double")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_clients_deadline_cancels_the_work_behind_it(tmp_path):
    ended = trio.Event()

    async def wait(request):
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with serve(tmp_path / "s", service({"Wait": lambda b, r, c: b.run(c, wait, r)})):
        with pytest.raises(grpc.RpcError) as caught:
            await call(tmp_path / "s", "Wait", timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with trio.fail_after(5):
            await ended.wait()


async def test_stopping_is_bounded_and_ends_waiting_calls(tmp_path):
    began, ended = trio.Event(), trio.Event()

    async def wait(request):
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def caller():
        with pytest.raises(grpc.RpcError):
            await call(tmp_path / "s", "Wait")

    with trio.fail_after(5):
        handlers = service({"Wait": lambda b, r, c: b.run(c, wait, r)})
        async with trio.open_nursery() as nursery, serve(tmp_path / "s", handlers):
            nursery.start_soon(caller)
            await began.wait()
        assert ended.is_set()
    with trio.fail_after(5):
        while any(t.name.startswith("ipcs-rpc") for t in threading.enumerate()):
            await trio.lowlevel.checkpoint()


def asking_for(path, *, end=True):
    """A request as grpc-go begins it, for a client whose windows stay as small as they are at first."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc")]
    block = hpack.Encoder().encode(headers)
    return (
        framing.PREFACE
        + framing.settings({})
        + framing.frame(framing.Kind.HEADERS, framing.END_HEADERS, 1, block)
        + framing.frame(framing.Kind.DATA, framing.END_STREAM if end else 0, 1, framing.message_head(0))
    )


async def test_a_reader_that_stops_and_vanishes_frees_its_thread(tmp_path):
    ended = threading.Event()

    def stream(request, call):
        try:
            for _ in range(100):
                yield bytes(1 << 20)
        finally:
            ended.set()

    path = tmp_path / "s"
    async with serve(path, lambda bridge: {f"/{SERVICE}/Stream": streaming(stream)}):

        def client():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(asking_for(f"/{SERVICE}/Stream"))
                got = 0
                while got < 65535:  # the first window of a connection: no more can come
                    got += len(sock.recv(1 << 20))
                assert not ended.is_set()
            return ended.wait(5)

        assert await trio.to_thread.run_sync(client)


async def test_a_bug_in_a_handler_ends_its_call_only(tmp_path, caplog):
    def bug(bridge, request, call):
        raise ZeroDivisionError("planted")

    async with serve(tmp_path / "s", service({"Bug": bug, "Echo": echo})):
        with pytest.raises(grpc.RpcError) as caught:
            await call(tmp_path / "s", "Bug")
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
        assert "planted" in caplog.text
        assert await call(tmp_path / "s", "Echo", b"x") == b"x"


async def test_what_is_quick_is_answered_by_the_reading_thread(tmp_path):
    names = []

    def quick(request):
        names.append(threading.current_thread().name)
        if request == b"gone":
            raise errors.NotFound("gone")
        return request or None

    def slow(request, _call):
        names.append(threading.current_thread().name)
        return b"slow"

    async with serve(tmp_path / "s", lambda bridge: {f"/{SERVICE}/Quick": unary(slow, quick)}):
        assert await call(tmp_path / "s", "Quick", b"x") == b"x"
        assert set(names) == {"ipcs-rpc-connection"}
        with pytest.raises(grpc.RpcError) as caught:
            await call(tmp_path / "s", "Quick", b"gone")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        names.clear()
        assert await call(tmp_path / "s", "Quick", b"") == b"slow"
        assert names[0] == "ipcs-rpc-connection"
        assert names[1] != names[0]


async def test_the_server_ends_after_its_handlers(tmp_path):
    """What handlers clean up (an open ingest, made durable) needs what is closed behind the server."""
    begun, cleaning, may_end = threading.Event(), threading.Event(), threading.Event()
    left = trio.Event()

    def handler(requests, _call):
        try:
            for _ in requests:
                begun.set()
            yield b""
        finally:
            cleaning.set()
            may_end.wait(10)

    def client():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "s"))
            sock.sendall(asking_for(f"/{SERVICE}/Stay", end=False))
            while sock.recv(1 << 16):
                pass  # stays on the line until the server hangs up

    async def serve_until_begun():
        async with serve(tmp_path / "s", lambda bridge: {f"/{SERVICE}/Stay": duplex(handler)}):
            nursery.start_soon(trio.to_thread.run_sync, client)
            await trio.to_thread.run_sync(begun.wait, 10)
        left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_until_begun)
        await trio.to_thread.run_sync(cleaning.wait, 10)
        with trio.move_on_after(0.5):  # as long as a right server waits here, it waits for the handler
            await left.wait()
        early = left.is_set()
        may_end.set()
    assert not early, "serve returned while a handler was still cleaning up"
