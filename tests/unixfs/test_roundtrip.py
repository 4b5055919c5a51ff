"""Any bytes, any parameters, any range: what was imported is what is exported."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipcs.block import check_block
from ipcs.blockservice import LocalBlocks
from ipcs.cid import RAW, Cid, codec_of
from ipcs.errors import FailedPrecondition, InvalidArgument, NotFound
from ipcs.hashes import HASH_NAMES
from ipcs.store.blockstore import MemoryBlockstore
from ipcs.unixfs import walk
from ipcs.unixfs.builder import NO_ATTRIBUTES
from ipcs.unixfs.exporter import read, read_stored
from ipcs.unixfs.importer import Importer, import_blocks
from ipcs.unixfs.node import Attributes, Mtime
from ipcs.unixfs.profile import IPCS_V1, PROFILES, Layout, Profile, profile_named

chunkers = st.one_of(
    st.integers(1, 300).map(lambda size: f"size-{size}"),
    st.integers(48, 400).map(lambda size: f"rabin-{size}"),
    st.just("buzhash"),
)
profiles = st.builds(
    Profile,
    cid_version=st.just(1),
    raw_leaves=st.booleans(),
    hash_code=st.sampled_from([HASH_NAMES[name] for name in ("sha2-256", "blake3", "blake2b-256", "sha2-512")]),
    chunker=chunkers,
    layout=st.sampled_from(Layout),
    max_links=st.integers(2, 12),
    inline_limit=st.sampled_from([0, 8, 32, 128]),
)
attributes = st.builds(
    Attributes,
    mode=st.none() | st.integers(0, 0o7777),
    mtime=st.none() | st.builds(Mtime, st.integers(-(2**63), 2**63 - 1), st.integers(0, 999_999_999)),
)


def put(
    data: bytes, profile: Profile = IPCS_V1, piece: int = 997, attrs: Attributes = NO_ATTRIBUTES
) -> tuple[MemoryBlockstore, Cid]:
    store = MemoryBlockstore()
    importer = Importer(profile, attrs)
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
    store.put_many([check_block(cid, block) for cid, block in import_blocks(importer, pieces)])
    assert importer.root.size == len(data)
    return store, importer.root.cid


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(0, 4000),
    repetitive=st.booleans(),
    profile=profiles,
    attrs=attributes,
    piece=st.integers(1, 5000),
    begin=st.integers(0, 4100),
    length=st.none() | st.integers(0, 4100),
)
def test_any_range_of_any_file(seed, size, repetitive, profile, attrs, piece, begin, length) -> None:
    data = bytes(size) if repetitive else random.Random(seed).randbytes(size)
    store, root = put(data, profile, piece, attrs)
    end = None if length is None else begin + length
    assert b"".join(read_stored(store, root, begin, length)) == data[begin:end]


@settings(deadline=None, max_examples=30)
@given(data=st.binary(max_size=600), profile=profiles, cuts=st.lists(st.integers(1, 200), max_size=8))
def test_the_root_does_not_depend_on_how_bytes_arrive(data, profile, cuts) -> None:
    whole = Importer(profile)
    expected = [*whole.feed(data), *whole.finish()]
    importer, at, blocks = Importer(profile), 0, []
    for cut in cuts:
        blocks += importer.feed(data[at : at + cut])
        at += cut
    blocks += importer.feed(data[at:]) + importer.finish()
    assert importer.root == whole.root
    assert [cid for cid, _ in blocks] == [cid for cid, _ in expected]


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("size", [0, 1, 262143, 262144, 262145, 1048577, 3_000_000])
async def test_profiles(name: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    store, root = put(data, profile_named(name), 100_000)
    source = LocalBlocks(store)
    assert b"".join([piece async for piece in read(source, root)]) == data
    middle = [piece async for piece in read(source, root, size // 3, 70_000)]
    assert b"".join(middle) == data[size // 3 : size // 3 + 70_000]
    assert await walk.fetch_dag(source, root) == len(list(store.keys()))
    assert {cid async for cid, _ in walk.walk(source, [root])} == {
        cid async for cid, _ in walk.walk(source, [root, root])
    }


async def test_a_range_touches_only_the_blocks_it_needs() -> None:
    data = random.Random(7).randbytes(100_000)
    store, root = put(data, Profile(chunker="size-1000", max_links=10))
    touched: list[Cid] = []

    class Recording(LocalBlocks):
        async def get_many(self, cids):
            touched.extend(cids)
            return await super().get_many(cids)

    pieces = [piece async for piece in read(Recording(store), root, 55_500, 2_000)]
    assert b"".join(pieces) == data[55_500:57_500]
    assert len([cid for cid in touched if codec_of(cid) == RAW]) == 3
    assert len(touched) == 3 + 2  # and the two inner nodes above them
    assert [len(piece) for piece in pieces] == [500, 1000, 500]


async def test_read_ahead_is_announced_once_and_in_order() -> None:
    data = random.Random(8).randbytes(40 << 18)
    store, root = put(data, IPCS_V1, 1 << 20)
    announced: list[Cid] = []
    taken: list[Cid] = []

    class Recording(LocalBlocks):
        def prefetch(self, cids):
            announced.extend(cids)

        async def get_many(self, cids):
            assert set(cids) <= set(announced), "a block was read that had not been announced"
            taken.extend(cids)
            if len(taken) == 9:
                assert len(announced) <= 1 + 8 + 32 + 4, "the window is 8 MiB, 32 leaves of 256 KiB"
            return await super().get_many(cids)

    assert b"".join([piece async for piece in read(Recording(store), root)]) == data
    assert announced == taken
    assert len(announced) == 41


async def test_missing_block_is_named() -> None:
    store, root = put(random.Random(9).randbytes(1000), Profile(chunker="size-100"))
    leaf = [cid async for cid, _ in walk.walk(LocalBlocks(store), [root])][3]
    from ipcs.cid import format_cid, multihash_of

    store.delete_many([multihash_of(leaf)])
    with pytest.raises(NotFound, match=format_cid(leaf)):
        b"".join(read_stored(store, root))
    with pytest.raises(NotFound, match=format_cid(leaf)):
        await walk.fetch_dag(LocalBlocks(store), root)
    assert b"".join(read_stored(store, root, 500, 10))


def test_misuse_is_named() -> None:
    with pytest.raises(FailedPrecondition, match="no root"):
        _ = Importer().root
    with pytest.raises(InvalidArgument, match="negative"):
        list(read_stored(MemoryBlockstore(), put(b"x")[1], -1))
    with pytest.raises(InvalidArgument, match="ipcs-v1"):
        profile_named("nope")
    with pytest.raises(InvalidArgument, match="sha2-256 only"):
        Profile(cid_version=0, hash_code=0x1E)
    with pytest.raises(InvalidArgument, match="at least 2"):
        Profile(max_links=1)
