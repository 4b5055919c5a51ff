"""Directory trees in and out: arbitrary names, any profile, onto disk and into tar, and never outside the target."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipcs.block import check_block
from ipcs.blockservice import LocalBlocks
from ipcs.cid import Cid, format_cid
from ipcs.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ipcs.store.blockstore import MemoryBlockstore
from ipcs.unixfs import tree as trees
from ipcs.unixfs.archive import TarWriter
from ipcs.unixfs.extract import Extractor
from ipcs.unixfs.node import Attributes, Kind, Mtime
from ipcs.unixfs.profile import Estimate, Profile
from ipcs.unixfs.resolve import decode_name, encode_name, entries, parse_path, resolve, stat
from ipcs.unixfs.scan import ScanOptions, scan, scan_stream
from ipcs.unixfs.traverse import Enter, Leave, list_directory, traverse
from ipcs.unixfs.tree import (
    CloseDirectory,
    CloseFile,
    OpenDirectory,
    OpenFile,
    Step,
    Symlink,
    TreeImporter,
    decode_frame,
    encode_frames,
)
from ipcs.unixfs.walk import walk

Tree: TypeAlias = dict[bytes, Any]
"""Name -> bytes of a file, `str` for a symlink's target, or another tree."""

names = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..") and not set(b"/\0") & set(name)
)
leaves = st.binary(max_size=300) | st.text(
    st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=9
)
forests = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=9), max_leaves=25)
trees_strategy = st.dictionaries(names, forests, max_size=9)
profiles = st.builds(
    Profile,
    cid_version=st.just(1),
    raw_leaves=st.booleans(),
    chunker=st.sampled_from(["size-64", "size-262144"]),
    max_links=st.integers(2, 5),
    inline_limit=st.sampled_from([0, 32]),
    hamt_threshold=st.sampled_from([0, 1, 100, 262144]),
    hamt_estimate=st.sampled_from(Estimate),
    hamt_fanout=st.sampled_from([8, 16, 256, 1024]),
)


def steps(name: bytes, node: Any) -> list[Step]:
    if isinstance(node, bytes):
        return [OpenFile(name), node, CloseFile()]
    if isinstance(node, str):
        return [Symlink(name, node.encode())]
    return [OpenDirectory(name), *(s for child, inner in node.items() for s in steps(child, inner)), CloseDirectory()]


def put(told: list[Step], profile: Profile = Profile()) -> tuple[LocalBlocks, Cid]:  # noqa: B008 - a frozen value
    store, tree = MemoryBlockstore(), TreeImporter(profile)
    for step in told:
        store.put_many([check_block(cid, data) for cid, data in tree.step(step)])
    tree.finish()
    return LocalBlocks(store), tree.take()[-1].cid


async def read_back(source: LocalBlocks, root: Cid) -> Any:
    stack: list[tuple[bytes, Any]] = [(b"", {})]
    last = b""
    async for step in traverse(source, root):
        if isinstance(step, (bytes, memoryview)):
            parent, name = stack[-1][1], last
            parent[name] += bytes(step)
        elif isinstance(step, Leave):
            stack.pop()
        else:
            last = step.path[-1] if step.path else b""
            kind = step.stat.kind
            value: Any = {} if kind in (Kind.DIRECTORY, Kind.HAMT_SHARD) else b""
            stack[-1][1][last] = step.stat.target.decode() if kind is Kind.SYMLINK else value
            if isinstance(value, dict):
                stack.append((last, value))
    return stack[0][1][b""]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(node=trees_strategy, profile=profiles)
async def test_any_tree(node: Tree, profile: Profile) -> None:
    source, root = put(steps(b"", node), profile)
    assert await read_back(source, root) == node
    for name in node:
        cid = await resolve(source, root, [name])
        assert (await stat(source, cid)).cid == cid
    with pytest.raises(NotFound):
        await resolve(source, root, [b"not there at all"])
    assert [link.name async for link, _ in list_directory(source, root)] == sorted(node)
    assert len([block async for block in walk(source, [root])]) == len({b.cid async for b in walk(source, [root])})


