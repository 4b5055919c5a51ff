"""The plot of docs/benchmarks.md, from the JSON that data_path.py wrote.

python -m benchmarks.plot .cache/bench/data_path.json docs/benchmarks.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .measure import Spread


def plot(record: dict[str, Any], target: Path) -> None:
    """Bars of MB/s, with their spread, for each scenario and contender."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    rows = record["results"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    figure, axes = plt.subplots(figsize=(10, 0.9 * len(scenarios) + 1.5), layout="constrained")
    height = 0.8 / len(contenders)
    for index, contender in enumerate(contenders):
        places, spreads = [], []
        for place, scenario in enumerate(scenarios):
            rates = [row["rate"] for row in rows if row["scenario"] == scenario and row["contender"] == contender]
            if rates:
                places.append(place + index * height)
                spreads.append(Spread.of(rates))
        medians = [spread.median for spread in spreads]
        errors = [[one.median - one.low for one in spreads], [one.high - one.median for one in spreads]]
        axes.barh(places, medians, height, xerr=errors, label=contender)
    middle = 0.4 - height / 2
    axes.set_yticks([place + middle for place in range(len(scenarios))], scenarios)
    axes.invert_yaxis()
    axes.set_xlabel("MB/s, median with lowest and highest")
    machine = record["machine"]
    axes.set_title(
        f"{record['date'][:10]}, {record['commit']}, {machine['cores']} cores of {machine['cpu']}", fontsize=9
    )
    axes.legend()
    figure.savefig(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    plot(json.loads(args.record.read_text()), args.target)


if __name__ == "__main__":
    main()
