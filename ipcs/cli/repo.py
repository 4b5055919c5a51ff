"""`ipcs gc | fsck`: give space back, and check what lies on disk."""

from __future__ import annotations

import argparse
from typing import Any

from ..config import parse_size
from .options import Subparsers, command, connect
from .terminal import Terminal, human_bytes

CORRUPT = 7
"""Exit code of a check that found something wrong, as of other corrupt data."""


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the commands on the store as a whole."""
    gc = command(
        sub,
        "gc",
        _gc,
        about="free what is cache, least recently served first, and say how much space came back",
        example="ipcs gc --dry-run",
    )
    gc.add_argument("-n", "--dry-run", action="store_true", help="only say what would be freed")
    gc.add_argument(
        "--down-to", type=parse_size, default=0, metavar="SIZE", help="stop at e.g. 20GB of disk (default: all cache)"
    )
    fsck = command(
        sub,
        "fsck",
        _fsck,
        about="check that every block hashes to its key, every DAG is whole and every count is right",
        example="ipcs fsck --repair",
    )
    fsck.add_argument(
        "--repair", action="store_true", help="quarantine corrupt blocks, so that they are fetched again, and mend"
    )


def _gc(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        result = node.call("gc", {"dry_run": args.dry_run, "down_to": args.down_to}, timeout=args.timeout)
    what = f"{result['blobs']} blobs, {result['blocks']} blocks, {human_bytes(result['block_bytes'])}"
    if args.dry_run:
        terminal.show(result, f"would free {what}")
    else:
        back = human_bytes(result["freed_bytes"])
        terminal.show(result, f"freed {what} in {result['seconds']:.1f} s; the file system got {back} back")
    return 0


def _fsck(args: argparse.Namespace, terminal: Terminal) -> int:
    result: dict[str, Any] = {}
    with connect(args) as node:
        for frame in node.stream("fsck", {"repair": args.repair}, timeout=args.timeout):
            if isinstance(frame, dict) and "item" in frame:
                row = frame["item"]
                terminal.show(row, f"{row['kind']}: {row['subject']} {row['message']}")
            elif isinstance(frame, dict) and "result" in frame:
                result = frame["result"]
    checked = f"checked {result['blocks']} blocks, {human_bytes(result['block_bytes'])}: "
    repaired = ", repaired what can be" if result["repaired"] and result["problems"] else ""
    terminal.show(result, checked + (f"{result['problems']} problems{repaired}" if result["problems"] else "clean"))
    return CORRUPT if result["problems"] else 0
