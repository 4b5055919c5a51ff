"""The names of py-libp2p that ipcs uses, all of them, and the one place that imports it.

Importing `libp2p` configures logging: it empties the handlers of the logger `libp2p`, sets its level and cuts it off
from the root, so that a program loses what it had set up. That is undone here, unless the user asked for py-libp2p's
own logging with `LIBP2P_DEBUG`. `SwarmConn` besides logs through `logging.debug()` and friends, which call
`logging.basicConfig()` on the way; it gets a logger instead.
"""

from __future__ import annotations

import logging
import os

_logger = logging.getLogger("libp2p")
_before = (_logger.level, _logger.propagate, list(_logger.handlers))

import libp2p  # noqa: E402, F401 - after the logger's state was noted
import libp2p.network.connection.swarm_connection as _swarm_connection  # noqa: E402
from libp2p.abc import IListener, IMuxedConn, IMuxedStream, INetStream, INotifee, ISecureTransport, ITransport  # noqa: E402
from libp2p.crypto.ed25519 import Ed25519PrivateKey  # noqa: E402
from libp2p.crypto.keys import KeyPair  # noqa: E402
from libp2p.crypto.serialization import deserialize_public_key  # noqa: E402
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_pair  # noqa: E402
from libp2p.host.basic_host import BasicHost  # noqa: E402
from libp2p.host.exceptions import StreamFailure  # noqa: E402
from libp2p.network.config import ConnectionConfig, RetryConfig  # noqa: E402
from libp2p.network.connection.swarm_connection import SwarmConn  # noqa: E402
from libp2p.network.exceptions import SwarmException  # noqa: E402
from libp2p.network.stream.exceptions import StreamEOF, StreamError  # noqa: E402
from libp2p.network.swarm import Swarm  # noqa: E402
from libp2p.peer.id import ID  # noqa: E402
from libp2p.peer.peerstore import PeerStore  # noqa: E402
from libp2p.rcmgr import Direction  # noqa: E402
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID  # noqa: E402
from libp2p.security.noise.transport import Transport as StockNoise  # noqa: E402
from libp2p.security.tls.transport import PROTOCOL_ID as TLS_ID  # noqa: E402
from libp2p.security.tls.transport import TLSTransport  # noqa: E402
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError  # noqa: E402
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID  # noqa: E402
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux  # noqa: E402
from libp2p.transport.tcp.tcp import TCP  # noqa: E402
from libp2p.transport.upgrader import TransportUpgrader  # noqa: E402
from multiaddr import Multiaddr  # noqa: E402

if not os.environ.get("LIBP2P_DEBUG"):
    _logger.setLevel(_before[0])
    _logger.propagate = _before[1]
    _logger.handlers[:] = _before[2]
_swarm_connection.logging = logging.getLogger(_swarm_connection.__name__)

__all__ = [
    "ID",
    "NOISE_ID",
    "TCP",
    "TLS_ID",
    "YAMUX_ID",
    "BasicHost",
    "ConnectionConfig",
    "Direction",
    "Ed25519PrivateKey",
    "IListener",
    "IMuxedConn",
    "IMuxedStream",
    "INetStream",
    "INotifee",
    "ISecureTransport",
    "ITransport",
    "KeyPair",
    "Multiaddr",
    "MuxedConnError",
    "MuxedStreamError",
    "PeerStore",
    "RetryConfig",
    "StockNoise",
    "StockYamux",
    "StreamEOF",
    "StreamError",
    "StreamFailure",
    "Swarm",
    "SwarmConn",
    "SwarmException",
    "TLSTransport",
    "TransportUpgrader",
    "deserialize_public_key",
    "new_x25519_pair",
]
