"""Control methods on the store as a whole: gc, fsck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import trio

from ..errors import InvalidArgument
from .call import Call, Method, number
from .parts import NodeParts


async def _gc(parts: NodeParts, params: dict[str, Any], _call: Call) -> dict[str, Any]:
    collect = partial(parts.store.collect, dry_run=_flag(params, "dry_run"), down_to=number(params, "down_to", 0))
    return asdict(await trio.to_thread.run_sync(collect))


async def _fsck(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    report = await trio.to_thread.run_sync(partial(parts.store.fsck, repair=_flag(params, "repair")))
    for problem in report.problems:
        await call.item({"kind": problem.kind, "subject": problem.subject, "message": problem.message})
    return {
        "blocks": report.blocks,
        "block_bytes": report.block_bytes,
        "problems": len(report.problems),
        "repaired": report.repaired,
    }


def _flag(params: dict[str, Any], name: str) -> bool:
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"parameter {name!r} must be true or false")
    return value


METHODS: Mapping[str, Method] = {"gc": _gc, "fsck": _fsck}
