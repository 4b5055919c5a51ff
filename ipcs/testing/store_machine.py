"""Hypothesis state machines over stores, with a plain dict as the judge.

`AgreementMachine`: several stores and the dict must agree over put, get, delete, reference, hold, collect and reopen.
`PowerLossMachine`: a store that loses its power at any moment keeps all that it promised and never lies.

The judge shares no code with the store: it knows the few DAGs by heart and computes what must stay by reachability.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ..block import Block, make_block
from ..cid import Cid, Multihash, cid_to_digest, multihash_of
from ..errors import FailedPrecondition, NotFound
from ..store.datastore import MemoryDatastore
from ..store.holds import Hold
from ..store.layout import Root
from ..store.memory import MemoryDirectory
from ..store.store import Store, StoreOptions, open_store
from .dags import Dag, links_of, make_dag, make_node
from .stores import PowerLoss

T = TypeVar("T")

MEMORY = Path("/dev/shm")
"""Where the stores on disk lie: agreement needs no disk to be waited for."""

SEGMENT_SIZE = 16 << 10
"""Small, so that a handful of blocks fills several segments."""

LEAVES = [bytes((index + 1,)) * size for index, size in enumerate((10, 4096, 5000, 9000, 4097, 2049))]
_TWICE = make_node([make_block(LEAVES[4]).cid] * 2)
DAGS = [
    make_dag(LEAVES[:4], 2),
    make_dag(LEAVES[2:], 2),
    make_dag(LEAVES[1:2]),
    Dag(_TWICE.cid, [make_block(LEAVES[4]), _TWICE]),
    make_dag(LEAVES[2:4], 2),
]
"""Two that share an inner node, one that is a leaf of another, one that repeats a link, and that inner node."""

NAMES = range(len(DAGS))
BLOCKS: dict[Multihash, Block] = {multihash_of(block.cid): block for dag in DAGS for block in dag.blocks}
KEYS = sorted(BLOCKS)
OWNERS = ("containerd", "user/a", "lease/b")
START = 10**18

dags = st.sampled_from(NAMES)
parts = st.tuples(st.integers(0, 6), st.integers(1, 7))
owners = st.sampled_from(OWNERS)
seeds = st.integers(0, 2**32)
moments = st.integers(0, 15)


def reach(root: Cid, present: set[Multihash]) -> set[Multihash]:
    """The blocks under `root` that hang together from it within `present`."""
    found: set[Multihash] = set()
    stack = [root]
    while stack:
        cid = stack.pop()
        key = multihash_of(cid)
        if key in present:
            found.add(key)
            stack += links_of(cid, BLOCKS[key].data)
    return found


class Model:
    """What a store should hold, in dicts."""

    def __init__(self) -> None:
        self.blocks: set[Multihash] = set()
        self.roots: dict[Cid, set[str]] = {}
        self.references: dict[tuple[str, Root], int] = {}

    def is_whole(self, dag: Dag) -> bool:
        return {multihash_of(block.cid) for block in dag.blocks} <= self.blocks

    def counted(self) -> set[Multihash]:
        return set().union(*(reach(root, self.blocks) for root in self.roots))

    def refer(self, owner: str, root: Root, expires_at: int = 0) -> None:
        self.references[owner, root] = expires_at
        if not isinstance(root, str):
            self.roots.setdefault(root, set())

    def is_held(self, root: Cid) -> bool:
        names: set[Root] = {root, *self.roots[root]}
        return any(name in names for _, name in self.references)

    def collect(self, now: int, held: set[Root], ingested: set[Multihash]) -> None:
        self.references = {key: at for key, at in self.references.items() if not at or at > now}
        for root in list(self.roots):
            if not self.is_held(root) and held.isdisjoint({root, *self.roots[root]}):
                del self.roots[root]
        fetched = [reach(root, self.blocks) for root in held if not isinstance(root, str)]
        self.blocks &= set().union(self.counted(), ingested, *fetched)


class AgreementMachine(RuleBasedStateMachine):
    """Every store of `kinds` does what the dict does."""

    kinds: tuple[str, ...] = ("memory", "leveldb")

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.model = Model()
        self.folder = Path(tempfile.mkdtemp(prefix="ipcs-machine-", dir=MEMORY if MEMORY.is_dir() else None))
        datastore, directory = MemoryDatastore(), MemoryDirectory()
        options = StoreOptions(segment_size=SEGMENT_SIZE, clock=lambda: self.now)
        openers: dict[str, Callable[[], Store]] = {
            "memory": lambda: Store(datastore, directory, links_of, options),
            "leveldb": lambda: open_store(self.folder / "store", links_of, options),
        }
        self.openers = [openers[kind] for kind in self.kinds]
        self.stores = [opener() for opener in self.openers]
        self.holds: dict[Root | None, list[Hold]] = {}
        self.ingested: set[Multihash] = set()

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.folder)

    @rule(name=dags, part=parts)
    def put(self, name: int, part: tuple[int, int]) -> None:
        blocks = DAGS[name].blocks[part[0] :][: part[1]]
        for store in self.stores:
            store.blocks.put_many(blocks)
        self.model.blocks |= {multihash_of(block.cid) for block in blocks}

    @rule(name=dags)
    def put_whole(self, name: int) -> None:
        self.put(name, (0, len(DAGS[name].blocks)))

    @rule(name=dags, part=parts)
    def ingest(self, name: int, part: tuple[int, int]) -> None:
        blocks = DAGS[name].blocks[part[0] :][: part[1]]
        if None not in self.holds:
            self.holds[None] = [store.hold() for store in self.stores]
        for hold in self.holds[None]:
            hold.put_many(blocks)
        keys = {multihash_of(block.cid) for block in blocks}
        self.model.blocks |= keys
        self.ingested |= keys

    @rule(name=dags, by_digest=st.booleans())
    def hold(self, name: int, by_digest: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
        dag = DAGS[name]
        root: Root = cid_to_digest(dag.root) if by_digest else dag.root
        if root not in self.holds:
            self.holds[root] = [store.hold(root) for store in self.stores]

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        root = _draw(data, self.holds)
        for hold in self.holds.pop(root):
            hold.close()
        if root is None:
            self.ingested.clear()

    @rule(name=dags, owner=st.sampled_from([None, *OWNERS]))
    def commit(self, name: int, owner: str | None) -> None:
        dag = DAGS[name]
        whole = self.model.is_whole(dag)
        record = dag.record(at=self.now)
        for store in self.stores:
            assert _done(partial(store.commit_blob, record, owner), NotFound) == whole
        if whole:
            self.model.roots.setdefault(dag.root, set()).add(record.digest)
            if owner is not None:
                self.model.refer(owner, record.digest)

    @rule(name=dags, owner=owners, by_digest=st.booleans(), lasts=st.sampled_from([0, 0, 5]))
    def refer(self, name: int, owner: str, by_digest: bool, lasts: int) -> None:  # noqa: FBT001 - as above
        dag = DAGS[name]
        root: Root = cid_to_digest(dag.root) if by_digest else dag.root
        allowed = by_digest or dag.root in self.model.roots or self.model.is_whole(dag)
        expires_at = self.now + lasts if lasts else 0
        for store in self.stores:
            add = partial(store.references.add, owner, root, expires_at=expires_at)
            assert _done(add, NotFound) == allowed
        if allowed:
            self.model.refer(owner, root, expires_at)

    @precondition(lambda self: self.model.references)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        owner, root = _draw(data, self.model.references)
        for store in self.stores:
            assert store.references.drop(owner, root)
            assert not store.references.drop(owner, root)
        del self.model.references[owner, root]

    @rule(name=dags)
    def touch(self, name: int) -> None:
        self.now += 120 * 10**9
        for store in self.stores:
            store.touch(DAGS[name].root)

    @rule(keys=st.lists(st.sampled_from(range(len(KEYS))), min_size=1, max_size=3))
    def delete(self, keys: list[int]) -> None:
        asked = [KEYS[key] for key in keys]
        allowed = self.model.counted().isdisjoint(asked)
        for store in self.stores:
            assert _done(partial(store.blocks.delete_many, asked), FailedPrecondition) == allowed
        if allowed:
            self.model.blocks -= set(asked)

    @rule()
    def collect(self) -> None:
        self.now += 1
        rehearsed = [store.collect(dry_run=True) for store in self.stores]
        before = len(self.model.blocks)
        expired = any(at and at <= self.now for at in self.model.references.values())
        self.model.collect(self.now, {root for root in self.holds if root is not None}, self.ingested)
        for store, plan in zip(self.stores, rehearsed, strict=True):
            report = store.collect()
            assert report.blocks == before - len(self.model.blocks)
            assert expired or (plan.blobs, plan.blocks, plan.block_bytes) == (
                report.blobs,
                report.blocks,
                report.block_bytes,
            )

    @rule()
    def reopen(self) -> None:
        for holds in self.holds.values():
            for hold in holds:
                hold.close()
        self.holds.clear()
        self.ingested.clear()
        for store in self.stores:
            store.close()
        self.stores = [opener() for opener in self.openers]

    @invariant()
    def they_agree(self) -> None:
        for store in self.stores:
            has = store.blocks.has_many(KEYS)
            assert {key for key, here in zip(KEYS, has, strict=True) if here} == self.model.blocks
            assert set(store.blocks.keys()) == self.model.blocks
            for key, data in zip(KEYS, store.blocks.get_many(KEYS), strict=True):
                assert (data is not None) == (key in self.model.blocks), "a block is lost"
                assert data is None or bytes(data) == BLOCKS[key].data, "a block lies"
            assert {record.digest for record in store.blobs} == set().union(*self.model.roots.values())
            assert {(at.owner, at.root): at.expires_at for at in store.references.held_by()} == self.model.references
            assert store.fsck().problems == ()


class PowerLossMachine(RuleBasedStateMachine):
    """What was acknowledged is there after every crash, and what is there is right."""

    rotating = False
    """Whether the index may also lose the end of its older log (see `LossyDatastore.rotate`)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.disk = PowerLoss()
        self.store = self._open()
        self.committed: dict[Cid, str] = {}
        self.references: set[tuple[str, Root]] = set()
        self.counter = 0

    def teardown(self) -> None:
        self.store.close()

    @rule(name=dags, part=parts)
    def put(self, name: int, part: tuple[int, int]) -> None:
        self.store.blocks.put_many(DAGS[name].blocks[part[0] :][: part[1]])

    @rule(name=dags, owner=owners)
    def ingest(self, name: int, owner: str) -> None:
        dag = DAGS[name]
        with self.store.hold() as hold:
            hold.put_many(dag.blocks)
            record = dag.record(at=self.now)
            self.store.commit_blob(record, owner)
        self.committed[dag.root] = record.digest
        self.references.add((owner, record.digest))

    @rule(name=dags)
    def pin(self, name: int) -> None:
        dag = DAGS[name]
        self.store.blocks.put_many(dag.blocks)
        self.store.references.add("user/a", dag.root)
        self.references.add(("user/a", dag.root))

    @precondition(lambda self: self.references)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        owner, root = _draw(data, self.references)
        assert self.store.references.drop(owner, root)
        self.references.discard((owner, root))

    @rule(name=dags)
    def touch(self, name: int) -> None:
        self.now += 120 * 10**9
        self.store.touch(DAGS[name].root)

    @rule(down_to=st.sampled_from([0, 0, 20_000]))
    def collect(self, down_to: int) -> None:
        self.store.collect(down_to=down_to)
        self._forget_cache()

    def _forget_cache(self) -> None:
        """A collection may have taken blobs that nobody holds, and only those."""
        held = {root for _, root in self.references}
        here = {record.digest for record in self.store.blobs}
        gone = {root: digest for root, digest in self.committed.items() if digest not in here}
        assert not any(root in held or digest in held for root, digest in gone.items())
        for root in gone:
            del self.committed[root]

    @rule(keys=st.lists(st.sampled_from(range(len(KEYS))), min_size=1, max_size=3))
    def delete(self, keys: list[int]) -> None:
        asked = [KEYS[key] for key in keys]
        _done(lambda: self.store.blocks.delete_many(asked), FailedPrecondition)

    @precondition(lambda self: self.rotating)
    @rule()
    def rotate(self) -> None:
        self.disk.datastore.rotate()

    @rule(name=dags)
    def put_whole(self, name: int) -> None:
        self.store.blocks.put_many(DAGS[name].blocks)

    @rule(name=dags, owner=owners)
    def commit(self, name: int, owner: str) -> None:
        record = DAGS[name].record(at=self.now)
        if _done(partial(self.store.commit_blob, record, owner), NotFound):
            self.committed[record.root] = record.digest
            self.references.add((owner, record.digest))

    @precondition(lambda self: self.rotating)
    @rule(name=dags, owner=owners)
    def ingest_across_logs(self, name: int, owner: str) -> None:
        self.put_whole(name)
        self.disk.datastore.rotate()
        self.commit(name, owner)

    @rule(seed=seeds)
    def lose_power(self, seed: int) -> None:
        self._come_back(self.disk.crash(random.Random(seed), rotated=self.rotating))

    @rule(seed=seeds, steps=moments)
    def lose_power_collecting(self, seed: int, steps: int) -> None:
        self.disk.crash_later(steps, random.Random(seed), rotated=self.rotating)
        self.store.collect()
        self._come_back(self.disk.crashed())
        self._forget_cache()

    @rule(seed=seeds, steps=moments, name=dags)
    def lose_power_ingesting(self, seed: int, steps: int, name: int) -> None:
        record = DAGS[name].record(at=self.now)
        self.disk.crash_later(steps, random.Random(seed), rotated=self.rotating)
        self.store.blocks.put_many(DAGS[name].blocks)
        self.store.commit_blob(record, "containerd")
        self._come_back(self.disk.crashed())
        if any(at.owner == "containerd" for at in self.store.references.holders(record.digest)):
            self.committed[record.root] = record.digest
            self.references.add(("containerd", record.digest))

    @precondition(lambda self: self.references)
    @rule(seed=seeds, steps=moments, data=st.data())
    def lose_power_dropping(self, seed: int, steps: int, data: st.DataObject) -> None:
        owner, root = _draw(data, self.references)
        self.disk.crash_later(steps, random.Random(seed), rotated=self.rotating)
        self.store.references.drop(owner, root)
        self._come_back(self.disk.crashed())
        if all(at.owner != owner or at.root != root for at in self.store.references.holders(root)):
            self.references.discard((owner, root))

    @invariant()
    def promises_hold(self) -> None:
        for data, key in zip(self.store.blocks.get_many(KEYS), KEYS, strict=True):
            assert data is None or bytes(data) == BLOCKS[key].data, "a block lies"
        assert {record.root for record in self.store.blobs} == self.committed.keys()
        assert {(at.owner, at.root) for at in self.store.references.held_by()} == self.references
        pinned = {root for _, root in self.references if not isinstance(root, str)}
        for root in self.committed.keys() | pinned:
            dag = next(dag for dag in DAGS if dag.root == root)
            assert all(self.store.blocks.has_many([multihash_of(block.cid) for block in dag.blocks]))

    def _come_back(self, disk: PowerLoss) -> None:
        self.store.close()
        self.disk = disk
        self.store = self._open()
        allowed = {"queue", "orphan"} if self.rotating else set()
        assert {problem.kind for problem in self.store.fsck().problems} <= allowed

    def _open(self) -> Store:
        options = StoreOptions(segment_size=SEGMENT_SIZE, clock=lambda: self.now)
        return Store(self.disk.datastore, self.disk.directory, links_of, options)


def _draw(data: st.DataObject, choices: Iterable[T]) -> T:
    """One of `choices`, drawn by its place in order, so that failures print short."""
    ordered = sorted(choices, key=repr)
    return ordered[data.draw(st.integers(0, len(ordered) - 1))]


def _done(action: Callable[[], object], error: type[Exception]) -> bool:
    try:
        action()
    except error:
        return False
    return True
