"""The serving side as a state machine with the faults it catches, and rules that need many wants or peers."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ipcs.bitswap.engine import Engine
from ipcs.bitswap.events import BlocksRead, BlocksStored, MessageReceived, PeerConnected, ReadBlocks, SendMessage
from ipcs.bitswap.ledger import Ledger
from ipcs.bitswap.limits import Config
from ipcs.bitswap.message import Entry
from ipcs.bitswap.server import Server
from ipcs.block import make_block
from ipcs.cid import PeerId
from ipcs.testing.mutation import Mutant

_SPEC = importlib.util.spec_from_file_location("server_machine", Path(__file__).with_name("server_machine.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

COMMON = {"stateful_step_count": 30, "deadline": None, "database": None, "derandomize": True}

MUTANTS = [
    Mutant(
        "a cancelled block is sent all the same",
        Server,
        "take_blocks",
        "if want is not None and want.claimed",
        "if True",
    ),
    Mutant("debts are not released", Server, "sent", "self._release(ledger, ledger.sending)", "pass"),
    Mutant("a filtered batch keeps its debt", Server, "take_blocks", "ledger.ready_size - total", "0"),
    Mutant("debts of a gone peer stay", Server, "disconnected", "self._outstanding -= ledger.outstanding", "pass"),
    Mutant("a gone peer still waits", Server, "disconnected", "self._no_longer_waiting(want.cid, peer)", "pass"),
    Mutant(
        "a cancel of a kept want is half done", Server, "_forget", "self._no_longer_waiting(cid, ledger.peer)", "pass"
    ),
    Mutant("a full list leaves old answers queued", Server, "receive", "ledger.presences.clear()", "pass"),
    Mutant("full does not replace", Server, "receive", "if full:", "if False:"),
    Mutant("a full list drops what is being sent", Server, "receive", "if not want.claimed", ""),
    Mutant("HAVE for a want-block", Server, "_serve", "want.want_block or ", ""),
    Mutant("HAVE for a small block", Server, "_serve", "want.size <= WANT_HAVE_REPLACE_SIZE", "False"),
    Mutant("DONT_HAVE for everybody", Server, "_want", "if entry.send_dont_have:", "if True:"),
    Mutant("a want for an absent block is dropped", Server, "_want", "ledger.wants[entry.cid] = want", "return"),
    Mutant("who waits is not told", Server, "stored", "self._serve(ledger, want)", "pass"),
    Mutant("an unbounded read-ahead", Server, "_may_read", "ledger.reading or ledger.ready is not None or ", ""),
    Mutant("a vanished block stays claimed", Server, "read", "del ledger.wants[cid]", "pass"),
    Mutant("a want on its way is queued again", Server, "_want", "if known.claimed:", "if False:"),
    Mutant("a want-have weakens a want-block", Server, "_want", "want_block or known.want_block", "want_block"),
    Mutant("lowest priority first", Ledger, "queue", "-want.priority", "want.priority"),
    Mutant("cancelled wants stay queued", Ledger, "unqueue", "self._queued_orders.discard(want.order)", "pass"),
    Mutant("a large block joins a message", Server, "_batch", "want.size > PACKED_BLOCK_SIZE", "False"),
]


def run(examples, phases):
    run_state_machine_as_test(_MODULE.ServerMachine, settings=settings(max_examples=examples, phases=phases, **COMMON))


def test_server_against_scripted_peers():
    run(100, tuple(Phase))


@pytest.mark.slow
def test_server_against_scripted_peers_at_length():
    run(1500, tuple(Phase))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_faults_are_caught(mutant):
    with mutant.planted(), pytest.raises(Exception):  # noqa: B017, PT011 - failing in any way is what is asked
        run(3000, (Phase.generate,))


@pytest.mark.parametrize("found", [True, False], ids=["read", "vanished"])
def test_a_want_that_follows_a_cancelled_one_has_its_own_turn(found):
    """Cancelled and asked for again, as absent, while the store still reads it for the first want."""
    block = make_block(b"x" * 2000)
    engine, peer = Engine(Config(), random.Random(1)), PeerId("p")

    def handle(event):
        return [action for action in engine.handle(event, 0.0) if not isinstance(action, SendMessage)]

    want = Entry(block.cid, 5)
    handle(PeerConnected(peer))
    assert handle(MessageReceived(peer, [want], [2000])) == [ReadBlocks(peer, [block.cid])]
    handle(MessageReceived(peer, [Entry(block.cid, 0, cancel=True)], [None]))
    handle(MessageReceived(peer, [want], [None]))
    assert handle(BlocksRead(peer, [(block.cid, block.data if found else None)])) == []
    assert handle(BlocksStored([(block.cid, 2000)])) == [ReadBlocks(peer, [block.cid])]
    [message] = [a.message for a in engine.handle(BlocksRead(peer, [block]), 0.0) if isinstance(a, SendMessage)]
    assert [data for _, data in message.blocks] == [block.data]
    assert handle(BlocksStored([(block.cid, 2000)])) == []
