"""Rules of the serving side that need many wants or several peers."""

from __future__ import annotations

import random

import pytest

from ipcs.bitswap import events
from ipcs.bitswap.engine import Engine
from ipcs.bitswap.limits import KIB, MAX_PRESENCES_QUEUED, MAX_WANTS_PER_PEER, MIB, SUPER_SEED_HOLD, Config
from ipcs.bitswap.message import PRIORITY_STANDING, Entry
from ipcs.cid import RAW, PeerId, cid_v1, sha256_multihash

LEAF = 256 * KIB
P, Q = PeerId("p"), PeerId("q")


def cid(number):
    return cid_v1(RAW, sha256_multihash(number.to_bytes(32, "big")))


class Serving:
    """An engine and a store that answers at once; messages are confirmed by hand."""

    def __init__(self, config=None, size=LEAF):
        self.engine = Engine(config or Config(), random.Random(1))
        self.now = 100.0
        self.size = size
        self.out = []

    def __call__(self, *incoming):
        """The messages that go out because of these events: [(peer, message)]."""
        pending, sent = list(incoming), []
        while pending:
            for action in self.engine.handle(pending.pop(0), self.now):
                if isinstance(action, events.ReadBlocks):
                    data = bytes(self.size)
                    pending.append(events.BlocksRead(action.peer, [(cid, data) for cid in action.cids]))
                elif isinstance(action, events.SendMessage):
                    sent.append((action.peer, action.message))
                    self.out.append((action.peer, action.lane))
                else:
                    sent.append((action.peer, action))
        return sent

    def confirm(self):
        """Every message that is out has left."""
        out, self.out = self.out, []
        return self(*(events.MessageSent(peer, lane) for peer, lane in out))

    def drain(self):
        """Confirm until nothing more comes; the blocks in the order in which they went: [peer, ...]."""
        order = []
        while self.out:
            order += [peer for peer, message in self.confirm() for _ in message.blocks]
        return order


def wants(peer, numbers, size=LEAF, **fields):
    entries = [Entry(cid(number), **fields) for number in numbers]
    return events.MessageReceived(peer, entries, [size] * len(entries))


def test_two_backlogged_peers_are_served_in_turn():
    serve = Serving()
    serve(events.PeerConnected(P), wants(P, range(200)))
    serve.confirm()
    serve.confirm()
    serve(events.PeerConnected(Q), wants(Q, range(200, 400)))
    order = serve.drain()
    first = order[:96]
    assert abs(first.count(P) - first.count(Q)) <= 8
    assert not any(ledger.wants for ledger in serve.engine.server.ledgers.values())


def test_a_peer_that_does_not_read_holds_its_bound_and_is_dropped():
    config = Config(max_outstanding_per_peer=4 * MIB, max_outstanding=64 * MIB)
    serve = Serving(config)
    slow = [PeerId(f"slow{index}") for index in range(64)]
    for peer in slow:
        serve(events.PeerConnected(peer), wants(peer, range(1000)))
    held = [ledger.outstanding for ledger in serve.engine.server.ledgers.values()]
    assert max(held) <= 5 * MIB
    assert sum(held) <= 65 * MIB
    serve.now = serve.engine.next_deadline()
    gone = {peer for peer, action in serve(events.TimePassed()) if isinstance(action, events.Disconnect)}
    for _ in range(100):
        serve.now = serve.engine.next_deadline()
        gone |= {peer for peer, action in serve(events.TimePassed()) if isinstance(action, events.Disconnect)}
        if len(gone) == 64:
            break
    assert gone >= set(slow[:20])


def test_others_are_served_beside_slow_readers():
    serve = Serving()
    for index in range(64):
        peer = PeerId(f"slow{index}")
        serve(events.PeerConnected(peer), wants(peer, range(1000)))
    serve.out.clear()
    served = serve(events.PeerConnected(P), wants(P, range(4)))
    at_once = sum(len(message.blocks) for peer, message in served if peer == P)
    assert at_once >= 1
    assert at_once + serve.drain().count(P) == 4


