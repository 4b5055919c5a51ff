"""Nodes made by this program: serialised, hashed and named as a profile says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from .. import hashes
from ..block import Block, Data
from ..cid import DAG_PB, IDENTITY, RAW, SHA2_256, SHA2_256_PREFIX, Cid, cid_v1
from . import dag_pb
from .node import Attributes, Kind, UnixFS, encode
from .profile import Profile

NO_ATTRIBUTES = Attributes()


class Entry(NamedTuple):
    """A finished sub-DAG: its CID, the bytes of all its blocks (`tsize`), and of the file it holds (`size`)."""

    cid: Cid
    tsize: int
    size: int


class NodeBuilder:
    """Makes nodes under one profile, and keeps those blocks that are not inlined until they are taken."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._blocks: list[Block] = []
        self._raw_prefix = b"\x01\x55" + SHA2_256_PREFIX
        self._plain = profile.hash_code == SHA2_256 and not profile.inline_limit

    def take(self) -> list[Block]:
        """The blocks made since the last call, in the order of their making: children before parents."""
        blocks, self._blocks = self._blocks, []
        return blocks

    def add(self, data: Data, codec: int) -> Cid:
        """The CID of a block, which is kept for `take` unless its CID carries it."""
        if codec == RAW and self._plain:  # the hot path: one hash, one concatenation
            cid = Cid(self._raw_prefix + hashlib.sha256(data).digest())
        elif self._profile.inline_limit and len(data) <= self._profile.inline_limit:
            return cid_v1(codec, hashes.multihash(IDENTITY, data))
        else:
            multihash = hashes.multihash(self._profile.hash_code, data)
            is_v0 = codec == DAG_PB and self._profile.cid_version == 0
            cid = Cid(multihash) if is_v0 else cid_v1(codec, multihash)
        self._blocks.append(Block(cid, data))
        return cid

    def node(self, message: UnixFS, links: Sequence[dag_pb.Link] = ()) -> Entry:
        """A dag-pb node; its `size` is the message's filesize, 0 where there is none."""
        block = dag_pb.encode_trusted(links, encode(message))
        tsize = len(block) + sum(link.tsize or 0 for link in links)
        return Entry(self.add(block, DAG_PB), tsize, message.filesize or 0)

    def leaf(self, data: Data, *, raw: bool, kind: Kind, attributes: Attributes = NO_ATTRIBUTES) -> Entry:
        """A leaf holding `data`: a raw block, or a dag-pb node of `kind`."""
        if raw:
            return Entry(self.add(data, RAW), len(data), len(data))
        return self.node(UnixFS(kind, data, len(data), mode=attributes.mode, mtime=attributes.mtime))

    def file(self, children: Sequence[Entry], attributes: Attributes = NO_ATTRIBUTES) -> Entry:
        """The File node over `children`."""
        sizes = [child.size for child in children]
        message = UnixFS(Kind.FILE, filesize=sum(sizes), blocksizes=sizes, mode=attributes.mode, mtime=attributes.mtime)
        return self.node(message, [dag_pb.Link(child.cid, b"", child.tsize) for child in children])

    def symlink(self, target: bytes, attributes: Attributes = NO_ATTRIBUTES) -> Entry:
        """A symlink to `target`."""
        return self.node(UnixFS(Kind.SYMLINK, target, mode=attributes.mode, mtime=attributes.mtime))
