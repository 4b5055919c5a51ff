"""Staying connected to bootstrap peers."""

from __future__ import annotations

import pytest
import trio

from ipcs.errors import InvalidArgument
from ipcs.net.bootstrap import keep_connected
from ipcs.testing.net import RecordingInbound, host, identity, until

BOUND = 20


async def test_a_peer_that_is_not_there_yet_and_goes_and_comes_back():
    with trio.fail_after(BOUND):
        async with host("reserve") as reserve:
            address = reserve.addresses[0].rsplit("/p2p/", 1)[0]
        peer = identity("b").peer_id
        async with host("a", listen=[]) as a, trio.open_nursery() as nursery:
            nursery.start_soon(keep_connected, a, [f"{address}/p2p/{peer}"])
            for _ in range(2):
                async with host("b", listen=[address]) as b:
                    seen = RecordingInbound()
                    b.attach(seen)
                    await seen.logged("connected", a.peer_id)
                    await until(lambda: a.is_connected(peer))
                await until(lambda: not a.is_connected(peer))
            nursery.cancel_scope.cancel()


async def test_our_own_address_is_left_out_and_a_bad_one_refused():
    with trio.fail_after(BOUND):
        async with host("a") as a:
            with pytest.raises(InvalidArgument):
                await keep_connected(a, ["/ip4/127.0.0.1/tcp/4001"])
            with trio.move_on_after(0.05):
                await keep_connected(a, a.addresses)
            assert a.peers() == []
