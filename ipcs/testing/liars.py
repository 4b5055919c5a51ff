"""Peers that speak the protocols correctly and claim what is not so."""

from __future__ import annotations

from collections.abc import Sequence

from ..cid import Cid
from ..routing.messages import Record
from ..store.store import Store
from ..unixfs.importer import Importer
from ..unixfs.profile import IPCS_V1, Profile
from .members import Member


def store_dag(store: Store, data: bytes, profile: Profile = IPCS_V1) -> Cid:
    """The DAG of `data` in `store`, without a blob record; its root."""
    importer = Importer(profile)
    store.blocks.put_many(importer.feed(data))
    store.blocks.put_many(importer.finish())
    return importer.root.cid


def lie(node: Member, digest: str, size: int, root: Cid) -> None:
    """Have `node` claim `root` for `digest`, whatever it has."""
    router = node.facade.router
    honest = router._held
    record = Record(digest, size, root, "ipcs-v1")

    def held(digests: Sequence[str]) -> list[Record]:
        return [r for d in digests for r in ([record] if d == digest else honest([d]))]

    router._held = held
