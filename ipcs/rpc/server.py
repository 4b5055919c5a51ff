"""The gRPC server on the node's unix socket.

`content` and `control` hand their methods to `serve`; both run on one socket, because containerd is told one address
and an operator should need only one. Handlers run in the server's own threads. What is local is answered there; what
must wait for the network enters trio through `Bridge.run`, and the client's cancellation follows it.

The protocol has no authentication: the mode of the socket is the only guard.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from .. import errors
from .bridge import Bridge
from .call import Methods
from .connection import Connection

log = logging.getLogger(__name__)

THREADS = 128
"""Handlers that run at once. A waiting Read holds a thread, so there must be more threads than waiting Reads."""

SOCKET_UMASK = 0o117
"""Leaves mode 0660: owner and group may connect, nobody else."""

STOP_GRACE = 1.0
"""Seconds that calls in flight get to end by themselves when the server stops."""

STOP_LIMIT = 5.0
"""Seconds after which a server that has not stopped is left to the end of the process."""

MAX_CONNECTIONS = 256
"""Clients at once, a thread each: containerd is one, every command of `ipcs` another."""

BACKLOG = 128
"""Connections that wait to be taken."""

ACCEPT_PAUSE = 0.1
"""Seconds until the next try when no file descriptor is free."""

_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EINTR}

_SUN_PATH = 107
"""Bytes that fit in a unix socket address (unix(7)), less the final NUL."""

Handlers = Callable[[Bridge], Methods]
"""Builds the methods of a service around the bridge."""


@asynccontextmanager
async def serve(path: Path, handlers: Handlers, *, threads: int = THREADS) -> AsyncIterator[Bridge]:
    """A gRPC server on the unix socket `path`, mode 0660, answering as long as the block runs.

    A socket that nobody listens on is replaced. Raises `Unavailable` when another process serves there,
    `InvalidArgument` when `path` is too long or something else than a socket lies there.
    """
    await trio.to_thread.run_sync(_clear, path)
    bridge = Bridge(trio.lowlevel.current_trio_token())
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ipcs-rpc")
    listener = _Listener(_bind(path), path, handlers(bridge), pool)
    try:
        yield bridge
    finally:
        with trio.CancelScope(shield=True):  # bounded by the waits in it
            await trio.to_thread.run_sync(listener.leave)
            bridge.close()
            await trio.to_thread.run_sync(listener.close)
            # What handlers clean up, as an open ingest, needs what the caller closes next.
            with trio.move_on_after(STOP_LIMIT):
                await trio.to_thread.run_sync(  # type: ignore[call-arg]  # trio-typing lags behind trio
                    partial(pool.shutdown, cancel_futures=True), abandon_on_cancel=True
                )


class _Listener:
    """Takes connections in a thread of its own."""

    def __init__(self, sock: socket.socket, path: Path, methods: Methods, pool: ThreadPoolExecutor) -> None:
        self._socket = sock
        self._path = path
        self._methods = methods
        self._pool = pool
        self._lock = threading.Lock()
        self._connections: list[Connection] = []
        self._thread = threading.Thread(target=self._accept, name="ipcs-rpc-listener", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError as exc:
                if exc.errno not in _TRANSIENT:
                    return  # shut down
                log.warning("gRPC: no connection could be taken: %s", exc)
                time.sleep(ACCEPT_PAUSE)
                continue
            with self._lock:
                self._connections = [one for one in self._connections if one.thread.is_alive()]
                if len(self._connections) >= MAX_CONNECTIONS:
                    log.warning("gRPC: more than %d connections; one is turned away", MAX_CONNECTIONS)
                    sock.close()
                    continue
                connection = Connection(sock, self._methods, self._pool)
                self._connections.append(connection)
                connection.thread.start()

    def leave(self) -> None:
        """Take no more connections and calls; those under way get `STOP_GRACE` to end by themselves."""
        self._socket.shutdown(socket.SHUT_RDWR)  # ends accept
        self._thread.join(STOP_LIMIT)
        self._socket.close()
        with suppress(FileNotFoundError):
            self._path.unlink()
        end = time.monotonic() + STOP_GRACE
        for connection in self._connections:
            connection.leave()
        for connection in self._connections:
            connection.wait_idle(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """Cancel what is left, and wait for the threads, at most `STOP_LIMIT` seconds."""
        end = time.monotonic() + STOP_LIMIT
        for connection in self._connections:
            connection.close()
        for connection in self._connections:
            connection.thread.join(max(0.0, end - time.monotonic()))


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(SOCKET_UMASK)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise errors.InvalidArgument(
            f"cannot listen on {path}: {exc}; check that its directory exists and may be written", subject=str(path)
        ) from exc
    finally:
        os.umask(mask)
    return listener


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
