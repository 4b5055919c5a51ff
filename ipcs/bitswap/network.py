"""What the Bitswap exchange demands of a network. `ipcs.net` and `ipcs.testing.network` meet it by shape.

Inbound bytes are pushed, outbound bytes are awaited:

- For each stream that a peer opens under one of `PROTOCOLS` the network calls `Inbound.accept` once and pushes every
  chunk into the `StreamSink` it got, synchronously, from its read loop. After each batch of chunks it awaits
  `Inbound.flush(peer)`: that is the back-pressure, and the only place where a reader waits for the exchange.
- Replies never go out on an inbound stream: Kubo does not read from streams that it opened
  (boxo bitswap/network/bsnet/ipfs_impl.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..block import Data
from ..cid import PeerId

PROTOCOLS = ("/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0", "/ipfs/bitswap/1.0.0", "/ipfs/bitswap")
"""Ids of the protocol, newest first: the order in which they are offered (boxo bsnet `NewFromIpfsHost`)."""


class StreamSink(Protocol):
    """Receives the bytes of one inbound stream. No call blocks or awaits."""

    def feed(self, chunk: memoryview) -> None:
        """Bytes in order; the view is only valid during the call.

        Raises `RemoteProtocolError` to have the network reset this stream (the connection stays).
        """
        ...

    def eof(self) -> None:
        """The peer closed its side: the normal end. May raise `RemoteProtocolError` when a message is cut off."""
        ...

    def reset(self) -> None:
        """The stream or its connection ended abruptly."""
        ...


class Inbound(Protocol):
    """The exchange, as the network sees it."""

    def connected(self, peer: PeerId) -> None:
        """The first connection to `peer` is up (identify need not have run)."""
        ...

    def disconnected(self, peer: PeerId) -> None:
        """The last connection to `peer` is gone."""
        ...

    def accept(self, peer: PeerId, protocol: str) -> StreamSink | None:
        """A peer opened a stream. None refuses it (too many): the network resets it."""
        ...

    async def flush(self, peer: PeerId) -> None:
        """Called after each batch of `feed`s from `peer`; returns when the exchange can take more."""
        ...


class OutStream(Protocol):
    """One stream that we opened; never read from."""

    @property
    def protocol(self) -> str:
        """The id that was negotiated for this stream."""
        ...

    async def write(self, parts: Sequence[Data]) -> None:
        """Send all `parts` as one vectored write, shielded from cancellation once begun.

        Raises `RemoteProtocolError` when the stream or connection is gone.
        """
        ...

    async def aclose(self) -> None:
        """Close our side (EOF for the peer). Never raises for a dead peer."""
        ...

    def reset(self) -> None:
        """Abandon the stream at once."""
        ...


class Network(Protocol):
    """What the exchange calls."""

    def attach(self, inbound: Inbound) -> None:
        """Deliver inbound streams and connection changes to `inbound` from now on (connected peers are replayed)."""
        ...

    async def open_stream(self, peer: PeerId, protocols: Sequence[str] = PROTOCOLS) -> OutStream:
        """A new stream to a connected peer under the first of `protocols` that it speaks.

        Raises `NotFound` when not connected, `RemoteProtocolError` when negotiation fails or takes too long.
        """
        ...

    async def disconnect(self, peer: PeerId, reason: str) -> None:
        """Close all connections to `peer`."""
        ...
