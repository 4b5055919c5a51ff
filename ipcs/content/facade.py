"""The facade of one node: content store, routing and adoption, wired for `ipcs.node`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from ..bitswap.exchange import Exchange
from ..cid import RAW, Multihash, cid_v1
from ..net.host import Host
from ..routing.messages import Record
from ..routing.router import Router, open_router
from ..store.blobs import BlobRecord
from ..store.store import Store
from ..unixfs.profile import IPCS_V1
from .adoption import Adoption, Mode
from .containerd import ContainerdAPI
from .fetching import Fetcher
from .server import ContentService
from .statistics import AdoptionStatistics
from .store import ContentStore
from .waysback import WaysBack

_REF_DIGEST = re.compile(r"sha256:[0-9a-f]{64}$")
"""containerd names the wanted digest at the end of the ref that it writes under (core/remotes/handlers.go)."""


@dataclass(frozen=True)
class FacadeConfig:
    """How a node serves its containerd.

    `containerd` is the socket of containerd's own API, None when it is not to be asked; `origins` gives addresses of
    registries by host where they differ from the host's name.
    """

    directory: Path
    mode: Mode = Mode.SWARM
    containerd: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facade:
    """A running facade. `service` has the gRPC handlers."""

    content: ContentStore
    service: ContentService
    router: Router
    statistics: AdoptionStatistics


@asynccontextmanager
async def open_facade(config: FacadeConfig, store: Store, host: Host, exchange: Exchange) -> AsyncIterator[Facade]:
    """Run the facade as long as the block runs. Raises what opening the content store raises."""
    content = ContentStore(store, config.directory)
    counts = AdoptionStatistics()
    adoption: Adoption | None = None
    api = ContainerdAPI(config.containerd) if config.containerd is not None else None
    token = trio.lowlevel.current_trio_token()

    def held(digests: Sequence[str]) -> list[Record]:
        found = [store.blobs.get(digest) for digest in digests]
        return [_record(blob) for blob in found if blob is not None and blob.verified]

    def committed(blob: BlobRecord) -> None:
        token.run_sync_soon(router.announce, [_record(blob)])
        token.run_sync_soon(partial(router.feeds.over, blob.digest, whole=True))

    def wanted(digests: Sequence[str]) -> list[str]:
        return adoption.wanted(digests) if adoption is not None else []

    def progress(ref: str, first: int, leaves: Sequence[Multihash]) -> None:
        found = _REF_DIGEST.search(ref)
        if found is not None:
            token.run_sync_soon(router.feeds.lead, found[0])
            token.run_sync_soon(router.feeds.add, found[0], first, [leaf[2:] for leaf in leaves])
            token.run_sync_soon(exchange.notify_stored, [cid_v1(RAW, leaf) for leaf in leaves])

    def withdraw(digests: Sequence[str]) -> None:
        token.run_sync_soon(router.withdraw, digests)

    try:
        async with (
            open_router(
                host, held, wanted, lambda peer, lie: adoption.lied(peer, lie.digest, lie.root) if adoption else None
            ) as router,
            trio.open_nursery() as nursery,
        ):
            content.on_commit = committed
            content.follow_ingests(progress)
            store.on_withdraw = withdraw
            if config.mode is Mode.SWARM:
                fetcher = Fetcher(store, exchange, router, IPCS_V1, config.origins, counts)
                ways = WaysBack(api, config.origins, nursery)
                adoption = Adoption(content, store, host, router, fetcher, api, ways, counts, nursery)
                adoption.resume()
            yield Facade(content, ContentService(content, store, config.mode, adoption, counts), router, counts)
            nursery.cancel_scope.cancel()
    finally:
        content.on_commit = lambda _record: None
        content.close()
        if api is not None:
            api.close()


def _record(blob: BlobRecord) -> Record:
    return Record(blob.digest, blob.size, blob.root, blob.profile)
