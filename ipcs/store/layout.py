"""What lies on disk: key prefixes, fixed records and the format version. `docs/storage-format.md` is this in prose.

All integers are little-endian in values and big-endian in keys, where order matters. Nothing here does any I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from ..cid import Cid, Multihash
from ..errors import InvalidArgument

FORMAT_VERSION = 1
"""Version of everything in this file, in the file `version` of the store's directory."""

BLOCK = b"b"
"""block: multihash -> `Entry`."""
LOOSE = b"l"
"""queue of uncounted blocks: serial number -> put time in ns, multihashes."""
BLOB = b"d"
"""blob record: packed digest -> `BLOB_HEAD`, root, profile."""
BY_ROOT = b"D"
"""blob record by root: root CID, packed digest -> nothing."""
ROOT = b"r"
"""counted DAG: root CID -> last use in ns."""
UNHELD = b"u"
"""counted DAGs that nobody references: last use in ns, root CID -> nothing."""
BY_OWNER = b"o"
"""reference: owner, packed root -> `REFERENCE_HEAD`, name."""
BY_HOLDER = b"h"
"""reference by root: packed root, owner -> nothing."""
EXPIRY = b"e"
"""references that expire: expiry in ns, owner, packed root -> nothing."""
PENDING = b"x"
"""decrements still to be done: serial number -> multihashes."""
FREED = b"f"
"""range to punch: segment, page (`PLACE`) -> length in bytes (`LENGTH`)."""
QUARANTINE = b"q"
"""corrupt block: segment, page (`PLACE`) -> length in bytes (`LENGTH`), multihash."""
META = b"m"
"""single values: see `BARRIER`."""
RECORDS = b"z"
"""the namespace of other layers (`Store.records`)."""

BARRIER = META + b"barrier"
"""`BARRIER_VALUE`: everything put before is known to be on disk."""

BARRIER_VALUE = struct.Struct("<QII")
"""first serial number, segment and page that are not known to be on disk."""

PLACE = struct.Struct(">II")
"""segment and page, inside a key."""

LENGTH = struct.Struct("<I")
"""bytes of a range."""

PAGE = 4096
"""Values in segments begin at multiples of this, the block size of the file systems that we punch holes in."""

BLOB_HEAD = struct.Struct("<QQQBB")
"""size, created_at, updated_at, flags, length of the root CID."""
VERIFIED = 1

REFERENCE_HEAD = struct.Struct("<QQ")
"""created_at, expires_at (0: never)."""

STAMP = struct.Struct(">Q")
"""a time in ns, or a counter, inside a key."""

Root: TypeAlias = str | Cid
"""What a reference points at: a blob digest ("sha256:<hex>"), or the binary CID of any DAG."""

_DIGEST_LENGTHS = {"sha256": 32, "sha384": 48, "sha512": 64}
_ALGORITHMS = sorted(_DIGEST_LENGTHS)


def pack_digest(digest: str) -> bytes:
    """An OCI digest as one byte for its algorithm and the raw hash. Raises `InvalidArgument` when malformed."""
    algorithm, _, encoded = digest.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None or len(encoded) != 2 * length or encoded != encoded.lower():
        raise InvalidArgument(f"{digest!r} is not an OCI digest", subject=digest)
    try:
        return bytes((_ALGORITHMS.index(algorithm),)) + bytes.fromhex(encoded)
    except ValueError as exc:
        raise InvalidArgument(f"{digest!r} is not an OCI digest", subject=digest) from exc


def unpack_digest(packed: bytes) -> str:
    """Inverse of `pack_digest`."""
    return f"{_ALGORITHMS[packed[0]]}:{packed[1:].hex()}"


def pack_root(root: Root) -> bytes:
    """A reference's root as `d` and a packed digest, or `c` and a CID. Raises `InvalidArgument`."""
    return b"d" + pack_digest(root) if isinstance(root, str) else b"c" + root


def unpack_root(packed: bytes) -> Root:
    """Inverse of `pack_root`."""
    return unpack_digest(packed[1:]) if packed[:1] == b"d" else Cid(packed[1:])


def by_root_prefix(root: Cid) -> bytes:
    """Prefix of the `BY_ROOT` keys of `root`; the length byte keeps one root from being a prefix of another."""
    return BY_ROOT + bytes((len(root),)) + root


def pack_loose(put_at: int, multihashes: Sequence[Multihash]) -> bytes:
    """A value of the `LOOSE` queue; `put_at` in ns since 1970."""
    return STAMP.pack(put_at) + pack_multihashes(multihashes)


def pack_multihashes(multihashes: Sequence[Multihash]) -> bytes:
    """Multihashes one after another, each behind its length in a byte."""
    return b"".join(bytes((len(multihash),)) + multihash for multihash in multihashes)


def unpack_multihashes(packed: bytes) -> list[Multihash]:
    """Inverse of `pack_multihashes`."""
    found: list[Multihash] = []
    at = 0
    while at < len(packed):
        end = at + 1 + packed[at]
        found.append(Multihash(packed[at + 1 : end]))
        at = end
    return found


def pages_of(length: int) -> int:
    """Pages that a value of `length` bytes takes."""
    return -(-length // PAGE)


class Entry(NamedTuple):
    """Where a block lies and how many times it is counted.

    `segment` 0 means that the data stands behind the entry itself; `MISSING` that the bytes are gone (quarantined) and
    only the count is left. `page` is the offset in the segment in units of 4,096 bytes. `counted` is the number of
    counted blocks that link to this one, plus one if it is a root, plus decrements still pending. `codec` is that
    under which its own links have been counted, 0 if they have not.
    """

    segment: int
    page: int
    length: int
    counted: int
    codec: int


ENTRY = struct.Struct("<IIIII")
INLINE = 0
MISSING = 0xFFFFFFFF
_INLINE_HEAD = struct.pack("<I", INLINE)
_MISSING_HEAD = struct.pack("<I", MISSING)


def unpack_entry(value: bytes) -> Entry:
    """The entry at the head of an index value."""
    return Entry._make(ENTRY.unpack_from(value))


def is_missing(value: bytes) -> bool:
    """Whether an index value has only a count left."""
    return value[:4] == _MISSING_HEAD


def is_inline(value: bytes) -> bool:
    """Whether the data stands in the index value itself."""
    return value[:4] == _INLINE_HEAD


def repack_entry(entry: Entry, value: bytes) -> bytes:
    """`entry` as an index value, keeping the inline data of `value`."""
    return ENTRY.pack(*entry) + value[ENTRY.size :]


def owner_prefix(owner: str) -> bytes:
    """Prefix of the `BY_OWNER` keys of `owner`, which holds no zero byte."""
    return BY_OWNER + owner.encode() + b"\0"


def split_owner(key: bytes) -> tuple[str, bytes]:
    """Owner and packed root of a `BY_OWNER` or `EXPIRY` key, taken off its prefix."""
    owner, _, packed_root = key.partition(b"\0")
    return owner.decode(), packed_root


def holder_prefix(packed_root: bytes) -> bytes:
    """Prefix of the `BY_HOLDER` keys of a packed root."""
    return BY_HOLDER + bytes((len(packed_root),)) + packed_root


def split_stamp(key: bytes) -> tuple[int, Cid]:
    """Last use and root of an `UNHELD` key."""
    at = len(UNHELD)
    return STAMP.unpack_from(key, at)[0], Cid(key[at + STAMP.size :])


def freed(segment: int, page: int, length: int) -> tuple[bytes, bytes]:
    """The pair that lists a range for punching. To be written with a sync, before the range is punched."""
    return FREED + PLACE.pack(segment, page), LENGTH.pack(length)
