"""CIDs, multihashes and OCI digests: one binary type inside, text only at the rim.

Inside the program a CID is its binary form, a `bytes` under the name `Cid`; a store key is the raw multihash in it. No
object is built per block: `multiformats` needs about 200 us to parse what a slice answers in 0.1 us.

Sources: github.com/multiformats/cid (binary layout, version rules), multiformats/multihash,
opencontainers/image-spec descriptor.md (digest grammar).
"""

from __future__ import annotations

from typing import NewType, TypeAlias

from . import multibase
from .errors import InvalidArgument

Data: TypeAlias = bytes | memoryview

Cid = NewType("Cid", bytes)
"""A binary CID. Version 0 is the bare 34-byte sha2-256 multihash; version 1 is `01`, codec varint, multihash."""

Multihash = NewType("Multihash", bytes)
"""Hash-code varint, digest-length varint, digest. The key of a block: v0 and v1 CIDs of one block share it."""

PeerId = NewType("PeerId", str)
"""A libp2p peer id in its base58btc text form, as logs and multiaddrs show it."""

RAW = 0x55
DAG_PB = 0x70
DAG_CBOR = 0x71
SHA2_256 = 0x12
SHA2_256_LENGTH = 32
IDENTITY = 0x00

SHA2_256_PREFIX = b"\x12\x20"
_V1_RAW_PREFIX = b"\x01\x55"
_V0_LENGTH = 34
_V0_TEXT_LENGTH = 46

MAX_CID_DIGEST = 2 * 1024 * 1024
"""Longest digest, in bytes, that a CID inside untrusted data may declare; only identity CIDs come anywhere near."""

MAX_CID_TEXT = 4096
"""Longest text, in characters, that is tried as a CID: base58 costs time quadratic in its length."""


def read_varint(data: Data, offset: int = 0) -> tuple[int, int]:
    """Unsigned varint at `offset`: (value, offset after it).

    Raises `InvalidArgument` when it is cut off, longer than 9 bytes or not minimal (multiformats/unsigned-varint).
    """
    value = shift = 0
    for position in range(offset, min(offset + 9, len(data))):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise InvalidArgument("varint is not minimal")
            return value, position + 1
        shift += 7
    raise InvalidArgument("varint is cut off or longer than 9 bytes")


_SHORT = [bytes((value,)) for value in range(0x80)]


def write_varint(value: int) -> bytes:
    """`value` (>= 0) as an unsigned varint."""
    if 0 <= value < 0x80:
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sha256_multihash(digest: bytes) -> Multihash:
    """The multihash of a 32-byte sha2-256 `digest`."""
    return Multihash(SHA2_256_PREFIX + digest)


def cid_v1(codec: int, multihash: bytes) -> Cid:
    """The version 1 CID of `multihash` under `codec`."""
    return Cid(b"\x01" + write_varint(codec) + multihash)


def is_v0(cid: bytes) -> bool:
    """Whether `cid` is a version 0 CID (dag-pb, sha2-256)."""
    return len(cid) == _V0_LENGTH and cid[:2] == SHA2_256_PREFIX


def multihash_of(cid: bytes) -> Multihash:
    """The multihash in a well-formed binary CID."""
    if cid[:2] == SHA2_256_PREFIX:
        return Multihash(cid)
    if cid[1] < 0x80:
        return Multihash(cid[2:])
    return Multihash(cid[read_varint(cid, 1)[1] :])


def codec_of(cid: bytes) -> int:
    """The content codec of a well-formed binary CID (0x70 for version 0)."""
    if cid[:2] == SHA2_256_PREFIX:
        return DAG_PB
    return cid[1] if cid[1] < 0x80 else read_varint(cid, 1)[0]


def check_cid(data: bytes) -> Cid:
    """`data` as a `Cid`, its structure checked: version, codec, hash code and exact digest length.

    Raises `InvalidArgument`. Which hash functions are acceptable is the verifier's policy, not this function's.
    """
    if data[:2] == SHA2_256_PREFIX:
        if len(data) != _V0_LENGTH:
            raise InvalidArgument(f"CIDv0 has {len(data)} bytes instead of 34")
        return Cid(data)
    version, at = read_varint(data)
    if version != 1:
        raise InvalidArgument(f"CID version {version} is not known")
    _codec, at = read_varint(data, at)
    _code, at = read_varint(data, at)
    length, at = read_varint(data, at)
    if len(data) - at != length:
        raise InvalidArgument(f"CID digest has {len(data) - at} bytes and declares {length}")
    return Cid(data)


