"""The parts of a node that control methods work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..bitswap.exchange import Exchange
from ..config import NodeConfig
from ..net.host import Host
from ..store.store import Store
from ..unixfs.files import Files


@dataclass(frozen=True)
class NodeParts:
    """Handed to every control method by the node that built them."""

    config: NodeConfig
    host: Host
    store: Store
    exchange: Exchange
    files: Files
    adoption: Callable[[], Mapping[str, int | float]]
    """Counters of the content store that containerd uses."""
