"""The same CIDs as real importers: a current Kubo in all its modes, Kubo 0.22, and js-ipfs-unixfs.

`scripts/test-peers kubo-current` builds the current Kubo where Go is at hand; IPCS_KUBO names another binary.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ipcs.cid import format_cid
from ipcs.cli import run
from ipcs.errors import NotFound
from ipcs.testing import peers
from ipcs.unixfs.profile import UNIXFS_V0_2015, UNIXFS_V1_2025, Profile, customised
from ipcs.unixfs.scan import ScanOptions, scan
from ipcs.unixfs.tree import TreeImporter

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SIZES = [0, 1, 5, 262143, 262144, 262145, 700_000, 1_048_577]
SEED = 20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, source = tmp_path_factory.mktemp("files"), random.Random(SEED)
    paths = [folder / f"f{size:07}" for size in SIZES]
    for path, size in zip(paths, SIZES, strict=True):
        path.write_bytes(source.randbytes(size))
        path.chmod(source.choice([0o600, 0o644, 0o755, 0o4755]))
        os.utime(path, ns=(0, source.choice([0, 10**9, 1_603_539_720_000_054_321, 5 * 10**8])))
    return paths


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything in it: empty, nested, hidden, symlinks, names that are not ASCII or not UTF-8."""
    folder, source = tmp_path_factory.mktemp("tree") / "top", random.Random(SEED)
    for name in ("empty", "a/b/c", ".hidden/inside", "many"):
        (folder / name).mkdir(parents=True)
    for number in range(300):
        (folder / "many" / f"{source.randrange(10**9)}-{number}").write_bytes(source.randbytes(source.randrange(60)))
    for name in ("zero", "Zebra", "é", "日本", "a b", "a%20b", "-dash", ".dot", "a/b/c/deep", ".hidden/inside/x"):
        (folder / name).write_bytes(source.randbytes(40))
    (folder / "zero").write_bytes(b"")
    (folder / "link").symlink_to("a/b")
    (folder / "dangling").symlink_to("/nowhere/at/all")
    (folder / "a" / "b" / "c" / "deep").chmod(0o700)
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + source.randrange(10**18)), follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def current_kubo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """`current_kubo("profile", *arguments)`: the CIDs that `ipfs add -q ARGUMENTS` prints.

    Not with --only-hash: 0.42 fails with it on directories that carry a mode or an mtime ("could not find").
    """
    try:
        binary = os.environ.get("IPCS_KUBO") or peers.go_binary("kubo-current", "ipfs")
    except NotFound as missing:
        pytest.skip(f"NOT COMPARED WITH A CURRENT KUBO: IPCS_KUBO names no `ipfs` binary, and {missing.message}")
    repos: dict[str, Path] = {}

    def ipfs(repo: Path, *arguments: str | Path) -> bytes:
        env = {**os.environ, "IPFS_PATH": str(repo)}
        return subprocess.run([binary, *arguments], env=env, check=True, capture_output=True, timeout=120).stdout

    def add(profile: str, *arguments: str | Path) -> list[str]:
        if profile not in repos:
            repos[profile] = tmp_path_factory.mktemp("kubo")
            ipfs(repos[profile], "init", "--profile=test")
            if profile != "unixfs-v0-2015":  # those are the defaults; applied, they would count as set by the user
                ipfs(repos[profile], "config", "profile", "apply", profile)
        return ipfs(repos[profile], "add", "--pin=false", "-q", *arguments).decode().split()

    return add


