"""What the network gives and asks for: the protocols that `ipcs.bitswap.network` demands, by shape, and duplex streams.

`ipcs.net` and `ipcs.bitswap` do not import each other; a test holds the two descriptions together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..block import Data
from ..cid import PeerId

BITSWAP_PROTOCOLS = ("/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0", "/ipfs/bitswap/1.0.0", "/ipfs/bitswap")
"""Ids of Bitswap, newest first (boxo bsnet `NewFromIpfsHost`)."""


class StreamSink(Protocol):
    """Receives the bytes of one inbound stream. No call blocks or awaits."""

    def feed(self, chunk: memoryview) -> None:
        """Bytes in order, valid during the call only. Raises `IpcsError` to have the stream reset."""
        ...

    def eof(self) -> None:
        """The peer closed its side."""
        ...

    def reset(self) -> None:
        """The stream or its connection ended abruptly."""
        ...


class Watcher(Protocol):
    """Hears of connection changes. No call blocks or awaits."""

    def connected(self, peer: PeerId) -> None:
        """The first connection to `peer` is up."""
        ...

    def disconnected(self, peer: PeerId) -> None:
        """The last connection to `peer` is gone."""
        ...


class Inbound(Watcher, Protocol):
    """The consumer of pushed streams (the Bitswap exchange)."""

    def accept(self, peer: PeerId, protocol: str) -> StreamSink | None:
        """A peer opened a stream; None refuses it."""
        ...

    async def flush(self, peer: PeerId) -> None:
        """Awaited after each batch of `feed`s: the back-pressure."""
        ...


class OutStream(Protocol):
    """One stream that we opened for writing; never read from."""

    @property
    def protocol(self) -> str:
        """The id that was negotiated."""
        ...

    async def write(self, parts: Sequence[Data]) -> None:
        """Send all `parts` in order, uncut by cancellation.

        Raises `RemoteProtocolError` when the stream or its connection is gone.
        """
        ...

    async def aclose(self) -> None:
        """Close our side. Never raises for a dead peer."""
        ...

    def reset(self) -> None:
        """Abandon the stream at once."""
        ...


class Stream(OutStream, Protocol):
    """A stream in both directions, for request and response protocols."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        ...

    async def read(self, max_bytes: int) -> bytes:
        """1 to `max_bytes` bytes, or `b""` at the peer's regular end.

        Raises `RemoteProtocolError` when the stream or its connection ended abruptly.
        """
        ...


Handler = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream. When it returns, our side is closed; when it raises, the stream is reset."""


@dataclass(frozen=True)
class PeerStatus:
    """A connected peer, as far as it is known."""

    peer: PeerId
    addresses: tuple[str, ...]
    """Multiaddrs of the live connections, remote side."""
    listen_addresses: tuple[str, ...] = ()
    """Where the peer says that it listens (identify); unverified."""
    agent: str = ""
    """Software and version, as the peer tells it; empty until identify has run."""
    protocols: tuple[str, ...] = ()
    """Protocol ids that the peer serves; empty until identify has run."""
    connections: int = 1
    inbound: bool = False
    """Whether the oldest live connection was opened by the peer."""
    security: str = ""
    """Protocol id of the secure channel (`/noise`, `/tls/1.0.0`)."""
    round_trip: float | None = None
    """Seconds, as of the last ping of the oldest connection."""
