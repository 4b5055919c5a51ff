"""Fuzz targets of Bitswap: the message decoder under any chunking, and the engine under any order of events."""

from __future__ import annotations

import contextlib
import random

from ipcs.bitswap import events
from ipcs.bitswap.decoder import MessageDecoder
from ipcs.bitswap.engine import Engine
from ipcs.bitswap.inbound import hashed
from ipcs.bitswap.limits import Config
from ipcs.bitswap.message import Entry, encode
from ipcs.bitswap.network import PROTOCOLS
from ipcs.block import make_block
from ipcs.cid import PeerId
from ipcs.errors import LocalProtocolError, RemoteProtocolError

_PEERS = [PeerId("p"), PeerId("q"), PeerId("r")]
_BLOCKS = [make_block(bytes([number]) * 2000) for number in range(4)]
_STEPS = [0.0, 0.01, 0.3, 1.5, 20.0]


def bitswap_message(data: bytes) -> None:
    """The first byte is the length of the chunks; what is decoded must survive being encoded and decoded again."""
    if not data:
        return
    step = data[0] + 1
    decoder = MessageDecoder()
    messages = []
    with contextlib.suppress(RemoteProtocolError):
        for at in range(1, len(data), step):
            messages += decoder.feed(memoryview(data)[at : at + step])
    assert decoder.allocated <= 4 * len(data) + 64
    for message in messages:
        for protocol in PROTOCOLS:
            try:
                wire = b"".join(encode(message, protocol))
            except LocalProtocolError:
                continue
            again = MessageDecoder().feed(memoryview(wire))
            assert len(again) == 1
            if protocol == PROTOCOLS[0]:
                expected = [Entry(e.cid, cancel=True, priority=0) if e.cancel else e for e in message.entries]
                assert list(again[0].entries) == expected
                assert again[0].haves == message.haves


class _World:
    """An engine between scripted peers: each input byte is a thing that happens."""

    def __init__(self) -> None:
        self.engine = Engine(Config(), random.Random(1))
        self.now = 0.0
        self.pending: list[events.Event] = []
        self.sent: list[events.SendMessage] = []
        self.session = 0

    def happen(self, event: events.Event) -> None:
        for action in self.engine.handle(event, self.now):
            if isinstance(action, events.SendMessage):
                self.sent.append(action)
            elif isinstance(action, events.StoreBlocks):
                stored = [(block.cid, len(block.data)) for block in action.blocks]
                self.pending.append(events.BlocksStored(stored))
            elif isinstance(action, events.ReadBlocks):
                self.pending.append(events.BlocksRead(action.peer, [(cid, b"x" * 2000) for cid in action.cids]))
            elif isinstance(action, events.Disconnect):
                self.pending.append(events.PeerDisconnected(action.peer))

    def step(self, code: int, value: int) -> None:  # noqa: C901 - a table of events
        peer, block = _PEERS[value % 3], _BLOCKS[value % 4]
        match code % 10:
            case 0:
                self.happen(events.PeerConnected(peer))
            case 1:
                self.happen(events.PeerDisconnected(peer))
            case 2:
                self.session += 1
                self.happen(events.SessionOpened(self.session, block.cid, [peer], 2000))
            case 3:
                self.happen(events.SessionClosed(self.session - value % 2))
            case 4:
                cids = [block.cid for index, block in enumerate(_BLOCKS) if value >> index & 1]
                self.happen(events.BlocksWanted(self.session, cids, reading=value > 127))
            case 5:
                self.happen(events.MessageReceived(peer, blocks=[block]))
            case 6:
                kept = {"haves": [block.cid]} if value > 127 else {"dont_haves": [block.cid]}
                self.happen(events.MessageReceived(peer, **kept))
            case 7 if self.sent:
                action = self.sent.pop(0)
                lost = value > 200
                happened = events.StreamFailed if lost else events.MessageSent
                self.happen(happened(action.peer, action.lane))
            case 8 if self.pending:
                self.happen(self.pending.pop(0))
            case 9:
                self.now += _STEPS[value % len(_STEPS)]
                self.happen(events.TimePassed())
                assert self.engine.next_deadline() > self.now

    def receive(self, peer: PeerId, data: bytes) -> None:
        """Bytes of a stream from `peer`."""
        for message in MessageDecoder().feed(memoryview(data)):
            blocks, refused, refused_bytes = hashed(message.blocks)
            sizes = [2000 if index % 2 else None for index in range(len(message.entries))]
            self.happen(
                events.MessageReceived(
                    peer,
                    message.entries,
                    sizes,
                    message.full,
                    message.haves,
                    message.dont_haves,
                    blocks,
                    refused,
                    refused_bytes,
                )
            )


def bitswap_engine(data: bytes) -> None:
    """Byte pairs are events; a pair that starts with 0xff is followed by that many bytes from the wire."""
    world = _World()
    at = 0
    while at + 1 < len(data):
        code, value = data[at], data[at + 1]
        at += 2
        if code == 0xFF:
            with contextlib.suppress(RemoteProtocolError):
                world.receive(_PEERS[value % 3], data[at : at + value])
            at += value
        else:
            world.step(code, value)
    statistics = world.engine.statistics()
    for peer in statistics.peers.values():
        assert peer.asked_bytes >= 0
        assert peer.wants <= 1024
