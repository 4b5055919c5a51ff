"""Directories, written: one node while it is small, a HAMT beyond, as Kubo and IPIP-0499 decide it.

Source: boxo `ipld/unixfs/io/directory.go`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InvalidArgument
from . import dag_pb, hamt
from .builder import NO_ATTRIBUTES, Entry, NodeBuilder
from .dag_pb import Link
from .node import Attributes, Kind, UnixFS, encode
from .profile import Estimate, Profile


def check_name(name: bytes) -> None:
    """Raise `InvalidArgument` for what no file system takes as a name: empty, `.`, `..`, with `/` or NUL."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidArgument(f"{name!r} cannot be the name of a directory entry")


def build(
    builder: NodeBuilder,
    profile: Profile,
    entries: Mapping[bytes, Entry],
    attributes: Attributes = NO_ATTRIBUTES,
) -> Entry:
    """The directory of `entries`; its `size` is 0. Raises `InvalidArgument` for an impossible name."""
    for name in entries:
        check_name(name)
    message = UnixFS(Kind.DIRECTORY, mode=attributes.mode, mtime=attributes.mtime)
    ordered = sorted(entries.items())
    if profile.hamt_threshold and _estimate(profile.hamt_estimate, ordered, message) > profile.hamt_threshold:
        return hamt.build(builder, ordered, profile.hamt_fanout, attributes)
    return builder.node(message, [Link(entry.cid, name, entry.tsize) for name, entry in ordered])


def _estimate(estimate: Estimate, entries: list[tuple[bytes, Entry]], message: UnixFS) -> int:
    """The directory's size in bytes, as the profile counts it."""
    if estimate is Estimate.LINKS:
        return sum(len(name) + len(entry.cid) for name, entry in entries)
    data = encode(message)
    own = len(dag_pb.encode_trusted([], data))
    return own + sum(dag_pb.link_size(len(entry.cid), len(name), entry.tsize) for name, entry in entries)
