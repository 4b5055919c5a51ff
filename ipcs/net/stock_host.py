"""Putting py-libp2p's host together with our parts in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..errors import InvalidArgument
from .keys import Identity
from .services import Services
from .stock import (
    ID,
    TCP,
    BasicHost,
    ConnectionConfig,
    Ed25519PrivateKey,
    INetStream,
    ISecureTransport,
    KeyPair,
    PeerStore,
    RetryConfig,
    Swarm,
    TransportUpgrader,
)
from .tls import CheckedTls
from .upgrade import MakeMuxer, MuxerUpgrade, NoiseTransport

SECURITY = {"noise": "/noise", "tls": "/tls/1.0.0"}
"""Secure channels by the name users give them."""

UPGRADE_TIMEOUT = 10.0
"""Seconds for the secure channel and the muxer of an accepted connection."""


def new_stock_host(
    identity: Identity, security: list[str], max_connections: int, make_muxer: MakeMuxer, services: Services
) -> BasicHost:
    """py-libp2p's host, not yet running.

    Built by hand: `libp2p.new_host` offers plaintext as well and adds a manager that limits connections by rate.
    Raises `InvalidArgument` for an unknown name in `security`.
    """
    private = Ed25519PrivateKey.from_bytes(identity.seed)
    pair = KeyPair(private, private.get_public_key())
    peerstore = PeerStore()
    me = ID.from_pubkey(pair.public_key)
    peerstore.add_key_pair(me, pair)
    upgrader = TransportUpgrader(_channels(identity, pair, security), {})
    upgrader.muxer_multistream = MuxerUpgrade(make_muxer)
    swarm = Swarm(
        me,
        peerstore,
        upgrader,
        transports=[TCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            min_connections=0,
            low_watermark=0,
            high_watermark=max_connections,
            max_connections=max_connections,
            max_connections_per_peer=max_connections,
            inbound_upgrade_timeout=UPGRADE_TIMEOUT,
            outbound_upgrade_timeout=UPGRADE_TIMEOUT,
        ),
    )
    swarm.auto_connector = _NoAutoConnector()
    host = BasicHost(network=swarm, disable_identify_address_discovery=True)
    swarm.notifees.clear()  # among them is its own identify, which runs as a system task
    swarm.set_stream_handler(_contained(swarm.common_stream_handler, services))
    return host


def _contained(handler: Callable[[INetStream], Awaitable[None]], services: Services) -> object:
    """`handler`, so that an exception ends its stream: left alone, it ends the whole host."""

    async def run(stream: INetStream) -> None:
        with services.contain("a stream handler of py-libp2p") as attempt:
            await handler(stream)
        if attempt.raised:
            await stream.reset()

    return run


def _channels(identity: Identity, pair: KeyPair, names: list[str]) -> dict[str, ISecureTransport]:
    unknown = [name for name in names if name not in SECURITY]
    if unknown or not names:
        raise InvalidArgument(f"security {unknown or 'list is empty'}: choose from {sorted(SECURITY)}")
    return {SECURITY[name]: NoiseTransport(identity, pair) if name == "noise" else CheckedTls(pair) for name in names}


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
        """Keeps no record: `dialer.Redialer` does the back-off."""
