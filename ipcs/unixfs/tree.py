"""A tree of files to one DAG, told as a sequence of steps.

The steps come from a walk over the local file system (`ipcs.unixfs.scan`), from a client of the control service, or
from a test; the blocks go wherever the caller puts them. Nothing here does I/O.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from ..block import Block, Data
from ..cid import Cid, format_cid
from ..errors import FailedPrecondition, InvalidArgument
from . import directory
from .builder import NO_ATTRIBUTES, Entry, NodeBuilder
from .importer import Importer
from .node import Attributes, Mtime
from .profile import IPCS_V1, Profile

SMALL_DATA = 32 * 1024
"""Bytes of a file's content up to which they travel inside a JSON frame, in base64."""

FRAME_SIZE = 256 * 1024
"""About the characters of one JSON frame of steps."""

STEP_SIZE = 100
"""What a step without data counts for in a frame."""


class OpenDirectory(NamedTuple):
    """A directory begins; what follows is in it."""

    name: bytes


class CloseDirectory(NamedTuple):
    """The innermost directory ends."""

    attributes: Attributes = NO_ATTRIBUTES


class OpenFile(NamedTuple):
    """A file begins; its bytes follow as `Data`."""

    name: bytes
    attributes: Attributes = NO_ATTRIBUTES


class CloseFile(NamedTuple):
    """The file ends."""


class Symlink(NamedTuple):
    """A symlink. It has no permissions of its own, so only the mtime of `attributes` is recorded (as in Kubo)."""

    name: bytes
    target: bytes
    attributes: Attributes = NO_ATTRIBUTES


Step: TypeAlias = OpenDirectory | CloseDirectory | OpenFile | CloseFile | Symlink | Data
"""Names may be empty at the top only; inside a directory a nameless node is named by its CID, as in Kubo."""


@dataclass(frozen=True, slots=True)
class Added:
    """A finished node: its path below the top, its CID, and its size (file bytes; of a directory all blocks')."""

    path: bytes
    cid: Cid
    size: int
    depth: int
    """Directories above it; 0 for a root."""


