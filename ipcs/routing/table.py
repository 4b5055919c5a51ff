"""What peers said about blobs, as a table: claims by digest and peer, and who was asked in vain how long ago.

A claim is one peer's word: `size` and `root` may be lies until the blob's sha256 was checked here. Claims of different
peers are kept apart, so that one liar cannot overwrite an honest record.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ..cid import PeerId
from .messages import Record

K = TypeVar("K")
V = TypeVar("V")

MAX_CLAIMS = 65_536
"""Claims kept, the least recently used dropped: 30 MB. Forgetting costs one question."""

MAX_CLAIMS_PER_PEER = 8_192
"""Of these from one peer, so that nobody fills the table alone."""

ABSENT_TTL = 3.0
"""Seconds for which "every peer said no" holds: containerd asks a dozen times in a pull, and a peer may just be
getting the blob.
"""

UNANSWERED_TTL = 1.0
"""Seconds for which it holds when some peers did not answer in time."""

MAX_ABSENT = 65_536
"""Digests remembered as absent."""


class Table:
    """Claims and misses. `now` in seconds on any steady clock."""

    def __init__(self) -> None:
        self._claims: OrderedDict[tuple[str, PeerId], Record] = OrderedDict()
        self._holders: dict[str, dict[PeerId, None]] = {}
        self._by_peer: dict[PeerId, dict[str, None]] = {}
        self._absent: OrderedDict[str, float] = OrderedDict()

    def claimed(self, peer: PeerId, records: Iterable[Record]) -> None:
        """`peer` announced or answered `records`. Those that contradict themselves are ignored."""
        for record in records:
            if not record.is_plausible():
                continue
            self._absent.pop(record.digest, None)
            mine = self._by_peer.setdefault(peer, {})
            if record.digest not in mine and len(mine) >= MAX_CLAIMS_PER_PEER:
                self.withdrawn(peer, [next(iter(mine))])
            mine[record.digest] = None
            self._holders.setdefault(record.digest, {})[peer] = None
            self._claims[record.digest, peer] = record
            self._claims.move_to_end((record.digest, peer))
        while len(self._claims) > MAX_CLAIMS:
            digest, oldest = next(iter(self._claims))
            self.withdrawn(oldest, [digest])

    def withdrawn(self, peer: PeerId, digests: Iterable[str]) -> None:
        """`peer` no longer holds `digests`, or was found to lie about them."""
        for digest in digests:
            if self._claims.pop((digest, peer), None) is None:
                continue
            _discard(self._holders, digest, peer)
            _discard(self._by_peer, peer, digest)

    def disconnected(self, peer: PeerId) -> None:
        """Its word is worth nothing until it is back."""
        self.withdrawn(peer, list(self._by_peer.get(peer, ())))

    def connected(self) -> None:
        """Somebody new may hold what nobody did."""
        self._absent.clear()

    def claims(self, digest: str) -> Mapping[PeerId, Record]:
        """What connected peers claim of `digest`, oldest claim first."""
        return {peer: self._claims[digest, peer] for peer in self._holders.get(digest, ())}

    def missed(self, digests: Sequence[str], now: float, *, complete: bool) -> None:
        """All peers were asked for `digests` and none has them; `complete` when every one answered."""
        for digest in digests:
            if digest not in self._holders:
                self._absent[digest] = now + (ABSENT_TTL if complete else UNANSWERED_TTL)
                self._absent.move_to_end(digest)
        while len(self._absent) > MAX_ABSENT:
            self._absent.popitem(last=False)

    def is_absent(self, digest: str, now: float) -> bool:
        """Whether asking again is pointless for now."""
        until = self._absent.get(digest)
        if until is None:
            return False
        if until <= now:
            del self._absent[digest]
            return False
        return True


def _discard(index: dict[K, dict[V, None]], key: K, member: V) -> None:
    members = index.get(key)
    if members is not None:
        members.pop(member, None)
        if not members:
            del index[key]
