"""The libp2p host: py-libp2p's host and swarm with their faults kept away from the rest of the program.

This file and the adapters beside it are the only ones that import `libp2p`. Its version is pinned, because parts are
replaced by attribute; `docs/network.md` lists every fault that is worked around, with the test that will tell when it
is gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..block import Data
from ..cid import PeerId
from ..errors import DeadlineExceeded, InvalidArgument, IpcsError, NotFound, RemoteProtocolError
from . import identify
from .interface import BITSWAP_PROTOCOLS, Handler, Inbound, OutStream, PeerStatus, Stream, Watcher
from .keys import Identity, peer_id_of
from .stock import (
    ID,
    NOISE_ID,
    TCP,
    TLS_ID,
    YAMUX_ID,
    BasicHost,
    ConnectionConfig,
    Direction,
    Ed25519PrivateKey,
    INetStream,
    INotifee,
    KeyPair,
    Multiaddr,
    MuxedConnError,
    MuxedStreamError,
    PeerStore,
    RetryConfig,
    StockNoise,
    StockYamux,
    StreamEOF,
    StreamError,
    StreamFailure,
    Swarm,
    SwarmConn,
    SwarmException,
    TLSTransport,
    TransportUpgrader,
    new_x25519_pair,
)

log = logging.getLogger(__name__)

DIAL_TIMEOUT = 10.0
"""Seconds for TCP connect, secure channel and muxer together (go-libp2p: 5 s a dial, 60 s in all)."""

NEGOTIATE_TIMEOUT = 10.0
"""Seconds a peer has to agree on the protocol of a new stream."""

MAX_CONNECTIONS = 512
"""Connections in all. One costs about 100 KB idle and at most the muxer's receive budget."""

CLOSE_TIMEOUT = 1.0
"""Seconds that closing all connections may take at shutdown."""

PING_ID = "/ipfs/ping/1.0.0"

READ_SIZE = 256 * 1024

_StockHandler = Callable[[INetStream], Awaitable[None]]


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


@dataclass
class _Peer:
    """What is kept about a connected peer."""

    connections: int = 0
    inbound: bool = False
    agent: str = ""
    protocols: tuple[str, ...] = ()
    listen_addresses: tuple[str, ...] = ()
    identified: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def open_host(config: HostConfig) -> AsyncIterator[Host]:
    """Run a host: listening from the first moment inside the block, everything closed after it.

    Raises `InvalidArgument`, naming the address, when it cannot listen there.
    """
    listen = [parse_multiaddr(text) for text in config.listen]
    basic = _new_libp2p_host(config)
    failure: Exception | None = None
    async with basic.run(listen_addrs=[]), trio.open_nursery() as nursery:
        host = Host(config, basic, nursery)
        try:
            await _listen(basic, listen)
            yield host
        except Exception as exc:  # noqa: BLE001 - raised below, bare instead of wrapped in four exception groups
            failure = exc
        finally:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT, shield=True):
                await host._close()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _listen(basic: BasicHost, addresses: Sequence[Multiaddr]) -> None:
    for address in addresses:
        if not await basic.get_network().listen(address):
            raise InvalidArgument(f"cannot listen on {address}: in use, or not an address of this machine")


def parse_multiaddr(text: str) -> Multiaddr:
    """`text` as a multiaddr. Raises `InvalidArgument`."""
    try:
        return Multiaddr(text)
    except ValueError as exc:  # every error of `multiaddr` is one
        raise InvalidArgument(f"{text!r} is not a multiaddr: {exc}", subject=text) from exc


def split_peer(address: str) -> tuple[Multiaddr, PeerId]:
    """A multiaddr ending in `/p2p/<peer id>`, taken apart. Raises `InvalidArgument`."""
    parsed = parse_multiaddr(address)
    try:
        peer = parsed.value_for_protocol("p2p")
        return parsed.decapsulate_code(0x01A5), PeerId(str(peer))
    except (LookupError, ValueError) as exc:
        raise InvalidArgument(
            f"{address} names no peer; append /p2p/<peer id>, without it anyone could answer there", subject=address
        ) from exc


