"""The trio shell of routing: asks peers, answers them, announces what is verified here, and grows the mesh."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from math import inf
from typing import Protocol, TypeVar

import trio

from ..cid import PeerId
from ..errors import IpcsError, RemoteProtocolError
from ..net.interface import Handler, PeerStatus, Stream, Watcher
from . import messages
from .feed import LEAD_WAIT, Feeds, ranking
from .mesh import Mesh, shared_addresses
from .messages import (
    MAX_ENTRIES,
    MAX_LEAVES,
    PROTOCOL,
    Addresses,
    Announce,
    Follow,
    Leaves,
    Message,
    Peers,
    Pulling,
    Pulls,
    Record,
    Records,
    Resolve,
    Whole,
    Withdraw,
)
from .streams import MessageReader, no_answer, read_message
from .table import Table

T = TypeVar("T")

log = logging.getLogger(__name__)

STREAM_TIMEOUT = 10.0
"""Seconds that one exchange of messages may take in all; a peer that needs longer is of no use for routing."""

SETTLE = 0.01
"""Seconds that a found blob waits for other peers' answers: claims that differ must be known before bytes are shown."""

ANNOUNCE_DELAY = 0.02
"""Seconds in which announcements are gathered into one message: an image's blobs are verified close together."""

REFRESH = 60.0
"""Seconds between two looks at the peers of a peer."""

STREAMS_PER_PEER = 16
"""Requests of one peer that are served at once."""

DIALS_AT_ONCE = 8


class Network(Protocol):
    """What the router asks of a host (`ipcs.net.host.Host`)."""

    @property
    def peer_id(self) -> PeerId: ...
    def peers(self) -> list[PeerStatus]: ...
    def is_connected(self, peer: PeerId) -> bool: ...
    async def connect(self, address: str) -> PeerId: ...
    async def wait_identified(self, peer: PeerId) -> PeerStatus: ...
    async def open_duplex(self, peer: PeerId, protocols: Sequence[str]) -> Stream: ...
    def set_handler(self, protocol: str, handler: Handler) -> None: ...
    def watch(self, watcher: Watcher) -> None: ...
    def unwatch(self, watcher: Watcher) -> None: ...


Held = Callable[[Sequence[str]], list[Record]]
"""The records of those digests whose blobs are whole and verified here. Quick: it runs in the trio thread."""

Wanted = Callable[[Sequence[str]], list[str]]
"""Those of some digests that this node is about to pull. Quick, too."""

Lied = Callable[[PeerId, Record], None]
"""Told of a record that contradicts itself, and of who sent it."""

Claims = Mapping[PeerId, Record]


@asynccontextmanager
async def open_router(
    network: Network, held: Held, wanted: Wanted = lambda _: [], lied: Lied = lambda _peer, _record: None
) -> AsyncIterator[Router]:
    """Routing over `network` as long as the block runs."""
    async with trio.open_nursery() as nursery:
        router = Router(network, held, wanted, lied, nursery)
        network.set_handler(PROTOCOL, router.serve)
        network.watch(router)
        try:
            for status in network.peers():
                router.connected(status.peer)
            nursery.start_soon(router.announcing)
            yield router
        finally:
            network.unwatch(router)
            nursery.cancel_scope.cancel()


