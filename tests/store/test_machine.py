"""Stores agree with a dict, and survive power loss; every planted fault is found."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from ipcs.testing.store_machine import AgreementMachine
from ipcs.testing.store_power import PowerLossMachine

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def run(machine, examples, steps=30):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=CHECKS,
            print_blob=True,
        ),
    )


class MemoryMachine(AgreementMachine):
    kinds = ("memory",)


class RotatingMachine(PowerLossMachine):
    rotating = True


def test_memory_and_a_dict_agree():
    run(MemoryMachine, examples=25)


def test_memory_leveldb_and_a_dict_agree():
    run(AgreementMachine, examples=5)


def test_power_loss():
    run(PowerLossMachine, examples=20)


def test_power_loss_with_an_older_log():
    run(RotatingMachine, examples=20)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [MemoryMachine, PowerLossMachine, RotatingMachine])
def test_many_histories(machine):
    run(machine, examples=400, steps=40)


@pytest.mark.slow
def test_many_histories_on_disk():
    run(AgreementMachine, examples=60, steps=40)
