"""The conformance suite of stores: whoever writes a datastore, a blockstore or a store runs it against theirs.

Each check takes a function that opens the thing under test; called again, after `close`, it opens the same one anew.

    @pytest.mark.parametrize("check", BLOCKSTORE_CHECKS)
    def test_conformance(check):
        check(MyBlockstore)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from ..block import Block, make_block
from ..cid import DAG_PB, RAW, Cid, Multihash, cid_to_digest, cid_v1, multihash_of
from ..errors import FailedPrecondition, InvalidArgument, IpcsError, NotFound
from ..store.blockstore import Blockstore
from ..store.datastore import Datastore
from ..store.store import Store
from .dags import make_dag, random_dag

OpenDatastore = Callable[[], Datastore]
OpenBlockstore = Callable[[], Blockstore]
OpenStore = Callable[[], Store]

SIZES = (0, 1, 1024, 2047, 2048, 2049, 4095, 4096, 4097, 262_144, 1 << 20)
"""Lengths of blocks, in bytes, around every limit that an implementation is likely to have."""


def blocks_of(sizes: Sequence[int] = SIZES) -> list[Block]:
    """One block of each size, all different."""
    return [make_block(index.to_bytes(1, "big") * size) for index, size in enumerate(sizes)]


def keys_of(blocks: Sequence[Block]) -> list[Multihash]:
    """The keys of `blocks`."""
    return [multihash_of(block.cid) for block in blocks]


def _bytes(found: Sequence[object]) -> list[bytes | None]:
    return [None if data is None else bytes(memoryview(data)) for data in found]  # type: ignore[arg-type]


def _is_refused(action: Callable[[], object], error: type[IpcsError]) -> bool:
    try:
        action()
    except error:
        return True
    return False


# datastores


def datastore_reads_what_was_written(open_datastore: OpenDatastore) -> None:
    datastore = open_datastore()
    datastore.write([(b"a", b"1"), (b"b", b""), (b"c", b"3")], sync=False)
    datastore.write([(b"a", None), (b"c", b"4"), (b"c", b"5"), (b"absent", None)], sync=True)
    assert datastore.get_many([b"a", b"b", b"c", b"absent"]) == [None, b"", b"5", None]
    assert datastore.get(b"b") == b""
    datastore.write([], sync=True)
    datastore.close()


def datastore_scans_in_order(open_datastore: OpenDatastore) -> None:
    datastore = open_datastore()
    keys = [bytes((first, second)) for first in (0, 1, 255) for second in range(256)]
    datastore.write([(key, key[::-1]) for key in reversed(keys)] * 2, sync=False)
    for prefix in (b"", b"\0", b"\1", b"\xff", b"\xff\xff", b"\2"):
        assert list(datastore.scan(prefix)) == [(key, key[::-1]) for key in keys if key.startswith(prefix)]
    assert [key for key, _ in datastore.scan(b"\1", b"\1\xf0")] == keys[256 + 240 : 512]
    assert [key for key, _ in datastore.scan(b"\1", b"\0")] == keys[256:512]
    assert not list(datastore.scan(b"\1", b"\2"))
    datastore.close()


def datastore_may_be_written_during_a_scan(open_datastore: OpenDatastore) -> None:
    datastore = open_datastore()
    keys = [index.to_bytes(2, "big") for index in range(2000)]
    datastore.write([(key, b"") for key in keys], sync=False)
    seen = []
    for key, _ in datastore.scan(b""):
        seen.append(key)
        datastore.write([(key, None), (b"\xff" + key, b"")], sync=False)
        if len(seen) == len(keys):
            break
    assert seen == keys
    datastore.close()


# blockstores


def blocks_come_back(open_blockstore: OpenBlockstore) -> None:
    blockstore, blocks = open_blockstore(), blocks_of()
    keys, absent = keys_of(blocks), keys_of([make_block(b"absent")])[0]
    assert blockstore.has_many(keys) == [False] * len(keys)
    blockstore.put_many(blocks)
    blockstore.put_many(blocks[:3])
    asked = [absent, *keys, *reversed(keys), absent]
    data = [bytes(block.data) for block in blocks]
    assert _bytes(blockstore.get_many(asked)) == [None, *data, *reversed(data), None]
    assert blockstore.has_many([absent, *keys]) == [False] + [True] * len(keys)
    assert blockstore.size_many([*keys, absent]) == [*SIZES, None]
    assert sorted(blockstore.keys()) == sorted(keys)
    assert blockstore.get_many([]) == []
    blockstore.put_many([])


def keys_are_multihashes(open_blockstore: OpenBlockstore) -> None:
    blockstore = open_blockstore()
    block = make_block(b"one block, three CIDs")
    key = multihash_of(block.cid)
    blockstore.put_many([block, Block(Cid(key), block.data), Block(cid_v1(DAG_PB, key), block.data)])
    assert list(blockstore.keys()) == [key]
    assert _bytes(blockstore.get_many([key, key])) == [block.data] * 2


def blocks_may_be_views(open_blockstore: OpenBlockstore) -> None:
    blockstore, buffer = open_blockstore(), bytearray(b"x" * 300_000)
    small, large = make_block(bytes(buffer[:100])), make_block(bytes(buffer))
    view = memoryview(buffer)
    blockstore.put_many([Block(small.cid, view[:100]), Block(large.cid, view)])
    buffer[:] = bytes(len(buffer))
    assert _bytes(blockstore.get_many(keys_of([small, large]))) == [small.data, large.data]


def deleted_blocks_are_gone(open_blockstore: OpenBlockstore) -> None:
    blockstore, blocks = open_blockstore(), blocks_of()
    keys = keys_of(blocks)
    blockstore.put_many(blocks)
    held = blockstore.get_many(keys)
    blockstore.delete_many(keys[::2] * 2)
    expected = [None if index % 2 == 0 else bytes(block.data) for index, block in enumerate(blocks)]
    assert _bytes(blockstore.get_many(keys)) == expected
    assert _bytes(held) == [bytes(block.data) for block in blocks], "views stay valid"
    blockstore.put_many(blocks)
    assert _bytes(blockstore.get_many(keys)) == [bytes(block.data) for block in blocks]


def threads_may_share_it(open_blockstore: OpenBlockstore) -> None:
    blockstore = open_blockstore()
    blocks = [make_block(bytes((index % 251,)) * (500 + index * 97)) for index in range(200)]
    failures: list[str] = []

    def work(offset: int) -> None:
        mine = blocks[offset:] + blocks[:offset]
        for start in range(0, len(mine), 7):
            batch = mine[start : start + 7]
            blockstore.put_many(batch)
            if _bytes(blockstore.get_many(keys_of(batch))) != [block.data for block in batch]:
                failures.append(f"thread {offset} read something else at {start}")

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 50, 100, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(blockstore.keys()) == sorted(keys_of(blocks))


# stores


def commits_survive_reopening(open_store: OpenStore) -> None:
    store, dag = open_store(), random_dag(1, leaves=9, leaf_size=3000, width=3)
    record = dag.record(at=7)
    store.blocks.put_many(dag.blocks)
    store.commit_blob(record, "containerd", name="layer")
    store.records.write([(b"key", b"value")], sync=True)
    store.close()
    store = open_store()
    assert store.blobs.get(record.digest) == record
    assert store.blobs.by_root(dag.root) == [record]
    assert list(store.blobs) == [record]
    held = store.references.holders(record.digest)
    assert [(at.owner, at.root, at.name) for at in held] == [("containerd", record.digest, "layer")]
    assert _bytes(store.blocks.get_many(keys_of(dag.blocks))) == [bytes(block.data) for block in dag.blocks]
    assert list(store.records.scan(b"")) == [(b"key", b"value")]
    assert store.fsck().is_clean
    store.close()


def commits_want_the_whole_dag(open_store: OpenStore) -> None:
    store, dag = open_store(), random_dag(2, leaves=9, leaf_size=2000, width=3)
    record = dag.record()
    for absent in (0, 8, 9, len(dag.blocks) - 1):
        store.blocks.put_many([*dag.blocks[:absent], *dag.blocks[absent + 1 :]])
        for commit in (lambda: store.commit_blob(record), lambda: store.references.add("user/me", dag.root)):
            assert _is_refused(commit, NotFound), "a DAG with a hole was committed"
        store.blocks.delete_many(keys_of(dag.blocks))
    assert store.blobs.get(record.digest) is None
    assert not list(store.references.held_by())
    assert store.fsck().is_clean
    store.close()


def references_name_their_owners(open_store: OpenStore) -> None:
    store, dag = open_store(), random_dag(3, leaves=2, leaf_size=100)
    digest = cid_to_digest(dag.root)
    store.references.add("containerd", digest)
    store.blocks.put_many(dag.blocks)
    store.commit_blob(dag.record(digest=digest))
    store.references.add("user/me", dag.root, name="mine")
    store.references.add("user/me", dag.root, name="still mine")
    for root in (digest, dag.root):
        assert sorted(at.owner for at in store.references.holders(root)) == ["containerd", "user/me"]
    assert [at.name for at in store.references.held_by("user/me")] == ["still mine"]
    assert store.references.drop("user/me", dag.root)
    assert not store.references.drop("user/me", dag.root)
    assert [at.owner for at in store.references.held_by()] == ["containerd"]
    for owner in ("", "cache", "user/", "user/a\0b", "root"):
        assert _is_refused(partial(store.references.add, owner, digest), InvalidArgument), f"{owner!r} was taken"
    store.close()


def collection_takes_cache_only(open_store: OpenStore) -> None:
    store = open_store()
    leaves = [bytes((index,)) * 5000 for index in range(12)]
    kept, pinned, cache = make_dag(leaves[:6], 2), make_dag(leaves[4:9], 2), make_dag(leaves[3:12], 2)
    loose = make_block(b"loose" * 1000)
    for dag in (kept, pinned, cache):
        store.blocks.put_many(dag.blocks)
    store.blocks.put_many([loose])
    store.commit_blob(kept.record(), "containerd")
    store.references.add("user/me", pinned.root)
    store.commit_blob(cache.record())
    withdrawn: list[str] = []
    store.on_withdraw = withdrawn.extend
    rehearsed = store.collect(dry_run=True)
    assert sorted(store.blocks.keys()) == sorted({*keys_of(kept.blocks + pinned.blocks + cache.blocks + [loose])})
    assert not withdrawn
    done = store.collect()
    assert (done.blobs, done.blocks, done.block_bytes) == (rehearsed.blobs, rehearsed.blocks, rehearsed.block_bytes)
    assert done.freed_bytes > 0
    assert withdrawn == [cache.record().digest]
    stay = {*keys_of(kept.blocks + pinned.blocks)}
    assert sorted(store.blocks.keys()) == sorted(stay)
    assert all(data is not None for data in store.blocks.get_many(sorted(stay)))
    assert store.blobs.get(cache.record().digest) is None
    assert store.fsck().is_clean
    store.close()


def held_blocks_stay(open_store: OpenStore) -> None:
    store = open_store()
    read, fetched, ingested = (random_dag(seed, leaves=9, leaf_size=2000, width=3) for seed in (4, 5, 6))
    store.blocks.put_many(read.blocks)
    store.commit_blob(read.record())
    store.blocks.put_many([block for block in fetched.blocks if block is not fetched.blocks[4]])
    stay = keys_of(read.blocks + fetched.blocks[:4] + fetched.blocks[5:] + ingested.blocks[:5])
    with store.hold(read.record().digest), store.hold(fetched.root), store.hold() as ingest:
        ingest.put_many(ingested.blocks[:5])
        store.collect()
        assert sorted(store.blocks.keys()) == sorted(stay)
        ingest.put_many(ingested.blocks[5:])
        store.commit_blob(ingested.record(), "containerd")
    store.collect()
    assert sorted(store.blocks.keys()) == sorted(keys_of(ingested.blocks))
    assert store.fsck().is_clean
    store.close()


def counted_blocks_cannot_be_deleted(open_store: OpenStore) -> None:
    store, dag = open_store(), random_dag(7, leaves=3, leaf_size=3000)
    store.blocks.put_many(dag.blocks)
    store.commit_blob(dag.record())
    assert _is_refused(lambda: store.blocks.delete_many(keys_of(dag.blocks[:1])), FailedPrecondition)
    assert store.blocks.has_many(keys_of(dag.blocks)) == [True] * len(dag.blocks)
    store.close()


def a_block_may_be_node_and_leaf(open_store: OpenStore) -> None:
    store = open_store()
    inner = random_dag(8, leaves=3, leaf_size=3000)
    as_leaf = make_dag([b"other" * 1000, bytes(inner.blocks[-1].data)])
    store.blocks.put_many(inner.blocks + as_leaf.blocks)
    store.commit_blob(as_leaf.record(), "containerd")
    store.references.add("user/me", inner.root)
    store.collect()
    assert sorted(store.blocks.keys()) == sorted({*keys_of(inner.blocks + as_leaf.blocks)})
    assert store.fsck().is_clean
    store.references.drop("user/me", inner.root)
    store.references.drop("containerd", as_leaf.record().digest)
    store.collect()
    assert not list(store.blocks.keys())
    assert cid_v1(RAW, multihash_of(inner.root)) == as_leaf.blocks[1].cid
    store.close()


DATASTORE_CHECKS = (
    datastore_reads_what_was_written,
    datastore_scans_in_order,
    datastore_may_be_written_during_a_scan,
)
BLOCKSTORE_CHECKS = (
    blocks_come_back,
    keys_are_multihashes,
    blocks_may_be_views,
    deleted_blocks_are_gone,
    threads_may_share_it,
)
STORE_CHECKS = (
    commits_survive_reopening,
    commits_want_the_whole_dag,
    references_name_their_owners,
    collection_takes_cache_only,
    held_blocks_stay,
    counted_blocks_cannot_be_deleted,
    a_block_may_be_node_and_leaf,
)