def _new_libp2p_host(config: HostConfig) -> BasicHost:
    """py-libp2p's host, put together by hand: `libp2p.new_host` offers plaintext and adds a rate-limiting manager."""
    private = Ed25519PrivateKey.from_bytes(config.identity.seed)
    pair = KeyPair(private, private.get_public_key())
    channels = {
        "noise": (NOISE_ID, lambda: StockNoise(pair, noise_privkey=new_x25519_pair().private_key)),
        "tls": (TLS_ID, lambda: TLSTransport(pair)),
    }
    unknown = [name for name in config.security if name not in channels]
    if unknown or not config.security:
        raise InvalidArgument(f"security {unknown or 'list empty'}: choose from {sorted(channels)}")
    peerstore = PeerStore()
    me = ID.from_pubkey(pair.public_key)
    peerstore.add_key_pair(me, pair)
    swarm = Swarm(
        me,
        peerstore,
        TransportUpgrader({channels[name][0]: channels[name][1]() for name in config.security}, {YAMUX_ID: StockYamux}),
        transports=[TCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            min_connections=0,
            low_watermark=0,
            high_watermark=config.max_connections,
            max_connections=config.max_connections,
        ),
    )
    swarm.auto_connector = _NoAutoConnector()
    return BasicHost(network=swarm, disable_identify_address_discovery=True)


class _NoAutoConnector:
    """Stands in for the swarm's part that dials any address it ever heard of to reach a number of connections."""

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def run_background_task(self, _nursery: trio.Nursery) -> None:
        """No task."""

    async def maybe_connect(self) -> None:
        """Never dials."""

    def record_disconnect(self, _peer: ID) -> None:
        """Keeps no record: `Redialer` does the back-off."""


