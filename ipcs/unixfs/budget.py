"""How much of a DAG may be followed before giving up: a few kilobytes of blocks can describe endless files.

A budget is spent by visit, not by distinct block, so that one block linked a billion times costs a billion visits.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..cid import Cid, format_cid
from ..errors import LimitExceeded


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on one walk, read or extraction."""

    depth: int = 256
    """Links from the root. A balanced tree of 1 TiB has 4 levels at 174 links, 22 at 2; directories add their own."""
    blocks: int = 5_000_000
    """Blocks visited: 1 TiB in leaves of 256 KiB and its inner nodes. A walk remembers about 150 bytes of each."""
    size: int = 1 << 40
    """Bytes read or written: 1 TiB."""


DEFAULT_BUDGET = Budget()


class Spending:
    """What is left of a budget while one DAG is followed. All methods raise `LimitExceeded`."""

    def __init__(self, budget: Budget, root: Cid) -> None:
        self._budget = budget
        self._root = root
        self._blocks = 0
        self._size = 0

    def check_depth(self, depth: int) -> None:
        """Refuse a block `depth` links below the root when that is too deep."""
        if depth > self._budget.depth:
            raise self._exceeded("depth", self._budget.depth, "links from the root")

    def add_block(self) -> None:
        """Count one more block visited."""
        self._blocks += 1
        if self._blocks > self._budget.blocks:
            raise self._exceeded("blocks", self._budget.blocks, "blocks")

    def add_size(self, size: int) -> None:
        """Count `size` more bytes read or written."""
        self._size += size
        if self._size > self._budget.size:
            raise self._exceeded("size", self._budget.size, "bytes")

    def _exceeded(self, which: str, limit: int, unit: str) -> LimitExceeded:
        text = format_cid(self._root)
        message = f"the DAG {text} exceeds the {which} budget of {limit} {unit}; raise it if you trust the DAG"
        return LimitExceeded(message, subject=text)
