"""Values that containerd's content API speaks of: digests, Info, Status, labels.

Sources: containerd core/content/content.go, opencontainers/image-spec descriptor.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InvalidArgument

SHA256_LENGTH = 32

LABEL_LIMIT = 4096
"""Longest key plus value of a label, in bytes (containerd pkg/labels/validate.go)."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of a committed blob. `size` in bytes, times in ns since the epoch."""

    digest: str
    size: int = 0
    created_at: int = 0
    updated_at: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """An ingest under way. `offset` and `total` in bytes (total 0: not declared), times in ns since the epoch.

    `digest` is that of the bytes so far.
    """

    ref: str
    offset: int = 0
    total: int = 0
    expected: str = ""
    started_at: int = 0
    updated_at: int = 0
    digest: str = ""


def digest_bytes(digest: str) -> bytes:
    """The 32 bytes of `sha256:<hex>`. Raises `InvalidArgument` for anything else: blobs are kept by sha256 only."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"{digest!r} is not a sha256 digest", subject=digest)
    return bytes.fromhex(digest[7:])


def digest_text(digest: bytes) -> str:
    """`sha256:<hex>` of 32 bytes."""
    return "sha256:" + digest.hex()


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises `InvalidArgument` when a label is longer than containerd allows."""
    for key, value in labels.items():
        if len(key.encode()) + len(value.encode()) > LABEL_LIMIT:
            raise InvalidArgument(f"label {key[:40]!r} and its value exceed {LABEL_LIMIT} bytes", subject=key)


def updated(current: Info, given: Info, paths: Sequence[str], now: int) -> Info:
    """`current` after containerd's Update: all labels replaced, or only the fields in the mask `paths`.

    In a mask, `labels` replaces all and `labels.<key>` one; an empty or absent value removes the key
    (containerd plugins/content/local/store.go, `Update`). Raises `InvalidArgument` for a path that cannot be updated.
    """
    labels = dict(current.labels)
    for path in paths or ("labels",):
        if path == "labels":
            labels = {key: value for key, value in given.labels.items() if value}
        elif path.startswith("labels."):
            key = path.removeprefix("labels.")
            if value := given.labels.get(key):
                labels[key] = value
            else:
                labels.pop(key, None)
        else:
            raise InvalidArgument(f"field {path!r} of {current.digest} cannot be updated", subject=current.digest)
    check_labels(labels)
    return replace(current, labels=labels, updated_at=now)