@settings(deadline=None, max_examples=40)
@given(node=trees_strategy, profile=profiles)
def test_the_root_does_not_depend_on_the_order_of_entries(node: Tree, profile: Profile) -> None:
    assert put(steps(b"", node), profile)[1] == put(steps(b"", dict(reversed(node.items()))), profile)[1]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(node=trees_strategy)
def test_steps_survive_the_wire(node: Tree) -> None:
    import json

    told = [*steps(b"top", node), OpenFile(b"large"), bytes(40_000), b"x", CloseFile(), *steps(b"more", node) * 40]
    again = []
    for frame in encode_frames(told):
        again += decode_frame(json.loads(json.dumps(frame)) if isinstance(frame, dict) else frame)
    assert again == told


def fill(folder: Path, node: Tree) -> None:
    folder.mkdir()
    for name, inner in node.items():
        path = folder / os.fsdecode(name)
        if isinstance(inner, bytes):
            path.write_bytes(inner)
        elif isinstance(inner, str):
            path.symlink_to(inner)
        else:
            fill(path, inner)


def load(folder: Path) -> Tree:
    out: Tree = {}
    for path in folder.iterdir():
        name = os.fsencode(path.name)
        if path.is_symlink():
            out[name] = os.readlink(path)
        else:
            out[name] = load(path) if path.is_dir() else path.read_bytes()
    return out


async def extract(source: LocalBlocks, root: Cid, target: Path) -> None:
    with Extractor(target) as extractor:
        async with aclosing(traverse(source, root)) as told:
            async for step in told:
                extractor.step(step)
        extractor.finish()


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(node=trees_strategy)
async def test_disk_to_dag_to_disk(node: Tree, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp = tmp_path_factory.mktemp("tree")
    fill(tmp / "in", node)
    source, root = put(list(scan(tmp / "in", ScanOptions(recursive=True, hidden=True))))
    assert root == put(steps(b"", node))[1]
    await extract(source, root, tmp / "out")
    assert load(tmp / "out") == node
    assert {"in", "out"} == set(os.listdir(tmp))


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(node=trees_strategy)
async def test_tar(node: Tree) -> None:
    source, root = put(steps(b"", node))
    writer, out = TarWriter(b"top"), io.BytesIO()
    async for step in traverse(source, root):
        for piece in writer.step(step):
            out.write(piece)
    out.write(writer.finish())
    out.seek(0)
    with tarfile.open(fileobj=out, errors="surrogateescape", encoding="utf-8") as archive:
        found = {member.name: member for member in archive}
        assert len(found) == 1 + count(node)
        for path, value in flat(node, "top"):
            if isinstance(value, bytes):
                member = archive.extractfile(found[path])
                assert member is not None
                assert member.read() == value
            elif isinstance(value, str):
                assert found[path].linkname == value


def count(node: Tree) -> int:
    return sum(1 + (count(inner) if isinstance(inner, dict) else 0) for inner in node.values())


def flat(node: Tree, above: str) -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for name, inner in node.items():
        path = f"{above}/{decode_name(name)}"
        out += flat(inner, path) if isinstance(inner, dict) else [(path, inner)]
    return out


async def test_modes_and_times_are_recorded_and_restored_without_setuid(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fill(folder, {b"tool": b"#!", b"sub": {b"f": b"x"}, b"link": "tool"})
    os.chmod(folder / "tool", 0o4755)
    os.chmod(folder / "sub", 0o700)
    os.utime(folder / "tool", ns=(5, 1_700_000_000_123_456_789))
    os.utime(folder / "link", ns=(5, -7_000_000_001), follow_symlinks=False)
    options = ScanOptions(recursive=True, preserve_mode=True, preserve_mtime=True)
    source, root = put(list(scan(folder, options)))
    found = {link.name: told async for link, told in list_directory(source, root)}
    assert found[b"tool"] is not None
    assert found[b"tool"].attributes == Attributes(0o4755, Mtime(1_700_000_000, 123_456_789))
    assert found[b"link"] is not None
    assert found[b"link"].attributes == Attributes(None, Mtime(-8, 999_999_999))
    await extract(source, root, tmp_path / "out")
    tool = (tmp_path / "out" / "tool").stat()
    assert tool.st_mode & 0o7777 == 0o755
    assert tool.st_mtime_ns == 1_700_000_000_123_456_789
    assert (tmp_path / "out" / "sub").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "out" / "link").lstat().st_mtime_ns == -7_000_000_001


async def test_a_directory_that_may_not_be_entered_is_still_filled(tmp_path: Path) -> None:
    told: list[Step] = [OpenDirectory(b""), OpenDirectory(b"d"), OpenFile(b"f"), b"x", CloseFile()]
    told += [CloseDirectory(Attributes(0o1, Mtime(1 << 62))), CloseDirectory()]
    source, root = put(told)
    await extract(source, root, tmp_path / "out")
    assert (tmp_path / "out" / "d").stat().st_mode & 0o777 == 1
    (tmp_path / "out" / "d").chmod(0o700)
    assert (tmp_path / "out" / "d" / "f").read_bytes() == b"x"


def found_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


HOSTILE_NAMES = [b"", b".", b"..", b"/", b"a/b", b"../../x", b"/etc/passwd", b"a\0b", b"\0"]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=repr)
async def test_names_that_leave_the_target(name: bytes, tmp_path: Path) -> None:
    from tests.unixfs.test_hostile import Dag

    dag = Dag()
    file = dag.put(b"owned", 0x55)
    root = dag.directory([(b"aaa", file), (name, file)])
    (tmp_path / "work").mkdir()
    with pytest.raises(InvalidArgument, match="cannot be the name"):
        await extract(dag.source, root, tmp_path / "work" / "out")
    assert found_below(tmp_path) == {"work"}
    with pytest.raises(InvalidArgument, match="cannot be the name"):
        put(steps(b"", {name: b"x"}) if name else [OpenDirectory(b""), OpenDirectory(b"..")] + [CloseDirectory()] * 2)


