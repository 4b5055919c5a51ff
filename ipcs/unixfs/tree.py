"""A tree of files to one DAG, told as a sequence of steps: enter and leave directories, begin, feed and end files.

The steps come from a walk over the local file system (`ipcs.unixfs.scan`), from a client of the control service, or
from a test; the blocks go wherever the caller puts them. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..block import Block, Data
from ..cid import Cid, format_cid
from ..errors import FailedPrecondition, InvalidArgument
from . import directory
from .builder import NO_ATTRIBUTES, Entry, NodeBuilder
from .importer import Importer
from .node import Attributes
from .profile import IPCS_V1, Profile


@dataclass(frozen=True, slots=True)
class Added:
    """One finished node: its path below the top, its CID, and its size (file bytes; of a directory all blocks')."""

    path: bytes
    cid: Cid
    size: int


class TreeImporter:
    """Builds files, symlinks and directories; each step returns the blocks that it completed.

    `take` gives what has been added since the last call, children before parents. Memory: one entry for each name in
    the directories that are open.
    """

    def __init__(self, profile: Profile = IPCS_V1) -> None:
        self._profile = profile
        self._builder = NodeBuilder(profile)
        self._open: list[tuple[bytes, dict[bytes, Entry]]] = []
        self._file: tuple[bytes, Importer] | None = None
        self._added: list[Added] = []

    def take(self) -> list[Added]:
        """What has been added since the last call."""
        added, self._added = self._added, []
        return added

    def enter(self, name: bytes) -> None:
        """Open the directory `name` in the one that is open; the top-level ones may be nameless."""
        self._open.append((name, {}))

    def leave(self, attributes: Attributes = NO_ATTRIBUTES) -> list[Block]:
        """Close the innermost directory. Raises `FailedPrecondition` when none is open."""
        if not self._open:
            raise FailedPrecondition("no directory is open")
        name, entries = self._open.pop()
        root = directory.build(self._builder, self._profile, entries, attributes)
        self._attach(name, root, root.tsize)
        return self._builder.take()

    def begin(self, name: bytes, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Begin the file `name`. Raises `FailedPrecondition` while another is being fed."""
        if self._file is not None:
            raise FailedPrecondition("a file is being fed: end it first")
        self._file = (name, Importer(self._profile, attributes))

    def feed(self, data: Data) -> list[Block]:
        """More bytes of the file that was begun."""
        return self._current()[1].feed(data)

    def end(self) -> list[Block]:
        """End the file that was begun."""
        name, importer = self._current()
        self._file = None
        blocks = importer.finish()
        self._attach(name, importer.root, importer.root.size)
        return blocks

    def symlink(self, name: bytes, target: bytes, attributes: Attributes = NO_ATTRIBUTES) -> list[Block]:
        """Add a symlink; symlinks have no permissions of their own, so only the mtime of `attributes` is recorded."""
        root = self._builder.symlink(target, attributes._replace(mode=None))
        self._attach(name, root, len(target))
        return self._builder.take()

    def _current(self) -> tuple[bytes, Importer]:
        if self._file is None:
            raise FailedPrecondition("no file has been begun")
        return self._file

    def _attach(self, name: bytes, root: Entry, size: int) -> None:
        if self._open:
            name = name or format_cid(root.cid).encode()  # like Kubo, what has no name is named by its CID
            siblings = self._open[-1][1]
            if name in siblings:
                raise InvalidArgument(f"the name {name!r} occurs twice in one directory")
            siblings[name] = root
        above = [part for part, _ in self._open if part]
        self._added.append(Added(b"/".join([*above, name] if name else above), root.cid, size))
