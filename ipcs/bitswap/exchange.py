"""The trio shell around the engine: one task owns it, and everything else posts events to that task.

`Exchange` meets `network.Inbound`, and its sessions meet `blockservice.BlockSource`. Blocks take this way: pushed
chunk -> decoder -> hash -> engine -> stored batch (worker thread) -> engine -> waiting session, which reads
them from the store. Only `unstored` bytes are in memory, bounded by `Config.max_unstored`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Protocol, TypeVar

import trio

from ..block import Block, Data
from ..cid import Cid, PeerId, multihash_of
from ..errors import IpcsError, StoreCorrupt
from ..store.blockstore import Blockstore
from .conduct import Ban
from .engine import Engine
from .events import (
    Action,
    BlocksRead,
    BlocksStored,
    DeliverBlocks,
    Disconnect,
    Event,
    FindProviders,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    ProvidersFound,
    ReadBlocks,
    Reading,
    SendMessage,
    SessionClosed,
    SessionOpened,
    StoreBlocks,
    StoreFailed,
    TimePassed,
)
from .inbound import InboundStream, hashed
from .limits import Config
from .message import Message
from .network import Network, StreamSink
from .peer import Peer
from .session_source import SessionSource
from .statistics import ExchangeStatistics

T = TypeVar("T")


class RunSync(Protocol):
    """Runs blocking work, in a thread or not."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The result of `work`, or what it raised."""
        ...


async def run_in_thread(work: Callable[[], T]) -> T:
    """In a worker thread of trio's."""
    return await trio.to_thread.run_sync(work)


FindProvidersFn = Callable[[Cid], Awaitable[Sequence[PeerId]]]
"""Asks routing who holds a DAG, and connects to them: root CID -> connected peers."""

_STORE_BATCH = 8 * 1024 * 1024
"""Bytes given to the store in one call: one write batch, one thread hop."""