async def test_a_file_shadowed_by_a_symlink_of_the_same_name(tmp_path: Path) -> None:
    from ipcs.unixfs.node import UnixFS
    from tests.unixfs.test_hostile import Dag

    dag = Dag()
    (tmp_path / "victim").mkdir()
    link = dag.node(UnixFS(Kind.SYMLINK, os.fsencode(tmp_path / "victim")))
    inner = dag.directory([(b"f", dag.put(b"owned", 0x55))])
    root = dag.directory([(b"d", link), (b"d", inner)])
    await extract(dag.source, root, tmp_path / "out")
    assert os.readlink(tmp_path / "out" / "d") == str(tmp_path / "victim")
    assert list((tmp_path / "victim").iterdir()) == []
    with Extractor(tmp_path / "direct") as extractor:  # steps that no traversal would make
        told = await stat(dag.source, root)
        extractor.step(Enter((), told))
        extractor.step(Enter((b"d",), await stat(dag.source, link)))
        with pytest.raises(AlreadyExists):
            extractor.step(Enter((b"d",), told))
        with pytest.raises(InvalidArgument, match="not in the directory that is open"):
            extractor.step(Enter((b"d", b"f"), told))
    assert list((tmp_path / "victim").iterdir()) == []


async def test_a_name_longer_than_the_file_system_takes(tmp_path: Path) -> None:
    source, root = put(steps(b"", {b"n" * 300: b"x"}))
    with pytest.raises(InvalidArgument, match="longer than the file system takes"):
        await extract(source, root, tmp_path / "out")
    assert found_below(tmp_path) == set()


