"""Options that several commands share, and the forms their values take."""

from __future__ import annotations

import argparse
import getpass
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import SOCKET_NAME, default_repo
from .terminal import Terminal

if TYPE_CHECKING:
    from ..control.client import ControlClient

Subparsers = argparse._SubParsersAction
Command = Callable[[argparse.Namespace, Terminal], int]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def duration(text: str) -> float:
    """Seconds of `90s`, `1m30s`, `500ms` (Go's notation, as Kubo's --timeout takes it) or a bare number of seconds."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 90s, 1m30s or 500ms")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def own_owner() -> str:
    """The owner of what this user keeps: `user/<name>`, or `user/<uid>` for one without a name, as in containers."""
    try:
        return f"user/{getpass.getuser()}"
    except (KeyError, OSError):  # OSError since Python 3.13
        return f"user/{os.getuid()}"


def command(
    sub: Subparsers[argparse.ArgumentParser],
    name: str,
    run: Command,
    *,
    about: str,
    example: str,
    reads: bool = True,
    node: bool = True,
) -> argparse.ArgumentParser:
    """Add the command `name`: its help ends with a runnable `example`.

    `reads` gives it --json; `node` gives it --repo, --socket and --timeout.
    """
    parser = sub.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, json=False)
    if reads:
        parser.add_argument("--json", action="store_true", help="print JSON, one document a line")
    if node:
        parser.add_argument(
            "--repo", type=Path, metavar="DIR", help="repo of the node (default: $IPCS_PATH or ~/.ipcs)"
        )
        parser.add_argument("--socket", type=Path, metavar="PATH", help="the node's socket (default: REPO/ipcs.sock)")
        parser.add_argument("--timeout", type=duration, metavar="DURATION", help="give up after e.g. 30s or 1m30s")
    return parser


def connect(args: argparse.Namespace) -> ControlClient:
    """The client for the node that the options name."""
    from ..control.client import ControlClient  # importing grpc takes longer than many commands

    repo = args.repo or default_repo(os.environ)
    return ControlClient((args.socket or repo / SOCKET_NAME).absolute())