def test_the_wants_of_a_peer_are_bounded():
    serve = Serving()
    serve(events.PeerConnected(P), wants(P, range(MAX_WANTS_PER_PEER + 500), size=None, want_have=True))
    ledger = serve.engine.server.ledgers[P]
    assert len(ledger.wants) == MAX_WANTS_PER_PEER
    serve(wants(P, range(5000, 5010), want_have=False))  # what we have displaces what we lack
    assert {cid(number) for number in range(5000, 5010)} & set(ledger.wants)
    serve(events.PeerDisconnected(P))
    assert not serve.engine.server.waits


def test_when_all_wants_can_be_met_the_lowest_priority_gives_way():
    serve = Serving(Config(max_outstanding_per_peer=0))
    serve(events.PeerConnected(P), wants(P, range(MAX_WANTS_PER_PEER + 4), priority=5))
    serve(wants(P, [9001], priority=1), wants(P, [9002], priority=9))
    held = set(serve.engine.server.ledgers[P].wants)
    assert len(held) == MAX_WANTS_PER_PEER
    assert cid(9001) not in held
    assert cid(9002) in held


def test_a_peer_that_asks_faster_than_it_reads_answers_is_dropped():
    serve = Serving()
    serve(events.PeerConnected(P), wants(P, [0], want_have=True))
    actions = []
    for start in range(0, 2 * MAX_PRESENCES_QUEUED, 1000):
        actions += serve(wants(P, range(start, start + 1000), want_have=True))
    assert [action for _, action in actions if isinstance(action, events.Disconnect)]


def test_super_seeding_serves_each_block_once_before_any_twice():
    serve = Serving()
    standing = {"priority": PRIORITY_STANDING}
    first = serve(events.PeerConnected(P), wants(P, range(4), **standing))
    second = serve(events.PeerConnected(Q), wants(Q, range(8), **standing))
    blocks = [len(message.blocks) for _, message in first + second]
    assert blocks == [4, 4]  # to q those that p did not get
    assert set(serve.engine.server.ledgers[Q].wants) == {cid(number) for number in range(4)}
    assert serve.confirm() == []
    serve.now += SUPER_SEED_HOLD / 2
    assert serve(events.TimePassed()) == []
    serve.now = serve.engine.next_deadline()
    assert [len(message.blocks) for _, message in serve(events.TimePassed())] == [4]


def test_an_ordinary_want_is_not_held_back():
    serve = Serving()
    serve(events.PeerConnected(P), wants(P, range(4)))
    assert [len(message.blocks) for _, message in serve(events.PeerConnected(Q), wants(Q, range(4)))] == [4]


def test_upload_limit_paces_and_is_fair():
    serve = Serving(Config(upload_rate=10e6))
    serve(events.PeerConnected(P), events.PeerConnected(Q), wants(P, range(40)), wants(Q, range(40, 80)))
    start, order = serve.now, []
    while len(order) < 72:
        order += serve.drain()
        serve.now = max(serve.now, serve.engine.next_deadline())
        order += [peer for peer, message in serve(events.TimePassed()) for _ in message.blocks]
    assert 72 * LEAF / (serve.now - start) == pytest.approx(10e6, rel=0.15)
    assert abs(order.count(P) - order.count(Q)) <= 8


def test_v0_and_v1_wants_of_one_block_are_both_answered():
    serve = Serving(size=11)
    digest = sha256_multihash(bytes(32))
    old, new = digest, cid_v1(RAW, digest)
    asked = events.MessageReceived(P, [Entry(old), Entry(new)], [None, None])
    assert serve(events.PeerConnected(P), asked) == []
    ((_, message),) = serve(events.BlocksStored([(new, 11)]))
    assert [block.prefix.hex() for block in message.blocks] == ["00701220", "01551220"]
