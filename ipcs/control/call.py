"""One running call of the control service, as a method sees it from the trio side."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import outcome
import trio

from ..block import Data
from ..errors import DeadlineExceeded, InvalidArgument
from .frames import Frame
from .parts import NodeParts

OUTBOX = 4
"""Frames that may wait for a slow client (of at most 1 MiB each) before the method waits too."""


class Call:
    """What a method may do besides returning its result: read uploads, send items, progress and content."""

    def __init__(self, uploads: Iterator[Frame]) -> None:
        self._uploads = uploads
        self._scope = trio.CancelScope()
        self._explain: Callable[[], str] = lambda: "the node did not finish in time"
        self._send, self._receive = trio.open_memory_channel[dict[str, Any] | Data | outcome.Error](OUTBOX)

    async def read(self) -> Frame | None:
        """The client's next frame after the parameters; None when it has no more."""
        # trio-typing, which py-libp2p pulls in, has stubs older than this parameter.
        return await trio.to_thread.run_sync(next, self._uploads, None, abandon_on_cancel=True)  # type: ignore[call-arg]

    async def read_data(self) -> memoryview | None:
        """The client's next chunk of content; None at the end. Raises `InvalidArgument` for anything else."""
        frame = await self.read()
        if isinstance(frame, dict):
            raise InvalidArgument("content was expected here, not a JSON document")
        return frame

    async def item(self, row: dict[str, Any]) -> None:
        """One row of a listing."""
        await self._send.send({"item": row})

    async def progress(self, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Something worth showing while the call runs, such as `done` and `total` in bytes."""
        await self._send.send({"progress": values})

    async def data(self, chunk: Data) -> None:
        """A chunk of content, at most 1 MiB."""
        await self._send.send(chunk)

    def explain_timeout(self, explain: Callable[[], str]) -> None:
        """What to ask, should the caller's timeout pass, for what the call was waiting for."""
        self._explain = explain

    async def run(self, method: Method, parts: NodeParts, params: dict[str, Any]) -> None:
        """Run `method` to its end and hand its result or its exception to the thread that serves the client."""
        with self._scope, self._send:
            end = await outcome.acapture(self._bounded, method, parts, params)
            await self._send.send({"result": end.value} if isinstance(end, outcome.Value) else end)

    async def _bounded(self, method: Method, parts: NodeParts, params: dict[str, Any]) -> dict[str, Any]:
        seconds = params.get("timeout", math.inf)
        if not isinstance(seconds, (int, float)) or seconds < 0:
            raise InvalidArgument("parameter 'timeout' must be a number of seconds")
        try:
            with trio.fail_after(seconds):
                return await method(parts, params, self)
        except trio.TooSlowError:
            raise DeadlineExceeded(f"timed out after {seconds:g} s: {self._explain()}") from None

    async def next_frame(self) -> dict[str, Any] | Data | None:
        """What the client gets next; None after the result. Raises what the method raised."""
        try:
            frame = await self._receive.receive()
        except trio.EndOfChannel:
            return None
        if isinstance(frame, outcome.Error):
            raise frame.error
        return frame

    def cancel(self) -> None:
        """End the method: nobody waits for it any more."""
        self._scope.cancel()


Method: TypeAlias = Callable[[NodeParts, dict[str, Any], Call], Awaitable[dict[str, Any]]]
"""A control method: (parts of the node, parameters, call) -> result. It raises `IpcsError`s."""


def text(params: dict[str, Any], name: str) -> str:
    """The required string parameter `name`. Raises `InvalidArgument` when it is missing or no string."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"parameter {name!r} must be a non-empty string")
    return value


def number(params: dict[str, Any], name: str, default: int) -> int:
    """The integer parameter `name` (>= 0). Raises `InvalidArgument` for anything else."""
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgument(f"parameter {name!r} must be a non-negative integer")
    return value