async def test_nothing_is_overwritten_and_failures_leave_nothing(tmp_path: Path) -> None:
    source, root = put(steps(b"", {b"a": b"1", b"b": {b"c": b"2"}}))
    (tmp_path / "out").write_text("mine")
    with pytest.raises(AlreadyExists, match="choose another"):
        await extract(source, root, tmp_path / "out")
    (tmp_path / "gone").symlink_to("nowhere")
    with pytest.raises(AlreadyExists):
        await extract(source, root, tmp_path / "gone")
    with Extractor(tmp_path / "new") as extractor:
        async for step in traverse(source, root):
            extractor.step(step)
    # left without `finish`
    assert found_below(tmp_path) == {"gone", "out"}
    await extract(*put([OpenFile(b""), b"one file", CloseFile()]), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "one file"


def test_scan(tmp_path: Path) -> None:
    fill(tmp_path / "in", {b".hidden": b"h", b"b": b"2", b"a": b"1", b".d": {b"x": b"y"}, b"\xff": b"3", b"empty": {}})
    seen = [step.name for step in scan(tmp_path / "in", ScanOptions(recursive=True)) if isinstance(step, OpenFile)]
    assert seen == [b"a", b"b", b"\xff"]
    with pytest.raises(InvalidArgument, match="use -r"):
        list(scan(tmp_path / "in", ScanOptions()))
    with pytest.raises(NotFound, match="does not exist"):
        list(scan(tmp_path / "nothing", ScanOptions()))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidArgument, match="no file, directory or symlink"):
        list(scan(tmp_path / "pipe", ScanOptions()))
    assert list(scan_stream(io.BytesIO(b"abc"), b"n", ScanOptions(mode=0o600))) == [
        OpenFile(b"n", Attributes(0o600)),
        b"abc",
        CloseFile(),
    ]


def test_scanning_a_tree_deeper_than_the_stack(tmp_path: Path) -> None:
    here, depth = os.getcwd(), 1050
    os.chdir(tmp_path)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    try:
        told = list(scan(tmp_path / "d", ScanOptions(recursive=True)))
    finally:
        for _ in range(depth):  # pytest would remove it recursively
            os.chdir("..")
            os.rmdir("d")
        os.chdir(here)
    assert len(told) == 2 * depth
    put(told)


@pytest.mark.parametrize(
    "told",
    [
        [b"bytes"],
        [CloseFile()],
        [CloseDirectory()],
        [OpenFile(b"f"), OpenFile(b"g")],
        [OpenFile(b"f"), CloseDirectory()],
        [OpenFile(b"f")],
        [OpenDirectory(b"d")],
    ],
    ids=str,
)
def test_steps_out_of_order(told: list[Step]) -> None:
    with pytest.raises(FailedPrecondition):
        put(told)


def test_one_name_twice() -> None:
    with pytest.raises(InvalidArgument, match="occurs twice"):
        put([OpenDirectory(b""), Symlink(b"a", b"x"), Symlink(b"a", b"y"), CloseDirectory()])


MALFORMED_FRAMES: list[dict[str, Any]] = [
    *({}, {"enter": 1}, {"leave": 3}, {"file": "f", "mode": "x"}, {"symlink": "s"}, {"file": "f", "mtime": [1, "2"]}),
    *({"file": "f", "mtime": [1, 2, 3]}, {"file": "f", "mode": True}, {"file": "f", "mtime": 5}, {"enter": "\ud800"}),
]


@pytest.mark.parametrize(
    "frame", [{}, {"steps": 1}, {"steps": [1]}, {"steps": [{"data": "&"}]}, {"steps": [{"data": 1}]}]
)
def test_malformed_batches(frame: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        decode_frame(frame)


@pytest.mark.parametrize("frame", MALFORMED_FRAMES, ids=str)
def test_malformed_frames(frame: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        decode_frame({"steps": [frame]})


async def test_paths() -> None:
    source, root = put(steps(b"", {b"a": {b"\xff\xfe": b"x"}}))
    text = format_cid(root)
    for path in (f"{text}/a/\udcff\udcfe", f"/ipfs/{text}/a//\udcff\udcfe/", f"ipfs://{text}/a/\udcff\udcfe"):
        cid, parts = parse_path(path)
        assert (cid, parts) == (root, [b"a", b"\xff\xfe"])
        assert (await stat(source, await resolve(source, cid, parts))).size == 1
    assert decode_name(encode_name("é")) == "é"
    with pytest.raises(InvalidArgument, match="is not a name"):
        encode_name("\ud800")
    with pytest.raises(InvalidArgument, match="is not a CID"):
        parse_path("/a/b")
    assert [link.name async for link in entries(source, root)] == [b"a"]
    assert trees.decode_attributes({}) == Attributes()
