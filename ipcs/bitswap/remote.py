"""One peer as the fetching side sees it: how fast it is, what it was asked, when that is overdue. Pure.

The window is counted in bytes: what the peer delivers in `WINDOW_TRIPS` round trips, plus some, at its measured rate.
It grows geometrically while the window is the bottleneck and stays flat once the link is.

An ask is overdue at `due`: its own soft deadline, moved on while the peer delivers other blocks, but never past its
hard deadline. Deadlines of one peer are monotone in the order of asking, so only the oldest ask must be looked at.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf

from ..cid import Cid, PeerId
from .limits import (
    ASKED_MEMORY,
    DEADLINE_CONSTANT,
    DEADLINE_MULTIPLE,
    FIRST_DEADLINE,
    HARD_DEADLINE_MULTIPLE,
    MAX_ASKS_PER_PEER,
    RATE_MEMORY,
    STALL_BACKOFF_MAX,
    STANDING_DEADLINE,
    WINDOW_DELAY,
    WINDOW_SLACK,
    WINDOW_SLACK_DELAY,
    WINDOW_START,
    WINDOW_TRIPS,
    Config,
)
from .rate import TokenBucket
from .statistics import Traffic
from .wantlist import Wantlist

_LATENCY_GAIN = 0.2
_REFILL = 0.75
"""A window is refilled once this share of it is all that is left: one want message for many blocks."""


class Ask:
    """One want-block at one peer. Times in seconds of the engine's clock."""

    __slots__ = ("expected", "hard", "sent", "size", "soft")

    def __init__(self, size: int, sent: float, expected: float, soft: float, hard: float) -> None:
        self.size = size
        self.sent = sent
        self.expected = expected
        self.soft = soft
        self.hard = hard


