"""`ipcs add`, `cid` and friends as processes, and `add | ls | cat | get | dag | car` against a real node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import trio

from ipcs.testing.node import open_node_process

# Published by IPIP-0499 and Kubo's tests (tests/vectors/cids.json).
HELLO_V0 = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
EMPTY_0640 = "QmQLgxypSNGNFTuUPGCecq6dDEjb6hNB5xSyVmP3cEuNtq"
HELLO_RAW = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


def ipcs(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "ipcs", *map(str, arguments)], input=stdin, capture_output=True)


def only_hash(*arguments: str | Path, stdin: bytes = b"") -> str:
    done = ipcs("add", "--only-hash", "-Q", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    path = tmp_path / "hello.txt"
    path.write_text("hello world")
    return path


def test_only_hash_imports_neither_network_nor_numpy(hello: Path) -> None:
    program = (
        "import sys; from ipcs.cli import run; run(['add', '-nQ', sys.argv[1]]);"
        "heavy = {'libp2p', 'grpc', 'trio', 'plyvel', 'numpy', 'rich'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program, str(hello)], check=True, capture_output=True)
    assert done.stdout.decode().strip() == HELLO_RAW


def test_flags_have_the_meanings_of_kubo(hello: Path) -> None:
    assert only_hash(hello) == HELLO_RAW
    assert only_hash(hello, "--profile", "unixfs-v0-2015") == HELLO_V0
    assert only_hash(hello, "--cid-version", "0") == HELLO_V0
    assert only_hash(hello, "--cid-version", "0", "--raw-leaves") == HELLO_RAW
    assert only_hash(hello, "--profile", "unixfs-v0-2015", "--cid-version", "1") == HELLO_RAW
    assert only_hash("-", stdin=b"hello world") == HELLO_RAW
    assert only_hash("-", "--inline", stdin=b"") == "bafkqaaa"
    assert only_hash(hello, "--inline").startswith("bafkq")
    assert only_hash(hello, "--inline", "--inline-limit", "5") == HELLO_RAW
    assert only_hash(hello, "--mode", "0640") != only_hash(hello, "--mode", "0600")
    assert (
        only_hash("-", "--profile", "unixfs-v0-2015", "--mode", "0640")
        == "QmQLgxypSNGNFTuUPGCecq6dDEjb6hNB5xSyVmP3cEuNtq"
    )
    assert only_hash(hello, "-t") != HELLO_RAW
    assert only_hash(hello, "--hash", "blake2b-256", "--profile", "unixfs-v0-2015").startswith("bafk2bza")


def test_output_forms(hello: Path) -> None:
    assert ipcs("add", "-n", hello).stdout.decode() == f"added {HELLO_RAW} hello.txt\n"
    assert ipcs("add", "-nq", hello).stdout.decode() == f"{HELLO_RAW}\n"
    assert ipcs("add", "-n", "-", stdin=b"hello world").stdout.decode() == f"added {HELLO_RAW} {HELLO_RAW}\n"
    row = json.loads(ipcs("add", "-n", "--json", hello).stdout)
    assert row == {"name": "hello.txt", "cid": HELLO_RAW, "size": 11}
    wrapped = ipcs("add", "-nw", hello).stdout.decode().splitlines()
    assert wrapped[0] == f"added {HELLO_RAW} hello.txt"
    assert len(wrapped) == 2


def test_directories(tmp_path: Path, hello: Path) -> None:
    folder = tmp_path / "planets"
    folder.mkdir()
    (folder / "mars.txt").write_text("Hello Mars!\n")
    (folder / "venus.txt").write_text("Hello Venus!\n")
    (folder / ".hidden").write_text("x")
    planets = json.loads((Path(__file__).parents[1] / "vectors" / "cids.json").read_text())["vectors"]
    v0_raw, v1_framed = (row["expected"] for row in planets if row["feature"] == "planets-dir")
    assert only_hash("-r", folder, "--profile", "unixfs-v0-2015", "--raw-leaves") == v0_raw
    assert only_hash("-r", folder, "--profile", "unixfs-v0-2015", "--cid-version", "1", "--no-raw-leaves") == v1_framed
    assert only_hash("-r", "-H", folder) != only_hash("-r", folder)
    done = ipcs("add", "-n", folder)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"use -r to add directories" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chunker", "size-0"], b"size must be 1 to"),
        (["--chunker", "nope"], b"chunker 'nope' is not known"),
        (["--hash", "md5"], b"hash function 'md5' is not known"),
        (["--hash", "blake3", "--cid-version", "0"], b"sha2-256 only"),
        (["--profile", "nope"], b"there are ipcs-v1, unixfs-v0-2015"),
        (["--max-file-links", "1"], b"at least 2 links"),
        (["--mode", "0o9"], b"write it in octal"),
        (["--mode", "644"], b"write it in octal"),
        (["--mtime", "1", "--mtime-nsecs", "1000000000"], b"out of range"),
        (["--mtime-nsecs", "5"], b"needs --mtime"),
        (["--mode", "0644", "--raw-leaves"], b"leave out --raw-leaves"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line_and_exit_code_2(hello: Path, arguments: list[str], words: bytes) -> None:
    done = ipcs("add", "-n", hello, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == b""


def test_missing_path() -> None:
    done = ipcs("add", "-n", "/nonexistent/file")
    assert done.returncode == 4
    assert done.stderr == b"ipcs: /nonexistent/file does not exist\n"


def test_cid_commands() -> None:
    v1 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
    v0 = "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR"
    assert ipcs("cid", "format", "-v", "1", v0).stdout.decode() == v1 + "\n"
    assert ipcs("cid", "format", "-v", "0", f"ipfs://{v1}").stdout.decode() == v0 + "\n"
    assert ipcs("cid", "format", "-v", "1", stdin=f"{v0}\n{v1}\n".encode()).stdout.decode() == f"{v1}\n{v1}\n"
    digest = ipcs("cid", "format", "--digest", v0).stdout.decode().strip()
    assert digest.startswith("sha256:c3c4733ec8affd06")
    assert ipcs("cid", "format", "--mc", "dag-pb", "-v", "0", digest).stdout.decode() == v0 + "\n"
    facts = json.loads(ipcs("cid", "inspect", "--json", v0).stdout)
    assert (facts["version"], facts["codec"], facts["hash"], facts["cid_v1"]) == (0, "dag-pb", "sha2-256", v1)
    assert (facts["oci_digest"], facts["dag_root_v0"], facts["acceptable"]) == (digest, v0, True)
    for wrong in (["-b", "base32", v0], ["-b", "base99", v1], ["nonsense"], ["sha256:zz"], ["-v", "0", HELLO_RAW]):
        done = ipcs("cid", "format", *wrong)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(b"ipcs: ")


@pytest.mark.slow
async def test_a_tree_through_a_node_and_back(tmp_path: Path) -> None:
    folder, odd = tmp_path / "in", os.fsdecode(b"\xff\xfe name")
    await trio.to_thread.run_sync(_fill, folder, odd)
    async with open_node_process(tmp_path / "repo") as node:
        *_, top = await node.json("add", "-r", folder)
        root = top["cid"]
        assert root == only_hash("-r", folder)
        for wrong, code, words in (
            (["-r", "/nonexistent"], 4, b"/nonexistent does not exist"),
            ([str(folder)], 2, b"use -r to add directories"),
            (["-r", "/dev/null"], 2, b"no file, directory or symlink"),
            ([str(folder / "a.txt"), "--mode", "0600", "--raw-leaves"], 2, b"leave out --raw-leaves"),
        ):
            done = await node.cli("add", *wrong)
            assert (done.returncode, done.stdout) == (code, b"")
            assert words in done.stderr
        rows = {row["name"]: row for row in await node.json("ls", root)}
        assert set(rows) == {"a.txt", "link", "sub", odd}
        assert (rows["link"]["type"], rows["link"]["target"]) == ("symlink", "../../etc")
        assert (rows["sub"]["type"], rows["a.txt"]["size"]) == ("directory", 5)
        assert (await node.cli("cat", f"{root}/sub/b", "-o", "2999990", "-l", "20")).stdout == b"0123456789"
        done = await node.cli("cat", root)
        assert (done.returncode, done.stderr) == (2, f"ipcs: {root} is a directory, not a file\n".encode())
        assert (await node.cli("cat", f"{root}/nope")).returncode == 4

        assert (await node.cli("get", root, "-o", tmp_path / "out")).returncode == 0
        await trio.to_thread.run_sync(_same, folder, tmp_path / "out")
        assert (await node.cli("get", root, "-o", tmp_path / "out")).returncode == 0  # into it, as in Kubo
        await trio.to_thread.run_sync(_same, folder, tmp_path / "out" / root)
        done = await node.cli("get", f"{root}/a.txt", "-o", tmp_path / "out" / "a.txt")
        assert done.returncode == 1
        assert b"exists; remove it" in done.stderr
        assert (await node.cli("get", "-a", root, "-o", tmp_path / "out.tar")).returncode == 0
        with tarfile.open(tmp_path / "out.tar") as archive:
            assert f"{root}/sub/b" in archive.getnames()

        stats = await node.json("dag", "stat", root, f"{root}/sub")
        assert stats[2]["shared_size"] == stats[1]["size"]
        for version in ("1", "2"):
            done = await node.cli("car", "export", root, "-o", tmp_path / f"{version}.car", "--car-version", version)
            assert done.returncode == 0, done.stderr
        assert (await node.cli("car", "export", root, "-o", "-", "--car-version", "2")).returncode == 2

    async with open_node_process(tmp_path / "other") as node:
        done = await node.cli("car", "export", root, "-o", tmp_path / "never.car", "--local-only")
        assert done.returncode == 4
        assert not (tmp_path / "never.car").exists()
        cut = (tmp_path / "1.car").read_bytes()[:-1]
        done = await node.cli("car", "import", "-", "--local-only", stdin=cut)
        assert done.returncode == 2
        assert b"cut off" in done.stderr
        [imported] = await node.json("car", "import", tmp_path / "2.car", "--local-only")
        assert imported["roots"] == [root]
        await node.cli("get", root, "-o", tmp_path / "again")
        await trio.to_thread.run_sync(_same, folder, tmp_path / "again")


def _fill(folder: Path, odd: str) -> None:
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("hello")
    (folder / "sub" / "b").write_bytes(os.urandom(2_999_990) + b"0123456789")
    (folder / "link").symlink_to("../../etc")
    (folder / odd).write_text("y")


def _same(left: Path, right: Path) -> None:
    assert sorted(os.listdir(left)) == sorted(name for name in os.listdir(right) if not name.startswith("bafy"))
    assert (left / "sub" / "b").read_bytes() == (right / "sub" / "b").read_bytes()
    assert os.readlink(right / "link") == "../../etc"
