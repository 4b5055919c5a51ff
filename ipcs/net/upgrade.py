"""Our Noise and yamux under py-libp2p's interfaces, so that its swarm negotiates and carries them.

The swarm calls `NoiseTransport` for `/noise`, then `MuxerUpgrade` for `/yamux/1.0.0` over whatever secure channel came
out of it (ours, or py-libp2p's TLS); it runs `StockMuxer.start`, and serves through `accept_stream` the protocols that
are py-libp2p's own. `MuxerMultistream.new_conn` is overridden, since it constructs py-libp2p's yamux by name whatever
class was registered (muxer_multistream.py:137).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import trio

from ..cid import PeerId
from ..errors import RemoteProtocolError, ResourceExhausted
from .channel import Channel, NoiseChannel
from .keys import Identity
from .multistream import HEADER, message
from .muxer import Muxer
from .noise import Handshake, Secured
from .stock import (
    ID,
    BaseSession,
    ConnectionType,
    HandshakeFailure,
    IMuxedConn,
    IMuxedStream,
    IRawConnection,
    ISecureConn,
    ISecureTransport,
    KeyPair,
    Multiaddr,
    MuxedConnUnavailable,
    MuxedStreamEOF,
    MuxedStreamReset,
    MuxerMultistream,
    RawConnError,
    deserialize_public_key,
)
from .streams import MuxedStream
from .tls import take_over
from .yamux_frames import PROTOCOL_ID as YAMUX_ID

READ_SIZE = 64 * 1024
"""Bytes asked of py-libp2p at once."""


class NoiseTransport(ISecureTransport):  # type: ignore[misc]
    """Secures a raw connection with our Noise."""

    def __init__(self, identity: Identity, pair: KeyPair) -> None:
        self._identity = identity
        self._pair = pair

    async def secure_inbound(self, conn: IRawConnection) -> NoiseSession:
        """py-libp2p's call for a connection that we accepted."""
        return await self._secure(conn, initiator=False)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> NoiseSession:
        """py-libp2p's call for one that we dialled; it compares the peer id itself as well."""
        session = await self._secure(conn, initiator=True)
        if session.remote_peer != peer_id:
            raise HandshakeFailure(f"expected peer {peer_id}, and {session.remote_peer} answers")
        return session

    async def _secure(self, conn: IRawConnection, *, initiator: bool) -> NoiseSession:
        handshake = Handshake(
            self._identity,
            initiator=initiator,
            static=secrets.token_bytes(32),
            ephemeral=secrets.token_bytes(32),
            muxers=[YAMUX_ID],
        )
        try:
            if first := handshake.begin():
                await conn.write(first)
            while handshake.secured is None:
                data = await conn.read(READ_SIZE)
                if not data:
                    raise HandshakeFailure("the peer closed the connection during the handshake")
                if answer := handshake.receive(data):
                    await conn.write(answer)
        except (RemoteProtocolError, RawConnError) as exc:
            raise HandshakeFailure(str(exc)) from exc
        return NoiseSession(conn, self._pair, handshake.secured, initiator=initiator)


class NoiseSession(BaseSession):  # type: ignore[misc]
    """A secured connection, as py-libp2p's negotiation of the muxer reads and writes it."""

    def __init__(self, conn: IRawConnection, pair: KeyPair, secured: Secured, *, initiator: bool) -> None:
        super().__init__(
            local_peer=ID.from_pubkey(pair.public_key),
            local_private_key=pair.private_key,
            remote_peer=ID.from_base58(secured.peer),
            remote_permanent_pubkey=deserialize_public_key(secured.public_key.to_protobuf()),
            is_initiator=initiator,
        )
        self._conn = conn
        self.muxers = secured.muxers
        self.channel = NoiseChannel(conn.stream.stream, secured.sealer, secured.opener, secured.rest)
        self._received = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes; empty at the end."""
        if not self._received:
            self._received += await self.channel.receive()
        data = bytes(self._received[:n])
        del self._received[: len(data)]
        return data

    async def write(self, data: bytes) -> None:
        """All of `data`."""
        await self.channel.send([data])

    def take_rest(self) -> bytes:
        """What was received and not read: it is the muxer's."""
        rest = bytes(self._received)
        self._received.clear()
        return rest

    async def close(self) -> None:
        """Close the connection."""
        await self._conn.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the peer."""
        address: tuple[str, int] | None = self._conn.get_remote_address()
        return address

    def get_transport_addresses(self) -> list[Multiaddr]:
        """The peer's address as a multiaddr."""
        return list(self._conn.get_transport_addresses())

    def get_connection_type(self) -> ConnectionType:
        """Direct."""
        return self._conn.get_connection_type()


