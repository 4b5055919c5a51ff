"""py-libp2p's own Noise and yamux as the other side of ours, hypothesis choosing what is said."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p import new_host
from libp2p.abc import ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import Yamux as StockYamux
from multiaddr import Multiaddr

from ipcs.net import multistream
from ipcs.net.interface import BITSWAP_PROTOCOLS
from ipcs.testing.channel import Side, channel_pair
from ipcs.testing.net import RecordingInbound, host, identity, until

ECHO = "/test/echo/1"
BOUND = 30


class Session(ISecureConn):
    """A memory channel as py-libp2p's muxer reads and writes it."""

    def __init__(self, channel, *, initiator):
        self.channel, self.is_initiator = channel, initiator
        self.buffer = b""

    async def read(self, n=None):
        if not self.buffer:
            self.buffer = bytes(await self.channel.receive())
        piece, self.buffer = self.buffer[:n], self.buffer[n or len(self.buffer) :]
        return piece

    async def write(self, data):
        await self.channel.send([data])

    async def close(self):
        await self.channel.aclose()

    def get_local_peer(self):
        return ID.from_base58(identity("stock").peer_id)

    def get_remote_peer(self):
        return ID.from_base58(identity("ours").peer_id)

    def get_local_private_key(self):
        raise NotImplementedError

    def get_remote_public_key(self):
        raise NotImplementedError

    def get_remote_address(self):
        return None

    def get_transport_addresses(self):
        return []

    def get_connection_type(self):
        raise NotImplementedError


def content(size):
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def echo(stream):
    while chunk := await stream.read(100_000):
        await stream.write([chunk])


async def stock_echo(stream):
    while True:
        try:
            chunk = await stream.read(100_000)
        except MuxedStreamEOF:
            break
        await stream.write(chunk)
    await stream.close()


async def stock_accept(stock, nursery):
    while True:
        nursery.start_soon(stock_echo, await stock.accept_stream())


async def we_ask(side, pieces):
    """Open a stream, send `pieces`, get them all back, and then the end."""
    stream = side.muxer.open_raw()
    got = bytearray()

    async def send():
        for size in pieces:
            await stream.write([content(size)[: size // 2], memoryview(content(size))[size // 2 :]])
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while chunk := await stream.read(100_000):
            got += chunk
    assert got == b"".join(map(content, pieces))


async def they_ask(stock, pieces):
    stream = await stock.open_stream()
    got = bytearray()

    async def send():
        await stream.write(multistream.HEADER + multistream.message(ECHO))
        for size in pieces:
            if size:
                await stream.write(content(size))
        await stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            while True:
                got += await stream.read(100_000)
        except MuxedStreamEOF:
            pass
    assert got == multistream.HEADER + multistream.message(ECHO) + b"".join(map(content, pieces))


SIZES = st.one_of(st.integers(1, 2000), st.sampled_from([65_536, 262_144, 262_145, 400_000]))
STREAMS = st.lists(st.tuples(st.booleans(), st.lists(SIZES, max_size=3)), min_size=1, max_size=5)


async def converse(streams, we_dialled):
    ours, theirs = channel_pair()
    side = Side("ours", "stock", ours, initiator=we_dialled, limits=None)
    side.services.handlers[ECHO] = echo
    session = Session(theirs, initiator=not we_dialled)
    stock = StockYamux(session, ID.from_base58(identity("ours").peer_id), is_initiator=not we_dialled)
    async with trio.open_nursery() as running:
        running.start_soon(side.muxer.run)
        running.start_soon(stock.start)
        await stock.event_started.wait()
        running.start_soon(stock_accept, stock, running)
        with trio.fail_after(BOUND):
            async with trio.open_nursery() as nursery:
                for we_open, pieces in streams:
                    if we_open:
                        nursery.start_soon(we_ask, side, pieces)
                    else:
                        nursery.start_soon(they_ask, stock, pieces)
        assert side.muxer.end_reason == ""
        assert side.services.failures == 0
        running.cancel_scope.cancel()


@given(STREAMS, st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_conversation_with_py_libp2ps_yamux(streams, we_dialled):
    trio.run(converse, streams, we_dialled)


@pytest.fixture
async def stock_host():
    """py-libp2p's host as it comes, echoing, with its own Noise, TLS and yamux."""
    other = new_host(key_pair=create_new_key_pair(), muxer_preference="YAMUX")

    async def answer(stream):
        await stream.write(await stream.read(65536))
        await stream.close()

    other.set_stream_handler(ECHO, answer)
    async with other.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        yield other


@pytest.mark.parametrize("security", ["noise", "tls"])
async def test_a_whole_stock_host_dialled_by_us(stock_host, security):
    with trio.fail_after(BOUND):
        async with host("a", security=[security]) as a:
            peer = await a.connect(str(stock_host.get_addrs()[0]))
            status = await a.wait_identified(peer)
            assert "py-libp2p" in status.agent
            assert ECHO in status.protocols
            for _ in range(20):
                stream = await a.open_duplex(peer, [ECHO])
                await stream.write([b"hello"])
                assert await stream.read(10) == b"hello"
                await stream.aclose()


async def test_a_whole_stock_host_dialling_us(stock_host):
    with trio.fail_after(BOUND):
        async with host("a") as a:
            a.set_handler(ECHO, echo)
            seen = RecordingInbound()
            a.attach(seen)
            await stock_host.connect(info_from_p2p_addr(Multiaddr(a.addresses[0])))
            for _ in range(20):
                stream = await stock_host.new_stream(ID.from_base58(a.peer_id), [ECHO])
                await stream.write(b"hello")
                assert await stream.read(5) == b"hello"
                await stream.close()
            pushed = await stock_host.new_stream(ID.from_base58(a.peer_id), [BITSWAP_PROTOCOLS[0]])
            await pushed.write(b"pushed")
            await pushed.close()
            await seen.ended()
            assert (bytes(seen.sinks[0].data), seen.sinks[0].end) == (b"pushed", "eof")


async def test_py_libp2ps_own_protocols_still_reach_its_host():
    """What a protocol that comes with py-libp2p (kad-dht) would do: serve and open streams through its host."""
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:

            async def answer(stream):
                await stream.write((await stream.read(5))[::-1])
                await stream.close()

            b.libp2p.set_stream_handler("/test/theirs/1", answer)
            await a.connect(b.addresses[0])
            stream = await a.libp2p.new_stream(ID.from_base58(b.peer_id), ["/test/none/1", "/test/theirs/1"])
            await stream.write(b"hello")
            assert await stream.read(5) == b"olleh"
            ours = await a.open_duplex(b.peer_id, ["/test/theirs/1"])
            await ours.write([b"again"])
            assert await ours.read(5) == b"niaga"

            async def broken(_stream):
                raise ZeroDivisionError("a bug")

            b.libp2p.set_stream_handler("/test/broken/1", broken)
            await a.open_duplex(b.peer_id, ["/test/broken/1"])
            await until(lambda: b.handler_failures == 1)
            ours = await a.open_duplex(b.peer_id, ["/test/theirs/1"])
            await ours.write([b"alive"])
            assert await ours.read(5) == b"evila"
