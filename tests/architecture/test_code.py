"""Rules about the code itself that no linter has."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for path in (ROOT / "ipcs").rglob("*.py") if not path.name.endswith("_pb2.py")]
MAX_LINES = 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {lines} lines: two reasons to change in one place?"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path):
    assert path.read_text().startswith('"""'), f"{path.relative_to(ROOT)} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_async_generator_is_left_to_the_garbage_collector(path):
    """One that is iterated over as it is made has no name, so nobody closes it when the loop ends early."""
    loops = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.AsyncFor)]
    lines = [node.lineno for node in loops if isinstance(node.iter, ast.Call)]
    assert not lines, f"{path.relative_to(ROOT)} lines {lines}: use `async with aclosing(...)`"


def test_importing_the_package_runs_nothing_and_is_light():
    program = """
import logging, sys
before = len(logging.Logger.manager.loggerDict)
import ipcs, ipcs.cid, ipcs.block, ipcs.errors, ipcs.config
heavy = {"libp2p", "grpc", "trio", "plyvel", "numpy", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT)


def one_file_each():
    return [
        ("plyvel", {"store/leveldb.py"}),
        ("grpc", {"control/client.py", "content/client.py"}),
    ]


@pytest.mark.parametrize(("module", "allowed"), one_file_each())
def test_foreign_engines_stay_at_the_rim(module, allowed):
    importers = {
        str(path.relative_to(ROOT / "ipcs"))
        for path in SOURCES
        for line in path.read_text().splitlines()
        if line.strip().startswith((f"import {module}", f"from {module}"))
    }
    importers = {name for name in importers if not name.startswith("testing/")}
    assert importers <= allowed, importers - allowed
