"""`ipcs dag stat`: how large DAGs are, and how much they share."""

from __future__ import annotations

import argparse

from .options import Subparsers, command, connect
from .terminal import Terminal, human_bytes


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `dag` and its subcommands."""
    parser = sub.add_parser("dag", help="look at whole DAGs", description="Whole DAGs.")
    group = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    stat = command(
        group,
        "stat",
        _stat,
        about="count blocks and bytes of DAGs, and what they share; missing blocks are fetched",
        example="ipcs dag stat CID1 CID2",
    )
    stat.add_argument("paths", nargs="+", metavar="PATH", help="CID, or CID/a/b")
    stat.add_argument("--local-only", action="store_true", help="ask no peer for missing blocks")


def _stat(args: argparse.Namespace, terminal: Terminal) -> int:
    params = {"paths": args.paths, "local_only": args.local_only}
    with connect(args) as node:
        for frame in node.stream("dag.stat", params, timeout=args.timeout):
            if not isinstance(frame, dict):
                continue
            if "item" in frame:
                row = frame["item"]
                terminal.show(row, f"{row['cid']}  {row['blocks']} blocks  {human_bytes(row['size'])}")
            elif "result" in frame:
                total = frame["result"]
                text = (
                    f"all together: {total['unique_blocks']} blocks  {human_bytes(total['total_size'])}, "
                    f"{human_bytes(total['shared_size'])} shared (ratio {total['ratio']:.2f})"
                )
                terminal.show(total, text)
    return 0
