"""Directories, read: listing, paths such as `CID/a/b`, and what a node is.

Sources: boxo `ipld/unixfs/io/directory.go`, `path/resolver`; of duplicate names the first wins, as there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import NamedTuple, TypeAlias

from ..block import Data
from ..blockservice import BlockSource
from ..cid import DAG_PB, RAW, Cid, codec_of, format_cid, parse_cid
from ..errors import InvalidArgument, MalformedBlock, NotFound
from . import dag_pb, hamt, node
from .budget import DEFAULT_BUDGET, Budget, Spending
from .dag_pb import Link
from .node import Attributes, Kind, UnixFS
from .reader import decode_file
from .walk import BATCH, get_blocks

MAX_PATH_PARTS = 1024
"""Names in one path: each costs at least one block."""

MAX_TARGET = 4096
"""Bytes of a symlink's target: PATH_MAX of Linux."""


_Below: TypeAlias = tuple[list[int], Cid]
"""A child shard still to be read: the buckets that lead to it, and its CID."""


class Stat(NamedTuple):
    """What a root node says about itself. `size` is the file's bytes, or the length of a symlink's target."""

    cid: Cid
    kind: Kind
    size: int
    attributes: Attributes
    target: bytes = b""


def parse_path(text: str) -> tuple[Cid, list[bytes]]:
    """`CID`, `CID/a/b`, `/ipfs/CID/a/b` or `ipfs://CID/a/b` as root and names; empty names are skipped.

    A name's bytes that are no UTF-8 stand as Python's surrogate escapes. Raises `InvalidArgument`.
    """
    rest = text.removeprefix("ipfs://").removeprefix("/ipfs/")
    root, *names = rest.split("/")
    parts = [encode_name(name) for name in names if name]
    if len(parts) > MAX_PATH_PARTS:
        raise InvalidArgument(f"the path has {len(parts)} names, allowed are {MAX_PATH_PARTS}", subject=text)
    return parse_cid(root), parts


