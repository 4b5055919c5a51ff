"""The file operations that segments need, and the one place that makes them: everything below is a system call.

A seam with two sides: `DiskDirectory` is real, `ipcs.store.memory.MemoryDirectory` keeps the same bytes in memory, and
the fault-injecting ones of `ipcs.testing` stand in between.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ..block import Data
from ..errors import FailedPrecondition, IpcsError, ResourceExhausted, StoreCorrupt

IOV_MAX = 1024
"""Buffers that Linux takes in one vectored write (uio.h UIO_MAXIOV)."""

_PUNCH = 0x01 | 0x02
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE (linux/falloc.h): free the blocks, leave the size."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


class SegmentFile(Protocol):
    """One open file. Offsets and sizes in bytes. Every call may raise what `translate` makes of an `OSError`."""

    def write(self, buffers: Sequence[Data], offset: int) -> None:
        """Write all of `buffers`, one behind the other, at `offset`."""
        ...

    def read(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end of the file."""
        ...

    def sync(self) -> None:
        """Return when everything written before survives a power loss."""
        ...

    def punch(self, offset: int, size: int) -> None:
        """Give the space of a range back; it reads as zeros from now on."""
        ...

    def has_data(self, offset: int, size: int) -> bool:
        """Whether any byte of a range takes space."""
        ...

    def size(self) -> int:
        """Bytes from the first to the last, holes included."""
        ...


class Directory(Protocol):
    """Where the segment files of one store lie."""

    def open(self, name: str, *, create: bool = False) -> SegmentFile:
        """The file `name`, closed when the last reference to it goes. Raises `StoreCorrupt` when it is not there."""
        ...

    def names(self) -> list[str]:
        """All files."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; whoever has it open may go on reading."""
        ...

    def sync(self) -> None:
        """Return when the names of files created before survive a power loss."""
        ...

    def allocated(self) -> int:
        """Bytes of disk that the files take."""
        ...

    def space(self) -> tuple[int, int]:
        """Bytes of the file system: all of it, and what is free for us."""
        ...


class DiskFile:
    """A `SegmentFile` by descriptor. Closed when nobody refers to it, so no reader loses it and no number is reused."""

    def __init__(self, path: str, flags: int) -> None:
        self._path = path
        self._fd = -1
        with translate(path):
            self._fd = os.open(path, flags | os.O_CLOEXEC, 0o644)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def write(self, buffers: Sequence[Data], offset: int) -> None:
        with translate(self._path):
            for start in range(0, len(buffers), IOV_MAX):
                offset += self._write_some(buffers[start : start + IOV_MAX], offset)

    def read(self, size: int, offset: int) -> bytes:
        with translate(self._path):
            data = os.pread(self._fd, size, offset)
            while len(data) < size:
                more = os.pread(self._fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def sync(self) -> None:
        with translate(self._path):
            os.fdatasync(self._fd)

    def punch(self, offset: int, size: int) -> None:
        with translate(self._path):
            if _libc.fallocate(self._fd, _PUNCH, offset, size):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))

    def has_data(self, offset: int, size: int) -> bool:
        with translate(self._path):
            try:
                return os.lseek(self._fd, offset, os.SEEK_DATA) < offset + size
            except OSError as exc:
                if exc.errno == errno.ENXIO:
                    return False
                raise

    def size(self) -> int:
        with translate(self._path):
            return os.fstat(self._fd).st_size

    def _write_some(self, buffers: Sequence[Data], offset: int) -> int:
        """Write at most `IOV_MAX` buffers; a short write goes on with the rest joined, which is rare enough."""
        size = sum(map(len, buffers))
        done = os.pwritev(self._fd, buffers, offset)
        if done < size:
            rest = memoryview(b"".join(buffers))
            while done < size:
                done += os.pwrite(self._fd, rest[done:], offset + done)
        return size


class DiskDirectory:
    """A `Directory` at `path`, created if missing.

    Raises `FailedPrecondition` when it cannot be written or its file system cannot punch holes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with translate(str(path)):
            path.mkdir(parents=True, exist_ok=True)

    def open(self, name: str, *, create: bool = False) -> DiskFile:
        return DiskFile(str(self._path / name), os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0))

    def names(self) -> list[str]:
        with translate(str(self._path)):
            return os.listdir(self._path)

    def remove(self, name: str) -> None:
        with translate(str(self._path / name)):
            os.unlink(self._path / name)

    def sync(self) -> None:
        with translate(str(self._path)):
            sync_directory(self._path)

    def allocated(self) -> int:
        with translate(str(self._path)):
            return disk_use(self._path)

    def space(self) -> tuple[int, int]:
        with translate(str(self._path)):
            found = os.statvfs(self._path)
            return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def disk_use(path: Path) -> int:
    """Bytes of disk that the files in directory `path` take; files may come and go meanwhile."""
    total = 0
    for entry in os.scandir(path):
        try:
            total += entry.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # removed since it was listed
    return total


def sync_directory(path: Path) -> None:
    """fsync a directory, so that new names in it survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translate(subject: str) -> Iterator[None]:
    """Turn an `OSError` about `subject` into the error of this package that says what to do."""
    try:
        yield
    except OSError as exc:
        raise _translated(exc, subject) from exc


def _translated(exc: OSError, subject: str) -> IpcsError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free space, lower --storage-max or run `ipcs gc`"
        return ResourceExhausted(f"no space left to write {subject} ({exc.strerror}): {advice}", subject=subject)
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceExhausted(f"too many open files to open {subject}: raise `ulimit -n`", subject=subject)
    if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return FailedPrecondition(
            f"{subject} may not be written ({exc.strerror}): check its owner, mode and mount", subject=subject
        )
    if exc.errno == errno.EOPNOTSUPP:
        advice = "keep the store on ext4, XFS, btrfs or tmpfs"
        return FailedPrecondition(f"the file system of {subject} cannot punch holes: {advice}", subject=subject)
    return StoreCorrupt(f"{subject} cannot be read or written ({exc.strerror}): run `ipcs fsck`", subject=subject)
