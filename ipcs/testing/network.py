"""A network in memory: latency, bandwidth, loss, reordering, partitions, frozen peers. Seeded; time is trio's clock.

Under `trio.testing.MockClock(autojump_threshold=0)` hours pass in milliseconds and a run is a function of its seed.
What is modelled is what a stream over TCP shows to Bitswap: each node has an uplink and a downlink shared by its
streams in frames of `FRAME` bytes, each link a latency; a lost frame arrives a retransmission later and holds back
what follows in its stream; streams overtake one another. Not modelled: congestion control, CPU, yamux windows smaller
than `WINDOW`.

    network = MemoryNetwork(nursery, seed=1)
    a, b = network.add("a", up=125e6, down=125e6), network.add("b")
    network.connect("a", "b", latency=0.005)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

import trio

from ipcs.bitswap.network import PROTOCOLS, Inbound, StreamSink
from ipcs.block import Data
from ipcs.cid import PeerId
from ipcs.errors import NotFound, RemoteProtocolError

T = TypeVar("T")

FRAME = 256 * 1024
"""Bytes that hold a link at a time."""

WINDOW = 16 * 1024 * 1024
"""Bytes of one stream that may be under way or unread before its writer waits (go-yamux's largest window)."""

_RETRANSMISSION = 0.2
"""Seconds by which a lost frame is late (Linux's least retransmission timeout)."""


@dataclass
class Link:
    """Between two nodes, both ways. `latency` one way in seconds, `jitter` at most that much more, `loss` per frame."""

    latency: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    healthy: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.healthy.set()


class MemoryHost:
    """One node: meets `ipcs.bitswap.network.Network`. `up` and `down` in bytes a second."""

    def __init__(self, network: MemoryNetwork, peer: PeerId, up: float, down: float) -> None:
        self.peer = peer
        self.up = up
        self.down = down
        self.protocols: Sequence[str] = PROTOCOLS
        self.running = trio.Event()
        self.running.set()
        self.links: dict[PeerId, Link] = {}
        self.streams: list[_Stream] = []
        self.bytes_sent = 0
        self.inbound: Inbound | None = None
        self._network = network
        self._up_free = self._down_free = 0.0

    def attach(self, inbound: Inbound) -> None:
        """Deliver to `inbound` from now on."""
        self.inbound = inbound
        for peer in self.links:
            inbound.connected(peer)

    async def open_stream(self, peer: PeerId, protocols: Sequence[str] = PROTOCOLS) -> _Stream:
        """A stream to `peer` under the first of `protocols` that it speaks."""
        await trio.lowlevel.checkpoint()
        if peer not in self.links:
            raise NotFound(f"{peer} is not connected", subject=peer)
        remote = self._network.hosts[peer]
        protocol = next((name for name in protocols if name in remote.protocols), None)
        sink = None if protocol is None or remote.inbound is None else remote.inbound.accept(self.peer, protocol)
        if protocol is None or sink is None:
            raise RemoteProtocolError(f"{peer} accepts no bitswap stream", subject=peer)
        return self._network.start_stream(self, remote, protocol, sink)

    async def disconnect(self, peer: PeerId, reason: str) -> None:  # noqa: ARG002 - for logs of real networks
        """Close the connection to `peer`."""
        await trio.lowlevel.checkpoint()
        self._network.disconnect(self.peer, peer)

    def freeze(self) -> None:
        """Stop like SIGSTOP: connections stay, nothing is read or sent until `thaw`."""
        self.running = trio.Event()

    def thaw(self) -> None:
        """Go on."""
        self.running.set()

    def occupy(self, size: int, to: MemoryHost, link: Link, rng: random.Random) -> tuple[float, float]:
        """Send `size` bytes now: (when they have left this node, when they are at the other)."""
        now = trio.current_time()
        start = max(now, self._up_free)
        self._up_free = left = start + size / self.up
        self.bytes_sent += size
        delay = link.latency + link.jitter * rng.random()
        if link.loss and rng.random() < link.loss:
            delay += max(_RETRANSMISSION, 2 * link.latency)
        to._down_free = max(to._down_free, start + delay) + size / to.down
        return left, max(left + delay, to._down_free)


class _Stream:
    """A stream from `sender` to `receiver`; the sender's end meets `OutStream`."""

    def __init__(self, sender: MemoryHost, receiver: MemoryHost, protocol: str, sink: StreamSink, seed: float) -> None:
        self.protocol = protocol
        self.sender = sender
        self.receiver = receiver
        self.dead = False
        self._sink = sink
        self._link = sender.links[receiver.peer]
        self._rng = random.Random(seed)
        self._arrival = 0.0
        self._unread = 0
        self._read = trio.Event()
        self._died = trio.Event()
        self._send, self._receive = trio.open_memory_channel[tuple[float, memoryview | None]](inf)

    async def write(self, parts: Sequence[Data]) -> None:
        """Send `parts`; returns when they have left this node."""
        for part in parts:
            view = memoryview(part)
            for at in range(0, len(view), FRAME):
                await self._write_frame(view[at : at + FRAME])

    async def _write_frame(self, frame: memoryview) -> None:
        while not self.dead and (self._unread > WINDOW or not self.sender.running.is_set()):
            await self._either(self.sender.running if self._unread <= WINDOW else self._read)
        if self.dead:
            raise RemoteProtocolError(f"the stream to {self.receiver.peer} is gone", subject=self.receiver.peer)
        left, arrival = self.sender.occupy(len(frame), self.receiver, self._link, self._rng)
        self._arrival = max(arrival, self._arrival)
        self._unread += len(frame)
        self._send.send_nowait((self._arrival, frame))
        await trio.sleep_until(left)

    async def _either(self, event: trio.Event) -> None:
        """Wait for `event` or the end of the stream."""
        async with trio.open_nursery() as nursery:

            async def wait(awaited: trio.Event) -> None:
                await awaited.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, event)
            nursery.start_soon(wait, self._died)

    async def aclose(self) -> None:
        """End our side."""
        await trio.lowlevel.checkpoint()
        if not self.dead:
            self._send.send_nowait((self._arrival, None))

    def reset(self) -> None:
        """Abandon the stream, both ways."""
        if not self.dead:
            self.dead = True
            self._died.set()
            self._send.close()
            self._sink.reset()
            self.sender.streams.remove(self)
            self.receiver.streams.remove(self)

    async def deliver(self) -> None:
        """Push frames into the sink as they arrive; the network runs this."""
        async for arrival, frame in self._receive:
            await trio.sleep_until(arrival)
            await self._link.healthy.wait()
            await self.receiver.running.wait()
            await self._push(frame)

    async def _push(self, frame: memoryview | None) -> None:
        if self.dead:
            return
        try:
            if frame is None:
                self._sink.eof()
                self.reset()
                return
            self._sink.feed(frame)
        except RemoteProtocolError:
            self.reset()
            return
        self._unread -= len(frame)
        self._read.set()
        self._read = trio.Event()
        if self.receiver.inbound is not None:
            await self.receiver.inbound.flush(self.sender.peer)


