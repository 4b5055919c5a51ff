"""Collection: what goes first, what is told before, what stays, and that it runs beside everything else."""

import random
import threading

import pytest
import trio

from ipcs.block import make_block
from ipcs.cid import multihash_of
from ipcs.store.datastore import MemoryDatastore
from ipcs.store.disk import DiskDirectory
from ipcs.store.memory import MemoryDirectory
from ipcs.store.store import Store, StoreOptions, memory_store, open_store
from ipcs.store.watermark import keep_below_watermark
from ipcs.testing.dags import links_of, make_dag, random_dag

MINUTE = 60 * 10**9


class Clock:
    """Nanoseconds since 1970, as told."""

    def __init__(self):
        self.now = 10**18

    def __call__(self):
        return self.now


def keys_of(dag):
    return [multihash_of(block.cid) for block in dag.blocks]


def commit(store, dag, owner=None):
    store.blocks.put_many(dag.blocks)
    store.commit_blob(dag.record(), owner)


def present(store, dags):
    return [all(store.blocks.has_many(keys_of(dag))) for dag in dags]


def test_least_recently_served_goes_first():
    clock = Clock()
    dags = [random_dag(seed, leaves=4, leaf_size=100_000) for seed in range(4)]
    with memory_store(links_of, StoreOptions(clock=clock)) as store:
        for dag in dags:
            clock.now += MINUTE
            commit(store, dag)
        clock.now += 2 * MINUTE
        store.touch(dags[0].root)
        store.touch(dags[2].record().digest)
        for gone in (1, 3, 0, 2):
            assert store.blobs.get(dags[gone].record().digest) is not None
            store.collect(down_to=store.statistics().disk_bytes - 1)
            assert store.blobs.get(dags[gone].record().digest) is None
        assert not list(store.blocks.keys())


def test_loose_blocks_take_their_turn_by_age():
    clock = Clock()
    old, young = make_block(b"old" * 5000), make_block(b"young" * 5000)
    dag = random_dag(1, leaves=4, leaf_size=100_000)
    with memory_store(links_of, StoreOptions(clock=clock)) as store:
        store.blocks.put_many([old])
        clock.now += MINUTE
        commit(store, dag)
        clock.now += MINUTE
        store.blocks.put_many([young])
        keys = [multihash_of(old.cid), multihash_of(dag.root), multihash_of(young.cid)]
        for left in ([False, True, True], [False, False, True], [False, False, False]):
            store.collect(down_to=store.statistics().disk_bytes - 1)
            assert store.blocks.has_many(keys) == left


def test_announcements_are_withdrawn_before_bytes_go():
    told = []
    with memory_store(links_of) as store:
        dags = [random_dag(seed, leaves=3, leaf_size=3000) for seed in range(100)]
        for dag in dags:
            commit(store, dag)

        def withdraw(digests):
            assert all(store.blobs.get(digest) is not None for digest in digests)
            assert all(present(store, [dag for dag in dags if dag.record().digest in digests]))
            told.extend(digests)

        store.on_withdraw = withdraw
        store.collect()
        assert sorted(told) == sorted(dag.record().digest for dag in dags)


def test_expired_leases_go_with_the_collection():
    clock = Clock()
    dag = random_dag(1, leaves=3, leaf_size=3000)
    with memory_store(links_of, StoreOptions(clock=clock)) as store:
        commit(store, dag)
        store.references.add("lease/short", dag.root, expires_at=clock.now + MINUTE)
        store.collect()
        assert present(store, [dag]) == [True]
        store.references.add("lease/short", dag.root, expires_at=clock.now + 3 * MINUTE)
        clock.now += 2 * MINUTE
        store.collect()
        assert present(store, [dag]) == [True]
        clock.now += MINUTE
        store.collect()
        assert present(store, [dag]) == [False]
        assert not list(store.references.held_by())


def test_a_new_root_for_a_digest_frees_the_old():
    first, second = random_dag(1, leaves=3, leaf_size=3000), random_dag(2, leaves=3, leaf_size=3000)
    digest = first.record().digest
    with memory_store(links_of) as store:
        commit(store, first, "containerd")
        store.blocks.put_many(second.blocks)
        store.commit_blob(second.record(digest=digest))
        assert store.blobs.by_root(first.root) == []
        store.collect()
        assert present(store, [first, second]) == [False, True]
        assert store.fsck().is_clean