def read_cid(data: Data, offset: int = 0, max_digest: int = MAX_CID_DIGEST) -> tuple[Cid, int]:
    """The binary CID that begins at `offset` of `data`: (CID, offset after it). What follows it is not looked at.

    Raises `InvalidArgument` when it is malformed, cut off, or its digest is longer than `max_digest` bytes.
    """
    if bytes(data[offset : offset + 2]) == SHA2_256_PREFIX:
        end = offset + _V0_LENGTH
    else:
        version, at = read_varint(data, offset)
        if version != 1:
            raise InvalidArgument(f"CID version {version} is not known")
        _codec, at = read_varint(data, at)
        _code, at = read_varint(data, at)
        length, at = read_varint(data, at)
        if length > max_digest:
            raise InvalidArgument(f"CID digest of {length} bytes is longer than {max_digest}")
        end = at + length
    if end > len(data):
        raise InvalidArgument("CID is cut off")
    return Cid(bytes(data[offset:end])), end


def parse_cid(text: str) -> Cid:
    """A CID from its text form (base58btc v0, or multibase v1).

    Raises `InvalidArgument` when `text` is not a CID; a multibase v0 is none (multiformats/cid, "Decoding").
    """
    if len(text) > MAX_CID_TEXT:
        raise InvalidArgument(f"{text[:40]!r}... is not a CID: {len(text)} characters", subject=text[:40])
    is_version_0 = len(text) == _V0_TEXT_LENGTH and text.startswith("Qm")
    try:
        data = multibase.decode("z" + text if is_version_0 else text)
    except InvalidArgument as exc:
        raise InvalidArgument(f"{text!r} is not a CID: {exc.message}", subject=text) from exc
    if not is_version_0 and data[:1] == SHA2_256_PREFIX[:1]:
        raise InvalidArgument(f"{text!r} is not a CID: version 0 has no multibase prefix", subject=text)
    try:
        return check_cid(data)
    except InvalidArgument as exc:
        raise InvalidArgument(f"{text!r} is not a CID: {exc.message}", subject=text) from exc


def format_cid(cid: bytes, base: str = "base32") -> str:
    """The text form: base58btc for version 0, multibase `base` for version 1."""
    if is_v0(cid):
        return multibase.encode(cid, "base58btc")[1:]
    return multibase.encode(cid, base)


def to_v1(cid: Cid) -> Cid:
    """The version 1 CID of the same block."""
    return cid_v1(DAG_PB, Multihash(cid)) if is_v0(cid) else cid


def to_v0(cid: Cid) -> Cid:
    """The version 0 CID of the same block. Raises `InvalidArgument` unless it is dag-pb with a 32-byte sha2-256."""
    multihash = multihash_of(cid)
    if codec_of(cid) != DAG_PB or not is_v0(multihash):
        raise InvalidArgument(f"{format_cid(cid)} has no version 0: not dag-pb with sha2-256", subject=format_cid(cid))
    return Cid(multihash)


def digest_to_cid(digest: str) -> Cid:
    """The CIDv1 raw of an OCI digest `sha256:<hex>`: the CID of the blob itself when it fits one block.

    Raises `InvalidArgument` for another algorithm or malformed hex.
    """
    algorithm, _, encoded = digest.partition(":")
    if algorithm != "sha256" or len(encoded) != 64 or encoded != encoded.lower():
        raise InvalidArgument(f"{digest!r} is not a sha256 digest", subject=digest)
    try:
        return Cid(_V1_RAW_PREFIX + SHA2_256_PREFIX + bytes.fromhex(encoded))
    except ValueError as exc:
        raise InvalidArgument(f"{digest!r} is not a sha256 digest", subject=digest) from exc


def cid_to_digest(cid: bytes) -> str:
    """`sha256:<hex>` of the multihash in `cid`. Raises `InvalidArgument` when it is not sha2-256."""
    multihash = multihash_of(cid)
    if multihash[:2] != SHA2_256_PREFIX:
        raise InvalidArgument(f"{format_cid(cid)} is not a sha2-256 CID", subject=format_cid(cid))
    return "sha256:" + multihash[2:].hex()
