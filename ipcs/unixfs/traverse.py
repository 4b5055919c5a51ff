"""A whole tree out of a `BlockSource`, as a sequence of steps: what `ipcs get` and `ipcs ls` are made of.

The steps say what there is; who consumes them writes a directory (`ipcs.unixfs.extract`) or a tar stream
(`ipcs.unixfs.archive`). Iterative, and one budget holds for the whole tree.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..block import Data
from ..blockservice import BlockSource
from ..cid import DAG_PB, RAW, Cid, codec_of
from .budget import DEFAULT_BUDGET, Budget, Spending
from .dag_pb import Link
from .directory import check_name
from .exporter import drive
from .node import Attributes, Kind
from .reader import FileReader
from .resolve import Stat, entries, stat_of
from .walk import BATCH, get_blocks


class Enter(NamedTuple):
    """A node begins, at `path` below the root (empty for the root itself). A file's bytes follow as `Data`."""

    path: tuple[bytes, ...]
    stat: Stat


class Leave(NamedTuple):
    """The directory at `path` is complete."""

    path: tuple[bytes, ...]
    stat: Stat


Step: TypeAlias = Enter | Leave | Data


@dataclass(slots=True)
class _Directory:
    """A directory being traversed: its entries yet to come, the next one last, and the root blocks at hand."""

    path: tuple[bytes, ...]
    stat: Stat
    links: list[Link]
    ready: list[tuple[Link, Data]]


async def list_directory(
    source: BlockSource, cid: Cid, budget: Budget = DEFAULT_BUDGET
) -> AsyncGenerator[tuple[Link, Stat | None], None]:
    """The entries of the directory at `cid`, in name order, and what each is: None for what is not UnixFS.

    Raises like `resolve.entries`.
    """
    here = _Directory((), Stat(cid, Kind.DIRECTORY, 0, Attributes()), await _links(source, cid, budget), [])
    while (found := await _next(source, here)) is not None:
        link, data = found
        yield link, stat_of(link.cid, data) if codec_of(link.cid) in (RAW, DAG_PB) else None


async def traverse(source: BlockSource, root: Cid, budget: Budget = DEFAULT_BUDGET) -> AsyncGenerator[Step, None]:
    """Everything below `root`, depth first, names in order, directories before what is in them.

    An async generator: close it (`contextlib.aclosing`) when it may be left early.
    Raises `InvalidArgument` for a name that no file system takes (so that nothing is written outside a target),
    `MalformedBlock`, `NotFound`, and `LimitExceeded` beyond `budget`, which counts visits.
    """
    spending = Spending(budget, root)
    (data,) = await get_blocks(source, [root])
    stat = stat_of(root, data)
    stack: list[_Directory] = []
    async with aclosing(_node(source, (), stat, data, spending)) as steps:
        async for step in steps:
            yield step
    if _is_directory(stat):
        stack.append(_Directory((), stat, await _links(source, root, budget), []))
    while stack:
        here = stack[-1]
        found = await _next(source, here)
        if found is None:
            stack.pop()
            yield Leave(here.path, here.stat)
            continue
        link, data = found
        path = (*here.path, link.name or b"")
        spending.check_depth(len(path))
        stat = stat_of(link.cid, data)
        async with aclosing(_node(source, path, stat, data, spending)) as steps:
            async for step in steps:
                yield step
        if _is_directory(stat):
            stack.append(_Directory(path, stat, await _links(source, link.cid, budget), []))


async def _node(
    source: BlockSource, path: tuple[bytes, ...], stat: Stat, data: Data, spending: Spending
) -> AsyncGenerator[Step, None]:
    yield Enter(path, stat)
    if stat.kind is Kind.FILE:
        async with aclosing(drive(source, FileReader(stat.cid, spending=spending, data=data))) as pieces:
            async for piece in pieces:
                yield piece
    else:
        spending.add_block()


async def _links(source: BlockSource, cid: Cid, budget: Budget) -> list[Link]:
    """The entries of a directory, last name first, their names checked."""
    async with aclosing(entries(source, cid, budget)) as found:
        links = [link async for link in found]
    for link in links:
        check_name(link.name or b"")
    return sorted(links, key=lambda link: link.name or b"", reverse=True)


async def _next(source: BlockSource, here: _Directory) -> tuple[Link, Data] | None:
    """The next entry with its root block; blocks are read some at a time, and the following ones announced."""
    if not here.ready:
        batch = here.links[-BATCH:]
        if not batch:
            return None
        del here.links[-BATCH:]
        source.prefetch([link.cid for link in reversed(here.links[-2 * BATCH :])])
        blocks = await get_blocks(source, [link.cid for link in batch])
        here.ready = list(zip(batch, blocks, strict=True))
    return here.ready.pop()


def _is_directory(stat: Stat) -> bool:
    return stat.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD)
