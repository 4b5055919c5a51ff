"""The host of a node: listens, dials, knows its peers, and hands their streams to those who serve them.

py-libp2p's host and swarm are underneath, with our own Noise, yamux, listener and identify in their place (`upgrade`,
`listener`, `introduction`); `docs/network.md` lists what is replaced and why, with the test for each point.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..cid import PeerId
from ..errors import (
    DeadlineExceeded,
    InvalidArgument,
    IpcsError,
    NotFound,
    RemoteProtocolError,
    ResourceExhausted,
)
from . import identify
from .address import TcpAddress, parse, parse_with_peer
from .channel import Channel
from .connections import Connections
from .interface import BITSWAP_PROTOCOLS, Handler, Inbound, OutStream, PeerStatus, Stream, Watcher
from .introduction import PING_ID, Introduction
from .keys import Identity
from .listener import Listener
from .muxer import Muxer
from .services import Services
from .stock import ID, BaseLibp2pError, BasicHost, RawConnection, TrioTCPStream
from .stock_host import new_stock_host
from .upgrade import StockMuxer
from .yamux_frames import Limits

log = logging.getLogger(__name__)

DIAL_TIMEOUT = 10.0
"""Seconds for TCP connect, secure channel and muxer together (go-libp2p: 5 s a dial, 60 s in all)."""

MAX_CONNECTIONS = 512
"""Connections in all. An idle one costs about 1.5 MB of buffers, a busy one up to the budgets of `yamux_frames`."""

CLOSE_TIMEOUT = 1.0
"""Seconds that closing all connections may take at shutdown."""

_HANDSHAKE_ERRORS = (IpcsError, BaseLibp2pError, OSError, ValueError, RuntimeError, trio.BrokenResourceError)
"""What comes out of py-libp2p when a peer fails to connect; `ValueError` and `RuntimeError` are its TLS."""


@dataclass(frozen=True)
class HostConfig:
    """How to open a host."""

    identity: Identity
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",)
    """Multiaddrs; TCP only. Empty: dial only."""
    security: Sequence[str] = ("noise", "tls")
    """Secure channels offered, in order of preference."""
    max_connections: int = MAX_CONNECTIONS
    agent: str = "ipcs"
    """What identify tells peers about the software."""
    limits: Limits = field(default_factory=Limits)
    """Bounds of each connection."""


@asynccontextmanager
async def open_host(config: HostConfig) -> AsyncIterator[Host]:
    """Run a host: listening from the first moment inside the block, everything closed after it.

    Raises `InvalidArgument`, naming the address, when it cannot listen there. What the block raises comes out as it is.
    """
    listen = [parse(text)[0] for text in config.listen]
    parts = _Parts(config)
    failure: Exception | None = None
    async with parts.basic.run(listen_addrs=[]), trio.open_nursery() as nursery:
        host = Host(config, parts, nursery)
        try:
            for address in listen:
                await host._listener.bind(address, nursery)
            yield host
        except Exception as exc:  # noqa: BLE001 - raised below, bare instead of wrapped in four exception groups
            failure = exc
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT, shield=True):
                await host._close()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Parts:
    """What has to exist before the host runs."""

    def __init__(self, config: HostConfig) -> None:
        self.limits = config.limits
        self.services = Services()
        self.connections = Connections(self.services)
        self.basic: BasicHost = new_stock_host(
            config.identity, list(config.security), config.max_connections, self._make_muxer, self.services
        )
        others = self.basic.get_mux().handlers
        others.clear()  # its identify and ping; ours are cheaper and bounded
        self.services.others = others

    def _make_muxer(self, channel: Channel, peer: PeerId, initiator: bool, first: bytes, security: str) -> Muxer:  # noqa: FBT001 - py-libp2p's word
        return Muxer(
            channel,
            peer,
            initiator=initiator,
            services=self.services,
            owner=self.connections,
            limits=self.limits,
            first=first,
            security=security,
        )


class Host:
    """A running host. Meets `ipcs.bitswap.network.Network` by shape."""

    def __init__(self, config: HostConfig, parts: _Parts, nursery: trio.Nursery) -> None:
        self.peer_id: PeerId = config.identity.peer_id
        self.agent = config.agent
        self.libp2p: BasicHost = parts.basic
        """The py-libp2p host underneath, for protocols that come with py-libp2p (kad-dht)."""
        self._swarm = parts.basic.get_network()
        self._config = config
        self._services = parts.services
        self._connections = parts.connections
        self._listener = Listener(self._accept)
        self._swarm.listeners["ipcs"] = self._listener
        self._dials: dict[PeerId, trio.Event] = {}
        self._introduction = Introduction(
            config.identity,
            config.agent,
            parts.connections,
            nursery,
            protocols=self._protocols,
            listening=lambda: self._listener.addresses,
        )
        self._services.handlers[identify.ID] = self._introduction.serve_identify
        self._services.handlers[identify.PUSH_ID] = self._introduction.serve_push
        self._services.handlers[PING_ID] = self._introduction.serve_ping
        self._connections.watch(self._introduction)

    @property
    def handler_failures(self) -> int:
        """Exceptions in stream handlers and consumers so far. Each ended one stream; none ended the host."""
        return self._services.failures

    # ---- what the exchange calls

    def attach(self, inbound: Inbound, protocols: Sequence[str] = BITSWAP_PROTOCOLS) -> None:
        """Push streams that peers open under `protocols`, and connection changes, to `inbound` from now on.

        Peers that are connected already are replayed.
        """
        for protocol in protocols:
            self._services.pushed[protocol] = inbound
        self.watch(inbound)
        for peer in self._connections.peers:
            inbound.connected(peer)
        self._introduction.announce()

    async def open_stream(self, peer: PeerId, protocols: Sequence[str] = BITSWAP_PROTOCOLS) -> OutStream:
        """A new stream to a connected peer under the first of `protocols` that it speaks.

        Raises `NotFound` when not connected, `RemoteProtocolError` when negotiation fails or takes too long,
        `ResourceExhausted` when too many streams are open.
        """
        return await self.open_duplex(peer, protocols)

    async def open_duplex(self, peer: PeerId, protocols: Sequence[str]) -> Stream:
        """As `open_stream`, for a stream that is read as well."""
        known = self._introduction.known(peer).protocols
        for connection in self._connections.of(peer):
            if connection.takes_streams:
                return await connection.open_stream(protocols, known)
        raise NotFound(f"not connected to {peer}", subject=peer)

    async def disconnect(self, peer: PeerId, reason: str) -> None:
        """Close all connections to `peer`; `reason` is logged."""
        log.info("disconnecting %s: %s", peer, reason)
        async with trio.open_nursery() as nursery:
            for connection in self._connections.of(peer):
                nursery.start_soon(connection.aclose, reason)

    # ---- what everything else calls

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs we listen on, with our `/p2p/`: what another node dials."""
        return tuple(f"{address}/p2p/{self.peer_id}" for address in self._listener.addresses)

    def is_connected(self, peer: PeerId) -> bool:
        """Whether at least one connection to `peer` is up."""
        return peer in self._connections

    def peers(self) -> list[PeerStatus]:
        """All connected peers."""
        return [self._status(peer) for peer in self._connections.peers]

    async def wait_identified(self, peer: PeerId) -> PeerStatus:
        """The status of a connected peer once identify has run (or failed). Raises `NotFound` when it is gone."""
        if peer in self._connections:
            await self._introduction.known(peer).done.wait()
        if peer not in self._connections:
            raise NotFound(f"not connected to {peer}", subject=peer)
        return self._status(peer)

    async def connect(self, address: str, *, timeout: float = DIAL_TIMEOUT) -> PeerId:
        """Connect to the peer at `address` (a multiaddr with `/p2p/`); at once when it is connected already.

        Raises `InvalidArgument` for a malformed address or our own id, `DeadlineExceeded` when it took longer than
        `timeout` seconds, `RemoteProtocolError` when nobody answers there or when another peer does,
        `ResourceExhausted` at the limit of connections.
        """
        target, peer = parse_with_peer(address)
        if peer == self.peer_id:
            raise InvalidArgument(f"{address} is this node itself", subject=address)
        try:
            with trio.fail_after(timeout):
                while not self.is_connected(peer):
                    if peer in self._dials:
                        await self._dials[peer].wait()
                    else:
                        await self._dial_once(target, peer)
        except trio.TooSlowError:
            raise DeadlineExceeded(f"no connection to {address} within {timeout} s", subject=address) from None
        return peer

    def set_handler(self, protocol: str, handler: Handler) -> None:
        """Serve streams that peers open under `protocol`, each in a task of its own."""
        self._services.handlers[protocol] = handler
        self._introduction.announce()

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of connection changes from now on."""
        self._connections.watch(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Stop telling `watcher`."""
        self._connections.unwatch(watcher)

    # ---- inside

    def _protocols(self) -> list[str]:
        others = [str(protocol) for protocol in self.libp2p.get_mux().get_protocols() if protocol]
        return list(dict.fromkeys([*self._services.handlers, *self._services.pushed, *others]))

    def _status(self, peer: PeerId) -> PeerStatus:
        connections = self._connections.of(peer)
        known = self._introduction.known(peer)
        return PeerStatus(
            peer=peer,
            addresses=tuple(str(connection.remote) for connection in connections if connection.remote),
            listen_addresses=known.listen_addresses,
            agent=known.agent,
            protocols=known.protocols,
            connections=len(connections),
            inbound=not connections[0].initiator,
            security=connections[0].security,
            round_trip=connections[0].round_trip,
        )

    async def _dial_once(self, target: TcpAddress, peer: PeerId) -> None:
        if len(self._connections) >= self._config.max_connections:
            raise ResourceExhausted(f"{len(self._connections)} connections are the limit", subject=peer)
        self._dials[peer] = done = trio.Event()
        try:
            await self._dial(target, peer)
        except _HANDSHAKE_ERRORS as exc:
            raise RemoteProtocolError(
                f"cannot connect to {target}/p2p/{peer}: {_reason(exc)}", subject=f"{target}/p2p/{peer}"
            ) from exc
        finally:
            del self._dials[peer]
            done.set()

    async def _dial(self, target: TcpAddress, peer: PeerId) -> None:
        stream = await trio.open_tcp_stream(target.host, target.port)
        up = False
        try:
            await self._swarm.upgrade_outbound_raw_conn(
                RawConnection(TrioTCPStream(stream), True), ID.from_base58(peer)
            )
            up = True
        finally:
            if not up:
                await trio.aclose_forcefully(stream)
        if not self.is_connected(peer):
            raise RemoteProtocolError("the peer closed the connection at once", subject=peer)

    async def _accept(self, stream: trio.SocketStream) -> Muxer | None:
        """Secure a connection that somebody opened. It goes on in tasks of its own."""
        if len(self._connections) >= self._config.max_connections:
            log.info("connection refused: %d are the limit", len(self._connections))
            return None
        with self._services.contain("accepting a connection"):
            try:
                raw = RawConnection(TrioTCPStream(stream), False)
                muxed = await self._swarm.upgrade_inbound_raw_conn(raw, None)
            except _HANDSHAKE_ERRORS as exc:
                log.debug("handshake failed: %s", _reason(exc))
                return None
            assert isinstance(muxed, StockMuxer)
            return muxed.muxer
        return None

    async def _close(self) -> None:
        await self._listener.close()
        async with trio.open_nursery() as nursery:
            for connection in self._connections:
                nursery.start_soon(connection.aclose, "the host closes")


def _reason(exc: BaseException) -> str:
    """The innermost cause in words: py-libp2p wraps it up to four times."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return str(exc) or type(exc).__name__
