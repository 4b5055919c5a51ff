"""Control methods on references: pin.add, pin.rm, pin.ls; a lease is an owner like any other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import trio

from ..cid import format_cid, parse_cid
from ..errors import NotFound
from ..store.layout import Root, pack_digest
from ..store.references import Reference, check_owner
from ..unixfs.walk import fetch_dag
from .call import Call, Method, number, text
from .parts import NodeParts


async def _add(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    """Fetch what is missing of the DAG, then keep it. A digest must be known here: peers are asked by CID."""
    root, owner = root_of(text(params, "root")), text(params, "owner")
    check_owner(owner)
    seconds = number(params, "expires_in", 0)
    if isinstance(root, str):
        if parts.store.blobs.get(root) is None:
            raise NotFound(f"no blob {root} is here; pull it first, or pin it by its CID", subject=root)
    else:
        async with parts.files.source(root) as source:
            call.explain_timeout(source.describe)
            await fetch_dag(source, root)
            return await _keep(parts, owner, root, params, seconds)
    return await _keep(parts, owner, root, params, seconds)


async def _keep(parts: NodeParts, owner: str, root: Root, params: dict[str, Any], seconds: int) -> dict[str, Any]:
    expires_at = time.time_ns() + seconds * 10**9 if seconds else 0
    add = partial(parts.store.references.add, owner, root, name=params.get("name", ""), expires_at=expires_at)
    return _row(await trio.to_thread.run_sync(add))


async def _rm(parts: NodeParts, params: dict[str, Any], _call: Call) -> dict[str, Any]:
    """Drop one reference, or with no root all of an owner."""
    owner = text(params, "owner")
    check_owner(owner)
    references = parts.store.references
    if "root" not in params:
        return {"dropped": await trio.to_thread.run_sync(references.drop_owner, owner)}
    root = root_of(text(params, "root"))
    if not await trio.to_thread.run_sync(references.drop, owner, root):
        raise NotFound(f"{owner} does not keep {_show(root)}; see `ipcs pin ls`", subject=_show(root))
    return {"dropped": 1}


async def _ls(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    """All references, those of an owner, or those that keep a root."""
    references = parts.store.references
    if "root" in params:
        found = await trio.to_thread.run_sync(references.holders, root_of(text(params, "root")))
    else:
        owner = text(params, "owner") if "owner" in params else None
        found = await trio.to_thread.run_sync(lambda: list(references.held_by(owner)))
    for reference in found:
        await call.item(_row(reference))
    return {"count": len(found)}


def root_of(given: str) -> Root:
    """A digest (`sha256:<hex>`) or a CID, as users write it. Raises `InvalidArgument` for neither."""
    if ":" in given:
        pack_digest(given)
        return given
    return parse_cid(given)


def _row(reference: Reference) -> dict[str, Any]:
    return {
        "owner": reference.owner,
        "root": _show(reference.root),
        "name": reference.name,
        "created_at": reference.created_at,
        "expires_at": reference.expires_at or None,
    }


def _show(root: Root) -> str:
    return root if isinstance(root, str) else format_cid(root)


METHODS: Mapping[str, Method] = {"pin.add": _add, "pin.rm": _rm, "pin.ls": _ls}
