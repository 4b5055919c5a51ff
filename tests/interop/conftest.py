"""Foreign peers for the interop tests. A peer that is not installed skips its tests, and fails them in CI."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ipcs.errors import NotFound
from ipcs.testing import peers

PIECE = 1 << 20


def _require(installed: Callable[[], object]) -> None:
    try:
        installed()
    except NotFound as missing:
        if os.environ.get("CI") == "true" or os.environ.get("IPCS_REQUIRE_PEERS") == "1":
            pytest.fail(missing.message)
        pytest.skip(missing.message)


@pytest.fixture
def kubo(tmp_path: Path):
    """`kubo("name", *flags)` opens a Kubo node with a repository of its own."""
    _require(peers.kubo_library)
    return lambda name="kubo", *flags: peers.open_kubo(tmp_path / name, *flags, name=name)


@pytest.fixture
def helia(tmp_path: Path):
    """`helia("name")` opens a Helia node."""
    _require(peers.helia_command)
    return lambda name="helia": peers.open_helia(tmp_path / name, name=name)


@pytest.fixture
def random_file(tmp_path: Path):
    """`random_file(size, seed)` writes incompressible bytes and returns the path."""

    def write(size: int, seed: int = 0) -> Path:
        path, source = tmp_path / f"random-{seed}-{size}", random.Random(seed)
        with path.open("wb") as file:
            for start in range(0, size, PIECE):
                file.write(source.randbytes(min(PIECE, size - start)))
        return path

    return write
