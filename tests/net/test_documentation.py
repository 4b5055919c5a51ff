"""docs/network.md names tests, constants and files: they are there, and the values are right."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from ipcs.net.yamux_frames import Limits
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "network.md").read_text()
TESTS = {
    name for path in Path(__file__).parent.glob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_every_test_named_exists(name):
    assert name in TESTS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(\w+\.[A-Z_]+|yamux_frames\.Limits)`", PAGE))))
def test_every_constant_named_exists(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(f"ipcs.net.{module}"), attribute)


def test_every_fault_with_a_test_is_listed():
    source = (Path(__file__).parent / "test_stock_faults.py").read_text()
    assert set(re.findall(r"def (test_\w+)", source)) <= set(re.findall(r"`(test_\w+)`", PAGE))


def test_every_file_of_the_package_is_in_the_picture_or_the_text():
    for path in (ROOT / "ipcs" / "net").glob("[a-z]*.py"):
        assert re.search(rf"\b{path.stem}\b", PAGE), path.name


def test_limits_are_those_of_the_table():
    limits = Limits()
    assert "| 1024; 4096 |" in PAGE
    assert (limits.inbound_streams, limits.refused_streams) == (1024, 4096)
    assert "| 1024; 256 |" in PAGE
    assert (limits.outbound_streams, limits.unacknowledged) == (1024, 256)
    assert "| 16 MiB |" in PAGE
    assert limits.unread == 16 << 20
    assert "| 32 MiB |" in PAGE
    assert limits.window_budget == 32 << 20
    assert "| 10 s, 20 s more |" in PAGE
    assert (limits.ping_after, limits.pong_within) == (10, 20)


def test_the_fuzz_targets_are_those_of_the_page():
    (line,) = re.findall(r"Fuzz targets: (.*)\.", PAGE)
    assert set(re.findall(r"`([\w-]+)`", line)) <= set(TARGETS)
