"""`fsck`: every block hashes to its key, every DAG is whole, counts are what a full walk says, no space is lost.

The bytes are read first, without the lock, beside whatever else goes on; then the index is audited under the lock,
while no collection runs.
Modelled on git-fsck and restic check: report by default, change only with `repair`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from threading import RLock

from ..cid import Multihash
from ..errors import StoreCorrupt
from . import layout
from .audit import Audit, Problem
from .collector import Collector
from .counts import LinksOf
from .datastore import Datastore, Mutation
from .logstore import LogBlockstore, location, matches
from .segments import Location, SegmentLog

SLICE = 50_000
"""Blocks sorted by place at a time, so that the log is read in order with some 20 MB of memory."""

READ_BLOCKS = 32
"""Blocks read before they are hashed: neighbours become one read, and at most 64 MiB are in memory."""


@dataclass(frozen=True, slots=True)
class FsckReport:
    """What was read, what was wrong. `repaired` says that what can be mended was; missing blocks need a peer."""

    blocks: int
    block_bytes: int
    problems: tuple[Problem, ...]
    repaired: bool

    @property
    def is_clean(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems


def fsck(
    datastore: Datastore,
    segments: SegmentLog,
    blocks: LogBlockstore,
    collector: Collector,
    lock: RLock,
    links_of: LinksOf,
    *,
    repair: bool,
) -> FsckReport:
    """Check a whole store; with `repair` quarantine corrupt blocks and mend what can be mended.

    Raises what the datastore does when it cannot be read or, to repair, written.
    """
    count = size = 0
    problems: list[Problem] = []
    for at_once in _in_order(datastore):
        for multihash, value in _corrupt(segments, datastore, at_once):
            problems.append(Problem("corrupt", multihash.hex(), "does not hash to its key"))
            if repair:
                blocks.quarantine(multihash, value)
        count += len(at_once)
        size += sum(layout.unpack_entry(value).length for _, value in at_once)
    with collector.running, lock:
        audit = Audit(datastore, links_of, blocks.read_whole, collector.serial)
        found = list(audit.problems())
        orphans = segments.unclaimed(audit.claimed)
        found += [_orphan(at) for at in orphans]
        if repair:
            mend: list[Mutation] = [change for problem in found for change in problem.mend]
            quarantined = [_quarantined(pair) for pair in datastore.scan(layout.QUARANTINE)]
            mend += [(layout.QUARANTINE + layout.PLACE.pack(at.segment, at.page), None) for at in quarantined]
            mend += [layout.freed(*at) for at in [*orphans, *quarantined]]
            datastore.write(mend, sync=True)
    if repair:
        collector.punch_listed()
    return FsckReport(count, size, (*problems, *found), repair)


def _in_order(datastore: Datastore) -> Iterator[list[tuple[Multihash, bytes]]]:
    """All blocks that have bytes, a few at a time, by place within a slice of the index."""
    pairs = iter(datastore.scan(layout.BLOCK))
    while taken := list(islice(pairs, SLICE)):
        here = [(Multihash(key[len(layout.BLOCK) :]), value) for key, value in taken if not layout.is_missing(value)]
        here.sort(key=lambda pair: layout.unpack_entry(pair[1])[:2])
        for start in range(0, len(here), READ_BLOCKS):
            yield here[start : start + READ_BLOCKS]


def _corrupt(
    segments: SegmentLog, datastore: Datastore, blocks: list[tuple[Multihash, bytes]]
) -> Iterator[tuple[Multihash, bytes]]:
    places = [at for _, value in blocks if (at := location(layout.unpack_entry(value))) is not None]
    read = iter(segments.read_many(places))
    for multihash, value in blocks:
        data = value[layout.ENTRY.size :] if layout.is_inline(value) else next(read)
        if not isinstance(data, StoreCorrupt) and matches(multihash, data):
            continue
        if not _still_matches(segments, datastore, multihash, value):
            yield multihash, value


def _still_matches(segments: SegmentLog, datastore: Datastore, multihash: Multihash, value: bytes) -> bool:
    """Look again while nothing can be freed: the block may have been collected under the first read."""
    with segments.free_lock:
        current = datastore.get(layout.BLOCK + multihash)
        at = location(layout.unpack_entry(value))
        if current is None or location(layout.unpack_entry(current)) != at:
            return True
        if at is None:
            return matches(multihash, current[layout.ENTRY.size :])
        read = segments.read_many([at])[0]
        return not isinstance(read, StoreCorrupt) and matches(multihash, read)


def _orphan(at: Location) -> Problem:
    return Problem("orphan", f"segment {at.segment} page {at.page}", f"{at.length} bytes belong to no block")


def _quarantined(pair: tuple[bytes, bytes]) -> Location:
    key, value = pair
    return Location(*layout.PLACE.unpack_from(key, 1), *layout.LENGTH.unpack_from(value))
