"""`Files`: what a node adds is committed and kept, and what it reads is held, over a real store in memory."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import pytest

from ipcs.blockservice import BlockSource, LocalBlocks
from ipcs.cid import Cid, multihash_of
from ipcs.errors import FailedPrecondition, HashMismatch, InvalidArgument, MalformedBlock, NotFound
from ipcs.store.store import Store, memory_store
from ipcs.unixfs.car import encode_car
from ipcs.unixfs.files import Files
from ipcs.unixfs.profile import PROXY_2020, customised
from ipcs.unixfs.tree import Added, CloseDirectory, CloseFile, OpenDirectory, OpenFile, Symlink
from ipcs.unixfs.walk import fetch_dag, links_of, walk

T = TypeVar("T")


class Peerless:
    """Sessions of a node without peers: what is not in the store cannot be had."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.announced: list[Cid] = []

    @asynccontextmanager
    async def session(self, root: Cid) -> AsyncIterator[BlockSource]:
        yield LocalBlocks(self._store.blocks)

    def notify_stored(self, cids: Sequence[Cid]) -> None:
        self.announced += cids


class arriving(AsyncIterator[T]):  # noqa: N801 - used like a function; no generator, so it may be left early
    """The items, asynchronously."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)

    async def __anext__(self) -> T:
        for item in self._items:
            return item
        raise StopAsyncIteration


@pytest.fixture
def node() -> tuple[Files, Store, Peerless]:
    store = memory_store(links_of)
    sessions = Peerless(store)
    return Files(store, sessions), store, sessions


DATA = random.Random(1).randbytes(700_000)
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


async def add(files: Files, *steps, **options) -> list[Added]:
    async with aclosing(files.add_tree(arriving([steps[:2], steps[2:]]), **options)) as finished:
        return [added async for added in finished]


async def test_a_file_by_either_way(node, tmp_path) -> None:
    files, store, sessions = node
    added = await files.add(arriving([DATA[:300_000], DATA[300_000:]]), owner="user/me")
    assert (added.digest, added.size) == (DIGEST, len(DATA))
    record = store.blobs.get(DIGEST)
    assert record is not None
    assert (record.root, record.size, record.profile) == (added.cid, len(DATA), "ipcs-v1")
    assert {multihash_of(cid) for cid in sessions.announced} == set(store.blocks.keys())
    [again] = await add(files, OpenFile(b"f"), DATA, CloseFile())
    assert (again.cid, again.size, again.depth) == (added.cid, len(DATA), 0)
    assert b"".join([piece async for piece in files.read(added.cid, 299_990, 20)]) == DATA[299_990:300_010]
    assert await files.fetch(added.cid) == 4
    path = tmp_path / "f"
    path.write_bytes(DATA)
    assert (await files.add(path)).cid == added.cid


async def test_a_tree_is_kept_for_its_owner(node) -> None:
    files, store, _ = node
    steps = [OpenDirectory(b"top"), OpenFile(b"f"), DATA, CloseFile(), Symlink(b"s", b"f"), CloseDirectory()]
    added = await add(files, *steps, owner="user/me", profile=PROXY_2020)
    assert [(item.path, item.depth) for item in added] == [(b"top/f", 1), (b"top/s", 1), (b"top", 0)]
    assert [reference.owner for reference in store.references.held_by("user/me")] == ["user/me"]
    async with files.source(added[-1].cid, local_only=True) as source:
        assert await fetch_dag(source, added[-1].cid) == 1 + 1 + 1 + 3
    assert store.blobs.get(DIGEST) is None  # a file inside a tree is no blob


async def test_an_inlined_root_needs_no_commit(node) -> None:
    files, store, _ = node
    [added] = await add(files, OpenFile(b"f"), b"tiny", CloseFile(), profile=customised(PROXY_2020, inline_limit=32))
    assert list(store.blocks.keys()) == []
    assert b"".join([piece async for piece in files.read(added.cid)]) == b"tiny"


async def test_a_tree_that_is_cut_off_or_malformed_commits_nothing(node) -> None:
    files, store, _ = node
    with pytest.raises(FailedPrecondition, match="cut off"):
        await add(files, OpenDirectory(b""), OpenFile(b"f"), DATA, CloseFile(), owner="user/me")
    with pytest.raises(InvalidArgument, match="cannot be the name"):
        await add(files, OpenDirectory(b""), OpenFile(b".."), DATA, CloseFile(), owner="user/me")
    assert list(store.references.held_by("user/me")) == []


async def test_car(node) -> None:
    files, store, _ = node
    top = (await add(files, OpenDirectory(b""), OpenFile(b"f"), DATA, CloseFile(), CloseDirectory()))[-1].cid
    blocks = [block async for block in walk(LocalBlocks(store.blocks), [top])]
    archive = b"".join(encode_car([top], blocks))
    other = memory_store(links_of)
    there = Files(other, Peerless(other))
    done = await there.import_car(arriving([archive[:100_000], archive[100_000:]]), owner="user/me", local_only=True)
    assert (done.roots, done.blocks, done.size) == ((top,), len(blocks), sum(len(block.data) for block in blocks))
    assert len(list(other.references.held_by("user/me"))) == 1
    for wrong, error in (
        (archive[:-1], MalformedBlock),
        (archive[:-1] + bytes([archive[-1] ^ 1]), HashMismatch),
        (b"".join(encode_car([top], blocks[:-1])), NotFound),
    ):
        empty = memory_store(links_of)
        with pytest.raises(error):
            await Files(empty, Peerless(empty)).import_car(arriving([wrong]), owner="user/me", local_only=True)
        assert list(empty.references.held_by("user/me")) == []
