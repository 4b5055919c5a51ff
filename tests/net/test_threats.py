"""What hostile peers try against the network as a whole; the cores' own tests have the rest (`docs/network.md`)."""

from __future__ import annotations

import contextlib
import datetime
import struct

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.tls.certificate import LIBP2P_EXTENSION_OID, encode_signed_key
from libp2p.security.tls.transport import TLSTransport
from trio.testing import wait_all_tasks_blocked

from ipcs.cid import write_varint
from ipcs.errors import InvalidArgument, IpcsError, ResourceExhausted
from ipcs.net import identify, listener, multistream, stock_host
from ipcs.net.address import parse_with_peer
from ipcs.net.host import HostConfig, open_host
from ipcs.net.keys import KeyType, PublicKey
from ipcs.net.tls import CheckedTls
from ipcs.net.yamux_frames import INITIAL_WINDOW, SYN, FrameType, Limits
from ipcs.testing.channel import Side, channel_pair
from ipcs.testing.net import host, identity, until

BOUND = 20


async def raw_connection(running):
    where = running.addresses[0].split("/")
    return await trio.open_tcp_stream(where[2], int(where[4]))


async def closed(stream):
    """Wait until the other side has closed it."""
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some(65536):
                pass


# ---- handshakes


@pytest.mark.parametrize(
    "said", [b"", multistream.HEADER, multistream.HEADER + multistream.message("/noise") + b"\x00"]
)
async def test_a_handshake_that_stalls_is_given_up(monkeypatch, said):
    monkeypatch.setattr(stock_host, "UPGRADE_TIMEOUT", 0.2)
    with trio.fail_after(BOUND):
        async with host("a") as a:
            stream = await raw_connection(a)
            if said:
                await stream.send_all(said)
            await closed(stream)
            assert a.peers() == []


async def test_those_who_stall_cannot_keep_the_others_out(monkeypatch):
    monkeypatch.setattr(listener, "MAX_HANDSHAKES_PER_HOST", 3)
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            stalled = [await raw_connection(a) for _ in range(3)]
            await until(lambda: a._listener.handshakes == 3)
            await closed(await raw_connection(a))
            assert a._listener.refused == 1
            await stalled[0].aclose()
            await until(lambda: a._listener.handshakes == 2)
            await b.connect(a.addresses[0])
            monkeypatch.setattr(listener, "MAX_HANDSHAKES_PER_HOST", 100)
            monkeypatch.setattr(listener, "MAX_HANDSHAKES", 2)
            await closed(await raw_connection(a))
            for stream in stalled:
                await stream.aclose()


@pytest.mark.parametrize("protocol", ["/plaintext/2.0.0", "/secio/1.0.0", "/mplex/6.7.0"])
async def test_nothing_goes_without_encryption(protocol):
    with trio.fail_after(BOUND):
        async with host("a") as a:
            stream = await raw_connection(a)
            await stream.send_all(multistream.HEADER + multistream.message(protocol))
            got = b""
            while len(got) < 24:
                got += await stream.receive_some(100)
            assert got == multistream.HEADER + multistream.message("na")
            await stream.aclose()


@pytest.mark.parametrize(
    "garbage", [b"\0" * 70_000, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\xff" * 9]
)
async def test_garbage_instead_of_a_handshake(garbage):
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            stream = await raw_connection(a)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(garbage)
                await stream.send_eof()
            await closed(stream)
            await b.connect(a.addresses[0])
            assert a.handler_failures == 0


def certificate(public, extension):
    """Signed by some key: whether the signature fits is looked at after the sizes."""
    signer = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=public or signer.public_key(),
        serial_number=1,
        not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + datetime.timedelta(hours=1),
    )
    extended = builder.add_extension(x509.UnrecognizedExtension(LIBP2P_EXTENSION_OID, extension), critical=False)
    return extended.sign(signer, hashes.SHA256())


@pytest.mark.parametrize("place", ["certificate", "identity"])
@pytest.mark.parametrize("bits", [1024, 12_000, 16_384])
def test_rsa_keys_out_of_bounds_are_refused_in_tls_before_any_arithmetic(monkeypatch, place, bits):
    def no_arithmetic(*_args):
        raise AssertionError("the signature was looked at")

    huge = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1).public_key()
    spki = huge.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = PublicKey(KeyType.RSA, spki) if place == "identity" else identity("liar").public_key
    shown = certificate(huge if place == "certificate" else None, encode_signed_key(key.to_protobuf(), bytes(2048)))
    monkeypatch.setattr(padding, "PKCS1v15", no_arithmetic)
    monkeypatch.setattr(TLSTransport, "_extract_public_key_from_cert", no_arithmetic)
    with pytest.raises(HandshakeFailure, match="refused"):
        CheckedTls._extract_public_key_from_cert(CheckedTls.__new__(CheckedTls), shown)