class Host:
    """A running host. Meets `ipcs.bitswap.network.Network` by shape."""

    def __init__(self, config: HostConfig, basic: BasicHost, nursery: trio.Nursery) -> None:
        self.peer_id: PeerId = config.identity.peer_id
        self.libp2p = basic
        """The py-libp2p host underneath, for protocols that come with py-libp2p (kad-dht)."""
        self._swarm = basic.get_network()
        self._swarm.notifees[:] = [_Notifee(self)]  # not py-libp2p's identify, which runs as a system task
        self._config = config
        self._nursery = nursery
        self._swarm.set_stream_handler(self._guarded(self._swarm.common_stream_handler))
        self._watchers: list[Watcher] = []
        self._peers: dict[PeerId, _Peer] = {}
        self.handler_failures = 0
        """Stream handlers that ended in an exception; each ended its stream only."""
        for protocol, handler in ((identify.ID, self._serve_identify), (identify.PUSH_ID, self._serve_push)):
            self.set_handler(protocol, handler)
        self.set_handler(PING_ID, _serve_ping)

    # ---- what the exchange calls

    def attach(self, inbound: Inbound, protocols: Sequence[str] = BITSWAP_PROTOCOLS) -> None:
        """Push streams that peers open under `protocols`, and connection changes, to `inbound` from now on.

        Peers that are connected already are replayed.
        """
        self._watchers.append(inbound)
        for protocol in protocols:
            self.libp2p.set_stream_handler(protocol, self._guarded(_Pusher(inbound, protocol)))
        for peer in self._peers:
            inbound.connected(peer)
        self._announce()

    async def open_stream(self, peer: PeerId, protocols: Sequence[str] = BITSWAP_PROTOCOLS) -> OutStream:
        """A new stream to a connected peer under the first of `protocols` that it speaks.

        Raises `NotFound` when not connected, `RemoteProtocolError` when negotiation fails or takes too long.
        """
        return await self.open_duplex(peer, protocols)

    async def open_duplex(self, peer: PeerId, protocols: Sequence[str]) -> Stream:
        """As `open_stream`, for a stream that is read as well."""
        if not self.is_connected(peer):
            raise NotFound(f"not connected to {peer}", subject=peer)
        try:
            with trio.fail_after(NEGOTIATE_TIMEOUT):
                stream = await self.libp2p.new_stream(ID.from_base58(peer), list(protocols))
        except trio.TooSlowError:
            raise RemoteProtocolError(
                f"{peer} did not agree on a protocol within {NEGOTIATE_TIMEOUT} s", subject=peer
            ) from None
        except (SwarmException, StreamFailure, MuxedConnError, StreamError) as exc:
            raise RemoteProtocolError(f"{peer} speaks none of {', '.join(protocols)}: {exc}", subject=peer) from exc
        return _NetStreamAdapter(stream, peer)

    async def disconnect(self, peer: PeerId, reason: str) -> None:
        """Close all connections to `peer`; `reason` is logged."""
        log.info("disconnecting %s: %s", peer, reason)
        await self._swarm.close_peer(ID.from_base58(peer))

    # ---- what everything else calls

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs we listen on, with our `/p2p/`: what another node dials."""
        return tuple(f"{address}/p2p/{self.peer_id}" for address in self.libp2p.get_transport_addrs())

    def is_connected(self, peer: PeerId) -> bool:
        """Whether at least one connection to `peer` is up."""
        return peer in self._peers

    def peers(self) -> list[PeerStatus]:
        """All connected peers."""
        return [self._status(peer, entry) for peer, entry in self._peers.items()]

    async def connect(self, address: str, *, timeout: float = DIAL_TIMEOUT) -> PeerId:
        """Connect to the peer at `address` (a multiaddr with `/p2p/`); at once when it is connected already.

        Raises `InvalidArgument` for a malformed address or our own id, `DeadlineExceeded` when it took longer than
        `timeout` seconds, `RemoteProtocolError` when nobody answers there or when another peer does.
        """
        target, peer = split_peer(address)
        if peer == self.peer_id:
            raise InvalidArgument(f"{address} is this node itself", subject=address)
        if self.is_connected(peer):
            return peer
        try:
            with trio.fail_after(timeout):
                await self._swarm.dial_addr(target, ID.from_base58(peer))
        except trio.TooSlowError:
            raise DeadlineExceeded(f"no connection to {address} within {timeout} s", subject=address) from None
        except SwarmException as exc:
            raise RemoteProtocolError(f"cannot connect to {address}: {_reason(exc)}", subject=address) from exc
        return peer

    def set_handler(self, protocol: str, handler: Handler) -> None:
        """Serve streams that peers open under `protocol`, each in a task of its own."""

        async def serve(stream: INetStream) -> None:
            adapter = _NetStreamAdapter(stream, PeerId(str(stream.muxed_conn.peer_id)))
            try:
                await handler(adapter)
            except BaseException:
                adapter.reset()
                raise
            await adapter.aclose()

        self.libp2p.set_stream_handler(protocol, self._guarded(serve))
        self._announce()

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of connection changes from now on."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Stop telling `watcher`."""
        self._watchers.remove(watcher)

    async def wait_identified(self, peer: PeerId) -> PeerStatus:
        """The status of a connected peer once identify has run (or failed). Raises `NotFound` when it disconnects."""
        entry = self._peers.get(peer)
        if entry is not None:
            await entry.identified.wait()
        if peer not in self._peers:
            raise NotFound(f"not connected to {peer}", subject=peer)
        return self._status(peer, self._peers[peer])

    # ---- inside

    def _guarded(self, handler: _StockHandler) -> _StockHandler:
        """`handler`, so that an exception ends its stream. Without this it ends the whole host (`libp2p.md`)."""

        async def run(stream: INetStream) -> None:
            try:
                await handler(stream)
            except Exception as exc:  # the boundary to code that is not ours: counted, and logged with its cause
                if isinstance(exc, RemoteProtocolError):
                    log.debug("inbound stream ended: %s", exc)
                else:
                    self.handler_failures += 1
                    log.warning("stream handler failed; its stream is reset", exc_info=True)
                with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT, shield=True):
                    await stream.reset()

        return run

    def _status(self, peer: PeerId, entry: _Peer) -> PeerStatus:
        connections = self._swarm.get_connections(ID.from_base58(peer))
        addresses = tuple(str(address) for c in connections for address in c.get_transport_addresses())
        return PeerStatus(
            peer=peer,
            addresses=addresses,
            listen_addresses=entry.listen_addresses,
            agent=entry.agent,
            protocols=entry.protocols,
            connections=entry.connections,
            inbound=entry.inbound,
            security=str(connections[0].get_negotiated_security_protocol() or "") if connections else "",
        )

    def _on_connected(self, peer: PeerId, *, inbound: bool) -> None:
        entry = self._peers.get(peer)
        if entry is not None:
            entry.connections += 1
            return
        self._peers[peer] = _Peer(connections=1, inbound=inbound)
        for watcher in self._watchers:
            watcher.connected(peer)
        self._nursery.start_soon(self._identify, peer)

    def _on_disconnected(self, peer: PeerId) -> None:
        entry = self._peers.get(peer)
        if entry is None:
            return
        entry.connections -= 1
        if entry.connections <= 0:
            del self._peers[peer]
            entry.identified.set()
            for watcher in self._watchers:
                watcher.disconnected(peer)

    # ---- identify

    async def _identify(self, peer: PeerId) -> None:
        """Ask a peer that has just connected who it is."""
        try:
            with trio.fail_after(NEGOTIATE_TIMEOUT):
                stream = await self.open_duplex(peer, [identify.ID])
                self._learn(peer, await _read_all(stream, identify.MAX_BYTES))
                await stream.aclose()
        except (trio.TooSlowError, IpcsError) as exc:
            log.info("identify with %s failed: %s", peer, exc)
        finally:
            if peer in self._peers:
                self._peers[peer].identified.set()

    def _learn(self, peer: PeerId, data: bytes) -> None:
        message = identify.decode(data)
        if message.public_key and peer_id_of(message.public_key) != peer:
            raise RemoteProtocolError(f"identify: {peer} shows the key of another peer", subject=peer)
        entry = self._peers.get(peer)
        if entry is not None:
            entry.agent = message.agent
            entry.protocols = message.protocols
            entry.listen_addresses = tuple(_texts_of(message.listen_addresses))

    async def _serve_identify(self, stream: Stream) -> None:
        await stream.write([self._own_description(stream.peer)])

    async def _serve_push(self, stream: Stream) -> None:
        self._learn(stream.peer, await _read_all(stream, identify.MAX_BYTES))

    def _own_description(self, peer: PeerId) -> bytes:
        observed = [c.get_transport_addresses() for c in self._swarm.get_connections(ID.from_base58(peer))]
        return identify.encode(
            identify.Identify(
                agent=self._config.agent,
                protocol_version=identify.PROTOCOL_VERSION,
                protocols=tuple(str(p) for p in self.libp2p.get_mux().get_protocols() if p is not None),
                listen_addresses=tuple(a.to_bytes() for a in self.libp2p.get_transport_addrs()),
                observed_address=observed[0][0].to_bytes() if observed and observed[0] else b"",
                public_key=self._config.identity.public_key.to_protobuf(),
            )
        )

    def _announce(self) -> None:
        """Our protocols changed: tell those who asked before (identify push)."""
        for peer in self._peers:
            self._nursery.start_soon(self._push, peer)

    async def _push(self, peer: PeerId) -> None:
        try:
            stream = await self.open_duplex(peer, [identify.PUSH_ID])
            await stream.write([self._own_description(peer)])
            await stream.aclose()
        except IpcsError as exc:
            log.debug("identify push to %s: %s", peer, exc)

    async def _close(self) -> None:
        for listener in list(self._swarm.listeners.values()):
            await listener.close()  # the swarm's own shutdown is cancelled before it gets there, and they live on
        async with trio.open_nursery() as nursery:
            for peer in list(self._peers):
                nursery.start_soon(self._swarm.close_peer, ID.from_base58(peer))


