"""Key protobufs, peer ids and the policy on public keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from ipcs.errors import InvalidArgument
from ipcs.net.keys import (
    MAX_RSA_BITS,
    Identity,
    KeyType,
    PublicKey,
    parse_public_key,
    peer_id_bytes,
    peer_id_of,
    verify,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "net_libp2p.json").read_text())["vectors"]
PEER_IDS = [v for v in VECTORS if v["kind"] == "peer-id"]


@pytest.mark.parametrize("vector", PEER_IDS, ids=[v["name"] for v in PEER_IDS])
def test_peer_ids_of_the_specification(vector):
    data = bytes.fromhex(vector["publicKeyHex"])
    assert peer_id_of(data) == vector["peerId"]
    assert parse_public_key(data).to_protobuf() == data


def test_ed25519_private_key_of_the_specification():
    (vector,) = [v for v in VECTORS if v["kind"] == "key-protobuf" and v["name"].startswith("ED25519")]
    identity = Identity.from_protobuf(bytes.fromhex(vector["hex"]))
    assert identity.to_protobuf().hex() == vector["hex"]
    verify(identity.public_key, identity.sign(b"message"), b"message")


def test_key_types_other_than_ed25519_are_no_identity():
    for vector in VECTORS:
        if vector["kind"] == "key-protobuf" and not vector["name"].startswith("ED25519"):
            with pytest.raises(InvalidArgument, match="not an Ed25519"):
                Identity.from_protobuf(bytes.fromhex(vector["hex"]))


def test_private_key_whose_halves_differ_is_refused():
    data = bytearray(Identity(bytes(32)).to_protobuf())
    data[-1] ^= 1
    with pytest.raises(InvalidArgument, match="do not belong together"):
        Identity.from_protobuf(bytes(data))


def test_an_identity_does_not_print_its_seed():
    identity = Identity(b"\x5a" * 32)
    assert identity.peer_id in repr(identity)
    assert "5a5a" not in repr(identity)
    assert "ZZZZ" not in repr(identity)


def spki(key):
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_every_key_type_verifies_its_own_signature_and_no_other():
    message = b"noise-libp2p-static-key:"
    rsa_key = rsa.generate_private_key(65537, 2048)
    p256 = ec.generate_private_key(ec.SECP256R1())
    k256 = ec.generate_private_key(ec.SECP256K1())
    identity = Identity(b"\x07" * 32)
    compressed = k256.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    signed = [
        (PublicKey(KeyType.RSA, spki(rsa_key)), rsa_key.sign(message, padding.PKCS1v15(), hashes.SHA256())),
        (PublicKey(KeyType.ECDSA, spki(p256)), p256.sign(message, ec.ECDSA(hashes.SHA256()))),
        (PublicKey(KeyType.SECP256K1, compressed), k256.sign(message, ec.ECDSA(hashes.SHA256()))),
        (identity.public_key, identity.sign(message)),
    ]
    for index, (key, signature) in enumerate(signed):
        assert parse_public_key(key.to_protobuf()) == key
        verify(key, signature, message)
        with pytest.raises(InvalidArgument, match="does not match"):
            verify(key, signature, message + b"!")
        with pytest.raises(InvalidArgument):
            verify(key, signed[index - 1][1], message)


def oversized_rsa_key(bits):
    """A public key of `bits` without the minutes it takes to find primes: any odd modulus will do."""
    modulus = (1 << (bits - 1)) | 1
    numbers = rsa.RSAPublicNumbers(65537, modulus)
    return numbers.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("bits", [1024, MAX_RSA_BITS + 8, 16384])
def test_rsa_keys_out_of_bounds_are_refused_before_any_arithmetic(bits, monkeypatch):
    def no_arithmetic(*_args):
        raise AssertionError("the signature was looked at")

    monkeypatch.setattr(padding, "PKCS1v15", no_arithmetic)
    data = PublicKey(KeyType.RSA, oversized_rsa_key(bits)).to_protobuf()
    with pytest.raises(InvalidArgument, match=r"bits refused|at most 2048"):
        verify(parse_public_key(data), bytes(bits // 8), b"message")


def test_a_key_declared_as_another_type_is_refused():
    p256 = spki(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(InvalidArgument, match="declared as RSA"):
        verify(PublicKey(KeyType.RSA, p256), b"", b"")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "incomplete"),
        (b"\x08\x01", "incomplete"),
        (b"\x08\x09\x12\x01a", "type 9"),
        (b"\x08\x01\x12\x20short", "incomplete"),
        (b"\x08\x01\x12\x01a\x1a\x01b", "unknown field"),
        (bytes(4096), "at most"),
    ],
)
def test_malformed_key_protobufs(data, error):
    with pytest.raises(InvalidArgument, match=error):
        parse_public_key(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_key_or_invalid(data):
    try:
        key = parse_public_key(data)
    except InvalidArgument:
        return
    with pytest.raises(InvalidArgument):
        verify(key, b"\0" * 64, b"message")


def test_peer_id_bytes_undo_the_text():
    peer = Identity(b"\x01" * 32).peer_id
    assert peer_id_bytes(peer) == b"\x00\x24" + Identity(b"\x01" * 32).public_key.to_protobuf()
    with pytest.raises(InvalidArgument, match="not a peer id"):
        peer_id_bytes("0OIl")
