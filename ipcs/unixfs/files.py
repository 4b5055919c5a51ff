"""Files in and out of a node: what `ipcs add`, `cat` and `get` do, for Python programs.

added = await files.add(Path("layer.tar.gz"))
async for piece in files.read(added.cid, offset=0, length=1024): ...
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from ..block import Block, Data, identity_data
from ..blockservice import BlockSource, LocalBlocks
from ..cid import Cid
from ..store.blobs import BlobRecord
from ..store.holds import Hold
from ..store.store import Store
from .car import CarReader
from .exporter import read
from .importer import Importer
from .profile import IPCS_V1, Profile
from .tree import Added, CloseFile, OpenFile, Step, TreeImporter
from .walk import fetch_dag

PIECE = 1024 * 1024
"""Bytes read and imported per hop into a worker thread: below this the hop costs more than the hashing."""


class Sessions(Protocol):
    """Where missing blocks come from: an exchange."""

    def session(self, root: Cid) -> AbstractAsyncContextManager[BlockSource]:
        """A source of the blocks of the DAG below `root`."""
        ...

    def notify_stored(self, cids: Sequence[Cid]) -> None:
        """Blocks came into the store without the exchange: peers may be waiting for them."""
        ...


@dataclass(frozen=True)
class AddedFile:
    """An imported file."""

    cid: Cid
    digest: str
    """`sha256:<hex>` of the whole file."""
    size: int
    """Bytes of the file."""


class Files:
    """Files of one node. Reading fetches what is not in the store; waiting is bounded by the caller's cancel scope."""

    def __init__(self, store: Store, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    async def add(
        self,
        source: Path | AsyncIterable[Data],
        *,
        profile: Profile = IPCS_V1,
        owner: str | None = None,
        progress: Callable[[int], None] = lambda _done: None,
    ) -> AddedFile:
        """Import a file or a stream of bytes; memory stays constant whatever the size.

        `owner` (`user/<name>`) keeps it from collection, None leaves it as cache. `progress` is told the bytes done.
        Raises `NotFound` for a missing path, `ResourceExhausted` for a full disk.
        """
        pieces = _pieces(source) if isinstance(source, Path) else source
        importer = Importer(profile)
        sha256 = hashlib.sha256()
        done = 0
        with self._store.hold() as hold:

            def step(piece: Data | None) -> list[Cid]:
                if piece is not None:
                    sha256.update(piece)
                blocks = importer.finish() if piece is None else importer.feed(piece)
                hold.put_many(blocks)
                return [block.cid for block in blocks]

            async for piece in pieces:
                self._sessions.notify_stored(await trio.to_thread.run_sync(step, piece))
                done += len(piece)
                progress(done)
            self._sessions.notify_stored(await trio.to_thread.run_sync(step, None))
            now = time.time_ns()
            digest = f"sha256:{sha256.hexdigest()}"
            record = BlobRecord(digest, done, importer.root.cid, profile.name, now, now, verified=True)
            await trio.to_thread.run_sync(self._store.commit_blob, record, owner)
        return AddedFile(importer.root.cid, digest, done)

    async def read(self, cid: Cid, offset: int = 0, length: int | None = None) -> AsyncGenerator[Data, None]:
        """The bytes of the file at `cid` from `offset`, `length` of them or to the end.

        An async generator: close it (`contextlib.aclosing`) when it may be left early.
        Raises `InvalidArgument` when it is no file, `LimitExceeded` or `MalformedBlock` for a hostile DAG.
        """
        async with self.source(cid) as source, aclosing(read(source, cid, offset, length)) as pieces:
            async for piece in pieces:
                yield piece

    async def fetch(self, cid: Cid) -> int:
        """Bring the whole DAG below `cid` into the store; how many distinct blocks it has."""
        async with self.source(cid) as source:
            return await fetch_dag(source, cid)

    @asynccontextmanager
    async def source(self, root: Cid, *, local_only: bool = False) -> AsyncIterator[BlockSource]:
        """The blocks of the DAG below `root`, kept from collection meanwhile; `local_only` asks no peer."""
        with self._store.hold(root):
            if local_only:
                yield LocalBlocks(self._store.blocks)
                return
            async with self._sessions.session(root) as session:
                yield session

    async def add_tree(
        self, batches: AsyncIterable[Sequence[Step]], *, profile: Profile = IPCS_V1, owner: str | None = None
    ) -> AsyncGenerator[Added, None]:
        """Import files, symlinks and directories; what was added, as it is finished, children before parents.

        A batch of steps is imported and stored in one hop into a worker thread.
        Every root (`depth` 0) is committed when it is finished, and kept for `owner`. Raises like `add`, and what
        `TreeImporter` raises.
        """
        with self._store.hold() as hold:
            sink = _TreeSink(self._store, hold, profile, owner)
            async for batch in batches:
                self._sessions.notify_stored(await trio.to_thread.run_sync(sink.apply, batch))
                for added in sink.tree.take():
                    yield added
            sink.tree.finish()

    async def import_car(self, pieces: AsyncIterable[Data], *, owner: str | None, local_only: bool) -> CarImport:
        """Store a CAR's blocks, each checked, and keep its roots for `owner`.

        What is missing below the roots is fetched from peers, or with `local_only` an error. Raises what `CarReader`
        raises, and `NotFound` for a DAG that cannot be completed; the blocks read until then stay as cache.
        """
        reader = CarReader()
        blocks = size = 0
        with self._store.hold() as hold:

            def step(piece: Data) -> list[Block]:
                found = reader.feed(piece)
                hold.put_many(found)
                return found

            async for piece in pieces:
                found = await trio.to_thread.run_sync(step, piece)
                blocks, size = blocks + len(found), size + sum(len(block.data) for block in found)
                self._sessions.notify_stored([block.cid for block in found])
            reader.finish()
            for root in reader.roots:
                async with self.source(root, local_only=local_only) as source:
                    await fetch_dag(source, root)
                if owner is not None:
                    await trio.to_thread.run_sync(self._store.references.add, owner, root)
        return CarImport(tuple(reader.roots), blocks, size)


@dataclass(frozen=True)
class CarImport:
    """A CAR that came into the store: its roots, and how many blocks and bytes it held."""

    roots: tuple[Cid, ...]
    blocks: int
    size: int


class _TreeSink:
    """Takes the steps of a tree in a worker thread: imports, stores, commits roots."""

    def __init__(self, store: Store, hold: Hold, profile: Profile, owner: str | None) -> None:
        self.tree = TreeImporter(profile)
        self._store = store
        self._hold = hold
        self._profile = profile
        self._owner = owner
        self._sha256 = hashlib.sha256()

    def apply(self, steps: Sequence[Step]) -> list[Cid]:
        """Apply some steps; the CIDs of the blocks they stored."""
        stored: list[Cid] = []
        blocks: list[Block] = []
        for step in steps:
            if isinstance(step, OpenFile):
                self._sha256 = hashlib.sha256()
            elif isinstance(step, (bytes, memoryview)):
                self._sha256.update(step)
            blocks += self.tree.step(step)
            root = self.tree.finished_root()
            if root is not None:
                stored += self._put(blocks)
                blocks = []
                if identity_data(root.cid) is None:
                    self._commit(root, is_file=isinstance(step, CloseFile))
        return stored + self._put(blocks)

    def _put(self, blocks: list[Block]) -> list[Cid]:
        self._hold.put_many(blocks)
        return [block.cid for block in blocks]

    def _commit(self, root: Added, *, is_file: bool) -> None:
        if is_file:
            now = time.time_ns()
            digest = f"sha256:{self._sha256.hexdigest()}"
            record = BlobRecord(digest, root.size, root.cid, self._profile.name, now, now, verified=True)
            self._store.commit_blob(record, self._owner)
        elif self._owner is not None:
            self._store.barrier()
            self._store.references.add(self._owner, root.cid)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    async with await trio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            yield piece
