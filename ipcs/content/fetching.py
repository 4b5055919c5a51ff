"""Bringing one promised blob: from peers by its DAG, or from its registry; verified either way before it is whole.

Whoever claimed a root that did not hash to the digest has lied: the caller is told by `HashMismatch` and bans it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

import trio

from ..bitswap.exchange import Exchange
from ..bitswap.session_source import SessionSource
from ..blockservice import BlockSource
from ..cid import RAW, Cid, PeerId, cid_v1, codec_of, format_cid, multihash_of, sha256_multihash
from ..errors import DeadlineExceeded, HashMismatch, RemoteProtocolError
from ..routing.router import Router
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

ATTEMPTS = 3
"""Downloads from one registry that are begun, each where the one before broke off."""

DOWNLOADS = 8
"""Downloads from registries at once: each holds a thread for as long as it takes."""

STEP = 4
"""Leaves that are awaited, hashed and shown together: 1 MiB at 256 KiB."""


class Fetcher:
    """Brings blobs into `store`. Its coroutines run in trio and do bulk work in worker threads."""

    def __init__(
        self,
        store: Store,
        exchange: Exchange,
        router: Router,
        profile: Profile,
        origins: Mapping[str, str],
        counts: AdoptionStatistics,
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._router = router
        self._downloads = trio.CapacityLimiter(DOWNLOADS)
        self._token = trio.lowlevel.current_trio_token()
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
            for attempt in range(ATTEMPTS):
                download = self._download(arrival)
                try:
                    return await trio.to_thread.run_sync(  # type: ignore[call-arg]  # trio-typing lags behind trio
                        download.run,
                        source,
                        self._origins,
                        stop.is_set,
                        abandon_on_cancel=True,
                        limiter=self._downloads,
                    )
                except RemoteProtocolError:
                    # A connection that broke after some bytes is taken up where it broke.
                    if attempt + 1 == ATTEMPTS or arrival.available <= download.prefix:
                        raise
                except HashMismatch:
                    # The part that peers had brought may be what is wrong: once more, from the first byte.
                    if attempt + 1 == ATTEMPTS or not download.prefix:
                        raise
                    arrival.start_over()
        finally:
            stop.set()
        raise AssertionError("the last attempt returns or raises")

    async def from_leader(self, arrival: Arrival, leader: PeerId) -> BlobRecord:
        """Follow `leader`, which takes the blob from its registry, by the leaves that it has so far; the DAG above them
        is built here.

        Raises `RemoteProtocolError` or `DeadlineExceeded` when it stops, `HashMismatch` when the bytes are wrong.
        """
        download = self._download(arrival)
        session: SessionSource | None = None
        async with AsyncExitStack() as stack:
            stack.callback(download.close)
            feed = await stack.enter_async_context(aclosing(self._router.follow(leader, arrival.digest, STALL)))
            async for digests in feed:
                cids = [cid_v1(RAW, sha256_multihash(digest)) for digest in digests]
                if session is None:
                    session = await stack.enter_async_context(self._exchange.session(cids[0], [leader]))
                session.prefetch(cids)
                for at in range(0, len(cids), STEP):
                    part = cids[at : at + STEP]
                    await _in_time(session.fetch_many(part), arrival.digest)
                    await trio.to_thread.run_sync(download.add_leaves, part)
            return await trio.to_thread.run_sync(download.finish, str(leader))
        raise AssertionError("the stack swallows nothing")

    def _download(self, arrival: Arrival) -> _Download:
        def publish(first: int, leaf: bytes) -> None:
            self._token.run_sync_soon(self._router.feeds.add, arrival.digest, first, [leaf])
            self._token.run_sync_soon(self._exchange.notify_stored, [cid_v1(RAW, sha256_multihash(leaf))])

        return _Download(self._store, self._profile, arrival, self._counts, publish)

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
    """A blob that comes as bytes in order, from a registry or leaf by leaf: hashed, cut, stored, shown, published."""

    def __init__(
        self,
        store: Store,
        profile: Profile,
        arrival: Arrival,
        counts: AdoptionStatistics,
        publish: Callable[[int, bytes], None],
    ) -> None:
        self.prefix = 0
        self._store = store
        self._profile = profile
        self._arrival = arrival
        self._counts = counts
        self._publish = publish
        self._importer = Importer(profile)
        self._digester = hashlib.sha256()
        self._hold = store.hold()
        self._length = 0
        self._leaves = 0
        self._count = 0
        self._held_back: list[Span] = []

    def run(self, source: Source, origins: Mapping[str, str], stopped: Callable[[], bool]) -> BlobRecord:
        """In a worker thread: what is here already is hashed, the rest comes from the registry."""
        arrival = self._arrival
        with self._hold:
            self.prefix = arrival.available
            for at in range(0, self.prefix, 1 << 20):
                for part in arrival.take(at, min(at + (1 << 20), self.prefix)):
                    self._add(bytes(part))
            for data in read_blob(source, arrival.digest, self.prefix, origins, stopped):
                self._counts.bytes_from_origin += len(data)
                self._add(data)
            return self.finish(f"{source.host}/{source.repository}")

    def add_leaves(self, cids: Sequence[Cid]) -> None:
        """In a worker thread: these leaves are in the store, and come next."""
        for block in get_blocks(self._store.blocks, cids):
            self._counts.bytes_from_peers += len(block)
            self._add(bytes(block))

    def finish(self, who: str) -> BlobRecord:
        """In a worker thread: the record, its blocks in the store. Raises `HashMismatch` that names `who` sent it."""
        if self._length != self._arrival.size:
            raise RemoteProtocolError(
                f"{who} gave {self._length} of the {self._arrival.size} bytes of {self._arrival.digest}",
                subject=self._arrival.digest,
            )
        blocks = self._importer.finish()
        self._hold.put_many(blocks)
        found = "sha256:" + self._digester.hexdigest()
        if found != self._arrival.digest:
            raise HashMismatch(
                f"{who} gave {self._length} bytes with digest {found} for {self._arrival.digest}",
                subject=self._arrival.digest,
            )
        for block in blocks:
            if codec_of(block.cid) == RAW:
                self._publish(self._count, bytes(block.cid[-32:]))
        now = time.time_ns()
        root = self._importer.root.cid
        return BlobRecord(self._arrival.digest, self._length, root, self._profile.name, now, now, verified=True)

    def close(self) -> None:
        """Let go of what was stored so far."""
        self._hold.close()

    def _add(self, data: bytes) -> None:
        self._digester.update(data)
        self._length += len(data)
        if self._length > self._arrival.size:
            raise HashMismatch(f"more than {self._arrival.size} bytes came for {self._arrival.digest}")
        blocks = self._importer.feed(data)
        self._hold.put_many(blocks)
        for block in blocks:
            if codec_of(block.cid) != RAW:
                continue
            span = Span(self._leaves, len(block.data), block.cid)
            self._publish(self._count, bytes(block.cid[-32:]))
            self._count += 1
            self._leaves += span.length
            # What follows on the part that readers may see is shown, one leaf late: the last must wait for the digest.
            shown, self._held_back = self._held_back, [span]
            self._arrival.extend([held for held in shown if held.start == self._arrival.available])


async def _in_time(work: Awaitable[T], subject: str) -> T:
    with trio.move_on_after(STALL):
        return await work
    raise DeadlineExceeded(f"no peer sent more of {subject} for {STALL:g} s", subject=subject)
