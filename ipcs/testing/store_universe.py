"""A few small DAGs that share blocks in every way there is, and what a store of them should hold, in dicts.

The judge of the state machines: it shares no code with the store, knows the DAGs by heart, and computes what must stay
by reachability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st

from ..block import Block, make_block
from ..cid import Cid, Multihash, multihash_of
from ..store.layout import Root
from .dags import Dag, links_of, make_dag, make_node

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


def draw(data: st.DataObject, choices: Iterable[T]) -> T:
    """One of `choices`, drawn by its place in order, so that failures print short."""
    ordered = sorted(choices, key=repr)
    return ordered[data.draw(st.integers(0, len(ordered) - 1))]


def done(action: Callable[[], object], error: type[Exception]) -> bool:
    """Whether `action` succeeded, and did not raise `error`."""
    try:
        action()
    except error:
        return False
    return True
