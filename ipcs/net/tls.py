"""libp2p's secure channel `/tls/1.0.0`: py-libp2p's handshake and certificates, our data path.

py-libp2p reads its TLS 4 KiB at a time and takes every error for the end of the connection. Its handshake is kept; the
TLS object it leaves behind is then driven from here, with large reads and with a cut-off connection told from a closed
one. Source of the format: libp2p/specs tls/tls.md.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from ..block import Data
from ..errors import InvalidArgument, RemoteProtocolError
from .channel import READ_BUFFER, addresses_of
from .keys import check_rsa_bits, check_size, parse_public_key
from .stock import LIBP2P_EXTENSION_OID, HandshakeFailure, PublicKey, SecureSession, TLSTransport, decode_signed_key


class CheckedTls(TLSTransport):  # type: ignore[misc]
    """py-libp2p's TLS with the bound on RSA keys that it lacks: a 16384-bit key stalls who verifies with it."""

    def _extract_public_key_from_cert(self, cert: x509.Certificate) -> PublicKey:
        try:
            own = cert.public_key()
            if isinstance(own, rsa.RSAPublicKey):
                check_rsa_bits(own.key_size)
            for extension in cert.extensions:
                if extension.oid == LIBP2P_EXTENSION_OID:
                    check_size(parse_public_key(decode_signed_key(extension.value.public_bytes()).public_key_bytes))
        except (InvalidArgument, ValueError) as exc:
            raise HandshakeFailure(f"tls: the peer's certificate is refused: {exc}") from exc
        return super()._extract_public_key_from_cert(cert)


class TlsChannel:
    """TLS records over a TCP socket, as a `Channel`."""

    def __init__(
        self, stream: trio.SocketStream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._stream = stream
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._wire = bytearray(READ_BUFFER)
        self._plain = bytearray(READ_BUFFER)
        self.addresses = addresses_of(stream)

    async def receive(self) -> memoryview:
        """See `Channel`."""
        while True:
            written = self._decrypt()
            if written is not None:
                return memoryview(self._plain)[:written]
            try:
                count = await self._stream.socket.recv_into(self._wire)
            except OSError as exc:
                raise RemoteProtocolError(f"connection broke: {exc.strerror}") from exc
            if count:
                self._incoming.write(memoryview(self._wire)[:count])
            else:
                self._incoming.write_eof()

    def _decrypt(self) -> int | None:
        """Bytes of plaintext; 0 at the peer's regular end, None while more has to be received."""
        written = 0
        plain = memoryview(self._plain)
        try:
            while written < len(plain):
                count = int(self._tls.read(len(plain) - written, plain[written:]))  # bytes read, given a buffer
                if not count:
                    break
                written += count
        except ssl.SSLWantReadError:
            return written or None
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as exc:
            if not written:
                raise RemoteProtocolError(f"tls: {exc.reason or exc}") from exc
        return written

    async def send(self, parts: Sequence[Data]) -> None:
        """See `Channel`."""
        try:
            for part in parts:
                if len(part):
                    self._tls.write(part)
            await self._stream.send_all(self._outgoing.read())
        except trio.BrokenResourceError as exc:
            raise RemoteProtocolError(f"connection broke: {exc.__cause__ or exc}") from exc
        except ssl.SSLError as exc:
            raise RemoteProtocolError(f"tls: {exc.reason or exc}") from exc

    async def aclose(self) -> None:
        """See `Channel`."""
        await self._stream.aclose()


def take_over(session: SecureSession) -> tuple[TlsChannel, bytes]:
    """The channel under a session of py-libp2p's TLS, and the plaintext that the session had read ahead."""
    inner = session.conn.stream_writer
    rest = session._drain(None) + bytes(inner._read_buffer)
    raw: trio.SocketStream = inner.raw_connection.stream.stream
    return TlsChannel(raw, inner._ssl_socket, inner._in_bio, inner._out_bio), rest
