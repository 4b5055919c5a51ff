"""The protocol `/ipcs/routing/1.0.0`: dag-cbor messages, each behind its length as an unsigned varint.

One stream carries one request and its answer; announcements have none. A message is a map of one entry, its kind:

    {"resolve": [digest, ...]}     which of these blobs do you hold?    -> {"records": [record, ...]}
    {"announce": [record, ...]}    I hold these, verified
    {"withdraw": [digest, ...]}    I shall not for long
    {"pulling": [digest, ...]}     are you about to have these?         -> {"pulls": [[digest, ...], [digest, ...]]}
    {"follow": [digest]}           its leaves, please, as you get them  -> {"leaves": [digest, ...]} ..., {"whole": []}
    {"peers": []}                  whom are you connected to?           -> {"addresses": [multiaddr, ...]}

    digest = 32 bytes, sha2-256           record = [digest, size, root CID, profile]

`pulls` are those it takes from a registry itself, and those whose manifest it has seen. A stream of `leaves` that ends
without `whole` came to nothing.

Whoever sends a record has checked the sha256 of the whole blob itself; whoever receives one has only that peer's word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import dag_cbor
from dag_cbor.decoding import CBORDecodingError

from ..cid import RAW, SHA2_256_PREFIX, Cid, check_cid, codec_of, multihash_of, read_varint, write_varint
from ..errors import InvalidArgument, RemoteProtocolError

T = TypeVar("T")

PROTOCOL = "/ipcs/routing/1.0.0"

MAX_MESSAGE = 128 * 1024
"""Bytes of one message: 1,000 records or 200 peers' addresses, and little enough to hold for every peer at once."""

MAX_ENTRIES = 256
"""Digests or records in one message; an image has tens."""

MAX_LEAVES = 2048
"""Leaves in one message: 70 kB; more follow in the next."""

MAX_ADDRESSES = 1000
"""Multiaddrs in one answer: 200 peers with 5 each."""

MAX_TEXT = 256
"""Bytes of a profile's name or of a multiaddr."""

MAX_SIZE = 1 << 50
"""Largest blob that anybody may claim, in bytes: keeps sums of sizes far from trouble."""


@dataclass(frozen=True, slots=True)
class Record:
    """The blob `digest` ("sha256:<hex>") of `size` bytes is the DAG `root`, cut as `profile` says."""

    digest: str
    size: int
    root: Cid
    profile: str

    def is_plausible(self) -> bool:
        """False for a root by another hash than sha2-256, and for a record that is a lie on the face of it."""
        return multihash_of(self.root)[:2] == SHA2_256_PREFIX and not self.contradicts_itself()

    def contradicts_itself(self) -> bool:
        """Whether no blob at all can be so: a DAG of one raw leaf has the digest of the blob itself."""
        multihash = multihash_of(self.root)
        is_leaf = codec_of(self.root) == RAW and multihash[:2] == SHA2_256_PREFIX
        return is_leaf and multihash[2:].hex() != self.digest[7:]


@dataclass(frozen=True, slots=True)
class Resolve:
    digests: Sequence[str]


@dataclass(frozen=True, slots=True)
class Records:
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Announce:
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Withdraw:
    digests: Sequence[str]


@dataclass(frozen=True, slots=True)
class Pulling:
    digests: Sequence[str]


@dataclass(frozen=True, slots=True)
class Pulls:
    leading: Sequence[str]
    wanting: Sequence[str]


@dataclass(frozen=True, slots=True)
class Follow:
    digests: Sequence[str]


@dataclass(frozen=True, slots=True)
class Leaves:
    leaves: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Whole:
    pass


@dataclass(frozen=True, slots=True)
class Peers:
    pass


@dataclass(frozen=True, slots=True)
class Addresses:
    addresses: Sequence[str]


Message: TypeAlias = (
    Resolve | Records | Announce | Withdraw | Pulling | Pulls | Follow | Leaves | Whole | Peers | Addresses
)


def encode(message: Message) -> bytes:
    """The message with its length before it. Lists beyond the limits are the caller's to split."""
    kind, entries = _entries(message)
    body: dict[str, Any] = {kind: entries}
    data = bytes(dag_cbor.encode(body))
    return write_varint(len(data)) + data


def _entries(message: Message) -> tuple[str, list[Any]]:
    match message:
        case Resolve(digests) | Withdraw(digests) | Pulling(digests) | Follow(digests):
            return _KINDS[type(message)], [_pack_digest(digest) for digest in digests]
        case Records(records) | Announce(records):
            return _KINDS[type(message)], [_pack_record(record) for record in records]
        case Pulls(leading, wanting):
            return "pulls", [[_pack_digest(digest) for digest in part] for part in (leading, wanting)]
        case Leaves(leaves):
            return "leaves", list(leaves)
        case Addresses(addresses):
            return "addresses", list(addresses)
        case Peers() | Whole():
            return _KINDS[type(message)], []


