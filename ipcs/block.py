"""A block: bytes together with the CID that they hash to."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, TypeAlias

from .cid import RAW, SHA2_256_PREFIX, Cid, cid_v1, format_cid, multihash_of, sha256_multihash
from .errors import HashMismatch

Data: TypeAlias = bytes | memoryview
"""Bytes of a block: `bytes`, or a read-only view of a buffer that lives at least as long as the view."""

MAX_BLOCK_SIZE = 2 * 1024 * 1024
"""Largest block, in bytes, that every Bitswap peer must handle (specs: bitswap-protocol.md, "Block Sizes")."""


class Block(NamedTuple):
    """A CID and its bytes. Whoever builds one vouches that they match: use `make_block` or `check_block`."""

    cid: Cid
    data: Data


def make_block(data: Data, codec: int = RAW) -> Block:
    """The CIDv1 sha2-256 block of `data`."""
    return Block(cid_v1(codec, sha256_multihash(hashlib.sha256(data).digest())), data)


def check_block(cid: Cid, data: Data) -> Block:
    """`data` as the block named `cid`. Raises `HashMismatch` when it hashes to something else."""
    multihash = multihash_of(cid)
    if multihash[:2] != SHA2_256_PREFIX or hashlib.sha256(data).digest() != multihash[2:]:
        raise HashMismatch(f"the bytes offered as {format_cid(cid)} hash to something else", subject=format_cid(cid))
    return Block(cid, data)
