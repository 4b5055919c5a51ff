"""What containerd sees of a blob besides its bytes: times and labels, in the store's records.

A blob exists for containerd when there is an entry here; the reference that keeps its bytes (owner `containerd`) is
written before the entry and dropped after it. `reconcile` mends what a crash between the two left.

    C <32-byte digest> -> size, created_at, updated_at (u64, ns), labels as JSON (absent when there are none)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from ..errors import NotFound
from ..store.datastore import Datastore
from ..store.references import CONTAINERD
from ..store.store import Store
from .descriptor import Info, digest_bytes, digest_text

_PREFIX = b"C"
_HEAD = struct.Struct("<QQQ")


class Records:
    """Entries of the blobs that containerd committed or adopted. Thread-safe as its datastore is."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    def get(self, digest: str) -> Info:
        """Raises `NotFound`, `InvalidArgument` for a malformed digest."""
        value = self._datastore.get(_PREFIX + digest_bytes(digest))
        if value is None:
            raise NotFound(f"content {digest}: not found", subject=digest)
        return _unpack(digest, value)

    def has(self, digest: str) -> bool:
        """Raises `InvalidArgument` for a malformed digest."""
        return self._datastore.get(_PREFIX + digest_bytes(digest)) is not None

    def put(self, info: Info) -> None:
        """Write the entry. Not synced: the reference is, and `reconcile` brings the rest back."""
        self._datastore.write([(_PREFIX + digest_bytes(info.digest), _pack(info))], sync=False)

    def delete(self, digest: str) -> None:
        """Remove the entry; absent is fine."""
        self._datastore.write([(_PREFIX + digest_bytes(digest), None)], sync=False)

    def __iter__(self) -> Iterator[Info]:
        """All entries, by digest."""
        for key, value in self._datastore.scan(_PREFIX):
            yield _unpack(digest_text(key[1:]), value)


def reconcile(store: Store, records: Records) -> None:
    """After a crash: what containerd keeps by reference gets its entry, an entry without reference goes."""
    kept: set[str] = {ref.root for ref in store.references.held_by(CONTAINERD) if isinstance(ref.root, str)}
    entries = {info.digest for info in records}
    for digest in entries - kept:
        records.delete(digest)
    for digest in kept - entries:
        blob = store.blobs.get(digest)
        if blob is not None:
            records.put(Info(digest, blob.size, blob.created_at, blob.updated_at))


def _pack(info: Info) -> bytes:
    labels = json.dumps(dict(info.labels), separators=(",", ":")).encode() if info.labels else b""
    return _HEAD.pack(info.size, info.created_at, info.updated_at) + labels


def _unpack(digest: str, value: bytes) -> Info:
    labels = json.loads(value[_HEAD.size :]) if len(value) > _HEAD.size else {}
    size, created_at, updated_at = _HEAD.unpack_from(value)
    return Info(digest, size, created_at, updated_at, labels)