def decode(data: bytes) -> Message:
    """A message without its length. Raises `RemoteProtocolError`, and nothing else."""
    try:
        value = dag_cbor.decode(data)
    except (CBORDecodingError, LookupError, OverflowError, RecursionError, ValueError) as exc:
        raise RemoteProtocolError(f"routing message is not dag-cbor: {exc}") from exc
    if not isinstance(value, dict) or len(value) != 1:
        raise RemoteProtocolError("routing message is no map of one entry")
    [(kind, entries)] = value.items()
    if kind not in _READERS or not isinstance(entries, list):
        raise RemoteProtocolError(f"routing message of kind {str(kind)[:40]!r} is not known")
    return _READERS[kind](entries)


def body_length(head: bytes) -> int | None:
    """Length of the message that follows, its varint being at the front of `head`; None while that is cut off.

    Raises `RemoteProtocolError` for one that is too long.
    """
    if not head or (len(head) < 4 and all(byte & 0x80 for byte in head)):
        return None
    try:
        length, _ = read_varint(head)
    except InvalidArgument as exc:
        raise RemoteProtocolError(f"routing message has a bad length: {exc.message}") from exc
    if length > MAX_MESSAGE:
        raise RemoteProtocolError(f"routing message of {length} bytes is over the limit of {MAX_MESSAGE}")
    return length


def _pack_digest(digest: str) -> bytes:
    return bytes.fromhex(digest[7:])


def _pack_record(record: Record) -> list[object]:
    return [_pack_digest(record.digest), record.size, bytes(record.root), record.profile]


def _read_digest(value: object) -> str:
    if not isinstance(value, bytes) or len(value) != 32:
        raise RemoteProtocolError("routing message holds a digest that is not 32 bytes")
    return "sha256:" + value.hex()


def _read_record(value: object) -> Record:
    if not isinstance(value, list) or len(value) != 4:
        raise RemoteProtocolError("routing record does not have four parts")
    digest, size, root, profile = value
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise RemoteProtocolError("routing record has no sensible size")
    if not isinstance(root, bytes) or not isinstance(profile, str) or len(profile) > MAX_TEXT:
        raise RemoteProtocolError("routing record has no root or no profile")
    try:
        return Record(_read_digest(digest), size, check_cid(root), profile)
    except InvalidArgument as exc:
        raise RemoteProtocolError(f"routing record has a malformed root: {exc.message}") from exc


def _read_list(entries: Sequence[object], read: Callable[[object], T], limit: int = MAX_ENTRIES) -> list[T]:
    if len(entries) > limit:
        raise RemoteProtocolError(f"routing message has {len(entries)} entries, over the limit of {limit}")
    return [read(entry) for entry in entries]


def _read_address(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise RemoteProtocolError("routing message holds an address that is no short text")
    return value


def _read_leaf(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 32:
        raise RemoteProtocolError("routing message holds a leaf that is not 32 bytes")
    return value


def _read_pulls(entries: Sequence[object]) -> Pulls:
    if len(entries) != 2 or not all(isinstance(part, list) for part in entries):
        raise RemoteProtocolError("routing message of pulls does not have two lists")
    leading, wanting = (_read_list(part, _read_digest) for part in entries if isinstance(part, list))
    return Pulls(leading, wanting)


_READERS: dict[str, Callable[[Sequence[object]], Message]] = {
    "resolve": lambda entries: Resolve(_read_list(entries, _read_digest)),
    "records": lambda entries: Records(_read_list(entries, _read_record)),
    "announce": lambda entries: Announce(_read_list(entries, _read_record)),
    "withdraw": lambda entries: Withdraw(_read_list(entries, _read_digest)),
    "pulling": lambda entries: Pulling(_read_list(entries, _read_digest)),
    "pulls": _read_pulls,
    "follow": lambda entries: Follow(_read_list(entries, _read_digest, 1)),
    "leaves": lambda entries: Leaves(_read_list(entries, _read_leaf, MAX_LEAVES)),
    "whole": lambda _: Whole(),
    "peers": lambda _: Peers(),
    "addresses": lambda entries: Addresses(_read_list(entries, _read_address, MAX_ADDRESSES)),
}

_KINDS: dict[type[object], str] = {
    Resolve: "resolve",
    Records: "records",
    Announce: "announce",
    Withdraw: "withdraw",
    Pulling: "pulling",
    Follow: "follow",
    Whole: "whole",
    Peers: "peers",
}
