"""One connected peer: two lanes, each a task that writes what the engine gives out, on one long-lived stream.

A stream that breaks is reopened when the engine has the next message for it. A peer on which no Bitswap stream can be
opened is no Bitswap peer: it is left alone, until it opens one itself; its connection stays.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ..cid import PeerId
from ..errors import NotFound, RemoteProtocolError
from .events import Event, Lane, MessageSent, PeerDisconnected, StreamFailed, StreamOpened
from .message import Message, encode, speaks_presences
from .network import Network, OutStream

_RETRIES = 3
_RETRY_DELAY = 0.1
"""Attempts to open a stream, and seconds between them (boxo messagequeue: 3 tries, 100 ms)."""

_CLOSE_TIMEOUT = 1.0
"""Seconds that closing our side of a stream may take when the node stops."""


class Peer:
    """The outbound half of one peer. The engine keeps at most one message a lane out, so `send` never waits."""

    def __init__(self, peer: PeerId, network: Network, post: Callable[[Event], None]) -> None:
        self.peer = peer
        self._network = network
        self._post = post
        self._outbox: dict[Lane, trio.MemorySendChannel[Message]] = {}
        self._scope = trio.CancelScope()
        self.given_up = False
        """Whether no stream could be opened; the tasks have ended, the connection stays."""

    def send(self, lane: Lane, message: Message) -> None:
        """Hand `message` to its lane."""
        self._outbox[lane].send_nowait(message)

    def _give_up(self) -> None:
        self.given_up = True
        self._post(PeerDisconnected(self.peer))
        self._scope.cancel()

    def close(self) -> None:
        """The connection is gone: end the tasks."""
        self._scope.cancel()

    def open_outboxes(self) -> list[tuple[Lane, trio.MemoryReceiveChannel[Message]]]:
        """The queues that `run` drains; made before it runs, so that `send` works at once."""
        inboxes: list[tuple[Lane, trio.MemoryReceiveChannel[Message]]] = []
        for lane in Lane:
            self._outbox[lane], inbox = trio.open_memory_channel[Message](1)
            inboxes.append((lane, inbox))
        return inboxes

    async def run(self, inboxes: list[tuple[Lane, trio.MemoryReceiveChannel[Message]]]) -> None:
        """Write until the peer is gone."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for lane, inbox in inboxes:
                    nursery.start_soon(self._run_lane, lane, inbox)

    async def _run_lane(self, lane: Lane, inbox: trio.MemoryReceiveChannel[Message]) -> None:
        stream: OutStream | None = None
        failures = 0
        try:
            async for message in inbox:
                try:
                    if stream is None:
                        stream = await self._network.open_stream(self.peer)
                        self._post(StreamOpened(self.peer, speaks_presences(stream.protocol)))
                    await stream.write(encode(message, stream.protocol))
                except (RemoteProtocolError, NotFound):
                    failures += 1
                    if stream is not None:
                        stream.reset()
                        stream = None
                    if failures == _RETRIES:
                        self._give_up()
                        return
                    await trio.sleep(_RETRY_DELAY)
                    self._post(StreamFailed(self.peer, lane))
                else:
                    failures = 0
                    self._post(MessageSent(self.peer, lane))
        finally:
            if stream is not None:
                with trio.CancelScope(deadline=trio.current_time() + _CLOSE_TIMEOUT, shield=True):
                    await stream.aclose()
