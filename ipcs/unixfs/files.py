"""Files in and out of a node: what `ipcs add`, `cat` and `get` do, for Python programs.

added = await files.add(Path("layer.tar.gz"))
async for piece in files.read(added.cid, offset=0, length=1024): ...
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from ..block import Data
from ..blockservice import BlockSource
from ..cid import Cid
from ..store.blobs import BlobRecord
from ..store.store import Store
from .exporter import read
from .importer import Importer
from .profile import IPCS_V1, Profile
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
class Added:
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
    ) -> Added:
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
        return Added(importer.root.cid, digest, done)

    async def read(self, cid: Cid, offset: int = 0, length: int | None = None) -> AsyncIterator[Data]:
        """The bytes of the file at `cid` from `offset`, `length` of them or to the end.

        Raises `InvalidArgument` when it is no file, `LimitExceeded` or `MalformedBlock` for a hostile DAG.
        """
        with self._store.hold(cid):
            async with self._sessions.session(cid) as session:
                async for piece in read(session, cid, offset, length):
                    yield piece

    async def fetch(self, cid: Cid) -> int:
        """Bring the whole DAG below `cid` into the store; how many distinct blocks it has."""
        with self._store.hold(cid):
            async with self._sessions.session(cid) as session:
                return await fetch_dag(session, cid)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    async with await trio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            yield piece
