"""Control methods about the exchange: bitswap.stat, bitswap.bans, bitswap.unban."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import trio

from ..cid import PeerId
from ..errors import NotFound
from .call import Call, Method, text
from .parts import NodeParts


async def _stat(parts: NodeParts, _params: dict[str, Any], _call: Call) -> dict[str, Any]:
    statistics = asdict(parts.exchange.statistics())
    return {**statistics, "peers": list(statistics["peers"].values())}


async def _bans(parts: NodeParts, _params: dict[str, Any], call: Call) -> dict[str, Any]:
    now = trio.current_time()
    for ban in parts.exchange.bans():
        seconds = round(ban.until - now, 1)
        await call.item({"id": ban.peer, "seconds_left": seconds, "times": ban.count, "reason": ban.reason})
    return {}


async def _unban(parts: NodeParts, params: dict[str, Any], _call: Call) -> dict[str, Any]:
    peer = PeerId(text(params, "peer"))
    if not parts.exchange.lift_ban(peer):
        raise NotFound(f"{peer} is not banned; `ipcs peers` lists bans", subject=peer)
    return {"id": peer}


METHODS: Mapping[str, Method] = {"bitswap.stat": _stat, "bitswap.bans": _bans, "bitswap.unban": _unban}
