"""Blob records: which DAG holds the bytes of an OCI digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..cid import Cid
from . import layout
from .datastore import Datastore, Transaction


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """The blob `digest` ("sha256:<hex>") of `size` bytes is the UnixFS file `root`, cut by the rules of `profile`.

    Times are nanoseconds since 1970. `verified` says that this process saw the whole blob hash to its digest.
    """

    digest: str
    size: int
    root: Cid
    profile: str
    created_at: int
    updated_at: int
    verified: bool


class BlobTable:
    """Blob records by digest and by root. Written through `Store.commit_blob`; thread-safe."""

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    def get(self, digest: str) -> BlobRecord | None:
        """The record of `digest`, None where there is none. Raises `InvalidArgument` for a malformed digest."""
        packed = layout.pack_digest(digest)
        value = self._datastore.get(layout.BLOB + packed)
        return None if value is None else unpack_blob(packed, value)

    def by_root(self, root: Cid) -> list[BlobRecord]:
        """The records whose bytes are the DAG under `root`: one, save for digests of several algorithms."""
        prefix = layout.by_root_prefix(root)
        found = [self._datastore.get(layout.BLOB + key[len(prefix) :]) for key, _ in self._datastore.scan(prefix)]
        digests = [key[len(prefix) :] for key, _ in self._datastore.scan(prefix)]
        return [unpack_blob(digest, value) for digest, value in zip(digests, found, strict=False) if value is not None]

    def __iter__(self) -> Iterator[BlobRecord]:
        """All records, by digest."""
        skip = len(layout.BLOB)
        for key, value in self._datastore.scan(layout.BLOB):
            yield unpack_blob(key[skip:], value)


def put_blob(transaction: Transaction, record: BlobRecord) -> None:
    """Write `record` and its entry by root."""
    digest = layout.pack_digest(record.digest)
    transaction.put(layout.BLOB + digest, pack_blob(record))
    transaction.put(layout.by_root_prefix(record.root) + digest, b"")


def delete_blob(transaction: Transaction, record: BlobRecord) -> None:
    """Remove `record` and its entry by root."""
    digest = layout.pack_digest(record.digest)
    transaction.delete(layout.BLOB + digest)
    transaction.delete(layout.by_root_prefix(record.root) + digest)


def pack_blob(record: BlobRecord) -> bytes:
    """The value of a blob record; its digest is the key."""
    head = layout.BLOB_HEAD.pack(
        record.size, record.created_at, record.updated_at, layout.VERIFIED if record.verified else 0, len(record.root)
    )
    return head + record.root + record.profile.encode()


def unpack_blob(digest: bytes, value: bytes) -> BlobRecord:
    """The record under the packed `digest`. Inverse of `pack_blob`."""
    size, created_at, updated_at, flags, root_length = layout.BLOB_HEAD.unpack_from(value)
    end = layout.BLOB_HEAD.size + root_length
    return BlobRecord(
        layout.unpack_digest(digest),
        size,
        Cid(value[layout.BLOB_HEAD.size : end]),
        value[end:].decode(),
        created_at,
        updated_at,
        bool(flags & layout.VERIFIED),
    )
