"""Planted faults that the vectors or a round trip must notice: each mutant is killed, or the tests prove nothing."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from ipcs.block import check_block
from ipcs.blockservice import LocalBlocks
from ipcs.cid import format_cid
from ipcs.errors import IpcsError
from ipcs.store.blockstore import MemoryBlockstore
from ipcs.testing.mutation import Mutant
from ipcs.testing.recipes import attributes_of, content, directory_entries, profile_of
from ipcs.unixfs.budget import Budget, Spending
from ipcs.unixfs.builder import NodeBuilder
from ipcs.unixfs.car import CarReader, encode_car, header_v2
from ipcs.unixfs.cdc import ContentChunker
from ipcs.unixfs.chunker import FixedChunker
from ipcs.unixfs.exporter import read_stored
from ipcs.unixfs.hamt import Placement
from ipcs.unixfs.importer import Importer, import_blocks
from ipcs.unixfs.layout import BalancedLayout, TrickleLayout
from ipcs.unixfs.profile import Profile
from ipcs.unixfs.reader import FileReader
from ipcs.unixfs.resolve import entries, resolve
from ipcs.unixfs.tree import CloseDirectory, CloseFile, OpenDirectory, OpenFile, TreeImporter

VECTORS = Path(__file__).parent.parent / "vectors"
ROWS = {
    row["id"]: row
    for name in ("cids", "kubo_cids", "kubo_dirs")
    for row in json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
}
SMALL = [
    row
    for row in ROWS.values()
    if row["input"].get("type") == "file"
    and row["input"]["content"]["gen"] in ("utf8", "counter", "sha256ctr")
    and row["input"]["content"].get("size", 0) < 600_000
    and "printAs" not in row["params"]
    and row["params"].get("layout") in (None, "balanced", "trickle")
]
HAMT_ROW = next(row for row in ROWS.values() if row["feature"] == "hamt-forced")


def vectors() -> None:
    """The small file vectors, both layouts, and a HAMT."""
    for row in SMALL:
        data = content(row["input"]["content"])
        importer = Importer(profile_of(row["params"]), attributes_of(row["input"]))
        for begin in range(0, len(data), 60_000):
            importer.feed(data[begin : begin + 60_000])
        importer.finish()
        assert format_cid(importer.root.cid) == row["expected"]
    tree = TreeImporter(profile_of(HAMT_ROW["params"]))
    tree.step(OpenDirectory(b""))
    for name, node in directory_entries(HAMT_ROW["input"]).items():
        for step in (OpenFile(name.encode()), content(node["content"]), CloseFile()):
            tree.step(step)
    tree.step(CloseDirectory())
    assert format_cid(tree.take()[-1].cid) == HAMT_ROW["expected"]


INDEX = b"\x01\x00" * 50
"""Stands for a CARv2 index; read as sections it is malformed."""


def files() -> None:
    """Ranges of random files in random shapes."""
    for seed in range(60):
        source = random.Random(seed)
        data, piece = source.randbytes(source.randrange(3000)), source.randrange(1, 700)
        spec = source.choice([f"size-{source.randrange(1, 200)}", f"rabin-{source.randrange(48, 200)}"])
        profile = Profile(chunker=spec, max_links=source.randrange(2, 6), raw_leaves=seed % 2 == 0)
        importer = Importer(profile)
        store = MemoryBlockstore()
        pieces = [data[begin : begin + piece] for begin in range(0, len(data), piece)]
        blocks = [check_block(*block) for block in import_blocks(importer, pieces)]
        store.put_many(blocks)
        begin, length = source.randrange(3100), source.randrange(3100)
        root = importer.root.cid
        at_once = Importer(profile)
        list(import_blocks(at_once, [data]))
        assert at_once.root == importer.root, seed
        assert b"".join(read_stored(store, root)) == data, seed
        assert b"".join(read_stored(store, root, begin, length)) == data[begin : begin + length], seed
        archive = b"".join(encode_car([root], blocks))
        reader = CarReader()
        got = reader.feed(header_v2(len(archive)) + archive + INDEX)
        reader.finish()
        assert got == blocks, seed


def hostile() -> None:
    """A budget and a lie."""
    spending = Spending(Budget(blocks=3), importer_root())
    for _ in range(3):
        spending.add_block()
    with pytest.raises(IpcsError, match="blocks budget"):
        spending.add_block()
    with pytest.raises(IpcsError, match="size budget"):
        Spending(Budget(size=3), importer_root()).add_size(4)
    with pytest.raises(IpcsError, match="depth budget"):
        Spending(Budget(depth=3), importer_root()).check_depth(4)


def importer_root():
    importer = Importer()
    importer.finish()
    return importer.root.cid


def directories() -> None:
    """A listing of a HAMT and a lookup in it."""
    trio.run(_directories)


async def _directories() -> None:
    for fanout in (8, 256):
        tree, store = TreeImporter(Profile(hamt_threshold=1, hamt_fanout=fanout)), MemoryBlockstore()
        steps = [s for n in range(300) for s in (OpenFile(b"n%d" % n), b"%d" % n, CloseFile())]
        for step in (OpenDirectory(b""), *steps, CloseDirectory()):
            store.put_many(tree.step(step))
        source, root = LocalBlocks(store), tree.take()[-1].cid
        assert {link.name async for link in entries(source, root)} == {b"n%d" % n for n in range(300)}
        for n in range(0, 300, 23):
            cid = await resolve(source, root, [b"n%d" % n])
            assert b"".join(read_stored(store, cid)) == b"%d" % n


def mutant(name: str, place: Any, old: str, new: str, check: Callable[[], None]) -> Any:
    owner = getattr(sys.modules[place.__module__], place.__qualname__.partition(".")[0])
    return pytest.param(Mutant(name, owner, place.__name__, old, new), check, id=name)


MUTANTS = [
    mutant("full root closes early", BalancedLayout._push, "== self._max_links", "== self._max_links - 1", vectors),
    mutant("no one-child parents", BalancedLayout.finish, "depth < len(self._levels) - 1", "False", files),
    mutant("single leaf gets a parent", BalancedLayout.finish, "depth == 0 and", "depth == 9 and", vectors),
    mutant("trickle repeats thrice", TrickleLayout.add, "== TRICKLE_REPEAT", "== TRICKLE_REPEAT - 1", vectors),
    mutant("trickle never deepens", TrickleLayout.add, "node.depth + 1, 0", "node.depth, 0", vectors),
    mutant("trickle subtree too deep", TrickleLayout.add, ">= node.limit", "> node.limit", vectors),
    mutant("Tsize without the own block", NodeBuilder.node, "len(block) + sum", "sum", vectors),
    mutant("sizes are Tsizes", NodeBuilder.file, "[child.size for", "[child.tsize for", files),
    mutant("version 0 ignored", NodeBuilder.add, "self._profile.cid_version == 0", "False", vectors),
    mutant("empty trickle is a leaf", Importer.finish, "self._is_balanced and not", "not", vectors),
    mutant("held bytes forgotten", FixedChunker.feed, "self._hold(view[:at])", "pass", files),
    mutant("tail dropped", FixedChunker.finish, "return [chunk]", "return []", files),
    mutant("cut before enough is there", ContentChunker.feed, "self._longest", "1", files),
    mutant(
        "range begins late", FileReader._emit, "max(self._offset - start, 0)", "max(self._offset - start, 1)", files
    ),
    mutant("range ends early", FileReader._emit, "self._end - start,", "self._end - start - 1,", files),
    mutant("offset not advanced", FileReader._visit_node, "at += size", "at += 0", files),
    mutant("children reversed", FileReader._visit_node, "reversed(below)", "below", files),
    mutant("first child missed", FileReader._visit_node, "at + size > self._offset", "at >= self._offset", files),
    mutant("bits from the wrong end", Placement.bucket, "HASH_BITS - (depth + 1) * self.bits", "depth * 8", vectors),
    mutant("label too narrow", Placement.label, "0{self.width}X", "X", directories),
    mutant("v2 index read", CarReader._read_section, "self._position >= self._payload_end", "False", files),
    mutant("blocks not counted", Spending.add_block, "self._blocks += 1", "pass", hostile),
    mutant("bytes not counted", Spending.add_size, "self._size += size", "pass", hostile),
    mutant("depth not checked", Spending.check_depth, "depth > self._budget.depth", "False", hostile),
]

CHECKS = [vectors, files, hostile, directories]
KILLED = (AssertionError, IpcsError, pytest.fail.Exception, ValueError, LookupError, ExceptionGroup)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_without_a_fault_the_checks_pass(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("planted", "check"), MUTANTS)
def test_mutant_is_killed(planted: Mutant, check: Callable[[], None]) -> None:
    with planted.planted(), pytest.raises(KILLED):
        check()
