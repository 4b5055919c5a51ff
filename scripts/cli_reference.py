"""Writes docs/cli.md from the parsers themselves: `make docs`. A test fails when the page is out of date."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ipcs import cli, node

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"

HEAD = """\
# The command line

Written by `make docs` from the commands' own help. Commands find the node by `--repo` or `$IPCS_PATH` (default
`~/.ipcs`), or by `--socket`. Reading commands take `--json` and print one document a line.

"""


def commands(parser: argparse.ArgumentParser, name: str = "ipcs") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that can be run, with its full name."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for word, child in group.choices.items():
            yield from commands(child, f"{name} {word}")


def page() -> str:
    """The whole page."""
    exit_codes = " ".join((cli.__doc__ or "").partition("\n\n")[2].split())
    parts = [HEAD, exit_codes, "\n"]
    parts += _section("python -m ipcs.node", node.build_parser())
    for name, parser in commands(cli.build_parser()):
        parts += _section(name, parser)
    return "".join(parts)


def _section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    description = (parser.description or "").strip()
    yield f"\n## {name}\n\n{description}\n\n| argument | |\n| --- | --- |\n"
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            yield _row(action)
    example, *more = (parser.epilog or "").partition(":\n")[2].strip("\n").split("\n\n")
    yield f"\n{textwrap.indent(textwrap.dedent(example), '    ')}\n"
    yield from (f"\n{paragraph.strip()}\n" for paragraph in more)


def _row(action: argparse.Action) -> str:
    value = action.metavar or (action.dest if action.nargs != 0 else "")
    if action.choices is not None:
        value = " or ".join(str(choice) for choice in action.choices)
    flags = ", ".join(action.option_strings)
    takes_value = action.nargs != 0
    text = f"{flags} {value}".strip() if takes_value else flags
    return f"| `{text}` | {action.help or ''} |\n".replace("%%", "%")


if __name__ == "__main__":
    PAGE.write_text(page())
