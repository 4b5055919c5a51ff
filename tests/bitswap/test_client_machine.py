"""The fetching side as a state machine, and the faults that it is known to catch."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ipcs.bitswap import events
from ipcs.bitswap.client import Client
from ipcs.bitswap.engine import Engine
from ipcs.bitswap.limits import LATE_CANCEL_DELAY, WINDOW_START, Config
from ipcs.bitswap.message import Entry
from ipcs.bitswap.remote import Remote
from ipcs.bitswap.schedule import Scheduler
from ipcs.bitswap.session import Session, Want
from ipcs.bitswap.wantlist import Wantlist
from ipcs.block import make_block
from ipcs.cid import PeerId
from ipcs.testing.mutation import Mutant

_SPEC = importlib.util.spec_from_file_location("client_machine", Path(__file__).with_name("client_machine.py"))
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
ClientMachine = _MODULE.ClientMachine

STEPS = 40
COMMON = {"stateful_step_count": STEPS, "deadline": None, "database": None, "derandomize": True}

MUTANTS = [
    Mutant(
        "a met want is not cancelled at the others",
        Client,
        "_settle",
        "remote.wantlist.cancel(cid)",
        "pass",
    ),
    Mutant("a disconnect loses what the peer owed", Client, "disconnected", "self._give_back(want)", "pass"),
    Mutant("a refusal is not heard", Client, "lack", "self._take_back(want, remote)", "pass"),
    Mutant("an overdue ask is kept", Client, "expire", "self._take_back(want, remote)", "pass"),
    Mutant("a stall is not noticed", Remote, "expire", "stalled = self._progress < ask.sent", "break"),
    Mutant("a block is taken twice", Client, "receive", "want.open", "want"),
    Mutant(
        "whatever comes is stored",
        Client,
        "receive",
        "unasked += 1",
        "wanted.append(block)",
    ),
    Mutant(
        "an asked want is asked of the next peer too",
        Want,
        "unclaimed",
        "self.asked or ",
        "",
    ),
    Mutant("an announcement is not noted", Client, "_announce", "self._offer(want)", "pass"),
    Mutant("a holder's blocks are not given back", Client, "_give_back", "session.returned.append(want)", "pass"),
    Mutant("a revived peer's announcements stay muted", Client, "_revive", "self._announce(want, peer)", "pass"),
    Mutant(
        "what a silent peer announces keeps others from being asked",
        Client,
        "_announce",
        "self.remotes[peer].stalled",
        "False",
    ),
    Mutant(
        "a muted peer can still be asked for what it announced",
        Client,
        "_mute",
        "member.available.pop(want.cid, None)",
        "pass",
    ),
    Mutant(
        "a neighbour of another session is not asked",
        Scheduler,
        "_pump",
        "self._ask_neighbour(",
        "member.holding is Holding.PARTIAL and self._ask_neighbour(",
    ),
    Mutant(
        "a session that leaves cancels another's wants",
        Client,
        "close",
        "not want.sessions and not want.received",
        "not want.received",
    ),
    Mutant(
        "a met want is delivered to one session only",
        Client,
        "stored",
        "session.drop(want)",
        "session.drop(want); break",
    ),
    Mutant("a cancel is forgotten", Wantlist, "cancel", "known is None", "True"),
    Mutant("the cancel of a want-block waits", Wantlist, "cancel", "known.want_have", "True"),
    Mutant("a cancel waits for ever", Engine, "_hurry", "self.client.remotes[peer].wantlist.hurry()", "pass"),
    Mutant("a late answer counts as unasked", Remote, "remember", "self.settled[cid] = None", "return"),
    Mutant("bytes in flight leak", Remote, "unask", "self.in_flight -= ask.size", "pass"),
    Mutant("the timer of a quiet peer is lost", Client, "next_deadline", "remote.quiet_until > now", "False"),
    Mutant("an overdue timer stays due", Client, "next_deadline", "remote.quiet_until > now", "True"),
    Mutant("the endgame asks before anything is late", Scheduler, "_endgame", "if late > now:", "if False:"),
    Mutant("a neighbour is never asked", Scheduler, "_ask_neighbour", "if not source or", "if source or"),
    Mutant("a new peer hears of nothing", Scheduler, "_discover", "member.probes[want.cid] = None", "continue"),
    Mutant("a standing want outlives its block", Client, "_announce", "self._withdraw(want, origin)", "pass"),
    Mutant("strikes are not counted", Engine, "_blocks", "traffic.unasked_blocks += unasked", "pass"),
    Mutant("a new peer does not join open sessions", Client, "connected", "session.join(peer)", "pass"),
    Mutant("wants of a second call are lost", Session, "add", "self.order.append(want)", "pass"),
]


def run(examples, phases):
    run_state_machine_as_test(ClientMachine, settings=settings(max_examples=examples, phases=phases, **COMMON))


def test_client_against_scripted_peers():
    run(150, tuple(Phase))


def test_a_second_session_learns_who_announced_a_want():
    """The machine's blocks fill no window, so no want waits there at a peer that announced it."""
    first, second = (make_block(bytes([number])).cid for number in range(2))
    engine, peer = Engine(Config(), random.Random(1)), PeerId("p")
    engine.handle(events.PeerConnected(peer), 0.0)
    engine.handle(events.SessionOpened(1, first, [], WINDOW_START), 0.0)
    engine.handle(events.BlocksWanted(1, [first, second]), 0.0)
    engine.handle(events.MessageReceived(peer, [Entry(first, want_have=True)], [None]), 0.0)
    engine.handle(events.MessageReceived(peer, haves=[first, second]), 0.0)
    assert list(engine.client.remotes[peer].asks) == [first]
    engine.handle(events.SessionOpened(2, first, [], WINDOW_START), 0.0)
    engine.handle(events.BlocksWanted(2, [second]), 0.0)
    engine.handle(events.SessionClosed(1), 0.0)
    assert list(engine.client.remotes[peer].asks) == [second]