class Remote:
    """A connected peer. The client owns it; nothing in it refers to sessions."""

    def __init__(self, peer: PeerId, config: Config, traffic: Traffic, changed: Callable[[], None]) -> None:
        self.peer = peer
        self.traffic = traffic
        self.presences = True
        self.wantlist = Wantlist(changed)
        self.asks: dict[Cid, Ask] = {}
        self.standing: dict[Cid, float] = {}
        """Want-blocks of lowest priority left here, and since when; they are no part of the window."""
        self.in_flight = 0
        self.window = WINDOW_START
        self.rate = 0.0
        self.latency = 0.0
        self.latency_min = inf
        self.stalled = False
        self.quiet_until = -inf
        self.settled: OrderedDict[Cid, None] = OrderedDict()
        self.bucket = TokenBucket(config.download_rate_per_peer)
        self._window_max = config.window_max
        self._progress = -inf
        self._backoff = DEADLINE_CONSTANT
        self._sample_start = 0.0
        self._idle_since = 0.0
        self._sample_bytes = 0

    # -- asking --------------------------------------------------------------------------------------------------------

    def room(self, now: float) -> bool:
        """Whether another ask may be made now."""
        if now < self.quiet_until:
            return False
        if self.stalled:
            return not self.asks
        return self.in_flight < self.window and len(self.asks) < MAX_ASKS_PER_PEER

    def hungry(self, now: float) -> bool:
        """Whether enough of the window is free to make a message worth while."""
        return self.in_flight <= self.window * _REFILL and self.room(now)

    @property
    def timed(self) -> bool:
        """Whether time may change something: it owes us blocks, or is quiet."""
        return bool(self.asks or self.standing or self.stalled)

    def delay(self, size: int) -> float:
        """Seconds until `size` more bytes would be here, by measured rate; used to compare peers."""
        if self.rate:
            return (self.in_flight + size) / self.rate
        return FIRST_DEADLINE * (self.in_flight + size) / WINDOW_START

    def ask(self, cid: Cid, size: int, now: float, patience: float) -> None:
        """Account a want-block of about `size` bytes that goes out now.

        `patience`: seconds that the queue here is believed to take at most.
        """
        if not self.asks:
            self._sample_start += now - self._idle_since
        self.in_flight += size
        wait = max((self.latency if self.rate else 0.0), self.delay(0))
        if not self.rate:
            wait = max(wait, FIRST_DEADLINE / DEADLINE_MULTIPLE)
        wait = min(wait, patience)
        soft = now + DEADLINE_CONSTANT + DEADLINE_MULTIPLE * wait
        hard = now + HARD_DEADLINE_MULTIPLE * (DEADLINE_CONSTANT + DEADLINE_MULTIPLE * wait)
        if self.asks:
            last = self.asks[next(reversed(self.asks))]
            soft, hard = max(soft, last.soft), max(hard, last.hard)
        self.asks[cid] = Ask(size, now, now + wait, soft, hard)
        self.remember(cid)

    def remember(self, cid: Cid) -> None:
        """Keep in mind that `cid` was asked here, so that a late answer is not counted as unasked."""
        self.settled[cid] = None
        self.settled.move_to_end(cid)
        if len(self.settled) > ASKED_MEMORY:
            self.settled.popitem(last=False)

    def unask(self, cid: Cid) -> bool:
        """Forget the ask for `cid`; whether there was one."""
        ask = self.asks.pop(cid, None)
        if ask is not None:
            self.in_flight -= ask.size
        return ask is not None

    # -- answers -------------------------------------------------------------------------------------------------------

    def delivered(self, cid: Cid, size: int, now: float) -> None:
        """A wanted block came from here."""
        self.traffic.blocks_received += 1
        self.traffic.bytes_received += size
        self._progress = now
        self.stalled, self._backoff, self.quiet_until = False, DEADLINE_CONSTANT, -inf
        ask = self.asks.pop(cid, None)
        if ask is None:
            return
        self.in_flight -= ask.size
        latency = now - ask.sent
        self.latency_min = min(self.latency_min, latency)
        self.latency += (latency - self.latency) * (_LATENCY_GAIN if self.latency else 1.0)
        self._sample(size, now)
        if not self.asks:
            self._idle_since = now

    def repeated(self, cid: Cid, size: int) -> None:
        """A block came from here that was needed once and is no more; so this peer holds no want for it any longer."""
        self.traffic.duplicate_blocks += 1
        self.traffic.duplicate_bytes += size
        self.unask(cid)
        self.wantlist.answered(cid)

    def _sample(self, size: int, now: float) -> None:
        self._sample_bytes += size
        elapsed = now - self._sample_start
        if elapsed < RATE_MEMORY / 4 and (self.rate or self.asks):
            return
        sample = self._sample_bytes / max(elapsed, 1e-4)
        self.rate = sample if not self.rate else self.rate + (sample - self.rate) * min(1.0, elapsed / RATE_MEMORY)
        self._sample_start, self._sample_bytes = now, 0
        target = self.rate * (WINDOW_TRIPS * self.latency_min + WINDOW_DELAY) + min(
            WINDOW_SLACK, self.rate * WINDOW_SLACK_DELAY
        )
        self.window = int(min(self._window_max, max(target, 2 * size)))

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def due(self) -> float:
        """When the oldest ask, or the oldest standing want, is overdue; inf when there is none."""
        return min(self._ask_due(), self._standing_due())

    def _ask_due(self) -> float:
        for ask in self.asks.values():
            grace = DEADLINE_CONSTANT + DEADLINE_MULTIPLE * self.latency
            return min(ask.hard, max(ask.soft, self._progress + grace))
        return inf

    def _standing_due(self) -> float:
        for since in self.standing.values():
            return max(since, self._progress) + STANDING_DEADLINE
        return inf

    def expire(self, now: float) -> list[Cid]:
        """The asks that are overdue, which are forgotten. A peer that delivered nothing since loses all of them."""
        expired: list[Cid] = []
        stalled = self._standing_due() <= now
        while not stalled and self._ask_due() <= now:
            cid, ask = next(iter(self.asks.items()))
            stalled = self._progress < ask.sent
            if not stalled:
                self.unask(cid)
                expired.append(cid)
        if stalled:
            expired += [*self.asks, *self.standing]
            self.asks, self.standing, self.in_flight = {}, {}, 0
            self._stall(now)
        return expired

    def excuse(self, now: float) -> None:
        """Nothing could be heard until now: count what it owes as if asked now."""
        for ask in self.asks.values():
            late = now - ask.sent
            ask.sent, ask.expected, ask.soft, ask.hard = now, ask.expected + late, ask.soft + late, ask.hard + late
        self.standing = dict.fromkeys(self.standing, now)

    def _stall(self, now: float) -> None:
        self.stalled = True
        self.quiet_until = now + self._backoff
        self._backoff = min(2 * self._backoff, STALL_BACKOFF_MAX)
        self.rate, self.window = 0.0, WINDOW_START
