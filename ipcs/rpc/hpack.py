"""Header blocks of requests. Pure; the decoding itself is the library's.

A client's second call of a method names all its headers by their place in the table: such a block means the same until
the table changes, so it is decoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hpack import Decoder, HPACKError

from .framing import Http2Error, Reason

REMEMBERED = 64
"""Blocks that are remembered; containerd calls nine methods."""

_PSEUDO = {b":method", b":scheme", b":path", b":authority"}
_OF_CONNECTIONS = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}


class HeaderDecoder:
    """The table of one connection. Every block of it must come here, in order."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes of one block's headers, unpacked."""
        self._decoder = Decoder(max_header_list_size=limit)
        self._known: dict[bytes, Mapping[str, str]] = {}

    def decode(self, block: bytes) -> Mapping[str, str] | None:
        """Names and values, of several values for one name the last; None for what begins no request.

        Raises `Http2Error`.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            fields = list(self._decoder.decode(block, raw=True))
            headers = {name.decode(): value.decode("latin-1") for name, value in fields}
        except (HPACKError, UnicodeDecodeError) as exc:
            raise Http2Error(Reason.COMPRESSION_ERROR, f"headers cannot be read: {exc}") from exc
        if not _only_names_places(block):
            self._known.clear()  # the table may have changed, and every place in it
        if not _begins_a_request(fields):
            return None
        if len(self._known) < REMEMBERED and _only_names_places(block):
            self._known[block] = headers
        return headers


def _begins_a_request(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a POST begins so: RFC 9113, 8.2 and 8.3."""
    pseudo: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if regular or name not in _PSEUDO or name in pseudo:
                return False
            pseudo[name] = value
        else:
            regular = True
            if name != name.lower() or name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
                return False
    return pseudo.get(b":method") == b"POST" and bool(pseudo.get(b":scheme")) and bool(pseudo.get(b":path"))


def _only_names_places(block: bytes) -> bool:
    """Whether every field is an index of one byte: RFC 7541, 6.1, below the prefix that continues."""
    return all(0x80 <= byte < 0xFF for byte in block)
