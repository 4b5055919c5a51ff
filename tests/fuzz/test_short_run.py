"""Every fuzz target for a short while; `make fuzz` runs them at length."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import trio

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = 20


async def run_target(name, limiter, artifacts, failures):
    argv = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(SECONDS), "--artifacts", str(artifacts)]
    async with limiter:
        with trio.fail_after(SECONDS * 10):
            done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT)
    if done.returncode:
        inputs = {path.name: path.read_bytes() for path in artifacts.iterdir()}
        failures[name] = f"{done.stderr.decode(errors='replace')[-3000:]}\ninputs: {inputs}"


@pytest.mark.slow
async def test_no_target_finds_anything_in_twenty_seconds(tmp_path):
    if importlib.util.find_spec("atheris") is None:
        assert sys.version_info >= (3, 13), "atheris is missing though there is a wheel for this Python: run make setup"
        pytest.skip("atheris has no wheel for this Python: only the corpora were run (tests/fuzz/test_corpus.py)")
    failures: dict[str, str] = {}
    limiter = trio.CapacityLimiter(os.cpu_count() or 1)
    async with trio.open_nursery() as nursery:
        for name in TARGETS:
            artifacts = tmp_path / name
            artifacts.mkdir()
            nursery.start_soon(run_target, name, limiter, artifacts, failures)
    assert not failures, "\n".join(f"{name}:\n{text}" for name, text in failures.items())
