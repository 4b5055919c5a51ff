"""The local file system as the steps of a tree, the way `ipfs add` walks it.

Names in byte order, hidden ones left out unless asked for, symlinks kept as symlinks, special files refused. A file
that changes while it is read gives whatever was read.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidArgument, NotFound
from .builder import NO_ATTRIBUTES
from .node import MODE_BITS, Attributes, Mtime
from .tree import CloseDirectory, CloseFile, OpenDirectory, OpenFile, Step, Symlink

PIECE = 1 << 20
"""Bytes read at once: whole default leaves, so that none is copied again."""


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """Which files are taken, and what is recorded of them besides their bytes.

    `mode` and `mtime`, where set, hold for all; otherwise `preserve_mode` and `preserve_mtime` take the file's own.
    """

    recursive: bool = False
    hidden: bool = False
    preserve_mode: bool = False
    preserve_mtime: bool = False
    mode: int | None = None
    mtime: Mtime | None = None

    @property
    def has_attributes(self) -> bool:
        """Whether nodes carry a mode or mtime: then Kubo makes no raw leaves."""
        return self.preserve_mode or self.preserve_mtime or self.mode is not None or self.mtime is not None

    def attributes(self, status: os.stat_result | None = None) -> Attributes:
        """What is recorded of a file with `status`."""
        mode, mtime = self.mode, self.mtime
        if status is not None and mode is None and self.preserve_mode:
            mode = status.st_mode & MODE_BITS
        if status is not None and mtime is None and self.preserve_mtime:
            mtime = Mtime(*divmod(status.st_mtime_ns, 10**9))
        return Attributes(mode, mtime) if self.has_attributes else NO_ATTRIBUTES


def scan(path: Path, options: ScanOptions) -> Iterator[Step]:
    """The steps of the file, symlink or directory at `path`, under its own name.

    Raises `NotFound`, `InvalidArgument` for a directory without `recursive` and for special files, `OSError` for what
    cannot be read.
    """
    name = os.fsencode(os.path.basename(os.path.abspath(path)))
    pending: list[tuple[bytes, bytes] | CloseDirectory] = [(os.fsencode(path), name)]
    while pending:
        item = pending.pop()
        if isinstance(item, CloseDirectory):
            yield item
            continue
        status = _status(item[0])
        if modes.S_ISDIR(status.st_mode):
            yield OpenDirectory(item[1])
            pending.append(CloseDirectory(options.attributes(status)))
            pending += [(os.path.join(item[0], child), child) for child in reversed(_children(item[0], options))]
        else:
            yield from _leaf(*item, status, options)


def scan_stream(stream: BinaryIO, name: bytes, options: ScanOptions) -> Iterator[Step]:
    """The steps of one file with the bytes of `stream`."""
    yield OpenFile(name, options.attributes())
    while piece := stream.read(PIECE):
        yield piece
    yield CloseFile()


def _status(path: bytes) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError as exc:
        raise NotFound(f"{os.fsdecode(path)} does not exist", subject=os.fsdecode(path)) from exc


def _leaf(path: bytes, name: bytes, status: os.stat_result, options: ScanOptions) -> Iterator[Step]:
    if modes.S_ISLNK(status.st_mode):
        yield Symlink(name, os.readlink(path), options.attributes(status))
    elif modes.S_ISREG(status.st_mode):
        yield OpenFile(name, options.attributes(status))
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece
        yield CloseFile()
    else:
        raise InvalidArgument(f"{os.fsdecode(path)} is no file, directory or symlink", subject=os.fsdecode(path))


def _children(path: bytes, options: ScanOptions) -> list[bytes]:
    if not options.recursive:
        text = os.fsdecode(path)
        raise InvalidArgument(f"{text} is a directory; use -r to add directories", subject=text)
    return sorted(child for child in os.listdir(path) if options.hidden or not child.startswith(b"."))
