"""A hypothesis state machine: several stores and a dict must agree over all that can be done to a store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ..cid import Multihash, cid_to_digest, multihash_of
from ..errors import FailedPrecondition, NotFound
from ..store.datastore import MemoryDatastore
from ..store.holds import Hold
from ..store.layout import Root
from ..store.memory import MemoryDirectory
from ..store.store import Store, StoreOptions, open_store
from .dags import links_of
from .store_universe import (
    BLOCKS,
    DAGS,
    KEYS,
    MEMORY,
    OWNERS,
    SEGMENT_SIZE,
    START,
    Model,
    dags,
    done,
    draw,
    owners,
    parts,
)


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
        root = draw(data, self.holds)
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
            assert done(partial(store.commit_blob, record, owner), NotFound) == whole
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
            assert done(add, NotFound) == allowed
        if allowed:
            self.model.refer(owner, root, expires_at)

    @precondition(lambda self: self.model.references)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        owner, root = draw(data, self.model.references)
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
            assert done(partial(store.blocks.delete_many, asked), FailedPrecondition) == allowed
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
