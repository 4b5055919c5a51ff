"""Control methods on files and directories: add, cat, get, ls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ..block import Data
from ..cid import Cid, format_cid
from ..errors import InvalidArgument
from ..unixfs.exporter import read
from ..unixfs.node import Kind
from ..unixfs.profile import IPCS_V1, Profile, customised, profile_named
from ..unixfs.resolve import Stat, decode_name, parse_path, resolve
from ..unixfs.traverse import Enter, Leave, list_directory, traverse
from ..unixfs.tree import Step, decode_frame, encode_attributes
from .call import Call, Method, number, text
from .frames import CHUNK
from .parts import NodeParts

_PROFILE_PARAMETERS: dict[str, type] = {
    "cid_version": int,
    "raw_leaves": bool,
    "hash_name": str,
    "chunker": str,
    "trickle": bool,
    "max_links": int,
    "inline_limit": int,
}

KINDS = {
    Kind.FILE: "file",
    Kind.RAW: "file",
    Kind.DIRECTORY: "directory",
    Kind.HAMT_SHARD: "directory",
    Kind.SYMLINK: "symlink",
}
"""What `ls` and `get` call a node."""


def profile_of(params: Mapping[str, Any]) -> Profile:
    """The import profile that parameters name and change. Raises `InvalidArgument`."""
    name = params.get("profile", IPCS_V1.name)
    if not isinstance(name, str):
        raise InvalidArgument("parameter 'profile' must be a string")
    given = {key: params[key] for key in _PROFILE_PARAMETERS if params.get(key) is not None}
    for key, value in given.items():
        if type(value) is not _PROFILE_PARAMETERS[key]:
            raise InvalidArgument(f"parameter {key!r} must be of type {_PROFILE_PARAMETERS[key].__name__}")
    return customised(profile_named(name), **given)


async def _add(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    profile, owner = profile_of(params), params.get("owner")
    roots: list[str] = []
    async with (
        aclosing(_steps(call)) as steps,
        aclosing(parts.files.add_tree(steps, profile=profile, owner=owner)) as finished,
    ):
        async for added in finished:
            row = {"name": decode_name(added.path), "cid": format_cid(added.cid), "size": added.size}
            if added.depth == 0:
                roots.append(str(row["cid"]))
            await call.item(row)
    return {"roots": roots}


async def _steps(call: Call) -> AsyncGenerator[list[Step], None]:
    while (frame := await call.read()) is not None:
        yield decode_frame(frame)


async def _cat(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    root, names = parse_path(text(params, "path"))
    length = number(params, "length", 0) if "length" in params else None
    sent = 0
    async with parts.files.source(root) as source:
        call.explain_timeout(source.describe)
        cid = await resolve(source, root, names)
        async with aclosing(read(source, cid, number(params, "offset", 0), length)) as pieces:
            async for piece in pieces:
                sent += len(piece)
                await _send(call, piece)
    return {"cid": format_cid(cid), "size": sent}


async def _send(call: Call, piece: Data) -> None:
    for begin in range(0, len(piece), CHUNK):
        await call.data(piece[begin : begin + CHUNK])


async def _get(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    root, names = parse_path(text(params, "path"))
    async with parts.files.source(root) as source:
        call.explain_timeout(source.describe)
        cid = await resolve(source, root, names)
        async with aclosing(traverse(source, cid)) as steps:
            async for step in steps:
                if isinstance(step, (bytes, memoryview)):
                    await _send(call, step)
                else:
                    await call.item(encode_export_step(step))
    return {"cid": format_cid(cid)}


def encode_export_step(step: Enter | Leave) -> dict[str, Any]:
    """A step of an export as JSON; `ipcs.cli.files` reads it back."""
    if isinstance(step, Leave):
        return {"leave": True, "path": [decode_name(name) for name in step.path], **_stat(step.stat)}
    return {"path": [decode_name(name) for name in step.path], **_stat(step.stat)}


def _stat(stat: Stat) -> dict[str, Any]:
    target = {"target": decode_name(stat.target)} if stat.kind is Kind.SYMLINK else {}
    return {
        "cid": format_cid(stat.cid),
        "type": KINDS[stat.kind],
        "size": stat.size,
        **target,
        **encode_attributes(stat.attributes),
    }


async def _ls(parts: NodeParts, params: dict[str, Any], call: Call) -> dict[str, Any]:
    root, names = parse_path(text(params, "path"))
    count = 0
    async with parts.files.source(root) as source:
        call.explain_timeout(source.describe)
        cid: Cid = await resolve(source, root, names)
        async with aclosing(list_directory(source, cid)) as entries:
            async for link, stat in entries:
                count += 1
                facts = {"cid": format_cid(link.cid), "type": "object", "size": 0} if stat is None else _stat(stat)
                await call.item({"name": decode_name(link.name or b""), **facts})
    return {"cid": format_cid(cid), "entries": count}


METHODS: Mapping[str, Method] = {"add": _add, "cat": _cat, "get": _get, "ls": _ls}
