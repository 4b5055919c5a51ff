"""What one peer wants of us and what it got. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from ..block import Data
from ..cid import Cid, PeerId
from .message import PRIORITY_STANDING
from .rate import TokenBucket
from .statistics import Traffic


class PeerWant:
    """One want of one peer. `size` in bytes, None while we lack the block."""

    __slots__ = ("cid", "claimed", "order", "priority", "send_dont_have", "size", "want_block")

    def __init__(self, cid: Cid, want_block: bool, priority: int, send_dont_have: bool, size: int | None) -> None:  # noqa: FBT001 - fields
        self.cid = cid
        self.want_block = want_block
        self.priority = priority
        self.send_dont_have = send_dont_have
        self.size = size
        self.order = 0
        self.claimed = False
        """Being read for a message, or waiting in one."""


class Ledger:
    """One peer. `wants` is what it holds open with us; the queue names those of them that we can send."""

    def __init__(self, peer: PeerId, rate: float, traffic: Traffic, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.peer = peer
        self.wants: dict[Cid, PeerWant] = {}
        self.presences: dict[Cid, bool] = {}
        """HAVE (True) and DONT_HAVE (False) to be sent."""
        self.standing: dict[Cid, PeerWant] = {}
        self.ready: list[tuple[Cid, Data]] | None = None
        """Blocks of the next message, read from the store."""
        self.ready_size = self.reading = self.sending = 0
        self.outstanding = 0
        """Bytes being read, ready, or being written for it; the sum of the three above."""
        self.served = 0
        """Virtual time of fair queueing: bytes served, lifted to its busy rivals' when it becomes busy."""
        self.bucket = TokenBucket(rate)
        self.traffic = traffic
        self._queued: list[tuple[int, int, PeerWant]] = []
        self._queued_orders: set[int] = set()
        self._order = 0

    @property
    def busy(self) -> bool:
        """Whether some block could be sent to it."""
        return bool(self._queued_orders or self.standing)

    def say(self, cid: Cid, *, held: bool) -> None:
        """Tell the peer HAVE or DONT_HAVE."""
        self.presences[cid] = held
        self._changed()

    def put_ready(self, blocks: list[tuple[Cid, Data]], size: int) -> None:
        """These blocks are the next message; `size` in bytes."""
        self.ready, self.ready_size = blocks, size
        self._changed()

    def queue(self, want: PeerWant) -> None:
        """`want` can be met."""
        if want.priority == PRIORITY_STANDING:
            self.standing[want.cid] = want
            return
        self._order += 1
        want.order = self._order
        self._queued_orders.add(want.order)
        heapq.heappush(self._queued, (-want.priority, want.order, want))

    def unqueue(self, want: PeerWant) -> None:
        """`want` is being met, or was cancelled."""
        self._queued_orders.discard(want.order)
        if self.standing.get(want.cid) is want:
            del self.standing[want.cid]
        want.order = 0

    def next_queued(self) -> PeerWant | None:
        """The want of highest priority, the oldest among equals; it stays queued."""
        while self._queued:
            _, order, want = self._queued[0]
            if order in self._queued_orders:
                return want
            heapq.heappop(self._queued)
        return None
