"""What only the gRPC face can get wrong, and what outlives the process, on real sockets and stores."""

import hashlib
import json
from dataclasses import replace

import pytest
import trio

from ipcs import errors
from ipcs.content import wire
from ipcs.content.client import RemoteContent
from ipcs.content.records import Records
from ipcs.content.server import ContentService
from ipcs.content.store import ContentStore
from ipcs.content.wire import ReadRequest
from ipcs.rpc.server import serve
from ipcs.store.store import open_store
from ipcs.unixfs.profile import IPCS_V1, UNIXFS_V0_2015, Profile
from ipcs.unixfs.walk import links_of


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(content, data, ref="r", labels=None):
    with content.writer(ref, len(data)) as writer:
        writer.write(data)
        writer.commit(len(data), sha(data), labels)
    return sha(data)


@pytest.fixture
def opened(tmp_path):
    """Opens the content store of one directory, again and again, as restarts do."""
    stores = []

    def reopen():
        for content, store in stores[-1:]:
            content.close()
            store.close()
        store = open_store(tmp_path / "store", links_of)
        content = ContentStore(store, tmp_path / "ingests")
        stores.append((content, store))
        return content, store

    yield reopen
    stores[-1][0].close()
    stores[-1][1].close()


async def over_socket(content, path, work):
    def client():
        with RemoteContent(path) as remote:
            return work(remote)

    async with serve(path, ContentService(content).handlers):
        return await trio.to_thread.run_sync(client)


async def test_read_past_the_end_and_negative_windows(opened, tmp_path):
    content, _ = opened()
    digest = put(content, b"x" * 100)

    def work(remote):
        for offset, size, kind in ((101, 0, errors.OutOfRange), (-1, 0, errors.InvalidArgument)):
            request = wire.encode_read_request(ReadRequest(digest, offset, size))
            with pytest.raises(kind):
                list(remote.stream("Read", request))
        assert remote.reader(digest).read(100, 0) == []

    await over_socket(content, tmp_path / "s", work)


async def test_long_reads_come_in_messages_the_client_can_take(opened, tmp_path):
    content, _ = opened()
    data = bytes(range(256)) * 4096 * 5
    digest = put(content, data)

    def work(remote):
        parts = remote.reader(digest).read(0, 0)
        assert b"".join(parts) == data
        assert [len(part) for part in parts] == [1 << 20] * 5

    await over_socket(content, tmp_path / "s", work)


async def test_a_client_that_vanishes_frees_its_ref(opened, tmp_path):
    content, _ = opened()

    def work(remote):
        writer = remote.writer("r")
        writer.write(b"x" * 1000)
        writer.cancel()
        while True:
            try:
                with remote.writer("r") as again:
                    return again.status().offset
            except errors.Unavailable:
                continue

    with trio.fail_after(5):
        assert await over_socket(content, tmp_path / "s", work) == 1000


async def test_a_write_stream_cannot_turn_to_another_ref(opened, tmp_path):
    content, _ = opened()

    def work(remote):
        with remote.writer("r") as writer, pytest.raises(errors.InvalidArgument, match="cannot turn to other"):
            writer._ask(wire.WriteRequest(wire.WriteAction.WRITE, ref="other", data=b"x"))

    await over_socket(content, tmp_path / "s", work)


async def test_garbage_is_invalid_and_names_no_bug(opened, tmp_path):
    content, _ = opened()

    def work(remote):
        for method in ("Info", "Update", "Delete", "Status", "ListStatuses", "Abort"):
            with pytest.raises(errors.InvalidArgument):
                remote.call(method, b"\xff\xff\xff")

    await over_socket(content, tmp_path / "s", work)


# ---- restarts


def finish(content, ref, rest, digest):
    with content.writer(ref) as writer:
        writer.write(rest)
        writer.commit(0, digest)


def wait_unlocked(content, ref):
    while True:
        try:
            content.writer(ref).close()
        except errors.Unavailable:
            continue
        return


