"""Secure channels in memory, and muxers joined by them: a network without sockets, for tests under a fake clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from ..block import Data
from ..errors import RemoteProtocolError
from ..net.address import TcpAddress
from ..net.connections import Connections
from ..net.muxer import Muxer
from ..net.services import Services
from ..net.yamux_frames import Limits
from .net import identity


class MemoryChannel:
    """One end of a channel. Meets `ipcs.net.channel.Channel`."""

    def __init__(self, capacity: int) -> None:
        self.addresses: tuple[TcpAddress | None, TcpAddress | None] = (None, None)
        self.other: MemoryChannel = self
        self.frozen = False
        """Nothing that is sent arrives any more, and nobody is told: a partition."""
        self.closed = False
        self._capacity = capacity
        self._inbox = bytearray()
        self._broken = ""
        self._changed = trio.Event()

    async def receive(self) -> memoryview:
        """See `Channel`."""
        await trio.lowlevel.checkpoint()
        while not self._inbox and not self.other.closed and not self._broken:
            await self._changed.wait()
        if self._broken:
            raise RemoteProtocolError(self._broken)
        data = bytes(self._inbox)
        self._inbox.clear()
        self.other._signal()
        return memoryview(data)

    async def send(self, parts: Sequence[Data]) -> None:
        """See `Channel`. Waits while the other end holds `capacity` bytes unread."""
        await trio.lowlevel.checkpoint()
        for part in parts:
            while len(self.other._inbox) >= self._capacity:
                await self._changed.wait()
            if self._broken or self.other.closed:
                raise RemoteProtocolError("connection broke")
            if not self.frozen:
                self.other._inbox += part
                self.other._signal()

    async def aclose(self) -> None:
        """See `Channel`."""
        self.closed = True
        self.other._signal()
        await trio.lowlevel.checkpoint()

    def break_off(self, why: str = "connection reset by peer") -> None:
        """The connection ends abruptly, for both ends."""
        for end in (self, self.other):
            end._broken = why
            end._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def channel_pair(capacity: int = 1 << 20) -> tuple[MemoryChannel, MemoryChannel]:
    """Two joined ends; `capacity` in bytes is what either keeps for a reader."""
    left, right = MemoryChannel(capacity), MemoryChannel(capacity)
    left.other, right.other = right, left
    return left, right


class Side:
    """One muxer with its services and its channel."""

    def __init__(self, name: str, peer: str, channel: MemoryChannel, *, initiator: bool, limits: Limits | None) -> None:
        self.services = Services()
        self.connections = Connections(self.services)
        self.channel = channel
        self.name = name
        self.muxer = Muxer(
            channel,
            identity(peer).peer_id,
            initiator=initiator,
            services=self.services,
            owner=self.connections,
            limits=limits,
        )


@asynccontextmanager
async def muxer_pair(
    *, capacity: int = 1 << 20, limits: tuple[Limits | None, Limits | None] = (None, None)
) -> AsyncIterator[tuple[Side, Side]]:
    """Two running muxers, `a` having dialled `b`."""
    left, right = channel_pair(capacity)
    a = Side("a", "b", left, initiator=True, limits=limits[0])
    b = Side("b", "a", right, initiator=False, limits=limits[1])
    async with trio.open_nursery() as nursery:
        for side in (a, b):
            nursery.start_soon(side.muxer.run)
            await side.muxer.running.wait()
        yield a, b
        nursery.cancel_scope.cancel()