def encode_name(name: str) -> bytes:
    """The bytes of a name in its text form. Raises `InvalidArgument` for text that no bytes have."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise InvalidArgument(f"{name!r} is not a name: {exc.reason}", subject=name) from exc


def decode_name(name: bytes) -> str:
    """The text form of a name, from which `encode_name` gets the same bytes."""
    return name.decode("utf-8", "surrogateescape")


async def resolve(source: BlockSource, root: Cid, names: list[bytes]) -> Cid:
    """The CID at the path `names` below `root`; symlinks are not followed. Raises `NotFound`."""
    cid = root
    for name in names:
        link = await _lookup(source, cid, name)
        if link is None:
            text = format_cid(cid)
            raise NotFound(f"no link named {decode_name(name)!r} under {text}", subject=text)
        cid = link.cid
    return cid


async def stat(source: BlockSource, cid: Cid) -> Stat:
    """What the node of `cid` is. Raises `MalformedBlock` when it is no UnixFS node, `NotFound`."""
    (data,) = await get_blocks(source, [cid])
    return stat_of(cid, data)


def stat_of(cid: Cid, data: Data) -> Stat:
    """What the node in `data` is. Raises `MalformedBlock`, and `InvalidArgument` for a codec without UnixFS."""
    if codec_of(cid) == RAW:
        return Stat(cid, Kind.FILE, len(data), Attributes())
    pb, message = _decode(cid, data)
    attributes = Attributes(message.mode, message.mtime)
    if message.kind is Kind.SYMLINK:
        target = bytes(message.data or b"")
        if len(target) > MAX_TARGET or pb.links:
            raise _malformed(cid, f"is a symlink with {len(target)} bytes of target and {len(pb.links)} links")
        return Stat(cid, Kind.SYMLINK, len(target), attributes, target)
    if message.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD):
        return Stat(cid, message.kind, 0, attributes)
    decode_file(cid, data, is_root=True)
    return Stat(cid, Kind.FILE, len(message.data or b"") + sum(message.blocksizes), attributes)


async def entries(source: BlockSource, cid: Cid, budget: Budget = DEFAULT_BUDGET) -> AsyncGenerator[Link, None]:
    """The entries of the directory at `cid`, sharded or not: name, CID and claimed size of each.

    Raises `InvalidArgument` when it is no directory, `MalformedBlock`, `NotFound`, `LimitExceeded`.
    """
    (data,) = await get_blocks(source, [cid])
    pb, message = _decode(cid, data)
    if message.kind is Kind.DIRECTORY:
        seen: set[bytes] = set()
        for link in pb.links:
            name = link.name or b""
            if name not in seen:
                seen.add(name)
                yield link._replace(name=name)
    elif message.kind is Kind.HAMT_SHARD:
        async with aclosing(_shard_entries(source, cid, hamt.decode(cid, pb, message), budget)) as links:
            async for link in links:
                yield link
    else:
        raise _not_a_directory(cid, message)


async def _shard_entries(
    source: BlockSource, root: Cid, shard: hamt.Shard, budget: Budget
) -> AsyncGenerator[Link, None]:
    spending = Spending(budget, root)
    below: list[_Below] = []
    for link in _own_entries(root, [], shard, below):
        yield link
    seen: set[Cid] = set()
    while below:
        batch = below[-BATCH:]
        del below[-BATCH:]
        for path, cid in batch:
            spending.add_block()
            if cid in seen:  # its names could be placed right in one position only
                raise _malformed(cid, f"stands twice in the HAMT directory {format_cid(root)}, at {path}")
            seen.add(cid)
        source.prefetch([cid for _, cid in below[-BATCH:]])
        for (path, cid), data in zip(batch, await get_blocks(source, [cid for _, cid in batch]), strict=True):
            for link in _own_entries(root, path, _child_shard(cid, data, shard), below):
                yield link


def _own_entries(root: Cid, path: list[int], shard: hamt.Shard, below: list[_Below]) -> Iterator[Link]:
    """The entries that a shard at `path` holds itself; its child shards are added to `below`."""
    for bucket, link in shard.links.items():
        here = [*path, bucket]
        name = shard.name(link)
        if name:
            hamt.check_placed(root, here, shard.place, name)
            yield link._replace(name=name)
        elif len(here) * shard.place.bits >= hamt.HASH_BITS:
            raise _malformed(root, "is a HAMT directory deeper than its hash")
        else:
            below.append((here, link.cid))


def _child_shard(cid: Cid, data: Data, parent: hamt.Shard) -> hamt.Shard:
    pb, message = _decode(cid, data)
    if message.kind is not Kind.HAMT_SHARD:
        raise _malformed(cid, f"stands for a HAMT shard and is a {message.kind.name.lower()}")
    return hamt.decode(cid, pb, message, parent.place)


async def _lookup(source: BlockSource, cid: Cid, name: bytes) -> Link | None:
    """The entry `name` of a directory, reading only the shards on its way."""
    (data,) = await get_blocks(source, [cid])
    if codec_of(cid) == RAW:
        raise InvalidArgument(f"{format_cid(cid)} is a file, not a directory", subject=format_cid(cid))
    pb, message = _decode(cid, data)
    if message.kind is Kind.DIRECTORY:
        return next((link for link in pb.links if (link.name or b"") == name), None)
    if message.kind is not Kind.HAMT_SHARD:
        raise _not_a_directory(cid, message)
    shard, hashed = hamt.decode(cid, pb, message), hamt.name_hash(name)
    for depth in range(hamt.HASH_BITS // shard.place.bits):
        link = shard.links.get(shard.place.bucket(hashed, depth))
        if link is None:
            return None
        found = shard.name(link)
        if found:
            return link._replace(name=found) if found == name else None
        (data,) = await get_blocks(source, [link.cid])
        shard = _child_shard(link.cid, data, shard)
    raise _malformed(cid, "is a HAMT directory deeper than its hash")


def _decode(cid: Cid, data: Data) -> tuple[dag_pb.Node, UnixFS]:
    codec = codec_of(cid)
    if codec != DAG_PB:
        raise InvalidArgument(f"{format_cid(cid)} has codec {codec:#x}, not UnixFS", subject=format_cid(cid))
    pb = dag_pb.decode(data)
    if pb.data is None:
        raise _malformed(cid, "is a dag-pb node without UnixFS data")
    return pb, node.decode(pb.data)


def _not_a_directory(cid: Cid, message: UnixFS) -> InvalidArgument:
    text = format_cid(cid)
    return InvalidArgument(f"{text} is a {message.kind.name.lower()}, not a directory", subject=text)


def _malformed(cid: Cid, what: str) -> MalformedBlock:
    return MalformedBlock(f"{format_cid(cid)} {what}", subject=format_cid(cid))
