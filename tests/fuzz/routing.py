"""Target for the routing protocol: a stranger's claims and questions."""

from __future__ import annotations

import contextlib

from ipcs.cid import PeerId, write_varint
from ipcs.errors import RemoteProtocolError
from ipcs.routing import messages
from ipcs.routing.table import Table

PEER = PeerId("fuzz")


def routing_message(data: bytes) -> None:
    """A length is told or refused, encoding what was decoded decodes to the same, and any claim may be remembered."""
    with contextlib.suppress(RemoteProtocolError):
        length = messages.body_length(data[:9])
        assert length is None or 0 <= length <= messages.MAX_MESSAGE
    try:
        message = messages.decode(data)
    except RemoteProtocolError:
        return
    encoded = messages.encode(message)
    length = messages.body_length(encoded[:9]) if len(encoded) <= messages.MAX_MESSAGE else None
    if length is not None:
        body = encoded[len(write_varint(length)) :]
        assert len(body) == length
        assert messages.decode(body) == message
    if isinstance(message, messages.Records | messages.Announce):
        table = Table()
        table.claimed(PEER, message.records)
        for record in message.records:
            assert bool(table.claims(record.digest)) >= record.is_plausible()
