"""A tree of steps as a tar stream (`ipcs get --archive`): PAX headers, so that any name, size and time fits."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from .directory import check_name
from .node import Kind
from .resolve import Stat, decode_name
from .traverse import Enter, Leave, Step

_RECORD = 512
_FILE_MODE, _DIRECTORY_MODE, _SYMLINK_MODE = 0o644, 0o755, 0o777
PERMISSIONS = 0o777
"""As in extraction, setuid, setgid and sticky bits are not passed on."""


class TarWriter:
    """Turns steps into the bytes of a tar archive whose top entry is called `root`. Raises `InvalidArgument`."""

    def __init__(self, root: bytes) -> None:
        check_name(root)
        self._root = root
        self._padding = b""

    def step(self, step: Step) -> Iterator[bytes | memoryview]:
        """The bytes of one step."""
        if isinstance(step, Leave):
            return
        if not isinstance(step, Enter):
            yield step
            return
        yield self._padding
        size = step.stat.size if step.stat.kind is Kind.FILE else 0
        self._padding = bytes(-size % _RECORD)
        yield _header(b"/".join((self._root, *step.path)), step.stat)

    def finish(self) -> bytes:
        """The end of the archive."""
        return self._padding + bytes(2 * _RECORD)


def _header(path: bytes, stat: Stat) -> bytes:
    info = tarfile.TarInfo(decode_name(path))
    mode, info.type = {
        Kind.FILE: (_FILE_MODE, tarfile.REGTYPE),
        Kind.SYMLINK: (_SYMLINK_MODE, tarfile.SYMTYPE),
    }.get(stat.kind, (_DIRECTORY_MODE, tarfile.DIRTYPE))
    info.mode = mode if stat.attributes.mode is None else stat.attributes.mode & PERMISSIONS
    if stat.kind is Kind.FILE:
        info.size = stat.size
    if stat.kind is Kind.SYMLINK:
        info.linkname = decode_name(stat.target)
    if stat.attributes.mtime is not None:
        info.mtime = stat.attributes.mtime.seconds
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
