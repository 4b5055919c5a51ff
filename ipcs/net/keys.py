"""libp2p keys: their protobuf form, peer ids, and which public keys are worth a signature check.

Pure: bytes in, bytes out. Sources: libp2p/specs peer-ids/peer-ids.md (protobuf, key types, peer id rule);
go-libp2p core/crypto/rsa_common.go (RSA bounds, after CVE-2023-39533).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from multiformats import multibase

from ..cid import PeerId, read_varint, sha256_multihash, write_varint
from ..errors import InvalidArgument

MIN_RSA_BITS = 2048
"""Below this an RSA signature proves nothing (go-libp2p `MinRsaKeyBits`)."""

MAX_RSA_BITS = 8192
"""Verifying costs grow with the square of the length: a 16384-bit key stalls the loop (CVE-2023-39533)."""

MAX_PUBLIC_KEY_BYTES = 2048
"""Longest protobuf of a public key that is looked at: RSA of `MAX_RSA_BITS` takes 1,066 bytes."""

MAX_INLINE_KEY_BYTES = 42
"""A key protobuf up to this length is its own peer id (identity multihash), a longer one is hashed."""

_ED25519_PRIVATE_PREFIX = b"\x08\x01\x12\x40"
_ED25519_PUBLIC_PREFIX = b"\x08\x01\x12\x20"


class KeyType(IntEnum):
    """`KeyType` of the keys protobuf."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as it travels: `data` is SubjectPublicKeyInfo DER for RSA and ECDSA, raw for the other two."""

    type: KeyType
    data: bytes

    def to_protobuf(self) -> bytes:
        """The deterministic protobuf that a peer id is made of."""
        return b"\x08" + write_varint(self.type) + b"\x12" + write_varint(len(self.data)) + self.data

    def peer_id(self) -> PeerId:
        """The peer id of this key."""
        return peer_id_of(self.to_protobuf())


def peer_id_of(public_key_protobuf: bytes) -> PeerId:
    """The peer id of a public key protobuf, in base58btc text."""
    if len(public_key_protobuf) <= MAX_INLINE_KEY_BYTES:
        multihash = b"\x00" + write_varint(len(public_key_protobuf)) + public_key_protobuf
    else:
        digest = hashes.Hash(hashes.SHA256())
        digest.update(public_key_protobuf)
        multihash = sha256_multihash(digest.finalize())
    return PeerId(multibase.encode(multihash, "base58btc")[1:])


def peer_id_bytes(peer: PeerId) -> bytes:
    """The multihash in a peer id's text. Raises `InvalidArgument` when it is not base58btc."""
    try:
        return multibase.decode("z" + peer)
    except (ValueError, KeyError) as exc:
        raise InvalidArgument(f"{peer!r} is not a peer id: {exc}", subject=peer) from exc


def parse_public_key(data: bytes) -> PublicKey:
    """The public key in protobuf `data`. Fields may stand in any order; unknown ones are refused.

    Raises `InvalidArgument`: not a key, an unknown type, or longer than `MAX_PUBLIC_KEY_BYTES`.
    """
    if len(data) > MAX_PUBLIC_KEY_BYTES:
        raise InvalidArgument(f"public key of {len(data)} bytes; at most {MAX_PUBLIC_KEY_BYTES} are accepted")
    kind: int | None = None
    key: bytes | None = None
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if tag == 0x08:
            kind = value
        elif tag == 0x12:
            key = bytes(data[at : at + value])
            at += value
        else:
            raise InvalidArgument(f"public key protobuf has an unknown field (tag {tag:#x})")
    if kind is None or key is None or at != len(data):
        raise InvalidArgument("public key protobuf is incomplete")
    try:
        return PublicKey(KeyType(kind), key)
    except ValueError:
        raise InvalidArgument(f"public key type {kind} is not known") from None


def verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Check `signature` over `message`. The key's size is judged before any arithmetic is done with it.

    Raises `InvalidArgument` when the key is malformed or refused by policy, or when the signature does not match.
    """
    try:
        if key.type is KeyType.ED25519:
            ed25519.Ed25519PublicKey.from_public_bytes(key.data).verify(signature, message)
        elif key.type is KeyType.SECP256K1:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key.data)
            point.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            _verify_spki(key, signature, message)
    except InvalidSignature:
        raise InvalidArgument(f"{key.type.name} signature does not match") from None
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise InvalidArgument(f"{key.type.name} public key is malformed: {exc}") from exc


def check_rsa_bits(bits: int) -> None:
    """Raises `InvalidArgument` for an RSA key too weak or too costly."""
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise InvalidArgument(f"RSA key of {bits} bits refused; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")


def check_size(key: PublicKey) -> None:
    """What `verify` checks before any arithmetic. Raises `InvalidArgument`."""
    if key.type is KeyType.RSA:
        try:
            public = serialization.load_der_public_key(key.data)
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise InvalidArgument(f"RSA public key is malformed: {exc}") from exc
        if isinstance(public, rsa.RSAPublicKey):
            check_rsa_bits(public.key_size)


def _verify_spki(key: PublicKey, signature: bytes, message: bytes) -> None:
    public = serialization.load_der_public_key(key.data)
    if key.type is KeyType.RSA and isinstance(public, rsa.RSAPublicKey):
        check_rsa_bits(public.key_size)
        public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    elif key.type is KeyType.ECDSA and isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    else:
        raise InvalidArgument(f"key declared as {key.type.name} holds a {type(public).__name__}")


@dataclass(frozen=True)
class Identity:
    """An Ed25519 key pair that names a peer. `seed` is the private half: 32 bytes."""

    seed: bytes

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise InvalidArgument(f"an Ed25519 seed has 32 bytes, not {len(self.seed)}")

    def __repr__(self) -> str:
        return f"Identity({self.peer_id})"

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return PublicKey(KeyType.ED25519, self._private().public_key().public_bytes_raw())

    @property
    def peer_id(self) -> PeerId:
        """The peer id (`12D3KooW...`)."""
        return self.public_key.peer_id()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature over `message`."""
        return self._private().sign(message)

    def to_protobuf(self) -> bytes:
        """The private key protobuf (go-libp2p `crypto.MarshalPrivateKey`): seed followed by the public key."""
        return _ED25519_PRIVATE_PREFIX + self.seed + self.public_key.data

    @classmethod
    def from_protobuf(cls, data: bytes) -> Identity:
        """The identity in a private key protobuf.

        Raises `InvalidArgument` when it is not Ed25519, or when its public half does not belong to its private half.
        """
        if len(data) != 68 or not data.startswith(_ED25519_PRIVATE_PREFIX):
            raise InvalidArgument("not an Ed25519 private key in libp2p's protobuf form")
        identity = cls(data[4:36])
        if identity.public_key.data != data[36:]:
            raise InvalidArgument("the private key's two halves do not belong together")
        return identity

    def _private(self) -> ed25519.Ed25519PrivateKey:
        return ed25519.Ed25519PrivateKey.from_private_bytes(self.seed)
