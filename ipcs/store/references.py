"""References (tier 1): who wants which DAG kept.

An owner is `containerd`, `user/<name>` or `lease/<id>`; whatever nobody references is `cache`. A reference may name a
blob digest whose record is not here yet: it then takes effect when the record is committed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import RLock

from ..errors import InvalidArgument
from . import layout
from .barrier import Barrier
from .datastore import Datastore, Transaction
from .layout import Root
from .roots import RootTable

CONTAINERD = "containerd"
CACHE = "cache"
_OWNER = re.compile(r"containerd|(user|lease)/[A-Za-z0-9][A-Za-z0-9._/:-]{0,126}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`owner` keeps `root` (a blob digest or a CID). Times are ns since 1970; `expires_at` 0 means never."""

    owner: str
    root: Root
    name: str = ""
    created_at: int = 0
    expires_at: int = 0


class References:
    """The table of references. Every change is one synced write; thread-safe."""

    def __init__(
        self, datastore: Datastore, roots: RootTable, barrier: Barrier, lock: RLock, clock: Callable[[], int]
    ) -> None:
        self._datastore = datastore
        self._roots = roots
        self._barrier = barrier
        self._lock = lock
        self._clock = clock

    def add(self, owner: str, root: Root, *, name: str = "", expires_at: int = 0) -> Reference:
        """`owner` keeps `root` from now on; again to change `name` or `expires_at` (ns since 1970, 0: never).

        Raises `InvalidArgument` for a malformed owner or digest, `NotFound` when `root` is a CID whose DAG is not
        whole in the store (a digest may come before its blob), `ResourceExhausted` for a full disk.
        """
        check_owner(owner)
        reference = Reference(owner, root, name, self._clock(), expires_at)
        mark = None if isinstance(root, str) else self._barrier.reach()
        with self._lock:
            transaction = Transaction(self._datastore)
            self.put(transaction, reference)
            self._barrier.commit(transaction, mark)
        return reference

    def drop(self, owner: str, root: Root) -> bool:
        """`owner` no longer keeps `root`; False when it did not. What nobody keeps becomes cache."""
        with self._lock:
            transaction = Transaction(self._datastore)
            dropped = self._delete(transaction, owner, layout.pack_root(root))
            self._barrier.commit(transaction, None)
        return dropped

    def drop_owner(self, owner: str) -> int:
        """Drop all references of `owner`, as at the end of a lease; says how many there were."""
        with self._lock:
            transaction = Transaction(self._datastore)
            held = [reference.root for reference in self.held_by(owner)]
            for root in held:
                self._delete(transaction, owner, layout.pack_root(root))
            self._barrier.commit(transaction, None)
        return len(held)

    def held_by(self, owner: str | None = None) -> Iterator[Reference]:
        """All references, or those of `owner`, by owner and root; expired ones too until the next collection."""
        prefix = layout.BY_OWNER if owner is None else layout.owner_prefix(owner)
        for key, value in self._datastore.scan(prefix):
            yield _unpack(key, value)

    def holders(self, root: Root) -> list[Reference]:
        """Who holds `root`, under this name or another (a blob's digest and its root CID); empty when it is cache."""
        found = []
        for name in self._roots.names_of(Transaction(self._datastore), root):
            packed_root = layout.pack_root(name)
            prefix = layout.holder_prefix(packed_root)
            for key, _ in self._datastore.scan(prefix):
                of_owner = layout.BY_OWNER + key[len(prefix) :] + b"\0" + packed_root
                value = self._datastore.get(of_owner)
                if value is not None:
                    found.append(_unpack(of_owner, value))
        return found

    def expire(self) -> int:
        """Drop the references whose time has passed; says how many. A collection does this first."""
        now = self._clock()
        due = []
        with self._lock:
            for key, _ in self._datastore.scan(layout.EXPIRY):
                if layout.STAMP.unpack_from(key, 1)[0] > now:
                    break
                due.append(layout.split_owner(key[1 + layout.STAMP.size :]))
            transaction = Transaction(self._datastore)
            for owner, packed_root in due:
                self._delete(transaction, owner, packed_root)
            self._barrier.commit(transaction, None)
        return len(due)

    def put(self, transaction: Transaction, reference: Reference) -> None:
        """Write `reference` in a transaction of the caller, who holds the lock."""
        packed_root = layout.pack_root(reference.root)
        key = layout.owner_prefix(reference.owner) + packed_root
        previous = transaction.get(key)
        if previous is not None:
            _, expires_at = layout.REFERENCE_HEAD.unpack_from(previous)
            _delete_expiry(transaction, expires_at, key)
        head = layout.REFERENCE_HEAD.pack(reference.created_at, reference.expires_at)
        transaction.put(key, head + reference.name.encode())
        transaction.put(layout.holder_prefix(packed_root) + reference.owner.encode(), b"")
        if reference.expires_at:
            transaction.put(expiry_key(reference.expires_at, key), b"")
        self._roots.referenced(transaction, reference.root)

    def _delete(self, transaction: Transaction, owner: str, packed_root: bytes) -> bool:
        key = layout.owner_prefix(owner) + packed_root
        value = transaction.get(key)
        if value is None:
            return False
        _delete_expiry(transaction, layout.REFERENCE_HEAD.unpack_from(value)[1], key)
        transaction.delete(key)
        transaction.delete(layout.holder_prefix(packed_root) + owner.encode())
        self._roots.settle(transaction, layout.unpack_root(packed_root))
        return True


def check_owner(owner: str) -> None:
    """Raises `InvalidArgument` unless `owner` is `containerd`, `user/<name>` or `lease/<id>`."""
    if not _OWNER.fullmatch(owner):
        raise InvalidArgument(f"{owner!r} is not an owner: use containerd, user/<name> or lease/<id>", subject=owner)


def expiry_key(expires_at: int, key: bytes) -> bytes:
    """The `EXPIRY` key of the reference under the `BY_OWNER` key `key`."""
    return layout.EXPIRY + layout.STAMP.pack(expires_at) + key[1:]


def _delete_expiry(transaction: Transaction, expires_at: int, key: bytes) -> None:
    if expires_at:
        transaction.delete(expiry_key(expires_at, key))


def _unpack(key: bytes, value: bytes) -> Reference:
    owner, packed_root = layout.split_owner(key[1:])
    created_at, expires_at = layout.REFERENCE_HEAD.unpack_from(value)
    name = value[layout.REFERENCE_HEAD.size :].decode()
    return Reference(owner, layout.unpack_root(packed_root), name, created_at, expires_at)
