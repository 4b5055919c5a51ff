"""Hosts and sinks for tests of the network and of what stands on it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from ..cid import PeerId
from ..errors import RemoteProtocolError
from ..net.host import Host, HostConfig, open_host
from ..net.keys import Identity
from ..net.yamux_frames import Limits


def identity(name: str) -> Identity:
    """The same identity for the same name, in every run."""
    return Identity(hashlib.sha256(name.encode()).digest())


@asynccontextmanager
async def host(
    name: str,
    *,
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    security: Sequence[str] = ("noise", "tls"),
    limits: Limits | None = None,
) -> AsyncIterator[Host]:
    """A host on loopback with the identity of `name`."""
    config = HostConfig(identity(name), listen=listen, security=security, limits=limits or Limits())
    async with open_host(config) as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; for facts that no event tells. Bound it with `trio.fail_after`."""
    while not condition():  # noqa: ASYNC110 - see above
        await trio.sleep(0.002)


class RecordingSink:
    """A `StreamSink` that keeps what it gets."""

    def __init__(self, inbound: RecordingInbound, peer: PeerId, protocol: str) -> None:
        self.peer = peer
        self.protocol = protocol
        self.data = bytearray()
        self.end = ""
        self._inbound = inbound

    def feed(self, chunk: memoryview) -> None:
        """Keep it; fail when the inbound says that this is the chunk to fail on."""
        self.data += chunk
        self._inbound.changed()
        if self._inbound.poison and self._inbound.poison in self.data:
            raise self._inbound.error

    def eof(self) -> None:
        """The regular end."""
        self.end = "eof"
        self._inbound.changed()

    def reset(self) -> None:
        """The abrupt end."""
        self.end = "reset"
        self._inbound.changed()


class RecordingInbound:
    """An `Inbound` that records everything and can be told to refuse, to fail and to hold readers back."""

    def __init__(self) -> None:
        self.log: list[tuple[str, PeerId]] = []
        self.sinks: list[RecordingSink] = []
        self.flushes = 0
        self.refuse = False
        self.poison = b""
        """A sink that has received these bytes raises `error`."""
        self.error: Exception = RemoteProtocolError("poisoned")
        self.open_gate = trio.Event()
        """`flush` waits for it."""
        self.open_gate.set()
        self._changed = trio.Event()

    def connected(self, peer: PeerId) -> None:
        """Record it."""
        self.log.append(("connected", peer))
        self.changed()

    def disconnected(self, peer: PeerId) -> None:
        """Record it."""
        self.log.append(("disconnected", peer))
        self.changed()

    def accept(self, peer: PeerId, protocol: str) -> RecordingSink | None:
        """A new sink, or None while `refuse` is set."""
        if self.refuse:
            return None
        sink = RecordingSink(self, peer, protocol)
        self.sinks.append(sink)
        self.changed()
        return sink

    async def flush(self, _peer: PeerId) -> None:
        """Wait for the gate."""
        self.flushes += 1
        await self.open_gate.wait()

    def changed(self) -> None:
        """Wake who waits in `until`."""
        self._changed.set()
        self._changed = trio.Event()

    async def ended(self, count: int = 1) -> None:
        """Wait until `count` sinks have ended."""
        while sum(bool(sink.end) for sink in self.sinks) < count:
            await self._changed.wait()

    async def received(self, count: int) -> None:
        """Wait until all sinks together hold `count` bytes."""
        while sum(len(sink.data) for sink in self.sinks) < count:
            await self._changed.wait()

    async def logged(self, event: str, peer: PeerId) -> None:
        """Wait until `event` of `peer` is in the log."""
        while (event, peer) not in self.log:
            await self._changed.wait()
