"""Control methods on single blocks: block.get, block.put, block.stat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from ..block import MAX_BLOCK_SIZE, Block, Data, check_block, make_block
from ..cid import DAG_CBOR, DAG_PB, RAW, Cid, format_cid, parse_cid
from ..errors import InvalidArgument, LimitExceeded
from .call import Call, Method, text
from .parts import NodeParts

CODECS = {"raw": RAW, "dag-pb": DAG_PB, "dag-cbor": DAG_CBOR}


async def _get(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    cid = parse_cid(text(params, "cid"))
    data = await _fetch(parts, cid, call)
    await call.data(data)
    return {"cid": format_cid(cid), "size": len(data)}


async def _stat(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    cid = parse_cid(text(params, "cid"))
    return {"cid": format_cid(cid), "size": len(await _fetch(parts, cid, call))}


async def _put(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    data = bytearray()
    while (chunk := await call.read_data()) is not None:
        data += chunk
        if len(data) > MAX_BLOCK_SIZE:
            raise LimitExceeded(f"a block holds at most {MAX_BLOCK_SIZE} bytes; use `ipcs add` for files")
    block = _named(params, bytes(data))
    await trio.to_thread.run_sync(parts.store.blocks.put_many, [block])
    parts.exchange.notify_stored([block.cid])
    return {"cid": format_cid(block.cid), "size": len(data)}


def _named(params: dict[str, Any], data: Data) -> Block:
    if "cid" in params:
        return check_block(parse_cid(text(params, "cid")), data)
    codec = params.get("codec", "raw")
    if codec not in CODECS:
        raise InvalidArgument(f"codec {codec!r} is not known; choose from {', '.join(CODECS)}")
    return make_block(data, CODECS[codec])


async def _fetch(parts: NodeParts, cid: Cid, call: Call) -> Data:
    async with parts.exchange.session(cid) as session:
        call.explain_timeout(session.describe)
        [data] = await session.get_many([cid])
        return data


METHODS: Mapping[str, Method] = {"block.get": _get, "block.put": _put, "block.stat": _stat}
