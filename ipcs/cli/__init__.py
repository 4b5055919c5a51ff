"""The command line: one file per group of commands, found through `COMMANDS`."""

from __future__ import annotations


def run(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    raise SystemExit(f"ipcs: no command is wired yet: {argv}")
