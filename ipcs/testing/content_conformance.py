"""What every implementation of containerd's content store must do. Anyone can run it against theirs:

    @pytest.mark.parametrize("check", CHECKS, ids=check_name)
    def test_conformance(check, content): check(content)

The first part restates containerd's own suite (core/content/testsuite/testsuite.go) case by case, the second what its
daemon relies on beyond that. A check uses only `ContentStore`'s interface, so library and socket pass the same ones;
it raises AssertionError, and leaves its blobs behind.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from .. import errors
from ..block import Data
from ..content.descriptor import Info, Status

RELEASE_WAIT = 5.0
"""Seconds in which a writer that went away must have freed its ref."""

E = TypeVar("E", bound=errors.IpcsError)


class Reader(Protocol):
    """`ContentStore.reader`."""

    size: int

    def read(self, offset: int, size: int) -> Sequence[Data]: ...


class Writer(Protocol):
    """`ContentStore.writer`."""

    def status(self) -> Status: ...
    def write(self, data: Data) -> int: ...
    def truncate(self, size: int = 0) -> None: ...
    def seek(self, offset: int) -> None: ...
    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> Info | Status: ...
    def close(self) -> None: ...
    def __enter__(self) -> Writer: ...
    def __exit__(self, *exc: object) -> None: ...


class Content(Protocol):
    """`ContentStore`."""

    def info(self, digest: str) -> Info: ...
    def update(self, info: Info, *paths: str) -> Info: ...
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]: ...
    def delete(self, digest: str) -> None: ...
    def reader(self, digest: str) -> Reader: ...
    def writer(self, ref: str, total: int = 0, expected: str = "") -> Writer: ...
    def status(self, ref: str) -> Status: ...
    def list_statuses(self, filters: Sequence[str] = ()) -> list[Status]: ...
    def abort(self, ref: str) -> None: ...


Check = Callable[[Any], None]
CHECKS: list[Check] = []

_serial = itertools.count()
_Times = tuple[int, int]


def check_name(check: Check) -> str:
    """The name of a check, for reports."""
    return check.__name__.removeprefix("check_")


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


def _sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _blob(size: int) -> tuple[bytes, str]:
    """New bytes each time, and their digest."""
    data = hashlib.shake_256(f"{time.time_ns()}-{next(_serial)}".encode()).digest(size)
    return data, _sha(data)


def _ref() -> str:
    return f"default/{next(_serial)}/layer-{time.time_ns()}"


def _open(content: Content, ref: str, total: int = 0, expected: str = "") -> Writer:
    """As containerd's OpenWriter: a locked ref is waited for."""
    end = time.monotonic() + RELEASE_WAIT
    while True:
        try:
            return content.writer(ref, total, expected)
        except errors.Unavailable:
            assert time.monotonic() < end, f"ref {ref} stayed locked"
            time.sleep(0.005)


def _put(content: Content, data: bytes, labels: Mapping[str, str] | None = None) -> str:
    digest = _sha(data)
    with _open(content, _ref(), len(data), digest) as writer:
        for at in range(0, len(data), 1 << 20):
            writer.write(data[at : at + (1 << 20)])
        writer.commit(len(data), digest, labels)
    return digest


def _read(content: Content, digest: str, offset: int = 0, size: int = 1 << 40) -> bytes:
    return b"".join(content.reader(digest).read(offset, size))


def _raises(kind: type[E], call: Callable[..., object], *args: object) -> E:
    try:
        call(*args)
    except kind as exc:
        return exc
    raise AssertionError(f"no {kind.__name__} from {call!r}")


def _check_info(
    content: Content, digest: str, size: int, labels: Mapping[str, str], created: _Times, changed: int = 0
) -> None:
    info = content.info(digest)
    assert (info.digest, info.size, dict(info.labels)) == (digest, size, dict(labels)), info
    assert created[0] <= info.created_at <= created[1], "created_at lies outside the commit"
    assert (changed or created[0]) <= info.updated_at <= time.time_ns(), "updated_at lies outside the last change"