MakeMuxer = Callable[[Channel, PeerId, bool, bytes, str], Muxer]
"""Channel, peer, whether we dialled, bytes received behind the negotiation, protocol id of the secure channel."""


class MuxerUpgrade(MuxerMultistream):  # type: ignore[misc]
    """Agrees on yamux, at once where Noise named it already, and starts ours."""

    def __init__(self, make: MakeMuxer) -> None:
        super().__init__({YAMUX_ID: StockMuxer})
        self._make = make

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> StockMuxer:
        """py-libp2p's call."""
        inlined = isinstance(conn, NoiseSession) and YAMUX_ID in conn.muxers
        if not inlined:
            await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        if isinstance(conn, NoiseSession):
            channel: Channel = conn.channel
            rest = conn.take_rest()
        else:
            channel, rest = take_over(conn)
        security = str(getattr(conn, "negotiated_security_protocol", ""))
        return StockMuxer(conn, peer_id, self._make(channel, PeerId(str(peer_id)), conn.is_initiator, rest, security))


class StockMuxer(IMuxedConn):  # type: ignore[misc]
    """A `Muxer` as the swarm knows it."""

    def __init__(self, conn: ISecureConn, peer_id: ID, muxer: Muxer) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.muxer = muxer
        self.event_started = muxer.running
        self.negotiated_muxer_protocol = YAMUX_ID
        self.negotiated_security_protocol = muxer.security

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return self.muxer.initiator

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return not self.muxer.is_closed

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.muxer.is_closed

    async def start(self) -> None:
        """Serve until the end; the swarm runs it as a task."""
        await self.muxer.run()

    async def close(self) -> None:
        """End it."""
        await self.muxer.aclose()

    async def open_stream(self) -> StockStream:
        """A stream for py-libp2p, which negotiates itself."""
        try:
            return StockStream(self, self.muxer.open_raw(), accepted=False)
        except (RemoteProtocolError, ResourceExhausted) as exc:
            raise MuxedConnUnavailable(str(exc)) from exc

    async def accept_stream(self) -> StockStream:
        """The next inbound stream whose protocol is py-libp2p's own."""
        try:
            return StockStream(self, await self.muxer.others.receive(), accepted=True)
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise MuxedConnUnavailable(f"connection ended: {self.muxer.end_reason}") from None

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the peer."""
        address: tuple[str, int] | None = self.secured_conn.get_remote_address()
        return address

    def get_transport_addresses(self) -> list[Multiaddr]:
        """The peer's address as a multiaddr."""
        return [Multiaddr(str(self.muxer.remote))] if self.muxer.remote else []

    def get_connection_type(self) -> ConnectionType:
        """Direct: there are no relays here."""
        return ConnectionType.DIRECT


class StockStream(IMuxedStream):  # type: ignore[misc]
    """A `MuxedStream` as py-libp2p reads and writes it."""

    def __init__(self, conn: StockMuxer, stream: MuxedStream, *, accepted: bool) -> None:
        self.muxed_conn = conn
        self._stream = stream
        # We have answered the peer's negotiation already; py-libp2p will too, and is not to be heard twice.
        self._swallow = len(HEADER) + len(message(stream.protocol)) if accepted else 0

    async def read(self, n: int | None = None) -> bytes:
        """1 to `n` bytes; with None or -1 what is there."""
        try:
            data = await self._stream.read(READ_SIZE if n is None or n < 0 else n)
        except RemoteProtocolError as exc:
            raise MuxedStreamReset(str(exc)) from exc
        if not data and n != 0:
            raise MuxedStreamEOF(f"{self._stream.peer} ended the stream")
        return data

    async def write(self, data: bytes) -> None:
        """All of `data`."""
        cut = min(self._swallow, len(data))
        self._swallow -= cut
        try:
            await self._stream.write([memoryview(data)[cut:]])
        except RemoteProtocolError as exc:
            raise MuxedStreamReset(str(exc)) from exc

    async def close(self) -> None:
        """Our end; reading goes on."""
        await self._stream.aclose()

    async def reset(self) -> None:
        """Abandon it."""
        self._stream.reset()
        await trio.lowlevel.checkpoint()

    def set_deadline(self, _ttl: int) -> bool:
        """Not supported: py-libp2p bounds its calls itself."""
        return False

    def get_remote_address(self) -> tuple[str, int] | None:
        """Host and port of the peer."""
        return self.muxed_conn.get_remote_address()

    async def __aenter__(self) -> StockStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
