"""Adoption: a blob that containerd asks for, and that a peer holds, is shown to containerd without a byte from the
registry.

containerd asks `Info(digest)` inside a write transaction of its database, so the answer has a hard time limit. With
the right size in the answer it commits the blob, and reads the bytes from us when it unpacks. What may be answered:

- A blob that is whole here (cache): at once.
- A manifest or config, or whatever is small and of unknown kind: after it was fetched and its sha256 checked, since
  containerd checks neither.
- A layer: as a promise, while it is being fetched. A broken promise poisons the image (containerd believes for ever
  that the blob is there), so none is given without a way back to the registry; and when that fails, too, the blob is
  taken out of containerd's metadata, so that the next pull asks again.
"""

from __future__ import annotations

import enum
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVarTuple, Unpack

import trio

from ..cid import Cid, PeerId, format_cid
from ..errors import (
    DeadlineExceeded,
    HashMismatch,
    IpcsError,
    LimitExceeded,
    MalformedBlock,
    NotFound,
    RemoteProtocolError,
)
from ..net.host import Host
from ..routing.messages import Record
from ..routing.router import Router
from ..store.blobs import BlobRecord
from ..store.store import Store
from .arrival import Arrival, WaitingRoom
from .containerd import ContainerdAPI
from .fetching import Fetcher
from .manifest import MAX_MANIFEST, Child, Kind, children_of
from .origin import Source
from .reader import BlobReader
from .records import Promise
from .statistics import AdoptionStatistics
from .store import ContentStore
from .waysback import WaysBack

Args = TypeVarTuple("Args")

log = logging.getLogger(__name__)

INFO_BUDGET = 0.2
"""Seconds that an Info may take in all: containerd's database stands still meanwhile."""

ANSWER_TIME = 0.02
"""Seconds of it that are left for writing a promise down and saying so."""

FETCH_LIMIT = 30.0
"""Seconds for a manifest or config that missed the budget; it becomes cache, and the next Info finds it."""

CHILDREN_BUDGET = 1.0
"""Seconds for resolving the children of a manifest, which nobody waits for."""

PATIENCE = 5.0
"""Seconds that a promise which nobody claims waits for somebody who does before it turns to the registry."""

TAKEOVER_BUDGET = 2.0
"""Seconds in which peers say who goes on when a leader failed: all are busy, no Info waits, and a peer that was not
heard is one that takes the whole from the registry, too.
"""

ROUNDS = 10
"""Times that peers are looked for before that; each who failed once is not tried again."""

FORGET_LIMIT = 5.0
"""Seconds that containerd gets to forget a broken promise, while its readers wait for the bad news."""

WANTED_FOR = 10.0
"""Seconds after its manifest was seen in which a layer counts as about to be pulled."""

MAX_CHILDREN_KNOWN = 65_536
"""Descriptors remembered from manifests: 10 MB; forgetting one costs an adoption."""


class Mode(enum.Enum):
    """`--adopt`."""

    OFF = "off"
    """containerd sees only what it wrote."""
    LOCAL = "local"
    """And blobs that are whole in this node's store already."""
    SWARM = "swarm"
    """And blobs that connected peers hold."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A descriptor, and the manifest it was found in."""

    child: Child
    parent: str
    seen_at: float


