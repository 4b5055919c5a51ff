"""What opening a store does first: check the bytes that may not have reached the disk before the last process ended.

Everything put since the last durability barrier is listed in the queue of loose blocks from the barrier's serial
number on. Those blocks are read and hashed; what does not match is forgotten, and whatever else lies behind the
barrier in the log, without an entry, is punched out. After that every entry can be trusted as if nothing had happened.
The cost grows with what was not synced: about 0.8 s a GB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..block import Data
from ..cid import Multihash
from ..errors import StoreCorrupt
from . import layout
from .datastore import Datastore, Mutation
from .disk import Directory
from .logstore import location
from .segments import Location, SegmentLog


class Recovered(NamedTuple):
    """The log, ready to append; the first unused serial number; how many blocks had to be forgotten."""

    segments: SegmentLog
    serial: int
    lost: int


def recover(
    datastore: Datastore, directory: Directory, matches: Callable[[Multihash, Data], bool], segment_size: int
) -> Recovered:
    """Check the tail of a store and set a barrier behind it. Errors as those of the datastore and directory."""
    serial, segment, page = layout.BARRIER_VALUE.unpack(datastore.get(layout.BARRIER) or bytes(16))
    suspects, next_serial = _suspects(datastore, serial, (segment, page))
    reader = SegmentLog(directory, 0)
    kept, batch = [], []
    for multihash, value in suspects.items():
        at = location(layout.unpack_entry(value))
        if at is not None and _is_whole(reader, at, multihash, matches):
            kept.append(at)
        else:
            batch.append(_forget(multihash, value))
    freed = [layout.PLACE.unpack_from(key, 1)[0] for key, _ in datastore.scan(layout.FREED)]
    first = 1 + max([segment, *reader.segments(), *freed, *(at.segment for at in kept)])
    batch.append((layout.BARRIER, layout.BARRIER_VALUE.pack(next_serial, first, 0)))
    gaps = reader.unclaimed(kept, (segment, page))
    batch += [layout.freed(*at) for at in gaps]
    reader.sync_tail(segment)
    datastore.write(batch, sync=True)
    reader.free(gaps)
    reader.close()
    return Recovered(SegmentLog(directory, first, segment_size), next_serial, len(suspects) - len(kept))


def _suspects(datastore: Datastore, serial: int, barrier: tuple[int, int]) -> tuple[dict[Multihash, bytes], int]:
    """Index values of the blocks that lie behind `barrier`, and the first serial number not used yet."""
    found: dict[Multihash, bytes] = {}
    for key, value in datastore.scan(layout.LOOSE, layout.LOOSE + layout.STAMP.pack(serial)):
        serial = layout.STAMP.unpack_from(key, len(layout.LOOSE))[0] + 1
        multihashes = layout.unpack_multihashes(value[layout.STAMP.size :])
        values = datastore.get_many([layout.BLOCK + multihash for multihash in multihashes])
        for multihash, entry in zip(multihashes, values, strict=True):
            at = None if entry is None else location(layout.unpack_entry(entry))
            if entry is not None and at is not None and at[:2] >= barrier:
                found[multihash] = entry
    for key, _ in datastore.scan(layout.PENDING):
        serial = max(serial, layout.STAMP.unpack_from(key, len(layout.PENDING))[0] + 1)
    return found, serial


def _is_whole(
    reader: SegmentLog, at: Location, multihash: Multihash, matches: Callable[[Multihash, Data], bool]
) -> bool:
    try:
        return matches(multihash, reader.read(at))
    except StoreCorrupt:
        return False


def _forget(multihash: Multihash, value: bytes) -> Mutation:
    """Without its bytes, a block that is counted (durability `none`) keeps its count, and any other is gone."""
    entry = layout.unpack_entry(value)
    if not entry.counted:
        return layout.BLOCK + multihash, None
    return layout.BLOCK + multihash, layout.ENTRY.pack(*entry._replace(segment=layout.MISSING, page=0))
