"""When to dial which bootstrap peer: exponential back-off with jitter, as a pure state machine.

The owner asks `due(now)`, dials what it names, and reports `connected`, `failed` or `lost`. Random numbers in [0, 1)
are arguments. A peer that was connected for a while starts from the shortest delay again; one that connects and falls
over at once keeps backing off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

FIRST_DELAY = 0.25
"""Seconds before the first repeat: a restarted node is usually back within a second."""

LONGEST_DELAY = 30.0
"""Seconds between attempts at most: a node that comes back after hours is found within this time."""

STABLE_AFTER = 10.0
"""A connection that lasted this many seconds counts as good: its loss starts the back-off afresh."""

JITTER = 0.5
"""A delay d becomes one in [d * (1 - JITTER), d]: nodes that lost the same peer do not come back in step."""


class DialState(Enum):
    """Where a target stands."""

    WAITING = auto()
    DIALLING = auto()
    CONNECTED = auto()


@dataclass
class _Target:
    state: DialState = DialState.WAITING
    at: float = 0.0
    """WAITING: when to dial; CONNECTED: since when."""
    failures: int = 0


class Redialer:
    """The dial schedule of a fixed set of targets (any hashable text, here multiaddrs)."""

    def __init__(self, targets: Iterable[str]) -> None:
        self._targets = {target: _Target() for target in targets}

    def state(self, target: str) -> DialState:
        """Where `target` stands."""
        return self._targets[target].state

    def due(self, now: float) -> list[str]:
        """The targets to dial now; they count as being dialled until reported."""
        ready = [
            name for name, target in self._targets.items() if target.state is DialState.WAITING and target.at <= now
        ]
        for name in ready:
            self._targets[name].state = DialState.DIALLING
        return ready

    def next_deadline(self) -> float | None:
        """When `due` may next name a target, or None while nothing waits."""
        waiting = [target.at for target in self._targets.values() if target.state is DialState.WAITING]
        return min(waiting, default=None)

    def connected(self, target: str, now: float) -> None:
        """A connection to `target` is up (whoever dialled it)."""
        entry = self._targets[target]
        if entry.state is not DialState.CONNECTED:
            entry.state = DialState.CONNECTED
            entry.at = now

    def failed(self, target: str, now: float, random: float) -> None:
        """A dial of `target` failed. Ignored when a connection came up by other means meanwhile."""
        entry = self._targets[target]
        if entry.state is DialState.DIALLING:
            self._wait(entry, now, random)

    def lost(self, target: str, now: float, random: float) -> None:
        """The last connection to `target` is gone."""
        entry = self._targets[target]
        if entry.state is not DialState.CONNECTED:
            return
        if now - entry.at >= STABLE_AFTER:
            entry.failures = 0
        self._wait(entry, now, random)

    def _wait(self, entry: _Target, now: float, random: float) -> None:
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(entry.failures, 16))
        entry.failures += 1
        entry.state = DialState.WAITING
        entry.at = now + delay * (1 - JITTER * random)
