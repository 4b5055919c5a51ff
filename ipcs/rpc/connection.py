"""One client of the server: a thread that reads its socket, and the calls that it began.

What is quick is answered in the reading thread, without a hand-over to another one: at unpack containerd sends a call
for every 32 KiB, and the hand-over costs more than the answer. Everything else runs in the server's pool.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from ..block import Data
from ..errors import IpcsError
from .call import Call, CallCancelled, Methods, Quick
from .events import Drained, Ended, Event, Message, Request, Reset
from .framing import Http2Error
from .http2 import MAX_STREAMS, Http2Server
from .status import Code, status_of

log = logging.getLogger(__name__)

RECEIVE = 256 * 1024
"""Bytes read at once: as many as a unix socket holds."""

SEND_TIMEOUT = 30
"""Seconds in which a client must take something of what its own windows asked for; it counts as dead otherwise."""

BUFFERS = 1024
"""Buffers in one `sendmsg` (IOV_MAX)."""


class Connection:
    """Serves `sock` in threads until either side ends it."""

    def __init__(self, sock: socket.socket, methods: Methods, pool: ThreadPoolExecutor) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT, 0))
        self._socket = sock
        self._methods = methods
        self._pool = pool
        self._core = Http2Server()
        self._changed = threading.Condition(threading.Lock())  # over all below
        self._calls: dict[int, Call] = {}
        self._broken = False
        self.thread = threading.Thread(target=self._run, name="ipcs-rpc-connection", daemon=True)

    def leave(self) -> None:
        """Tell the client to begin no more calls here."""
        with self._changed:
            self._core.leave()
            self._flush()

    def wait_idle(self, seconds: float) -> None:
        """Return when no call is under way, at the latest after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._broken or not self._calls, seconds)

    def close(self) -> None:
        """Cancel all calls and hang up; the reading thread ends. Idempotent."""
        with self._changed:
            self._broken = True
            calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        self._wake()  # behind the cancelling: a thread that waits for a window looks at nothing else
        self._hang_up()

    def _hang_up(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as exc:  # the client was faster
            log.debug("closing a gRPC connection: %s", exc)

    # ---- the reading thread

    def _run(self) -> None:
        buffer = memoryview(bytearray(RECEIVE))
        try:
            while size := self._socket.recv_into(buffer):
                with self._changed:
                    events = self._core.receive(buffer[:size])
                for event in events:
                    self._handle(event)
                with self._changed:
                    self._flush()
        except Http2Error as exc:
            log.warning("%s: its connection is closed", exc.message)
            with self._changed:
                self._flush()
        except OSError as exc:
            log.debug("gRPC connection: %s", exc)
        finally:
            self.close()
            self._socket.close()

    def _handle(self, event: Event) -> None:
        match event:
            case Message(stream, data, last):
                call = self._calls.get(stream)
                if call is not None:
                    self._on_message(call, data, last=last)
            case Request(stream, headers):
                self._begin(stream, headers.get(":path", ""), headers.get("content-type", ""))
            case Ended(stream):
                call = self._calls.get(stream)
                if call is not None:
                    self._on_end(call)
            case Reset(stream):
                call = self._calls.get(stream)
                if call is not None:
                    call.cancel()
                    if not call.begun:
                        self._forget(call)
                    self._wake()
            case Drained():
                self._wake()

    def _begin(self, stream: int, path: str, content_type: str) -> None:
        method = self._methods.get(path)
        with self._changed:
            # A call that the client reset holds its thread until it notices: it still counts.
            if len(self._calls) >= MAX_STREAMS:
                self._core.refuse(stream)
                return
            if method is None or not content_type.startswith("application/grpc"):
                self._core.finish(stream, Code.UNIMPLEMENTED, f"unknown method {path} ({content_type})")
                return
            call = self._calls[stream] = Call(stream, method)
        if method.duplex:
            self._start(call)

    def _on_message(self, call: Call, data: bytes, *, last: bool) -> None:
        if call.begun:
            if not self._reply(call, data):
                call.put(data)
            if last:
                call.put(None)
        elif not last or call.quick is None or not self._quick(call, call.quick, data):
            call.put(data)
            if last:
                call.put(None)
            self._start(call)

    def _on_end(self, call: Call) -> None:
        call.put(None)
        if not call.begun:
            self._start(call)

    def _reply(self, call: Call, request: bytes) -> bool:
        """Answer a further message of a call in this thread, if its handler waits and that needs no waiting."""
        try:
            message = call.answer(request)
        except Exception as exc:  # noqa: BLE001 - the handler ends with it
            call.put(exc)
            return True
        if message is None:
            return False
        with self._changed:
            self._core.consumed(call.stream, request)
            self._core.send(call.stream, message)
            if self._core.backlog(call.stream):
                call.quick = None  # the client does not read: from now on answers wait for it, in the handler's thread
        return True

    def _quick(self, call: Call, answer: Quick, request: bytes) -> bool:
        """Answer in this thread if that needs no waiting."""
        code, details, message = Code.OK, "", None
        try:
            message = answer(request)
            if message is None:
                return False
        except Exception as exc:  # noqa: BLE001 - `_outcome` logs what is a bug
            code, details = _outcome(exc)
        with self._changed:
            if message is not None:
                self._core.send(call.stream, message)
            self._core.finish(call.stream, code, details)
            del self._calls[call.stream]
        return True

    def _start(self, call: Call) -> None:
        call.begun = True
        try:
            self._pool.submit(self._serve, call)
        except RuntimeError:  # the pool is shut: the node is stopping
            self._forget(call)

    # ---- a thread of the pool

    def _serve(self, call: Call) -> None:
        code, details = Code.OK, ""
        try:
            with closing(call.method.handler(self._requests(call), call)) as answers:
                for answer in answers:
                    self._send(call, answer)
        except Exception as exc:  # noqa: BLE001 - `_outcome` logs what is a bug
            code, details = _outcome(exc)
        with self._changed:
            self._core.finish(call.stream, code, details)
            self._flush()
        call.put(None)  # a thread that waits for more of the client's messages may outlive the answer
        self._forget(call)

    def _requests(self, call: Call) -> Iterator[bytes]:
        while (message := call.get()) is not None:
            with self._changed:
                self._core.consumed(call.stream, message)
                self._flush()
            yield message

    def _send(self, call: Call, message: Data) -> None:
        """Send, and wait until the client's windows took it all: nothing piles up for a slow reader."""
        with self._changed:
            self._core.send(call.stream, message)
            self._flush()
            while self._core.backlog(call.stream) and call.is_active():
                self._changed.wait()
        if not call.is_active():
            raise CallCancelled

    # ---- both

    def _forget(self, call: Call) -> None:
        with self._changed:
            self._calls.pop(call.stream, None)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _flush(self) -> None:
        """Send what the core has, in order: only under the lock."""
        parts = self._core.take()
        if self._broken:
            return
        try:
            while parts:
                sent = self._socket.sendmsg(parts[:BUFFERS])
                parts = _rest(parts, sent)
        except OSError as exc:
            log.debug("gRPC client does not take its answers: %s", exc)
            self._broken = True
            self._hang_up()


def _outcome(exc: Exception) -> tuple[Code, str]:
    """How a call ends whose handler raised `exc`. A bug ends its call, and neither the connection nor the node."""
    if isinstance(exc, CallCancelled):
        return Code.CANCELLED, "the client left or the node is stopping"
    if isinstance(exc, IpcsError):
        return status_of(exc), exc.message
    log.error("a gRPC handler failed in a way that nobody foresaw", exc_info=exc)
    return Code.UNKNOWN, "internal error; the node's log has the traceback"


def _rest(parts: list[Data], sent: int) -> list[Data]:
    """What of `parts` lies behind the first `sent` bytes."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[index + 1 :]] if sent else parts[index:]
        sent -= len(part)
    return []
