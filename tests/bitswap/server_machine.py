"""A hypothesis state machine: the engine, serving two peers that want, cancel, stop reading and leave.

The machine plays store and streams: it answers `ReadBlocks` and confirms messages when it likes, and keeps its own
books of what each peer may expect. `test_server_machine.py` runs it, and again over each planted mutant.
"""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipcs.bitswap import events
from ipcs.bitswap.engine import Engine
from ipcs.bitswap.limits import MIB, PACKED_BLOCK_SIZE, WANT_HAVE_REPLACE_SIZE, Config
from ipcs.bitswap.message import Entry
from ipcs.bitswap.verify import cid_of
from ipcs.block import make_block
from ipcs.cid import PeerId

PEERS = [PeerId("p"), PeerId("q")]
SIZES = [10, 1024, 1025, 300_000, 900_000]
BLOCKS = [make_block(bytes([index + 1]) * size) for index, size in enumerate(SIZES)]
DATA = {block.cid: block.data for block in BLOCKS}
BOUND = 3 * MIB
OVERHEAD = 64

cids = st.sampled_from([block.cid for block in BLOCKS])


class Expectation:
    """What one peer may expect. `wants`: CID -> strongest entry; `abandoned`: read for a want that was cancelled."""

    @property
    def claimed(self):
        """What is on its way to the peer."""
        return ({*(self.reading or ())} - self.abandoned) | self.read

    def __init__(self):
        self.wants = {}
        self.reading = None
        self.abandoned = set()
        self.read = set()
        self.messages = {}
        self.busy_since = None
        self.served = 0


class ServerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.engine = Engine(Config(max_outstanding_per_peer=BOUND), random.Random(1))
        self.now = 100.0
        self.peers = {}
        self.store = set()

    def step(self, event):
        for action in self.engine.handle(event, self.now):
            match action:
                case events.SendMessage():
                    self.message(action)
                case events.ReadBlocks():
                    self.read(action)
                case events.StoreBlocks() | events.DeliverBlocks() | events.FindProviders():
                    raise AssertionError(f"a server does not {action}")

    def read(self, action):
        peer = self.peers[action.peer]
        assert peer.reading is None, "two reads at once for one peer"
        assert len(set(action.cids)) == len(action.cids), "a block is read twice for one message"
        for cid in action.cids:
            assert cid in peer.wants, "a block is read that the peer does not want"
        priorities = [peer.wants[cid].priority for cid in action.cids]
        assert priorities == sorted(priorities, reverse=True), "lower priority before higher"
        if len(action.cids) > 1:
            assert sum(len(DATA[cid]) for cid in action.cids) <= 2 * MIB, "a message of many blocks is too long"
        for cid in action.cids[1:]:
            assert len(DATA[cid]) <= PACKED_BLOCK_SIZE, "a large block joins a message"
        peer.reading = list(action.cids)

    def message(self, action):
        peer = self.peers[action.peer]
        assert action.lane not in peer.messages, "two messages at once on one lane"
        peer.messages[action.lane] = action.message
        message = action.message
        sent = [cid_of(prefix, data) for prefix, data in message.blocks]
        for cid in sent:
            assert cid in peer.wants, "a block is sent that the peer does not want (any more)"
            del peer.wants[cid]
            peer.read.discard(cid)
            peer.served += len(DATA[cid])
        for cid in message.haves:
            assert cid in peer.wants, "HAVE for what is not wanted"
            assert peer.wants[cid].want_have, "HAVE for a want-block"
            assert len(DATA[cid]) > WANT_HAVE_REPLACE_SIZE, "HAVE instead of a small block"
            del peer.wants[cid]
        for cid in message.dont_haves:
            assert cid in peer.wants, "DONT_HAVE for what is not wanted"
            assert peer.wants[cid].send_dont_have, "DONT_HAVE that was not asked for"
        assert not set(sent) & {*message.haves, *message.dont_haves}, "block and presence of one CID in one message"

    # -- rules ---------------------------------------------------------------------------------------------------------

    @initialize(here=st.sets(cids))
    def begin(self, here):
        """Both peers, and some blocks: what leads to faults begins there, and steps are few."""
        self.store |= here
        for _ in PEERS:
            self.connect()

    @precondition(lambda self: len(self.peers) < len(PEERS))
    @rule()
    def connect(self):
        peer = next(peer for peer in PEERS if peer not in self.peers)
        self.peers[peer] = Expectation()
        self.step(events.PeerConnected(peer))

    @precondition(lambda self: len(self.peers) == len(PEERS))
    @rule(data=st.data())
    def disconnect(self, data):
        peer = data.draw(st.sampled_from(sorted(self.peers)))
        del self.peers[peer]
        self.step(events.PeerDisconnected(peer))

    @precondition(lambda self: self.peers)
    @rule(
        data=st.data(),
        entries=st.lists(
            st.builds(Entry, cids, st.sampled_from([5, 9]), st.just(False), st.booleans(), st.booleans()),
            min_size=1,
            max_size=3,
            unique_by=lambda entry: entry.cid,
        ),
        full=st.booleans(),
    )
    def want(self, data, entries, full):
        peer = data.draw(st.sampled_from(sorted(self.peers)))
        book = self.peers[peer]
        claimed = book.claimed
        if full:
            book.wants = {cid: entry for cid, entry in book.wants.items() if cid in claimed}
        for entry in entries:
            known = book.wants.get(entry.cid)
            if known is not None and entry.cid in claimed:
                continue
            if known is not None and not known.want_have:
                book.wants[entry.cid] = entry._replace(want_have=False)
            else:
                book.wants[entry.cid] = entry
        sizes = [len(DATA[entry.cid]) if entry.cid in self.store else None for entry in entries]
        self.step(events.MessageReceived(peer, entries, sizes, full=full))

    @precondition(lambda self: any(book.wants for book in self.peers.values()))
    @rule(data=st.data())
    def cancel(self, data):
        peer = data.draw(st.sampled_from(sorted(peer for peer, book in self.peers.items() if book.wants)))
        book = self.peers[peer]
        on_its_way = sorted(book.claimed & book.wants.keys())
        cid = data.draw(st.sampled_from(on_its_way or sorted(book.wants)))
        del book.wants[cid]
        book.read.discard(cid)
        if cid in (book.reading or ()):
            book.abandoned.add(cid)
        self.step(events.MessageReceived(peer, [Entry(cid, 0, cancel=True)], [None]))

    @rule(cid=cids)
    def stored(self, cid):
        self.store.add(cid)
        self.step(events.BlocksStored([(cid, len(DATA[cid]))]))

    @rule(cid=cids)
    def vanish(self, cid):
        self.store.discard(cid)

    @precondition(lambda self: any(book.reading for book in self.peers.values()))
    @rule(data=st.data())
    def answer_read(self, data):
        peer = data.draw(st.sampled_from(sorted(peer for peer, book in self.peers.items() if book.reading)))
        book = self.peers[peer]
        cids, book.reading = book.reading, None
        blocks = [(cid, DATA[cid] if cid in self.store else None) for cid in cids]
        kept = {cid for cid in cids if cid in book.wants and cid not in book.abandoned}
        book.read |= {cid for cid, found in blocks if found is not None and cid in kept}
        book.abandoned.clear()
        self.step(events.BlocksRead(peer, blocks))

    @precondition(lambda self: any(book.messages for book in self.peers.values()))
    @rule(data=st.data(), lost=st.booleans())
    def confirm(self, data, lost):
        peer = data.draw(st.sampled_from(sorted(peer for peer, book in self.peers.items() if book.messages)))
        lane = data.draw(st.sampled_from(sorted(self.peers[peer].messages, key=lambda lane: lane.value)))
        del self.peers[peer].messages[lane]
        self.step(events.StreamFailed(peer, lane) if lost else events.MessageSent(peer, lane))

    # -- invariants ----------------------------------------------------------------------------------------------------

    @invariant()
    def bytes_outstanding_are_bounded(self):
        for book in self.peers.values():
            held = sum(len(DATA[cid]) for cid in [*(book.reading or ()), *book.read])
            held += sum(len(data) for message in book.messages.values() for _, data in message.blocks)
            assert held <= BOUND + 2 * MIB, "more bytes read and unsent than the bound and one message"

    @invariant()
    def accounts_balance(self):
        """Looks inside: debts of ledgers against what this machine saw, and their sum."""
        server = self.engine.server
        assert server._outstanding == sum(ledger.outstanding for ledger in server.ledgers.values())
        for peer, ledger in server.ledgers.items():
            book = self.peers[peer]
            assert ledger.outstanding == ledger.reading + ledger.ready_size + ledger.sending
            if not book.reading and not book.read and not book.messages:
                assert ledger.outstanding == 0, "debts of a peer that is owed nothing"
            assert set(ledger.wants) == {
                cid for cid in book.wants if cid not in ledger.presences or not ledger.presences[cid]
            }, "wants kept that are not there, or lost"
        waiting = {(peer, cid) for peers in server._waiting.values() for peer, cids in peers.items() for cid in cids}
        assert waiting == {
            (peer, cid)
            for peer, ledger in server.ledgers.items()
            for cid, want in ledger.wants.items()
            if want.size is None
        }, "the two maps of who waits for what differ"

    @invariant()
    def nobody_who_reads_waits_for_what_is_here(self):
        for book in self.peers.values():
            if book.reading or book.read or book.messages:
                continue
            for cid, entry in book.wants.items():
                if cid in self.store and cid in self.known_here:
                    raise AssertionError(f"{entry} is not answered although the block is here and nothing is out")

    @property
    def known_here(self):
        """Blocks that the engine knows to be in the store (one that came back unannounced is found when re-asked)."""
        return {
            want.cid
            for ledger in self.engine.server.ledgers.values()
            for want in ledger.wants.values()
            if want.size is not None
        }