class Router:
    """Made by `open_router`. Called from the trio thread."""

    def __init__(self, network: Network, held: Held, wanted: Wanted, lied: Lied, nursery: trio.Nursery) -> None:
        self.table = Table()
        self.feeds = Feeds()
        self._wanted = wanted
        self._lied = lied
        self._network = network
        self._held = held
        self._nursery = nursery
        self._mesh = Mesh(network.peer_id)
        self._dials = trio.CapacityLimiter(DIALS_AT_ONCE)
        self._asking: dict[str, trio.Event] = {}
        self._serving: dict[PeerId, int] = {}
        self._announced: dict[str, Record | None] = {}
        self._wake = trio.Event()

    # ---- asking

    async def resolve(self, digests: Sequence[str], budget: float) -> dict[str, Claims]:
        """What connected peers claim of `digests`, those that nobody claims left out. Takes at most `budget` seconds.

        Each digest is asked for once at a time, and not at all while a claim or a recent refusal is known.
        """
        with trio.move_on_after(budget):
            await self._ask_for_unknown(digests)
        found = {digest: self.table.claims(digest) for digest in digests}
        return {digest: claims for digest, claims in found.items() if claims}

    async def _ask_for_unknown(self, digests: Sequence[str]) -> None:
        now = trio.current_time()
        others: list[trio.Event] = []
        mine: list[str] = []
        for digest in dict.fromkeys(digests):
            if digest in self._asking:
                others.append(self._asking[digest])
            elif not self.table.claims(digest) and not self.table.is_absent(digest, now):
                mine.append(digest)
        for digest in mine:
            self._asking[digest] = trio.Event()
        try:
            for at in range(0, len(mine), MAX_ENTRIES):
                await self._ask_everybody(mine[at : at + MAX_ENTRIES])
        finally:
            for digest in mine:
                self._asking.pop(digest).set()
        for event in others:
            await event.wait()

    async def _ask_everybody(self, digests: Sequence[str]) -> None:
        peers = self._speakers()
        answered: set[PeerId] = set()
        try:
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(self._ask, peer, digests, answered, nursery)
        finally:
            self.table.missed(digests, trio.current_time(), complete=len(answered) == len(peers))

    async def _ask(self, peer: PeerId, digests: Sequence[str], answered: set[PeerId], nursery: trio.Nursery) -> None:
        answer = await self._request(peer, Resolve(digests))
        if not isinstance(answer, Records):
            return
        wanted = set(digests)
        self._claimed(peer, [record for record in answer.records if record.digest in wanted])
        answered.add(peer)
        if all(self.table.claims(digest) for digest in digests):
            nursery.cancel_scope.deadline = trio.current_time() + SETTLE

    def _claimed(self, peer: PeerId, records: Sequence[Record]) -> None:
        lie = next((record for record in records if record.contradicts_itself()), None)
        if lie is not None:
            self._lied(peer, lie)
        else:
            self.table.claimed(peer, records)

    # ---- simultaneous pulls

    async def leader(self, digest: str, budget: float, without: Collection[PeerId] = ()) -> PeerId:
        """Who should take `digest` from its registry: this node or a peer when it does, else the first in rendezvous
        order of those that are about to pull it; this node when nobody else is. `without` those that failed at it
        before. Takes at most `budget` seconds.
        """
        if self.feeds.leads(digest):
            return self._network.peer_id
        leading: list[PeerId] = []
        wanting = [self._network.peer_id]

        async def ask(peer: PeerId) -> None:
            answer = await self._request(peer, Pulling([digest]))
            if isinstance(answer, Pulls):
                leading.extend([peer] if digest in answer.leading else [])
                wanting.extend([peer] if digest in answer.wanting else [])

        with trio.move_on_after(budget):
            async with trio.open_nursery() as nursery:
                for peer in self._speakers():
                    if peer not in without:
                        nursery.start_soon(ask, peer)
        return ranking(digest, leading or wanting)[0]

    async def follow(self, peer: PeerId, digest: str, stall: float) -> AsyncGenerator[list[bytes], None]:
        """Leaves of `digest` as `peer` gets them. Ends when the blob is whole there.

        Raises `RemoteProtocolError` when it comes to nothing, or nothing comes for `stall` seconds (a little over
        `LEAD_WAIT` at first).
        """
        stream = await self._network.open_duplex(peer, [PROTOCOL])
        patience = LEAD_WAIT + 0.5
        try:
            await stream.write([messages.encode(Follow([digest]))])
            reader = MessageReader(stream)
            while True:
                message: Message | None = None
                with trio.move_on_after(patience):
                    message = await reader.read()
                match message:
                    case Leaves(leaves):
                        yield list(leaves)
                    case Whole():
                        return
                    case _:
                        raise RemoteProtocolError(f"{peer} no longer brings {digest}", subject=peer)
                patience = stall
        finally:
            stream.reset()

    async def _feed(self, stream: Stream, digest: str) -> None:
        """Serve a follower."""
        with trio.move_on_after(LEAD_WAIT):
            await self.feeds.wait_begun(digest)  # its manifest was just seen here, too: the first byte is near
        async with aclosing(self.feeds.follow(digest)) as feed:
            async for leaves in feed:
                for at in range(0, len(leaves), MAX_LEAVES):
                    await stream.write([messages.encode(Leaves(leaves[at : at + MAX_LEAVES]))])
                if not leaves:
                    await stream.write([messages.encode(Whole())])

    # ---- announcing

    def announce(self, records: Sequence[Record]) -> None:
        """These blobs are whole here and their sha256 was checked: tell everybody."""
        self._announced.update({record.digest: record for record in records})
        self._wake.set()

    def withdraw(self, digests: Sequence[str]) -> None:
        """These blobs are about to be collected."""
        self._announced.update(dict.fromkeys(digests))
        self._wake.set()

    async def announcing(self) -> None:
        """Send what was announced and withdrawn, gathered. Runs for ever."""
        while True:
            await self._wake.wait()
            await trio.sleep(ANNOUNCE_DELAY)
            self._wake = trio.Event()
            changes, self._announced = self._announced, {}
            records = [record for record in changes.values() if record is not None]
            gone = [digest for digest, record in changes.items() if record is None]
            told: list[Message] = [Announce(part) for part in _slices(records)]
            told += [Withdraw(part) for part in _slices(gone)]
            async with trio.open_nursery() as nursery:
                for peer in self._speakers():
                    nursery.start_soon(self._tell, peer, told)

    async def _tell(self, peer: PeerId, told: Sequence[Message]) -> None:
        for message in told:
            await self._exchange(peer, message, no_answer)

    # ---- answering

    async def serve(self, stream: Stream) -> None:
        """One inbound stream: a request and its answer."""
        peer = stream.peer
        if self._serving.get(peer, 0) >= STREAMS_PER_PEER:
            raise RemoteProtocolError(f"{peer} has {STREAMS_PER_PEER} routing requests open already", subject=peer)
        self._serving[peer] = self._serving.get(peer, 0) + 1
        try:
            with trio.move_on_after(STREAM_TIMEOUT) as limit:
                message = await read_message(stream)
                if isinstance(message, Follow):
                    limit.deadline = inf
                    await self._feed(stream, message.digests[0] if message.digests else "")
                else:
                    answer = self._answer(peer, message)
                    if answer is not None:
                        await stream.write([messages.encode(answer)])
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    def _answer(self, peer: PeerId, message: Message) -> Message | None:
        match message:
            case Resolve(digests):
                return Records(self._held(digests))
            case Announce(records):
                self._claimed(peer, records)
            case Withdraw(digests):
                self.table.withdrawn(peer, digests)
            case Pulling(digests):
                return Pulls([digest for digest in digests if self.feeds.leads(digest)], self._wanted(digests))
            case Peers():
                known = [(status.peer, status.listen_addresses) for status in self._network.peers()]
                return Addresses(shared_addresses(known, peer))
            case _:
                raise RemoteProtocolError(f"{peer} sent an answer where a request belongs", subject=peer)
        return None

    # ---- connections

    def connected(self, peer: PeerId) -> None:
        """Host's call: a peer came."""
        self.table.connected()
        self._nursery.start_soon(self._learn_peers, peer)

    def disconnected(self, peer: PeerId) -> None:
        """Host's call: a peer is gone."""
        self.table.disconnected(peer)

    async def _learn_peers(self, peer: PeerId) -> None:
        """Ask a peer for its peers now and then, as long as it is connected, and dial those that are new."""
        try:
            await self._network.wait_identified(peer)
        except IpcsError:
            return
        while peer in self._speakers():
            answer = await self._request(peer, Peers())
            if isinstance(answer, Addresses):
                connected = [status.peer for status in self._network.peers()]
                for address in self._mesh.to_dial(answer.addresses, connected, trio.current_time()):
                    self._nursery.start_soon(self._dial, address)
            await trio.sleep(REFRESH)

    async def _dial(self, address: str) -> None:
        try:
            async with self._dials:
                await self._network.connect(address)
        except IpcsError as exc:
            log.info("mesh: %s", exc)

    # ---- streams

    def _speakers(self) -> list[PeerId]:
        """Connected peers that speak this protocol, or have not said yet what they speak."""
        return [s.peer for s in self._network.peers() if not s.protocols or PROTOCOL in s.protocols]

    async def _request(self, peer: PeerId, message: Message) -> Message | None:
        """The answer of `peer`, None when it gives none; that is for nobody to repair."""
        return await self._exchange(peer, message, read_message)

    async def _exchange(
        self, peer: PeerId, message: Message, then: Callable[[Stream], Awaitable[Message | None]]
    ) -> Message | None:
        stream: Stream | None = None
        try:
            with trio.move_on_after(STREAM_TIMEOUT):
                stream = await self._network.open_duplex(peer, [PROTOCOL])
                await stream.write([messages.encode(message)])
                answer = await then(stream)
                await stream.aclose()
                stream = None
                return answer
        except IpcsError as exc:
            log.debug("routing with %s: %s", peer, exc)
        finally:
            if stream is not None:
                stream.reset()
        return None


def _slices(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[at : at + MAX_ENTRIES] for at in range(0, len(items), MAX_ENTRIES)]
