"""Noticing that a peer is gone although its connection is not: a pure state machine."""

from __future__ import annotations


class Keepalive:
    """Whether the peer still lives: after a silence it is pinged, after a silence upon that it is dead."""

    def __init__(self, now: float, ping_after: float, pong_within: float) -> None:
        """`ping_after`, `pong_within`: seconds."""
        self._ping_after = ping_after
        self._pong_within = pong_within
        self._heard = now
        self._asked: float | None = None
        self._ping = (0, now)

    def next_deadline(self) -> float:
        """When the silence has lasted too long."""
        if self._asked is not None:
            return self._asked + self._pong_within
        return self._heard + self._ping_after

    def silence(self, now: float) -> float | None:
        """How long an answer has been overdue to a ping that found no answer, else None."""
        return now - self._heard if self._asked is not None and now >= self.next_deadline() else None

    def heard(self, now: float) -> None:
        """A sign of life."""
        self._heard = now
        self._asked = None

    def ping(self, now: float) -> int:
        """The number of a new ping."""
        if self._asked is None:
            self._asked = now
        self._ping = (self._ping[0] % 0xFFFFFFFF + 1, now)
        return self._ping[0]

    def pong(self, number: int, now: float) -> float | None:
        """The round trip, when `number` is that of the last ping."""
        return now - self._ping[1] if number == self._ping[0] else None
