"""Rate limits. Pure: time is an argument."""

from __future__ import annotations

from math import inf

_BURST_SECONDS = 0.1
"""A limited flow may send this much of its rate at once: a tenth of a second is invisible to a link's other users."""


class TokenBucket:
    """Permits `rate` bytes a second. Debt is allowed: a whole block may go once any budget is left."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._budget = rate * _BURST_SECONDS
        self._at = -inf

    def take(self, size: int, now: float) -> None:
        """Account `size` bytes that go out now."""
        if self._rate == inf:
            return
        self._refill(now)
        self._budget -= size

    def ready(self, now: float) -> bool:
        """Whether something may go out now."""
        if self._rate == inf:
            return True
        self._refill(now)
        return self._budget > 0

    def ready_at(self, now: float) -> float:
        """When something may go out: `now`, or later."""
        if self.ready(now):
            return now
        return now + max(-self._budget / self._rate, 1e-3)

    def _refill(self, now: float) -> None:
        if self._at == -inf:
            self._at = now
        self._budget = min(self._rate * _BURST_SECONDS, self._budget + (now - self._at) * self._rate)
        self._at = now
