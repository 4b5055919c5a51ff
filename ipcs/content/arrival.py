"""A blob that was promised and still arrives: readers in server threads wait here for what a task in trio brings.

Leaves become readable in file order, each after the running sha256 has passed over it. The last one is withheld until
the digest of the whole is right, so a reader may see a part of a wrong blob but never its end. When a source turns out
to have been wrong after bytes of it were read, every read fails until one begins at 0 again: a mixture must not pass
for a whole.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence

from ..block import Data
from ..cid import Cid
from ..errors import HashMismatch, IpcsError, ResourceExhausted
from ..store.blockstore import Blockstore
from .dag import Span, file_bytes
from .reader import BlobReader, get_blocks

MAX_WAITING = 64
"""Reads that may wait for the network at once: half of the server's threads, so that metadata calls never starve."""

WAIT_SLICE = 5.0
"""Seconds after which a waiting thread looks around even if nobody woke it."""


class WaitingRoom:
    """Counts the Reads that wait, over all arrivals."""

    def __init__(self, seats: int = MAX_WAITING) -> None:
        self._seats = threading.BoundedSemaphore(seats)
        self._count = seats

    def __enter__(self) -> None:
        if not self._seats.acquire(blocking=False):
            raise ResourceExhausted(f"{self._count} reads wait for the network already; try again")

    def __exit__(self, *_exc: object) -> None:
        self._seats.release()


class Arrival:
    """One arriving blob. `size` in bytes. All methods are thread-safe; only `read` waits."""

    def __init__(self, digest: str, size: int, blocks: Blockstore, room: WaitingRoom) -> None:
        self.digest = digest
        self.size = size
        self._blocks = blocks
        self._room = room
        self._changed = threading.Condition()
        self._starts: list[int] = []
        self._cids: list[Cid] = []
        self._end = 0
        self._error: IpcsError | None = None
        self._whole: BlobReader | None = None
        self._served = False
        self._is_tainted = False

    @property
    def available(self) -> int:
        """Bytes from the start that can be read now."""
        return self._end

    @property
    def is_whole(self) -> bool:
        """Whether it is here and verified."""
        return self._whole is not None

    @property
    def is_tainted(self) -> bool:
        """Whether somebody may still hold bytes that were not its own, and go on reading where those ended."""
        return self._is_tainted

    def extend(self, spans: list[Span]) -> None:
        """These leaves, which follow on what is there, may be read."""
        with self._changed:
            for span in spans:
                self._starts.append(span.start)
                self._cids.append(span.cid)
                self._end = span.start + span.length
            self._changed.notify_all()

    def start_over(self) -> None:
        """What came so far was not this blob: forget it."""
        with self._changed:
            self._starts, self._cids, self._end = [], [], 0
            self._is_tainted, self._served = self._is_tainted or self._served, False

    def finish(self, whole: BlobReader) -> None:
        """It is here and verified: reads, the waiting ones too, go to `whole`."""
        with self._changed:
            self._whole = whole
            self._end = self.size
            self._changed.notify_all()

    def fail(self, error: IpcsError) -> None:
        """It will not come: everyone who waits or asks gets `error`."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def wake(self) -> None:
        """Have waiting readers look whether their client is still there."""
        with self._changed:
            self._changed.notify_all()

    def read(self, offset: int, size: int, gone: Callable[[], bool] = lambda: False) -> list[Data]:
        """The bytes from `offset` on, at most `size`, once they are there; `gone` says that nobody wants them any more.

        Raises the error the arrival failed with, `HashMismatch` when earlier bytes turned out wrong,
        `ResourceExhausted` when too many reads wait.
        """
        end = min(offset + size, self.size)
        if offset >= end:
            return []
        while True:
            with self._changed:
                self._check(offset)
                whole, spans = self._whole, []
                if whole is None and self._end >= end:
                    spans, self._served = self._spans(offset, end), True
            if whole is not None:
                return whole.read(offset, size)
            if spans:
                return self._bytes(spans, offset, end)
            with self._room:
                self._wait(end, gone)
            if gone():
                return []

    def take(self, offset: int, end: int) -> list[Data]:
        """The bytes from `offset` up to `end`, which are there."""
        return self._bytes(self._spans(offset, end), offset, end)

    def _bytes(self, spans: Sequence[Span], offset: int, end: int) -> list[Data]:
        parts = [file_bytes(s, d) for s, d in zip(spans, get_blocks(self._blocks, [s.cid for s in spans]), strict=True)]
        parts[-1] = memoryview(parts[-1])[: end - spans[-1].start]
        parts[0] = memoryview(parts[0])[offset - spans[0].start :]
        return parts

    def _wait(self, end: int, gone: Callable[[], bool]) -> None:
        with self._changed:
            while self._end < end and self._error is None and not self._is_tainted and not gone():
                self._changed.wait(WAIT_SLICE)

    def _check(self, offset: int) -> None:
        with self._changed:
            if self._error is not None:
                raise self._error
            if offset == 0:
                self._is_tainted = False
            if self._is_tainted:
                raise HashMismatch(
                    f"bytes of {self.digest} read before were not its own: a peer lied; read it again from the start",
                    subject=self.digest,
                )

    def _spans(self, offset: int, end: int) -> list[Span]:
        with self._changed:
            first = bisect_right(self._starts, offset) - 1
            last = bisect_right(self._starts, end - 1) - 1
            stops = [*self._starts[first + 1 : last + 1], self._end if last + 1 == len(self._starts) else 0]
            if not stops[-1]:
                stops[-1] = self._starts[last + 1]
            starts, cids = self._starts[first : last + 1], self._cids[first : last + 1]
        return [Span(start, stop - start, cid) for start, stop, cid in zip(starts, stops, cids, strict=True)]