def _check_status(
    writer: Writer, written: bytes, total: int, started: tuple[int, int], changed: tuple[int, int]
) -> None:
    status = writer.status()
    assert (status.offset, status.total) == (len(written), total), status
    assert status.digest == _sha(written), "the running digest is that of the bytes so far"
    assert started[0] <= status.started_at <= started[1], "started_at"
    assert changed[0] <= status.updated_at <= changed[1], "updated_at, to the ns"


# ---- containerd's suite


@_check
def check_writer(content: Content) -> None:
    """Writer: several refs open at once; size, digest, both or neither declared; COMMIT with neither; labels."""
    blobs = [_blob(size) for size in (256, 256, 256, 256, 32 << 20)]
    declared = [(0, ""), (256, ""), (0, blobs[2][1]), (256, blobs[3][1]), (32 << 20, blobs[4][1])]
    writers = [_open(content, _ref(), *what) for what in declared]
    for writer, (data, digest) in zip(writers, blobs, strict=True):
        step = 32 if len(data) < 1000 else 1 << 20
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
        before = time.time_ns()
        committed = writer.commit(0, "", {"containerd.io/gc.root": "x"})
        writer.close()
        assert committed.digest == digest
        _check_info(content, digest, len(data), {"containerd.io/gc.root": "x"}, (before, time.time_ns()))


@_check
def check_update_status(content: Content) -> None:
    """UpdateStatus: offset, declared total, times that bracket the last write, running digest."""
    data, digest = _blob(256)
    first = time.time_ns()
    with _open(content, _ref(), 256, digest) as writer:
        started = changed = (first, time.time_ns())
        for low, high in ((0, 0), (0, 64), (64, 192), (192, 256)):
            if high:
                first = time.time_ns()
                writer.write(data[low:high])
                changed = (first, time.time_ns())
            _check_status(writer, data[:high], 256, started, changed)
        before = time.time_ns()
        writer.commit()
    _check_info(content, digest, 256, {}, (before, time.time_ns()))


@_check
def check_commit_exists(content: Content) -> None:
    """CommitExists: COMMIT of a blob that is there, with and without its digest."""
    data, digest = _blob(256)
    _put(content, data)
    for expected in (digest, ""):
        with _open(content, _ref()) as writer:
            writer.write(data)
            _raises(errors.AlreadyExists, writer.commit, 256, expected)


@_check
def check_resume(content: Content) -> None:
    """Resume: a closed writer leaves offset, total, times and running digest as they were."""
    data, digest = _blob(256)
    ref = _ref()
    first = time.time_ns()
    with _open(content, ref, 256, digest) as writer:
        started = (first, time.time_ns())
        first = time.time_ns()
        writer.write(data[:128])
        changed = (first, time.time_ns())
        _check_status(writer, data[:128], 256, started, changed)
    with _open(content, ref, 256, digest) as writer:
        _check_status(writer, data[:128], 256, started, changed)
        writer.write(data[128:])
        before = time.time_ns()
        writer.commit()
    _check_info(content, digest, 256, {}, (before, time.time_ns()))


