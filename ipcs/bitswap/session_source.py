"""What a caller of the exchange holds: a `BlockSource` over the store and, through the engine, over peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from ..block import Block, Data, identity_data
from ..cid import Cid, PeerId, format_cid, multihash_of
from ..errors import InvalidArgument, IpcsError, NotFound
from ..store.blockstore import Blockstore
from .engine import Engine
from .events import BlocksWanted, Event
from .session import Holding
from .verify import EMPTY_SHA2_256, may_want

_READ_ATTEMPTS = 3
"""Times a block that vanished between storing and reading (collected) is fetched again."""


class _Waiter:
    """One call that waits for several blocks."""

    __slots__ = ("done", "error", "missing")

    def __init__(self, missing: int) -> None:
        self.missing = missing
        self.done = trio.Event()
        self.error: IpcsError | None = None


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """What a session waits for, and what each connected peer said. Meant for the message of a timeout."""

    root: Cid
    missing: tuple[Cid, ...]
    """Wanted blocks that are not here yet, in file order."""
    peers: tuple[tuple[PeerId, Holding, int], ...]
    """Each peer: what it is believed to hold, and how many blocks it owes."""

    def describe(self) -> str:
        """One sentence: what is missing and what the peers said."""
        if not self.missing:
            return f"{format_cid(self.root)}: nothing is missing"
        first = format_cid(self.missing[0])
        text = f"{len(self.missing)} blocks of {format_cid(self.root)} are missing, the first is {first}"
        if not self.peers:
            return f"{text}; no peer is connected"
        said = ", ".join(f"{peer}: {holding.value}, owes {owed}" for peer, holding, owed in self.peers)
        return f"{text}; peers: {said}"


class SessionSource:
    """Blocks of one DAG. Its methods may be called from several tasks at once."""

    def __init__(
        self, number: int, root: Cid, store: Blockstore, engine: Engine, post: Callable[[Event], None]
    ) -> None:
        self.root = root
        self._number = number
        self._store = store
        self._engine = engine
        self._post = post
        self._waiters: dict[Cid, list[_Waiter]] = {}

    async def get_many(self, cids: Sequence[Cid]) -> list[Data]:
        """The bytes of each CID, in order; waits for peers as long as the caller's cancel scope allows.

        Raises `InvalidArgument` for a CID that policy forbids to fetch, `NotFound` for a block that is collected as
        fast as it comes, and whatever the store raised when it could not keep a block.
        """
        for _ in range(_READ_ATTEMPTS):
            await self._fetch(cids, reading=True)
            found = self._read(cids)
            blocks = [data for data in found if data is not None]
            if len(blocks) == len(cids):
                return blocks
        lost = format_cid(cids[found.index(None)])
        raise NotFound(f"block {lost} vanishes from the store after each fetch; is there space?", subject=lost)

    async def fetch_many(self, cids: Sequence[Cid]) -> None:
        """Return when all are in the local store. Raises as `get_many`."""
        await self._fetch(cids, reading=False)

    def prefetch(self, cids: Sequence[Cid]) -> None:
        """Want what a later call will ask for, in this order; never waits."""
        missing = self._missing([cid for cid in cids if may_want(cid)])
        if missing:
            self._post(BlocksWanted(self._number, missing))

    def status(self) -> SessionStatus:
        """What is missing and what each connected peer said."""
        session = self._engine.client.sessions.get(self._number)
        if session is None:
            return SessionStatus(self.root, tuple(self._waiters), ())
        peers = tuple(
            (peer, session.holding(peer), len(remote.asks)) for peer, remote in self._engine.client.remotes.items()
        )
        return SessionStatus(self.root, tuple(session.wants), peers)

    def describe(self) -> str:
        """One sentence: what is missing and what the peers said."""
        return self.status().describe()

    def deliver(self, cids: Sequence[Cid]) -> None:
        """The exchange stored these."""
        for cid in cids:
            for waiter in self._waiters.pop(cid, ()):
                waiter.missing -= 1
                if not waiter.missing:
                    waiter.done.set()

    def fail(self, cids: Sequence[Cid], error: IpcsError) -> None:
        """The store could not keep these."""
        for cid in cids:
            for waiter in self._waiters.pop(cid, ()):
                waiter.error = error
                waiter.done.set()

    async def _fetch(self, cids: Sequence[Cid], *, reading: bool) -> None:
        missing = self._missing(cids)
        if not missing:
            await trio.lowlevel.checkpoint()
            return
        for cid in missing:
            if not may_want(cid):
                text = format_cid(cid)
                raise InvalidArgument(f"{text} has a hash function that may not be fetched", subject=text)
        waiter = _Waiter(len(missing))
        for cid in missing:
            self._waiters.setdefault(cid, []).append(waiter)
        self._post(BlocksWanted(self._number, missing, reading))
        try:
            await waiter.done.wait()
        finally:
            self._forget(missing, waiter)
        if waiter.error is not None:
            raise waiter.error

    def _forget(self, cids: Sequence[Cid], waiter: _Waiter) -> None:
        if waiter.done.is_set() and waiter.error is None:
            return
        for cid in cids:
            waiters = self._waiters.get(cid, [])
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(cid, None)

    def _missing(self, cids: Sequence[Cid]) -> list[Cid]:
        """Those not in the store, each once; what has no bytes to fetch is resolved here."""
        present = self._store.has_many([multihash_of(cid) for cid in cids])
        missing: dict[Cid, None] = {}
        for cid, here in zip(cids, present, strict=True):
            if here or identity_data(cid) is not None:
                continue
            if multihash_of(cid) == EMPTY_SHA2_256:
                self._store.put_many([Block(cid, b"")])
            else:
                missing[cid] = None
        return list(missing)

    def _read(self, cids: Sequence[Cid]) -> list[Data | None]:
        found = self._store.get_many([multihash_of(cid) for cid in cids])
        if None in found:
            return [identity_data(cid) if data is None else data for cid, data in zip(cids, found, strict=True)]
        return found
