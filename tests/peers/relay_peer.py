"""A TCP relay that adds delay, for the benchmark over real links: JSON lines, as README.md beside this says.

`relay` with `listen` (an IPv4 address), `target` ("host:port"), `delay` (seconds, each direction) and `buffer` (bytes
held for each direction) returns the port on which it accepts. Bytes are passed on in order, each `delay` after it came.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio
from lines import serve

READ_SIZE = 262144

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class DelayLine:
    """Bytes on their way in one direction: at most `buffer` of them."""

    def __init__(self, delay: float, buffer: int) -> None:
        self._delay = delay
        self._buffer = buffer
        self._held: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._changed = trio.Event()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def fill(self, source: trio.SocketStream) -> None:
        """Take in what `source` sends, until its end, which is passed on as an empty chunk."""
        chunk = b"?"
        while chunk:
            while self._size > self._buffer:
                await self._changed.wait()
            try:
                chunk = await source.receive_some(READ_SIZE)
            except BROKEN:
                chunk = b""
            self._held.append((trio.current_time() + self._delay, chunk))
            self._size += len(chunk)
            self._wake()

    async def drain(self, sink: trio.SocketStream) -> None:
        while True:
            while not self._held:
                await self._changed.wait()
            due, chunk = self._held.popleft()
            await trio.sleep_until(due)
            try:
                if not chunk:
                    return await sink.send_eof()
                await sink.send_all(chunk)
            except BROKEN:
                return None
            self._size -= len(chunk)
            self._wake()


async def main() -> None:
    async with trio.open_nursery() as nursery:

        async def relay(listen: str, target: str, delay: float, buffer: int) -> dict[str, Any]:
            host, port = target.split(":")

            async def join(inbound: trio.SocketStream) -> None:
                outbound = await trio.open_tcp_stream(host, int(port))
                async with outbound, trio.open_nursery() as pumps:
                    for source, sink in ((inbound, outbound), (outbound, inbound)):
                        line = DelayLine(delay, buffer)
                        pumps.start_soon(line.fill, source)
                        pumps.start_soon(line.drain, sink)

            (listener,) = await trio.open_tcp_listeners(0, host=listen)
            nursery.start_soon(trio.serve_listeners, join, [listener])
            return {"port": listener.socket.getsockname()[1]}

        await serve("relay", [], {"relay": relay}, (OSError,))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