async def test_the_watermarks_hold(monkeypatch):
    with memory_store(links_of, StoreOptions(storage_max=1_000_000)) as store:
        dags = [random_dag(seed, leaves=4, leaf_size=20_000) for seed in range(12)]
        for dag in dags[:9]:
            commit(store, dag)
        assert not store.is_over_high_watermark()
        for dag in dags[9:]:
            commit(store, dag)
        assert store.is_over_high_watermark()
        collect, collected = store.collect, trio.Event()

        def collect_and_tell(**options):
            collect(**options)
            trio.from_thread.run_sync(collected.set)

        monkeypatch.setattr(store, "collect", collect_and_tell)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_below_watermark, store)
            await collected.wait()
            nursery.cancel_scope.cancel()
        assert 0.4 * 1_000_000 < store.statistics().disk_bytes <= store.low_watermark
        assert present(store, dags[-1:]) == [True]


def test_space_comes_back_on_the_file_system(tmp_path):
    kept, gone = (
        [random_dag(seed, leaves=16, leaf_size=256 << 10) for seed in range(start, start + 8)] for start in (0, 100)
    )
    with open_store(tmp_path, links_of) as store:
        for pair in zip(kept, gone, strict=True):
            commit(store, pair[0], "containerd")
            commit(store, pair[1])
        before = DiskDirectory(tmp_path / "blocks").allocated()
        report = store.collect()
        after = DiskDirectory(tmp_path / "blocks").allocated()
        live = sum(len(block.data) for dag in kept for block in dag.blocks)
        assert before > 1.9 * live
        assert after <= 1.01 * live
        assert report.freed_bytes == pytest.approx(before - after, rel=0.02)
        assert present(store, kept) == [True] * len(kept)
        for dag in kept:
            store.references.drop("containerd", dag.record().digest)
        store.collect()
        assert DiskDirectory(tmp_path / "blocks").allocated() < 10_000


SHARED = [random.Random(1).randbytes(50_000) for _ in range(8)]


def read_until(store, dags, seed, done, failures):
    """Read DAGs at random until `done`; note every block that is lost or wrong."""
    source = random.Random(seed)
    while not done.is_set() and not failures:
        dag = source.choice(dags)
        for block, data in zip(dag.blocks, store.blocks.get_many(keys_of(dag)), strict=True):
            if data is None or bytes(data) != block.data:
                failures.append(f"reader {seed}: {'lost' if data is None else 'wrong'}")


def ingest_some(store, seed):
    """Ingest blobs that share leaves with each other and with the readers', and drop some again."""
    for number in range(16):
        dag = make_dag([*SHARED, random.Random(f"{seed} {number}").randbytes(60_000)], 3)
        with store.hold() as hold:
            hold.put_many(dag.blocks)
            store.commit_blob(dag.record(), "user/writer" if number % 4 == 0 else None)
        if number % 8 == 0:
            store.references.drop("user/writer", dag.record().digest)


def test_readers_and_writers_go_on(tmp_path):
    """No reader of a held blob ever misses a block, whatever is collected around it."""
    kept = [make_dag([*SHARED[:4], b"%d" % index * 9000], 3) for index in range(6)]
    failures, done = [], threading.Event()
    with open_store(tmp_path, links_of, StoreOptions(segment_size=1 << 20)) as store:
        for dag in kept:
            commit(store, dag, "containerd")
        readers = [threading.Thread(target=read_until, args=(store, kept, seed, done, failures)) for seed in range(4)]
        writers = [threading.Thread(target=ingest_some, args=(store, seed)) for seed in range(2)]
        for thread in readers + writers:
            thread.start()
        while any(writer.is_alive() for writer in writers):
            store.collect()
        done.set()
        for thread in readers + writers:
            thread.join()
        assert not failures
        assert store.fsck().is_clean


@pytest.mark.parametrize("kept", [10, 400])
def test_the_cost_does_not_grow_with_what_is_kept(kept):
    """Reads and writes of the index, counted, not timed: ten blobs cost the same beside ten or four hundred others."""
    datastore = CountingDatastore()
    with Store(datastore, MemoryDirectory(), links_of, StoreOptions()) as store:
        for seed in range(kept):
            commit(store, random_dag(seed, leaves=3, leaf_size=2000), "containerd")
        store.collect()
        for seed in range(10):
            commit(store, random_dag(1000 + seed, leaves=3, leaf_size=2000))
        datastore.operations = 0
        assert store.collect().blobs == 10
        assert datastore.operations < 700


class CountingDatastore(MemoryDatastore):
    """Counts the keys that are read and written."""

    operations = 0

    def get(self, key):
        self.operations += 1
        return super().get(key)

    def get_many(self, keys):
        self.operations += len(keys)
        return super().get_many(keys)

    def write(self, batch, *, sync):
        self.operations += len(batch)
        super().write(batch, sync=sync)

    def scan(self, prefix, start=b""):
        for pair in super().scan(prefix, start):
            self.operations += 1
            yield pair
