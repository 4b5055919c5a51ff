"""The sending half of a connection: one task that sends what the core has queued, and the room it leaves to writers."""

from __future__ import annotations

import math
from collections import deque

import trio

from ..block import Data
from ..cid import PeerId
from ..errors import RemoteProtocolError
from .channel import Channel
from .streams import MuxedStream
from .yamux import Yamux

OUTBOX = 1024 * 1024
"""Bytes queued for the peer above which writers wait: enough to keep the socket busy, too little to hoard blocks."""

BATCH = 1024 * 1024
"""Bytes that are encrypted and sent at once: the size of the sealing buffer of a connection. Each send wakes the peer,
which in a virtual machine costs more than encrypting 64 KiB."""

WRITE_STALL = 30.0
"""Seconds without window or progress after which a write gives up: a slow reader is dropped, not waited for (boxo's
write deadline for Bitswap is 10 s to 2 min)."""


class Outbox:
    """Sends what `core` queues to `channel`. Only `run` touches the channel, and only the end of the connection
    cancels it: no frame is ever cut by somebody else's cancellation."""

    def __init__(self, core: Yamux, channel: Channel, peer: PeerId) -> None:
        self._core = core
        self._channel = channel
        self._peer = peer
        self._wanted = trio.Event()
        self._drained = trio.Event()
        self._closed = False
        self.sending = False
        """Whether the channel is taking a batch, or is not taking it."""

    def wake(self) -> None:
        """Something may be queued."""
        if self._core.has_output:
            self._wanted.set()

    def close(self) -> None:
        """The connection ended: nobody waits any longer."""
        self._closed = True
        self._signal_drained()

    async def run(self) -> None:
        """Send for ever. Raises `RemoteProtocolError` when the connection broke or the peer takes nothing."""
        with trio.CancelScope() as scope:  # one for all sends: making one for each would cost as much as the send
            while True:
                parts = self._core.data_to_send()
                if not parts:
                    self._signal_drained()
                    self._wanted = trio.Event()
                    await self._wanted.wait()
                    continue
                self.sending = True
                for batch in _batches(parts):
                    scope.deadline = trio.current_time() + WRITE_STALL
                    await self._channel.send(batch)
                scope.deadline = math.inf
                self.sending = False
                self._signal_drained()
        raise RemoteProtocolError(f"the peer took nothing for {WRITE_STALL:.0f} s", subject=self._peer)

    async def drain(self, seconds: float) -> None:
        """Wait, at most `seconds`, until everything queued was sent or the connection ended. Not cancellable."""
        with trio.CancelScope(deadline=trio.current_time() + seconds, shield=True):
            while (self._core.has_output or self.sending) and not self._closed:
                self.wake()
                await self._drained.wait()

    async def room(self, stream: MuxedStream) -> int:
        """Wait until something may be queued for `stream`: how many bytes.

        Raises `RemoteProtocolError` when the stream is gone; a stream whose peer opens no window for `WRITE_STALL`
        seconds is reset.
        """
        while self._core.queued > OUTBOX and not self._closed:
            await self._drained.wait()
        deadline = trio.current_time() + WRITE_STALL
        while True:
            stream.check_writable()
            if room := self._core.send_window(stream.id):
                return room
            with trio.move_on_at(deadline) as scope:
                await stream.changed()
            if scope.cancelled_caught:
                stream.abandon(f"the peer read nothing for {WRITE_STALL:.0f} s")

    def _signal_drained(self) -> None:
        self._drained.set()
        self._drained = trio.Event()


def _batches(parts: list[Data]) -> list[list[Data]]:
    """`parts` cut into lists of about `BATCH` bytes; a short rest goes with the last, it is not worth a send."""
    batches: list[list[Data]] = [[]]
    size = 0
    left = sum(map(len, parts))
    for part in parts:
        if size >= BATCH and left >= BATCH // 8:
            batches.append([])
            size = 0
        batches[-1].append(part)
        size += len(part)
        left -= len(part)
    return batches


def take_front(parts: deque[memoryview], room: int) -> list[Data]:
    """The first `room` bytes off `parts`."""
    taken: list[Data] = []
    while parts and room:
        piece = parts.popleft()
        if len(piece) > room:
            parts.appendleft(piece[room:])
            piece = piece[:room]
        taken.append(piece)
        room -= len(piece)
    return taken
