"""Words and small steps of the content store's conformance checks."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from .. import errors
from ..block import Data
from ..content.descriptor import Info, Status

RELEASE_WAIT = 5.0
"""Seconds in which a writer that went away must have freed its ref."""

E = TypeVar("E", bound=errors.IpcsError)


serial = itertools.count()
Times = tuple[int, int]


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


def sha256_digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def new_blob(size: int) -> tuple[bytes, str]:
    """New bytes each time, and their digest."""
    data = hashlib.shake_256(f"{time.time_ns()}-{next(serial)}".encode()).digest(size)
    return data, sha256_digest(data)


def new_ref() -> str:
    return f"default/{next(serial)}/layer-{time.time_ns()}"


def open_writer(content: Content, ref: str, total: int = 0, expected: str = "") -> Writer:
    """As containerd's OpenWriter: a locked ref is waited for."""
    end = time.monotonic() + RELEASE_WAIT
    while True:
        try:
            return content.writer(ref, total, expected)
        except errors.Unavailable:
            assert time.monotonic() < end, f"ref {ref} stayed locked"
            time.sleep(0.005)


def put_blob(content: Content, data: bytes, labels: Mapping[str, str] | None = None) -> str:
    digest = sha256_digest(data)
    with open_writer(content, new_ref(), len(data), digest) as writer:
        for at in range(0, len(data), 1 << 20):
            writer.write(data[at : at + (1 << 20)])
        writer.commit(len(data), digest, labels)
    return digest


def read_blob(content: Content, digest: str, offset: int = 0, size: int = 1 << 40) -> bytes:
    return b"".join(content.reader(digest).read(offset, size))


def assert_raises(kind: type[E], call: Callable[..., object], *args: object) -> E:
    try:
        call(*args)
    except kind as exc:
        return exc
    raise AssertionError(f"no {kind.__name__} from {call!r}")


def assert_info(
    content: Content, digest: str, size: int, labels: Mapping[str, str], created: Times, changed: int = 0
) -> None:
    info = content.info(digest)
    assert (info.digest, info.size, dict(info.labels)) == (digest, size, dict(labels)), info
    assert created[0] <= info.created_at <= created[1], "created_at lies outside the commit"
    assert (changed or created[0]) <= info.updated_at <= time.time_ns(), "updated_at lies outside the last change"


def assert_status(
    writer: Writer, written: bytes, total: int, started: tuple[int, int], changed: tuple[int, int]
) -> None:
    status = writer.status()
    assert (status.offset, status.total) == (len(written), total), status
    assert status.digest == sha256_digest(written), "the running digest is that of the bytes so far"
    assert started[0] <= status.started_at <= started[1], "started_at"
    assert changed[0] <= status.updated_at <= changed[1], "updated_at, to the ns"


def abort_ingest(content: Content, ref: str) -> None:
    """Abort once the writer's end has got through."""
    end = time.monotonic() + RELEASE_WAIT
    while True:
        try:
            return content.abort(ref)
        except errors.Unavailable:
            assert time.monotonic() < end, f"ref {ref} stayed locked"
            time.sleep(0.005)
