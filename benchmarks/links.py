"""Real links on one machine: network namespaces joined by a bridge, their rate set by `tc tbf`.

Each host has one link to the bridge, shaped both ways; the relay's link is not shaped. netem is not in every kernel,
so delay comes from `relay.py`, which runs in a namespace of its own and holds each direction back by half of it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ipcs.errors import IpcsError

TBF_BURST = "256kb"
"""Above the largest GSO packet (64 KiB), so that tbf need not split it, and 2 ms at 1 Gbit/s."""
TBF_LATENCY = "50ms"
"""How long a packet may queue: with less, loss and not the rate decides."""


class NoNamespaces(IpcsError):  # noqa: N818 - states the fact
    """Network namespaces cannot be made here (not root, or no `ip`)."""


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace with one address. `enter` is put before a command to run it there."""

    namespace: str
    address: str

    @property
    def enter(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise NoNamespaces(f"{command[0]} is not installed: apt-get install iproute2", subject=command[0]) from missing
    except subprocess.CalledProcessError as failed:
        message = f"{' '.join(command)}: {failed.stderr.strip()}; real links need root and network namespaces"
        raise NoNamespaces(message, subject=command[0]) from failed


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        _run("ip", "netns", "delete", name)


@contextmanager
def network(hosts: int, rate: str) -> Iterator[tuple[list[Host], Host]]:
    """`hosts` namespaces on links of `rate` (tc's words: "1gbit"), and one for the relay on a link without a limit.

    Raises `NoNamespaces`.
    """
    prefix = f"ipcs{os.getpid()}"
    switch = f"{prefix}s"
    with ExitStack() as stack:
        stack.enter_context(_namespace(switch))
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        made: list[Host] = []
        for index in range(hosts + 1):
            host = Host(f"{prefix}h{index}", f"10.77.0.{index + 1}")
            stack.enter_context(_namespace(host.namespace))
            _join(host, switch, f"port{index}", rate if index < hosts else None)
            made.append(host)
        yield made[:hosts], made[hosts]


def _join(host: Host, switch: str, port: str, rate: str | None) -> None:
    """A veth pair from `host` to the bridge, shaped at both ends."""
    _run("ip", "-n", host.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
    _run("ip", "-n", switch, "link", "set", port, "master", "bridge")
    _run("ip", "-n", switch, "link", "set", port, "up")
    _run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    _run("ip", "-n", host.namespace, "link", "set", "eth0", "up")
    if rate is not None:
        shape = ("root", "tbf", "rate", rate, "burst", TBF_BURST, "latency", TBF_LATENCY)
        _run("tc", "-n", host.namespace, "qdisc", "add", "dev", "eth0", *shape)
        _run("tc", "-n", switch, "qdisc", "add", "dev", port, *shape)
