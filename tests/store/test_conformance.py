"""Every store there is passes the suite that the package ships."""

import pytest

from ipcs.store.blockstore import MemoryBlockstore
from ipcs.store.datastore import MemoryDatastore, Namespace
from ipcs.store.disk import DiskDirectory
from ipcs.store.leveldb import LevelDBDatastore
from ipcs.store.memory import MemoryDirectory
from ipcs.store.store import Store, StoreOptions, memory_store, open_store
from ipcs.testing.dags import links_of
from ipcs.testing.store_conformance import BLOCKSTORE_CHECKS, DATASTORE_CHECKS, STORE_CHECKS
from ipcs.testing.stores import FlakyDatastore, FlakyDirectory, PowerLoss, Trap


def over(datastore, directory, **options):
    return lambda: Store(datastore, directory, links_of, StoreOptions(**options))


def stores(tmp_path):
    disk = PowerLoss()
    return {
        "memory": over(MemoryDatastore(), MemoryDirectory()),
        "leveldb": lambda: open_store(tmp_path / "store", links_of),
        "leveldb, hash on read": lambda: open_store(tmp_path / "store", links_of, StoreOptions(hash_on_read=True)),
        "leveldb, durability none": lambda: open_store(tmp_path / "store", links_of, StoreOptions(durability="none")),
        "leveldb, small segments": lambda: open_store(tmp_path / "store", links_of, StoreOptions(segment_size=8192)),
        "losing power": over(disk.datastore, disk.directory),
        "flaky": over(FlakyDatastore(MemoryDatastore(), Trap()), FlakyDirectory(MemoryDirectory(), Trap())),
        "flaky on disk": over(
            FlakyDatastore(MemoryDatastore(), Trap()), FlakyDirectory(DiskDirectory(tmp_path / "segments"), Trap())
        ),
    }


STORES = [
    "memory",
    "leveldb",
    "leveldb, hash on read",
    "leveldb, durability none",
    "leveldb, small segments",
    "losing power",
    "flaky",
    "flaky on disk",
]


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", STORES)
def test_stores(name, check, tmp_path):
    check(stores(tmp_path)[name])


@pytest.mark.parametrize("check", BLOCKSTORE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", STORES)
def test_their_blockstores(name, check, tmp_path):
    opened = []

    def open_blockstore():
        opened.append(stores(tmp_path)[name]())
        return opened[-1].blocks

    check(open_blockstore)
    for store in opened:
        assert store.fsck().is_clean
        store.close()


@pytest.mark.parametrize("check", BLOCKSTORE_CHECKS, ids=lambda check: check.__name__)
def test_memory_blockstore(check):
    check(MemoryBlockstore)


@pytest.mark.parametrize("check", DATASTORE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["memory", "leveldb", "namespace", "losing power", "flaky"])
def test_datastores(name, check, tmp_path):
    check(
        {
            "memory": MemoryDatastore,
            "leveldb": lambda: LevelDBDatastore(tmp_path / "db"),
            "namespace": lambda: Namespace(_with_neighbours(), b"m"),
            "losing power": lambda: PowerLoss().datastore,
            "flaky": lambda: FlakyDatastore(MemoryDatastore(), Trap()),
        }[name]
    )


def _with_neighbours():
    datastore = MemoryDatastore()
    datastore.write([(b"l\xff", b"below"), (b"n", b"above")], sync=False)
    return datastore


def test_memory_store_is_the_memory_one():
    with memory_store(links_of) as store:
        assert store.fsck().is_clean
