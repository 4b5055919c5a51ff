"""Collection (tier 2): give the space of cache back, least recently served first.

Nothing is marked: dropping a root decrements what it alone kept alive, and loose blocks stand in a queue, so the cost
follows what goes. Work is cut into steps. Each step takes the store's lock for a few milliseconds, writes one synced
batch that takes blocks out of the index and lists their ranges, and only then, without the lock, punches these out.
A crash between leaves ranges listed, which the next run punches; readers never wait (see `SegmentLog.free`).

What stays: referenced roots, held roots, blocks that an ingest in progress has put, and what is there of a held DAG
that is being fetched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from threading import RLock
from typing import NamedTuple

from ..cid import Cid, Multihash
from . import layout
from .barrier import Barrier
from .counts import Counter, LinksOf, ReadBlock, pend
from .datastore import Datastore, Mutation, Transaction
from .holds import Fetches, Holds
from .layout import pages_of
from .logstore import discard
from .roots import RootTable
from .segments import Location, SegmentLog

STEP_BLOCKS = 256
"""Blocks a step looks at: about 3 ms under the lock, and one synced write for up to 64 MiB given back."""

STEP_ROOTS = 64
"""Roots dropped at a time, after one call to withdraw their announcements."""

EVERYTHING = 1 << 62
"""Bytes to free when none of the cache is to stay, however small the index on disk may be."""

OnWithdraw = Callable[[Sequence[str]], None]
"""Told the digests of blobs whose bytes are about to go, so that announcements end first. Must not raise."""


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection did, or with `dry_run` would do. Bytes.

    `block_bytes` is the length of the blocks that went, `freed_bytes` what the file system gave back (0 if `dry_run`).
    """

    dry_run: bool
    blobs: int
    blocks: int
    block_bytes: int
    freed_bytes: int
    seconds: float


class Collector:
    """Runs collections over the parts of one store, one at a time."""

    def __init__(
        self,
        datastore: Datastore,
        segments: SegmentLog,
        barrier: Barrier,
        roots: RootTable,
        holds: Holds,
        *,
        lock: RLock,
        clock: Callable[[], int],
        serial: Iterator[int],
        links_of: LinksOf,
        read_block: ReadBlock,
    ) -> None:
        self.datastore = datastore
        self.segments = segments
        self.barrier = barrier
        self.roots = roots
        self.holds = holds
        self.lock = lock
        self.clock = clock
        self.serial = serial
        self.links_of = links_of
        self.read_block = read_block
        self.counter = Counter(links_of, read_block)
        self.running = RLock()

    def collect(self, *, dry_run: bool, down_to: int, on_withdraw: OnWithdraw) -> CollectReport:
        """Free cache until at most `down_to` bytes of disk are used; with 0 all of it."""
        with self.running:
            started = time.perf_counter()
            used = self.used()
            run = Run(self, self.barrier.complete().serial, used - down_to if down_to else EVERYTHING)
            if dry_run:
                run.rehearse()
            else:
                run.carry_out(on_withdraw)
                self.punch_listed(run.punched)
            freed = 0 if dry_run else used - self.used()
            seconds = time.perf_counter() - started
            return CollectReport(dry_run, run.blobs, run.blocks, run.block_bytes, freed, seconds)

    def punch_listed(self, already: Set[Location] = frozenset()) -> None:
        """Punch out what is listed as freed and not `already`, and take all of it off the list.

        First that must be durable: after a power loss, whatever is still listed is punched once more.
        """
        with self.running:
            listed = [
                Location(*layout.PLACE.unpack_from(key, 1), *layout.LENGTH.unpack(value))
                for key, value in self.datastore.scan(layout.FREED)
            ]
            present = set(self.segments.segments())
            left = [at for at in listed if at not in already and at.segment in present]
            for start in range(0, len(left), STEP_BLOCKS):
                self.segments.free(left[start : start + STEP_BLOCKS])
            if listed:
                self.barrier.complete()
            for start in range(0, len(listed), STEP_BLOCKS):
                done: list[Mutation] = [(layout.freed(*at)[0], None) for at in listed[start : start + STEP_BLOCKS]]
                self.datastore.write(done, sync=False)

    def used(self) -> int:
        """Bytes of disk that the store takes, as the file system says."""
        return self.segments.allocated() + self.datastore.size()


class Victim(NamedTuple):
    """A root that is to go: its key in the queue, and the digests of its records."""

    key: bytes
    cid: Cid
    digests: list[str]


