"""The Bitswap engine: client and server joined, and the messages between them and each peer. Pure.

`handle(event, now) -> list[Action]` is the whole interface, `next_deadline()` says when `TimePassed` is due. One task
owns an engine; nothing in it waits, reads a clock, or draws a random number that was not handed in. After
`handle(TimePassed)` `next_deadline() > now`: an overdue timer cannot starve the inbox.

Each peer has two lanes. A lane has at most one message out; what changes meanwhile is merged, so a peer that does not
read costs one message and its bounded debts, and is disconnected when that message does not leave in time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from math import inf
from typing import assert_never

from ..cid import PeerId
from .client import Client
from .conduct import Conduct
from .events import (
    Action,
    BlocksRead,
    BlocksStored,
    BlocksWanted,
    Disconnect,
    Event,
    Lane,
    MessageReceived,
    MessageSent,
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
    StreamFailed,
    StreamOpened,
    TimePassed,
)
from .limits import (
    LATE_CANCEL_DELAY,
    MAX_PRESENCES_QUEUED,
    MAX_WANT_MESSAGE_ENTRIES,
    SEND_TIMEOUT_FLOOR,
    SEND_TIMEOUT_RATE,
    Config,
)
from .message import Message
from .schedule import Random, Scheduler
from .server import Server
from .statistics import ExchangeStatistics, PeerStatistics, Traffic, total


class _Peer:
    """What the engine itself keeps of a connected peer."""

    __slots__ = ("dropped", "traffic")

    def __init__(self) -> None:
        self.dropped = False
        self.traffic = Traffic()


class Engine:
    """One node's Bitswap."""

    def __init__(self, config: Config, rng: Random) -> None:
        self.client = Client(config)
        self.server = Server(config)
        self.conduct = Conduct()
        self._scheduler = Scheduler(self.client, config, rng)
        self._peers: dict[PeerId, _Peer] = {}
        self._gone = Traffic()
        self._dirty: dict[PeerId, None] = {}
        """Peers that may have something to be sent."""
        self._due: dict[tuple[PeerId, Lane], float] = {}
        """Messages that are out, and when they must have left."""
        self._late: dict[PeerId, float] = {}
        """Peers for which only late cancels wait, and when these go without another message."""
        self._now = -inf

    def next_deadline(self) -> float:
        """The time at which `TimePassed` is due; inf when nothing is."""
        deadline = min(self.client.next_deadline(self._now), self._scheduler.next_deadline, self.server.next_deadline)
        return min(deadline, *self._due.values(), *self._late.values()) if self._due or self._late else deadline

    def expects(self, peer: PeerId) -> bool:
        """Whether `peer` was ever asked for anything: blocks from another need not even be hashed."""
        remote = self.client.remotes.get(peer)
        return remote is not None and bool(remote.settled or remote.wantlist.sent)

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do now that `event` happened."""
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[Event], now: float) -> list[Action]:
        """The same for several events in their order: what is decided is decided once, after all of them."""
        self._now = now
        actions: list[Action] = []
        for event in events:
            self._dispatch(event, now, actions)
        self.client.expire(now)
        actions += self._scheduler.pump(now)
        self._send(now, actions)
        actions += [ReadBlocks(peer, cids) for peer, cids in self.server.next_reads(now)]
        return actions

    def _dispatch(self, event: Event, now: float, actions: list[Action]) -> None:
        match event:
            case MessageReceived():
                self._message(event, now, actions)
            case BlocksStored():
                actions += self.client.stored([cid for cid, _ in event.blocks], now)
                self.server.stored(event.blocks)
            case BlocksRead():
                self.server.read(event.peer, event.blocks)
            case MessageSent() | StreamFailed():
                self._lane_free(event)
            case BlocksWanted():
                self.client.want(event.session, event.cids, reading=event.reading)
            case TimePassed():
                self._drop_slow_readers(now, actions)
                self._hurry(now)
            case _:
                self._membership(event, now, actions)

    def _membership(
        self,
        event: PeerConnected
        | PeerDisconnected
        | StreamOpened
        | Reading
        | SessionOpened
        | SessionClosed
        | ProvidersFound
        | StoreFailed,
        now: float,
        actions: list[Action],
    ) -> None:
        match event:
            case PeerConnected():
                self._connected(event.peer, now, actions)
            case PeerDisconnected():
                self._disconnected(event.peer)
            case StreamOpened():
                if not event.presences:
                    self.client.legacy(event.peer)
            case Reading():
                self.client.pause(event.paused, now)
            case SessionOpened():
                self.client.open(event.session, event.root, event.hints, event.estimate, now)
            case SessionClosed():
                self.client.close(event.session)
            case ProvidersFound():
                self.client.hint(event.session, event.peers)
            case StoreFailed():
                self.client.store_failed(event.cids)
            case _:
                assert_never(event)

    # -- peers ---------------------------------------------------------------------------------------------------------

    def _connected(self, peer: PeerId, now: float, actions: list[Action]) -> None:
        ban = self.conduct.banned(peer, now)
        if ban is not None:
            actions.append(Disconnect(peer, f"banned: {ban.reason}"))
            return
        if peer in self._peers:
            return
        known = self._peers[peer] = _Peer()
        changed = partial(self._dirty_peer, peer)
        self.client.connected(peer, known.traffic, changed)
        self.server.connected(peer, known.traffic, changed)

    def _dirty_peer(self, peer: PeerId) -> None:
        self._dirty[peer] = None

    def _disconnected(self, peer: PeerId) -> None:
        known = self._peers.pop(peer, None)
        if known is not None:
            self._gone.add(known.traffic)
        self._forget_messages(peer)
        self.client.disconnected(peer)
        self.server.disconnected(peer)

    def _drop(self, peer: PeerId, reason: str, actions: list[Action]) -> None:
        """Close the connection; until that is done nothing more goes there and its wants are asked elsewhere."""
        known = self._peers[peer]
        if not known.dropped:
            known.dropped = True
            actions.append(Disconnect(peer, reason))
            self._forget_messages(peer)
            self.client.disconnected(peer)
            self.server.disconnected(peer)

    def _forget_messages(self, peer: PeerId) -> None:
        self._dirty.pop(peer, None)
        self._late.pop(peer, None)
        for lane in Lane:
            self._due.pop((peer, lane), None)

    def _drop_slow_readers(self, now: float, actions: list[Action]) -> None:
        for peer, _ in [key for key, due in self._due.items() if due <= now]:
            self._drop(peer, "does not read what it is sent", actions)

    # -- messages in ---------------------------------------------------------------------------------------------------

    def _message(self, event: MessageReceived, now: float, actions: list[Action]) -> None:
        peer = event.peer
        known = self._peers.get(peer)
        if known is None or known.dropped:
            return
        if (event.blocks or event.refused) and not self._blocks(event, known.traffic, now, actions):
            return
        if event.haves:
            self.client.have(peer, event.haves)
        if event.dont_haves:
            self.client.lack(peer, event.dont_haves)
        if event.entries or event.full:
            self.client.wanted_by(peer, [entry.cid for entry in event.entries if not entry.cancel])
            self.server.receive(peer, event.entries, event.sizes, full=event.full)
            if len(self.server.ledgers[peer].presences) > MAX_PRESENCES_QUEUED:
                self._drop(peer, "asks faster than it reads the answers", actions)

    def _blocks(self, event: MessageReceived, traffic: Traffic, now: float, actions: list[Action]) -> bool:
        """Take the blocks; False when their sender is banned for them."""
        peer = event.peer
        wanted, unasked, unasked_bytes = self.client.receive(peer, event.blocks, now)
        if wanted:
            actions.append(StoreBlocks(wanted))
        unasked += event.refused
        if not unasked:
            return True
        traffic.unasked_blocks += unasked
        traffic.unasked_bytes += unasked_bytes + event.refused_bytes
        ban = self.conduct.judge(peer, traffic, now)
        if ban is not None:
            self._drop(peer, ban.reason, actions)
        return ban is None

    # -- messages out --------------------------------------------------------------------------------------------------

    def _lane_free(self, event: MessageSent | StreamFailed) -> None:
        if self._due.pop((event.peer, event.lane), None) is None:
            return
        self._dirty[event.peer] = None
        if event.lane is Lane.BLOCKS:
            self.server.sent(event.peer)
        elif isinstance(event, StreamFailed):
            self.client.remotes[event.peer].wantlist.restart()

    def _send(self, now: float, actions: list[Action]) -> None:
        dirty, self._dirty = self._dirty, {}
        for peer in dirty:
            if (peer, Lane.CONTROL) not in self._due:
                message = self._control(peer, now)
                if message is not None:
                    self._due[peer, Lane.CONTROL] = now + SEND_TIMEOUT_FLOOR
                    actions.append(SendMessage(peer, Lane.CONTROL, message))
            ledger = self.server.ledgers[peer]
            if (peer, Lane.BLOCKS) not in self._due and ledger.ready is not None:
                blocks = self.server.take_blocks(peer)
                if blocks:
                    self._due[peer, Lane.BLOCKS] = now + SEND_TIMEOUT_FLOOR + ledger.sending / SEND_TIMEOUT_RATE
                    actions.append(SendMessage(peer, Lane.BLOCKS, Message(blocks=blocks)))

    def _hurry(self, now: float) -> None:
        for peer in [peer for peer, at in self._late.items() if at <= now]:
            del self._late[peer]
            self.client.remotes[peer].wantlist.hurry()

    def _control(self, peer: PeerId, now: float) -> Message | None:
        wantlist = self.client.remotes[peer].wantlist
        presences = self.server.ledgers[peer].presences
        if not wantlist.urgent and not presences:
            if wantlist.dirty:
                self._late.setdefault(peer, now + LATE_CANCEL_DELAY)
            return None
        self._late.pop(peer, None)
        entries, full = wantlist.take(MAX_WANT_MESSAGE_ENTRIES)
        message = Message(entries, full)
        for cid, held in presences.items():
            (message.haves if held else message.dont_haves).append(cid)
        presences.clear()
        return message

    # -- what callers may see ------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a session or a peer waits for a block to be stored."""
        return bool(self.client.wants) or self.server.waits

    def statistics(self) -> ExchangeStatistics:
        """What was counted so far."""
        peers: dict[PeerId, PeerStatistics] = {}
        for peer, remote in self.client.remotes.items():
            peers[peer] = PeerStatistics(
                peer,
                **asdict(remote.traffic),
                wants=len(self.server.ledgers[peer].wants),
                asks=len(remote.asks),
                asked_bytes=remote.in_flight,
                window=remote.window,
                rate=remote.rate,
                latency=remote.latency,
                stalled=remote.stalled,
            )
        together = total([self._gone, *(known.traffic for known in self._peers.values())])
        return ExchangeStatistics(**asdict(together), wants=len(self.client.wants), peers=peers)
