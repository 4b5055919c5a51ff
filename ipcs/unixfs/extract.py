"""A tree of steps onto disk, never outside its target.

Everything is made below an open directory, by name relative to it, and never through a symlink: each directory is
created and then opened with O_NOFOLLOW, each file created with O_EXCL. The tree grows under a draft name beside the
target and is renamed when it is complete, so that a failure leaves nothing half done.

Source of the attacks: boxo `tar/extractor.go`, `files/filewriter.go`; gateway-conformance `path_gateway_tar`.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import TracebackType

from ..block import Data
from ..errors import AlreadyExists, InvalidArgument
from .directory import check_name
from .node import Kind, Mtime
from .resolve import Stat
from .traverse import Enter, Leave, Step

PERMISSIONS = 0o777
"""The mode bits that are applied; setuid, setgid and sticky from an unknown writer are not."""

FILE_MODE = 0o666
DIRECTORY_MODE = 0o777
"""Modes of what carries none, before the umask."""

_MAX_TIME = 1 << 40
"""Seconds from 1970 that every file system's calls take; an mtime beyond is moved there."""


class Extractor:
    """Writes one tree to `target`, which must not exist. A context manager: leaving it without `finish` undoes all.

    Raises `AlreadyExists`, and `InvalidArgument` for names that cannot be written; `OSError` for the disk's own
    troubles. Needs permission to write in the target's parent.
    """

    def __init__(self, target: Path) -> None:
        check_name(os.fsencode(target.name))
        if os.path.lexists(target):
            raise AlreadyExists(f"{target} exists; remove it or choose another --output", subject=str(target))
        self._target = target
        self._draft = target.with_name(f".{target.name[:200]}.ipcs-part-{os.getpid()}")
        self._directories: list[int] = [os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)]
        self._file: int | None = None
        self._ended: Stat | None = None
        self._complete = False

    def step(self, step: Step) -> None:
        """Write one step of the tree."""
        if isinstance(step, Enter):
            self._end_file()
            try:
                self._enter(step)
            except FileExistsError as exc:
                raise AlreadyExists(f"{_text(step.path)!r} is there already", subject=_text(step.path)) from exc
            except OSError as exc:
                if exc.errno == errno.ENAMETOOLONG:
                    what = f"the name of {_text(step.path)[:80]!r} is longer than the file system takes"
                    raise InvalidArgument(what, subject=_text(step.path)[:80]) from exc
                raise
        elif isinstance(step, Leave):
            self._end_file()
            self._leave(step)
        else:
            self._write(step)

    def finish(self) -> None:
        """The tree is complete: give it its name."""
        self._end_file()
        if os.path.lexists(self._target):
            raise AlreadyExists(f"{self._target} appeared meanwhile; it was left alone", subject=str(self._target))
        self._draft.rename(self._target)
        self._complete = True

    def _enter(self, step: Enter) -> None:
        name = self._name(step.path)
        parent = self._directories[-1]
        if step.stat.kind is Kind.SYMLINK:
            os.symlink(step.stat.target, name, dir_fd=parent)
            if step.stat.attributes.mtime is not None:
                times = _times(step.stat.attributes.mtime)
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        elif step.stat.kind is Kind.FILE:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._file = os.open(name, flags, FILE_MODE, dir_fd=parent)
            self._ended = step.stat
        else:
            os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
            self._directories.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent))

    def _name(self, path: tuple[bytes, ...]) -> bytes:
        if not path:
            return os.fsencode(self._draft.name)
        check_name(path[-1])
        if len(path) != len(self._directories) - 1:
            raise InvalidArgument(f"{_text(path)!r} is not in the directory that is open", subject=_text(path))
        return path[-1]

    def _write(self, data: Data) -> None:
        assert self._file is not None, "bytes outside a file"
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _end_file(self) -> None:
        if self._file is None or self._ended is None:
            return
        fd, stat = self._file, self._ended
        self._file = self._ended = None
        try:
            _apply(fd, stat)
        finally:
            os.close(fd)

    def _leave(self, step: Leave) -> None:
        fd = self._directories.pop()
        try:
            _apply(fd, step.stat)
        finally:
            os.close(fd)

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for fd in [*self._directories, *([] if self._file is None else [self._file])]:
            os.close(fd)
        self._directories, self._file = [], None
        if not self._complete:
            _remove(self._draft)


def _apply(fd: int, stat: Stat) -> None:
    if stat.attributes.mode is not None:
        os.fchmod(fd, stat.attributes.mode & PERMISSIONS)
    if stat.attributes.mtime is not None:
        os.utime(fd, ns=_times(stat.attributes.mtime))


def _times(mtime: Mtime) -> tuple[int, int]:
    seconds = min(max(mtime.seconds, -_MAX_TIME), _MAX_TIME)
    nanoseconds = seconds * 10**9 + mtime.nanoseconds
    return nanoseconds, nanoseconds


def _remove(draft: Path) -> None:
    """Undo: rmtree does not follow symlinks; a directory that was made read-only is opened up first."""
    if draft.is_dir() and not draft.is_symlink():
        for folder, _, _ in os.walk(draft):
            os.chmod(folder, 0o700)
        shutil.rmtree(draft)
    else:
        draft.unlink(missing_ok=True)


def _text(path: tuple[bytes, ...]) -> str:
    return os.fsdecode(b"/".join(path))
