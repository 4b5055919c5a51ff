"""Control methods on whole DAGs: dag.stat, car.import, car.export."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

from ..block import Data
from ..blockservice import LocalBlocks
from ..cid import Cid, format_cid
from ..errors import InvalidArgument
from ..unixfs.car import encode_header, encode_section
from ..unixfs.resolve import parse_path, resolve
from ..unixfs.walk import dag_stat, walk
from .call import Call, Method
from .frames import CHUNK
from .parts import NodeParts


async def _stat(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        roots = await _at_hand(parts, params, stack)
        summary = await dag_stat(LocalBlocks(parts.store.blocks), roots)
    for dag in summary.dags:
        await call.item({"cid": format_cid(dag.root), "blocks": dag.blocks, "size": dag.size})
    return {
        "unique_blocks": summary.unique_blocks,
        "total_size": summary.unique_size,
        "shared_size": summary.shared_size,
        "ratio": summary.ratio,
    }


async def _export(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    blocks = size = 0
    async with AsyncExitStack() as stack:
        roots = await _at_hand(parts, params, stack)
        out = bytearray(encode_header(roots))
        walked = await stack.enter_async_context(aclosing(walk(LocalBlocks(parts.store.blocks), roots)))
        async for block in walked:
            out += encode_section(block)
            blocks, size = blocks + 1, size + len(block.data)
            if len(out) >= CHUNK:
                await _send(call, out)
                out = bytearray()
        await _send(call, out)
    return {"roots": [format_cid(root) for root in roots], "blocks": blocks, "size": size}


async def _send(call: Call, data: bytearray) -> None:
    for begin in range(0, len(data), CHUNK):
        await call.data(bytes(data[begin : begin + CHUNK]))


async def _at_hand(parts: NodeParts, params: dict[str, Any], stack: AsyncExitStack) -> list[Cid]:
    """The roots that `paths` name, their DAGs fetched unless `local_only`, and held until `stack` unwinds."""
    paths = params.get("paths")
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) for path in paths):
        raise InvalidArgument("parameter 'paths' must be a list of paths")
    local_only = bool(params.get("local_only", False))
    roots = []
    for path in paths:
        root, names = parse_path(path)
        source = await stack.enter_async_context(parts.files.source(root, local_only=local_only))
        cid = await resolve(source, root, names)
        if not local_only:
            await parts.files.fetch(cid)
        roots.append(cid)
    return roots


async def _import(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    owner, local_only = params.get("owner"), bool(params.get("local_only", False))
    async with aclosing(_pieces(call)) as pieces:
        done = await parts.files.import_car(pieces, owner=owner, local_only=local_only)
    return {"roots": [format_cid(root) for root in done.roots], "blocks": done.blocks, "size": done.size}


async def _pieces(call: Call) -> AsyncGenerator[Data, None]:
    while (piece := await call.read_data()) is not None:
        yield piece


METHODS: Mapping[str, Method] = {"dag.stat": _stat, "car.export": _export, "car.import": _import}
