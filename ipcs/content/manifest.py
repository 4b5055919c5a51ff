"""What a manifest or index says of its children, so that they are known before containerd asks for them.

Source: opencontainers/image-spec manifest.md, image-index.md; Docker's schema 2 has the same shape.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument
from .descriptor import digest_bytes

MAX_MANIFEST = 4 * 1024 * 1024
"""Bytes of a manifest or config; registries accept no more (distribution-spec), and we read them whole."""

MAX_CHILDREN = 1000
"""Entries looked at; images have tens of layers, indexes tens of platforms."""


class Kind(enum.Enum):
    """What a blob is to its parent. Only layers are re-checked by containerd (their diff id), at unpack."""

    MANIFEST = "manifest"
    CONFIG = "config"
    LAYER = "layer"


@dataclass(frozen=True, slots=True)
class Child:
    """A descriptor in a manifest: `size` in bytes, as it declares."""

    digest: str
    size: int
    kind: Kind


def children_of(data: bytes) -> list[Child]:
    """The children of the manifest or index `data`; none when it is something else (a config, say)."""
    if len(data) > MAX_MANIFEST or data.lstrip()[:1] != b"{":
        return []
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return list(_children(document))[:MAX_CHILDREN] if isinstance(document, dict) else []


def _children(document: dict[str, Any]) -> Iterator[Child]:
    yield from _descriptors(document.get("manifests"), Kind.MANIFEST)
    yield from _descriptors([document.get("config")], Kind.CONFIG)
    yield from _descriptors(document.get("layers"), Kind.LAYER)


def _descriptors(entries: object, kind: Kind) -> Iterator[Child]:
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        digest, size = entry.get("digest"), entry.get("size")
        if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
            continue
        try:
            digest_bytes(digest)
        except InvalidArgument:
            continue
        yield Child(digest, size, kind)
