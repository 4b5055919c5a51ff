"""Faults of py-libp2p 0.8.1 that are worked around (`docs/network.md`). A test that fails here says that a workaround
can go."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network import swarm as stock_swarm
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import SwarmException
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID, Yamux
from multiaddr import Multiaddr

BOUND = 20
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaks sockets


@pytest.fixture(autouse=True)
def _leaks_are_found_in_the_test_that_made_them():
    yield
    gc.collect()


LOOPBACK = [Multiaddr("/ip4/127.0.0.1/tcp/0")]


def stock(**options):
    return new_host(key_pair=create_new_key_pair(), muxer_preference="YAMUX", **options)


def info(host):
    return info_from_p2p_addr(host.get_addrs()[0])


def test_importing_it_configures_logging():
    program = "import logging, libp2p; assert not logging.getLogger('libp2p').propagate"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "LIBP2P_DEBUG": ""})


async def test_a_dial_waits_for_the_happy_eyeballs_delay_after_it_succeeded():
    with trio.fail_after(BOUND):
        a, b = stock(), stock()
        async with a.run(LOOPBACK), b.run(LOOPBACK):
            started = trio.current_time()
            await a.connect(info(b))
            assert trio.current_time() - started >= stock_swarm._HAPPY_EYEBALLS_DELAY >= 0.2


async def test_a_peer_that_could_not_be_dialled_is_refused_for_a_minute():
    with trio.fail_after(BOUND):
        a, b = stock(), stock()
        async with a.run(LOOPBACK):
            nowhere = info_from_p2p_addr(Multiaddr(f"/ip4/127.0.0.1/tcp/1/p2p/{b.get_id()}"))
            a.get_network().retry_config.max_retries = 0
            with pytest.raises(SwarmException, match="unable to connect"):
                await a.connect(nowhere)
            with pytest.raises(SwarmException, match="negative cache"):
                await a.connect(nowhere)


async def test_a_host_that_was_stopped_goes_on_listening():
    with trio.fail_after(BOUND):
        b = stock()
        async with b.run(LOOPBACK):
            port = int(b.get_transport_addrs()[0].value_for_protocol("tcp"))
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()


async def test_an_exception_in_a_stream_handler_ends_the_host():
    async def broken(_stream):
        raise ZeroDivisionError("a bug")

    with trio.fail_after(BOUND):
        a, b = stock(), stock()
        b.set_stream_handler("/test/broken/1", broken)
        async with a.run(LOOPBACK):
            with pytest.raises(BaseExceptionGroup) as caught:
                await run_until_cancelled(a, b)
            assert caught.group_contains(ZeroDivisionError)


async def run_until_cancelled(a, b):
    async with b.run(LOOPBACK):
        await a.connect(info(b))
        await a.new_stream(b.get_id(), ["/test/broken/1"])
        await trio.sleep_forever()


def test_a_muxer_of_ones_own_under_yamuxs_id_is_not_used():
    class Mine(Yamux):
        pass

    class Conn:
        is_initiator = True

    upgrade = MuxerMultistream({PROTOCOL_ID: Mine})

    async def agreed(*_args):
        return PROTOCOL_ID, Mine

    upgrade._selector.select = agreed
    assert type(trio.run(upgrade.new_conn, Conn(), b"peer")) is Yamux


async def test_two_hosts_listen_on_one_port():
    with trio.fail_after(BOUND):
        a, b = stock(), stock()
        async with a.run(LOOPBACK), b.run([a.get_transport_addrs()[0]]):
            assert a.get_transport_addrs() == b.get_transport_addrs()


async def test_the_auto_connector_dials_whoever_it_heard_of_even_below_a_low_watermark_of_nothing():
    with trio.fail_after(BOUND):
        nobody = ConnectionConfig(min_connections=0, low_watermark=0, auto_connect_interval=0.1)
        a, b = stock(connection_config=nobody), stock()
        async with a.run(LOOPBACK), b.run(LOOPBACK):
            there = info(b)
            a.get_peerstore().add_addrs(there.peer_id, there.addrs, 100)
            while not a.get_connected_peers():  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)


async def test_an_inbound_connection_keeps_its_place_after_it_is_gone():
    with trio.fail_after(BOUND):
        two = ConnectionConfig(min_connections=0, low_watermark=0, high_watermark=2, max_connections=2)
        b = stock(connection_config=two)
        async with b.run(LOOPBACK):
            for _ in range(2):
                a = stock()
                async with a.run(LOOPBACK):
                    await a.connect(info(b))
                    await a.disconnect(b.get_id())
                while b.get_connected_peers():  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.01)
            assert b.get_network()._inbound_limiter.available_tokens == 0


async def test_a_disconnect_is_told_a_tenth_of_a_second_late():
    class Watcher:
        def __init__(self):
            self.when = trio.Event()

        async def disconnected(self, _network, _conn):
            self.when.set()

        def __getattr__(self, _name):
            async def ignore(*_args):
                pass

            return ignore

    with trio.fail_after(BOUND):
        a, b = stock(), stock()
        async with a.run(LOOPBACK), b.run(LOOPBACK):
            await a.connect(info(b))
            watcher = Watcher()
            a.get_network().register_notifee(watcher)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.disconnect, b.get_id())
                with trio.move_on_after(0.09):
                    await watcher.when.wait()
                assert not watcher.when.is_set()
                await watcher.when.wait()
