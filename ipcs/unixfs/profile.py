"""Import parameters, and the named sets of them. The same bytes under two profiles are two DAGs with two CIDs.

Sources: IPIP-0499 (CID profiles); kubo `core/coreiface/options/unixfs.go`; for `proxy-2020` the `proxy` branch of
hinshun/ipcs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ..cid import SHA2_256
from ..errors import InvalidArgument
from ..hashes import HASH_NAMES
from .chunker import make_chunker


class Layout(Enum):
    """How a file's leaves hang below its root."""

    BALANCED = "balanced"
    TRICKLE = "trickle"


class Estimate(Enum):
    """What is compared with the threshold at which a directory becomes a HAMT."""

    LINKS = "links-bytes"
    """Sum of the lengths of names and binary CIDs."""
    BLOCK = "block-bytes"
    """Exact size of the directory's block."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that decides a CID besides the content. Sizes are in bytes.

    A directory becomes a HAMT when its size is strictly greater than `hamt_threshold`. `inline_limit` 0 inlines
    nothing. Raises `InvalidArgument` when the parameters cannot be had together.
    """

    name: str = "ipcs-v1"
    cid_version: int = 1
    raw_leaves: bool = True
    hash_code: int = SHA2_256
    chunker: str = "size-262144"
    layout: Layout = Layout.BALANCED
    max_links: int = 174
    inline_limit: int = 0
    hamt_threshold: int = 262144
    hamt_estimate: Estimate = Estimate.LINKS
    hamt_fanout: int = 256

    def __post_init__(self) -> None:
        if self.cid_version not in (0, 1):
            raise InvalidArgument(f"CID version {self.cid_version} is not known; use 0 or 1")
        if self.cid_version == 0 and self.hash_code != SHA2_256:
            raise InvalidArgument("CID version 0 is sha2-256 only; use --cid-version 1 with another hash")
        if self.max_links < 2:
            raise InvalidArgument(f"a node needs at least 2 links to build a tree, not {self.max_links}")

    def with_attributes(self) -> Profile:
        """This profile for a file that carries a mode or mtime: Kubo then makes dag-pb leaves throughout.

        (kubo `core/commands/add.go`: only a dag-pb root can hold attributes.)
        """
        return replace(self, raw_leaves=False)


IPCS_V1 = Profile()
"""The default: raw leaves, so that a blob of one chunk has its own digest as its CID's multihash."""

UNIXFS_V0_2015 = Profile("unixfs-v0-2015", cid_version=0, raw_leaves=False)
UNIXFS_V1_2025 = Profile("unixfs-v1-2025", chunker="size-1048576", max_links=1024, hamt_estimate=Estimate.BLOCK)
PROXY_2020 = Profile("proxy-2020", raw_leaves=False)

CUSTOM = "custom"
"""Name of a profile that somebody put together: its DAGs can be made again only from its parameters."""

PROFILES: dict[str, Profile] = {
    profile.name: profile for profile in (IPCS_V1, UNIXFS_V0_2015, UNIXFS_V1_2025, PROXY_2020)
}


def profile_named(name: str) -> Profile:
    """The profile of that name. Raises `InvalidArgument` for an unknown one."""
    if name not in PROFILES:
        raise InvalidArgument(f"profile {name!r} is not known; there are {', '.join(PROFILES)}", subject=name)
    return PROFILES[name]


def customised(
    profile: Profile,
    *,
    cid_version: int | None = None,
    raw_leaves: bool | None = None,
    hash_name: str | None = None,
    chunker: str | None = None,
    trickle: bool | None = None,
    max_links: int | None = None,
    inline_limit: int | None = None,
) -> Profile:
    """`profile` with some parameters replaced, what is None kept; one then follows from another as in Kubo.

    CID version 1 means raw leaves and version 0 none unless `raw_leaves` says otherwise; a hash other than sha2-256
    means version 1. Raises `InvalidArgument` for what cannot be had.
    """
    changes: dict[str, object] = {}
    if hash_name is not None:
        if hash_name not in HASH_NAMES:
            raise InvalidArgument(f"hash function {hash_name!r} is not known or not acceptable", subject=hash_name)
        changes["hash_code"] = HASH_NAMES[hash_name]
        if cid_version is None and HASH_NAMES[hash_name] != SHA2_256 and profile.cid_version == 0:
            cid_version = 1
    if cid_version is not None:
        changes |= {"cid_version": cid_version, "raw_leaves": cid_version == 1}
    if trickle is not None:
        changes["layout"] = Layout.TRICKLE if trickle else Layout.BALANCED
    given = {"raw_leaves": raw_leaves, "chunker": chunker, "max_links": max_links, "inline_limit": inline_limit}
    changes |= {name: value for name, value in given.items() if value is not None}
    if chunker is not None:
        make_chunker(chunker)
    if all(getattr(profile, name) == value for name, value in changes.items()):
        return profile
    return replace(profile, name=CUSTOM, **changes)  # type: ignore[arg-type]  # the names are checked above
