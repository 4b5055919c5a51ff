"""Control methods about the node and its neighbours: id, peers, connect, stat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import trio

from ..config import AGENT
from .call import Call, Method, text
from .parts import NodeParts


async def _id(parts: NodeParts, _params: dict[str, Any], _call: Call) -> dict[str, Any]:
    return {
        "id": parts.host.peer_id,
        "addresses": list(parts.host.addresses),
        "agent_version": AGENT,
        "socket": str(parts.config.socket_path),
    }


async def _peers(parts: NodeParts, _params: dict[str, Any], call: Call) -> dict[str, Any]:
    traffic = parts.exchange.statistics().peers
    for status in parts.host.peers():
        moved = traffic.get(status.peer)
        await call.item(
            {
                "id": status.peer,
                "address": status.addresses[0] if status.addresses else None,
                "agent_version": status.agent,
                "direction": "inbound" if status.inbound else "outbound",
                "security": status.security,
                "blocks_received": moved.blocks_received if moved else 0,
                "bytes_received": moved.bytes_received if moved else 0,
                "duplicate_blocks": moved.duplicate_blocks if moved else 0,
                "blocks_sent": moved.blocks_sent if moved else 0,
                "bytes_sent": moved.bytes_sent if moved else 0,
            }
        )
    return {}


async def _connect(parts: NodeParts, params: dict[str, Any], _call: Call) -> dict[str, Any]:
    return {"id": await parts.host.connect(text(params, "address"))}


async def _stat(parts: NodeParts, _params: dict[str, Any], _call: Call) -> dict[str, Any]:
    store = await trio.to_thread.run_sync(parts.store.statistics)
    exchange = asdict(parts.exchange.statistics())
    del exchange["peers"]
    return {
        "peers": len(parts.host.peers()),
        "bitswap": exchange,
        "store": asdict(store),
        "adoption": dict(parts.adoption()),
    }


METHODS: Mapping[str, Method] = {"id": _id, "peers": _peers, "connect": _connect, "stat": _stat}
