"""Whom to dial, so that nodes that share one bootstrap peer become a full mesh.

A peer's list is hearsay: each address is dialled at most once a minute, few at a time, and the Noise handshake decides
whether the named peer is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..cid import PeerId

MESH_LIMIT = 200
"""Connections up to which a full mesh is sought: beyond it finding a blob by asking everybody costs too much."""

ADDRESSES_PER_PEER = 4
"""Addresses passed on for one peer."""

RETRY_AFTER = 60.0
"""Seconds before an address that failed is dialled again."""

MAX_TRIED = 4_096
"""Addresses remembered as tried."""


class Mesh:
    """Decides from hearsay. `now` in seconds on any steady clock."""

    def __init__(self, own: PeerId) -> None:
        self._own = own
        self._tried: dict[str, float] = {}

    def to_dial(self, addresses: Iterable[str], connected: Sequence[PeerId], now: float) -> list[str]:
        """Of the `addresses` a peer gave (multiaddrs ending in `/p2p/<peer id>`), those to dial now, one a peer."""
        room = MESH_LIMIT - len(connected)
        known = {self._own, *connected}
        chosen: list[str] = []
        for address in addresses:
            if len(chosen) >= room:
                break
            _, named, peer = address.rpartition("/p2p/")
            if not named or peer in known or self._tried.get(address, -RETRY_AFTER) > now - RETRY_AFTER:
                continue
            self._tried[address] = now
            known.add(PeerId(peer))
            chosen.append(address)
        while len(self._tried) > MAX_TRIED:
            del self._tried[next(iter(self._tried))]
        return chosen


def shared_addresses(peers: Iterable[tuple[PeerId, Sequence[str]]], asker: PeerId) -> list[str]:
    """What `asker` is told of our peers: (peer, addresses it listens on), with the peer's id at the end of each."""
    return [
        address if "/p2p/" in address else f"{address}/p2p/{peer}"
        for peer, addresses in peers
        if peer != asker
        for address in addresses[:ADDRESSES_PER_PEER]
    ][: MESH_LIMIT * ADDRESSES_PER_PEER]
