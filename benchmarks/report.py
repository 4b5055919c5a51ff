"""docs/benchmarks.md and its plot, from the JSON that data_path.py and real_links.py wrote. No figure is typed by hand.

python -m benchmarks.report benchmarks/results/*.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .measure import PROJECT, Spread
from .scenarios import MB

Row = dict[str, Any]

HEAD = """\
# Benchmark results

Made by `python -m benchmarks.report` from `benchmarks/results/`; `benchmarks/README.md` has the method,
`docs/performance.md` says what the figures mean. MB = 10^6 bytes; medians with the lowest and highest of the runs;
"first" is the first run. Ratios are taken within a round; do not divide figures of different tables.

![MB/s of ipcs and of the others](benchmarks.svg)
"""
TABLE = """\
| | runs | MB/s | first | CPU-s/GB fetcher | provider | peak MB fetcher / provider | duplicates | x kubo | \
CPU / kubo's | ipcs is x |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
LINKS = """\
| link | runs | TCP MB/s | ipcs MB/s | ipcs / TCP | fetcher CPU-s/GB |
| --- | ---: | ---: | ---: | ---: | ---: |
"""


def origin(record: Row) -> str:
    machine = record["machine"]
    where = f"{machine['cores']} cores of {machine['cpu']}, Linux {machine['kernel']}, Python {machine['python']}"
    took = f", {record['minutes']:.0f} minutes in all" if "minutes" in record else ""
    cut = "" if record.get("complete", True) else ", cut short"
    return f"{record['date']}, commit {record['commit']}, {where}{took}{cut}\n"


def per_round(rows: Sequence[Row], over: str, under: str, field: str) -> list[float]:
    """`field` of `over` divided by that of `under`, round by round."""
    values = {(row["contender"], row["round"]): row[field] for row in rows}
    return [
        value / values[under, number]
        for (name, number), value in values.items()
        if name == over != under and (under, number) in values
    ]


def contenders(rows: Sequence[Row]) -> Iterator[str]:
    for name in dict.fromkeys(row["contender"] for row in rows):
        mine = [row for row in rows if row["contender"] == name]
        size = mine[0]["size"]
        cost = [row["cost"] for row in mine]
        duplicates = [row["duplicates"] for row in mine if row["duplicates"] is not None]
        cells = [
            name,
            str(len(mine)),
            f"{Spread.of([row['rate'] for row in mine]):.0f}",
            "".join(f"{row['rate']:.0f}" for row in mine if not row["round"]),
            f"{Spread.of([one['fetcher_cpu'] / size * 1e9 for one in cost]):.2f}",
            f"{Spread.of([one['provider_cpu'] / size * 1e9 for one in cost]):.2f}",
            " / ".join(f"{max(one[side] for one in cost) / MB:.0f}" for side in ("fetcher_peak", "provider_peak")),
            f"{sum(duplicates) / len(duplicates) / size:.2%}" if duplicates else "",
            _ratio(per_round(rows, name, "kubo", "rate")),
            _ratio(per_round(rows, name, "kubo", "cpu")),
            _ratio(per_round(rows, "ipcs", name, "rate")),
        ]
        yield f"| {' | '.join(cells)} |\n"


def _ratio(figures: Sequence[float]) -> str:
    return f"{Spread.of(figures):.2f}" if figures else ""


def transfers(record: Row) -> Iterator[str]:
    rows: list[Row] = record["results"]
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        yield f"\n## {scenario}\n\n{origin(record)}\n{TABLE}"
        yield from contenders([row for row in rows if row["scenario"] == scenario])


def links(record: Row) -> Iterator[str]:
    rows: list[Row] = record["results"]
    yield f"\n## Real links between network namespaces\n\n{origin(record)}\n{LINKS}"
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        size = mine[0]["size"]
        cells = [
            name,
            str(len(mine)),
            f"{Spread.of([size / MB / row['tcp'] for row in mine]):.1f}",
            f"{Spread.of([size / MB / row['ipcs'] for row in mine]):.1f}",
            f"{Spread.of([row['tcp'] / row['ipcs'] for row in mine]):.3f}",
            f"{Spread.of([row['fetcher_cpu'] / size * 1e9 for row in mine]).median:.2f}",
        ]
        yield f"| {' | '.join(cells)} |\n"


def first_sessions(records: Sequence[Row]) -> list[Row]:
    """The rows of each scenario from the first record that has it: figures of two sessions do not mix."""
    rows: list[Row] = []
    for record in records:
        shown = {row["scenario"] for row in rows}
        rows += [row for row in record["results"] if row["scenario"] not in shown]
    return rows


def plot(rows: Sequence[Row], target: Path) -> None:
    """Bars of MB/s, with their spread, for each scenario and contender."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ipcs"  # the same figures give the same file
    from matplotlib import pyplot as plt

    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows))
    figure, axes = plt.subplots(figsize=(11, 0.8 * len(scenarios) + 1.5), layout="constrained")
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        found = [
            (place + index * height, Spread.of(rates))
            for place, scenario in enumerate(scenarios)
            if (rates := [row["rate"] for row in rows if (row["scenario"], row["contender"]) == (scenario, name)])
        ]
        spreads = [spread for _, spread in found]
        medians = [spread.median for spread in spreads]
        errors = [[one.median - one.low for one in spreads], [one.high - one.median for one in spreads]]
        axes.barh([place for place, _ in found], medians, height, xerr=errors, label=name)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(scenarios))], scenarios)
    axes.invert_yaxis()
    axes.set_xlabel("MB/s, median with lowest and highest")
    axes.legend()
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=PROJECT / "docs")
    args = parser.parse_args()
    records = [json.loads(path.read_text()) for path in args.records]
    moved = [record for record in records if "scenario" in record["results"][0]]
    linked = [record for record in records if "scenario" not in record["results"][0]]
    parts = [HEAD, *(part for record in moved for part in transfers(record))]
    parts += [part for record in linked for part in links(record)]
    (args.output / "benchmarks.md").write_text("".join(parts))
    plot(first_sessions(moved), args.output / "benchmarks.svg")


if __name__ == "__main__":
    main()
