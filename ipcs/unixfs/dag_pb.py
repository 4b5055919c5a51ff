"""The dag-pb codec: a node is links and optional data, in one canonical byte form.

Written as Go writes it, byte for byte: all links before the data, and each link's Name and Tsize even when empty or
zero. Read strictly: what two readers could understand differently is refused.

Sources: ipld/ipld specs/codecs/dag-pb/spec.md; ipld/go-codec-dagpb `unmarshal.go`; boxo `ipld/merkledag/coding.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..block import Data
from ..cid import SHA2_256_PREFIX, Cid, check_cid, read_cid, write_varint
from ..errors import InvalidArgument, MalformedBlock
from . import wire

_LINK_TAG, _DATA_TAG = 0x12, 0x0A
_HASH_TAG, _NAME_TAG, _TSIZE_TAG = 0x0A, 0x12, 0x18


class Link(NamedTuple):
    """A named edge. `tsize` is the writer's claim of the bytes of the whole sub-DAG: a hint, never to be trusted.

    `name` and `tsize` are None when the field is absent, which only foreign writers do; names are bytes, since no
    reader of dag-pb insists on UTF-8.
    """

    cid: Cid
    name: bytes | None = b""
    tsize: int | None = 0


class Node(NamedTuple):
    """A dag-pb node. `data` is None when the field is absent, which differs from empty."""

    links: list[Link]
    data: Data | None = None


def encode(node: Node) -> bytes:
    """The canonical bytes of `node`, its links in the given order.

    Raises `InvalidArgument` when the links are not sorted by name bytes, a size is negative or a CID malformed.
    """
    previous = b""
    for link in node.links:
        name = link.name or b""
        if name < previous:
            raise InvalidArgument(f"dag-pb links must be sorted by name: {name!r} comes after {previous!r}")
        if link.tsize is not None and link.tsize < 0:
            raise InvalidArgument(f"dag-pb link {name!r} has negative Tsize {link.tsize}")
        check_cid(link.cid)
        previous = name
    return encode_trusted(node.links, node.data)


def encode_trusted(links: Iterable[Link], data: Data | None) -> bytes:
    """Like `encode`, for links that this program made and ordered itself."""
    out: list[Data] = []
    for cid, name, tsize in links:
        body = b"\x0a" + write_varint(len(cid)) + cid
        if name is not None:
            body += b"\x12" + write_varint(len(name)) + name
        if tsize is not None:
            body += b"\x18" + write_varint(tsize)
        out += (b"\x12", write_varint(len(body)), body)
    if data is not None:
        out += (b"\x0a", write_varint(len(data)), data)
    return b"".join(out)


def link_size(cid_length: int, name_length: int, tsize: int) -> int:
    """Bytes that a link adds to its node's block."""
    body = 3 + _varint_size(cid_length) + cid_length + _varint_size(name_length) + name_length + _varint_size(tsize)
    return 1 + _varint_size(body) + body


def _varint_size(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)


def decode(block: Data) -> Node:
    """The node in `block`; its `data` is a slice of `block`. Raises `MalformedBlock`."""
    raw = bytes(block)  # indexing bytes is twice as fast as indexing a view
    links: list[Link] = []
    data: Data | None = None
    at, end = 0, len(raw)
    links_closed = False
    while at < end:
        tag, at = _uvarint(raw, at, end)
        begin, after = _field(raw, at, end) if tag & 7 == wire.BYTES else (at, at)
        if tag == _LINK_TAG:
            if links_closed:
                raise MalformedBlock("dag-pb node has two sections of links")
            links.append(_decode_link(raw, begin, after))
        elif tag == _DATA_TAG:
            if data is not None:
                raise MalformedBlock("dag-pb node has two Data fields")
            data = block[begin:after]
            links_closed = bool(links)
        else:
            raise MalformedBlock(f"dag-pb node has an unknown field: tag {tag}")
        at = after
    return Node(links, data)


def _uvarint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    """`wire.read_uvarint`, with the one-byte case first: almost all of them are."""
    if at < end and raw[at] < 0x80:
        return raw[at], at + 1
    return wire.read_uvarint(raw, at, end)


def _field(raw: bytes, at: int, end: int) -> tuple[int, int]:
    """`wire.read_bytes`, likewise."""
    if at < end and raw[at] < 0x80 and raw[at] < end - at:
        return at + 1, at + 1 + raw[at]
    return wire.read_bytes(raw, at, end)


def _decode_link(raw: bytes, at: int, end: int) -> Link:
    cid: Cid | None = None
    name: bytes | None = None
    tsize: int | None = None
    last = 0
    while at < end:
        tag, at = _uvarint(raw, at, end)
        if tag <= last:
            raise MalformedBlock(f"dag-pb link has its fields out of order or repeated: tag {tag} after {last}")
        last = tag
        if tag == _TSIZE_TAG:
            tsize, at = _uvarint(raw, at, end)
            continue
        if tag not in (_HASH_TAG, _NAME_TAG):
            raise MalformedBlock(f"dag-pb link has an unknown field: tag {tag}")
        begin, at = _field(raw, at, end)
        if tag == _HASH_TAG:
            cid = _link_cid(raw[begin:at])
        else:
            name = raw[begin:at]
    if cid is None:
        raise MalformedBlock("dag-pb link has no Hash")
    return Link(cid, name, tsize)


def _link_cid(data: bytes) -> Cid:
    if len(data) == 36 and data[0] == 1 and data[1] < 0x80 and data[2:4] == SHA2_256_PREFIX:
        return Cid(data)  # the usual one: version 1, sha2-256
    try:
        return read_cid(data)[0]  # like Go, whatever follows the CID is not looked at
    except InvalidArgument as exc:
        raise MalformedBlock(f"dag-pb link has a malformed Hash: {exc.message}") from exc
