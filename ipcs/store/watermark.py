"""Collection by itself: the one task of the store that runs in trio."""

from __future__ import annotations

import logging
from functools import partial

import trio

from ..errors import IpcsError
from .store import Store

CHECK_INTERVAL = 5.0
"""Seconds between two looks at the disk use, which cost a stat per 256 MiB: at 500 MB/s that is 2.5 GB of growth."""

_log = logging.getLogger(__name__)


async def keep_below_watermark(store: Store) -> None:
    """Collect down to the low watermark whenever the high one is passed, until cancelled.

    A collection that fails (an unwritable disk) is tried again at the next look; the log says why, once per failure.
    """
    while True:
        if await trio.to_thread.run_sync(store.is_over_high_watermark):
            try:
                await trio.to_thread.run_sync(partial(store.collect, down_to=store.low_watermark))
            except IpcsError as exc:
                _log.warning("collection failed: %s", exc.message)
        await trio.sleep(CHECK_INTERVAL)
