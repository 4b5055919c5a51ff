"""libp2p's secure channel `/noise`, without I/O: bytes in, bytes out.

`Handshake` runs Noise XX with libp2p's payloads, which prove that the Noise key belongs to the peer's identity key and
name the stream muxers, so that agreeing on one costs no round trip of its own. Afterwards `Sealer` turns plaintext into
frames and `Opener` turns frames into plaintext, both without copying more than the cipher does.

Sources: libp2p/specs noise/README.md, connections/inlined-muxer-negotiation.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..block import Data
from ..cid import PeerId, read_varint, write_varint
from ..errors import InvalidArgument, LocalProtocolError, RemoteProtocolError
from .keys import Identity, PublicKey, parse_public_key, verify
from .noise_xx import TAG, HandshakeXX, nonce

PROTOCOL_ID = "/noise"

MAX_FRAME = 65535
"""Bytes of a Noise message, its length prefix not counted."""

MAX_PLAINTEXT = MAX_FRAME - TAG
"""Plaintext bytes of a full frame. Fuller frames cost less: the cipher runs at 2 GB/s on 64 KiB, 1.3 on 4 KiB."""

MAX_HANDSHAKE_MESSAGE = 8 * 1024
"""Bytes of one handshake message: the largest identity (RSA 8192) with its signature takes 2.2 KiB."""

COALESCE = 2048
"""Parts below this are copied together into one frame; larger ones are encrypted from where they lie."""

_SIGNED_PREFIX = b"noise-libp2p-static-key:"
_IDENTITY_KEY, _IDENTITY_SIGNATURE, _EXTENSIONS, _STREAM_MUXERS = 1, 2, 4, 2
_LENGTH = 2


@dataclass(frozen=True)
class Secured:
    """What a finished handshake has shown."""

    peer: PeerId
    public_key: PublicKey
    muxers: tuple[str, ...]
    """Muxers that the peer named, in its order; empty when it did not."""
    sealer: Sealer
    opener: Opener
    rest: bytes
    """Bytes received after the handshake: the beginning of the first frames."""


class Handshake:
    """One side of the handshake. Send what `begin` returns, then feed what arrives to `receive` and send its answers,
    until `secured` is set."""

    def __init__(
        self, identity: Identity, *, initiator: bool, static: bytes, ephemeral: bytes, muxers: Sequence[str] = ()
    ) -> None:
        """`static` and `ephemeral` are fresh random 32-byte X25519 private keys."""
        self._xx = HandshakeXX(initiator=initiator, static=static, ephemeral=ephemeral)
        self._payload = _encode_payload(identity, self._xx.local_static, muxers)
        self._initiator = initiator
        self._received = bytearray()
        self._sent = 0
        self._remote: tuple[PublicKey, tuple[str, ...]] | None = None
        self.secured: Secured | None = None

    def begin(self) -> bytes:
        """The first bytes to send; empty for the responder."""
        return self._write() if self._initiator else b""

    def receive(self, data: bytes) -> bytes:
        """Take `data`, return what to send now.

        Raises `RemoteProtocolError` for a message of impossible length, one that does not authenticate, or an identity
        that is malformed, refused by policy or not proven.
        """
        if self.secured is not None:
            raise LocalProtocolError("noise: the handshake is over")
        self._received += data
        answer = b""
        while self.secured is None:
            message = self._take_message()
            if message is None:
                break
            payload = self._xx.read_message(message)
            if self._xx.remote_static:
                self._remote = _check_payload(payload, self._xx.remote_static)
            if self._xx.our_turn:
                answer += self._write()
            self._finish()
        return answer

    def _take_message(self) -> bytes | None:
        if len(self._received) < _LENGTH:
            return None
        length = int.from_bytes(self._received[:_LENGTH], "big")
        if length > MAX_HANDSHAKE_MESSAGE:
            raise RemoteProtocolError(f"noise: handshake message of {length} bytes; {MAX_HANDSHAKE_MESSAGE} at most")
        if len(self._received) < _LENGTH + length:
            return None
        message = bytes(self._received[_LENGTH : _LENGTH + length])
        del self._received[: _LENGTH + length]
        return message

    def _write(self) -> bytes:
        first = self._initiator and self._sent == 0  # nothing of ours is encrypted yet, so nothing is told
        message = self._xx.write_message(b"" if first else self._payload)
        self._sent += 1
        return len(message).to_bytes(_LENGTH, "big") + message

    def _finish(self) -> None:
        if not self._xx.finished or self._remote is None:
            return
        sending, receiving = self._xx.split()
        key, muxers = self._remote
        self.secured = Secured(key.peer_id(), key, muxers, Sealer(sending), Opener(receiving), bytes(self._received))


class Sealer:
    """Turns plaintext parts into frames."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._counter = 0
        self._staged = bytearray(MAX_PLAINTEXT)
        self._out = bytearray(4 * (MAX_FRAME + _LENGTH))
        self._at = 0

    def seal(self, parts: Sequence[Data]) -> memoryview:
        """All `parts`, in order, as frames. The view is valid until the next call.

        The caller bounds a batch: the buffer grows to the largest one and stays.
        """
        views = [view for part in parts if (view := memoryview(part).cast("B")).nbytes]
        total = sum(map(len, views))
        frames = (
            total // MAX_PLAINTEXT + 2 * len(views) + 1
        )  # a bound: a part closes the staged frame and leaves a rest
        need = total + min(frames, total) * (TAG + _LENGTH)
        if need > len(self._out):
            self._out = bytearray(need)
        self._at = 0
        staged = memoryview(self._staged)
        fill = 0
        for view in views:
            if fill + len(view) > MAX_PLAINTEXT or len(view) >= COALESCE:
                self._frame(staged[:fill])
                fill = 0
            at = 0
            while len(view) - at >= COALESCE:
                piece = view[at : at + MAX_PLAINTEXT]
                self._frame(piece)
                at += len(piece)
            if at < len(view):
                staged[fill : fill + len(view) - at] = view[at:]
                fill += len(view) - at
        self._frame(staged[:fill])
        return memoryview(self._out)[: self._at]

    def _frame(self, plaintext: memoryview) -> None:
        if not plaintext:
            return
        end = self._at + _LENGTH + len(plaintext) + TAG
        out = memoryview(self._out)
        out[self._at : self._at + _LENGTH] = (len(plaintext) + TAG).to_bytes(_LENGTH, "big")
        self._cipher.encrypt_into(nonce(self._counter), plaintext, None, out[self._at + _LENGTH : end])
        self._counter += 1
        self._at = end


