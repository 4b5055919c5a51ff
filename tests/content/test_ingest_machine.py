"""The machine of ingests passes, and fails with each planted fault."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ipcs.content.ingest import Ingest
from ipcs.content.ingests import Ingests
from ipcs.errors import IpcsError
from ipcs.testing.mutation import Mutant

from .ingest_machine import IngestMachine

SETTINGS = settings(max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
HUNT = settings(SETTINGS, max_examples=200, derandomize=True, database=None, phases=[Phase.generate])

MUTANTS = [
    Mutant("the running hash skips a write", Ingest, "write", "self._hash.update(data)", "self._hash.update(data[1:])"),
    Mutant("the offset is one write behind", Ingest, "write", "self.offset += len(data)", "self.offset = len(data)"),
    Mutant("starting over keeps the hash", Ingest, "_restart", "self._hash = hashlib.sha256()", "pass"),
    Mutant("starting over keeps the leaves", Ingest, "_restart", "self._importer = Importer(self._profile)", "pass"),
    Mutant("any offset will do", Ingest, "seek", "if offset:", "if False:"),
    Mutant("a wrong size is committed", Ingest, "check", "size and size != self.offset", "False"),
    Mutant("a wrong digest is committed", Ingest, "check", "expected and expected != digest", "False"),
    Mutant("a restart forgets the last leaf", Ingests, "_rehash", "found[:whole]", "found[: max(0, whole - 1)]"),
    Mutant("a restart stops after a batch", Ingests, "_rehash", "if whole < len(keys):", "if True:"),
    Mutant("an aborted ref goes on", Ingests, "abort", "self._drop(ref, entry)", "pass"),
]


def test_ingests_agree_with_the_model():
    run_state_machine_as_test(IngestMachine, settings=SETTINGS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(mutant):
    with mutant.planted(), pytest.raises((AssertionError, IpcsError, pytest.fail.Exception)):
        run_state_machine_as_test(IngestMachine, settings=HUNT)
