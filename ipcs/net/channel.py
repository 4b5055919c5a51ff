"""A secure channel as the muxer uses it: batches of plaintext in, parts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from ..block import Data
from ..errors import RemoteProtocolError
from .address import TcpAddress
from .noise import MAX_FRAME, MAX_PLAINTEXT, Opener, Sealer

READ_BUFFER = 512 * 1024
"""Bytes read from the socket at once: 64 KiB would cost trio twice as much per byte, more gains nothing."""


class Channel(Protocol):
    """An encrypted connection to a peer whose identity is proven."""

    @property
    def addresses(self) -> tuple[TcpAddress | None, TcpAddress | None]:
        """Our end and the peer's; None where the kernel no longer tells."""
        ...

    async def receive(self) -> memoryview:
        """What has arrived, at least one byte, valid until the next call; empty at the end of the connection.

        Raises `RemoteProtocolError` when the connection broke or its encryption was tampered with.
        """
        ...

    async def send(self, parts: Sequence[Data]) -> None:
        """Send all `parts`. One caller at a time; never cancelled but to end the connection.

        Raises `RemoteProtocolError` when the connection broke.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


def addresses_of(stream: trio.SocketStream) -> tuple[TcpAddress | None, TcpAddress | None]:
    """Both ends of a TCP connection."""
    try:
        return TcpAddress.of_socket(stream.socket.getsockname()), TcpAddress.of_socket(stream.socket.getpeername())
    except OSError:  # it has ended already
        return None, None


class NoiseChannel:
    """Noise frames over a TCP socket: read by hundreds of kilobytes into one buffer, decrypted into another."""

    def __init__(self, stream: trio.SocketStream, sealer: Sealer, opener: Opener, rest: bytes) -> None:
        """`rest` are bytes that came behind the handshake."""
        self._stream = stream
        self._sealer = sealer
        self._opener = opener
        self._wire = memoryview(bytearray(READ_BUFFER + MAX_FRAME + 2))
        self._wire[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        self._plain = memoryview(bytearray(READ_BUFFER + MAX_PLAINTEXT))
        self.addresses = addresses_of(stream)

    async def receive(self) -> memoryview:
        """See `Channel`."""
        while True:
            taken, written = self._opener.open(self._wire[self._start : self._end], self._plain)
            self._start += taken
            if written:
                return self._plain[:written]
            if not taken and not await self._fill():
                return self._plain[:0]

    async def _fill(self) -> bool:
        left = self._end - self._start
        self._wire[:left] = self._wire[self._start : self._end]
        self._start, self._end = 0, left
        try:
            count = await self._stream.socket.recv_into(self._wire[left:])
        except OSError as exc:
            raise RemoteProtocolError(f"connection broke: {exc.strerror}") from exc
        if not count and left:
            raise RemoteProtocolError(f"connection ended inside a frame, after {left} bytes of it")
        self._end += count
        return bool(count)

    async def send(self, parts: Sequence[Data]) -> None:
        """See `Channel`."""
        try:
            await self._stream.send_all(self._sealer.seal(parts))
        except trio.BrokenResourceError as exc:
            raise RemoteProtocolError(f"connection broke: {exc.__cause__ or exc}") from exc

    async def aclose(self) -> None:
        """See `Channel`."""
        await self._stream.aclose()
