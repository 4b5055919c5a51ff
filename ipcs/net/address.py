"""Multiaddrs as the network uses them: `/ip4|ip6|dns.../tcp/PORT`, with `/p2p/PEER` where somebody is to be dialled."""

from __future__ import annotations

from dataclasses import dataclass

from ..cid import PeerId
from ..errors import InvalidArgument
from .stock import Multiaddr

_HOSTS = {"ip4": "ip4", "ip6": "ip6", "dns": "dns", "dns4": "dns4", "dns6": "dns6"}
WILDCARDS = ("0.0.0.0", "::")
"""Listening on these means every interface."""


@dataclass(frozen=True)
class TcpAddress:
    """A host (an IP address or a name) and a TCP port."""

    kind: str
    """`ip4`, `ip6`, `dns`, `dns4` or `dns6`."""
    host: str
    port: int

    def __str__(self) -> str:
        return f"/{self.kind}/{self.host}/tcp/{self.port}"

    @classmethod
    def of_socket(cls, name: tuple[str, int]) -> TcpAddress:
        """From what a socket calls itself or its peer."""
        host, port = name[0], name[1]
        return cls("ip6" if ":" in host else "ip4", host, port)


def parse(text: str) -> tuple[TcpAddress, PeerId | None]:
    """A multiaddr, taken apart.

    Raises `InvalidArgument` when it is none, or not TCP: there are no other transports here.
    """
    try:
        parts = [(protocol.name, str(value)) for protocol, value in Multiaddr(text).items()]
    except ValueError as exc:  # every error of `multiaddr` is one
        raise InvalidArgument(f"{text!r} is not a multiaddr: {exc}", subject=text) from exc
    names = [name for name, _ in parts]
    if len(parts) not in (2, 3) or names[0] not in _HOSTS or names[1] != "tcp" or names[2:] not in ([], ["p2p"]):
        raise InvalidArgument(
            f"{text} is not an address that can be used here; it has to look like /ip4/192.0.2.1/tcp/4001", subject=text
        )
    peer = PeerId(parts[2][1]) if len(parts) == 3 else None
    return TcpAddress(names[0], parts[0][1], int(parts[1][1])), peer


def parse_with_peer(text: str) -> tuple[TcpAddress, PeerId]:
    """A multiaddr that ends in `/p2p/PEER`. Raises `InvalidArgument`."""
    address, peer = parse(text)
    if peer is None:
        raise InvalidArgument(
            f"{text} names no peer; append /p2p/<peer id>, without it anyone could answer there", subject=text
        )
    return address, peer
