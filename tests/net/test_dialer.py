"""The dial schedule, as a hypothesis state machine with the mutants that it must kill."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ipcs.net.dialer import FIRST_DELAY, JITTER, LONGEST_DELAY, STABLE_AFTER, DialState, Redialer

TARGETS = ["a", "b", "c"]


class DialSchedule(RuleBasedStateMachine):
    make = Redialer

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.redialer = self.make(TARGETS)
        self.dialling: set[str] = set()
        self.up: dict[str, float] = {}
        self.failures = dict.fromkeys(TARGETS, 0)
        self.not_before = dict.fromkeys(TARGETS, 0.0)
        self.not_after = dict.fromkeys(TARGETS, 0.0)

    def expect_wait(self, target):
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** self.failures[target])
        self.failures[target] += 1
        self.not_before[target] = self.now + delay * (1 - JITTER)
        self.not_after[target] = self.now + delay

    @rule(seconds=st.floats(0, 2 * LONGEST_DELAY))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def ask(self):
        due = self.redialer.due(self.now)
        assert len(due) == len(set(due))
        for target in due:
            assert target not in self.dialling
            assert target not in self.up
            assert self.now >= self.not_before[target]
            self.dialling.add(target)
        for target in TARGETS:
            if target not in self.up and target not in self.dialling:
                assert self.now < self.not_after[target], f"{target} is overdue"

    @precondition(lambda self: self.dialling)
    @rule(data=st.data(), random=st.floats(0, 1, exclude_max=True))
    def dial_fails(self, data, random):
        target = data.draw(st.sampled_from(sorted(self.dialling)))
        self.redialer.failed(target, self.now, random)
        self.dialling.discard(target)
        self.expect_wait(target)

    @rule(repeats=st.integers(1, 10), random=st.floats(0, 1, exclude_max=True))
    def outage(self, repeats, random):
        for _ in range(repeats):
            self.now = max(self.now, self.redialer.next_deadline() or 0.0)
            self.ask()
            for target in sorted(self.dialling):
                self.redialer.failed(target, self.now, random)
                self.expect_wait(target)
            self.dialling.clear()

    @rule(name=st.sampled_from(TARGETS), report_late=st.booleans())
    def connects(self, name, report_late):
        self.redialer.connected(name, self.now)
        if name in self.dialling and report_late:
            self.redialer.failed(name, self.now, 0.5)  # our own dial lost the race; that changes nothing
        self.dialling.discard(name)
        self.up.setdefault(name, self.now)

    @precondition(lambda self: self.up)
    @rule(data=st.data(), random=st.floats(0, 1, exclude_max=True))
    def connection_is_lost(self, data, random):
        target = data.draw(st.sampled_from(sorted(self.up)))
        if self.now - self.up.pop(target) >= STABLE_AFTER:
            self.failures[target] = 0
        self.redialer.lost(target, self.now, random)
        self.expect_wait(target)

    @invariant()
    def deadline_is_the_earliest_waiting(self):
        waiting = [t for t in TARGETS if t not in self.up and t not in self.dialling]
        deadline = self.redialer.next_deadline()
        assert (deadline is None) == (not waiting)
        if deadline is not None:
            assert min(self.not_before[t] for t in waiting) <= deadline
            assert deadline <= min(self.not_after[t] for t in waiting)
        for target in TARGETS:
            assert (self.redialer.state(target) is DialState.CONNECTED) == (target in self.up)


SETTINGS = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDialSchedule = DialSchedule.TestCase
TestDialSchedule.settings = SETTINGS


class NeverResets(Redialer):
    def lost(self, target, now, random):
        self._targets[target].at = now
        super().lost(target, now, random)


class AlwaysResets(Redialer):
    def lost(self, target, now, random):
        self._targets[target].at = float("-inf")
        super().lost(target, now, random)


class NoJitterBound(Redialer):
    def _wait(self, entry, now, random):
        super()._wait(entry, now, 3 * random)


class NoCap(Redialer):
    def _wait(self, entry, now, random):
        super()._wait(entry, now, 0.0)
        entry.at = now + FIRST_DELAY * 2 ** (entry.failures - 1)


class FailureEndsConnection(Redialer):
    def failed(self, target, now, random):
        self._wait(self._targets[target], now, random)


class DialsTwice(Redialer):
    def due(self, now):
        return [t for t, e in self._targets.items() if e.state is not DialState.CONNECTED and e.at <= now]


MUTANTS = [NeverResets, AlwaysResets, NoJitterBound, NoCap, FailureEndsConnection, DialsTwice]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_mutants_are_killed(mutant):
    machine = type("Mutated", (DialSchedule,), {"make": mutant})
    config = settings(
        SETTINGS,
        max_examples=400,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=config)