def cancels_to_a_peer(*, sends_it_too):
    """Whether a peer that was asked whether it has a block is told to forget that, once another sent the block."""
    wanted = make_block(b"wanted")
    engine, source, other = Engine(Config(), random.Random(1)), PeerId("a"), PeerId("b")
    engine.handle(events.PeerConnected(source), 0.0)
    engine.handle(events.PeerConnected(other), 0.0)
    engine.handle(events.SessionOpened(1, wanted.cid, []), 0.0)
    engine.handle(events.BlocksWanted(1, [wanted.cid]), 0.0)
    assert engine.client.remotes[other].wantlist.sent[wanted.cid].want_have
    engine.handle(events.MessageSent(other, events.Lane.CONTROL), 0.0)
    engine.handle(events.MessageReceived(source, haves=[wanted.cid]), 0.01)
    actions = engine.handle(events.MessageReceived(source, blocks=[wanted]), 0.02)
    if sends_it_too:
        actions += engine.handle(events.MessageReceived(other, blocks=[wanted]), 0.03)
    actions += engine.handle(events.TimePassed(), 0.02 + 2 * LATE_CANCEL_DELAY)
    sent = [action for action in actions if isinstance(action, events.SendMessage) and action.peer == other]
    return any(entry.cancel for message in sent for entry in message.message.entries)


def test_a_want_that_its_peer_met_unasked_is_not_cancelled():
    """Too rare a course for the machine to take each time."""
    assert cancels_to_a_peer(sends_it_too=False)
    assert not cancels_to_a_peer(sends_it_too=True)
    fault = Mutant("met unasked, held to be there", Remote, "repeated", "self.wantlist.answered(cid)", "pass")
    with fault.planted():
        assert cancels_to_a_peer(sends_it_too=True)


@pytest.mark.slow
def test_client_against_scripted_peers_at_length():
    run(1000, tuple(Phase))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_faults_are_caught(mutant):
    """Most within a hundred runs, a few after a thousand: which ones the machine makes differs between Pythons."""
    with mutant.planted(), pytest.raises(Exception):  # noqa: B017, PT011 - failing in any way is what is asked
        run(8000, (Phase.generate,))