async def _read_all(stream: Stream, limit: int) -> bytes:
    """Everything up to the peer's end. Raises `RemoteProtocolError` past `limit` bytes."""
    data = bytearray()
    while chunk := await stream.read(limit + 1 - len(data)):
        data += chunk
        if len(data) > limit:
            raise RemoteProtocolError(f"{stream.peer} sent more than {limit} bytes on {stream.protocol}")
    return bytes(data)


async def _serve_ping(stream: Stream) -> None:
    """Echo 32 bytes at a time (libp2p/specs ping)."""
    while data := await stream.read(32):
        await stream.write([data])


def _texts_of(addresses: Sequence[bytes]) -> Iterator[str]:
    for address in addresses:
        try:
            yield str(Multiaddr(address))
        except ValueError:  # an address of a kind that we do not know; nobody dials it
            continue


def _reason(exc: BaseException) -> str:
    """The innermost cause in words: py-libp2p wraps it up to four times."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return str(exc) or type(exc).__name__


class _Notifee(INotifee):  # type: ignore[misc]
    """Connection changes of the swarm, handed on."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def connected(self, _network: Swarm, conn: SwarmConn) -> None:
        self._host._on_connected(PeerId(str(conn.muxed_conn.peer_id)), inbound=conn.direction is Direction.INBOUND)

    async def disconnected(self, _network: Swarm, conn: SwarmConn) -> None:
        self._host._on_disconnected(PeerId(str(conn.muxed_conn.peer_id)))

    async def opened_stream(self, _network: Swarm, _stream: INetStream) -> None:
        pass

    async def closed_stream(self, _network: Swarm, _stream: INetStream) -> None:
        pass

    async def listen(self, _network: Swarm, _multiaddr: Multiaddr) -> None:
        pass

    async def listen_close(self, _network: Swarm, _multiaddr: Multiaddr) -> None:
        pass


