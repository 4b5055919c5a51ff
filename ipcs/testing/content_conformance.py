"""What every implementation of containerd's content store must do. Anyone can run it against theirs:

    @pytest.mark.parametrize("check", CHECKS, ids=check_name)
    def test_conformance(check, content): check(content)

The first part restates containerd's own suite (core/content/testsuite/testsuite.go) case by case, the second what its
daemon relies on beyond that. A check uses only `ContentStore`'s interface, so library and socket pass the same ones;
it raises AssertionError, and leaves its blobs behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .. import errors
from ..content.descriptor import Info
from .content_steps import (
    Content,
    abort_ingest,
    assert_info,
    assert_raises,
    assert_status,
    new_blob,
    new_ref,
    open_writer,
    put_blob,
    read_blob,
    serial,
    sha256_digest,
)

Check = Callable[[Any], None]
CHECKS: list[Check] = []


def check_name(check: Check) -> str:
    """The name of a check, for reports."""
    return check.__name__.removeprefix("check_")


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


# ---- containerd's suite


@_check
def check_writer(content: Content) -> None:
    """Writer: several refs open at once; size, digest, both or neither declared; COMMIT with neither; labels."""
    blobs = [new_blob(size) for size in (256, 256, 256, 256, 32 << 20)]
    declared = [(0, ""), (256, ""), (0, blobs[2][1]), (256, blobs[3][1]), (32 << 20, blobs[4][1])]
    writers = [open_writer(content, new_ref(), *what) for what in declared]
    for writer, (data, digest) in zip(writers, blobs, strict=True):
        step = 32 if len(data) < 1000 else 1 << 20
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
        before = time.time_ns()
        committed = writer.commit(0, "", {"containerd.io/gc.root": "x"})
        writer.close()
        assert committed.digest == digest
        assert_info(content, digest, len(data), {"containerd.io/gc.root": "x"}, (before, time.time_ns()))


@_check
def check_update_status(content: Content) -> None:
    """UpdateStatus: offset, declared total, times that bracket the last write, running digest."""
    data, digest = new_blob(256)
    first = time.time_ns()
    with open_writer(content, new_ref(), 256, digest) as writer:
        started = changed = (first, time.time_ns())
        for low, high in ((0, 0), (0, 64), (64, 192), (192, 256)):
            if high:
                first = time.time_ns()
                writer.write(data[low:high])
                changed = (first, time.time_ns())
            assert_status(writer, data[:high], 256, started, changed)
        before = time.time_ns()
        writer.commit()
    assert_info(content, digest, 256, {}, (before, time.time_ns()))


@_check
def check_commit_exists(content: Content) -> None:
    """CommitExists: COMMIT of a blob that is there, with and without its digest."""
    data, digest = new_blob(256)
    put_blob(content, data)
    for expected in (digest, ""):
        with open_writer(content, new_ref()) as writer:
            writer.write(data)
            assert_raises(errors.AlreadyExists, writer.commit, 256, expected)


@_check
def check_resume(content: Content) -> None:
    """Resume: a closed writer leaves offset, total, times and running digest as they were."""
    data, digest = new_blob(256)
    ref = new_ref()
    first = time.time_ns()
    with open_writer(content, ref, 256, digest) as writer:
        started = (first, time.time_ns())
        first = time.time_ns()
        writer.write(data[:128])
        changed = (first, time.time_ns())
        assert_status(writer, data[:128], 256, started, changed)
    with open_writer(content, ref, 256, digest) as writer:
        assert_status(writer, data[:128], 256, started, changed)
        writer.write(data[128:])
        before = time.time_ns()
        writer.commit()
    assert_info(content, digest, 256, {}, (before, time.time_ns()))


def _resume(content: Content, *, truncate: bool) -> None:
    for size in (500, 5_000, 50_000, 600_000):
        for part in (0, size // 10, size // 2, size * 9 // 10, size):
            data, digest = new_blob(size)
            ref = new_ref()
            with open_writer(content, ref, size, digest) as writer:
                writer.write(data[:part])
            with open_writer(content, ref, size, digest) as writer:
                assert writer.status().offset == part
                if truncate:
                    writer.truncate()
                step = max(1024, size // 20)
                for at in range(0 if truncate else part, size, step):
                    writer.write(data[at : at + step])
                before = time.time_ns()
                assert writer.commit(size, digest).digest == digest
            assert_info(content, digest, size, {}, (before, time.time_ns()))


@_check
def check_resume_truncate(content: Content) -> None:
    """ResumeTruncate: a write at 0 drops what was there."""
    _resume(content, truncate=True)


@_check
def check_resume_copy(content: Content) -> None:
    """ResumeDiscard, ResumeCopy, ResumeCopySeeker, ResumeCopyReaderAt: go on at the exact offset."""
    _resume(content, truncate=False)


@_check
def check_small_blob(content: Content) -> None:
    """SmallBlob: a read for more than there is gets what there is. The empty blob too."""
    for data in (b"foobar-" + str(next(serial)).encode(), b""):
        try:
            digest = put_blob(content, data)
        except errors.AlreadyExists:
            digest = sha256_digest(data)
        assert read_blob(content, digest, 0, len(data) + 1) == data
        content.delete(digest)


@_check
def check_labels(content: Content) -> None:
    """Labels: Update replaces all, or only what its mask names; an absent value removes."""
    data, digest = new_blob(256)
    before = time.time_ns()
    put_blob(content, data, {"k1": "v1", "k2": "v2", "r": "t"})
    created = (before, time.time_ns())
    assert_info(content, digest, 256, {"k1": "v1", "k2": "v2", "r": "t"}, created)
    changed = time.time_ns()
    content.update(Info(digest, labels={"k1": "new", "k3": "v3", "r": "t"}))
    assert_info(content, digest, 256, {"k1": "new", "k3": "v3", "r": "t"}, created, changed)
    changed = time.time_ns()
    content.update(Info(digest, labels={"k1": "v1", "r": "other"}), "labels.k3", "labels.k1")
    assert_info(content, digest, 256, {"k1": "v1", "r": "t"}, created, changed)


@_check
def check_commit_error_state(content: Content) -> None:
    """CommitErrorState: what each failed COMMIT leaves of the ingest and of the lock."""
    data, digest = new_blob(256)
    put_blob(content, data)
    ref = new_ref()
    for expected in (digest, ""):
        with open_writer(content, ref) as writer:
            assert writer.status().offset == 0, "ALREADY_EXISTS drops the ingest"
            writer.write(data)
            assert_raises(errors.Unavailable, content.writer, ref)
            assert_raises(errors.AlreadyExists, writer.commit, 256, expected)
    with open_writer(content, ref) as writer:
        writer.write(data + b"more")
        assert_raises(errors.FailedPrecondition, writer.commit, 260, new_blob(1)[1])
    with open_writer(content, ref) as writer:
        assert writer.status().offset == 260, "a failed check keeps the ingest"
        writer.seek(260)
        assert_raises(errors.FailedPrecondition, writer.commit, 256, "")
    with open_writer(content, ref) as writer:
        assert_raises(errors.Unavailable, content.writer, ref)
        writer.seek(260)
        writer.commit(260, "")
    with open_writer(content, ref) as writer:
        assert writer.status().offset == 0
    abort_ingest(content, ref)


# ---- what the daemon relies on beyond it


@_check
def check_not_found(content: Content) -> None:
    """The unknown is NOT_FOUND for every call."""
    _, digest = new_blob(10)
    assert_raises(errors.NotFound, content.info, digest)
    assert_raises(errors.NotFound, read_blob, content, digest)
    assert_raises(errors.NotFound, content.delete, digest)
    assert_raises(errors.NotFound, content.update, Info(digest))
    assert_raises(errors.NotFound, content.status, "nope")
    assert_raises(errors.NotFound, content.abort, "nope")


@_check
def check_invalid(content: Content) -> None:
    """Digests that are none, a writer without a ref, a filter that does not parse."""
    for digest in ("", "sha256:12", "md5:00", "../../etc/passwd", "sha256:" + "G" * 64):
        assert_raises(errors.InvalidArgument, content.info, digest)
        assert_raises(errors.InvalidArgument, content.delete, digest)
    assert_raises(errors.InvalidArgument, content.writer, "")
    assert_raises(errors.InvalidArgument, lambda: list(content.walk(["a=b"])))


@_check
def check_writer_of_existing(content: Content) -> None:
    """A writer that declares a digest which is there: ALREADY_EXISTS at once."""
    data, digest = new_blob(256)
    put_blob(content, data)
    assert_raises(errors.AlreadyExists, content.writer, new_ref(), 256, digest)


@_check
def check_write_out_of_range(content: Content) -> None:
    """A write at another offset than the current one or 0."""
    ref = new_ref()
    with open_writer(content, ref) as writer:
        writer.write(b"0123456789")

        def misplaced() -> None:
            writer.seek(5)
            writer.write(b"x")

        assert_raises(errors.OutOfRange, misplaced)
    abort_ingest(content, ref)


@_check
def check_read_ranges(content: Content) -> None:
    """Windows inside, across and at the end of leaves; 32 KiB windows join to the blob."""
    data, digest = new_blob((3 << 20) + 12345)
    put_blob(content, data)
    assert read_blob(content, digest) == data
    leaf = 256 * 1024
    for offset, size in ((7, 11), (leaf - 1, 2), (leaf, leaf), (leaf - 5, 2 * leaf + 10), (len(data) - 5, 100)):
        assert read_blob(content, digest, offset, size) == data[offset : offset + size], (offset, size)
    assert read_blob(content, digest, len(data), 100) == b""
    reader = content.reader(digest)
    assert reader.size == len(data)
    windows = [b"".join(reader.read(at, 32768)) for at in range(0, len(data), 32768)]
    assert b"".join(windows) == data


@_check
def check_big_write(content: Content) -> None:
    """15 MiB in one write: containerd 1.6 does not split them."""
    data, digest = new_blob(15 << 20)
    with open_writer(content, new_ref(), len(data)) as writer:
        writer.write(data)
        writer.commit(len(data), digest)
    assert content.info(digest).size == len(data)


@_check
def check_walk_and_filters(content: Content) -> None:
    """Walk shows every blob once, or those that match."""
    label = f"test-{time.time_ns()}"
    digests = {put_blob(content, new_blob(20)[0], {"made.by": label}) for _ in range(205)}
    listed = [info.digest for info in content.walk()]
    assert len(listed) == len(set(listed))
    assert digests <= set(listed)
    assert {info.digest for info in content.walk([f'labels."made.by"=={label}'])} == digests
    one = next(iter(digests))
    assert [info.digest for info in content.walk([f"digest=={one}", "labels.absent"])] == [one]


@_check
def check_statuses(content: Content) -> None:
    """Every open ingest is listed by its whole ref, which holds '/', ':' and '@'."""
    ref = f"default/{next(serial)}/layer-sha256:{'ab' * 32}@{time.time_ns()}"
    with open_writer(content, ref, 77) as writer:
        writer.write(b"abc")
        listed = {status.ref: status for status in content.list_statuses()}
        assert (listed[ref].offset, listed[ref].total) == (3, 77)
        assert [status.ref for status in content.list_statuses([f"ref=={ref}"])] == [ref]
        assert content.list_statuses(["ref==other"]) == []
        assert content.status(ref).offset == 3
    abort_ingest(content, ref)
    assert_raises(errors.NotFound, content.status, ref)


@_check
def check_delete_and_rewrite(content: Content) -> None:
    """A deleted blob is gone for walkers, and can be written again. (`info` may adopt it back: the bytes are here.)"""
    data, digest = new_blob(300_000)
    put_blob(content, data)
    assert read_blob(content, digest) == data
    content.delete(digest)
    assert digest not in {info.digest for info in content.walk()}
    assert_raises(errors.NotFound, content.delete, digest)
    put_blob(content, data)
    assert read_blob(content, digest) == data


@_check
def check_parallel(content: Content) -> None:
    """8 writers, one of them of a blob that two write, and 8 readers at once."""
    shared, digest = new_blob(1 << 20)
    put_blob(content, shared)
    failures: list[BaseException] = []

    def one() -> None:
        try:
            data, expected = new_blob(1 << 20)
            with open_writer(content, new_ref(), len(data)) as writer:
                for at in range(0, len(data), 1 << 17):
                    writer.write(data[at : at + (1 << 17)])
                writer.commit(len(data), expected)
            for at in range(0, len(shared), 1 << 17):
                assert read_blob(content, digest, at, 1 << 17) == shared[at : at + (1 << 17)]
            assert read_blob(content, expected) == data
        except BaseException as exc:  # noqa: BLE001 - carried to the caller, who raises it
            failures.append(exc)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
