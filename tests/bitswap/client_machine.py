"""A hypothesis state machine: the engine, fetching, against two scripted peers.

The machine keeps its own books from what the engine does (messages, actions) and never asks the engine what it thinks,
except where a check says that it looks inside. Invariants hold after every step. `test_client_machine.py` runs it, and
runs it again over each planted mutant, which must be caught.
"""

from __future__ import annotations

import random
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipcs.bitswap import events
from ipcs.bitswap.engine import Engine
from ipcs.bitswap.limits import LATE_CANCEL_DELAY, Config
from ipcs.bitswap.message import PRIORITY_STANDING, Entry
from ipcs.block import make_block
from ipcs.cid import PeerId

SIZE = 1000
BLOCKS = [make_block(bytes([number]) * SIZE) for number in range(3)]
UNWANTED = make_block(b"nobody wants this")
BY_CID = {block.cid: block for block in BLOCKS}
PEERS = [PeerId("p"), PeerId("q")]
FRESH_BOUND = 1.25
"""Seconds after which a want-block must be taken from a peer that never delivered anything."""
LONGEST_BOUND = 4 * 15.25
"""The same for any peer, at most."""

peers = st.sampled_from(PEERS)
numbers = st.integers(0, len(BLOCKS) - 1)


class PeerBook:
    """What a peer knows from our messages, and what it said."""

    def __init__(self):
        self.told = {}
        self.closed = {}
        self.asked_at = {}
        self.announced = set()
        self.refused = set()
        self.quiet = False
        self.delivered = False
        self.asked_ever = set()
        self.spoke = False


