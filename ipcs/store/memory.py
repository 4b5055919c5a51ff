"""Segment files in memory: the same bytes as on disk, page by page, for `memory_store` and for crash tests."""

from __future__ import annotations

from collections.abc import Sequence

from ..block import Data
from ..errors import StoreCorrupt
from .layout import PAGE

MEMORY_SPACE = 1 << 40
"""Bytes that a memory directory claims to have: enough never to be the limit."""


class MemoryFile:
    """A `SegmentFile` as a table of pages; a page that is not there reads as zeros."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.length = 0

    def write(self, buffers: Sequence[Data], offset: int) -> None:
        data = b"".join(buffers)
        assert offset % PAGE == 0, "segments append whole pages"
        for at in range(0, len(data), PAGE):
            self.pages[(offset + at) // PAGE] = data[at : at + PAGE]
        self.length = max(self.length, offset + len(data))

    def read(self, size: int, offset: int) -> bytes:
        size = max(0, min(size, self.length - offset))
        zeros = bytes(PAGE)
        first, last = offset // PAGE, -(-(offset + size) // PAGE)
        data = b"".join([self.pages.get(page, zeros).ljust(PAGE, b"\0") for page in range(first, last)])
        return data[offset - first * PAGE :][:size]

    def sync(self) -> None:
        """Nothing here outlives the process."""

    def punch(self, offset: int, size: int) -> None:
        for page in range(-(-offset // PAGE), (offset + size) // PAGE):
            self.pages.pop(page, None)

    def has_data(self, offset: int, size: int) -> bool:
        first, last = offset // PAGE, -(-(offset + size) // PAGE)
        return any(first <= page < last for page in self.pages)

    def size(self) -> int:
        return self.length


class MemoryDirectory:
    """A `Directory` in a dict."""

    def __init__(self) -> None:
        self.files: dict[str, MemoryFile] = {}

    def open(self, name: str, *, create: bool = False) -> MemoryFile:
        if create:
            self.files[name] = MemoryFile()
        file = self.files.get(name)
        if file is None:
            raise StoreCorrupt(f"segment {name} is missing", subject=name)
        return file

    def names(self) -> list[str]:
        return list(self.files)

    def remove(self, name: str) -> None:
        del self.files[name]

    def sync(self) -> None:
        """Nothing here outlives the process."""

    def allocated(self) -> int:
        return sum(len(file.pages) * PAGE for file in self.files.values())

    def space(self) -> tuple[int, int]:
        return MEMORY_SPACE, MEMORY_SPACE
