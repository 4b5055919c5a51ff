"""The tables of docs/bitswap.md, made from the code: `python -m scripts.bitswap_tables --write`.

A test compares the document with the code, so a table cannot go stale.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import typing
from collections.abc import Iterable
from pathlib import Path

from ipcs.bitswap import events, limits
from ipcs.bitswap.session import TRANSITIONS, Heard, Holding

DOCUMENT = Path(__file__).parents[1] / "docs" / "bitswap.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _first_line(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def holding() -> str:
    """What a session believes a peer to hold, and what changes that."""
    rows = ([f"**{state.value}**", *(TRANSITIONS[state, heard].value for heard in Heard)] for state in Holding)
    return table(["holds", *(f"hears: {heard.value}" for heard in Heard)], rows)


def _union(name: str, union: object) -> str:
    members = typing.get_args(union)
    return table([name, ""], ([f"`{member.__name__}`", _first_line(inspect.getdoc(member))] for member in members))


def limit_constants() -> str:
    """Every constant of `ipcs.bitswap.limits` with its value and reason."""
    body = ast.parse(inspect.getsource(limits)).body
    rows: list[list[str]] = []
    waiting: list[str] = []
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            waiting.append(node.targets[0].id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and waiting:
            values = ", ".join(f"`{name}` = {getattr(limits, name):,}" for name in waiting if len(name) > 3)
            rows.append([values, _first_line(str(node.value.value))])
            waiting = []
        else:
            waiting = []
    return table(["limit", "why"], rows)


TABLES = {
    "holding": holding,
    "events": lambda: _union("event", events.Event),
    "actions": lambda: _union("action", events.Action),
    "limits": limit_constants,
}


def render(document: str) -> str:
    """`document` with the text between each `<!-- table: NAME -->` and `<!-- end -->` made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fill, document, flags=re.DOTALL)


def main() -> None:
    """Print the tables, or write them into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write them into {DOCUMENT.name}")
    if parser.parse_args().write:
        DOCUMENT.write_text(render(DOCUMENT.read_text()))
    else:
        print("\n\n".join(make() for make in TABLES.values()))


if __name__ == "__main__":
    main()
