"""Two or more real hosts on loopback."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest
import trio

from ipcs.bitswap import network
from ipcs.errors import DeadlineExceeded, InvalidArgument, NotFound, RemoteProtocolError
from ipcs.net.host import HostConfig, open_host
from ipcs.net.interface import BITSWAP_PROTOCOLS
from ipcs.testing.net import RecordingInbound, host, identity, until

BOUND = 20
"""Seconds that a test may take on a loaded machine; nothing waits this long on purpose."""


def test_the_protocol_ids_are_those_of_bitswap():
    assert network.PROTOCOLS == BITSWAP_PROTOCOLS


def test_a_host_meets_bitswaps_network_protocol_by_shape():
    for protocol, ours in ((network.Network, "Host"), (network.OutStream, "OutStream")):
        module = "ipcs.net.host" if ours == "Host" else "ipcs.net.interface"
        cls = getattr(sys.modules[module], ours)
        for name in (n for n in vars(protocol) if not n.startswith("_")):
            assert hasattr(cls, name), f"{ours} lacks {name}"


async def write_for_ever(stream):
    while True:
        await stream.write([b"more"])
        await trio.sleep(0.002)


async def open_and_read(host, peer, protocol):
    return await (await host.open_duplex(peer, [protocol])).read(1)


async def fail_inside(address):
    async with host("a") as a:
        await a.connect(address)
        raise KeyError("mine")


@pytest.fixture(params=["noise", "tls"])
def security(request):
    return [request.param]


async def test_connect_push_and_disconnect(security):
    with trio.fail_after(BOUND):
        async with host("a", security=security) as a, host("b", security=security) as b:
            seen_a, seen_b = RecordingInbound(), RecordingInbound()
            a.attach(seen_a)
            b.attach(seen_b)
            started = trio.current_time()
            assert await a.connect(b.addresses[0]) == b.peer_id
            connect_time = trio.current_time() - started
            await seen_b.logged("connected", a.peer_id)
            assert a.is_connected(b.peer_id)
            assert connect_time < 0.24, "py-libp2p's 250 ms are back"

            stream = await a.open_stream(b.peer_id)
            assert stream.protocol == BITSWAP_PROTOCOLS[0]
            data = secrets.token_bytes(600_000)
            await stream.write([data[:7], memoryview(data)[7:300_000], data[300_000:]])
            await stream.aclose()
            await seen_b.ended()
            (sink,) = seen_b.sinks
            assert (sink.peer, sink.protocol, sink.end) == (a.peer_id, BITSWAP_PROTOCOLS[0], "eof")
            assert bytes(sink.data) == data

            await a.disconnect(b.peer_id, "test")
            await seen_a.logged("disconnected", b.peer_id)
            await seen_b.logged("disconnected", a.peer_id)
            assert a.peers() == []
            with pytest.raises(NotFound, match="not connected"):
                await a.open_stream(b.peer_id)


async def test_what_identify_tells(security):
    with trio.fail_after(BOUND):
        async with host("a", security=security) as a, host("b", security=security) as b:
            await a.connect(b.addresses[0])
            for here, there, inbound in ((a, b, False), (b, a, True)):
                status = await here.wait_identified(there.peer_id)
                assert status.agent.startswith("ipcs")
                assert status.inbound is inbound
                assert status.addresses
                assert [f"{x}/p2p/{there.peer_id}" for x in status.listen_addresses] == list(there.addresses)
                assert status.security == {"noise": "/noise", "tls": "/tls/1.0.0"}[security[0]]


async def test_ipv6_and_names():
    with trio.fail_after(BOUND):
        async with host("a", listen=["/ip6/::1/tcp/0"]) as a, host("b", listen=[]) as b, host("c") as c:
            assert a.addresses[0].startswith("/ip6/::1/tcp/")
            await b.connect(a.addresses[0])
            assert (await b.wait_identified(a.peer_id)).addresses[0].startswith("/ip6/::1/tcp/")
            await b.connect(c.addresses[0].replace("/ip4/127.0.0.1/", "/dns4/localhost/"))


async def test_listening_everywhere_tells_peers_where_they_came_in():
    with trio.fail_after(BOUND):
        async with host("a", listen=["/ip4/0.0.0.0/tcp/0"]) as a, host("b", listen=[]) as b:
            await b.connect(a.addresses[0].replace("0.0.0.0", "127.0.0.1"))
            status = await b.wait_identified(a.peer_id)
            assert status.listen_addresses == (a.addresses[0].split("/p2p/")[0].replace("0.0.0.0", "127.0.0.1"),)


async def test_peers_learn_of_protocols_that_are_added_later():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            await a.connect(b.addresses[0])
            assert BITSWAP_PROTOCOLS[0] not in (await a.wait_identified(b.peer_id)).protocols
            await b.wait_identified(a.peer_id)
            b.attach(RecordingInbound())
            await until(lambda: BITSWAP_PROTOCOLS[0] in a.peers()[0].protocols)


async def test_attach_replays_connected_peers():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            await a.connect(b.addresses[0])
            late = RecordingInbound()
            a.attach(late)
            assert late.log == [("connected", b.peer_id)]


async def echo(stream):
    while data := await stream.read(65536):
        await stream.write([data])


async def test_request_and_response(security):
    with trio.fail_after(BOUND):
        async with host("a", security=security) as a, host("b", security=security) as b:
            b.set_handler("/test/echo/1", echo)
            await a.connect(b.addresses[0])
            stream = await a.open_duplex(b.peer_id, ["/test/none/1", "/test/echo/1"])
            assert (stream.peer, stream.protocol) == (b.peer_id, "/test/echo/1")
            await stream.write([b"one ", b"two"])
            got = b""
            while len(got) < 7:
                got += await stream.read(100)
            assert got == b"one two"
            await stream.aclose()
            assert await stream.read(1) == b""


async def test_a_protocol_that_the_peer_does_not_speak():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            await a.connect(b.addresses[0])
            with pytest.raises(RemoteProtocolError, match="/test/none/1"):
                await open_and_read(a, b.peer_id, "/test/none/1")
            assert a.is_connected(b.peer_id)


async def test_a_handler_that_raises_ends_its_stream_only():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:

            async def broken(stream):
                await stream.read(1)
                raise ZeroDivisionError("a bug")

            b.set_handler("/test/broken/1", broken)
            b.set_handler("/test/echo/1", echo)
            await a.connect(b.addresses[0])
            stream = await a.open_duplex(b.peer_id, ["/test/broken/1"])
            await stream.write([b"x"])
            with pytest.raises(RemoteProtocolError):
                await stream.read(1)
            assert b.handler_failures == 1
            stream = await a.open_duplex(b.peer_id, ["/test/echo/1"])
            await stream.write([b"alive"])
            assert await stream.read(5) == b"alive"


@pytest.mark.parametrize("error", [RemoteProtocolError("not bitswap"), ZeroDivisionError("a bug")])
async def test_a_sink_that_raises_ends_its_stream_only(error):
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            seen = RecordingInbound()
            seen.poison, seen.error = b"poison", error
            b.attach(seen)
            await a.connect(b.addresses[0])
            bad = await a.open_stream(b.peer_id)
            good = await a.open_stream(b.peer_id)
            await good.write([b"one"])
            await bad.write([b"poison"])
            await seen.received(9)
            with pytest.raises(RemoteProtocolError):
                await write_for_ever(bad)
            await good.write([b"two"])
            await seen.received(12)
            assert a.is_connected(b.peer_id)
            assert b.is_connected(a.peer_id)


async def test_a_refused_stream_is_reset():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            seen = RecordingInbound()
            seen.refuse = True
            b.attach(seen)
            await a.connect(b.addresses[0])
            with pytest.raises(RemoteProtocolError):
                await write_for_ever(await a.open_stream(b.peer_id))


async def test_connecting_to_an_address_without_a_peer_behind_it():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            stranger = identity("c").peer_id
            where = b.addresses[0].rsplit("/", 1)[0]
            with pytest.raises(RemoteProtocolError, match="cannot connect"):
                await a.connect(f"{where}/{stranger}")
            assert not a.is_connected(stranger)
            for _ in range(2):  # py-libp2p would refuse the second attempt for 60 s
                with pytest.raises(RemoteProtocolError, match="all attempts"):
                    await a.connect(f"/ip4/127.0.0.1/tcp/1/p2p/{b.peer_id}")
            await a.connect(b.addresses[0])
            assert a.is_connected(b.peer_id)


async def test_addresses_that_make_no_sense():
    with trio.fail_after(BOUND):
        async with host("a") as a:
            for address in ("nonsense", "/ip4/127.0.0.1/tcp/4001", "/ip4/300.0.0.1/tcp/1/p2p/x", a.addresses[0]):
                with pytest.raises(InvalidArgument):
                    await a.connect(address)
        with pytest.raises(InvalidArgument, match="cannot listen on /ip4/192\\.0\\.2\\.1"):
            async with open_host(HostConfig(identity("a"), listen=["/ip4/192.0.2.1/tcp/0"])):
                pass
        with pytest.raises(InvalidArgument, match="not a multiaddr"):
            async with open_host(HostConfig(identity("a"), listen=["localhost:4001"])):
                pass
        with pytest.raises(InvalidArgument, match="choose from"):
            async with open_host(HostConfig(identity("a"), security=["plaintext"])):
                pass


async def test_a_peer_that_accepts_and_says_nothing():
    with trio.fail_after(BOUND):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        async with host("a") as a:
            with pytest.raises(DeadlineExceeded, match="within 0"):
                await a.connect(f"/ip4/127.0.0.1/tcp/{port}/p2p/{identity('b').peer_id}", timeout=0.3)
        await listeners[0].aclose()


async def test_an_error_inside_the_block_comes_out_bare_and_leaving_is_quick():
    with trio.fail_after(BOUND):
        async with host("b") as b:
            with pytest.raises(KeyError, match="mine"):
                await fail_inside(b.addresses[0])
            for index in range(8):
                async with host(f"n{index}") as a:
                    await a.connect(b.addresses[0])
            started = trio.current_time()
            async with host("a") as a:
                pass
            assert trio.current_time() - started < 2


def test_importing_leaves_the_programs_logging_alone():
    program = """
import logging, io
out = io.StringIO()
logging.getLogger("libp2p").setLevel(logging.INFO)
mine = logging.StreamHandler(out)
logging.getLogger("libp2p").addHandler(mine)
import ipcs.net.host
log = logging.getLogger("libp2p")
assert log.propagate, "cut off from the root"
assert log.level == logging.INFO, log.level
assert log.handlers == [mine], log.handlers
logging.getLogger("libp2p.network.swarm").info("kept")
assert out.getvalue() == "kept\\n", out.getvalue()
assert logging.getLogger().handlers == [], logging.getLogger().handlers
import libp2p.network.connection.swarm_connection as stock
stock.logging.debug("logged by a swarm connection")
assert logging.getLogger().handlers == [], "basicConfig was called"
"""
    environment = {**os.environ, "LIBP2P_DEBUG": ""}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
