"""Following links: which blocks a block names, and all blocks below a root.

Iterative throughout: a chain of 100,000 blocks must not meet Python's recursion limit. Identity CIDs carry their
block themselves, so they are opened where they stand and never asked of a store or a peer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ..block import Block, Data, identity_data
from ..blockservice import BlockSource
from ..cid import DAG_CBOR, DAG_PB, RAW, Cid, codec_of, format_cid
from ..errors import InvalidArgument
from . import cbor, dag_pb
from .budget import DEFAULT_BUDGET, Budget, Spending

_CBOR, _JSON = 0x51, 0x0200
_LINKLESS = frozenset({RAW, _CBOR, _JSON})
"""Codecs whose data model has no links."""

BATCH = 16
"""Blocks asked for at once where their bytes are needed: at most 32 MiB in memory."""


def links_of(cid: Cid, data: Data) -> list[Cid]:
    """The CIDs that the block `data` of `cid` links to, in order, repeats kept; an identity link gives way to its own.

    Raises `MalformedBlock` when the bytes are not of the CID's codec, `InvalidArgument` for a codec whose links
    ipcs cannot find.
    """
    found: list[Cid] = []
    pending = [*reversed(_own_links(cid, data))]
    while pending:  # a nested identity block is part of its parent's bytes, so this ends
        link = pending.pop()
        carried = identity_data(link)
        if carried is None:
            found.append(link)
        else:
            pending.extend(reversed(_own_links(link, carried)))
    return found


def _own_links(cid: Cid, data: Data) -> list[Cid]:
    codec = codec_of(cid)
    if codec == DAG_PB:
        return [link.cid for link in dag_pb.decode(data).links]
    if codec in _LINKLESS:
        return []
    if codec == DAG_CBOR:
        return cbor.links(cbor.decode(data))
    text = format_cid(cid)
    raise InvalidArgument(f"cannot follow {text}: codec {codec:#x} is not known", subject=text)


async def get_blocks(source: BlockSource, cids: Sequence[Cid]) -> list[Data]:
    """The bytes of each CID, in order; those that identity CIDs carry are taken from them. Raises `NotFound`."""
    carried = [identity_data(cid) for cid in cids]
    fetched = iter(await source.get_many([cid for cid, own in zip(cids, carried, strict=True) if own is None]))
    return [next(fetched) if own is None else own for own in carried]


async def walk(
    source: BlockSource, roots: Iterable[Cid], budget: Budget = DEFAULT_BUDGET
) -> AsyncGenerator[Block, None]:
    """All blocks below `roots`, depth first, parents before children, each once; none that identity CIDs carry.

    Raises `NotFound` for a missing block, `MalformedBlock`, and `LimitExceeded` beyond `budget`, where blocks and
    bytes are counted once each. At most `BATCH` blocks are held at a time.
    """
    stack = [(root, 0) for root in _stored(roots)]
    stack.reverse()
    seen: set[Cid] = set()
    spending = Spending(budget, stack[-1][0] if stack else Cid(b""))
    while stack:
        batch = _next_batch(stack, seen)
        if not batch:
            continue
        blocks = await source.get_many([cid for cid, _ in batch])
        for (cid, depth), data in zip(batch, blocks, strict=True):
            spending.check_depth(depth)
            spending.add_block()
            spending.add_size(len(data))
            yield Block(cid, data)
        last, depth = batch[-1]
        below = [link for link in links_of(last, blocks[-1]) if link not in seen]
        source.prefetch(below[: 4 * BATCH])
        stack.extend((link, depth + 1) for link in reversed(below))


def _stored(cids: Iterable[Cid]) -> list[Cid]:
    """`cids`, each identity CID replaced by what it links to."""
    out: list[Cid] = []
    for cid in cids:
        carried = identity_data(cid)
        out += [cid] if carried is None else links_of(cid, carried)
    return out


def _next_batch(stack: list[tuple[Cid, int]], seen: set[Cid]) -> list[tuple[Cid, int]]:
    """The next unseen blocks: a run of raw leaves, ended by the first block that may have links."""
    batch: list[tuple[Cid, int]] = []
    while stack and len(batch) < BATCH:
        item = stack.pop()
        if item[0] in seen:
            continue
        seen.add(item[0])
        batch.append(item)
        if codec_of(item[0]) != RAW:
            break
    return batch


async def fetch_dag(source: BlockSource, root: Cid, budget: Budget = DEFAULT_BUDGET) -> int:
    """Bring all blocks below `root` into the local store; how many distinct ones there are.

    Level by level, so that a whole level is wanted at once; raw leaves are fetched without reading their values.
    Raises like `walk`; sizes are not counted, since leaves are not read.
    """
    level, depth = _stored([root]), 0
    seen = set(level)
    spending = Spending(budget, root)
    for _ in level:
        spending.add_block()
    while level:
        spending.check_depth(depth)
        leaves = [cid for cid in level if codec_of(cid) == RAW]
        inner = [cid for cid in level if codec_of(cid) != RAW]
        source.prefetch(inner)
        level = []
        for begin in range(0, len(inner), BATCH):
            batch = inner[begin : begin + BATCH]
            for cid, data in zip(batch, await source.get_many(batch), strict=True):
                for link in links_of(cid, data):
                    if link not in seen:
                        seen.add(link)
                        spending.add_block()
                        level.append(link)
        if leaves:
            await source.fetch_many(leaves)
        depth += 1
    return len(seen)


@dataclass(frozen=True, slots=True)
class DagStat:
    """One root's distinct blocks and their bytes."""

    root: Cid
    blocks: int
    size: int


@dataclass(frozen=True, slots=True)
class DagSummary:
    """Several DAGs together: distinct blocks and bytes, and how many bytes sharing saves (`ipfs dag stat`)."""

    dags: tuple[DagStat, ...]
    unique_blocks: int
    unique_size: int

    @property
    def shared_size(self) -> int:
        """Bytes that would be stored twice if the DAGs shared nothing."""
        return sum(dag.size for dag in self.dags) - self.unique_size

    @property
    def ratio(self) -> float:
        """Bytes without sharing over bytes with it; 1.0 when nothing is shared."""
        return sum(dag.size for dag in self.dags) / self.unique_size if self.unique_size else 1.0


async def dag_stat(source: BlockSource, roots: Sequence[Cid], budget: Budget = DEFAULT_BUDGET) -> DagSummary:
    """Count the DAGs below `roots`, each by itself and all together. Raises like `walk`."""
    everything: dict[Cid, int] = {}
    dags = []
    for root in roots:
        async with aclosing(walk(source, [root], budget)) as blocks:
            sizes = {block.cid: len(block.data) async for block in blocks}
        dags.append(DagStat(root, len(sizes), sum(sizes.values())))
        everything |= sizes
    return DagSummary(tuple(dags), len(everything), sum(everything.values()))