@pytest.fixture
def ours(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The same of `ipcs add`."""

    def add(profile: str, *arguments: str | Path) -> list[str]:
        capsys.readouterr()
        assert run(["add", "--only-hash", "-q", "--profile", profile, *map(str, arguments)]) == 0
        return capsys.readouterr().out.split()

    return add


MODES = [
    "",
    "--cid-version=1",
    "--raw-leaves",
    "--cid-version=1 --raw-leaves=false",
    "--trickle",
    "--trickle --raw-leaves --max-file-links=3 --chunker=size-9000",
    "--trickle --cid-version=1 --chunker=size-50000 --max-file-links=2",
    "--chunker=size-1000 --max-file-links=2",
    "--chunker=size-5000 --max-file-links=7 --raw-leaves",
    "--chunker=size-262143",
    "--chunker=rabin",
    "--chunker=rabin-16384",
    "--chunker=rabin-1000-5000-90000 --cid-version=1",
    "--chunker=buzhash --cid-version=1",
    "--hash=sha2-512",
    "--hash=sha3-256",
    "--hash=keccak-256 --raw-leaves=false",
    "--hash=blake2b-256",
    "--hash=blake2s-256 --chunker=size-100000",
    "--hash=blake3",
    "--hash=sha1",
    "--hash=dbl-sha2-256",
    "--inline",
    "--inline --inline-limit=100 --cid-version=1",
    "--inline --chunker=size-30 --max-file-links=3 --cid-version=1",
    "--mode=0640",
    "--mode=0640 --chunker=size-50000",
    "--mtime=1603539720 --mtime-nsecs=54321",
    "--mtime=0",
    "--mode=07777 --mtime=-5 --cid-version=1",
    "--preserve-mode",
    "--preserve-mtime --cid-version=1",
    "--preserve-mode --preserve-mtime --trickle --chunker=size-90000",
]


def as_ours(mode: str) -> list[str]:
    return mode.replace("--raw-leaves=false", "--no-raw-leaves").split()


def as_kubo(mode: str, profile: str) -> list[str]:
    """Kubo refuses attributes under a profile with raw leaves, where ipcs makes none as Kubo does without a profile."""
    has_attributes = any(flag in mode for flag in ("--mode=", "--preserve", "--mtime=1", "--mtime=7"))
    refused = has_attributes and profile == "unixfs-v1-2025"
    return [*mode.split(), *(["--raw-leaves=false"] if refused else [])]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode or "default")
@pytest.mark.parametrize("profile", ["unixfs-v0-2015", "unixfs-v1-2025"])
def test_files_as_a_current_kubo(current_kubo, ours, files, profile: str, mode: str) -> None:
    inputs = files[:5] if "size-30 " in mode or "size-1000 " in mode else files
    assert ours(profile, *as_ours(mode), *inputs) == current_kubo(profile, *as_kubo(mode, profile), *inputs)


TREE_MODES = ["", "-H", "-w", "-H --cid-version=1", "--inline", "--preserve-mode", "--preserve-mode --preserve-mtime"]
TREE_MODES += ["--mode=0700 --mtime=7", "--hash=blake3 -H", "--raw-leaves -w"]


@pytest.mark.parametrize("mode", TREE_MODES, ids=lambda mode: mode or "default")
@pytest.mark.parametrize("profile", ["unixfs-v0-2015", "unixfs-v1-2025"])
def test_trees_as_a_current_kubo(current_kubo, ours, tree, profile: str, mode: str) -> None:
    assert set(ours(profile, "-r", *as_ours(mode), tree)) == set(
        current_kubo(profile, "-r", *as_kubo(mode, profile), tree)
    )
    assert ours(profile, "-rQ", *as_ours(mode), tree) == current_kubo(profile, "-rQ", *as_kubo(mode, profile), tree)


def many(folder: Path, entries: int, name: Callable[[int], str]) -> Path:
    folder.mkdir()
    for number in range(entries):
        (folder / name(number)).write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that is a HAMT under every profile, and nowhere near the threshold."""
    return many(tmp_path_factory.mktemp("large") / "d", 4600, lambda number: f"file-{number:040}")


@pytest.mark.parametrize(
    ("profile", "width", "entries"),
    # a name and its CID take 64 bytes: 4096 entries are 262144 bytes, and one entry more makes a HAMT
    [("unixfs-v0-2015", 30, n) for n in (4095, 4096, 4097)]
    # a link takes 64 bytes, and 4 are the node's own
    + [("unixfs-v1-2025", 20, n) for n in (4094, 4095, 4096)],
)
def test_the_hamt_threshold_as_a_current_kubo(current_kubo, ours, tmp_path, profile, width, entries) -> None:
    folder = many(tmp_path / "d", entries, lambda number: str(number).zfill(width))
    assert ours(profile, "-rQ", folder) == current_kubo(profile, "-rQ", folder)


def added(profile: Profile, path: Path, options: ScanOptions) -> str:
    importer = TreeImporter(profile)
    for step in scan(path, options):
        importer.step(step)
    return format_cid(importer.take()[-1].cid)


async def test_kubo_0_22_in_its_one_mode(kubo, files, large) -> None:
    """CIDv0, dag-pb leaves, 256 KiB. Its HAMT threshold is inclusive, so no directory here has exactly that size."""
    async with kubo("kubo") as node:
        for path in (*files, large):
            theirs = (await node.call("add", path=str(path)))["cid"]
            assert theirs == added(UNIXFS_V0_2015, path, ScanOptions(recursive=True)), path.name


JS_MODES: list[tuple[str, Profile, dict[str, object]]] = [
    ("defaults-v0", UNIXFS_V0_2015, {"cidVersion": 0, "rawLeaves": False}),
    ("v1-raw", customised(UNIXFS_V0_2015, cid_version=1), {"cidVersion": 1, "rawLeaves": True}),
    ("v0-raw", customised(UNIXFS_V0_2015, raw_leaves=True), {"cidVersion": 0, "rawLeaves": True}),
    ("v1-framed", customised(UNIXFS_V0_2015, cid_version=1, raw_leaves=False), {"cidVersion": 1, "rawLeaves": False}),
    ("2025", UNIXFS_V1_2025, {"cidVersion": 1, "rawLeaves": True, "chunk": 1 << 20, "maxChildren": 1024}),
    (
        "small-balanced",
        customised(UNIXFS_V0_2015, cid_version=1, chunker="size-5000", max_links=3),
        {"cidVersion": 1, "rawLeaves": True, "chunk": 5000, "maxChildren": 3},
    ),
    (
        "small-trickle",
        customised(UNIXFS_V0_2015, cid_version=1, chunker="size-5000", max_links=3, trickle=True),
        {"cidVersion": 1, "rawLeaves": True, "chunk": 5000, "maxChildren": 3, "layout": "trickle"},
    ),
    (
        "trickle-v0",
        customised(UNIXFS_V0_2015, chunker="size-9000", max_links=5, trickle=True),
        {"cidVersion": 0, "rawLeaves": False, "chunk": 9000, "maxChildren": 5, "layout": "trickle"},
    ),
]

JS_PROGRAM = Path(__file__).parent / "js_import.mjs"


@pytest.mark.parametrize(("profile", "options"), [mode[1:] for mode in JS_MODES], ids=[mode[0] for mode in JS_MODES])
def test_js_importer(files, tree, large, profile: Profile, options: dict[str, object]) -> None:
    """CID version, raw leaves, fixed chunks, both layouts, directories and HAMT; not its rabin, not mtime."""
    node, helia = _node_and_modules()
    inputs = [*files, tree / "many", large]
    argv = [node, JS_PROGRAM, helia, json.dumps(options), *inputs]
    done = subprocess.run(argv, check=True, capture_output=True, timeout=240)
    expected = dict(line.split("\t") for line in done.stdout.decode().splitlines())
    for path in inputs:
        assert added(profile, path, ScanOptions(recursive=True)) == expected[str(path)], path.name


def _node_and_modules() -> tuple[Path, Path]:
    try:
        command = peers.helia_command()
    except NotFound as missing:
        if os.environ.get("CI") == "true" or os.environ.get("IPCS_REQUIRE_PEERS") == "1":
            pytest.fail(missing.message)
        pytest.skip(missing.message)
    return command[0], command[-1].parent / "node_modules"