class Run:
    """One collection: its cursors in the three queues, and what it has freed so far."""

    def __init__(self, collector: Collector, before: int, excess: int) -> None:
        self._of = collector
        self._excess = excess
        self._end_of_loose = layout.LOOSE + layout.STAMP.pack(before)
        self._at_pending = layout.PENDING
        self._at_unheld = layout.UNHELD
        self._at_loose = layout.LOOSE
        self._fetches = Fetches(collector.holds, collector.links_of, collector.read_block)
        self.blobs = self.blocks = self.block_bytes = 0
        self.punched: set[Location] = set()

    def carry_out(self, on_withdraw: OnWithdraw) -> None:
        """Collect in steps, each durable before its space goes."""
        while True:
            before = self._cursors()
            with self._of.lock:
                victims = self._next_roots(Transaction(self._of.datastore))
            if victims:
                on_withdraw([digest for victim in victims for digest in victim.digests])
            with self._of.lock:
                transaction = Transaction(self._of.datastore)
                freed = self._step(transaction, victims)
                transaction.commit(sync=True)
            self._of.segments.free(freed)
            self.punched.update(freed)
            if self._cursors() == before:
                return

    def rehearse(self) -> None:
        """Do the same in a transaction that is never committed."""
        transaction = Transaction(self._of.datastore)
        before = None
        while self._cursors() != before:
            before = self._cursors()
            with self._of.lock:
                self._step(transaction, self._next_roots(transaction))

    def _cursors(self) -> tuple[bytes, bytes, bytes]:
        """Where the run stands in its three queues: it is over when a step moves none of them."""
        return self._at_unheld, self._at_pending, self._at_loose

    def _step(self, transaction: Transaction, victims: list[Victim]) -> list[Location]:
        self._fetches.follow(transaction)
        self._drop_roots(transaction, victims)
        return self._free_blocks(transaction)

    def _next_roots(self, transaction: Transaction) -> list[Victim]:
        """The next roots to go: none while decrements are pending or a loose block is older."""
        if self._excess <= 0 or _first(transaction, layout.PENDING, self._at_pending) is not None:
            return []
        held = self._of.holds.roots()
        loose = self._oldest_loose(transaction)
        victims: list[Victim] = []
        expected = 0
        for key, _ in transaction.scan(layout.UNHELD, self._at_unheld):
            used_at, cid = layout.split_stamp(key)
            if expected >= self._excess or len(victims) == STEP_ROOTS or (loose is not None and loose < used_at):
                break
            records = self._of.roots.records_of(transaction, cid)
            if held.isdisjoint([cid, *(record.digest for record in records)]):
                victims.append(Victim(key, cid, [record.digest for record in records]))
                expected += max((record.size for record in records), default=self._excess)
            self._at_unheld = key + b"\0"
        return victims

    def _oldest_loose(self, transaction: Transaction) -> int | None:
        """When the oldest batch of loose blocks was put, None when the queue is done."""
        first = _first(transaction, layout.LOOSE, self._at_loose)
        if first is None or first[0] >= self._end_of_loose:
            return None
        return int(layout.STAMP.unpack_from(first[1])[0])

    def _drop_roots(self, transaction: Transaction, victims: list[Victim]) -> None:
        """Forget roots that are still unheld: announcements were withdrawn without the lock."""
        held = self._of.holds.roots()
        for key, cid, digests in victims:
            if held.isdisjoint([cid, *digests]) and self._of.roots.drop(transaction, cid):
                self.blobs += len(digests)
            else:
                self._of.roots.requeue(transaction, key, cid)

    def _free_blocks(self, transaction: Transaction) -> list[Location]:
        """One step of pending decrements or, when there are none, of loose blocks."""
        freed: list[Location] = []
        budget = STEP_BLOCKS
        for key, packed in _upto(transaction, layout.PENDING, self._at_pending):
            self._at_pending = key
            multihashes = layout.unpack_multihashes(packed)
            transaction.delete(key)
            pend(transaction, multihashes[budget:], self._of.serial)
            self._decrement(transaction, multihashes[:budget], freed)
            budget -= len(multihashes)
            if budget <= 0:
                break
        if budget == STEP_BLOCKS and self._excess > 0:
            self._free_loose(transaction, freed)
        return freed

    def _decrement(self, transaction: Transaction, multihashes: list[Multihash], freed: list[Location]) -> None:
        kept = []
        for multihash in multihashes:
            value = self._of.counter.drop(transaction, multihash, self._of.serial)
            if value is None:
                continue
            if self._keeps(multihash):
                kept.append(multihash)
            else:
                self._discard(transaction, multihash, value, freed)
        self._queue_again(transaction, kept)

    def _free_loose(self, transaction: Transaction, freed: list[Location]) -> None:
        budget = STEP_BLOCKS
        for key, packed in _upto(transaction, layout.LOOSE, self._at_loose):
            if key >= self._end_of_loose or budget <= 0 or self._excess <= 0:
                return
            self._at_loose = key
            transaction.delete(key)
            multihashes = layout.unpack_multihashes(packed[layout.STAMP.size :])
            values = transaction.get_many([layout.BLOCK + multihash for multihash in multihashes])
            kept = []
            for multihash, value in zip(multihashes, values, strict=True):
                if value is None or layout.unpack_entry(value).counted:
                    continue
                if self._keeps(multihash):
                    kept.append(multihash)
                else:
                    self._discard(transaction, multihash, value, freed)
            self._queue_again(transaction, kept)
            budget -= len(multihashes)

    def _discard(self, transaction: Transaction, multihash: Multihash, value: bytes, freed: list[Location]) -> None:
        length = layout.unpack_entry(value).length
        self.blocks += 1
        self.block_bytes += length
        at = discard(transaction, multihash, value)
        if at is not None:
            freed.append(at)
        self._excess -= len(value) if at is None else pages_of(length) * layout.PAGE

    def _queue_again(self, transaction: Transaction, kept: list[Multihash]) -> None:
        if kept:
            key = layout.LOOSE + layout.STAMP.pack(next(self._of.serial))
            transaction.put(key, layout.pack_loose(self._of.clock(), kept))

    def _keeps(self, multihash: Multihash) -> bool:
        return self._of.holds.keeps(multihash) or multihash in self._fetches.reached


def _first(transaction: Transaction, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
    return next(iter(transaction.scan(prefix, start)), None)


def _upto(transaction: Transaction, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
    """The first pairs of a queue, more than a step can use: the caller changes the queue as it goes."""
    found = []
    for pair in transaction.scan(prefix, start):
        found.append(pair)
        if len(found) == STEP_BLOCKS:
            break
    return found