async def run_inline(work: Callable[[], T]) -> T:
    """`Exchange(run_sync=...)` for a fake clock: a thread's time does not pass on it."""
    result = work()
    await trio.lowlevel.checkpoint()
    return result


class MemoryNetwork:
    """All hosts. Streams are tasks of `nursery`."""

    def __init__(self, nursery: trio.Nursery, seed: int) -> None:
        self.hosts: dict[PeerId, MemoryHost] = {}
        self._nursery = nursery
        self._rng = random.Random(seed)

    def add(self, name: str, *, up: float = inf, down: float = inf) -> MemoryHost:
        """A new host. Rates in bytes a second."""
        peer = PeerId(name)
        host = self.hosts[peer] = MemoryHost(self, peer, up, down)
        return host

    def connect(self, a: str, b: str, *, latency: float = 0.0, jitter: float = 0.0, loss: float = 0.0) -> Link:
        """Connect two hosts."""
        left, right = self.hosts[PeerId(a)], self.hosts[PeerId(b)]
        link = left.links[right.peer] = right.links[left.peer] = Link(latency, jitter, loss)
        for host, other in ((left, right), (right, left)):
            if host.inbound is not None:
                host.inbound.connected(other.peer)
        return link

    def disconnect(self, a: str, b: str) -> None:
        """End the connection of two hosts, and its streams."""
        left, right = self.hosts[PeerId(a)], self.hosts[PeerId(b)]
        if right.peer not in left.links:
            return
        for stream in [s for s in left.streams if right in (s.sender, s.receiver)]:
            stream.reset()
        for host, other in ((left, right), (right, left)):
            host.links.pop(other.peer, None)
            if host.inbound is not None:
                host.inbound.disconnected(other.peer)

    def partition(self, group: Sequence[str]) -> None:
        """Nothing passes between `group` and the rest, until `heal`; connections do not notice, as under TCP."""
        for name in group:
            for peer, link in self.hosts[PeerId(name)].links.items():
                if peer not in group:
                    link.healthy = trio.Event()

    def heal(self) -> None:
        """End all partitions; what was under way arrives."""
        for host in self.hosts.values():
            for link in host.links.values():
                link.healthy.set()

    def start_stream(self, sender: MemoryHost, receiver: MemoryHost, protocol: str, sink: StreamSink) -> _Stream:
        """A running stream."""
        stream = _Stream(sender, receiver, protocol, sink, self._rng.random())
        sender.streams.append(stream)
        receiver.streams.append(stream)
        self._nursery.start_soon(stream.deliver)
        return stream
