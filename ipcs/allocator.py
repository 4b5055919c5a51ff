"""glibc's allocator, set for a process that moves blocks: buffers of up to 4 MiB are reused, not given back and faulted
in again.

By default malloc maps buffers above 128 KiB afresh and trims its heap as soon as it can, so each block costs the kernel
a page fault for every 4 KiB. Measured in alternation (docs/performance.md): 3 % of the CPU of both sides of a fetch,
6 % of its MB/s.
"""

from __future__ import annotations

import ctypes

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

MMAP_THRESHOLD = 4 * 1024 * 1024
"""Bytes from which on a buffer is mapped by itself: above the largest message."""

TRIM_THRESHOLD = 32 * 1024 * 1024
"""Free bytes at the top of the heap that are kept: what is between arrival and store at full speed."""

TOP_PAD = 4 * 1024 * 1024
"""Bytes by which the heap grows at once."""


def keep_buffers() -> bool:
    """Set it for this process; False where the C library is another than glibc, and nothing has changed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, MMAP_THRESHOLD),
        (_M_TRIM_THRESHOLD, TRIM_THRESHOLD),
        (_M_TOP_PAD, TOP_PAD),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)
