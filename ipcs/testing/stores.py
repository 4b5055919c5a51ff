"""Stores that fail: the nth write refused, and power lost at any moment.

`PowerLoss` keeps what a disk would hold. Every write is in the page cache at once and on the disk after the next sync;
`crash` then draws, from the source of randomness that it is given, one of the states in which the machine could come
back: any part of what was not synced may be there, page by page, and names not synced may be missing or back. The
index may lose the unsynced end of its log, and of the log before that while its table is not written yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from ..block import Data
from ..errors import IpcsError, ResourceExhausted, StoreCorrupt
from ..store.datastore import Datastore, MemoryDatastore, Mutation
from ..store.disk import Directory, SegmentFile
from ..store.layout import PAGE
from ..store.memory import MemoryFile


class Trap:
    """Raises on the nth call of `step` from when it is armed, and on as many calls after as it is told to."""

    def __init__(self, error: Callable[[], IpcsError] | None = None) -> None:
        self._error = error or (lambda: ResourceExhausted("no space left (injected)"))
        self._first = self._last = -1
        self.calls = 0

    def arm(self, nth: int, times: int = 1) -> None:
        """Fail the `nth` call from now (1 is the next) and the `times` - 1 after it."""
        self._first = self.calls + nth
        self._last = self._first + times - 1

    def disarm(self) -> None:
        """Fail no more."""
        self._first = self._last = -1

    def step(self) -> None:
        """Count a call, and fail if it is one of those."""
        self.calls += 1
        if self._first <= self.calls <= self._last:
            raise self._error()


class FlakyDatastore:
    """A `Datastore` whose writes go through a `Trap` first."""

    def __init__(self, inner: Datastore, trap: Trap) -> None:
        self._inner = inner
        self._trap = trap
        self.get = inner.get
        self.get_many = inner.get_many
        self.scan = inner.scan
        self.size = inner.size
        self.close = inner.close

    def write(self, batch: Sequence[Mutation], *, sync: bool) -> None:
        self._trap.step()
        self._inner.write(batch, sync=sync)


class FlakyFile:
    """A `SegmentFile` that writes half of the buffers before its `Trap` fails a write."""

    def __init__(self, inner: SegmentFile, trap: Trap) -> None:
        self._inner = inner
        self._trap = trap
        self.read = inner.read
        self.size = inner.size
        self.has_data = inner.has_data
        self.punch = inner.punch

    def write(self, buffers: Sequence[Data], offset: int) -> None:
        try:
            self._trap.step()
        except IpcsError:
            self._inner.write(buffers[: len(buffers) // 2], offset)
            raise
        self._inner.write(buffers, offset)

    def sync(self) -> None:
        self._trap.step()
        self._inner.sync()


class FlakyDirectory:
    """A `Directory` whose files are `FlakyFile`s and whose creations go through the same `Trap`."""

    def __init__(self, inner: Directory, trap: Trap) -> None:
        self._inner = inner
        self._trap = trap
        self.names = inner.names
        self.remove = inner.remove
        self.sync = inner.sync
        self.allocated = inner.allocated
        self.space = inner.space

    def open(self, name: str, *, create: bool = False) -> FlakyFile:
        if create:
            self._trap.step()
        return FlakyFile(self._inner.open(name, create=create), self._trap)


def _nothing() -> None:
    """Nobody watches."""


class LossyFile(MemoryFile):
    """A `MemoryFile` that knows which of its pages are on the disk. Calls `step` before everything that changes it."""

    def __init__(
        self, pages: dict[int, bytes] | None = None, size: int = 0, step: Callable[[], None] = _nothing
    ) -> None:
        super().__init__()
        self.step = step
        self.pages.update(pages or {})
        self.length = size
        self._safe = dict(self.pages)
        self._safe_size = size

    def write(self, buffers: Sequence[Data], offset: int) -> None:
        self.step()
        super().write(buffers, offset)

    def punch(self, offset: int, size: int) -> None:
        self.step()
        super().punch(offset, size)

    def sync(self) -> None:
        self.step()
        self._safe = dict(self.pages)
        self._safe_size = self.length

    def after_crash(self, source: random.Random) -> LossyFile:
        """The file as the disk could hold it: each page that changed since the last sync in its old or new state."""
        keep = source.random()
        pages = dict(self._safe)
        for page in sorted(self.pages.keys() | self._safe.keys()):
            new = self.pages.get(page)
            if new != self._safe.get(page) and source.random() < keep:
                pages.pop(page, None)
                if new is not None:
                    pages[page] = new
        grown = source.random() < 0.5
        size = self.length if grown else max(self._safe_size, 1 + max(pages, default=-1) * PAGE)
        return LossyFile(pages, size)


class LossyDirectory:
    """A `Directory` of `LossyFile`s that knows which names are on the disk. Calls `step` as they do."""

    def __init__(self, files: dict[str, LossyFile] | None = None) -> None:
        self.step: Callable[[], None] = _nothing
        self.files = dict(files or {})
        self._safe = dict(self.files)

    def open(self, name: str, *, create: bool = False) -> LossyFile:
        if create:
            assert name not in self.files, "a segment number is used twice"
            self.step()
            self.files[name] = LossyFile(step=self._step)
        if name not in self.files:
            raise StoreCorrupt(f"segment {name} is missing", subject=name)
        return self.files[name]

    def names(self) -> list[str]:
        return list(self.files)

    def remove(self, name: str) -> None:
        self.step()
        del self.files[name]

    def sync(self) -> None:
        self.step()
        self._safe = dict(self.files)

    def _step(self) -> None:
        self.step()

    def allocated(self) -> int:
        return sum(len(file.pages) * PAGE for file in self.files.values())

    def space(self) -> tuple[int, int]:
        return 1 << 40, 1 << 40

    def after_crash(self, source: random.Random) -> LossyDirectory:
        """The directory as the disk could hold it: a name that came or went since the last sync is there or not."""
        files = {}
        for name in sorted(self.files.keys() | self._safe.keys()):
            certain = name in self.files and name in self._safe
            if certain or source.random() < 0.5:
                files[name] = (self.files.get(name) or self._safe[name]).after_crash(source)
        after = LossyDirectory(files)
        for file in files.values():
            file.step = after._step
        return after


class LossyDatastore(MemoryDatastore):
    """A `Datastore` with the log files of LevelDB: tables that are safe, the log before, and the log in use."""

    def __init__(self, pairs: dict[bytes, bytes] | None = None) -> None:
        super().__init__()
        self.step: Callable[[], None] = _nothing
        self._tables = dict(pairs or {})
        self._older: list[tuple[Sequence[Mutation], bool]] = []
        self._newer: list[tuple[Sequence[Mutation], bool]] = []
        MemoryDatastore.write(self, list(self._tables.items()), sync=False)

    def write(self, batch: Sequence[Mutation], *, sync: bool) -> None:
        self.step()
        self._newer.append((list(batch), sync))
        super().write(batch, sync=sync)

    def rotate(self) -> None:
        """Begin a new log; the log before the last goes into tables, which are synced."""
        for batch, _ in self._older:
            _apply(self._tables, batch)
        self._older, self._newer = self._newer, []

    def after_crash(self, source: random.Random, *, rotated: bool) -> LossyDatastore:
        """What recovery would find: both logs cut somewhere behind their last synced batch.

        With `rotated` False the older log is whole: its table was written in time.
        """
        pairs = dict(self._tables)
        older = _cut(self._older, source) if rotated else self._older
        for batch, _ in [*older, *_cut(self._newer, source)]:
            _apply(pairs, batch)
        return LossyDatastore(pairs)


class PowerLoss:
    """The two halves of a store's disk, to be handed to `Store`."""

    def __init__(self, datastore: LossyDatastore | None = None, directory: LossyDirectory | None = None) -> None:
        self.datastore = datastore or LossyDatastore()
        self.directory = directory or LossyDirectory()
        self.datastore.step = self.directory.step = self._step
        self._steps_left = 0
        self._draw: Callable[[], PowerLoss] | None = None
        self._image: PowerLoss | None = None

    def crash(self, source: random.Random, *, rotated: bool = False) -> PowerLoss:
        """A disk as it could be after the power has gone now. This one may still be written to, in vain."""
        return PowerLoss(self.datastore.after_crash(source, rotated=rotated), self.directory.after_crash(source))

    def crash_later(self, steps: int, source: random.Random, *, rotated: bool = False) -> None:
        """Draw the crash in the middle: `steps` changes from now, before the next one. See `crashed`."""
        self._steps_left, self._image = steps, None
        self._draw = lambda: self.crash(source, rotated=rotated)

    def crashed(self) -> PowerLoss:
        """The disk after the crash that `crash_later` foresaw, or after one now if that moment did not come."""
        if self._image is None:
            assert self._draw is not None, "no crash was foreseen"
            self._image = self._draw()
        return self._image

    def _step(self) -> None:
        if self._draw is not None and self._image is None:
            self._steps_left -= 1
            if self._steps_left < 0:
                self._image = self._draw()


def _apply(pairs: dict[bytes, bytes], batch: Sequence[Mutation]) -> None:
    for key, value in batch:
        if value is None:
            pairs.pop(key, None)
        else:
            pairs[key] = value


def _cut(
    log: list[tuple[Sequence[Mutation], bool]], source: random.Random
) -> Iterator[tuple[Sequence[Mutation], bool]]:
    synced = max((index + 1 for index, (_, sync) in enumerate(log) if sync), default=0)
    return iter(log[: source.randint(synced, len(log))])
