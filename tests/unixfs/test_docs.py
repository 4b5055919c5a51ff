"""The example of docs/unixfs.md runs, and the profiles in its table are the program's."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from ipcs.unixfs.budget import DEFAULT_BUDGET
from ipcs.unixfs.profile import PROFILES

TEXT = (Path(__file__).parents[2] / "docs" / "unixfs.md").read_text()


def test_the_library_example() -> None:
    [program] = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(program, "docs/unixfs.md", "exec"), {})
    assert out.getvalue() == "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e 11\n"


def test_profiles_and_budget_are_documented_as_they_are() -> None:
    table = {row[0]: [cell.strip() for cell in row[1:]] for row in rows(TEXT)}
    names = [cell.split("`")[1] for cell in table[""]]
    for column, name in enumerate(names):
        profile = PROFILES[name]
        leaves = "raw" if profile.raw_leaves else "dag-pb"
        assert table["CID, leaves"][column] == f"v{profile.cid_version}, {leaves}"
        size = profile.chunker.removeprefix("size-")
        assert table["chunk, links of a node"][column] == f"{size}, {profile.max_links}"
        assert table["size estimate of a directory"][column] + "-bytes" == profile.hamt_estimate.value
    assert set(names) == set(PROFILES)
    assert f"{DEFAULT_BUDGET.depth} links from the root" in TEXT
    assert f"| {DEFAULT_BUDGET.blocks:,} |" in TEXT
    assert DEFAULT_BUDGET.size == 1 << 40


def rows(text: str) -> list[list[str]]:
    section = text.partition("## Profiles")[2].partition("##")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
