"""Splitters: bytes, in pieces of any size, to the chunks that become leaves.

A chunker is fed and finished; what it returns is a list of the chunks complete so far. Chunk specifications are
Kubo's (boxo `chunker/parse.go`).
"""

from __future__ import annotations

from typing import Protocol

from ..block import Data
from ..errors import InvalidArgument

DEFAULT_SIZE = 262144
MAX_CHUNK_SIZE = 2 * 1024 * 1024 - 256
"""Largest chunk in bytes: with its dag-pb framing it still fits a 2 MiB block (boxo `chunker.ChunkSizeLimit`)."""

MIN_RABIN_SIZE = 16
"""Smallest minimum of a rabin chunk: its window (boxo `ErrRabinMin`)."""


class Chunker(Protocol):
    """Cuts one stream. Chunks are slices of what was fed where they can be, so feed buffers that will not change."""

    def feed(self, data: Data) -> list[Data]:
        """The chunks that `data` completes, in order."""
        ...

    def finish(self) -> list[Data]:
        """The chunks left over at the end of the stream; the chunker is spent."""
        ...


class FixedChunker:
    """Chunks of `size` bytes, the last one shorter."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: list[Data] = []
        self._held_bytes = 0

    def feed(self, data: Data) -> list[Data]:
        view = memoryview(data)
        chunks: list[Data] = []
        at = 0
        if self._held_bytes:
            at = min(self._size - self._held_bytes, len(view))
            self._hold(view[:at])
            if self._held_bytes == self._size:
                chunks = self.finish()
        whole = at + (len(view) - at) // self._size * self._size
        chunks += [view[begin : begin + self._size] for begin in range(at, whole, self._size)]
        self._hold(view[whole:] if not self._held_bytes else view[at:at])
        return chunks

    def _hold(self, view: memoryview) -> None:
        if len(view):
            self._held.append(bytes(view))  # a copy, so that the caller may reuse its buffer for the next piece
            self._held_bytes += len(view)

    def finish(self) -> list[Data]:
        if not self._held_bytes:
            return []
        chunk = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held, self._held_bytes = [], 0
        return [chunk]


def make_chunker(spec: str) -> Chunker:
    """The chunker that `spec` names: `size-N`, `rabin`, `rabin-avg`, `rabin-min-avg-max`, `buzhash`, `default`.

    Raises `InvalidArgument` for anything else and for sizes out of range.
    """
    kind, _, parameters = spec.partition("-")
    if spec == "default":
        return FixedChunker(DEFAULT_SIZE)
    if kind == "size" and parameters:
        return FixedChunker(_size(parameters, spec))
    if kind == "rabin":
        from .cdc import ContentChunker, rabin_cut

        least, average, most = _rabin_sizes(parameters, spec)
        return ContentChunker(rabin_cut(least, average, most), most)
    if spec == "buzhash":
        from .cdc import BUZHASH_MAX, ContentChunker, buzhash_cut

        return ContentChunker(buzhash_cut, BUZHASH_MAX)
    raise InvalidArgument(f"chunker {spec!r} is not known; try size-262144, rabin-min-avg-max or buzhash", subject=spec)


def _size(text: str, spec: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidArgument(f"chunker {spec!r}: {text!r} is not a size in bytes", subject=spec)
    size = int(text)
    if not 1 <= size <= MAX_CHUNK_SIZE:
        raise InvalidArgument(f"chunker {spec!r}: size must be 1 to {MAX_CHUNK_SIZE} bytes", subject=spec)
    return size


def _rabin_sizes(parameters: str, spec: str) -> tuple[int, int, int]:
    parts = [str(DEFAULT_SIZE)] if spec == "rabin" else parameters.split("-")
    if len(parts) == 1:
        average = _size(parts[0], spec)
        least, most = average // 3, average + average // 2
    elif len(parts) == 3:
        least, average, most = (
            _size(part.removeprefix(label), spec) for part, label in zip(parts, ("min:", "avg:", "max:"), strict=True)
        )
    else:
        raise InvalidArgument(f"chunker {spec!r}: give rabin, rabin-avg or rabin-min-avg-max", subject=spec)
    if not MIN_RABIN_SIZE <= least < average < most <= MAX_CHUNK_SIZE:
        raise InvalidArgument(
            f"chunker {spec!r}: {least}, {average}, {most} must ascend from {MIN_RABIN_SIZE} to {MAX_CHUNK_SIZE}",
            subject=spec,
        )
    return least, average, most
