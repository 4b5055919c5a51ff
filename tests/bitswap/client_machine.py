"""A hypothesis state machine: the engine, fetching, against two scripted peers.

The machine keeps its own books from what the engine does (messages, actions) and never asks the engine what it thinks,
except where a check says that it looks inside. Invariants hold after every step. `test_client_machine.py` runs it, and
runs it again over each planted mutant, which must be caught.
"""

from __future__ import annotations

import random
from math import inf

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule  # noqa: F401

from ipcs.bitswap import events
from ipcs.bitswap.engine import Engine
from ipcs.bitswap.limits import Config
from ipcs.bitswap.message import PRIORITY_STANDING
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
        self.asked_at = {}
        self.announced = set()
        self.refused = set()
        self.quiet = False
        self.delivered = False
        self.asked_ever = set()


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
        hints = data.draw(st.lists(st.sampled_from(PEERS), max_size=1))
        self.sessions[number] = set()
        self.step(events.SessionOpened(number, BLOCKS[0].cid, hints, SIZE))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), reading=st.booleans())
    def want(self, data, reading):
        number = data.draw(st.sampled_from(sorted(self.sessions)))
        lacking = [block.cid for block in BLOCKS if block.cid not in self.stored]
        if not lacking:
            return
        cids = data.draw(st.lists(st.sampled_from(lacking), min_size=1, unique=True))
        self.sessions[number] |= set(cids)
        self.step(events.BlocksWanted(number, cids, reading))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def close_session(self, data):
        number = data.draw(st.sampled_from(sorted(self.sessions)))
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
        book.told.pop(block.cid, None)
        book.asked_at.pop(block.cid, None)
        if block.cid in self.open_wants():
            book.quiet, book.delivered = False, True
        self.step(events.MessageReceived(peer, blocks=[block]), "block")

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
        peer, cid = data.draw(st.sampled_from(self.told()))
        book = self.books[peer]
        if book.told[cid].want_have:
            del book.told[cid]
        book.announced.add(cid)
        book.refused.discard(cid)
        self.step(events.MessageReceived(peer, haves=[cid]), "have")

    @precondition(lambda self: self.told())
    @rule(data=st.data())
    def dont_have(self, data):
        peer, cid = data.draw(st.sampled_from(self.told()))
        book = self.books[peer]
        book.announced.discard(cid)
        book.refused.add(cid)
        self.step(events.MessageReceived(peer, dont_haves=[cid]), "dont have")
        if peer in self.books:
            assert cid not in book.asked_at, "a peer that refused a block still owes it"

    @precondition(lambda self: self.books)
    @rule(data=st.data(), number=numbers)
    def wants_it_too(self, data, number):
        from ipcs.bitswap.message import Entry

        peer = data.draw(st.sampled_from(sorted(self.books)))
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

    @rule(number=numbers)
    def somebody_else_stores(self, number):
        cid = BLOCKS[number].cid
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

    # -- invariants ----------------------------------------------------------------------------------------------------

    @invariant()
    def peers_hold_only_open_wants(self):
        for book in self.books.values():
            assert set(book.told) <= self.open_wants(), "a want that was met or given up is not cancelled"

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
            for session in want.sessions:
                for peer, member in session.members.items():
                    expected = want.unasked and peer in want.holders
                    assert (want.cid in member.available) == expected
