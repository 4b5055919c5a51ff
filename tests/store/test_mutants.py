"""Faults planted in the store, each of which a state machine must find: a machine that finds nothing proves nothing."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ipcs.cid import multihash_of
from ipcs.store import collector, layout, recovery
from ipcs.store.barrier import Barrier
from ipcs.store.collector import Collector
from ipcs.store.counts import Counter
from ipcs.store.datastore import Transaction
from ipcs.store.holds import Fetches, Holds
from ipcs.store.layout import PAGE
from ipcs.store.logstore import LogBlockstore
from ipcs.store.memory import MemoryFile
from ipcs.store.references import References
from ipcs.store.roots import RootTable
from ipcs.store.segments import SegmentLog
from ipcs.testing.store_machine import AgreementMachine
from ipcs.testing.store_power import PowerLossMachine


class MemoryMachine(AgreementMachine):
    kinds = ("memory",)


class RotatingMachine(PowerLossMachine):
    rotating = True


def counted_again(self, transaction, root):
    """The links of a new root are counted, whether it was counted as a part of something or not."""
    key = layout.BLOCK + multihash_of(root)
    value = transaction.get(key)
    if value is not None:
        transaction.put(key, layout.repack_entry(layout.unpack_entry(value)._replace(codec=0), value))
    add(self, transaction, root)


def counted_once(self, transaction, multihash, serial):
    """A block goes with the first DAG that goes, however many share it."""
    value = transaction.get(layout.BLOCK + multihash)
    if value is None:
        return None
    entry = layout.unpack_entry(value)
    transaction.put(layout.BLOCK + multihash, layout.repack_entry(entry._replace(counted=1), value))
    return drop(self, transaction, multihash, serial)


def children_stay(self, transaction, multihash, serial):
    """Links of a block that goes are not decremented."""
    value = transaction.get(layout.BLOCK + multihash)
    if value is not None:
        entry = layout.unpack_entry(value)._replace(codec=0)
        transaction.put(layout.BLOCK + multihash, layout.repack_entry(entry, value))
    return drop(self, transaction, multihash, serial)


def one_page_more(self, ranges):
    """The hole is a page too long."""
    free(self, [at._replace(length=at.length + PAGE) for at in ranges])


def old_position(self):
    """The barrier of a store that was opened and closed, and not written to, lies at the start of a segment."""
    return self._segment, max(self._page, 0)


def puts_again(self, blocks):
    """Blocks that are there are stored once more, and the first copy forgotten."""
    self._datastore.write([(layout.BLOCK + block.cid[-34:], None) for block in blocks], sync=False)
    put_many(self, blocks)


def sync_none(self):
    """Nothing is synced."""


def commit_unsynced(self, transaction, mark):
    self._note(transaction, mark)
    transaction.commit(sync=False)


def commit_unmarked(self, transaction, mark):
    """The batch of a commit does not carry the barrier: recovery looks behind an older one."""
    transaction.commit(sync=True)


def forget_list(self, already=frozenset()):
    """Ranges are taken off the list before their holes are durable."""
    self.datastore.write([(key, None) for key, _ in self.datastore.scan(layout.FREED)], sync=True)


class CarelessLog(SegmentLog):
    """Recovery finds nothing behind the barrier to free; `fsck`, which looks from the beginning, does."""

    def unclaimed(self, claimed, since=(0, 0)):
        return super().unclaimed(claimed) if since == (0, 0) else []


class UnsyncedTransaction(Transaction):
    """Space is freed before the index has forgotten it durably."""

    def commit(self, *, sync):
        super().commit(sync=False)


add, drop, free, put_many = Counter.add, Counter.drop, SegmentLog.free, LogBlockstore.put_many

MUTANTS = {
    "collection takes the blocks of an ingest": (MemoryMachine, Holds, "keeps", lambda self, key: False),
    "collection takes held roots": (MemoryMachine, Holds, "roots", lambda self: set()),
    "collection takes fetched blocks": (MemoryMachine, Fetches, "follow", lambda self, transaction: None),
    "shared blocks go with the first blob": (MemoryMachine, Counter, "drop", counted_once),
    "links are never decremented": (MemoryMachine, Counter, "drop", children_stay),
    "a new root counts its links again": (MemoryMachine, Counter, "add", counted_again),
    "references by digest hold nothing": (MemoryMachine, RootTable, "names_of", lambda self, transaction, root: [root]),
    "leases last for ever": (MemoryMachine, References, "expire", lambda self: 0),
    "a reference to a CID counts nothing": (MemoryMachine, RootTable, "_add", lambda self, transaction, cid: None),
    "a segment goes while it has data": (MemoryMachine, MemoryFile, "has_data", lambda self, offset, size: False),
    "a hole is a page too long": (MemoryMachine, SegmentLog, "free", one_page_more),
    "the barrier goes backwards": (MemoryMachine, SegmentLog, "position", property(old_position)),
    "a put replaces what is there": (MemoryMachine, LogBlockstore, "put_many", puts_again),
    "segments are not synced": (PowerLossMachine, SegmentLog, "sync", sync_none),
    "commits are not synced": (PowerLossMachine, Barrier, "commit", commit_unsynced),
    "recovery trusts the tail": (PowerLossMachine, recovery, "_is_whole", lambda *_: True),
    "recovery leaves lost space": (PowerLossMachine, recovery, "SegmentLog", CarelessLog),
    "holes are forgotten early": (PowerLossMachine, Collector, "punch_listed", forget_list),
    "collection does not sync": (PowerLossMachine, collector, "Transaction", UnsyncedTransaction),
    "commits do not carry the barrier": (RotatingMachine, Barrier, "commit", commit_unmarked),
}


def find(machine, examples):
    """Run `machine` without shrinking: the first failure will do."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_it_is_killed(name, monkeypatch):
    machine, owner, attribute, replacement = MUTANTS[name]
    monkeypatch.setattr(owner, attribute, replacement)
    killed = False
    try:
        find(machine, examples=400)
    except Exception:  # noqa: BLE001 - whatever the fault breaks, it is found
        killed = True
    assert killed, f"no example of {machine.__name__} found that {name}"
