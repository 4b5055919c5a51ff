"""The command line: one file per group of commands, each with a `register` that adds its parsers.

Exit codes: 0 success, 1 failure, 2 wrong usage or input, 3 no node answers (or the repo is in use), 4 not found,
5 timed out, 6 a limit was reached (disk full, too many requests), 7 corrupt data, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import IpcsError
from . import bitswap, block, car, cidcmd, containerd, dag, files, pins, repo, swarm
from .terminal import Terminal

GROUPS = (files, dag, car, cidcmd, block, pins, repo, swarm, bitswap, containerd)
"""Modules with a `register(sub)`; help lists their commands in this order."""

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="ipcs",
        description="Move content-addressed files and container images from peer to peer. "
        "Most commands talk to a node: start one with `python -m ipcs.node`.",
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in GROUPS:
        group.register(sub)
    return parser


def run(argv: list[str]) -> int:
    """Run one command; its exit code."""
    args = build_parser().parse_args(argv)
    terminal = Terminal(as_json=args.json)
    try:
        code: int = args.run(args, terminal)
        sys.stdout.flush()
    except IpcsError as exc:
        terminal.error(exc.message)
        return exc.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`| head`): normal. Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:
        terminal.error(f"{exc.strerror}: {exc.filename}" if exc.filename else str(exc))
        return 1
    return code
