"""The LevelDB `Datastore`; the only file that imports plyvel.

A sync reaches only the newest log of LevelDB. When it has begun a new one and the batches of the older are not in a
table yet, a synced write waits for that table (an empty range is compacted), so that everything before it is safe too.

A write that LevelDB fails may leave half a record in its log, behind which later ones would be lost, and a failed
compaction makes it refuse all writes for good. So after a failed write the database is opened anew before the next
one; readers are counted out meanwhile, because plyvel frees the database under a running `get`.

A reserve file keeps some space that only this can use: with the disk full, it is let go, so that the index can be
opened, references dropped and a collection run. It is taken again once there is room.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import plyvel

from ..errors import FailedPrecondition, IpcsError, ResourceExhausted, StoreCorrupt
from .datastore import Mutation
from .disk import disk_use, translate

WRITE_BUFFER_SIZE = 8 << 20
"""Bytes of memtable, and so of log that an open after a crash has to replay: 8 MiB replay in about 50 ms."""

CACHE_SIZE = 32 << 20
"""Bytes of uncompressed index blocks kept in memory; the index of a million blocks takes about 60 MB."""

BLOOM_BITS = 10
"""Bloom filter bits a key: one miss in a hundred goes to a table."""

MAX_OPEN_FILES = 200
"""Table files LevelDB keeps open: leaves most of the usual 1,024 descriptors to segments and sockets."""

SCAN_CHUNK = 512
"""Most pairs read at a time by a scan, so that no iterator outlives a reopen; the first reads are short, as many
scans want one pair only."""

_BEYOND = b"\xff" * 8
"""A key beyond all keys: compacting from here to here writes the memtables to tables, and nothing else."""

RECOVERY_SIZE = WRITE_BUFFER_SIZE + (4 << 20)
"""Bytes that an open may write: the log as a table, and a manifest."""

RESERVE_SIZE = 24 << 20
"""Bytes set aside for a full disk: a table of one memtable, its log, and the compaction that they may set off."""


class LevelDBDatastore:
    """A `Datastore` in the LevelDB directory `path`, created if missing.

    Raises `FailedPrecondition` when another process has it open or permission is missing, `StoreCorrupt` when LevelDB
    cannot read it, `ResourceExhausted` when there is no room or no descriptor to open it.
    """

    def __init__(self, path: Path, *, write_buffer_size: int = WRITE_BUFFER_SIZE) -> None:
        self._path = path
        self._write_buffer_size = write_buffer_size
        self._reserve = path.with_name(path.name + ".reserve")
        self._mutex = threading.Lock()
        self._gate = threading.Condition(self._mutex)
        self._readers = 0
        self._excluding = False
        self._broken = False
        with translate(str(path)):
            path.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
        except ResourceExhausted:
            self._release_reserve()
            self._database = self._open()
        self._reserved = self._take_reserve()

    def get(self, key: bytes) -> bytes | None:
        with self._using() as database:
            value: bytes | None = database.get(key)
            return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._enter()
        try:
            get = self._database.get
            return [get(key) for key in keys]
        except (plyvel.Error, RuntimeError) as exc:
            raise _translated(exc, self._path) from exc
        finally:
            self._leave()

    def write(self, batch: Sequence[Mutation], *, sync: bool) -> None:
        if self._broken:
            self._reopen()
        try:
            self._write(batch, sync=sync)
        except ResourceExhausted:
            self._reopen()
            self._write(batch, sync=sync)
        if not self._reserved:
            self._reserved = self._take_reserve()

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        position = max(prefix, start)
        wanted = 4
        while True:
            with self._using() as database, database.raw_iterator() as iterator:
                chunk = _read_chunk(iterator, position, prefix, wanted)
            yield from chunk
            if len(chunk) < wanted:
                return
            position = chunk[-1][0] + b"\0"
            wanted = min(wanted * 4, SCAN_CHUNK)

    def size(self) -> int:
        with translate(str(self._path)):
            return disk_use(self._path)

    def close(self) -> None:
        with self._excluded():
            self._database.close()

    def _write(self, batch: Sequence[Mutation], *, sync: bool) -> None:
        with self._using() as database:
            writes = database.write_batch(sync=sync)
            for key, value in batch:
                if value is None:
                    writes.delete(key)
                else:
                    writes.put(key, value)
            try:
                writes.write()
                if sync and self._has_older_log():
                    database.compact_range(start=_BEYOND, stop=_BEYOND)
            except plyvel.Error:
                self._broken = True
                raise

    def _has_older_log(self) -> bool:
        """Whether LevelDB has begun a new log while the one before, whose end is not synced, is not a table yet."""
        return sum(name.endswith(".log") for name in os.listdir(self._path)) > 1

    @contextmanager
    def _using(self) -> Iterator[plyvel.DB]:
        self._enter()
        try:
            yield self._database
        except (plyvel.Error, RuntimeError) as exc:
            raise _translated(exc, self._path) from exc
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._mutex:  # the bare lock: a Condition enters it through Python, half a microsecond later
            if self._excluding:
                self._gate.wait_for(lambda: not self._excluding)
            self._readers += 1

    def _leave(self) -> None:
        with self._mutex:
            self._readers -= 1
            if self._excluding and not self._readers:
                self._gate.notify_all()

    @contextmanager
    def _excluded(self) -> Iterator[None]:
        """Alone with the database: whoever uses it has left, whoever comes waits."""
        with self._gate:
            self._gate.wait_for(lambda: not self._excluding)
            self._excluding = True
            self._gate.wait_for(lambda: not self._readers)
        try:
            yield
        finally:
            with self._gate:
                self._excluding = False
                self._gate.notify_all()

    def _reopen(self) -> None:
        """Open the database anew after a failed write. Raises, and leaves it open for reads, when there is no room."""
        with self._excluded():
            if self._broken:
                self._release_reserve()
                self._find_room()
                self._database.close()
                self._database = self._open()
                self._broken = False

    def _find_room(self) -> None:
        """Whether an open could write what it has to: once closed for nothing, even reads would be refused."""
        probe = self._path.with_name(self._path.name + ".probe")
        with translate(str(self._path)):
            try:
                _allocate(probe, RECOVERY_SIZE)
            finally:
                probe.unlink(missing_ok=True)

    def _open(self) -> plyvel.DB:
        try:
            return plyvel.DB(
                str(self._path),
                create_if_missing=True,
                write_buffer_size=self._write_buffer_size,
                lru_cache_size=CACHE_SIZE,
                bloom_filter_bits=BLOOM_BITS,
                max_open_files=MAX_OPEN_FILES,
                compression=None,  # hashes do not compress; uncompressed tables are read where they are mapped
            )
        except plyvel.Error as exc:
            raise _translated(exc, self._path) from exc

    def _take_reserve(self) -> bool:
        """Whether the reserve is there: it is taken only where that leaves as much again."""
        found = os.statvfs(self._path)
        size = self._reserve.stat().st_size if self._reserve.exists() else 0
        if size < RESERVE_SIZE and found.f_bavail * found.f_frsize < 2 * RESERVE_SIZE:
            return False
        try:
            _allocate(self._reserve, RESERVE_SIZE)
        except OSError:
            self._release_reserve()
            return False  # somebody else took the room in between
        return True

    def _release_reserve(self) -> None:
        self._reserve.unlink(missing_ok=True)
        self._reserved = False


def _allocate(path: Path, size: int) -> None:
    """Make a file that really takes `size` bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _read_chunk(iterator: plyvel.RawIterator, position: bytes, prefix: bytes, wanted: int) -> list[tuple[bytes, bytes]]:
    chunk: list[tuple[bytes, bytes]] = []
    iterator.seek(position)
    while iterator.valid() and len(chunk) < wanted:
        key, value = iterator.item()
        if not key.startswith(prefix):
            break
        chunk.append((key, value))
        iterator.next()
    return chunk


def _translated(exc: BaseException, path: Path) -> IpcsError:
    """The error of this package for what LevelDB says in words only."""
    text, subject = str(exc), str(path)
    if "No space left" in text or "quota exceeded" in text or "File too large" in text:
        advice = "free space or lower --storage-max"
        return ResourceExhausted(f"no space left for the index in {path}: {advice}", subject=subject)
    if "Too many open files" in text:
        return ResourceExhausted(f"too many open files at the index in {path}: raise `ulimit -n`", subject=subject)
    if "temporarily unavailable" in text or "already held" in text:
        return FailedPrecondition(f"the store in {path} is open in another process", subject=subject)
    if "Permission denied" in text or "Read-only file system" in text:
        return FailedPrecondition(f"the index in {path} cannot be written: {text}", subject=subject)
    if isinstance(exc, RuntimeError):
        return FailedPrecondition(f"the store in {path} is closed", subject=subject)
    return StoreCorrupt(f"the index in {path} cannot be read ({text}): run `ipcs fsck`", subject=subject)