class Opener:
    """Turns frames into plaintext."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._counter = 0

    def open(self, data: memoryview, out: memoryview) -> tuple[int, int]:
        """Decrypt the whole frames at the start of `data` into `out`, as many as fit: (bytes taken, bytes written).

        `out` of `MAX_PLAINTEXT` bytes always fits one. Raises `RemoteProtocolError` for a frame that is too short to be
        one or does not authenticate.
        """
        taken = written = 0
        while len(data) - taken >= _LENGTH:
            length = data[taken] << 8 | data[taken + 1]
            if length < TAG:
                raise RemoteProtocolError(f"noise: a frame of {length} bytes is shorter than its tag")
            end = taken + _LENGTH + length
            if end > len(data) or written + length - TAG > len(out):
                break
            plaintext = out[written : written + length - TAG]
            try:
                self._cipher.decrypt_into(nonce(self._counter), data[taken + _LENGTH : end], None, plaintext)
            except InvalidTag:
                raise RemoteProtocolError("noise: a frame does not authenticate") from None
            self._counter += 1
            taken = end
            written += length - TAG
        return taken, written


def _field(number: int, value: bytes) -> bytes:
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value


def _encode_payload(identity: Identity, static_public: bytes, muxers: Sequence[str]) -> bytes:
    extensions = b"".join(_field(_STREAM_MUXERS, muxer.encode()) for muxer in muxers)
    return (
        _field(_IDENTITY_KEY, identity.public_key.to_protobuf())
        + _field(_IDENTITY_SIGNATURE, identity.sign(_SIGNED_PREFIX + static_public))
        + (_field(_EXTENSIONS, extensions) if muxers else b"")
    )


def _check_payload(payload: bytes, static_public: bytes) -> tuple[PublicKey, tuple[str, ...]]:
    try:
        fields = dict(_fields(payload))
        key = parse_public_key(fields.get(_IDENTITY_KEY, b""))
        verify(key, fields.get(_IDENTITY_SIGNATURE, b""), _SIGNED_PREFIX + static_public)
        extensions = _fields(fields.get(_EXTENSIONS, b""))
        muxers = tuple(value.decode(errors="replace") for number, value in extensions if number == _STREAM_MUXERS)
    except InvalidArgument as exc:
        raise RemoteProtocolError(f"noise: the peer's identity is refused: {exc.message}") from exc
    return key, muxers


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields; this message has no others."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        length, at = read_varint(message, at)
        if tag & 7 != 2 or at + length > len(message):
            raise InvalidArgument("handshake payload is malformed")
        yield tag >> 3, message[at : at + length]
        at += length
