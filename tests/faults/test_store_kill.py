"""Kill -9 during ingest, commit, reference changes, collection and LevelDB's compaction. See `store_kill`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("store_kill.py")
MEMORY = Path("/dev/shm")
"""Where to keep the store: what a killed process leaves is in the page cache, and no disk has to be waited for."""


def kill(rounds, seed):
    with tempfile.TemporaryDirectory(prefix="ipcs-kill-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        command = [sys.executable, str(PROGRAM), "--rounds", str(rounds), "--seed", str(seed), "--directory", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_a_few_kills():
    assert kill(rounds=8, seed=8)["kills"] == 8


@pytest.mark.slow
def test_two_hundred_kills():
    report = kill(rounds=200, seed=20)
    assert report["kills"] == 200
    assert all(report["done"][kind] > 100 for kind in ("ingest", "refer", "drop", "collect", "offset", "fetch")), report
