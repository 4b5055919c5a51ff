"""Small DAGs for tests of what lies below unixfs: dag-pb nodes that hold nothing but links.

The reader is written a second time on purpose: the store takes `links_of` as an argument, and its tests must not
depend on the package that provides the real one. Format: ipld.io/specs/codecs/dag-pb/spec.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from ..block import Block, Data, make_block
from ..cid import DAG_PB, Cid, cid_to_digest, codec_of, read_varint, write_varint
from ..store.blobs import BlobRecord

_LINKS, _HASH = 0x12, 0x0A
"""Tags of PBNode.Links and PBLink.Hash."""


class Dag(NamedTuple):
    """A root and all blocks under it, leaves first."""

    root: Cid
    blocks: list[Block]

    def record(self, *, at: int = 1, digest: str = "") -> BlobRecord:
        """A blob record for this DAG, as if its bytes hashed to `digest` (by default to that of the root block)."""
        size = sum(len(block.data) for block in self.blocks)
        return BlobRecord(digest or cid_to_digest(self.root), size, self.root, "test", at, at, verified=True)


def links_of(cid: Cid, data: Data) -> list[Cid]:
    """The links of a node made by `make_node`; none for any other codec."""
    if codec_of(cid) != DAG_PB:
        return []
    found, at, raw = [], 0, bytes(data)
    while at < len(raw) and raw[at] == _LINKS:
        size, at = read_varint(raw, at + 1)
        length, start = read_varint(raw, at + 1)
        found.append(Cid(raw[start : start + length]))
        at += size
    return found


def make_node(links: Sequence[Cid]) -> Block:
    """The dag-pb block that links to `links`, in this order."""
    data = b""
    for cid in links:
        link = bytes((_HASH,)) + write_varint(len(cid)) + cid
        data += bytes((_LINKS,)) + write_varint(len(link)) + link
    return make_block(data, DAG_PB)


def make_dag(leaves: Sequence[Data], width: int = 174) -> Dag:
    """A balanced DAG over raw `leaves` with at most `width` links a node; a single leaf is its own root."""
    level = [make_block(leaf) for leaf in leaves]
    blocks = list(level)
    while len(level) > 1:
        level = [make_node([block.cid for block in level[at : at + width]]) for at in range(0, len(level), width)]
        blocks.extend(level)
    return Dag(level[0].cid, blocks)


def random_dag(seed: int, leaves: int, leaf_size: int, width: int = 174) -> Dag:
    """A DAG of `leaves` random leaves of `leaf_size` bytes, the same for the same `seed`."""
    source = random.Random(seed)
    return make_dag([source.randbytes(leaf_size) for _ in range(leaves)], width)
