"""A block: bytes together with the CID that they hash to."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, TypeAlias

from . import hashes
from .cid import (
    IDENTITY,
    RAW,
    SHA2_256,
    SHA2_256_LENGTH,
    SHA2_256_PREFIX,
    Cid,
    cid_v1,
    format_cid,
    multihash_of,
    read_varint,
    sha256_multihash,
)
from .errors import HashMismatch, InvalidArgument

Data: TypeAlias = bytes | memoryview
"""Bytes of a block: `bytes`, or a read-only view of a buffer that lives at least as long as the view."""

MAX_BLOCK_SIZE = 2 * 1024 * 1024
"""Largest block, in bytes, that every Bitswap peer must handle (specs: bitswap-protocol.md, "Block Sizes")."""

_V0_PREFIX = b"\x00\x70\x12\x20"


class Block(NamedTuple):
    """A CID and its bytes. Whoever builds one vouches that they match: use one of the functions below."""

    cid: Cid
    data: Data


def make_block(data: Data, codec: int = RAW, code: int = SHA2_256) -> Block:
    """The CIDv1 block of `data`, hashed by multihash function `code`.

    Raises `InvalidArgument` when blocks may not be named by that function.
    """
    if code == SHA2_256:
        return Block(cid_v1(codec, sha256_multihash(hashlib.sha256(data).digest())), data)
    return Block(cid_v1(codec, hashes.multihash(code, data)), data)


def check_block(cid: Cid, data: Data) -> Block:
    """`data` as the block named `cid`.

    Raises `HashMismatch` when it hashes to something else, `InvalidArgument` when policy refuses the hash function.
    """
    multihash = multihash_of(cid)
    if multihash[:2] == SHA2_256_PREFIX:
        matches = hashlib.sha256(data).digest() == multihash[2:]
    else:
        matches = hashes.verify(multihash, data)
    if not matches:
        raise HashMismatch(f"the bytes offered as {format_cid(cid)} hash to something else", subject=format_cid(cid))
    return Block(cid, data)


def block_from_prefix(prefix: bytes, data: Data) -> Block:
    """`data` under the CID that `prefix` (varints: version, codec, hash code, digest length) gives it.

    This is how Bitswap 1.1+ and CID-less transports name a block (specs: bitswap-protocol.md). Raises
    `InvalidArgument` for a malformed prefix, an unknown version, or a hash that policy refuses.
    """
    if prefix == _V0_PREFIX:
        return Block(Cid(sha256_multihash(hashlib.sha256(data).digest())), data)
    version, at = read_varint(prefix)
    codec, at = read_varint(prefix, at)
    code, at = read_varint(prefix, at)
    length, end = read_varint(prefix, at)
    if end != len(prefix) or version not in (0, 1):
        raise InvalidArgument(f"{prefix.hex()} is not a CID prefix")
    if version == 0:
        raise InvalidArgument(f"CID prefix {prefix.hex()} has version 0, but is not dag-pb with sha2-256")
    if code == SHA2_256 and length == SHA2_256_LENGTH:
        return Block(cid_v1(codec, sha256_multihash(hashlib.sha256(data).digest())), data)
    if code == IDENTITY and length != len(data):
        raise InvalidArgument(f"identity CID prefix declares {length} bytes, the block has {len(data)}")
    return Block(cid_v1(codec, hashes.multihash(code, data, length)), data)


def prefix_of(cid: Cid) -> bytes:
    """The prefix of `cid`, for which `block_from_prefix` gives `cid` again."""
    if cid[:2] == SHA2_256_PREFIX:
        return _V0_PREFIX
    at = 0
    for _ in range(4):
        _, at = read_varint(cid, at)
    return bytes(cid[:at])


def identity_data(cid: Cid) -> bytes | None:
    """The bytes that an identity `cid` carries itself, None for any other CID.

    Raises `InvalidArgument` when there are more than policy allows.
    """
    if cid[:2] == SHA2_256_PREFIX:
        return None
    multihash = multihash_of(cid)
    if multihash[:1] != b"\x00":
        return None
    length, at = read_varint(multihash, 1)
    hashes.check_policy(IDENTITY, length)
    return bytes(multihash[at:])
