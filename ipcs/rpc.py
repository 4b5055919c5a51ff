"""The gRPC server on the node's unix socket, and the bridge from its threads into trio.

`content` and `control` hand their generic handlers to `serve`; both run on one socket, because containerd is told one
address and an operator should need only one. Handlers run in the server's own threads. What is local is answered
there; what must wait for the network enters trio through `Bridge.run`, and the client's cancellation follows it.

The protocol has no authentication: the mode of the socket is the only guard.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
import trio

from . import errors

T = TypeVar("T")

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes in one message, both ways. containerd allows 16 MiB and 1.6 does not split larger writes (defaults.go)."""

THREADS = 128
"""Handlers that run at once. A waiting Read holds a thread, so there must be more threads than waiting Reads."""

SOCKET_UMASK = 0o117
"""Leaves mode 0660: owner and group may connect, nobody else."""

STOP_GRACE = 1.0
"""Seconds that calls in flight get to end by themselves when the server stops."""

STOP_LIMIT = 5.0
"""Seconds after which a server that has not stopped is left to the end of the process."""

_SUN_PATH = 107
"""Bytes that fit in a unix socket address (unix(7)), less the final NUL."""

STATUS: dict[type[errors.IpcsError], grpc.StatusCode] = {
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.HashMismatch: grpc.StatusCode.DATA_LOSS,
    errors.StoreCorrupt: grpc.StatusCode.DATA_LOSS,
    errors.LocalProtocolError: grpc.StatusCode.INTERNAL,
    errors.RemoteProtocolError: grpc.StatusCode.ABORTED,
}
"""The one mapping of our errors to gRPC's (containerd's errgrpc/grpc.go reads it back)."""


def status_of(error: errors.IpcsError) -> grpc.StatusCode:
    """The status for `error`: that of its nearest class in `STATUS`."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), grpc.StatusCode.UNKNOWN)


@contextmanager
def reporting(context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the right status when the body raises an `IpcsError`."""
    try:
        yield
    except errors.IpcsError as exc:
        context.abort(status_of(exc), exc.message)


class Bridge:
    """From server threads into trio. Work belongs to its call: it ends when the client goes or the node stops."""

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._scopes: set[trio.CancelScope] = set()
        self._closed = False

    def run(self, context: grpc.ServicerContext, work: Callable[..., Awaitable[T]], *args: object) -> T:
        """`await work(*args)` in trio, from a server thread. Costs about 80 us, so not for every 64 KiB.

        Ends the call with CANCELLED when the client left or the node is stopping.
        """
        scope = trio.CancelScope()
        if not context.add_callback(lambda: self.post(scope.cancel)):
            scope.cancel()
        outcome: list[T] = []
        # Cancelled reaches a foreign thread when the whole run is torn down around the call.
        with suppress(trio.RunFinishedError, trio.Cancelled):
            trio.from_thread.run(self._within, scope, work, args, outcome, trio_token=self._token)
        if not outcome:
            context.abort(grpc.StatusCode.CANCELLED, "the client left or the node is stopping")
        return outcome[0]

    async def _within(
        self, scope: trio.CancelScope, work: Callable[..., Awaitable[T]], args: Sequence[object], outcome: list[T]
    ) -> None:
        if self._closed:
            return
        self._scopes.add(scope)
        try:
            with scope:
                outcome.append(await work(*args))
        finally:
            self._scopes.discard(scope)

    def post(self, work: Callable[[], object]) -> None:
        """Have `work()` run in the trio thread soon. From any thread; a no-op once the node has stopped."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(work)

    def close(self) -> None:
        """Cancel everything under way and refuse the rest. From the trio thread."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()


Handlers = Callable[[Bridge], Sequence[Any]]
"""Builds the `grpc.GenericRpcHandler`s of a service around the bridge."""


@asynccontextmanager
async def serve(path: Path, handlers: Handlers, *, threads: int = THREADS) -> AsyncIterator[Bridge]:
    """A gRPC server on the unix socket `path`, mode 0660, answering as long as the block runs.

    A socket that nobody listens on is replaced. Raises `Unavailable` when another process serves there,
    `InvalidArgument` when `path` is too long or something else than a socket lies there.
    """
    await trio.to_thread.run_sync(_clear, path)
    bridge = Bridge(trio.lowlevel.current_trio_token())
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ipcs-rpc")
    server = grpc.server(
        pool,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
        ],
    )
    server.add_generic_rpc_handlers(tuple(handlers(bridge)))
    _bind(server, path)
    server.start()
    try:
        yield bridge
    finally:
        with trio.CancelScope(shield=True):  # bounded by the waits in it
            stopped: threading.Event = server.stop(STOP_GRACE)
            await trio.to_thread.run_sync(stopped.wait, STOP_GRACE + 0.1)
            bridge.close()
            await trio.to_thread.run_sync(stopped.wait, STOP_LIMIT)
        pool.shutdown(wait=False, cancel_futures=True)


def _bind(server: grpc.Server, path: Path) -> None:
    mask = os.umask(SOCKET_UMASK)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as exc:
        raise errors.InvalidArgument(
            f"cannot listen on {path}: {exc}; check that its directory exists and may be written", subject=str(path)
        ) from exc
    finally:
        os.umask(mask)


def _clear(path: Path) -> None:
    """Make room for a socket at `path`, or say why there is none."""
    if len(os.fsencode(path)) > _SUN_PATH:
        raise errors.InvalidArgument(
            f"socket path {path} is longer than {_SUN_PATH} bytes; choose a shorter one", subject=str(path)
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise errors.InvalidArgument(
            f"cannot make the socket {path}: its directory does not exist or may not be written", subject=str(path)
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise errors.InvalidArgument(
            f"{path} exists and is not a socket; remove it or choose another", subject=str(path)
        )
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except PermissionError as exc:
            raise errors.InvalidArgument(f"{path} belongs to another user: {exc}", subject=str(path)) from exc
    raise errors.Unavailable(f"another process serves on {path}; stop it or choose another socket", subject=str(path))
