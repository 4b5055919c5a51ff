"""Verified blocks from one process to another, beside Kubo, py-libp2p and plain HTTP. See README.md.

python -m benchmarks.data_path --quick
python -m benchmarks.data_path --full --rounds 5 --json results.json
python -m benchmarks.data_path --only golang --rounds 5 --with kubo
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from ipcs.errors import InvalidArgument

from .contenders import CONTENDERS, Contender
from .measure import PROJECT, Record, Spread
from .plan import Progress, expected_seconds, rounds_of
from .runner import Run, alternate
from .scenarios import FULL, GO_IPFS, GOLANG, MB, QUICK, Scenario

YARDSTICKS = (GO_IPFS, GOLANG)
"""Where the contenders run that only do the plain case."""
MIXED = (GOLANG,)
"""Where Kubo and ipcs fetch from each other."""


def takes_part(one: Contender, scenario: Scenario, *, full: bool) -> bool:
    """Whether `one` is measured in `scenario`."""
    able = scenario in YARDSTICKS if one.is_plain else scenario in MIXED or one.fetcher is one.provider
    able = able and (one.name == "ipcs" or not scenario.alone)
    return able and (full or scenario.size <= one.quick_limit)


def summary(runs: Sequence[Run]) -> Table:
    """One row for each contender of a scenario; ratios are taken round by round."""
    table = Table(title=runs[0].scenario.name, title_justify="left")
    for column in ("", "MB/s", "CPU-s/GB fetcher", "provider", "peak MB", "provider", "dup %", "x kubo", "ipcs is x"):
        table.add_column(column, justify="left" if not column else "right")
    for name in dict.fromkeys(run.contender for run in runs):
        mine = [run for run in runs if run.contender == name]
        size = mine[0].scenario.size
        duplicates = [run.duplicates / size * 100 for run in mine if run.duplicates is not None]
        table.add_row(
            name,
            f"{Spread.of([run.rate for run in mine]):.0f}",
            f"{Spread.of([run.cost.fetcher_cpu / size * 1e9 for run in mine]).median:.2f}",
            f"{Spread.of([run.cost.provider_cpu / size * 1e9 for run in mine]).median:.2f}",
            f"{max(run.cost.fetcher_peak for run in mine) / MB:.0f}",
            f"{max(run.cost.provider_peak for run in mine) / MB:.0f}",
            f"{Spread.of(duplicates).median:.2f}" if duplicates else "",
            _text(ratios(runs, name, "kubo")),
            _text(ratios(runs, "ipcs", name)),
        )
    return table


def ratios(runs: Sequence[Run], over: str, under: str) -> list[float]:
    """MB/s of the contender `over` divided by that of `under` in the same round; empty for itself."""
    rates = {(run.contender, run.round): run.rate for run in runs}
    rounds = [number for name, number in rates if name == over and (under, number) in rates]
    return [rates[over, number] / rates[under, number] for number in rounds if over != under]


def _text(figures: Sequence[float]) -> str:
    return f"{Spread.of(figures):.2f}" if figures else ""


async def measure(
    planned: Sequence[tuple[Scenario, Sequence[Contender]]], rounds: int, disk: Path, record: Record, json: Path
) -> None:
    """All runs of all scenarios; a table for each as it ends, when `record` is written to `json` as well."""
    console = Console(width=150)
    progress = Progress([expected_seconds(scenario, taking, rounds) for scenario, taking in planned])
    console.print(f"{len(planned)} scenarios, about {progress.left / 60:.0f} minutes")
    for scenario, taking in planned:
        runs: list[Run] = []

        def report(run: Run | None, runs: list[Run] = runs) -> None:
            if run is None:
                console.print("a run was given up: every try stalled")
            else:
                runs.append(run)

        await alternate(scenario, taking, rounds_of(scenario, rounds), disk, report)
        progress.done += 1
        if runs:
            console.print(summary(runs))
        console.print(str(progress))
        record.results.extend(run.row() for run in runs)
        record.write(json, complete=progress.done == len(planned))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="the scenarios of `make bench` (the default)")
    which.add_argument("--full", action="store_true", help="all scenarios")
    parser.add_argument("--only", metavar="TEXT", help="only scenarios whose name contains TEXT")
    parser.add_argument("--rounds", type=int, help="runs of each contender (default 3; 5 with --full)")
    parser.add_argument("--with", dest="names", default=",".join(CONTENDERS), help="contenders, by comma")
    parser.add_argument("--disk", type=Path, default=PROJECT / ".cache", help="where durable stores go")
    parser.add_argument("--json", type=Path, default=PROJECT / ".cache" / "bench" / "data_path.json")
    args = parser.parse_args()
    names = args.names.split(",")
    if unknown := set(names) - set(CONTENDERS):
        raise InvalidArgument(f"no such contender: {', '.join(unknown)}; choose from {', '.join(CONTENDERS)}")
    scenarios = [one for one in (FULL if args.full else QUICK) if not args.only or args.only in one.name]
    rounds = args.rounds or (5 if args.full else 3)
    chosen = [CONTENDERS[name] for name in names]
    planned = [(one, [each for each in chosen if takes_part(each, one, full=args.full)]) for one in scenarios]
    planned = [(one, taking) for one, taking in planned if taking]
    record = Record(" ".join(["python -m benchmarks.data_path", *sys.argv[1:]]), [])
    trio.run(measure, planned, rounds, args.disk, record, args.json)
    print(f"written to {args.json}")


if __name__ == "__main__":
    main()
