"""The Noise core: vectors, two of its own kind, and what no peer may say. `test_noise_stock` has py-libp2p's as the
other side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from ipcs.errors import LocalProtocolError, RemoteProtocolError
from ipcs.net import noise
from ipcs.net.keys import KeyType, PublicKey
from ipcs.net.noise import COALESCE, MAX_PLAINTEXT, Handshake, Opener, Sealer
from ipcs.net.noise_xx import TAG, HandshakeXX
from ipcs.testing.net import identity

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "net_libp2p.json").read_text())["vectors"]
XX = [v for v in VECTORS if v["kind"] == "noise-xx"]


@pytest.mark.parametrize("vector", XX, ids=["plain", "prologue"])
def test_handshake_vectors_of_flynn_noise(vector):
    read = {k: bytes.fromhex(v) for k, v in vector.items() if k.startswith(("msg", "init", "resp", "gen", "prologue"))}
    prologue = read.get("prologue", b"")
    initiator = HandshakeXX(
        initiator=True, static=read["init_static"], ephemeral=read["gen_init_ephemeral"], prologue=prologue
    )
    responder = HandshakeXX(
        initiator=False, static=read["resp_static"], ephemeral=read["gen_resp_ephemeral"], prologue=prologue
    )
    for index, (writer, reader) in enumerate([(initiator, responder), (responder, initiator), (initiator, responder)]):
        message = writer.write_message(read[f"msg_{index}_payload"])
        assert message == read[f"msg_{index}_ciphertext"]
        assert reader.read_message(message) == read[f"msg_{index}_payload"]
    for index, (writer, reader) in ((3, (initiator, responder)), (4, (responder, initiator))):
        frame = bytes(Sealer(writer.split()[0]).seal([read[f"msg_{index}_payload"]]))
        assert frame[2:] == read[f"msg_{index}_ciphertext"]
        out = bytearray(100)
        _, written = Opener(reader.split()[1]).open(memoryview(frame), memoryview(out))
        assert out[:written] == read[f"msg_{index}_payload"]


def handshake(name, *, initiator, muxers=("/yamux/1.0.0",)):
    seed = name.encode().ljust(32, b"\0")
    return Handshake(identity(name), initiator=initiator, static=seed, ephemeral=seed[::-1], muxers=muxers)


def run(dialler, listener, cut=1 << 20, extra=b""):
    """Both to the end, `cut` bytes at a time; `extra` follows the dialler's last message."""
    to_listener, to_dialler = bytearray(dialler.begin()), bytearray(listener.begin())
    while to_listener or to_dialler:
        for queue, side, back in ((to_listener, listener, to_dialler), (to_dialler, dialler, to_listener)):
            piece = bytes(queue[:cut])
            del queue[:cut]
            if piece and side.secured is None:
                back += side.receive(piece)
                if side is dialler and side.secured:
                    back += extra
    return dialler.secured, listener.secured


@given(st.integers(1, 400))
def test_two_of_our_kind_however_the_bytes_are_cut(cut):
    a, b = run(handshake("a", initiator=True), handshake("b", initiator=False, muxers=["/x", "/y"]), cut)
    assert (a.peer, b.peer) == (identity("b").peer_id, identity("a").peer_id)
    assert (a.muxers, b.muxers) == (("/x", "/y"), ("/yamux/1.0.0",))
    for sealer, opener in ((a.sealer, b.opener), (b.sealer, a.opener)):
        out = bytearray(100)
        assert opener.open(sealer.seal([b"hello"]), memoryview(out)) == (2 + 5 + TAG, 5)
        assert out[:5] == b"hello"


def test_bytes_behind_the_handshake_are_handed_on():
    _, b = run(handshake("a", initiator=True), handshake("b", initiator=False), extra=b"first frames")
    assert b.rest == b"first frames"


def test_nobody_speaks_out_of_turn():
    listener = HandshakeXX(initiator=False, static=bytes(32), ephemeral=bytes(31) + b"\1")
    with pytest.raises(LocalProtocolError):
        listener.write_message(b"")
    with pytest.raises(LocalProtocolError):
        listener.split()
    dialler = HandshakeXX(initiator=True, static=bytes(32), ephemeral=bytes(31) + b"\1")
    with pytest.raises(LocalProtocolError):
        dialler.read_message(bytes(32))
    a = handshake("a", initiator=True)
    run(a, handshake("b", initiator=False))
    with pytest.raises(LocalProtocolError):
        a.receive(b"")


