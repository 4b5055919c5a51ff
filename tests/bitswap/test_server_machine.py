"""The serving side as a state machine with the faults it catches, and rules that need many wants or peers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ipcs.bitswap.ledger import Ledger
from ipcs.bitswap.server import Server
from ipcs.testing.mutation import Mutant

_SPEC = importlib.util.spec_from_file_location("server_machine", Path(__file__).with_name("server_machine.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)

COMMON = {"stateful_step_count": 30, "deadline": None, "database": None, "derandomize": True}

MUTANTS = [
    Mutant("a cancelled block is sent all the same", Server, "take_blocks", "if want is not None", "if True"),
    Mutant("debts are not released", Server, "sent", "self._release(ledger, ledger.sending)", "pass"),
    Mutant("a filtered batch keeps its debt", Server, "take_blocks", "ledger.ready_size - total", "0"),
    Mutant("debts of a gone peer stay", Server, "disconnected", "self._outstanding -= ledger.outstanding", "pass"),
    Mutant("a gone peer still waits", Server, "disconnected", "self._no_longer_waiting(want.cid, peer)", "pass"),
    Mutant(
        "a cancel of a kept want is half done", Server, "_forget", "self._no_longer_waiting(cid, ledger.peer)", "pass"
    ),
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
    Mutant("messages grow without end", Server, "_batch", "if cids and (total + size >", "if cids and (0 >"),
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
        run(600, (Phase.generate,))
