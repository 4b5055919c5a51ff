"""The value log: append-only segment files that hold the bytes of larger blocks, and nothing else.

Values begin at page boundaries and have no header: the index alone says what lies where, and a punched hole gives
back every byte of its value. Ranges are never written twice, so a crash at any point can at worst leave a value that
no entry points at. A segment whose last byte has been freed is removed.

Locking: `append` under the store's lock; `read` under none; `sync` and `free` each under their own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..block import Data
from ..errors import ResourceExhausted, StoreCorrupt
from .disk import Directory, SegmentFile
from .layout import PAGE, pages_of

SEGMENT_SIZE = 256 << 20
"""Bytes after which a new segment is begun: 1 TB makes 4,000 files, and a file system lists 4,000 names in no time."""

OPEN_FILES = 128
"""Segment files kept open. With LevelDB's 200 this leaves two thirds of the usual 1,024 descriptors to sockets."""

READ_AT_ONCE = 4 << 20
"""Largest single read, in bytes, that neighbouring blocks are joined into."""

_SUFFIX = ".seg"
_ZEROS = bytes(PAGE)


class Location(NamedTuple):
    """`length` bytes from page `page` of segment `segment`."""

    segment: int
    page: int
    length: int


class SegmentLog:
    """All segments of a store, in `directory`; appends go to segments numbered from `first` on."""

    def __init__(self, directory: Directory, first: int, segment_size: int = SEGMENT_SIZE) -> None:
        self._directory = directory
        self._segment_size = segment_size
        self._segment = first - 1
        self._page = -1
        self._open: OrderedDict[int, SegmentFile] = OrderedDict()
        self._open_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._unsynced: dict[int, SegmentFile] = {}
        self._names_unsynced = True  # an earlier process may have removed some
        self._failed: StoreCorrupt | None = None
        self.free_lock = threading.Lock()
        self.unsynced_bytes = 0
        self.freed = 0

    @property
    def position(self) -> tuple[int, int]:
        """Segment and page before which every value appended so far lies."""
        return (self._segment, self._page) if self._page >= 0 else (self._segment + 1, 0)

    def append(self, values: Sequence[Data]) -> list[Location]:
        """Write `values` in one vectored write; where they went, in order. The caller holds the store's lock.

        Raises `ResourceExhausted` when the disk is full; what was half written is overwritten by the next append.
        """
        file = self._file_for_append()
        page = self._page
        locations, buffers = [], []
        for value in values:
            size = len(value)
            locations.append(Location(self._segment, page, size))
            buffers.append(value)
            if size % PAGE:
                buffers.append(_ZEROS[size % PAGE :])
            page += pages_of(size)
        file.write(buffers, self._page * PAGE)
        with self._open_lock:
            self._unsynced[self._segment] = file
            self.unsynced_bytes += (page - self._page) * PAGE
        self._page = page
        return locations

    def read(self, location: Location) -> bytes:
        """The bytes at `location`, fewer when the file ends before. Raises `StoreCorrupt` when they cannot be read."""
        return self._file(location.segment).read(location.length, location.page * PAGE)

    def read_many(self, locations: Sequence[Location]) -> list[Data | StoreCorrupt]:
        """The bytes at each location, neighbours joined into one read; in the place of one unreadable, its error."""
        found: list[Data | StoreCorrupt] = []
        start = 0
        while start < len(locations):
            end = _run_end(locations, start)
            try:
                found.extend(self._read_run(locations[start:end]))
            except StoreCorrupt as exc:
                if end == start + 1:
                    found.append(exc)
                else:
                    for location in locations[start:end]:
                        found.extend(self.read_many([location]))
            start = end
        return found

    def sync(self) -> None:
        """Return when everything appended before this call survives a power loss.

        Raises `StoreCorrupt` once the disk has refused to write what it had accepted: nothing can be promised then
        until the store is opened, and so checked, again (the kernel reports such a failure only once).
        """
        with self._sync_lock:
            if self._failed is not None:
                raise self._failed
            with self._open_lock:
                unsynced, self._unsynced = self._unsynced, {}
                self.unsynced_bytes = 0
            try:
                for file in unsynced.values():
                    file.sync()
                if self._names_unsynced:
                    self._names_unsynced = False
                    self._directory.sync()
            except (StoreCorrupt, ResourceExhausted) as exc:
                self._failed = StoreCorrupt(f"written data may be lost ({exc}): restart the node", subject=exc.subject)
                raise self._failed from exc

    def sync_tail(self, first: int) -> None:
        """Return when the segments numbered `first` and above survive a power loss, whoever wrote them."""
        for segment in self.segments():
            if segment >= first:
                self._file(segment).sync()
        self._directory.sync()

    def free(self, ranges: Sequence[Location]) -> None:
        """Punch out `ranges`, which no entry points at any more, and remove the segments that this empties.

        A reader compares `freed` before its look-up and after its read, and starts again when a range may have gone
        under it. After a power loss the space may be taken again, unless `sync` has returned since.
        """
        with self.free_lock:
            self.freed += 1
            touched: dict[int, SegmentFile] = {}
            for location in _joined(ranges):
                file = touched.get(location.segment)
                if file is None:
                    file = touched[location.segment] = self._file(location.segment)
                file.punch(location.page * PAGE, pages_of(location.length) * PAGE)
            with self._open_lock:
                self._unsynced.update(touched)
            for segment, file in touched.items():
                if segment != self._segment and not file.has_data(0, file.size()):
                    self.remove(segment)

    def remove(self, segment: int) -> None:
        """Remove a segment; whoever is reading it may go on."""
        with self._open_lock:
            self._open.pop(segment, None)
            self._unsynced.pop(segment, None)
            self._names_unsynced = True
        self._directory.remove(_name(segment))

    def segments(self) -> list[int]:
        """The numbers of all segments, oldest first."""
        return sorted(int(name[: -len(_SUFFIX)]) for name in self._directory.names() if name.endswith(_SUFFIX))

    def unclaimed(self, claimed: Sequence[Location], since: tuple[int, int] = (0, 0)) -> list[Location]:
        """The ranges that take space from segment and page `since` on, and are not among `claimed`."""
        by_segment: dict[int, list[Location]] = {}
        for at in claimed:
            by_segment.setdefault(at.segment, []).append(at)
        found: list[Location] = []
        for segment in self.segments():
            if segment >= since[0]:
                start = since[1] if segment == since[0] else 0
                found.extend(self._gaps(segment, start, by_segment.get(segment, [])))
        return found

    def allocated(self) -> int:
        """Bytes of disk that all segments take, as the file system says."""
        return self._directory.allocated()

    def space(self) -> tuple[int, int]:
        """Bytes of the file system: all of it, and what is free for us."""
        return self._directory.space()

    def close(self) -> None:
        """Let go of all files; a read still under way keeps its own open."""
        with self._open_lock:
            self._open.clear()
        self._unsynced.clear()

    def _gaps(self, segment: int, page: int, claimed: Sequence[Location]) -> Iterator[Location]:
        file = self._file(segment)
        end = Location(segment, pages_of(file.size()), 0)
        for at in [*sorted(claimed), end]:
            length = (at.page - page) * PAGE
            if length > 0 and file.has_data(page * PAGE, length):
                yield Location(segment, page, length)
            page = max(page, at.page + pages_of(at.length))

    def _read_run(self, run: Sequence[Location]) -> list[Data]:
        if len(run) == 1:
            return [self.read(run[0])]
        start, last = run[0].page, run[-1]
        size = (last.page - start) * PAGE + last.length
        view = memoryview(self.read(Location(last.segment, start, size)))
        return [view[(at.page - start) * PAGE :][: at.length] for at in run]

    def _file_for_append(self) -> SegmentFile:
        if self._page < 0 or self._page * PAGE >= self._segment_size:
            file = self._directory.open(_name(self._segment + 1), create=True)
            self._segment += 1
            self._page = 0
            self._names_unsynced = True
            self._remember(self._segment, file)
            return file
        return self._file(self._segment)

    def _file(self, segment: int) -> SegmentFile:
        with self._open_lock:
            file = self._open.get(segment)
            if file is not None:
                self._open.move_to_end(segment)
                return file
        try:
            file = self._directory.open(_name(segment))
        except ResourceExhausted:
            with self._open_lock:
                self._open.clear()
            file = self._directory.open(_name(segment))
        self._remember(segment, file)
        return file

    def _remember(self, segment: int, file: SegmentFile) -> None:
        with self._open_lock:
            self._open[segment] = file
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)


def _run_end(locations: Sequence[Location], start: int) -> int:
    """The end of the run of neighbours on disk that begins at index `start`."""
    first = previous = locations[start]
    end = start + 1
    while end < len(locations):
        at = locations[end]
        if at.segment != first.segment or at.page != previous.page + pages_of(previous.length):
            break
        if (at.page - first.page) * PAGE + at.length > READ_AT_ONCE:
            break
        previous = at
        end += 1
    return end


def _joined(ranges: Sequence[Location]) -> list[Location]:
    """`ranges` in order, neighbours made one."""
    joined: list[Location] = []
    for at in sorted(ranges):
        last = joined[-1] if joined else None
        if last is not None and at.segment == last.segment and at.page == last.page + pages_of(last.length):
            joined[-1] = last._replace(length=pages_of(last.length) * PAGE + at.length)
        else:
            joined.append(at)
    return joined


def _name(segment: int) -> str:
    return f"{segment:08d}{_SUFFIX}"