class TreeImporter:
    """Builds files, symlinks and directories from steps.

    `take` gives what has been added since the last call, children before parents. Memory: one entry for each name in
    the directories that are open. Raises `FailedPrecondition` for steps out of order, `InvalidArgument` for an
    impossible or repeated name.
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

    def finished_root(self) -> Added | None:
        """The root that the last step finished, if it did."""
        return self._added[-1] if self._added and not self._open and self._file is None else None

    def step(self, step: Step) -> list[Block]:
        """The blocks that `step` completed, children before parents."""
        if self._file is not None:
            return self._in_file(step, *self._file)
        match step:
            case OpenDirectory(name):
                self._open.append((name, {}))
            case OpenFile(name, attributes):
                self._file = (name, Importer(self._profile, attributes))
            case CloseDirectory(attributes) if self._open:
                name, entries = self._open.pop()
                root = directory.build(self._builder, self._profile, entries, attributes)
                self._attach(name, root, root.tsize)
            case Symlink(name, target, attributes):
                root = self._builder.symlink(target, attributes._replace(mode=None))
                self._attach(name, root, len(target))
            case _:
                raise FailedPrecondition(f"{type(step).__name__} came while no file or directory was open")
        return self._builder.take()

    def _in_file(self, step: Step, name: bytes, importer: Importer) -> list[Block]:
        if isinstance(step, (bytes, memoryview)):
            return importer.feed(step)
        if not isinstance(step, CloseFile):
            raise FailedPrecondition(f"{type(step).__name__} came while the file {name!r} was open")
        self._file = None
        blocks = importer.finish()
        self._attach(name, importer.root, importer.root.size)
        return blocks

    def finish(self) -> None:
        """There are no more steps. Raises `FailedPrecondition` when a file or directory is still open."""
        if self._file is not None or self._open:
            raise FailedPrecondition("the tree is cut off: a file or directory is still open")

    def _attach(self, name: bytes, root: Entry, size: int) -> None:
        if self._open:
            name = name or format_cid(root.cid).encode()
            directory.check_name(name)
            siblings = self._open[-1][1]
            if name in siblings:
                raise InvalidArgument(f"the name {name!r} occurs twice in one directory")
            siblings[name] = root
        parts = [*(part for part, _ in self._open), name]
        self._added.append(Added(b"/".join(part for part in parts if part), root.cid, size, len(self._open)))


def encode_step(step: Step) -> dict[str, Any] | Data:
    """A step as JSON, or as the bytes it is; for the wire between the command line and a node."""
    match step:
        case OpenDirectory(name):
            return {"enter": _text(name)}
        case CloseDirectory(attributes):
            return {"leave": encode_attributes(attributes)}
        case OpenFile(name, attributes):
            return {"file": _text(name), **encode_attributes(attributes)}
        case CloseFile():
            return {"end": True}
        case Symlink(name, target, attributes):
            return {"symlink": _text(name), "target": _text(target), **encode_attributes(attributes)}
        case _:
            return step


def decode_step(frame: Mapping[str, Any] | Data) -> Step:
    """What `encode_step` made. Raises `InvalidArgument` for anything else."""
    if isinstance(frame, (bytes, memoryview)):
        return frame
    try:
        if "enter" in frame:
            return OpenDirectory(_bytes(frame["enter"]))
        if "leave" in frame:
            return CloseDirectory(decode_attributes(frame["leave"]))
        if "file" in frame:
            return OpenFile(_bytes(frame["file"]), decode_attributes(frame))
        if "symlink" in frame:
            return Symlink(_bytes(frame["symlink"]), _bytes(frame["target"]), decode_attributes(frame))
        if "end" in frame:
            return CloseFile()
        if "data" in frame:
            return b64decode(frame["data"], validate=True)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise InvalidArgument(f"malformed step of a tree: {exc!r}") from exc
    raise InvalidArgument("unknown step of a tree; is the client of another version?")


def encode_frames(steps: Iterable[Step]) -> Iterator[dict[str, Any] | Data]:
    """Steps as frames for the wire: small ones share a JSON frame, since a frame costs more than a small file."""
    batch: list[dict[str, Any]] = []
    size = 0
    for step in steps:
        frame = encode_step(step)
        if not isinstance(frame, dict):
            if len(frame) > SMALL_DATA:
                if batch:
                    yield {"steps": batch}
                batch, size = [], 0
                yield frame
                continue
            frame = {"data": b64encode(frame).decode()}
            size += len(frame["data"])
        batch.append(frame)
        size += STEP_SIZE
        if size >= FRAME_SIZE:
            yield {"steps": batch}
            batch, size = [], 0
    if batch:
        yield {"steps": batch}


def decode_frame(frame: Mapping[str, Any] | Data) -> list[Step]:
    """The steps in one frame of `encode_frames`. Raises `InvalidArgument` for anything else."""
    if isinstance(frame, (bytes, memoryview)):
        return [frame]
    steps = frame.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InvalidArgument("malformed steps of a tree; is the client of another version?")
    return [decode_step(step) for step in steps]


def encode_attributes(attributes: Attributes) -> dict[str, Any]:
    """Mode and mtime as JSON, absent where unset."""
    out: dict[str, Any] = {}
    if attributes.mode is not None:
        out["mode"] = attributes.mode
    if attributes.mtime is not None:
        out["mtime"] = list(attributes.mtime)
    return out


def decode_attributes(frame: Mapping[str, Any]) -> Attributes:
    """What `encode_attributes` made. Raises `InvalidArgument`, `TypeError` or `ValueError` for anything else."""
    mode, mtime = frame.get("mode"), frame.get("mtime")
    numbers = [mode if mode is not None else 0, *(mtime if mtime is not None else [])]
    if not all(type(number) is int for number in numbers):
        raise InvalidArgument("mode and mtime must be integers")
    return Attributes(mode, None if mtime is None else Mtime(*mtime))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