@given(st.data())
@settings(deadline=None)
def test_any_flipped_bit_ends_the_handshake(data):
    dialler, listener = handshake("a", initiator=True), handshake("b", initiator=False)
    side, other, message, step = listener, dialler, dialler.begin(), 0
    broken = data.draw(st.integers(0, 2))
    while step < broken:
        message = side.receive(message)
        side, other, step = other, side, step + 1
    flipped = bytearray(message)
    flipped[data.draw(st.integers(2, len(message) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        answer = side.receive(bytes(flipped))
        if broken == 0 and answer:  # message 0 carries no tag: it is the answer that does not fit
            other.receive(answer)
    except RemoteProtocolError:
        pass
    assert not (dialler.secured and listener.secured)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xff\xff", "65535 bytes"),
        (b"\x20\x01", "8193 bytes"),
        (b"\x00\x00", "cut off"),
        (b"\x00\x1f" + bytes(31), "cut off"),
        (b"\x00\x20" + bytes(32), "low order"),
    ],
)
def test_impossible_first_messages(data, error):
    with pytest.raises(RemoteProtocolError, match=error):
        handshake("b", initiator=False).receive(data)


def test_memory_is_not_taken_on_the_peers_word():
    listener = handshake("b", initiator=False)
    assert listener.receive(b"\x1f\xff") == b""
    assert len(listener._received) == 2


class Liar(Handshake):
    """A peer whose payload is `payload`."""

    def __init__(self, payload):
        seed = b"liar".ljust(32, b"\0")
        super().__init__(identity("liar"), initiator=True, static=seed, ephemeral=seed[::-1])
        self._payload = payload(self._xx.local_static)


def payload_of(key, signature):
    return noise._field(1, key.to_protobuf()) + noise._field(2, signature)


def big_rsa(static):
    numbers = rsa.RSAPublicNumbers(65537, (1 << 16383) | 1)
    spki = numbers.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return payload_of(PublicKey(KeyType.RSA, spki), bytes(2048))


LIES = {
    "signature over another key": lambda _s: payload_of(
        identity("liar").public_key, identity("liar").sign(b"noise-libp2p-static-key:" + bytes(32))
    ),
    "someone else's identity": lambda s: payload_of(
        identity("victim").public_key, identity("liar").sign(b"noise-libp2p-static-key:" + s)
    ),
    "no signature": lambda _s: noise._field(1, identity("liar").public_key.to_protobuf()),
    "no identity": lambda _s: b"",
    "not protobuf": lambda _s: b"\xff" * 40,
    "16384-bit RSA": big_rsa,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_an_identity_that_is_not_proven_is_refused(lie):
    dialler, listener = Liar(lie), handshake("b", initiator=False)
    last = dialler.receive(listener.receive(dialler.begin()))
    with pytest.raises(RemoteProtocolError, match="identity is refused"):
        listener.receive(last)
    assert listener.secured is None


PARTS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [0, 1, COALESCE - 1, COALESCE, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, 262144]
        ).map(lambda n: bytes(range(256)) * (n // 256) + bytes(n % 256)),
    ),
    max_size=6,
)


@given(st.lists(PARTS, min_size=1, max_size=3), st.integers(500, 200_000), st.integers(MAX_PLAINTEXT, 300_000))
@settings(deadline=None, max_examples=30)
def test_frames_open_to_what_was_sealed(batches, cut, room):
    sealer, opener = Sealer(bytes(32)), Opener(bytes(32))
    wire, sent = bytearray(), bytearray()
    for parts in batches:
        frames = sealer.seal(parts)
        wire += frames
        for part in parts:
            sent += part
    got, fed, at, out = bytearray(), 0, 0, bytearray(room)
    while at < len(wire):
        fed = min(len(wire), fed + cut)
        while True:
            taken, written = opener.open(memoryview(wire)[at:fed], memoryview(out))
            got += out[:written]
            at += taken
            if not taken:
                break
    assert got == sent


def test_big_parts_fill_whole_frames():
    frames = Sealer(bytes(32)).seal([b"h" * 12, bytes(262144), b"h" * 12, bytes(262144)])
    lengths, at = [], 0
    while at < len(frames):
        lengths.append(int.from_bytes(frames[at : at + 2], "big") - TAG)
        at += 2 + TAG + lengths[-1]
    assert lengths == [12, *[MAX_PLAINTEXT] * 4, 68 + 12, *[MAX_PLAINTEXT] * 4, 68]


@pytest.mark.parametrize("frame", [b"\x00\x00", b"\x00\x0f" + bytes(15), b"\x00\x10" + bytes(16)])
def test_frames_that_cannot_be(frame):
    with pytest.raises(RemoteProtocolError, match="noise: a frame"):
        Opener(bytes(32)).open(memoryview(frame), memoryview(bytearray(MAX_PLAINTEXT)))


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_handshake_or_the_peers_fault(data):
    for initiator in (True, False):
        side = handshake("a", initiator=initiator)
        side.begin()
        try:
            side.receive(data)
        except RemoteProtocolError:
            continue
        assert side.secured is None
