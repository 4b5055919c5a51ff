"""Keeps a host connected to its bootstrap peers: the shell around `dialer.Redialer`."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable

import trio

from ..cid import PeerId
from ..errors import IpcsError
from .address import parse_with_peer
from .dialer import DialState, Redialer
from .host import Host

log = logging.getLogger(__name__)

_DIALS_AT_ONCE = 16
"""A hundred bootstrap addresses must not mean a hundred handshakes in one instant."""


async def keep_connected(host: Host, addresses: Iterable[str]) -> None:
    """Connect to each of `addresses` (multiaddrs with `/p2p/`), and again whenever a connection is lost. Runs for ever.

    Our own address among them is left out. Raises `InvalidArgument` for a malformed address before anything is dialled.
    """
    await _Keeper(host, addresses).run()


class _Keeper:
    def __init__(self, host: Host, addresses: Iterable[str]) -> None:
        self._host = host
        self._peer_of = {address: parse_with_peer(address)[1] for address in addresses}
        self._targets = [address for address, peer in self._peer_of.items() if peer != host.peer_id]
        self._redialer = Redialer(self._targets)
        self._changed = trio.Event()
        self._limit = trio.CapacityLimiter(_DIALS_AT_ONCE)
        self._random = random.Random()

    async def run(self) -> None:
        self._host.watch(self)
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._changed = trio.Event()
                    self._see_connected()
                    for address in self._redialer.due(trio.current_time()):
                        nursery.start_soon(self._dial, address)
                    deadline = self._redialer.next_deadline()
                    with trio.move_on_at(math.inf if deadline is None else deadline):
                        await self._changed.wait()
        finally:
            self._host.unwatch(self)

    def connected(self, _peer: PeerId) -> None:
        """Host's call: a peer came."""
        self._changed.set()

    def disconnected(self, peer: PeerId) -> None:
        """Host's call: a peer is gone."""
        for address in self._targets:
            if self._peer_of[address] == peer:
                self._redialer.lost(address, trio.current_time(), self._random.random())
        self._changed.set()

    def _see_connected(self) -> None:
        for address in self._targets:
            if self._host.is_connected(self._peer_of[address]):
                self._redialer.connected(address, trio.current_time())

    async def _dial(self, address: str) -> None:
        try:
            async with self._limit:
                await self._host.connect(address)
        except IpcsError as exc:
            log.info("bootstrap: %s", exc)
            self._redialer.failed(address, trio.current_time(), self._random.random())
        else:
            if self._redialer.state(address) is DialState.DIALLING:
                self._redialer.connected(address, trio.current_time())
        self._changed.set()
