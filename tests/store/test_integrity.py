"""Corrupt blocks: found, never served again, quarantined, fetched again; and an open after a crash trusts nothing."""

import pytest

from ipcs.block import make_block
from ipcs.cid import multihash_of
from ipcs.errors import NotFound
from ipcs.store import layout
from ipcs.store.datastore import MemoryDatastore
from ipcs.store.layout import PAGE
from ipcs.store.memory import MemoryDirectory
from ipcs.store.store import Store, StoreOptions
from ipcs.testing.dags import links_of, random_dag


class Disk:
    """A store in memory whose bytes a test may change behind its back."""

    def __init__(self):
        self.datastore, self.directory = MemoryDatastore(), MemoryDirectory()

    def open(self, **options):
        return Store(self.datastore, self.directory, links_of, StoreOptions(**options))

    def entry(self, block):
        return layout.unpack_entry(self.datastore.get(layout.BLOCK + multihash_of(block.cid)))

    def rot(self, block, page=0):
        """Flip a bit of `block`, wherever it lies."""
        key = layout.BLOCK + multihash_of(block.cid)
        value = self.datastore.get(key)
        if layout.is_inline(value):
            self.datastore.write([(key, value[:-1] + bytes((value[-1] ^ 1,)))], sync=True)
            return
        entry = self.entry(block)
        pages = self.directory.files[f"{entry.segment:08d}.seg"].pages
        place = entry.page + page
        pages[place] = bytes((pages[place][0] ^ 1,)) + pages[place][1:]


def key_of(block):
    return multihash_of(block.cid)


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def dag():
    return random_dag(1, leaves=9, leaf_size=9000, width=3)


def commit(store, dag, owner="containerd"):
    store.blocks.put_many(dag.blocks)
    store.commit_blob(dag.record(), owner)


@pytest.mark.parametrize("which", [0, 8, 9, -1], ids=["first leaf", "last leaf", "inner node", "root"])
def test_fsck_quarantines_and_a_put_heals(disk, dag, which):
    with disk.open() as store:
        commit(store, dag)
        disk.rot(dag.blocks[which])
        found = store.fsck()
        assert [problem.kind for problem in found.problems if problem.kind == "corrupt"] == ["corrupt"]
        assert store.fsck().problems == found.problems, "without repair nothing changes"
        store.fsck(repair=True)
        assert store.blocks.has_many([key_of(dag.blocks[which])]) == [False]
        assert store.blocks.get_many([key_of(dag.blocks[which])]) == [None]
        assert store.blocks.size_many([key_of(dag.blocks[which])]) == [None]
        assert {problem.kind for problem in store.fsck().problems} == {"missing"}
        store.collect()
        store.blocks.put_many([dag.blocks[which]])
        assert [bytes(data) for data in store.blocks.get_many(list(map(key_of, dag.blocks)))] == [
            block.data for block in dag.blocks
        ]
        assert store.fsck().is_clean
        store.references.drop("containerd", dag.record().digest)
        store.collect()
        assert not list(store.blocks.keys())
        assert not any(file.pages for file in disk.directory.files.values()), "quarantined bytes are freed too"


def test_hash_on_read_serves_nothing_corrupt(disk, dag):
    with disk.open(hash_on_read=True) as store:
        commit(store, dag)
        disk.rot(dag.blocks[3], page=2)
        disk.rot(dag.blocks[-1])
        keys = list(map(key_of, dag.blocks))
        served = store.blocks.get_many(keys)
        lost = [index for index, data in enumerate(served) if data is None]
        assert lost == [3, len(keys) - 1]
        assert store.statistics().quarantined == 1, "the root is inline and leaves no bytes behind"
        store.blocks.put_many(dag.blocks)
        assert None not in store.blocks.get_many(keys)
        store.fsck(repair=True)
        assert store.fsck().is_clean


def test_a_segment_that_is_cut_short_is_noticed_without_hashing(disk, dag):
    with disk.open() as store:
        commit(store, dag)
        file = disk.directory.files["00000001.seg"]
        file.length = disk.entry(dag.blocks[5]).page * PAGE + 100
        served = store.blocks.get_many(list(map(key_of, dag.blocks)))
        assert [data is None for data in served[:9]] == [False] * 5 + [True] * 4


