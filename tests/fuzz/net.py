"""Targets for everything that reads bytes of a peer of whom nothing is known: handshake, frames, negotiation."""

from __future__ import annotations

import contextlib

from ipcs.errors import InvalidArgument, RemoteProtocolError
from ipcs.net import identify, multistream
from ipcs.net.keys import Identity, parse_public_key, verify
from ipcs.net.noise import MAX_PLAINTEXT, Handshake, Opener, Sealer
from ipcs.net.yamux import Yamux
from ipcs.net.yamux_frames import DataReceived, GoAwayCode, Limits, StreamEnded, StreamOpened, StreamReset

IDENTITY = Identity(b"fuzz".ljust(32))
LIMITS = Limits(inbound_streams=4, refused_streams=8, window_budget=1 << 20, unread=1 << 19, control_frames=64)
KNOWN = ("/ipfs/bitswap/1.2.0", "/ipfs/id/1.0.0")


def noise_handshake(data: bytes) -> None:
    """No bytes finish a handshake: that takes the peer's part of the secrets."""
    for initiator in (True, False):
        handshake = Handshake(IDENTITY, initiator=initiator, static=bytes([1] * 32), ephemeral=bytes([2] * 32))
        handshake.begin()
        with contextlib.suppress(RemoteProtocolError):
            for piece in _pieces(data):
                handshake.receive(piece)
        assert handshake.secured is None


def noise_frames(data: bytes) -> None:
    """What `Sealer` makes of the bytes, cut anyhow, opens to the bytes; the bytes themselves do not open."""
    wire = memoryview(bytes(Sealer(bytes(32)).seal(list(_pieces(data)))))
    opener, out, got, at = Opener(bytes(32)), memoryview(bytearray(2 * MAX_PLAINTEXT)), bytearray(), 0
    while at < len(wire):
        taken, written = opener.open(wire[at:], out)
        assert taken
        at += taken
        got += out[:written]
    assert got == data
    with contextlib.suppress(RemoteProtocolError):
        _, written = Opener(bytes(32)).open(memoryview(data), out)
        assert not written


def yamux(data: bytes) -> None:
    """However the bytes are cut, the events say the same, windows and limits hold, and a violation is told."""
    assert _events(data, whole=True) == _events(data, whole=False)


def _events(data: bytes, *, whole: bool) -> list[object]:
    core, log, live = Yamux(initiator=False, now=0.0, limits=LIMITS), [], {}
    try:
        for piece in [data] if whole else _pieces(data):
            for event in core.receive(memoryview(piece), 0.0):
                if isinstance(event, StreamOpened):
                    live[event.stream] = b""
                elif isinstance(event, DataReceived):
                    live[event.stream] += bytes(event.data)
                elif isinstance(event, StreamEnded | StreamReset):
                    log.append((type(event).__name__, event.stream, live.get(event.stream)))
            assert core.inbound_streams <= LIMITS.inbound_streams
            assert 0 <= core.unread <= LIMITS.unread
    except RemoteProtocolError:
        assert (
            b"".join(core.data_to_send()).find(bytes([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, GoAwayCode.PROTOCOL_ERROR])) >= 0
        )
        return ["violation"]
    return [*log, sorted(live.items())]


def multistream_listener(data: bytes) -> None:
    """Cut or whole, the outcome is the same, and so is that of the short way."""
    assert _negotiated(multistream.Listener(KNOWN), [data]) == _negotiated(multistream.Listener(KNOWN), _pieces(data))
    protocol, size = multistream.opening(memoryview(data))
    if protocol in KNOWN:
        answer = multistream.HEADER + multistream.message(protocol)
        assert _negotiated(multistream.Listener(KNOWN), [data]) == (answer, protocol, data[size:])
    whole, cut = multistream.Dialler(KNOWN), multistream.Dialler(KNOWN)
    assert _negotiated(whole, [data]) == _negotiated(cut, _pieces(data))


def _negotiated(side: multistream.Listener | multistream.Dialler, pieces: list[bytes]) -> object:
    try:
        answers = b"".join([side.receive(piece) for piece in pieces])
    except RemoteProtocolError:
        return "violation"
    return answers, side.protocol, bytes(side.rest())


def identify_message(data: bytes) -> None:
    """What is understood can be said again, and stays within its bounds."""
    with contextlib.suppress(RemoteProtocolError):
        told = identify.decode(data)
        assert len(told.protocols) <= identify.MAX_PROTOCOLS
        assert len(told.listen_addresses) <= identify.MAX_ADDRESSES
        assert all(len(text) <= identify.MAX_TEXT for text in (told.agent, told.protocol_version, *told.protocols))


def public_key(data: bytes) -> None:
    """A key that parses has one form, and verifies nothing by accident."""
    with contextlib.suppress(InvalidArgument):
        key = parse_public_key(data)
        assert parse_public_key(key.to_protobuf()) == key
        verify(key, bytes(64), b"message")
        raise AssertionError("a signature of zeros was accepted")


def _pieces(data: bytes) -> list[bytes]:
    """`data` cut into pieces whose sizes it names itself."""
    pieces, at = [], 0
    while at < len(data):
        size = data[at] % 23 + 1
        pieces.append(data[at : at + size])
        at += size
    return pieces