class Adoption:
    """Adopts from peers. `info` and what it starts run in trio; the methods marked so are for server threads."""

    def __init__(
        self,
        content: ContentStore,
        store: Store,
        host: Host,
        router: Router,
        fetcher: Fetcher,
        api: ContainerdAPI | None,
        ways: WaysBack,
        counts: AdoptionStatistics,
        nursery: trio.Nursery,
    ) -> None:
        self._content = content
        self._store = store
        self._host = host
        self._router = router
        self._fetcher = fetcher
        self._api = api
        self._ways = ways
        self._counts = counts
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._room = WaitingRoom()
        self._arrivals: dict[str, Arrival] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._seeking: dict[str, trio.Event] = {}
        self._known: OrderedDict[str, _Known] = OrderedDict()

    # ---- from server threads

    def arriving(self, digest: str) -> Arrival | None:
        """From any thread: the arrival of a promised blob, None when reads may go to the whole blob, or nowhere."""
        arrival = self._arrivals.get(digest)
        return None if arrival is None or (arrival.is_whole and not arrival.is_tainted) else arrival

    def manifest_seen(self, digest: str, data: bytes) -> None:
        """From any thread: `data` is the verified blob `digest`; if it is a manifest, resolve its children early."""
        found = children_of(data)
        if found:
            self._token.run_sync_soon(self._learn_children, digest, found)

    def wanted(self, digests: Sequence[str]) -> list[str]:
        """Those of `digests` that are children of a manifest seen here a moment ago, and not whole here."""
        since = trio.current_time() - WANTED_FOR
        known = [digest for digest in digests if digest in self._known and self._known[digest].seen_at > since]
        return [digest for digest in known if self._store.blobs.get(digest) is None]

    def deleted(self, digest: str) -> None:
        """From any thread: containerd needs it no longer, so a promise of it need not be kept."""
        self._token.run_sync_soon(self._cancel, digest)

    # ---- asking

    async def seek(self, digest: str) -> None:
        """Look for `digest` among peers, for at most `INFO_BUDGET` seconds. What was found is in the content store or
        the blob table afterwards. Each digest is sought once at a time.
        """
        done = self._seeking.get(digest)
        if done is None:
            done = self._seeking[digest] = trio.Event()
            self._start(f"looking for {digest}", self._seek, digest, done)
        with trio.move_on_after(INFO_BUDGET):
            await done.wait()

    async def _seek(self, digest: str, done: trio.Event) -> None:
        deadline = trio.current_time() + INFO_BUDGET
        try:
            with trio.move_on_after(FETCH_LIMIT):
                await self._adopt(digest, deadline)
        except IpcsError as exc:
            log.info("not adopted: %s: %s", digest, exc)
        finally:
            del self._seeking[digest]
            done.set()

    async def _adopt(self, digest: str, deadline: float) -> None:
        known = self._known.get(digest)
        child = known.child if known else None
        if known is not None and known.child.kind is Kind.LAYER:
            self._ways.begin(known.parent)
        claims = await self._claims(digest, child.size if child else None, INFO_BUDGET)
        if not claims:
            if known is not None and known.child.kind is Kind.LAYER:
                await self._follow_or_lead(known, deadline)
            return
        size = next(iter(claims.values())).size
        if known is not None and known.child.kind is Kind.LAYER:
            sources = await self._ways.usable(known.parent, deadline - ANSWER_TIME, alone=False)
            if sources:
                if trio.current_time() < deadline:  # else containerd was told "no" and takes it from the registry
                    await self._promise(digest, size, sources, claims)
                return
        if size <= MAX_MANIFEST:
            arrival = Arrival(digest, size, self._store.blocks, self._room)
            record = await self._from_peers(arrival, claims, show=False)
            await trio.to_thread.run_sync(self._keep, record)

    async def _follow_or_lead(self, known: _Known, deadline: float) -> None:
        """Nobody has the layer, but others may want it at this moment, too: one takes it, the rest follow."""
        if self._api is None:
            return
        digest = known.child.digest
        leader = await self._router.leader(digest, max(0.0, deadline - ANSWER_TIME - trio.current_time()))
        sources = await self._ways.usable(known.parent, deadline - ANSWER_TIME, alone=True)
        if sources and leader != self._host.peer_id and trio.current_time() < deadline:
            await self._promise(digest, known.child.size, sources, {})
        else:
            self._router.feeds.lead(digest)

    async def _claims(
        self, digest: str, size: int | None, budget: float, without: Collection[PeerId] = ()
    ) -> Mapping[PeerId, Record]:
        """Who claims the blob, with the size that its descriptor (or else the first claim) says."""
        resolved = (await self._router.resolve([digest], budget)).get(digest, {})
        claims = {peer: record for peer, record in resolved.items() if peer not in without}
        wanted = next((record.size for record in claims.values()), 0) if size is None else size
        return {peer: record for peer, record in claims.items() if record.size == wanted}

    # ---- promises

    async def _promise(
        self, digest: str, size: int, sources: Sequence[Source], claims: Mapping[PeerId, Record]
    ) -> None:
        promise = Promise(digest, size, tuple((source.host, source.repository) for source in sources))
        arrival = self._arrivals[digest] = Arrival(digest, size, self._store.blocks, self._room)
        await trio.to_thread.run_sync(self._content.promise, promise)
        self._counts.promises_made += 1
        self._nursery.start_soon(self._keep_promise, promise, arrival, claims)

    def resume(self) -> None:
        """Go on with the promises that an earlier process left."""
        for promise in list(self._content.promises):
            arrival = self._arrivals[promise.digest] = Arrival(
                promise.digest, promise.size, self._store.blocks, self._room
            )
            self._counts.promises_made += 1
            self._nursery.start_soon(self._keep_promise, promise, arrival, {})

    async def _keep_promise(self, promise: Promise, arrival: Arrival, claims: Mapping[PeerId, Record]) -> None:
        began = trio.current_time()
        scope = self._scopes[promise.digest] = trio.CancelScope()
        try:
            with scope:
                record = await self._bring(promise, arrival, claims)
                arrival.finish(await trio.to_thread.run_sync(self._commit, record))
                self._counts.promises_kept += 1
                self._counts.adopted += 1
                log.info("adopted %s: %d bytes in %.2f s", promise.digest, promise.size, trio.current_time() - began)
        except IpcsError as exc:
            await self._break(promise, arrival, exc.message)
        except Exception as exc:  # a bug in one adoption must neither end the node nor leave a promise
            log.exception("adopting %s failed in a way that nobody foresaw", promise.digest)
            await self._break(promise, arrival, f"internal error {type(exc).__name__}: {exc}")
        finally:
            if scope.cancel_called:  # deleted by containerd, or the node stops
                arrival.fail(NotFound(f"content {promise.digest}: not found", subject=promise.digest))
            self._router.feeds.over(promise.digest, whole=False)  # when it is whole, that was said at its commit
            # Somebody may hold wrong bytes of one that is tainted, and would take the whole blob's for the rest.
            is_needed = arrival.is_whole and arrival.is_tainted
            if self._arrivals.get(promise.digest) is arrival and not is_needed:
                del self._arrivals[promise.digest]
            if self._scopes.get(promise.digest) is scope:  # else it was promised anew meanwhile
                del self._scopes[promise.digest]

    async def _bring(self, promise: Promise, arrival: Arrival, claims: Mapping[PeerId, Record]) -> BlobRecord:
        """The whole blob, from whoever has it. Raises the last error when nobody does."""
        failure: IpcsError = NotFound(f"no peer claims {promise.digest}", subject=promise.digest)
        failed: set[PeerId] = set()
        for _ in range(ROUNDS):
            source: Collection[PeerId] = claims
            try:
                if claims:
                    return await self._from_peers(arrival, claims, show=True)
                leader = await self._router.leader(promise.digest, TAKEOVER_BUDGET, failed)
                if leader == self._host.peer_id:
                    if failed:
                        break  # it is on this node to take the blob from the registry
                    await trio.sleep(PATIENCE / ROUNDS)
                else:
                    source = [leader]
                    return await self._fetcher.from_leader(arrival, leader)
            except (DeadlineExceeded, HashMismatch, NotFound, RemoteProtocolError) as exc:
                failure = exc
                failed.update(source)
                if isinstance(exc, HashMismatch):
                    arrival.start_over()
            claims = await self._claims(promise.digest, promise.size, INFO_BUDGET, failed)
        self._router.feeds.lead(promise.digest)
        for host, repository in promise.sources:
            log.info("%s: %s; taking it from %s", promise.digest, failure.message, host)
            try:
                return await self._fetcher.from_origin(arrival, Source(host, repository))
            except IpcsError as exc:
                failure = exc
        raise failure

    async def _from_peers(self, arrival: Arrival, claims: Mapping[PeerId, Record], *, show: bool) -> BlobRecord:
        """Try the claimed roots, the one with most peers first; who claimed one that was wrong is banned."""
        roots: dict[Cid, list[PeerId]] = {}
        for peer, record in claims.items():
            roots.setdefault(record.root, []).append(peer)
        failure: IpcsError = NotFound(f"no peer claims {arrival.digest}", subject=arrival.digest)
        for root, peers in sorted(roots.items(), key=lambda item: -len(item[1])):
            profile = claims[peers[0]].profile
            try:
                # Claims that differ: one of them is a lie, so nothing is shown before it is verified.
                return await self._fetcher.from_peers(arrival, root, profile, peers, show=show and len(roots) == 1)
            except (HashMismatch, MalformedBlock, LimitExceeded) as exc:
                failure = HashMismatch(exc.message, subject=arrival.digest)
                arrival.start_over()
                for peer in peers:
                    self.lied(peer, arrival.digest, root)
        raise failure

    def lied(self, peer: PeerId, digest: str, root: Cid) -> None:
        """`peer` claimed `root` for `digest`, which cannot be: nothing more of it."""
        self._router.table.withdrawn(peer, [digest])
        log.warning("%s claimed %s for %s, which is a lie", peer, format_cid(root), digest)
        self._start(f"banning {peer}", self._fetcher.ban, peer, f"claimed a wrong DAG for {digest}")

    async def _break(self, promise: Promise, arrival: Arrival, why: str) -> None:
        """Nobody has it: have containerd forget it, then say so to who reads it, for that may pull again at once."""
        digest = promise.digest
        self._counts.promises_broken += 1
        log.error("promise of %s broken: %s", digest, why)
        advice = "it was taken out of containerd's metadata, pull again"
        try:
            with trio.fail_after(FORGET_LIMIT):
                await trio.to_thread.run_sync(self._forget, digest, abandon_on_cancel=True)  # type: ignore[call-arg]
        except Exception as exc:  # noqa: BLE001 - the last thing done for this promise; nothing else must suffer
            advice = f"it stays in containerd's metadata ({exc}): run `ctr content rm {digest}` and pull again"
            log.error("%s: %s", digest, advice)
        arrival.fail(
            NotFound(
                f"content {digest} was promised by peers that are gone, and its registry did not give it either "
                f"({why}); {advice}",
                subject=digest,
            )
        )

    def _forget(self, digest: str) -> None:
        self._content.delete(digest)
        if self._api is not None:
            self._api.forget(digest)

    # ---- small things

    def _start(self, what: str, work: Callable[[Unpack[Args]], Awaitable[object]], *args: *Args) -> None:
        """Run `work` beside the caller. Its failure ends nothing else: all that hangs on it is one adoption."""

        async def run() -> None:
            try:
                await work(*args)
            except Exception:  # a bug here costs one adoption, not the node
                log.exception("%s failed in a way that nobody foresaw", what)

        self._nursery.start_soon(run)

    def _commit(self, record: BlobRecord) -> BlobReader:
        self._content.commit(record, {})
        return self._content.reader(record.digest)

    def _keep(self, record: BlobRecord) -> None:
        """A verified blob that was not promised: cache, which the caller may show."""
        if self._store.blobs.get(record.digest) is None:
            self._store.commit_blob(record)

    def _learn_children(self, parent: str, found: Sequence[Child]) -> None:
        now = trio.current_time()
        for child in found:
            self._known[child.digest] = _Known(child, parent, now)
            self._known.move_to_end(child.digest)
        while len(self._known) > MAX_CHILDREN_KNOWN:
            self._known.popitem(last=False)
        digests = [child.digest for child in found]
        self._start(f"looking for what {parent} names", self._router.resolve, digests, CHILDREN_BUDGET)

    def _cancel(self, digest: str) -> None:
        scope = self._scopes.get(digest)
        if scope is not None:
            scope.cancel()
        else:
            self._arrivals.pop(digest, None)