@pytest.mark.parametrize("size", [0, 1, 262143, 262144, 262145, 1_000_000])
def test_an_open_ingest_survives_a_restart_to_the_byte(opened, size):
    content, _ = opened()
    data = hashlib.shake_128(b"seed").digest(1_100_000)
    with content.writer("r", 1_100_000) as writer:
        for at in range(0, size, 100_000):
            writer.write(data[at : min(at + 100_000, size)])
        before = writer.status()
    content, _ = opened()
    wait_unlocked(content, "r")
    after = content.status("r")
    assert (after.offset, after.total, after.digest) == (size, 1_100_000, sha(data[:size]))
    assert (after.started_at, after.updated_at) == (before.started_at, before.updated_at)
    finish(content, "r", data[size:], sha(data))
    assert b"".join(content.reader(sha(data)).read(0, len(data))) == data


def test_a_ref_is_locked_until_it_is_rehashed(tmp_path, opened, monkeypatch):
    content, _ = opened()
    with content.writer("r", 700_000) as writer:
        writer.write(b"x" * 600_000)
    before = content.status("r")
    import threading

    from ipcs.content import ingests

    go = threading.Event()
    real = ingests.Ingests._rehash
    monkeypatch.setattr(ingests.Ingests, "_rehash", lambda *args: (go.wait(5), real(*args))[1])
    content, _ = opened()
    with pytest.raises(errors.Unavailable, match="locked"):
        content.writer("r")
    # What is there is not known yet; what was said of it is.
    assert content.list_statuses() == [replace(before, offset=0, digest="")]
    go.set()
    wait_unlocked(content, "r")
    assert content.status("r").offset == 600_000


def test_blobs_labels_and_times_survive_a_restart(opened):
    content, _ = opened()
    digest = put(content, b"hello", labels={"a": "b"})
    before = content.info(digest)
    content, _ = opened()
    assert content.info(digest) == before
    assert list(content.walk()) == [before]
    assert b"".join(content.reader(digest).read(0, 5)) == b"hello"


def test_reconcile_mends_what_a_crash_left(opened):
    content, store = opened()
    kept, gone = put(content, b"kept"), put(content, b"gone")
    records = Records(store.records)
    records.delete(kept)  # killed between the reference and the entry of a commit
    store.references.drop("containerd", gone)  # killed between the two halves of a delete
    records.put(records.get(gone))
    content, _ = opened()
    assert content.info(kept).size == 4
    with pytest.raises(errors.NotFound):
        content.info(gone)


# ---- whose blobs are shown


def test_cache_is_not_shown_and_deleted_blobs_stay_as_cache(opened):
    content, store = opened()
    digest = put(content, b"layer")
    assert [ref.owner for ref in store.references.holders(digest)] == ["containerd"]
    content.delete(digest)
    assert store.references.holders(digest) == []
    assert store.blobs.get(digest) is not None
    assert list(content.walk()) == []
    with pytest.raises(errors.NotFound):
        content.info(digest)
    put(content, b"layer")
    assert content.info(digest).size == 5


def test_a_blob_committed_again_keeps_its_first_dag(opened):
    content, store = opened()
    digest = put(content, b"layer")
    first = store.blobs.get(digest)
    content.delete(digest)
    put(content, b"layer")
    assert store.blobs.get(digest) == first


def test_only_profiles_with_raw_leaves_of_one_size_take_ingests(tmp_path):
    with open_store(tmp_path / "store", links_of) as store:
        for profile in (UNIXFS_V0_2015, Profile(chunker="buzhash")):
            with pytest.raises(errors.InvalidArgument, match="cannot take ingests"):
                ContentStore(store, tmp_path / "ingests", profile)
        ContentStore(store, tmp_path / "ingests", IPCS_V1).close()


def test_a_full_disk_locks_the_ref_until_it_is_rehashed_and_loses_nothing(opened, monkeypatch):
    content, store = opened()
    first, second = b"a" * 300_000, b"b" * 300_000
    writer = content.writer("r")
    writer.write(first)
    real = store.blocks.put_many
    full = [True]

    def put_many(blocks):
        if full and blocks:
            raise errors.ResourceExhausted("disk full")
        real(blocks)

    monkeypatch.setattr(store._holds, "_put_many", put_many)
    with pytest.raises(errors.ResourceExhausted):
        writer.write(second)
    full.clear()
    writer.close()
    wait_unlocked(content, "r")
    assert content.status("r").offset == len(first)
    finish(content, "r", second, sha(first + second))


def test_info_in_json_labels_are_compact(opened):
    content, store = opened()
    digest = put(content, b"x", labels={"k": "v"})
    raw = store.records.get(b"C" + bytes.fromhex(digest[7:]))
    assert json.loads(raw[24:]) == {"k": "v"}
