"""The configuration of a node: every default with its unit and reason. Values only; reading files is the caller's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from . import __version__
from .errors import InvalidArgument

DEFAULT_LISTEN = ("/ip4/127.0.0.1/tcp/4001",)
"""libp2p's customary port, on loopback: images of a closed cluster must not be offered to a network by accident."""

AGENT = f"ipcs/{__version__}"
"""What identify tells peers about the software."""

SOCKET_NAME = "ipcs.sock"
"""The unix socket, inside the repo unless `--socket` says otherwise."""

DEFAULT_ADOPT = "swarm"
"""Peers first is what a node is for; what it may promise, and what not, is in docs/content-flow.md."""


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?")
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int:
    """Bytes of `20GB`, `512MiB`, `1.5T` or a bare number. Raises `ValueError` for anything else."""
    found = _SIZE.fullmatch(text.strip().replace("K", "k"))
    if found is None:
        raise ValueError(f"{text!r} is not a size; write 20GB or 512MiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[unit])


def default_repo(environ: Mapping[str, str]) -> Path:
    """`$IPCS_PATH`, else `~/.ipcs` (the rule Kubo has for `$IPFS_PATH`).

    Raises `InvalidArgument` for a user without a home, as a bare uid in a container is.
    """
    path = environ.get("IPCS_PATH")
    try:
        return Path(path) if path else Path.home() / ".ipcs"
    except RuntimeError as exc:
        raise InvalidArgument(f"no repo: user {os.getuid()} has no home; name one with --repo or IPCS_PATH") from exc


@dataclass(frozen=True)
class NodeConfig:
    """What `open_node` needs. Paths are made absolute by whoever builds it."""

    repo: Path = field(default_factory=lambda: default_repo(os.environ))
    """Directory with identity, lock, store and socket; made with mode 0700 when absent."""

    listen: tuple[str, ...] = DEFAULT_LISTEN
    """Multiaddrs to listen on. Port 0 takes a free one."""

    bootstrap: tuple[str, ...] = ()
    """Multiaddrs with `/p2p/<peer id>`, dialled with back-off and again after they went away."""

    socket: Path | None = None
    """Unix socket of the control and content services; None: `<repo>/ipcs.sock`."""

    open: bool = False
    """Allow listening beyond loopback. Any peer that reaches such an address can fetch what it can name."""

    adopt: str = DEFAULT_ADOPT
    """`off`, `local` or `swarm`: what containerd is shown besides what it wrote itself."""

    containerd: Path | None = None
    """Socket of containerd's own API: asked where a layer came from before it is promised. None: no promises."""

    origins: Mapping[str, str] = field(default_factory=dict)
    """Base URL of a registry by host, where it does not answer at https://host."""

    storage_max: int = 0
    """Bytes of disk that the store may take before cache is collected; 0: half the file system."""

    upload_rate: int = 0
    """Bytes of blocks a second to all peers together; 0: as fast as they take them."""

    durability: Literal["commit", "none"] = "commit"
    """Whether a commit waits for the disk; see docs/storage-format.md, "Durability"."""

    hash_on_read: bool = False
    """Whether each block read from the store is hashed again, for disks that one does not trust."""

    @property
    def socket_path(self) -> Path:
        """Where the services listen."""
        return self.socket or self.repo / SOCKET_NAME
