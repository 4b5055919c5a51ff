"""Control methods on files: add, cat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ..block import Data
from ..cid import Cid, format_cid, parse_cid
from ..unixfs.profile import profile_named
from .call import Call, Method, number, text
from .frames import CHUNK
from .parts import NodeParts


async def _add(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    profile = profile_named(params.get("profile", "ipcs-v1"))
    owner = params.get("owner")
    added = await parts.files.add(_uploads(call), profile=profile, owner=owner)
    return {"cid": format_cid(added.cid), "digest": added.digest, "size": added.size}


async def _uploads(call: Call) -> AsyncIterator[Data]:
    while (piece := await call.read_data()) is not None:
        yield piece


async def _cat(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    cid = parse_cid(text(params, "cid"))
    length = number(params, "length", 0) if "length" in params else None
    sent = 0
    call.explain_timeout(lambda: _missing(parts, cid))
    async for piece in parts.files.read(cid, number(params, "offset", 0), length):
        for begin in range(0, len(piece), CHUNK):
            await call.data(piece[begin : begin + CHUNK])
        sent += len(piece)
    return {"cid": format_cid(cid), "size": sent}


def _missing(parts: NodeParts, cid: Cid) -> str:
    exchange = parts.exchange.statistics()
    blocks = f"{exchange.wants} blocks wanted below {format_cid(cid)}"
    return f"{blocks} did not come from {len(exchange.peers)} connected peers; connect to one that has them"


METHODS: Mapping[str, Method] = {"add": _add, "cat": _cat}