class ClientMachine(RuleBasedStateMachine):
    """Rules are things that happen to a node; `step` feeds them to the engine and books what comes out."""

    def __init__(self):
        super().__init__()
        self.engine = Engine(Config(), random.Random(1))
        self.now = 100.0
        self.books = {}
        self.sessions = {}
        self.received = set()
        self.stored = set()
        self.unstored = []
        self.cause = ""
        self.banned = False

    # -- books ---------------------------------------------------------------------------------------------------------

    def open_wants(self):
        wanted = set().union(*self.sessions.values()) if self.sessions else set()
        return wanted - self.received - self.stored

    def step(self, event, cause=""):
        self.cause = cause
        pending = [event]
        while pending:
            for action in self.engine.handle(pending.pop(0), self.now):
                pending += self.book(action)

    def book(self, action):
        match action:
            case events.SendMessage():
                if action.peer in self.books:
                    self.message(action.peer, action.message)
                return [events.MessageSent(action.peer, action.lane)]
            case events.StoreBlocks():
                for block in action.blocks:
                    assert block.cid in self.open_wants(), "a block is stored that nobody wants"
                    self.received.add(block.cid)
                    self.unstored.append(block.cid)
            case events.DeliverBlocks():
                for cid in action.cids:
                    assert cid in self.stored, "delivered before it is stored"
                    assert cid in self.sessions[action.session], "delivered twice, or to a session that never asked"
                    self.sessions[action.session].discard(cid)
            case events.Disconnect():
                self.forget(action.peer)
                return [events.PeerDisconnected(action.peer)]
        return []

    def message(self, peer, message):
        book = self.books[peer]
        if message.full:
            book.told.clear()
            book.asked_at.clear()
        for entry in message.entries:
            cid = entry.cid
            if entry.cancel:
                if cid in book.asked_at and self.cause == "time":
                    book.quiet = True
                book.told.pop(cid, None)
                book.asked_at.pop(cid, None)
                continue
            assert cid in self.open_wants(), "a settled want is sent"
            book.told[cid] = entry
            book.asked_ever.add(cid)
            book.asked_at.pop(cid, None)
            if entry.want_have:
                book.announced.discard(cid)  # it is asked anew whether it holds the block
            if not entry.want_have:
                if entry.priority != PRIORITY_STANDING:
                    self.check_second_ask(peer, cid)
                book.asked_at[cid] = self.now

    def check_second_ask(self, peer, cid):
        for other, book in self.books.items():
            if other != peer and cid in book.asked_at and book.told[cid].priority != PRIORITY_STANDING:
                assert self.now - book.asked_at[cid] >= 0.05, "the same want-block at two peers"

    def forget(self, peer):
        self.books.pop(peer, None)

    # -- rules ---------------------------------------------------------------------------------------------------------

    @initialize(scene=st.sampled_from(["nothing", "a swarm", "two sessions"]))
    def begin(self, scene):
        """Lives begin with nothing, in the middle of a swarm, or with two sessions that see the same peer differently.

        A swarm: an origin, a neighbour that downloads the same DAG, and a session.
        """
        if scene == "two sessions":
            peer, cids = PEERS[0], [block.cid for block in BLOCKS]
            self.books[peer] = PeerBook()
            self.step(events.PeerConnected(peer))
            self.begin_session(1, [])
            self.begin_session(2, [])
            self.begin_wants(1, cids)
            self.refuse(peer, cids[0])
            self.begin_wants(2, cids[1:])
        if scene == "a swarm":
            origin, neighbour = PEERS
            for peer in PEERS:
                self.books[peer] = PeerBook()
                self.step(events.PeerConnected(peer))
            self.begin_session(1, [origin])
            self.begin_wants(1, [BLOCKS[0].cid])
            self.hear_want(neighbour, 0)
            self.begin_wants(1, [block.cid for block in BLOCKS[1:]])

    @precondition(lambda self: len(self.books) < len(PEERS))
    @rule(data=st.data())
    def connect(self, data):
        peer = data.draw(st.sampled_from([peer for peer in PEERS if peer not in self.books]))
        if not any(ban.peer == peer for ban in self.engine.conduct.bans(self.now)):
            self.books[peer] = PeerBook()
        self.step(events.PeerConnected(peer))

    @precondition(lambda self: self.books)
    @rule(data=st.data())
    def disconnect(self, data):
        peer = data.draw(st.sampled_from(sorted(self.books)))
        self.forget(peer)
        self.step(events.PeerDisconnected(peer), "gone")

    @precondition(lambda self: len(self.sessions) < 2)
    @rule(data=st.data())
    def open_session(self, data):
        number = next(number for number in (1, 2) if number not in self.sessions)
        self.begin_session(number, data.draw(st.lists(st.sampled_from(PEERS), max_size=1)))

    def begin_session(self, number, hints):
        self.sessions[number] = set()
        for peer in hints:
            if peer in self.books:
                self.books[peer].spoke = True  # somebody spoke for it
        self.step(events.SessionOpened(number, BLOCKS[0].cid, hints, SIZE))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), reading=st.booleans())
    def want(self, data, reading):
        number = data.draw(st.sampled_from(sorted(self.sessions)))
        lacking = [block.cid for block in BLOCKS if block.cid not in self.stored]
        if not lacking:
            return
        cids = data.draw(st.lists(st.sampled_from(lacking), min_size=1, unique=True))
        self.begin_wants(number, cids, reading=reading)

    def begin_wants(self, number, cids, *, reading=False):
        self.sessions[number] |= set(cids)
        self.step(events.BlocksWanted(number, cids, reading=reading))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def close_session(self, data):
        self.end_session(data.draw(st.sampled_from(sorted(self.sessions))))

    def end_session(self, number):
        del self.sessions[number]
        self.step(events.SessionClosed(number), "closed")
        for book in self.books.values():  # what was said about a want ends with the want; a new one asks again
            book.announced &= self.open_wants()

    def asked(self):
        return [(peer, cid) for peer, book in sorted(self.books.items()) for cid in book.asked_at]

    def told(self):
        return [(peer, cid) for peer, book in sorted(self.books.items()) for cid in book.told]

    def send_block(self, peer, block):
        book = self.books[peer]
        book.spoke = True
        book.told.pop(block.cid, None)
        book.asked_at.pop(block.cid, None)
        muted = set()
        if block.cid in self.open_wants():
            book.quiet, book.delivered = False, True
            muted = self.muted(peer) - {block.cid}
        self.step(events.MessageReceived(peer, blocks=[block]), "block")
        for cid in muted:
            assert peer in self.engine.client.wants[cid].holders, f"{peer} is back, what it announced is not"

    def muted(self, peer):
        """Looks inside: the open wants that `peer` announced before it fell silent."""
        members = [session.members.get(peer) for session in self.engine.client.sessions.values()]
        return set().union(*(member.dormant for member in members if member is not None)) & self.open_wants()

    @precondition(lambda self: self.asked())
    @rule(data=st.data())
    def answer_with_the_block(self, data):
        peer, cid = data.draw(st.sampled_from(self.asked()))
        self.books[peer].announced.add(cid)
        self.send_block(peer, BY_CID[cid])

    @precondition(lambda self: any(book.asked_ever for book in self.books.values()))
    @rule(data=st.data())
    def late_or_repeated_block(self, data):
        ever = [(peer, cid) for peer, book in sorted(self.books.items()) for cid in sorted(book.asked_ever)]
        peer, cid = data.draw(st.sampled_from(ever))
        before = self.engine.statistics().unasked_blocks
        self.send_block(peer, BY_CID[cid])
        assert self.engine.statistics().unasked_blocks == before, "a late answer is counted as unasked"

    @precondition(lambda self: self.told())
    @rule(data=st.data())
    def have(self, data):
        peer = data.draw(st.sampled_from([peer for peer, book in sorted(self.books.items()) if book.told]))
        cids = data.draw(st.lists(st.sampled_from(sorted(self.books[peer].told)), min_size=1, unique=True))
        self.announce(peer, cids)

    def announce(self, peer, cids):
        book = self.books[peer]
        for cid in cids:
            if book.told[cid].want_have:
                del book.told[cid]
        book.spoke = True
        book.announced.update(cids)
        book.refused.difference_update(cids)
        self.step(events.MessageReceived(peer, haves=cids), "have")

    @precondition(lambda self: self.told())
    @rule(data=st.data())
    def dont_have(self, data):
        self.refuse(*data.draw(st.sampled_from(self.told())))

    def refuse(self, peer, cid):
        book = self.books[peer]
        book.spoke = True
        book.announced.discard(cid)
        book.refused.add(cid)
        self.step(events.MessageReceived(peer, dont_haves=[cid]), "dont have")
        if peer in self.books:
            assert cid not in book.asked_at, "a peer that refused a block still owes it"

    @precondition(lambda self: self.books)
    @rule(data=st.data(), number=numbers)
    def wants_it_too(self, data, number):
        self.hear_want(data.draw(st.sampled_from(sorted(self.books))), number)

    def hear_want(self, peer, number):
        self.books[peer].spoke = True
        entry = Entry(BLOCKS[number].cid, want_have=True)
        self.step(events.MessageReceived(peer, [entry], [None]), "wants")

    @precondition(lambda self: self.books)
    @rule(data=st.data())
    def unasked_block(self, data):
        peer = data.draw(st.sampled_from(sorted(self.books)))
        before = self.engine.statistics().unasked_blocks
        self.step(events.MessageReceived(peer, blocks=[UNWANTED]), "unasked")
        assert self.engine.statistics().unasked_blocks == before + 1

    @precondition(lambda self: self.unstored)
    @rule()
    def store(self):
        cids, self.unstored = self.unstored, []
        self.stored |= set(cids)
        self.step(events.BlocksStored([(cid, SIZE) for cid in cids]))

    @precondition(lambda self: any(self.sessions.values()))
    @rule(data=st.data())
    def somebody_else_stores(self, data):
        cid = data.draw(st.sampled_from(sorted(set().union(*self.sessions.values()))))
        self.stored.add(cid)
        self.step(events.BlocksStored([(cid, SIZE)]), "stored")

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.3, 1.3, 5.0, 16.0]))
    def wait(self, seconds):
        end = self.now + seconds
        while (deadline := self.engine.next_deadline()) <= end:
            assert deadline > self.now or deadline == self.engine.next_deadline()
            self.now = max(self.now, deadline)
            self.step(events.TimePassed(), "time")
            assert self.engine.next_deadline() > self.now, "an overdue timer starves the inbox"
        self.now = end

    @precondition(lambda self: self.told())
    @rule(data=st.data())
    def fall_silent_and_come_back(self, data):
        """A peer announces all that it was told of, says nothing until that is overdue, and then delivers one block.

        A session may leave meanwhile.
        """
        peer = data.draw(st.sampled_from([peer for peer, book in sorted(self.books.items()) if book.told]))
        self.announce(peer, sorted(self.books[peer].told))
        self.wait(1.3)
        leaves = data.draw(st.sampled_from([None, *sorted(self.sessions)]))
        if leaves is not None:
            self.end_session(leaves)
        late = sorted(self.books[peer].asked_ever & self.open_wants()) if peer in self.books else []
        if late:
            self.send_block(peer, BY_CID[data.draw(st.sampled_from(late))])

    # -- invariants ----------------------------------------------------------------------------------------------------

    @invariant()
    def peers_hold_only_open_wants(self):
        """But for want-haves, whose cancel may wait a little for another message."""
        for book in self.books.values():
            closed = set(book.told) - self.open_wants()
            book.closed = {cid: book.closed.get(cid, self.now) for cid in closed}
            for cid, since in book.closed.items():
                assert book.told[cid].want_have, "a want-block that was met or given up is not cancelled at once"
                assert self.now < since + LATE_CANCEL_DELAY, "a want-have that was met or given up is not cancelled"

    @invariant()
    def what_is_stored_is_delivered(self):
        for number, wanted in self.sessions.items():
            assert wanted.isdisjoint(self.stored), f"session {number} waits for a block that is stored"

    @invariant()
    def every_new_peer_is_told_of_something(self):
        """Also where another peer serves us well: a peer of which nothing is known may know more."""
        if self.open_wants():
            for peer, book in self.books.items():
                assert book.spoke or book.told, f"{peer} is new and was told of no want"

    @invariant()
    def a_standing_want_ends_with_an_ask(self):
        """An origin that was told to send a block when convenient is told to let it be, once somebody owes it."""
        for cid in self.open_wants():
            entries = [book.told[cid] for book in self.books.values() if cid in book.asked_at]
            standing = sum(entry.priority == PRIORITY_STANDING for entry in entries)
            assert not standing or len(entries) == 1, "a block is asked for and still stands elsewhere"

    @invariant()
    def no_want_is_left_where_somebody_has_it(self):
        for cid in self.open_wants():
            if any(cid in book.asked_at for book in self.books.values()):
                continue
            for peer, book in self.books.items():
                assert book.quiet or cid not in book.announced, f"{peer} has it and nobody is asked"

    @invariant()
    def no_want_is_forgotten(self):
        healthy = [book for book in self.books.values() if not book.quiet]
        if not self.books or len(healthy) < len(self.books):
            return
        for cid in self.open_wants():
            heard_of = any(cid in book.told or cid in book.announced for book in healthy)
            assert heard_of, "an open want of which no peer was told"

    @invariant()
    def no_overdue_ask_is_kept(self):
        for book in self.books.values():
            for cid, at in book.asked_at.items():
                if book.told[cid].priority == PRIORITY_STANDING:
                    continue
                bound = LONGEST_BOUND if book.delivered else FRESH_BOUND
                assert self.now - at <= bound + 0.001, "an overdue ask is kept"

    @invariant()
    def a_quiet_peer_is_asked_again(self):
        """When nobody else can help, a peer that stalled is probed, not given up."""
        deadline = self.engine.next_deadline()
        if self.open_wants() and self.books and not any(self.asked()):
            assert deadline < inf, "open wants, peers, and nothing will ever happen"
        for peer, remote in self.engine.client.remotes.items():  # looks inside: until when a peer is left alone
            if self.open_wants() and self.now < remote.quiet_until:
                assert deadline <= remote.quiet_until, f"nothing wakes us when {peer} was quiet for long enough"

    @invariant()
    def inverse_relations_hold(self):
        """Looks inside: the two maps of who was asked what, and the bytes in flight."""
        client = self.engine.client
        for peer, remote in client.remotes.items():
            assert remote.in_flight == sum(ask.size for ask in remote.asks.values())
            for cid in remote.asks:
                assert peer in client.wants[cid].asked
        for want in client.wants.values():
            for peer in want.asked:
                assert want.cid in client.remotes[peer].asks
            for peer in want.holders:
                assert not client.remotes[peer].stalled, "an announcement counts although its peer does not deliver"
            for session in want.sessions:
                for peer, member in session.members.items():
                    expected = want.unasked and peer in want.holders
                    assert (want.cid in member.available) == expected
