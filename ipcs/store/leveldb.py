"""The LevelDB `Datastore`; the only file that imports plyvel.

LevelDB keeps a failed background write for ever: after one full disk every later write fails until the database is
opened again. So a failed write marks this object broken and the next write reopens it first; readers are counted out
meanwhile, because plyvel frees the database under a running `get`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import plyvel

from ..errors import FailedPrecondition, IpcsError, ResourceExhausted, StoreCorrupt
from .datastore import Mutation

WRITE_BUFFER_SIZE = 16 << 20
"""Bytes of memtable, and so of log that an open after a crash has to replay: 16 MiB replay in about 0.1 s."""

CACHE_SIZE = 32 << 20
"""Bytes of uncompressed index blocks kept in memory; the index of a million blocks takes about 90 MB."""

BLOOM_BITS = 10
"""Bloom filter bits a key: one miss in a hundred goes to a table."""

MAX_OPEN_FILES = 200
"""Table files LevelDB keeps open: leaves most of the usual 1,024 descriptors to segments and sockets."""

SCAN_CHUNK = 512
"""Most pairs read at a time by a scan, so that no iterator outlives a reopen; the first reads are short, as many
scans want one pair only."""


class LevelDBDatastore:
    """A `Datastore` in the LevelDB directory `path`, created if missing.

    Raises `FailedPrecondition` when another process has it open or permission is missing, `StoreCorrupt` when LevelDB
    cannot read it, `ResourceExhausted` when there is no room or no descriptor to open it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gate = threading.Condition()
        self._readers = 0
        self._broken = False
        self._database = self._open()

    def get(self, key: bytes) -> bytes | None:
        with self._reading() as database:
            value: bytes | None = database.get(key)
            return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._reading() as database:
            get = database.get
            return [get(key) for key in keys]

    def write(self, batch: Sequence[Mutation], *, sync: bool) -> None:
        if self._broken:
            self._reopen()
        with self._reading() as database:
            writes = database.write_batch(sync=sync)
            for key, value in batch:
                if value is None:
                    writes.delete(key)
                else:
                    writes.put(key, value)
            try:
                writes.write()
            except BaseException:
                self._broken = True
                raise

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        position = max(prefix, start)
        wanted = 4
        while True:
            with self._reading() as database, database.raw_iterator() as iterator:
                chunk = _read_chunk(iterator, position, prefix, wanted)
            yield from chunk
            if len(chunk) < wanted:
                return
            position = chunk[-1][0] + b"\0"
            wanted = min(wanted * 4, SCAN_CHUNK)

    def size(self) -> int:
        return sum(entry.stat().st_blocks * 512 for entry in self._path.iterdir())

    def close(self) -> None:
        with self._gate:
            self._gate.wait_for(lambda: self._readers == 0)
            self._database.close()

    @contextmanager
    def _reading(self) -> Iterator[plyvel.DB]:
        with self._gate:
            self._readers += 1
            database = self._database
        try:
            yield database
        except (plyvel.Error, RuntimeError) as exc:
            raise _translated(exc, self._path) from exc
        finally:
            with self._gate:
                self._readers -= 1
                if not self._readers:
                    self._gate.notify_all()

    def _reopen(self) -> None:
        with self._gate:
            self._gate.wait_for(lambda: self._readers == 0)
            if self._broken:
                self._database.close()
                self._database = self._open()
                self._broken = False

    def _open(self) -> plyvel.DB:
        try:
            return plyvel.DB(
                str(self._path),
                create_if_missing=True,
                write_buffer_size=WRITE_BUFFER_SIZE,
                lru_cache_size=CACHE_SIZE,
                bloom_filter_bits=BLOOM_BITS,
                max_open_files=MAX_OPEN_FILES,
            )
        except plyvel.Error as exc:
            raise _translated(exc, self._path) from exc


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
    if "No space left" in text or "quota exceeded" in text:
        return ResourceExhausted(
            f"no space left for the index in {path}: free space or lower --storage-max", subject=subject
        )
    if "Too many open files" in text:
        return ResourceExhausted(f"too many open files at the index in {path}: raise `ulimit -n`", subject=subject)
    if "temporarily unavailable" in text or "already held" in text:
        return FailedPrecondition(f"the store in {path} is open in another process", subject=subject)
    if "Permission denied" in text or "Read-only file system" in text:
        return FailedPrecondition(f"the index in {path} cannot be written: {text}", subject=subject)
    if isinstance(exc, RuntimeError):
        return FailedPrecondition(f"the store in {path} is closed", subject=subject)
    return StoreCorrupt(f"the index in {path} cannot be read ({text}): run `ipcs fsck`", subject=subject)
