"""docs/bitswap.md says what the code does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ipcs.bitswap.session import TRANSITIONS, Heard, Holding

_PATH = Path(__file__).parents[2] / "scripts" / "bitswap_tables.py"
_SPEC = importlib.util.spec_from_file_location("bitswap_tables", _PATH)
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)


def test_tables_are_those_of_the_code():
    document = tables.DOCUMENT.read_text()
    assert tables.render(document) == document, "run python -m scripts.bitswap_tables --write"
    for name in tables.TABLES:
        assert f"<!-- table: {name} -->" in document


def test_every_state_knows_every_word():
    assert set(TRANSITIONS) == {(state, heard) for state in Holding for heard in Heard}
