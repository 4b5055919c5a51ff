"""py-libp2p's own Noise as the other side of our core, hypothesis choosing keys, roles, sizes, cuts and the end."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import trio
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import Ed25519PrivateKey
from libp2p.crypto.serialization import deserialize_private_key
from libp2p.crypto.x25519 import X25519PrivateKey
from libp2p.io.exceptions import IncompleteReadError
from libp2p.peer.id import ID
from libp2p.security.noise.patterns import PatternXX
from noise.exceptions import NoiseInvalidMessage

from ipcs.errors import IpcsError, RemoteProtocolError
from ipcs.net.noise import MAX_PLAINTEXT, Handshake
from ipcs.net.noise_xx import TAG
from ipcs.testing.net import identity

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "net_libp2p.json").read_text())["vectors"]
KEYS = {v["name"].split()[0].lower(): v["hex"] for v in VECTORS if v["kind"] == "key-protobuf"}
SURE = 199
"""Bytes that either side sends at least: two X25519 keys, three tags and a payload of over 100."""


@cache
def stock_key(kind):
    """py-libp2p's identity: the private key of its kind from libp2p's specification of peer ids; the 64 bytes of the
    Ed25519 one there are more than py-libp2p reads."""
    if kind == "ed25519":
        return Ed25519PrivateKey.from_bytes(b"\x33" * 32)
    return deserialize_private_key(bytes.fromhex(KEYS[kind]))


class Wire:
    """py-libp2p's raw connection over our core. Both directions are cut in pieces of at most `cut` bytes."""

    def __init__(self, core, cut, *, initiator):
        self.core, self.cut, self.is_initiator = core, cut, initiator
        self.to_us, self.to_stock = Line(), Line()
        self.inbox = bytearray(core.begin())
        self.cipher, self.plain = bytearray(), bytearray()

    async def write(self, data):
        data = self.to_us.carry(data)
        for at in range(0, len(data), self.cut):
            self._take(data[at : at + self.cut])

    def _take(self, piece):
        if self.core.secured is None:
            self.inbox += self.core.receive(piece)
            return
        self.cipher += piece
        out, taken = bytearray(MAX_PLAINTEXT), 1
        while taken:
            taken, written = self.core.secured.opener.open(memoryview(bytes(self.cipher)), memoryview(out))
            del self.cipher[:taken]
            self.plain += out[:written]

    async def read(self, n=None):
        await trio.lowlevel.checkpoint()
        piece = bytes(self.inbox[: min(n, self.cut)])
        del self.inbox[: len(piece)]
        return self.to_stock.carry(piece)

    async def close(self):
        pass

    def get_remote_address(self):
        return None


class Line:
    """One direction: ends after `end` bytes, and flips a bit of the byte at `fault`."""

    def __init__(self):
        self.carried, self.end, self.fault = 0, 1 << 40, -1

    def carry(self, data):
        data = bytearray(data[: max(0, self.end - self.carried)])
        if 0 <= self.fault - self.carried < len(data):
            data[self.fault - self.carried] ^= 1 << self.fault % 8
        self.carried += len(data)
        return bytes(data)


def ours(*, initiator):
    seed = b"ours".ljust(32, b"\0")
    return Handshake(identity("ours"), initiator=initiator, static=seed, ephemeral=seed[::-1], muxers=["/yamux/1.0.0"])


def meet(kind, cut, *, we_dial):
    """(wire, py-libp2p's half of the handshake, not yet begun)."""
    private = stock_key(kind)
    pattern = PatternXX(ID.from_pubkey(private.get_public_key()), private, X25519PrivateKey.new())
    wire = Wire(ours(initiator=we_dial), cut, initiator=not we_dial)
    if we_dial:
        return wire, pattern.handshake_inbound
    return wire, lambda wire: pattern.handshake_outbound(wire, ID.from_base58(identity("ours").peer_id))


KINDS = st.sampled_from(["ed25519", "secp256k1", "rsa"])
SIZES = st.one_of(
    st.integers(1, 300), st.integers(1, 300_000), st.sampled_from([MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 2 * MAX_PLAINTEXT])
)


@given(KINDS, st.booleans(), st.integers(8, 2000), st.integers(700, 100_000), st.lists(SIZES, max_size=4), st.randoms())
@settings(deadline=None, max_examples=60)
def test_each_side_reads_what_the_other_wrote(kind, we_dial, cut, later_cut, sizes, source):
    async def both():
        wire, handshake = meet(kind, cut, we_dial=we_dial)
        session = await handshake(wire)
        core = wire.core
        assert core.secured.peer == str(ID.from_pubkey(stock_key(kind).get_public_key()))
        assert str(session.get_remote_peer()) == identity("ours").peer_id
        wire.cut = later_cut
        for size in sizes:
            sent = source.randbytes(size)
            await session.write(sent)
            assert wire.plain == sent
            wire.plain.clear()
            wire.inbox += core.secured.sealer.seal(pieces(sent, source))
            assert await session.read(size) == sent
        assert (len(wire.cipher), len(wire.inbox)) == (0, 0)

    trio.run(both)


def pieces(data, source):
    """`data` as parts, most of them short."""
    parts, at = [], 0
    while at < len(data):
        step = source.randint(1, 1 << source.randint(0, 18))
        parts.append(memoryview(data)[at : at + step])
        at += step
    return parts


@given(KINDS, st.booleans(), st.booleans(), st.booleans(), st.integers(0, SURE - 1), st.integers(8, 2000))
@settings(deadline=None, max_examples=80)
def test_a_handshake_that_is_cut_short_or_spoilt_secures_nothing(kind, we_dial, to_us, ends, place, cut):
    async def broken():
        wire, handshake = meet(kind, cut, we_dial=we_dial)
        line = wire.to_us if to_us else wire.to_stock
        if ends:
            line.end = place
        else:
            line.fault = place
        failure = None
        try:
            await handshake(wire)
        except Exception as exc:  # noqa: BLE001 - py-libp2p raises many kinds, and hands ours on
            failure = exc
        if to_us:  # py-libp2p, dialling, is done when it has spoken last
            assert wire.core.secured is None
        else:
            assert failure is not None
        if isinstance(failure, IpcsError):
            assert isinstance(failure, RemoteProtocolError)
        elif failure is not None and ends:
            assert isinstance(failure, IncompleteReadError)

    trio.run(broken)


@given(st.booleans(), st.integers(1, 200_000), st.data())
@settings(deadline=None, max_examples=40)
def test_a_connection_that_ends_or_is_spoilt_later_gives_no_byte_too_many(we_dial, size, data):
    async def broken():
        wire, handshake = meet("ed25519", 1 << 20, we_dial=we_dial)
        session = await handshake(wire)
        sent = bytes(range(256)) * (size // 256 + 1)
        sent, ends = sent[:size], data.draw(st.booleans())
        place = data.draw(st.integers(0, size + TAG))
        for line in (wire.to_us, wire.to_stock):
            if ends:
                line.end = line.carried + place
            else:
                line.fault = line.carried + place
        if ends:
            await session.write(sent)
        else:
            with suppress(RemoteProtocolError):
                await session.write(sent)
        assert len(wire.plain) < size
        assert sent.startswith(wire.plain)
        wire.inbox += wire.core.secured.sealer.seal([sent])
        with pytest.raises((IncompleteReadError, InvalidTag, NoiseInvalidMessage)):
            await session.read(size)

    trio.run(broken)