def test_a_dag_with_a_quarantined_block_cannot_be_committed(disk, dag):
    with disk.open() as store:
        commit(store, dag, None)
        disk.rot(dag.blocks[0])
        store.fsck(repair=True)
        with pytest.raises(NotFound):
            store.references.add("user/me", dag.blocks[0].cid)


@pytest.mark.parametrize("collected", [False, True])
def test_damage_goes_with_its_dag(disk, dag, collected):
    """A DAG whose inner node is gone is dropped as far as it can be followed; fsck frees the rest."""
    other = random_dag(2, leaves=3, leaf_size=9000)
    with disk.open() as store:
        commit(store, dag, None)
        commit(store, other)
        disk.rot(dag.blocks[9])
        if not collected:
            store.fsck(repair=True)
        store.collect()
        store.fsck(repair=True)
        store.collect()
        assert sorted(store.blocks.keys()) == sorted(map(key_of, other.blocks))
        assert store.fsck().is_clean


def test_the_tail_is_read_before_it_is_trusted(disk, dag):
    """A crash: bytes behind the last barrier are hashed at open, and what is wrong or has no entry is forgotten."""
    store = disk.open()
    commit(store, dag)
    loose = [make_block(bytes((index,)) * 9000) for index in range(3)]
    store.blocks.put_many(loose)
    crashed = Disk()
    crashed.datastore.write(list(disk.datastore.scan(b"")), sync=True)
    crashed.directory = disk.directory
    disk.rot(loose[1])
    crashed.datastore.write([(layout.BLOCK + key_of(loose[2]), None)], sync=True)
    with crashed.open() as again:
        assert again.statistics().forgotten_at_open == 1
        assert again.blocks.has_many(list(map(key_of, loose))) == [True, False, False]
        assert again.fsck().is_clean
        assert sum(len(file.pages) for file in crashed.directory.files.values()) == 10 * 3
    store.close()


def mangle(datastore, prefix):
    """Remove every pair under `prefix`."""
    datastore.write([(key, None) for key, _ in datastore.scan(prefix)], sync=True)


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        (layout.BY_ROOT, "record"),
        (layout.ROOT, "record"),
        (layout.UNHELD, "queue"),
        (layout.BY_HOLDER, "reference"),
        (layout.EXPIRY, "reference"),
        (layout.LOOSE, "queue"),
        (layout.BY_OWNER, "reference"),
        (layout.BLOB, "record"),
    ],
)
def test_fsck_finds_and_mends_each_table(disk, dag, prefix, kind):
    cache = random_dag(2, leaves=3, leaf_size=9000)
    with disk.open() as store:
        commit(store, dag)
        commit(store, cache, None)
        store.references.add("lease/a", dag.record().digest, expires_at=2**62)
        store.blocks.put_many([make_block(b"loose" * 1000)])
        assert store.fsck().is_clean
        mangle(disk.datastore, prefix)
        assert kind in {problem.kind for problem in store.fsck(repair=True).problems}
        store.fsck(repair=True)
        assert store.fsck().is_clean


def test_fsck_finds_wrong_counts_and_orphans(disk, dag):
    with disk.open() as store:
        commit(store, dag)
        for block, counted in ((dag.blocks[0], 5), (dag.blocks[1], 0), (dag.blocks[-1], 2)):
            key = layout.BLOCK + key_of(block)
            value = disk.datastore.get(key)
            wrong = layout.unpack_entry(value)._replace(counted=counted)
            disk.datastore.write([(key, layout.repack_entry(wrong, value))], sync=True)
        file = disk.directory.files["00000001.seg"]
        file.write([b"nobody's" * 1000], -(-file.size() // PAGE) * PAGE)
        kinds = [problem.kind for problem in store.fsck(repair=True).problems]
        assert sorted(kinds) == ["count", "count", "count", "orphan"]
        assert store.fsck().is_clean
        store.references.drop("containerd", dag.record().digest)
        store.collect()
        assert not list(store.blocks.keys())
        assert store.fsck().is_clean
