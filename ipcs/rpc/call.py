"""One call as its handler sees it, and the methods that a service is made of."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


class CallCancelled(Exception):  # noqa: N818 - an event, not a mistake
    """The client left, or the node is stopping: nobody waits for the answer."""


class Call:
    """Made by the connection. Thread-safe."""

    def __init__(self, stream: int, method: Method) -> None:
        self.stream = stream
        self.method = method
        self.begun = False
        self.quick = method.quick
        """Of a duplex call: set by its handler, for messages that come while that waits for one."""
        self._requests: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
        self._is_waiting = False
        self._callbacks: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._cancelled = False

    def put(self, message: bytes | Exception | None) -> None:
        """What the handler gets next: a message, the failure of one that `answer` took, or None for the end."""
        with self._lock:
            self._is_waiting = False
            self._requests.put(message)

    def get(self) -> bytes | None:
        """For the handler's thread: the next message, None at the end. Raises what was put."""
        with self._lock:
            self._is_waiting = self._requests.empty()
        message = self._requests.get()
        if isinstance(message, Exception):
            raise message
        return message

    def answer(self, request: bytes) -> bytes | None:
        """The answer to a message of a call whose handler waits for it, without waking that; None if it must be.

        Raises what `quick` raises; the handler should be told.
        """
        with self._lock:
            if not self._is_waiting or self._cancelled or self.quick is None:
                return None
            return self.quick(request)

    def is_active(self) -> bool:
        """Whether the client still waits for the answer."""
        return not self._cancelled

    @contextmanager
    def on_cancel(self, callback: Callable[[], object]) -> Iterator[None]:
        """Have `callback` called, from any thread, when the call is cancelled within the block (or was before)."""
        with self._lock:
            late = self._cancelled
            self._callbacks.append(callback)
        try:
            if late:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    def cancel(self) -> None:
        """The client is gone. Idempotent."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            callbacks = list(self._callbacks)
        self.put(None)
        for callback in callbacks:
            callback()


Quick = Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Method:
    """How one method is served. Handlers run in a thread of their own and may wait; errors are raised as `IpcsError`.

    `quick` answers a request with its only message from the thread that reads the connection, for other calls wait
    behind it: within microseconds, or None for what may take longer, which `handler` gets then. A duplex call's
    handler may set one at its call (`Call.quick`).
    """

    handler: Callable[[Iterator[bytes], Call], Generator[bytes, None, None]]
    duplex: bool = False
    quick: Quick | None = None


Methods = Mapping[str, Method]
"""By path: `/package.Service/Method`."""


def unary(serve: Callable[[bytes, Call], bytes], quick: Quick | None = None) -> Method:
    """One request, one answer."""

    def handler(requests: Iterator[bytes], call: Call) -> Generator[bytes, None, None]:
        for request in requests:
            yield serve(request, call)

    return Method(handler, quick=quick)


def streaming(serve: Callable[[bytes, Call], Iterator[bytes]], quick: Quick | None = None) -> Method:
    """One request, many answers."""

    def handler(requests: Iterator[bytes], call: Call) -> Generator[bytes, None, None]:
        for request in requests:
            yield from serve(request, call)

    return Method(handler, quick=quick)


def duplex(serve: Callable[[Iterator[bytes], Call], Generator[bytes, None, None]]) -> Method:
    """Many requests, many answers."""
    return Method(serve, duplex=True)
