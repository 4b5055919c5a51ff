"""Real Kubo and Helia nodes as listener and as dialler: handshake, identify, streams both ways, and how they end."""

from __future__ import annotations

import pytest
import trio

from ipcs.errors import RemoteProtocolError
from ipcs.net import identify
from ipcs.net.interface import BITSWAP_PROTOCOLS
from ipcs.net.yamux_frames import Limits
from ipcs.testing.net import RecordingInbound, host, until

pytestmark = [pytest.mark.interop, pytest.mark.slow]

BOUND = 90
NOBODY_HAS = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
KUBO = {
    "noise, rsa": ("--security", "noise", "--key", "rsa"),
    "noise, ed25519": ("--security", "noise", "--key", "ed25519"),
    "tls, rsa": ("--security", "tls", "--key", "rsa"),
    "tls, ed25519": ("--security", "tls", "--key", "ed25519"),
}


@pytest.fixture
def foreign_of(request):
    """Opens a peer of a kind; only the peer that is asked for has to be installed."""

    def open_one(kind):
        if kind == "helia":
            return request.getfixturevalue("helia")()
        return request.getfixturevalue("kubo")("kubo", *KUBO[kind])

    return open_one


async def answers(running, peer):
    """Whether a stream of ours still works: identify is what every peer serves."""
    stream = await running.open_duplex(peer, [identify.ID])
    got = await stream.read(10_000)
    await stream.aclose()
    return bool(got)


@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "they dial"])
@pytest.mark.parametrize("kind", [*KUBO, "helia"])
async def test_a_connection_with_a_real_peer(foreign_of, tmp_path, kind, we_dial):
    with trio.fail_after(BOUND):
        async with foreign_of(kind) as foreign, host("ours") as ours:
            seen = RecordingInbound()
            ours.attach(seen)
            if we_dial:
                await ours.connect(foreign.addr)
            else:
                await foreign.call("connect", addr=ours.addresses[0])
            await seen.logged("connected", foreign.peer_id)
            status = await ours.wait_identified(foreign.peer_id)
            assert status.inbound is not we_dial
            assert status.security == ("/tls/1.0.0" if kind.startswith("tls") else "/noise")
            assert status.agent
            assert BITSWAP_PROTOCOLS[0] in status.protocols
            assert await answers(ours, foreign.peer_id)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_in_vain, foreign, tmp_path)
                await until(lambda: any(sink.data for sink in seen.sinks))
                assert seen.sinks[0].protocol in BITSWAP_PROTOCOLS
                nursery.cancel_scope.cancel()

            stream = await ours.open_stream(foreign.peer_id)
            assert stream.protocol == BITSWAP_PROTOCOLS[0]
            await stream.write([b"\x00"])  # an empty message is a legal one
            await stream.aclose()
            assert await answers(ours, foreign.peer_id)

            foreign.kill()
            started = trio.current_time()
            await seen.logged("disconnected", foreign.peer_id)
            assert trio.current_time() - started < 5
            assert ours.handler_failures == 0


async def ask_in_vain(foreign, directory):
    """Have the peer want a block that nobody has: its wantlist reaches us."""
    await foreign.call("get", cid=NOBODY_HAS, path=str(directory / "never"), timeout=BOUND)


@pytest.mark.parametrize("kind", ["noise, ed25519", "helia"])
async def test_a_real_peer_that_freezes_is_noticed(foreign_of, kind):
    limits = Limits(ping_after=0.5, pong_within=1.0)
    with trio.fail_after(BOUND):
        async with foreign_of(kind) as foreign, host("ours", limits=limits) as ours:
            seen = RecordingInbound()
            ours.attach(seen)
            await ours.connect(foreign.addr)
            stream = await ours.open_stream(foreign.peer_id)
            await trio.sleep(3)
            assert ours.is_connected(foreign.peer_id), "it answers pings"
            foreign.freeze()
            started = trio.current_time()
            await seen.logged("disconnected", foreign.peer_id)
            assert trio.current_time() - started < 5
            with pytest.raises(RemoteProtocolError, match="no sign of life"):
                await stream.write([b"\x00"])
