"""What a part of `benchmarks.content` prints: a figure with what it is compared with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
Pair = tuple[Sequence[float], Sequence[float]]


def ratio(
    what: str, figures: Pair, unit: str, names: tuple[str, str] = ("ours", "other"), cpu: Pair | None = None
) -> Row:
    """Medians of both sides, and the median and range of their ratios round by round."""
    ratios = sorted(a / b for a, b in zip(*figures, strict=True))
    row: Row = {"what": what, "unit": unit, "rounds": len(ratios)}
    for name, side in zip(names, figures, strict=True):
        row[name] = round(statistics.median(side), 3)
    for name, side in zip(names, cpu or (), strict=False):
        row[f"{name} CPU-s"] = round(statistics.median(side), 2)
    return {**row, "ratio": round(statistics.median(ratios), 3), "range": [round(ratios[0], 3), round(ratios[-1], 3)]}