def _resume(content: Content, *, truncate: bool) -> None:
    for size in (500, 5_000, 50_000, 600_000):
        for part in (0, size // 10, size // 2, size * 9 // 10, size):
            data, digest = _blob(size)
            ref = _ref()
            with _open(content, ref, size, digest) as writer:
                writer.write(data[:part])
            with _open(content, ref, size, digest) as writer:
                assert writer.status().offset == part
                if truncate:
                    writer.truncate()
                step = max(1024, size // 20)
                for at in range(0 if truncate else part, size, step):
                    writer.write(data[at : at + step])
                before = time.time_ns()
                assert writer.commit(size, digest).digest == digest
            _check_info(content, digest, size, {}, (before, time.time_ns()))


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
    for data in (b"foobar-" + str(next(_serial)).encode(), b""):
        try:
            digest = _put(content, data)
        except errors.AlreadyExists:
            digest = _sha(data)
        assert _read(content, digest, 0, len(data) + 1) == data
        content.delete(digest)


@_check
def check_labels(content: Content) -> None:
    """Labels: Update replaces all, or only what its mask names; an absent value removes."""
    data, digest = _blob(256)
    before = time.time_ns()
    _put(content, data, {"k1": "v1", "k2": "v2", "r": "t"})
    created = (before, time.time_ns())
    _check_info(content, digest, 256, {"k1": "v1", "k2": "v2", "r": "t"}, created)
    changed = time.time_ns()
    content.update(Info(digest, labels={"k1": "new", "k3": "v3", "r": "t"}))
    _check_info(content, digest, 256, {"k1": "new", "k3": "v3", "r": "t"}, created, changed)
    changed = time.time_ns()
    content.update(Info(digest, labels={"k1": "v1", "r": "other"}), "labels.k3", "labels.k1")
    _check_info(content, digest, 256, {"k1": "v1", "r": "t"}, created, changed)


@_check
def check_commit_error_state(content: Content) -> None:
    """CommitErrorState: what each failed COMMIT leaves of the ingest and of the lock."""
    data, digest = _blob(256)
    _put(content, data)
    ref = _ref()
    for expected in (digest, ""):
        with _open(content, ref) as writer:
            assert writer.status().offset == 0, "ALREADY_EXISTS drops the ingest"
            writer.write(data)
            _raises(errors.Unavailable, content.writer, ref)
            _raises(errors.AlreadyExists, writer.commit, 256, expected)
    with _open(content, ref) as writer:
        writer.write(data + b"more")
        _raises(errors.FailedPrecondition, writer.commit, 260, _blob(1)[1])
    with _open(content, ref) as writer:
        assert writer.status().offset == 260, "a failed check keeps the ingest"
        writer.seek(260)
        _raises(errors.FailedPrecondition, writer.commit, 256, "")
    with _open(content, ref) as writer:
        _raises(errors.Unavailable, content.writer, ref)
        writer.seek(260)
        writer.commit(260, "")
    with _open(content, ref) as writer:
        assert writer.status().offset == 0
    _abort(content, ref)


def _abort(content: Content, ref: str) -> None:
    """Abort once the writer's end has got through."""
    end = time.monotonic() + RELEASE_WAIT
    while True:
        try:
            return content.abort(ref)
        except errors.Unavailable:
            assert time.monotonic() < end, f"ref {ref} stayed locked"
            time.sleep(0.005)


# ---- what the daemon relies on beyond it


@_check
def check_not_found(content: Content) -> None:
    """The unknown is NOT_FOUND for every call."""
    _, digest = _blob(10)
    _raises(errors.NotFound, content.info, digest)
    _raises(errors.NotFound, _read, content, digest)
    _raises(errors.NotFound, content.delete, digest)
    _raises(errors.NotFound, content.update, Info(digest))
    _raises(errors.NotFound, content.status, "nope")
    _raises(errors.NotFound, content.abort, "nope")


@_check
def check_invalid(content: Content) -> None:
    """Digests that are none, a writer without a ref, a filter that does not parse."""
    for digest in ("", "sha256:12", "md5:00", "../../etc/passwd", "sha256:" + "G" * 64):
        _raises(errors.InvalidArgument, content.info, digest)
        _raises(errors.InvalidArgument, content.delete, digest)
    _raises(errors.InvalidArgument, content.writer, "")
    _raises(errors.InvalidArgument, lambda: list(content.walk(["a=b"])))


@_check
def check_writer_of_existing(content: Content) -> None:
    """A writer that declares a digest which is there: ALREADY_EXISTS at once."""
    data, digest = _blob(256)
    _put(content, data)
    _raises(errors.AlreadyExists, content.writer, _ref(), 256, digest)


@_check
def check_write_out_of_range(content: Content) -> None:
    """A write at another offset than the current one or 0."""
    ref = _ref()
    with _open(content, ref) as writer:
        writer.write(b"0123456789")

        def misplaced() -> None:
            writer.seek(5)
            writer.write(b"x")

        _raises(errors.OutOfRange, misplaced)
    _abort(content, ref)


@_check
def check_read_ranges(content: Content) -> None:
    """Windows inside, across and at the end of leaves; 32 KiB windows join to the blob."""
    data, digest = _blob((3 << 20) + 12345)
    _put(content, data)
    assert _read(content, digest) == data
    leaf = 256 * 1024
    for offset, size in ((7, 11), (leaf - 1, 2), (leaf, leaf), (leaf - 5, 2 * leaf + 10), (len(data) - 5, 100)):
        assert _read(content, digest, offset, size) == data[offset : offset + size], (offset, size)
    assert _read(content, digest, len(data), 100) == b""
    reader = content.reader(digest)
    assert reader.size == len(data)
    windows = [b"".join(reader.read(at, 32768)) for at in range(0, len(data), 32768)]
    assert b"".join(windows) == data


@_check
def check_big_write(content: Content) -> None:
    """15 MiB in one write: containerd 1.6 does not split them."""
    data, digest = _blob(15 << 20)
    with _open(content, _ref(), len(data)) as writer:
        writer.write(data)
        writer.commit(len(data), digest)
    assert content.info(digest).size == len(data)


@_check
def check_walk_and_filters(content: Content) -> None:
    """Walk shows every blob once, or those that match."""
    label = f"test-{time.time_ns()}"
    digests = {_put(content, _blob(20)[0], {"made.by": label}) for _ in range(205)}
    listed = [info.digest for info in content.walk()]
    assert len(listed) == len(set(listed))
    assert digests <= set(listed)
    assert {info.digest for info in content.walk([f'labels."made.by"=={label}'])} == digests
    one = next(iter(digests))
    assert [info.digest for info in content.walk([f"digest=={one}", "labels.absent"])] == [one]


@_check
def check_statuses(content: Content) -> None:
    """Every open ingest is listed by its whole ref, which holds '/', ':' and '@'."""
    ref = f"default/{next(_serial)}/layer-sha256:{'ab' * 32}@{time.time_ns()}"
    with _open(content, ref, 77) as writer:
        writer.write(b"abc")
        listed = {status.ref: status for status in content.list_statuses()}
        assert (listed[ref].offset, listed[ref].total) == (3, 77)
        assert [status.ref for status in content.list_statuses([f"ref=={ref}"])] == [ref]
        assert content.list_statuses(["ref==other"]) == []
        assert content.status(ref).offset == 3
    _abort(content, ref)
    _raises(errors.NotFound, content.status, ref)


@_check
def check_delete_and_rewrite(content: Content) -> None:
    """A deleted blob is gone for readers and walkers, and can be written again."""
    data, digest = _blob(300_000)
    _put(content, data)
    assert _read(content, digest) == data
    content.delete(digest)
    _raises(errors.NotFound, _read, content, digest)
    _raises(errors.NotFound, content.info, digest)
    assert digest not in {info.digest for info in content.walk()}
    _raises(errors.NotFound, content.delete, digest)
    _put(content, data)
    assert _read(content, digest) == data


@_check
def check_parallel(content: Content) -> None:
    """8 writers, one of them of a blob that two write, and 8 readers at once."""
    shared, digest = _blob(1 << 20)
    _put(content, shared)
    failures: list[BaseException] = []

    def one() -> None:
        try:
            data, expected = _blob(1 << 20)
            with _open(content, _ref(), len(data)) as writer:
                for at in range(0, len(data), 1 << 17):
                    writer.write(data[at : at + (1 << 17)])
                writer.commit(len(data), expected)
            for at in range(0, len(shared), 1 << 17):
                assert _read(content, digest, at, 1 << 17) == shared[at : at + (1 << 17)]
            assert _read(content, expected) == data
        except BaseException as exc:  # noqa: BLE001 - carried to the caller, who raises it
            failures.append(exc)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