class _Pusher:
    """Reads one inbound stream into the sink that the consumer gives for it."""

    def __init__(self, inbound: Inbound, protocol: str) -> None:
        self._inbound = inbound
        self._protocol = protocol

    async def __call__(self, stream: INetStream) -> None:
        peer = PeerId(str(stream.muxed_conn.peer_id))
        sink = self._inbound.accept(peer, self._protocol)
        if sink is None:
            await stream.reset()
            return
        try:
            while chunk := await stream.read(READ_SIZE):
                sink.feed(memoryview(chunk))
                await self._inbound.flush(peer)
        except StreamEOF:
            pass
        except (StreamError, MuxedStreamError, MuxedConnError):
            sink.reset()
            return
        except BaseException:
            sink.reset()
            raise
        sink.eof()
        await stream.close()


class _NetStreamAdapter:
    """A stream of py-libp2p in our terms."""

    def __init__(self, stream: INetStream, peer: PeerId) -> None:
        self._stream = stream
        self.peer = peer

    @property
    def protocol(self) -> str:
        return str(self._stream.get_protocol())

    async def write(self, parts: Sequence[Data]) -> None:
        try:
            with trio.CancelScope(shield=True):
                await self._stream.write(b"".join(parts))
        except (StreamError, MuxedStreamError, MuxedConnError) as exc:
            raise RemoteProtocolError(f"stream to {self.peer} ended: {_reason(exc)}", subject=self.peer) from exc

    async def read(self, max_bytes: int) -> bytes:
        try:
            return bytes(await self._stream.read(max_bytes))
        except StreamEOF:
            return b""
        except (StreamError, MuxedStreamError, MuxedConnError) as exc:
            raise RemoteProtocolError(f"stream from {self.peer} ended: {_reason(exc)}", subject=self.peer) from exc

    async def aclose(self) -> None:
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_TIMEOUT, shield=True):
            try:
                await self._stream.close()
            except (StreamError, MuxedStreamError, MuxedConnError):
                log.debug("closing a stream to %s: it was gone", self.peer)

    def reset(self) -> None:
        trio.lowlevel.spawn_system_task(self._reset)

    async def _reset(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self._stream.reset()
