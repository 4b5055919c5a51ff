"""Full disk, read-only disk, missing permission, too many open files: a clear error, nothing lost, reads go on."""

import contextlib
import os
import resource
import subprocess
import sys

import pytest

from ipcs.block import make_block
from ipcs.cid import multihash_of
from ipcs.errors import FailedPrecondition, IpcsError, ResourceExhausted, StoreCorrupt
from ipcs.store.datastore import MemoryDatastore
from ipcs.store.logstore import MIN_FREE
from ipcs.store.memory import MemoryDirectory
from ipcs.store.store import Store, StoreOptions, open_store
from ipcs.testing.dags import links_of, random_dag
from ipcs.testing.stores import FlakyDatastore, FlakyDirectory, Trap

MIB = 1 << 20


@contextlib.contextmanager
def mounted(path, options):
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs, which takes root: {done.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path):
    """Take every byte that is left."""
    with open(path / "other-data", "ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def holds(store, dag):
    keys = [multihash_of(block.cid) for block in dag.blocks]
    return [bytes(data) for data in store.blocks.get_many(keys)] == [bytes(block.data) for block in dag.blocks]


def commit(store, dag, owner):
    store.blocks.put_many(dag.blocks)
    store.commit_blob(dag.record(), owner)


def test_a_full_disk_is_told_and_collected(tmp_path):
    kept, cache, more = (random_dag(seed, leaves=80, leaf_size=256 << 10) for seed in (1, 2, 3))
    with mounted(tmp_path / "disk", "size=200m") as disk, open_store(disk / "store", links_of) as store:
        commit(store, kept, "containerd")
        commit(store, cache, None)
        fill(disk)
        assert os.statvfs(disk).f_bavail == 0
        with pytest.raises(ResourceExhausted, match="free space, lower --storage-max or run `ipcs gc`"):
            store.blocks.put_many(more.blocks)
        assert holds(store, kept)
        assert holds(store, cache)
        # the index has some space in reserve: references still change
        store.references.add("user/me", kept.root)
        store.references.drop("containerd", kept.record().digest)
        report = store.collect()
        assert report.blobs == 1
        assert report.freed_bytes > 0.99 * sum(len(block.data) for block in cache.blocks)
        assert holds(store, kept)
        assert os.statvfs(disk).f_bavail > 0
        (disk / "other-data").unlink()
        commit(store, more, "containerd")
        assert store.fsck().is_clean
        store.close()
        with open_store(disk / "store", links_of) as again:
            assert holds(again, kept)
            assert holds(again, more)
            assert again.fsck().is_clean


def test_a_store_opens_on_a_full_disk(tmp_path):
    dag = random_dag(1, leaves=20, leaf_size=256 << 10)
    with mounted(tmp_path / "disk", "size=160m") as disk:
        with open_store(disk / "store", links_of) as store:
            commit(store, dag, None)
        fill(disk)
        with open_store(disk / "store", links_of) as store:
            assert holds(store, dag)
            assert store.collect().blobs == 1


def test_the_index_refuses_and_recovers(tmp_path):
    """A write that LevelDB fails half-way neither loses what was acknowledged before nor what comes after."""
    dags = [random_dag(seed, leaves=3, leaf_size=3000) for seed in range(4)]
    store = open_store(tmp_path / "store", links_of)
    commit(store, dags[0], "containerd")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    logs = max(path.stat().st_size for path in (tmp_path / "store" / "index").glob("*.log"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (logs + 40, hard))
    try:
        with pytest.raises(ResourceExhausted, match="no space left"):
            store.records.write([(b"long", os.urandom(6000))], sync=True)
        assert holds(store, dags[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    commit(store, dags[1], "containerd")
    store.close()
    with open_store(tmp_path / "store", links_of) as store:
        assert holds(store, dags[0])
        assert holds(store, dags[1])
        assert store.fsck().is_clean


def test_a_segment_refuses_and_recovers(tmp_path):
    dag = random_dag(1, leaves=8, leaf_size=256 << 10)
    store = open_store(tmp_path / "store", links_of)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(ResourceExhausted, match=r"no space left to write .*seg"):
            store.blocks.put_many(dag.blocks)
        assert not any(store.blocks.has_many([multihash_of(block.cid) for block in dag.blocks]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    commit(store, dag, "containerd")
    assert holds(store, dag)
    assert store.fsck().is_clean
    store.close()


@pytest.mark.parametrize("nth", range(1, 12))
def test_any_write_may_fail(nth):
    """Whichever write or sync fails, the call says so, and the next attempt does the whole."""
    dag, other = random_dag(1, leaves=5, leaf_size=3000, width=3), random_dag(2, leaves=5, leaf_size=3000, width=3)
    trap = Trap()
    datastore, directory = FlakyDatastore(MemoryDatastore(), trap), FlakyDirectory(MemoryDirectory(), trap)
    options = StoreOptions(segment_size=8192)
    store = Store(datastore, directory, links_of, options)
    commit(store, other, "user/me")
    trap.arm(nth)
    refusal = None
    try:
        commit(store, dag, "containerd")
    except (ResourceExhausted, StoreCorrupt) as exc:
        refusal = exc
    trap.disarm()
    assert (refusal is None) == (store.blobs.get(dag.record().digest) is not None)
    assert holds(store, other)
    if isinstance(refusal, StoreCorrupt):
        assert "restart the node" in refusal.message
        with pytest.raises(StoreCorrupt):
            store.close()
        store = Store(datastore, directory, links_of, options)
    commit(store, dag, "containerd")
    assert holds(store, other)
    assert holds(store, dag)
    assert store.fsck().is_clean
    store.close()


def test_a_read_only_file_system_is_named(tmp_path):
    with mounted(tmp_path / "disk", "size=100m") as disk:
        with open_store(disk / "store", links_of) as store:
            commit(store, random_dag(1, leaves=2, leaf_size=3000), "containerd")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(FailedPrecondition, match="Read-only file system"):
            open_store(disk / "store", links_of)
        with pytest.raises(FailedPrecondition, match="Read-only file system"):
            open_store(disk / "new", links_of)


def test_a_disk_that_turns_read_only_still_serves():
    dag = random_dag(1, leaves=5, leaf_size=3000)
    trap = Trap(lambda: FailedPrecondition("the index may not be written (Read-only file system)"))
    store = Store(FlakyDatastore(MemoryDatastore(), trap), MemoryDirectory(), links_of, StoreOptions())
    commit(store, dag, "containerd")
    trap.arm(1, times=1000)
    for refused in (
        lambda: store.blocks.put_many([make_block(b"new")]),
        lambda: store.references.drop("containerd", dag.record().digest),
        store.collect,
        store.close,
    ):
        with pytest.raises(FailedPrecondition):
            refused()
        assert holds(store, dag)


def test_missing_permission_is_named(tmp_path):
    if os.geteuid():
        (tmp_path / "mine").mkdir(mode=0o555)
        with pytest.raises(FailedPrecondition, match="may not be written"):
            open_store(tmp_path / "mine" / "store", links_of)
        return
    program = f"""
import os, pathlib
from ipcs.errors import FailedPrecondition
from ipcs.store.store import open_store
from ipcs.testing.dags import links_of
os.setuid(65534)
try:
    open_store(pathlib.Path({str(tmp_path)!r}) / "store", links_of)
except FailedPrecondition as exc:
    print(exc)
"""
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:2]:
        os.chmod(parent, 0o755)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "may not be written (Permission denied): check its owner, mode and mount" in done.stdout


def test_two_processes_cannot_share_a_store(tmp_path):
    first = open_store(tmp_path / "store", links_of)
    with pytest.raises(FailedPrecondition, match="is open in another process"):
        open_store(tmp_path / "store", links_of)
    first.close()


def test_a_newer_format_is_refused(tmp_path):
    open_store(tmp_path / "store", links_of).close()
    (tmp_path / "store" / "version").write_text("2\n")
    with pytest.raises(FailedPrecondition, match="has format 2, this version of ipcs reads format 1"):
        open_store(tmp_path / "store", links_of)


@contextlib.contextmanager
def descriptors(spare):
    """Leave `spare` descriptors to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name in os.listdir("/proc/self/fd")) + 8, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_few_descriptors_are_enough_to_read(tmp_path):
    """Forty segments and two descriptors: files are closed to make room."""
    dag = random_dag(1, leaves=40, leaf_size=8192)
    with open_store(tmp_path / "store", links_of, StoreOptions(segment_size=8192)) as store:
        for block in dag.blocks:
            store.blocks.put_many([block])
        store.commit_blob(dag.record(), "containerd")
    with open_store(tmp_path / "store", links_of) as store, descriptors(2):
        assert holds(store, dag)


def test_no_descriptor_is_told(tmp_path):
    dag = random_dag(1, leaves=3, leaf_size=8192)
    with open_store(tmp_path / "store", links_of) as store:
        commit(store, dag, "containerd")
    with open_store(tmp_path / "store", links_of) as store:
        with descriptors(0), pytest.raises(ResourceExhausted, match="raise `ulimit -n`"):
            holds(store, dag)
        assert holds(store, dag)
        assert store.fsck().is_clean


def test_little_room_is_kept_for_the_index(tmp_path):
    with (
        mounted(tmp_path / "disk", f"size={MIN_FREE - MIB}") as disk,
        open_store(disk / "store", links_of) as store,
        pytest.raises(IpcsError, match="fewer than 64 MiB are free"),
    ):
        store.blocks.put_many([make_block(b"x")])
