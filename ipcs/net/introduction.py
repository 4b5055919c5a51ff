"""Identify and ping, spoken: asking peers who they are, telling them who we are, and telling again after a change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import trio

from ..cid import PeerId
from ..errors import IpcsError, RemoteProtocolError
from . import identify
from .address import WILDCARDS, TcpAddress
from .connections import Connections
from .interface import Stream
from .keys import Identity, peer_id_of
from .muxer import NEGOTIATE_TIMEOUT, Muxer
from .stock import Multiaddr

log = logging.getLogger(__name__)

PING_ID = "/ipfs/ping/1.0.0"


@dataclass
class Known:
    """What a connected peer has told about itself."""

    agent: str = ""
    protocols: tuple[str, ...] = ()
    listen_addresses: tuple[str, ...] = ()
    done: trio.Event = field(default_factory=trio.Event)
    """Set when the exchange is over, however it went."""


class Introduction:
    """Knows the connected peers by what they say. Meets `interface.Watcher`."""

    def __init__(
        self,
        identity: Identity,
        agent: str,
        connections: Connections,
        nursery: trio.Nursery,
        *,
        protocols: Callable[[], list[str]],
        listening: Callable[[], list[TcpAddress]],
    ) -> None:
        self._identity = identity
        self._agent = agent
        self._connections = connections
        self._nursery = nursery
        self._protocols = protocols
        self._listening = listening
        self._known: dict[PeerId, Known] = {}
        self._announced: list[str] = []

    def known(self, peer: PeerId) -> Known:
        """What is known of `peer`; nothing, while it is not connected."""
        return self._known.get(peer) or Known()

    def connected(self, peer: PeerId) -> None:
        """A peer came: ask it."""
        self._known[peer] = Known()
        self._nursery.start_soon(self._ask, peer)

    def disconnected(self, peer: PeerId) -> None:
        """A peer is gone."""
        known = self._known.pop(peer, None)
        if known is not None:
            known.done.set()

    def announce(self) -> None:
        """Our protocols changed: tell those who may have asked before (identify push)."""
        for peer in self._connections.peers:
            self._nursery.start_soon(self._push, peer)

    async def serve_identify(self, stream: Stream) -> None:
        """A peer asks who we are."""
        await stream.write([self._description(stream.peer)])

    async def serve_push(self, stream: Stream) -> None:
        """A peer tells what changed."""
        self._learn(stream.peer, await _read_all(stream, identify.MAX_BYTES))

    async def serve_ping(self, stream: Stream) -> None:
        """Echo, 32 bytes at a time (libp2p/specs ping/ping.md)."""
        while data := await stream.read(32):
            await stream.write([data])

    async def _ask(self, peer: PeerId) -> None:
        known = self._known.get(peer)
        try:
            with trio.fail_after(2 * NEGOTIATE_TIMEOUT):
                stream = await self._connection(peer).open_stream([identify.ID])
                self._learn(peer, await _read_all(stream, identify.MAX_BYTES))
                await stream.aclose()
        except (trio.TooSlowError, IpcsError) as exc:
            log.info("identify with %s failed: %s", peer, exc)
        finally:
            if known is not None:
                known.done.set()

    async def _push(self, peer: PeerId) -> None:
        try:
            stream = await self._connection(peer).open_stream([identify.PUSH_ID])
            await stream.write([self._description(peer)])
            await stream.aclose()
        except IpcsError as exc:
            log.debug("identify push to %s failed: %s", peer, exc)

    def _connection(self, peer: PeerId) -> Muxer:
        connections = self._connections.of(peer)
        if not connections:
            raise RemoteProtocolError(f"{peer} has left", subject=peer)
        return connections[0]

    def _learn(self, peer: PeerId, data: bytes) -> None:
        message = identify.decode(data)
        if message.public_key and peer_id_of(message.public_key) != peer:
            raise RemoteProtocolError(f"identify: {peer} shows the key of another peer", subject=peer)
        known = self._known.get(peer)
        if known is not None:
            known.agent = message.agent or known.agent
            known.protocols = message.protocols or known.protocols
            known.listen_addresses = tuple(_texts(message.listen_addresses)) or known.listen_addresses

    def _description(self, peer: PeerId) -> bytes:
        connections = self._connections.of(peer)
        remote = connections[0].remote if connections else None
        local = connections[0].local if connections else None
        return identify.encode(
            identify.Identify(
                agent=self._agent,
                protocol_version=identify.PROTOCOL_VERSION,
                protocols=tuple(self._protocols()),
                listen_addresses=tuple(_binary(_seen_from(local, address)) for address in self._listening()),
                observed_address=_binary(remote) if remote else b"",
                public_key=self._identity.public_key.to_protobuf(),
            )
        )


def _seen_from(local: TcpAddress | None, listening: TcpAddress) -> TcpAddress:
    """A wildcard means nothing to a peer; the address it reached us at does."""
    if listening.host in WILDCARDS and local is not None:
        return TcpAddress(local.kind, local.host, listening.port)
    return listening


def _binary(address: TcpAddress) -> bytes:
    return bytes(Multiaddr(str(address)).to_bytes())


def _texts(addresses: Sequence[bytes]) -> Iterator[str]:
    for address in addresses:
        try:
            yield str(Multiaddr(address))
        except ValueError:  # of a kind that we do not know; nobody dials it
            continue


async def _read_all(stream: Stream, limit: int) -> bytes:
    """Everything up to the peer's end. Raises `RemoteProtocolError` past `limit` bytes."""
    data = bytearray()
    while chunk := await stream.read(limit + 1 - len(data)):
        data += chunk
        if len(data) > limit:
            raise RemoteProtocolError(f"{stream.peer} sent more than {limit} bytes on {stream.protocol}")
    return bytes(data)
