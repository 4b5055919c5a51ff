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
from libp2p.abc import (  # noqa: E402
    ConnectionType,
    IListener,
    IMuxedConn,
    IMuxedStream,
    INetStream,
    IRawConnection,
    ISecureConn,
    ISecureTransport,
)
from libp2p.crypto.ed25519 import Ed25519PrivateKey  # noqa: E402
from libp2p.crypto.keys import KeyPair, PublicKey  # noqa: E402
from libp2p.crypto.serialization import deserialize_public_key  # noqa: E402
from libp2p.exceptions import BaseLibp2pError  # noqa: E402
from libp2p.host.basic_host import BasicHost  # noqa: E402
from libp2p.io.trio import TrioTCPStream  # noqa: E402
from libp2p.network.config import ConnectionConfig, RetryConfig  # noqa: E402
from libp2p.network.connection.exceptions import RawConnError  # noqa: E402
from libp2p.network.connection.raw_connection import RawConnection  # noqa: E402
from libp2p.network.swarm import Swarm  # noqa: E402
from libp2p.peer.id import ID  # noqa: E402
from libp2p.peer.peerstore import PeerStore  # noqa: E402
from libp2p.security.base_session import BaseSession  # noqa: E402
from libp2p.security.exceptions import HandshakeFailure  # noqa: E402
from libp2p.security.secure_session import SecureSession  # noqa: E402
from libp2p.security.tls.certificate import LIBP2P_EXTENSION_OID, decode_signed_key  # noqa: E402
from libp2p.security.tls.transport import TLSTransport  # noqa: E402
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF, MuxedStreamReset  # noqa: E402
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream  # noqa: E402
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
    "LIBP2P_EXTENSION_OID",
    "TCP",
    "BaseLibp2pError",
    "BaseSession",
    "BasicHost",
    "ConnectionConfig",
    "ConnectionType",
    "Ed25519PrivateKey",
    "HandshakeFailure",
    "IListener",
    "IMuxedConn",
    "IMuxedStream",
    "INetStream",
    "IRawConnection",
    "ISecureConn",
    "ISecureTransport",
    "KeyPair",
    "Multiaddr",
    "MuxedConnUnavailable",
    "MuxedStreamEOF",
    "MuxedStreamReset",
    "MuxerMultistream",
    "PeerStore",
    "PublicKey",
    "RawConnError",
    "RawConnection",
    "RetryConfig",
    "SecureSession",
    "Swarm",
    "TLSTransport",
    "TransportUpgrader",
    "TrioTCPStream",
    "decode_signed_key",
    "deserialize_public_key",
]