class Exchange:
    """The exchange of one node. Made by `open_exchange`."""

    def __init__(
        self,
        network: Network,
        store: Blockstore,
        config: Config,
        nursery: trio.Nursery,
        find_providers: FindProvidersFn | None,
        seed: int | None,
        run_sync: RunSync,
    ) -> None:
        self._network = network
        self._store = store
        self._config = config
        self._nursery = nursery
        self._engine = Engine(config, Random(seed))
        self._find_providers = find_providers
        self._peers: dict[PeerId, Peer] = {}
        self._streams: dict[PeerId, int] = {}
        self._sessions: dict[int, SessionSource] = {}
        self._session_count = 0
        self._inbox: list[Event] = []
        self._wake = trio.Event()
        self._run_sync = run_sync
        self._unstored = 0
        self._waiting_readers = 0
        self._store_queue: deque[Block] = deque()
        self._store_wake = trio.Event()
        self._drained = trio.Event()
        self.loops = (self._run_store, self._run_engine)

    # -- for callers ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(
        self, root: Cid, peers_hint: Sequence[PeerId] = (), *, block_estimate: int = 0
    ) -> AsyncIterator[SessionSource]:
        """A `BlockSource` for the DAG under `root`: the store first, then peers.

        Leaving it cancels what is still wanted.
        `peers_hint`: connected peers said to hold all of it. `block_estimate`: size of its leaves in bytes, when known.
        """
        self._session_count += 1
        number = self._session_count
        source = SessionSource(number, root, self._store, self._engine, self._post)
        self._sessions[number] = source
        self._post(SessionOpened(number, root, tuple(peers_hint), block_estimate))
        try:
            yield source
        finally:
            del self._sessions[number]
            self._post(SessionClosed(number))

    def notify_stored(self, cids: Sequence[Cid]) -> None:
        """Blocks were put into the store by somebody else: peers and sessions may be waiting for them."""
        if not self._engine.waits:
            return  # a want that is still in the inbox is checked against the store when its turn comes
        sizes = self._store.size_many([multihash_of(cid) for cid in cids])
        self._post(BlocksStored([(cid, size) for cid, size in zip(cids, sizes, strict=True) if size is not None]))

    def statistics(self) -> ExchangeStatistics:
        """Totals, and counters and state of each connected peer."""
        return self._engine.statistics()

    def bans(self) -> list[Ban]:
        """Peers that are refused now; `Ban.until` is on the clock of `trio.current_time`."""
        return self._engine.conduct.bans(trio.current_time())

    async def ban(self, peer: PeerId, reason: str) -> None:
        """Refuse `peer` from now on: a caller found it lying in a way that no block shows (a DAG that is not what it
        was said to be).
        """
        self._engine.conduct.ban(peer, reason, trio.current_time())
        await self._network.disconnect(peer, reason)

    def lift_ban(self, peer: PeerId) -> bool:
        """Accept `peer` again; False when it was not banned."""
        return self._engine.conduct.lift(peer)

    # -- network.Inbound -----------------------------------------------------------------------------------------------

    def connected(self, peer: PeerId) -> None:
        """A peer came."""
        if peer not in self._peers:
            self._start(peer)

    def _start(self, peer: PeerId) -> None:
        self._peers[peer] = handler = Peer(peer, self._network, self._post)
        self._nursery.start_soon(handler.run, handler.open_outboxes())
        self._post(PeerConnected(peer))

    def disconnected(self, peer: PeerId) -> None:
        """A peer went."""
        handler = self._peers.pop(peer, None)
        if handler is not None:
            handler.close()
        self._post(PeerDisconnected(peer))

    def accept(self, peer: PeerId, protocol: str) -> StreamSink | None:  # noqa: ARG002 - the form is in the bytes
        """A stream of `peer`; None when it has too many."""
        count = self._streams.get(peer, 0)
        if count >= self._config.max_streams_per_peer:
            return None
        self._streams[peer] = count + 1
        if peer in self._peers and self._peers[peer].given_up:
            self._start(peer)  # it speaks Bitswap after all
        return InboundStream(lambda message: self._received(peer, message), lambda: self._stream_ended(peer))

    async def flush(self, peer: PeerId) -> None:  # noqa: ARG002 - the bound is on all peers together
        """Wait until what arrived and is not stored is within bounds."""
        if self._unstored <= self._config.max_unstored:
            return
        self._waiting_readers += 1
        if self._waiting_readers == 1:
            self._post(Reading(paused=True))
        try:
            while self._unstored > self._config.max_unstored:
                await self._drained.wait()
        finally:
            self._waiting_readers -= 1
            if not self._waiting_readers:
                self._post(Reading(paused=False))

    def _stream_ended(self, peer: PeerId) -> None:
        self._streams[peer] -= 1
        if not self._streams[peer]:
            del self._streams[peer]

    def _received(self, peer: PeerId, message: Message) -> None:
        if message.blocks and not self._engine.expects(peer):
            size = sum(len(block.data) for block in message.blocks)
            self._post(_event(peer, message, [], len(message.blocks), size))
            return
        blocks, refused, refused_bytes = hashed(message.blocks)
        self._unstored += sum(len(block.data) for block in blocks)
        self._post(_event(peer, message, blocks, refused, refused_bytes))

    # -- the owner of the engine ---------------------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake.set()

    async def _run_engine(self) -> None:
        while True:
            with trio.move_on_at(self._engine.next_deadline()):
                await self._wake.wait()
            self._wake = trio.Event()
            now = trio.current_time()
            if self._engine.next_deadline() <= now:
                self._inbox.append(TimePassed())
            while self._inbox:
                events, self._inbox = self._inbox, []
                for index, event in enumerate(events):
                    if isinstance(event, MessageReceived):
                        events[index] = self._with_sizes(event)
                for action in self._engine.handle_all(events, now):
                    self._perform(action)

    def _with_sizes(self, event: MessageReceived) -> MessageReceived:
        """The store's word on what the peer wants, taken in the same step as the engine's decision."""
        if event.blocks:
            self._unstored -= sum(len(block.data) for block in event.blocks)
        if not event.entries:
            return event
        sizes = iter(self._store.size_many([multihash_of(entry.cid) for entry in event.entries if not entry.cancel]))
        return replace(event, sizes=[None if entry.cancel else next(sizes) for entry in event.entries])

    def _perform(self, action: Action) -> None:
        match action:
            case SendMessage():
                if action.peer in self._peers:
                    self._peers[action.peer].send(action.lane, action.message)
            case ReadBlocks():
                self._inbox.append(BlocksRead(action.peer, self._read(action.cids)))
            case StoreBlocks():
                self._unstored += sum(len(block.data) for block in action.blocks)
                self._store_queue += action.blocks
                self._store_wake.set()
            case DeliverBlocks():
                if action.session in self._sessions:
                    self._sessions[action.session].deliver(action.cids)
            case FindProviders():
                if self._find_providers is not None and action.session in self._sessions:
                    self._nursery.start_soon(self._find, action.session, self._find_providers)
            case Disconnect():
                self._nursery.start_soon(self._network.disconnect, action.peer, action.reason)

    async def _find(self, number: int, find: FindProvidersFn) -> None:
        session = self._sessions.get(number)
        if session is None:
            return
        try:
            peers = await find(session.root)
        except IpcsError:
            return  # nobody was found; the engine asks again
        self._post(ProvidersFound(number, tuple(peers)))

    # -- the store -----------------------------------------------------------------------------------------------------

    def _read(self, cids: Sequence[Cid]) -> list[tuple[Cid, Data | None]]:
        keys = [multihash_of(cid) for cid in cids]
        try:
            return list(zip(cids, self._store.get_many(keys), strict=True))
        except StoreCorrupt:
            return [(cid, self._read_one(cid)) for cid in cids]

    def _read_one(self, cid: Cid) -> Data | None:
        """A rotten block is one that we do not have."""
        try:
            return self._store.get_many([multihash_of(cid)])[0]
        except StoreCorrupt:
            return None

    async def _run_store(self) -> None:
        while True:
            await self._store_wake.wait()
            self._store_wake = trio.Event()
            while self._store_queue:
                batch: list[Block] = []
                size = 0
                while self._store_queue and size < _STORE_BATCH:
                    block = self._store_queue.popleft()
                    batch.append(block)
                    size += len(block.data)
                await self._put(batch)
                self._unstored -= size
                self._drained.set()
                self._drained = trio.Event()

    async def _put(self, batch: list[Block]) -> None:
        try:
            await self._run_sync(lambda: self._store.put_many(batch))
        except IpcsError as exc:
            cids = [block.cid for block in batch]
            for session in self._sessions.values():
                session.fail(cids, exc)
            self._post(StoreFailed(cids))
        else:
            self._post(BlocksStored([(block.cid, len(block.data)) for block in batch]))


@asynccontextmanager
async def open_exchange(
    network: Network,
    store: Blockstore,
    config: Config | None = None,
    *,
    find_providers: FindProvidersFn | None = None,
    seed: int | None = None,
    run_sync: RunSync = run_in_thread,
) -> AsyncIterator[Exchange]:
    """Bitswap over `network`, for the blocks of `store`, as long as the block runs.

    `find_providers` connects to more peers when those at hand do not have a DAG. `seed` makes choices repeatable.
    `run_sync` runs store writes: in a worker thread, except under a fake clock, which would jump ahead.
    """
    async with trio.open_nursery() as nursery:
        exchange = Exchange(network, store, config or Config(), nursery, find_providers, seed, run_sync)
        for loop in exchange.loops:
            nursery.start_soon(loop)
        network.attach(exchange)
        yield exchange
        nursery.cancel_scope.cancel()


def _event(peer: PeerId, message: Message, blocks: list[Block], refused: int, refused_bytes: int) -> MessageReceived:
    return MessageReceived(
        peer,
        message.entries,
        full=message.full,
        haves=message.haves,
        dont_haves=message.dont_haves,
        blocks=blocks,
        refused=refused,
        refused_bytes=refused_bytes,
    )
