"""Every input of every corpus, in the fast suite: a finding that was fixed stays fixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUTS = [
    pytest.param(name, path, id=f"{name}-{path.name[:12]}")
    for name in TARGETS
    for path in sorted((CORPUS / name).glob("*"))
]


@pytest.mark.parametrize(("name", "path"), INPUTS)
def test_no_finding(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
