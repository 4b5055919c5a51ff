"""Whole facades on loopback in one process: real hosts, exchanges, sockets and stores."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from ..bitswap.exchange import Exchange, open_exchange
from ..bitswap.limits import Config as ExchangeConfig
from ..content.adoption import Mode
from ..content.client import RemoteContent
from ..content.containerd import NAMESPACES
from ..content.facade import Facade, FacadeConfig, open_facade
from ..content.origin import LABEL
from ..content.server import ContentService
from ..content.store import ContentStore
from ..errors import AlreadyExists
from ..net.host import Host
from ..rpc.bridge import Bridge
from ..rpc.call import Call, Methods, unary
from ..rpc.server import serve
from ..store.store import Store, memory_store
from ..unixfs.walk import links_of
from .images import Image
from .net import host as open_test_host

T = TypeVar("T")


@dataclass
class Member:
    """A running node with a content socket, and a client that stands where containerd would."""

    host: Host
    store: Store
    exchange: Exchange
    facade: Facade
    remote: RemoteContent

    async def call(self, function: Callable[[RemoteContent], T]) -> T:
        """`function` over the socket, in a thread, as containerd's calls come."""
        return await trio.to_thread.run_sync(function, self.remote)

    async def read(self, digest: str, size: int, window: int = 32768) -> bytes:
        """The blob in sequential windows, as unpack reads it."""

        def work(remote: RemoteContent) -> bytes:
            from ..content.client import RemoteReader
            from ..content.descriptor import Info

            reader = RemoteReader(remote, Info(digest, size))
            return b"".join(part for at in range(0, size, window) for part in reader.read(at, window))

        return await self.call(work)

    async def put(self, image: Image) -> None:
        """Write all blobs of `image`, as a pull does."""

        def work(remote: RemoteContent) -> None:
            for digest, data in image.blobs.items():
                with suppress(AlreadyExists), remote.writer(f"default/1/{digest}", len(data)) as writer:
                    for at in range(0, len(data), 1 << 20):
                        writer.write(data[at : at + (1 << 20)])
                    writer.commit(len(data), digest)

        await self.call(work)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose paths fit a unix socket's address."""
    path = Path(tempfile.mkdtemp(prefix="ipcs-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def member(
    name: str,
    *,
    mode: Mode = Mode.SWARM,
    containerd: Path | None = None,
    peers: Sequence[Member] = (),
    store: Store | None = None,
    directory: Path | None = None,
    exchange_config: ExchangeConfig | None = None,
) -> AsyncIterator[Member]:
    """A member with the identity of `name`, connected to `peers`; `store` and `directory` survive it if given."""
    with short_directory() as own:
        kept = store or memory_store(links_of)
        config = FacadeConfig(directory or own / "ingests", mode, containerd)
        async with (
            open_test_host(name) as host,
            open_exchange(host, kept.blocks, exchange_config) as exchange,
            open_facade(config, kept, host, exchange) as facade,
            serve(own / "s", facade.service.handlers),
        ):
            for peer in peers:
                await host.connect(peer.host.addresses[0])
                await host.wait_identified(peer.host.peer_id)
            with RemoteContent(own / "s") as remote:
                yield Member(host, kept, exchange, facade, remote)


@dataclass
class LabelStore:
    """What a containerd knows of an image: blobs with labels, reached at `socket`."""

    socket: Path
    content: ContentStore

    def knows(self, image: Image, registry: str, repository: str) -> None:
        """As after the manifest was fetched: it carries the label of where it came from."""
        for digest, data in image.blobs.items():
            labels = {LABEL + registry: repository} if digest == image.manifest else {}
            with self.content.writer(f"label/{digest}") as writer:
                writer.write(data)
                writer.commit(len(data), digest, labels)

    def digests(self) -> set[str]:
        """What is in its metadata."""
        return {info.digest for info in self.content.walk()}


@asynccontextmanager
async def label_store() -> AsyncIterator[LabelStore]:
    """The two services of containerd's API that ipcs asks, over a store of its own."""
    with short_directory() as directory, memory_store(links_of) as store:
        content = ContentStore(store, directory / "ingests")

        def handlers(bridge: Bridge) -> Methods:
            def names(_request: bytes, _call: Call) -> bytes:
                return b"".join(bytes((10, len(name) + 2, 10, len(name))) + name for name in (b"default", b"k8s.io"))

            return {**ContentService(content).handlers(bridge), f"/{NAMESPACES}/List": unary(names)}

        async with serve(directory / "c", handlers):
            yield LabelStore(directory / "c", content)
        content.close()
