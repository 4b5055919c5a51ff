"""A hypothesis state machine: a store that loses its power at any moment keeps all it promised and never lies."""

from __future__ import annotations

import random
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ..cid import Cid, multihash_of
from ..errors import FailedPrecondition, NotFound
from ..store.layout import Root
from ..store.store import Store, StoreOptions
from .dags import links_of
from .store_universe import BLOCKS, DAGS, KEYS, SEGMENT_SIZE, START, dags, done, draw, moments, owners, parts, seeds
from .stores import PowerLoss


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
        owner, root = draw(data, self.references)
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
        done(lambda: self.store.blocks.delete_many(asked), FailedPrecondition)

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
        if done(partial(self.store.commit_blob, record, owner), NotFound):
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
        owner, root = draw(data, self.references)
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
