"""Who we are connected to: the connections of a host by peer, and those who want to hear of changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ..cid import PeerId
from .interface import Watcher
from .muxer import Muxer
from .services import Services

log = logging.getLogger(__name__)

MAX_PER_PEER = 4
"""Connections of one peer: two when both dialled at once, a little more while old ones are dying."""


class Connections:
    """All live connections. Meets `muxer.Owner`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._by_peer: dict[PeerId, list[Muxer]] = {}
        self._watchers: list[Watcher] = []

    def __len__(self) -> int:
        return sum(map(len, self._by_peer.values()))

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._by_peer

    def __iter__(self) -> Iterator[Muxer]:
        return iter([connection for connections in self._by_peer.values() for connection in connections])

    @property
    def peers(self) -> list[PeerId]:
        """All connected peers."""
        return list(self._by_peer)

    def of(self, peer: PeerId) -> list[Muxer]:
        """The connections of `peer`, oldest first."""
        return list(self._by_peer.get(peer, ()))

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of changes from now on."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Stop telling it."""
        self._watchers.remove(watcher)

    def opened(self, connection: Muxer) -> None:
        """A connection carries streams from now on."""
        connections = self._by_peer.setdefault(connection.peer, [])
        connections.append(connection)
        if len(connections) > MAX_PER_PEER:
            connection.end_connection(f"more than {MAX_PER_PEER} connections")
        if len(connections) == 1:
            for watcher in list(self._watchers):
                with self._services.contain("a watcher of connections"):
                    watcher.connected(connection.peer)

    def closed(self, connection: Muxer) -> None:
        """A connection is gone."""
        log.debug("%s is gone", connection)
        connections = self._by_peer.get(connection.peer, [])
        if connection not in connections:
            return
        connections.remove(connection)
        if not connections:
            del self._by_peer[connection.peer]
            for watcher in list(self._watchers):
                with self._services.contain("a watcher of connections"):
                    watcher.disconnected(connection.peer)
