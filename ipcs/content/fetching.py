"""Bringing one promised blob: from peers by its DAG, or from its registry; verified either way before it is whole.

Whoever claimed a root that did not hash to the digest has lied: the caller is told by `HashMismatch` and bans it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import trio

from ..bitswap.exchange import Exchange
from ..blockservice import BlockSource
from ..cid import RAW, Cid, PeerId, codec_of, format_cid, multihash_of
from ..errors import DeadlineExceeded, HashMismatch
from ..store.blobs import BlobRecord
from ..store.store import Store
from ..unixfs.importer import Importer
from ..unixfs.profile import Profile
from .arrival import Arrival
from .dag import Leaves, Span, file_bytes, walk_leaves
from .origin import Source, read_blob
from .reader import get_blocks
from .statistics import AdoptionStatistics

T = TypeVar("T")

STALL = 5.0
"""Seconds without a further MiB after which peers count as gone: 200 kB/s is no transfer that anybody wants."""

STEP = 4
"""Leaves that are awaited, hashed and shown together: 1 MiB at 256 KiB."""


class Fetcher:
    """Brings blobs into `store`. Its coroutines run in trio and do bulk work in worker threads."""

    def __init__(
        self, store: Store, exchange: Exchange, profile: Profile, origins: Mapping[str, str], counts: AdoptionStatistics
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._profile = profile
        self._origins = origins
        self._counts = counts

    async def from_peers(
        self, arrival: Arrival, root: Cid, profile: str, peers: Sequence[PeerId], *, show: bool
    ) -> BlobRecord:
        """Fetch the DAG `root`; with `show` readers follow as it arrives, without its last leaf.

        Raises `DeadlineExceeded` when nothing comes for `STALL` seconds, `HashMismatch` when the bytes are not the
        blob's, `MalformedBlock` or `LimitExceeded` for a DAG that is none of a file of this size.
        """
        digester = hashlib.sha256()
        with self._store.hold(root):
            async with self._exchange.session(root, peers) as session:
                leaves = await self._leaves(session, root, arrival.size)
                await self._count_reused(leaves)
                session.prefetch(leaves.cids)
                for at in range(0, len(leaves), STEP):
                    spans = [leaves[index] for index in range(at, min(at + STEP, len(leaves)))]
                    await _in_time(session.fetch_many([span.cid for span in spans]), arrival.digest)
                    await trio.to_thread.run_sync(self._hash, spans, digester)
                    if show and at + STEP < len(leaves):
                        arrival.extend(spans)
        found = "sha256:" + digester.hexdigest()
        if found != arrival.digest:
            raise HashMismatch(
                f"DAG {format_cid(root)} is {found}, claimed as {arrival.digest}", subject=arrival.digest
            )
        now = time.time_ns()
        return BlobRecord(arrival.digest, arrival.size, root, profile, now, now, verified=True)

    async def from_origin(self, arrival: Arrival, source: Source) -> BlobRecord:
        """Download the rest of the blob from its registry; readers follow as it arrives, without its last leaf.

        Raises `NotFound`, `RemoteProtocolError`, and `HashMismatch` when the registry's bytes are wrong, too.
        """
        stop = threading.Event()
        try:
            for attempt in (1, 2):
                download = _Download(self._store, self._profile, arrival, self._counts)
                try:
                    return await trio.to_thread.run_sync(  # type: ignore[call-arg]  # trio-typing lags behind trio
                        download.run, source, self._origins, stop.is_set, abandon_on_cancel=True
                    )
                except HashMismatch:
                    # The part that peers had brought may be what is wrong: once more, from the first byte.
                    if attempt == 2 or not download.prefix:
                        raise
                    arrival.start_over()
        finally:
            stop.set()
        raise AssertionError("the second attempt returns or raises")

    async def ban(self, peer: PeerId, reason: str) -> None:
        """Refuse `peer` from now on: it lied in a way that no single block shows."""
        await self._exchange.ban(peer, reason)

    async def _leaves(self, session: BlockSource, root: Cid, size: int) -> Leaves:
        walk = walk_leaves(root, size)
        try:
            wanted = next(walk)
            while True:
                wanted = walk.send(await _in_time(session.get_many(wanted), format_cid(root)))
        except StopIteration as done:
            leaves: Leaves = done.value
            return leaves

    async def _count_reused(self, leaves: Leaves) -> None:
        keys = [multihash_of(cid) for cid in leaves.cids]
        present = await trio.to_thread.run_sync(self._store.blocks.has_many, keys)
        here = sum(leaves[index].length for index, has in enumerate(present) if has)
        self._counts.bytes_reused += here
        self._counts.bytes_from_peers += leaves.size - here

    def _hash(self, spans: Sequence[Span], digester: hashlib._Hash) -> None:
        blocks = get_blocks(self._store.blocks, [span.cid for span in spans])
        for span, block in zip(spans, blocks, strict=True):
            digester.update(file_bytes(span, block))


class _Download:
    """One download from a registry, in a worker thread: what is here already is hashed, the rest is fetched."""

    def __init__(self, store: Store, profile: Profile, arrival: Arrival, counts: AdoptionStatistics) -> None:
        self.prefix = 0
        self._store = store
        self._profile = profile
        self._arrival = arrival
        self._counts = counts
        self._importer = Importer(profile)
        self._digester = hashlib.sha256()
        self._hold = store.hold()
        self._leaves = 0
        self._held_back: list[Span] = []

    def run(self, source: Source, origins: Mapping[str, str], stopped: Callable[[], bool]) -> BlobRecord:
        """The record of the whole blob, its blocks in the store."""
        arrival = self._arrival
        with self._hold:
            self.prefix = arrival.available
            for at in range(0, self.prefix, 1 << 20):
                for part in arrival.take(at, min(at + (1 << 20), self.prefix)):
                    self._add(bytes(part))
            received = self.prefix
            for data in read_blob(source, arrival.digest, received, origins, stopped):
                received += len(data)
                self._counts.bytes_from_origin += len(data)
                self._add(data)
            self._hold.put_many(self._importer.finish())
            found = "sha256:" + self._digester.hexdigest()
            if found != arrival.digest:
                raise HashMismatch(
                    f"{source.host}/{source.repository} gave {received} bytes with digest {found} for {arrival.digest}",
                    subject=arrival.digest,
                )
        now = time.time_ns()
        root = self._importer.root.cid
        return BlobRecord(arrival.digest, arrival.size, root, self._profile.name, now, now, verified=True)

    def _add(self, data: bytes) -> None:
        self._digester.update(data)
        blocks = self._importer.feed(data)
        self._hold.put_many(blocks)
        for block in blocks:
            if codec_of(block.cid) != RAW:
                continue
            span = Span(self._leaves, len(block.data), block.cid)
            self._leaves += span.length
            # What follows on the part that readers may see is shown, one leaf late: the last must wait for the digest.
            shown, self._held_back = self._held_back, [span]
            self._arrival.extend([held for held in shown if held.start == self._arrival.available])


async def _in_time(work: Awaitable[T], subject: str) -> T:
    with trio.move_on_after(STALL):
        return await work
    raise DeadlineExceeded(f"no peer sent more of {subject} for {STALL:g} s", subject=subject)
