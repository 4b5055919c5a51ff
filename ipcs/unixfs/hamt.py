"""HAMT-sharded directories: a name's hash says which link to follow, so that no node grows with the directory.

A shard's links are its occupied buckets, named by the bucket's number in hex, followed by the entry's name or, for a
child shard, by nothing. The bytes are Kubo's, which differ from the letter of ipfs/specs: the bitfield is big-endian
without leading zero bytes.

Sources: boxo `ipld/unixfs/hamt/{hamt,util}.go`; ipfs/specs `src/unixfs.md`. Limits: GHSA advisories behind
CVE-2023-23625 and CVE-2023-23631 (a fanout or bitfield that makes a reader allocate or index wildly).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..cid import Cid, format_cid
from ..errors import InvalidArgument, MalformedBlock
from .builder import Entry, NodeBuilder
from .dag_pb import Link, Node
from .node import Attributes, Kind, UnixFS

MURMUR3_X64_64 = 0x22
MAX_FANOUT = 1024
"""Largest fanout that is written or read (boxo `hamt.maximumHamtWidth`)."""

HASH_BITS = 64


def name_hash(name: bytes) -> int:
    """The 64 bits that place `name`: the first half of murmur3-x64-128, seed 0."""
    from mmh3 import hash64

    return int(hash64(name, signed=False)[0])


class Placement(NamedTuple):
    """How a fanout cuts a hash into buckets."""

    fanout: int
    bits: int
    width: int

    def bucket(self, hashed: int, depth: int) -> int:
        """The bucket of a hash in a shard `depth` below the root. Raises `InvalidArgument` when none is left."""
        shift = HASH_BITS - (depth + 1) * self.bits
        if shift < 0:
            raise InvalidArgument(f"HAMT directory is too deep: {HASH_BITS} hash bits are used up at depth {depth}")
        return hashed >> shift & (self.fanout - 1)

    def label(self, bucket: int) -> bytes:
        """The bucket's prefix in link names."""
        return f"{bucket:0{self.width}X}".encode()


def placement(fanout: int) -> Placement:
    """The placement of `fanout`. Raises `InvalidArgument` unless it is a power of two from 8 to 1024."""
    if not 8 <= fanout <= MAX_FANOUT or fanout & (fanout - 1):
        raise InvalidArgument(f"HAMT fanout {fanout} is not a power of two from 8 to {MAX_FANOUT}")
    return Placement(fanout, fanout.bit_length() - 1, len(f"{fanout - 1:X}"))


class _Item(NamedTuple):
    hashed: int
    name: bytes
    entry: Entry


def build(builder: NodeBuilder, entries: Iterable[tuple[bytes, Entry]], fanout: int, attributes: Attributes) -> Entry:
    """The root shard over `entries` (distinct names); its `size` is 0, as a directory's.

    Raises `InvalidArgument` for a bad fanout, or when two names collide in all bits of their hashes.
    """
    items = [_Item(name_hash(name), name, entry) for name, entry in entries]
    return _shard(builder, items, placement(fanout), 0, attributes)


def _shard(builder: NodeBuilder, items: list[_Item], place: Placement, depth: int, attributes: Attributes) -> Entry:
    buckets: dict[int, list[_Item]] = {}
    for item in items:
        buckets.setdefault(place.bucket(item.hashed, depth), []).append(item)
    links = []
    for bucket in sorted(buckets):
        inside = buckets[bucket]
        if len(inside) == 1:
            name, entry = inside[0].name, inside[0].entry
        else:
            name, entry = b"", _shard(builder, inside, place, depth + 1, Attributes())
        links.append(Link(entry.cid, place.label(bucket) + name, entry.tsize))
    bitfield = sum(1 << bucket for bucket in buckets)
    message = UnixFS(
        Kind.HAMT_SHARD,
        bitfield.to_bytes((bitfield.bit_length() + 7) // 8, "big"),
        hash_type=MURMUR3_X64_64,
        fanout=place.fanout,
        mode=attributes.mode,
        mtime=attributes.mtime,
    )
    return builder.node(message, links)


class Shard(NamedTuple):
    """A decoded shard: its placement, and its links by bucket, ascending."""

    place: Placement
    links: dict[int, Link]

    def name(self, link: Link) -> bytes:
        """The entry's name, empty for a child shard."""
        return (link.name or b"")[self.place.width :]


def decode(cid: Cid, pb: Node, message: UnixFS, parent: Placement | None = None) -> Shard:
    """The shard in a decoded node, everything about it checked. Raises `MalformedBlock`."""
    if message.hash_type != MURMUR3_X64_64:
        raise _malformed(cid, f"uses hash {message.hash_type}, not murmur3")
    try:
        place = placement(message.fanout or 0)
    except InvalidArgument as exc:
        raise _malformed(cid, f"is malformed: {exc.message}") from exc
    if parent is not None and place != parent:
        raise _malformed(cid, "has another fanout than its parent")
    bitfield = bytes(message.data or b"")
    if len(bitfield) > place.fanout // 8:
        raise _malformed(cid, f"has a bitfield of {len(bitfield)} bytes for {place.fanout} buckets")
    occupied = int.from_bytes(bitfield, "big")
    buckets = [bucket for bucket in range(place.fanout) if occupied >> bucket & 1]
    if len(buckets) != len(pb.links):
        raise _malformed(cid, f"has {len(pb.links)} links and {len(buckets)} bits set")
    for bucket, link in zip(buckets, pb.links, strict=True):
        if (link.name or b"")[: place.width] != place.label(bucket):
            raise _malformed(cid, f"has a link {link.name!r} that stands for bucket {bucket}")
    return Shard(place, dict(zip(buckets, pb.links, strict=True)))


def check_placed(root: Cid, path: list[int], place: Placement, name: bytes) -> None:
    """Raise `MalformedBlock` unless `name` hashes to the buckets of `path`: else a listing shows what lookups miss."""
    hashed = name_hash(name)
    if any(place.bucket(hashed, depth) != bucket for depth, bucket in enumerate(path)):
        raise _malformed(root, f"holds the name {name!r} in the wrong bucket")


def _malformed(cid: Cid, what: str) -> MalformedBlock:
    return MalformedBlock(f"HAMT shard {format_cid(cid)} {what}", subject=format_cid(cid))
