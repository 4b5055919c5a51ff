"""What containerd sees of a blob besides its bytes: times and labels, in the store's records.

A blob exists for containerd when there is an entry here; the reference that keeps its bytes (owner `containerd`) is
written before the entry and dropped after it. `reconcile` mends what a crash between the two left.

    C <32-byte digest> -> size, created_at, updated_at (u64, ns), labels as JSON (absent when there are none)
    P <32-byte digest> -> JSON: size, sources. A blob that was promised and is not whole here yet
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import NotFound
from ..store.datastore import Datastore
from ..store.references import CONTAINERD
from ..store.store import Store
from .descriptor import Info, digest_bytes, digest_text

_PREFIX = b"C"
_PROMISE = b"P"
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


@dataclass(frozen=True, slots=True)
class Promise:
    """A blob of `size` bytes that containerd was told is here; `sources` are (registry host, repository)."""

    digest: str
    size: int
    sources: tuple[tuple[str, str], ...]


class Promises:
    """Promises that are still open, so that a restart goes on keeping them. Thread-safe as its datastore is."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    def put(self, promise: Promise) -> None:
        """Write it, synced: containerd will believe it for ever."""
        value = json.dumps({"size": promise.size, "sources": promise.sources}).encode()
        self._datastore.write([(_PROMISE + digest_bytes(promise.digest), value)], sync=True)

    def delete(self, digest: str) -> None:
        """It was kept, or taken back; absent is fine."""
        self._datastore.write([(_PROMISE + digest_bytes(digest), None)], sync=False)

    def __iter__(self) -> Iterator[Promise]:
        """All open promises."""
        for key, value in self._datastore.scan(_PROMISE):
            fields = json.loads(value)
            sources = tuple((str(host), str(repository)) for host, repository in fields["sources"])
            yield Promise(digest_text(key[1:]), int(fields["size"]), sources)


def reconcile(store: Store, records: Records, promises: Promises) -> None:
    """After a crash: reference, entry and promise of a digest are all there, or none of them."""
    kept: set[str] = {ref.root for ref in store.references.held_by(CONTAINERD) if isinstance(ref.root, str)}
    entries = {info.digest for info in records}
    for digest in entries - kept:
        records.delete(digest)
    for digest in kept - entries:
        blob = store.blobs.get(digest)
        if blob is not None:
            records.put(Info(digest, blob.size, blob.created_at, blob.updated_at))
        else:
            store.references.drop(CONTAINERD, digest)
    shown = kept & entries
    for promise in list(promises):
        if promise.digest not in shown or store.blobs.get(promise.digest) is not None:
            promises.delete(promise.digest)


def _pack(info: Info) -> bytes:
    labels = json.dumps(dict(info.labels), separators=(",", ":")).encode() if info.labels else b""
    return _HEAD.pack(info.size, info.created_at, info.updated_at) + labels


def _unpack(digest: str, value: bytes) -> Info:
    labels = json.loads(value[_HEAD.size :]) if len(value) > _HEAD.size else {}
    size, created_at, updated_at = _HEAD.unpack_from(value)
    return Info(digest, size, created_at, updated_at, labels)
