"""Which CID do these bytes have: the only source of identity for what a peer sends. Pure.

The receiver never believes a peer: it hashes the bytes under the prefix that came with them and asks for the resulting
CID whether anybody wanted it. What the hash policy refuses has no CID at all (`ipcs.hashes`, boxo verifcid).
"""

from __future__ import annotations

import hashlib

from ..block import MAX_BLOCK_SIZE, Data, block_from_prefix
from ..cid import IDENTITY, SHA2_256_PREFIX, Cid, multihash_of, read_varint
from ..errors import InvalidArgument
from ..hashes import check_policy

EMPTY_SHA2_256 = SHA2_256_PREFIX + hashlib.sha256(b"").digest()
"""The multihash of no bytes: boxo answers a want for it with HAVE alone, so it is resolved locally."""

_SHA2_256 = {
    b"\x01\x55\x12\x20": b"\x01\x55\x12\x20",
    b"\x01\x70\x12\x20": b"\x01\x70\x12\x20",
    b"\x00\x70\x12\x20": SHA2_256_PREFIX,  # version 0 is the bare multihash
    b"": SHA2_256_PREFIX,  # Bitswap 1.0 carries no prefix and means version 0
}
"""Wire prefix -> what precedes the digest in the CID, for all that is common."""


def cid_of(prefix: bytes, data: Data) -> Cid | None:
    """The CID of `data` under a wire prefix, or None when the block is too large, the prefix malformed or refused.

    A digest shorter than its function's is cut (truncated multihashes exist), down to 20 bytes.
    """
    if len(data) > MAX_BLOCK_SIZE:
        return None
    head = _SHA2_256.get(prefix)
    if head is not None:
        return Cid(head + hashlib.sha256(data).digest())
    try:
        return block_from_prefix(prefix, data).cid
    except InvalidArgument:
        return None


def may_want(cid: Cid) -> bool:
    """Whether policy allows `cid` to be fetched from peers: a known hash function and enough of its digest."""
    key = multihash_of(cid)
    if key[:2] == SHA2_256_PREFIX:
        return True
    code, at = read_varint(key)
    length, _ = read_varint(key, at)
    try:
        check_policy(code, length)
    except InvalidArgument:
        return False
    return code != IDENTITY
