"""How long a session will take, from what its parts took before; corrected by what they take now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from .contenders import Contender
from .scenarios import MB, Scenario

NODE_SECONDS = 1.2
"""Starting a node, connecting it and moving the warm-up file."""
MAKE_RATE = 250.0
"""MB/s at which a file of random bytes is written."""
LOAD_RATE = 250.0
"""MB/s at which a provider takes a file into its store."""
AROUND_RATE = 500.0
"""MB/s of what is done around a fetch: touching memory before it, removing the store after it."""


def rounds_of(scenario: Scenario, rounds: int) -> int:
    """Rounds that `scenario` gets when `rounds` are asked for: large ones have an upper bound of their own."""
    return min(rounds, scenario.most_rounds)


def expected_seconds(scenario: Scenario, contenders: Sequence[Contender], rounds: int) -> float:
    """What `scenario` should take, to within a factor of two; 0 without contenders."""
    if not contenders:
        return 0.0
    size = scenario.size / MB
    copies = 1 if scenario.thirds else scenario.providers
    total = size / MAKE_RATE
    for one in contenders:
        total += scenario.providers * NODE_SECONDS + copies * size / LOAD_RATE
        total += rounds_of(scenario, rounds) * (NODE_SECONDS + size / one.usual_rate + size / AROUND_RATE)
    return total


@dataclass(slots=True)
class Progress:
    """Tells what is done and what is left of a session whose parts should take `expected` seconds each."""

    expected: Sequence[float]
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    @property
    def gone(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds still to come, by what the parts that are done took."""
        spent = sum(self.expected[: self.done])
        pace = self.gone / spent if self.done and spent else 1.0
        return pace * sum(self.expected[self.done :])

    def __str__(self) -> str:
        times = f"{self.gone / 60:.1f} minutes gone, about {self.left / 60:.0f} to go"
        return f"{self.done} of {len(self.expected)} done; {times}"
