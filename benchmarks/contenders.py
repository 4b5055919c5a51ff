"""Who moves it: ipcs, Kubo, py-libp2p's own Bitswap and plain HTTP, each as real processes with one face."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from ipcs.block import Block
from ipcs.cid import RAW, codec_of, format_cid
from ipcs.errors import InvalidArgument
from ipcs.testing.peers import Peer, open_kubo, open_script, write_flatfs
from ipcs.unixfs.importer import Importer, import_blocks
from ipcs.unixfs.profile import Profile

READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A file to move, and how it is cut."""

    path: Path
    size: int
    leaf: int

    def importer(self) -> Importer:
        return Importer(Profile(chunker=f"size-{self.leaf}"))

    def pieces(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while piece := file.read(READ_SIZE):
                yield piece


@dataclass(frozen=True, slots=True)
class Share:
    """The leaves that one of `of` providers holds: every `of`-th, from `index` on. Inner nodes it holds all."""

    index: int = 0
    of: int = 1

    def blocks(self, blocks: Iterator[Block]) -> Iterator[Block]:
        leaves = 0
        for block in blocks:
            if codec_of(block.cid) == RAW:
                leaves += 1
                if leaves % self.of != self.index:
                    continue
            yield block


class Implementation(Protocol):
    """Software that moves files. `fetch` is the request that brings all blocks of a root into its store."""

    fetch: str

    def open(self, directory: Path, *, durable: bool) -> AbstractAsyncContextManager[Peer]:
        """A node with an empty store in `directory`."""
        ...

    async def load(self, peer: Peer, directory: Path, blob: Blob, share: Share) -> str:
        """Put `share` of `blob` into `peer`, whose store is in `directory`; returns the root's CID."""
        ...


class Ipcs:
    """This project: `open_node` in a process of its own."""

    fetch = "fetch"

    def open(self, directory: Path, *, durable: bool) -> AbstractAsyncContextManager[Peer]:
        flags = ["--durable"] if durable else []
        return open_script(directory, "ipcs_peer.py", "--repo", str(directory / "repo"), *flags)

    async def load(self, peer: Peer, _directory: Path, blob: Blob, share: Share) -> str:
        answer = await peer.call("add", path=str(blob.path), chunk=blob.leaf, index=share.index, of=share.of)
        return str(answer["cid"])


class Kubo:
    """Kubo 0.22; its fetch is `pin`, the parallel walk of the whole DAG."""

    fetch = "pin"

    def open(self, directory: Path, *, durable: bool) -> AbstractAsyncContextManager[Peer]:
        return open_kubo(directory, *([] if durable else ["--no-fsync"]))

    async def load(self, _peer: Peer, directory: Path, blob: Blob, share: Share) -> str:
        return await trio.to_thread.run_sync(_write_kubo_blocks, directory / "repo", blob, share)


def _write_kubo_blocks(repo: Path, blob: Blob, share: Share) -> str:
    importer = blob.importer()
    write_flatfs(repo, share.blocks(import_blocks(importer, blob.pieces())))
    return format_cid(importer.root.cid)


class Scripted:
    """A peer that imports a file whole (`add`) and writes what it fetches to another (`get`)."""

    fetch = "get"

    def __init__(self, script: str, *, chunked: bool) -> None:
        self._script = script
        self._chunked = chunked

    def open(self, directory: Path, *, durable: bool) -> AbstractAsyncContextManager[Peer]:
        if durable:
            raise InvalidArgument(f"{self._script} has no durable store", subject=self._script)
        return open_script(directory, self._script)

    async def load(self, peer: Peer, _directory: Path, blob: Blob, share: Share) -> str:
        if share.of != 1:
            raise InvalidArgument(f"{self._script} cannot hold a part of a file", subject=self._script)
        chunk = {"chunk": blob.leaf} if self._chunked else {}
        return str((await peer.call("add", path=str(blob.path), **chunk))["cid"])


@dataclass(frozen=True, slots=True)
class Contender:
    """Who fetches, and from whom."""

    name: str
    fetcher: Implementation
    provider: Implementation
    is_plain: bool = False
    """Only does the plain case: one provider, no durable store, leaves up to 512 KiB."""
    usual_rate: float = 300.0
    """MB/s it usually reaches, for telling how long a session will take."""
    tries: int = 3
    """Fresh fetchers for a run that stalls."""
    quick_limit: int = sys.maxsize
    """Bytes of the largest file that a quick run has time for."""


_IPCS, _KUBO = Ipcs(), Kubo()
_PY_LIBP2P = Scripted("pylibp2p_peer.py", chunked=True)
_HTTP = Scripted("http_peer.py", chunked=False)

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("ipcs", _IPCS, _IPCS, usual_rate=450.0),
        Contender("kubo", _KUBO, _KUBO),
        Contender("kubo to ipcs", _IPCS, _KUBO),
        Contender("ipcs to kubo", _KUBO, _IPCS),
        Contender(
            "py-libp2p", _PY_LIBP2P, _PY_LIBP2P, is_plain=True, usual_rate=16.0, tries=1, quick_limit=100_000_000
        ),
        Contender("http", _HTTP, _HTTP, is_plain=True, usual_rate=900.0),
    )
}
"""py-libp2p: the Bitswap inside it, blocks in memory. HTTP: Python's http.server, and a client that checks the sha256
while it writes the file."""
