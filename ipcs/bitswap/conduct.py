"""Who misbehaves, and for how long such a peer is refused. Pure.

A block that nobody asked of its sender is a strike: a liar's garbage hashes to a CID that nobody wants. Late and
repeated answers are not strikes, because what was asked is remembered. An honest node with one rotten block on its
disk gets one strike among thousands of good blocks and stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cid import PeerId
from .limits import BAN_SECONDS, BAN_SECONDS_MAX, MAX_UNASKED_BYTES, MIN_UNASKED_BLOCKS, UNASKED_PER_GOOD
from .statistics import Traffic


@dataclass(frozen=True, slots=True)
class Ban:
    """A peer that is refused until `until` (engine clock, seconds). `count`: how often it was banned."""

    peer: PeerId
    until: float
    count: int
    reason: str


class Conduct:
    """The bans of all peers. They outlive connections, not the process."""

    def __init__(self) -> None:
        self._bans: dict[PeerId, Ban] = {}

    def judge(self, peer: PeerId, traffic: Traffic, now: float) -> Ban | None:
        """The ban that `traffic` of `peer`, since it connected, has earned."""
        count, size = traffic.unasked_blocks, traffic.unasked_bytes
        many = count >= MIN_UNASKED_BLOCKS and count > traffic.blocks_received * UNASKED_PER_GOOD
        if many or size > MAX_UNASKED_BYTES:
            return self.ban(peer, f"sent {count} blocks ({size} bytes) that nobody asked of it", now)
        return None

    def ban(self, peer: PeerId, reason: str, now: float) -> Ban:
        """Refuse `peer` from now on; each further ban lasts twice as long."""
        known = self._bans.get(peer)
        count = known.count + 1 if known is not None else 1
        seconds = min(BAN_SECONDS * 2 ** (count - 1), BAN_SECONDS_MAX)
        ban = self._bans[peer] = Ban(peer, now + seconds, count, reason)
        return ban

    def banned(self, peer: PeerId, now: float) -> Ban | None:
        """The ban of `peer` that is in force."""
        ban = self._bans.get(peer)
        return ban if ban is not None and ban.until > now else None

    def bans(self, now: float) -> list[Ban]:
        """All bans in force."""
        return [ban for ban in self._bans.values() if ban.until > now]

    def lift(self, peer: PeerId) -> bool:
        """End the ban of `peer` and forget that it was; whether there was one."""
        return self._bans.pop(peer, None) is not None
