"""Claims and misses against a model that keeps its own books; with the mutants it kills."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ipcs.block import make_block
from ipcs.routing import table as module
from ipcs.routing.feed import ranking
from ipcs.routing.mesh import MESH_LIMIT, RETRY_AFTER, Mesh, shared_addresses
from ipcs.routing.messages import Record
from ipcs.routing.table import ABSENT_TTL, UNANSWERED_TTL, Table

PEERS = ["p0", "p1", "p2"]
DIGESTS = [f"sha256:{n:064x}" for n in range(3)]
ROOTS = [make_block(b"%d" % n, 0x70).cid for n in range(2)]
peers, digests, roots = st.sampled_from(PEERS), st.sampled_from(DIGESTS), st.sampled_from(ROOTS)


class Claims(RuleBasedStateMachine):
    table_class = Table

    def __init__(self):
        super().__init__()
        self.table = self.table_class()
        self.now = 0.0
        self.claims = {}
        self.absent = {}

    @rule(peer=peers, digest=digests, root=roots)
    def claim(self, peer, digest, root):
        record = Record(digest, 1, root, "p")
        self.table.claimed(peer, [record])
        self.claims[peer, digest] = record
        self.absent.pop(digest, None)

    @rule(peer=peers, digest=digests)
    def withdraw(self, peer, digest):
        self.table.withdrawn(peer, [digest])
        self.claims.pop((peer, digest), None)

    @rule(peer=peers)
    def disconnect(self, peer):
        self.table.disconnected(peer)
        self.claims = {key: record for key, record in self.claims.items() if key[0] != peer}

    @rule()
    def connect(self):
        self.table.connected()
        self.absent.clear()

    @rule(digest=digests, complete=st.booleans())
    def miss(self, digest, complete):
        self.table.missed([digest], self.now, complete=complete)
        if not any(key[1] == digest for key in self.claims):
            self.absent[digest] = self.now + (ABSENT_TTL if complete else UNANSWERED_TTL)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def agrees(self):
        for digest in DIGESTS:
            wanted = {peer: record for (peer, d), record in self.claims.items() if d == digest}
            assert dict(self.table.claims(digest)) == wanted
            assert self.table.is_absent(digest, self.now) == (self.absent.get(digest, -1) > self.now)


def run(cls):
    run_state_machine_as_test(cls, settings=settings(max_examples=60, stateful_step_count=20, deadline=None))


def test_claims():
    run(Claims)


def overwrite(self, peer, records):
    """One record for all peers: a liar replaces the honest."""
    Table.claimed(self, peer, records)
    for record in records:
        for other in self.claims(record.digest):
            self._claims[record.digest, other] = record


def keep_absent(self, peer, records):
    absent = dict(self._absent)
    Table.claimed(self, peer, records)
    self._absent.update(absent)


def miss_always(self, digests, now, *, complete):
    self._absent.update(dict.fromkeys(digests, now + ABSENT_TTL))


MUTANTS = {
    "claims are shared": {"claimed": overwrite},
    "a claim does not end a miss": {"claimed": keep_absent},
    "a miss does not look at claims or answers": {"missed": miss_always},
    "misses outlive a new peer": {"connected": lambda self: None},
    "claims outlive their peer": {"disconnected": lambda self, peer: None},
    "withdrawing forgets all peers": {
        "withdrawn": lambda self, peer, ds: [Table.withdrawn(self, p, ds) for p in PEERS],
    },
    "misses never end": {"is_absent": lambda self, digest, now: digest in self._absent},
}


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_kills(name):
    mutant = type("Mutant", (Table,), MUTANTS[name])
    with pytest.raises(AssertionError):
        run(type("MutantClaims", (Claims,), {"table_class": mutant}))


def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MAX_CLAIMS", 10)
    monkeypatch.setattr(module, "MAX_CLAIMS_PER_PEER", 6)
    monkeypatch.setattr(module, "MAX_ABSENT", 5)
    table = Table()
    for peer in PEERS:
        table.claimed(peer, [Record(f"sha256:{n:064x}", 1, ROOTS[0], "p") for n in range(50)])
    assert len(table._claims) == 10
    assert sum(len(mine) for mine in table._by_peer.values()) == sum(map(len, table._holders.values())) == 10
    assert max(len(mine) for mine in table._by_peer.values()) <= 6
    table.missed([f"sha256:{n:064x}" for n in range(100, 200)], 0, complete=True)
    assert len(table._absent) == 5


def test_a_record_that_contradicts_itself_is_no_claim():
    table = Table()
    table.claimed("p0", [Record(DIGESTS[0], 1, make_block(b"raw").cid, "p")])
    assert table.claims(DIGESTS[0]) == {}


# ---- mesh and ranking


def address(n):
    return f"/ip4/10.0.0.{n}/tcp/4001/p2p/peer{n}"


def test_mesh_dials_each_new_peer_once_a_minute():
    mesh = Mesh("me")
    offered = [address(1), address(1), address(2), "/ip4/10.0.0.9/tcp/1/p2p/me", "/ip4/1.2.3.4/tcp/5"]
    assert mesh.to_dial(offered, ["peer2"], 0.0) == [address(1)]
    assert mesh.to_dial(offered, [], 1.0) == [address(2)]
    assert mesh.to_dial(offered, [], RETRY_AFTER + 0.5) == [address(1)]


def test_mesh_stops_at_its_limit():
    mesh = Mesh("me")
    connected = [f"c{n}" for n in range(MESH_LIMIT - 3)]
    assert len(mesh.to_dial([address(n) for n in range(50)], connected, 0.0)) == 3


def test_shared_addresses_leave_the_asker_out():
    known = [("a", ["/ip4/1.1.1.1/tcp/1"]), ("b", ["/ip4/2.2.2.2/tcp/2/p2p/b"] * 9)]
    assert shared_addresses(known, "a") == ["/ip4/2.2.2.2/tcp/2/p2p/b"] * 4
    assert shared_addresses(known, "c")[0] == "/ip4/1.1.1.1/tcp/1/p2p/a"


def test_ranking_is_the_same_for_all_and_spreads():
    nodes = [f"node{n}" for n in range(8)]
    firsts = {ranking(f"sha256:{n:064x}", nodes)[0] for n in range(100)}
    assert firsts == set(nodes)
    assert ranking(DIGESTS[0], nodes) == ranking(DIGESTS[0], reversed(nodes))
    order = ranking(DIGESTS[0], nodes)
    assert ranking(DIGESTS[0], order[1:]) == order[1:], "who leaves does not reorder the rest"