# ---- connections


async def test_the_limit_of_connections():
    with trio.fail_after(BOUND):
        async with (
            open_host(HostConfig(identity("a"), max_connections=2)) as a,
            host("b") as b,
            host("c") as c,
            host("d") as d,
        ):
            await b.connect(a.addresses[0])
            await c.connect(a.addresses[0])
            with pytest.raises(IpcsError):
                await d.connect(a.addresses[0])
            with pytest.raises(ResourceExhausted):
                await a.connect(d.addresses[0])
            await b.disconnect(a.peer_id, "making room")
            await until(lambda: not a.is_connected(b.peer_id))
            await d.connect(a.addresses[0])


async def test_connections_that_are_gone_hold_no_place():
    """py-libp2p's swarm keeps a place of its inbound limit for every connection it ever accepted."""
    with trio.fail_after(BOUND):
        async with open_host(HostConfig(identity("a"), max_connections=4)) as a, host("b") as b:
            for _ in range(12):
                await b.connect(a.addresses[0])
                await b.disconnect(a.peer_id, "again")
                await until(lambda: not a.is_connected(b.peer_id))


async def test_a_second_node_on_the_same_port_is_told():
    with trio.fail_after(BOUND):
        async with host("a") as a:
            address = a.addresses[0].rsplit("/p2p/", 1)[0]
            with pytest.raises(InvalidArgument, match="in use"):
                async with host("b", listen=[address]):
                    pass


async def test_many_connections_of_one_peer():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:
            for _ in range(10):
                await b._dial(*parse_with_peer(a.addresses[0]))
            await until(lambda: len(a._connections) <= 4)
            assert a.peers()[0].connections <= 4


# ---- identify


def field(number, value):
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value


def message(*fields):
    body = b"".join(fields)
    return write_varint(len(body)) + body


FLOODS = {
    "2,000 protocols": message(*[field(3, b"/%04d" % i) for i in range(1000)]) * 2,
    "10,000 addresses": b"".join(
        message(*[field(2, struct.pack("!BIBH", 4, i, 6, i % 65536)) for i in range(n, n + 800)])
        for n in range(0, 8000, 800)
    ),
    "100,000 addresses": message(*[field(2, struct.pack("!I", i)) for i in range(100_000)]),
    "endless": write_varint(1 << 40) + bytes(200_000),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_identify_floods(monkeypatch, flood):
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:

            async def tell(stream):
                await stream.write([flood])

            b._services.handlers[identify.ID] = tell
            await a.connect(b.addresses[0])
            status = await a.wait_identified(b.peer_id)
            assert len(status.protocols) <= identify.MAX_PROTOCOLS
            assert len(status.listen_addresses) <= identify.MAX_ADDRESSES
            push = await b.open_duplex(a.peer_id, [identify.PUSH_ID])
            with contextlib.suppress(IpcsError):
                await push.write([flood])
            status = a.peers()[0]
            assert len(status.protocols) <= identify.MAX_PROTOCOLS
            assert len(status.listen_addresses) <= identify.MAX_ADDRESSES
            assert a.is_connected(b.peer_id)


async def test_identify_with_the_key_of_another_peer():
    with trio.fail_after(BOUND):
        async with host("a") as a, host("b") as b:

            async def tell(stream):
                key = identity("victim").public_key.to_protobuf()
                await stream.write([identify.encode(identify.Identify(agent="victim", public_key=key))])

            b._services.handlers[identify.ID] = tell
            await a.connect(b.addresses[0])
            assert (await a.wait_identified(b.peer_id)).agent == ""


# ---- memory


async def test_what_a_peer_sends_to_those_who_do_not_read_is_bounded(autojump_clock):
    limits = Limits(unread=4 * INITIAL_WINDOW)
    ours, theirs = channel_pair()
    side = Side("b", "a", ours, initiator=False, limits=limits)

    async def sleepy(_stream):
        await trio.sleep_forever()

    side.services.handlers["/test/sleepy/1"] = sleepy
    first = multistream.HEADER + multistream.message("/test/sleepy/1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.muxer.run)
        await side.muxer.running.wait()
        for stream in range(1, 60, 2):
            payload = first + bytes(INITIAL_WINDOW - len(first))
            header = struct.pack("!BBHII", 0, FrameType.DATA, SYN, stream, len(payload))
            await theirs.send([header + payload])
            await wait_all_tasks_blocked()
            assert side.muxer._core.unread <= limits.unread
        assert side.muxer.streams <= 5
        assert not side.muxer.end_reason
        nursery.cancel_scope.cancel()
