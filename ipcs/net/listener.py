"""Accepting TCP connections, with bounds on those who have not yet proven who they are.

It stands in for py-libp2p's listener, which binds with SO_REUSEPORT (a second node on the same port would quietly take
half of the connections) and runs as a system task, and for the swarm's accept handler, which keeps a slot of its limit
for every connection that it ever accepted.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from ..errors import InvalidArgument
from .address import TcpAddress
from .muxer import Muxer
from .stock import IListener, Multiaddr

log = logging.getLogger(__name__)

BACKLOG = 256
"""Connections the kernel keeps for us: a swarm that restarts comes all at once."""

MAX_HANDSHAKES = 256
"""Connections whose handshake is under way. One costs a task and some kilobytes until its time is up."""

MAX_HANDSHAKES_PER_HOST = 64
"""Of those from one IP address, so that a single host cannot keep all others out."""

Accept = Callable[[trio.SocketStream], Awaitable[Muxer | None]]
"""Secures an accepted connection: the connection when it is up, None when it failed."""


class Listener(IListener):  # type: ignore[misc]
    """The listening sockets of a host."""

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self.addresses: list[TcpAddress] = []
        """Where it listens; wildcards as they were given."""
        self._scopes: list[trio.CancelScope] = []
        self._handshakes: Counter[str] = Counter()
        self.refused = 0
        """Connections closed for `MAX_HANDSHAKES` or `MAX_HANDSHAKES_PER_HOST`."""

    @property
    def handshakes(self) -> int:
        """Connections whose handshake is under way."""
        return self._handshakes.total()

    async def bind(self, address: TcpAddress, nursery: trio.Nursery) -> None:
        """Listen on `address` until `nursery` ends. Raises `InvalidArgument`, naming it, when that cannot be."""
        family = trio.socket.AF_INET6 if address.kind == "ip6" else trio.socket.AF_INET
        socket = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            await socket.bind((address.host, address.port))
            socket.listen(BACKLOG)
        except OSError as exc:
            socket.close()
            raise InvalidArgument(f"cannot listen on {address}: {_why(exc)}", subject=str(address)) from exc
        self.addresses.append(TcpAddress.of_socket(socket.getsockname()))
        nursery.start_soon(self._serve, trio.SocketListener(socket), nursery)

    async def _serve(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        with trio.CancelScope() as scope:
            self._scopes.append(scope)
            await trio.serve_listeners(self._handle, [listener], handler_nursery=nursery)

    async def _handle(self, stream: trio.SocketStream) -> None:
        try:
            host = str(stream.socket.getpeername()[0])
        except OSError:  # it has left already
            await stream.aclose()
            return
        if self.handshakes >= MAX_HANDSHAKES or self._handshakes[host] >= MAX_HANDSHAKES_PER_HOST:
            self.refused += 1
            log.info("connection of %s refused: too many handshakes under way", host)
            await stream.aclose()
            return
        self._handshakes[host] += 1
        try:
            connection = await self._accept(stream)
        finally:
            self._handshakes[host] -= 1
            if not self._handshakes[host]:
                del self._handshakes[host]
        if connection is not None:
            await connection.wait_closed()  # trio closes the stream when this returns

    async def close(self) -> None:
        """Stop accepting; connections go on."""
        for scope in self._scopes:
            scope.cancel()
        await trio.lowlevel.checkpoint()

    async def listen(self, maddr: Multiaddr) -> None:
        """py-libp2p's call; the host calls `bind` instead."""
        raise NotImplementedError(f"listen on {maddr} with open_host")

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """For py-libp2p."""
        return tuple(Multiaddr(str(address)) for address in self.addresses)


def _why(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return "the port is in use; is another node running?"
    if exc.errno == errno.EADDRNOTAVAIL:
        return "not an address of this machine"
    return exc.strerror or str(exc)
