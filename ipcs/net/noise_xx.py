"""The Noise handshake XX with Curve25519, ChaCha20-Poly1305 and SHA-256, without I/O.

Source: The Noise Protocol Framework, revision 34, sections 5 and 7.5 (`XX`). Keys, also the ephemeral one, are
arguments. Test vectors: flynn/noise. What libp2p adds (payloads, framing) is in `noise`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..errors import LocalProtocolError, RemoteProtocolError

_PROTOCOL = b"Noise_XX_25519_ChaChaPoly_SHA256"  # 32 bytes: is the first hash itself, unhashed (section 5.2)
_KEY = 32
TAG = 16
"""Bytes that encryption adds."""

_TOKENS = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
"""The pattern XX: messages 0 and 2 are the initiator's."""


def nonce(counter: int) -> bytes:
    """The 96-bit nonce of ChaChaPoly: 32 zero bits, then the counter, little-endian (section 12.3)."""
    return b"\0\0\0\0" + counter.to_bytes(8, "little")


class SymmetricState:
    """Chaining key, handshake hash and the cipher of the moment (section 5.2)."""

    def __init__(self) -> None:
        self._chaining_key = self.hash = _PROTOCOL
        self._cipher: ChaCha20Poly1305 | None = None
        self._counter = 0

    def mix_hash(self, data: bytes) -> None:
        """h = HASH(h || data)."""
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """A new chaining key and cipher from `secret`."""
        self._chaining_key, key = self._hkdf(secret)
        self._cipher = ChaCha20Poly1305(key)
        self._counter = 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """`plaintext`, sealed once there is a key."""
        if self._cipher is None:
            ciphertext = plaintext
        else:
            ciphertext = self._cipher.encrypt(nonce(self._counter), plaintext, self.hash)
            self._counter += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """The plaintext of `ciphertext`. Raises `RemoteProtocolError` when it was tampered with."""
        if self._cipher is None:
            plaintext = ciphertext
        else:
            try:
                plaintext = self._cipher.decrypt(nonce(self._counter), ciphertext, self.hash)
            except InvalidTag:
                raise RemoteProtocolError("noise: a handshake message does not authenticate") from None
            self._counter += 1
        self.mix_hash(ciphertext)
        return plaintext

    @property
    def has_key(self) -> bool:
        """Whether what is sent now is encrypted."""
        return self._cipher is not None

    def split(self) -> tuple[bytes, bytes]:
        """The two transport keys: initiator to responder, responder to initiator."""
        return self._hkdf(b"")

    def _hkdf(self, material: bytes) -> tuple[bytes, bytes]:
        temporary = hmac.digest(self._chaining_key, material, "sha256")
        first = hmac.digest(temporary, b"\x01", "sha256")
        return first, hmac.digest(temporary, first + b"\x02", "sha256")


class HandshakeXX:
    """One side of the handshake: write and read its three messages in turn, then `split`."""

    def __init__(self, *, initiator: bool, static: bytes, ephemeral: bytes, prologue: bytes = b"") -> None:
        """`static` and `ephemeral` are 32-byte X25519 private keys; an ephemeral one is used once."""
        self._initiator = initiator
        self._static = X25519PrivateKey.from_private_bytes(static)
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)
        self.local_static: bytes = self._static.public_key().public_bytes_raw()
        """Our static X25519 public key."""
        self._remote_ephemeral: bytes = b""
        self.remote_static: bytes = b""
        """The peer's static X25519 public key, once its message was read."""
        self._symmetric = SymmetricState()
        self._symmetric.mix_hash(prologue)
        self._next = 0

    @property
    def finished(self) -> bool:
        """Whether all three messages have passed."""
        return self._next == len(_TOKENS)

    @property
    def our_turn(self) -> bool:
        """Whether the next message is ours to write."""
        return not self.finished and (self._next % 2 == 0) == self._initiator

    def write_message(self, payload: bytes) -> bytes:
        """The next message, carrying `payload`. Raises `LocalProtocolError` out of turn."""
        if not self.our_turn:
            raise LocalProtocolError(f"noise: message {self._next} is not ours to write")
        message = bytearray()
        for token in self._advance():
            if token == "e":
                public = self._ephemeral.public_key().public_bytes_raw()
                message += public
                self._symmetric.mix_hash(public)
            elif token == "s":
                message += self._symmetric.encrypt_and_hash(self.local_static)
            else:
                self._mix_shared(token)
        message += self._symmetric.encrypt_and_hash(payload)
        return bytes(message)

    def read_message(self, message: bytes) -> bytes:
        """The payload of the peer's next `message`.

        Raises `RemoteProtocolError` when it is cut off or does not authenticate, `LocalProtocolError` out of turn.
        """
        if self.our_turn or self.finished:
            raise LocalProtocolError(f"noise: message {self._next} is not the peer's")
        take = _taker(message)
        for token in self._advance():
            if token == "e":
                self._remote_ephemeral = take(_KEY)
                self._symmetric.mix_hash(self._remote_ephemeral)
            elif token == "s":
                sealed = take(_KEY + (TAG if self._symmetric.has_key else 0))
                self.remote_static = self._symmetric.decrypt_and_hash(sealed)
            else:
                self._mix_shared(token)
        return self._symmetric.decrypt_and_hash(take(None))

    def split(self) -> tuple[bytes, bytes]:
        """Our transport keys after the handshake: (for sending, for receiving)."""
        if not self.finished:
            raise LocalProtocolError("noise: the handshake has not finished")
        to_responder, to_initiator = self._symmetric.split()
        return (to_responder, to_initiator) if self._initiator else (to_initiator, to_responder)

    def _advance(self) -> tuple[str, ...]:
        tokens = _TOKENS[self._next]
        self._next += 1
        return tokens

    def _mix_shared(self, token: str) -> None:
        """`ee`, `es`, `se`: the first letter is the initiator's key, the second the responder's."""
        ours, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        private = self._ephemeral if ours == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # the all-zero output of a low-order point
            raise RemoteProtocolError("noise: the peer's key is a point of low order") from None
        self._symmetric.mix_key(shared)


def _taker(message: bytes) -> Callable[[int | None], bytes]:
    at = 0

    def take(count: int | None) -> bytes:
        nonlocal at
        end = len(message) if count is None else at + count
        if end > len(message):
            raise RemoteProtocolError(f"noise: handshake message of {len(message)} bytes is cut off")
        piece = message[at:end]
        at = end
        return piece

    return take
