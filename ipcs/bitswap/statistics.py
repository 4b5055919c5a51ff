"""Counters of the exchange. `Traffic` counts; the frozen values are what tests and the command line see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from ..cid import PeerId


@dataclass(slots=True)
class Traffic:
    """What one peer, or all together, moved. Bytes are of block data."""

    blocks_received: int = 0
    bytes_received: int = 0
    duplicate_blocks: int = 0
    duplicate_bytes: int = 0
    unasked_blocks: int = 0
    unasked_bytes: int = 0
    blocks_sent: int = 0
    bytes_sent: int = 0

    def add(self, other: Traffic) -> None:
        """Count what `other` counted."""
        for field in fields(Traffic):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One connected peer. Bytes are of block data; rates in bytes a second, times in seconds."""

    peer: PeerId
    blocks_received: int
    bytes_received: int
    duplicate_blocks: int
    duplicate_bytes: int
    unasked_blocks: int
    unasked_bytes: int
    blocks_sent: int
    bytes_sent: int
    wants: int
    """Wants of this peer that we keep."""
    asks: int
    """Blocks that we asked of it and it owes."""
    asked_bytes: int
    window: int
    rate: float
    latency: float
    stalled: bool


@dataclass(frozen=True, slots=True)
class ExchangeStatistics:
    """Totals since start over all peers, and the connected peers one by one."""

    blocks_received: int
    bytes_received: int
    duplicate_blocks: int
    duplicate_bytes: int
    unasked_blocks: int
    unasked_bytes: int
    blocks_sent: int
    bytes_sent: int
    wants: int
    """Blocks that our sessions still want."""
    peers: dict[PeerId, PeerStatistics]


def total(counts: Iterable[Traffic]) -> Traffic:
    """The sum of `counts`."""
    together = Traffic()
    for traffic in counts:
        together.add(traffic)
    return together
