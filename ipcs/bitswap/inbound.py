"""Inbound streams: bytes pushed by the network become messages, and their blocks are hashed.

The network pushes synchronously, so a stream costs no task. Hashing is batched over streams and peers, in a worker
thread when a batch is worth the hop; what has arrived and is not yet stored is bounded, and `Exchange.flush` is where
readers wait for that bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

from ..block import Block
from ..cid import PeerId
from ..errors import RemoteProtocolError
from .decoder import MessageDecoder
from .message import Message, WireBlock
from .verify import cid_of

_HASH_BATCH = 2 * 1024 * 1024
"""Bytes hashed in one go: 1.3 ms with SHA-NI, so that the first block of a burst does not wait for the last."""

_THREAD_MIN = 1024 * 1024
"""A worker thread pays from here on: a hop costs about 95 us, sha256 of 1 MiB 640 us."""


T = TypeVar("T")


class RunSync(Protocol):
    """Runs blocking work without blocking the loop, or says that it may block."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The result of `work`, or what it raised."""
        ...


async def run_in_thread(work: Callable[[], T]) -> T:
    """In a worker thread of trio's."""
    return await trio.to_thread.run_sync(work)


class InboundStream:
    """The `StreamSink` of one stream."""

    def __init__(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._decoder = MessageDecoder()
        self._on_message = on_message
        self._on_end = on_end
        self._ended = False

    def feed(self, chunk: memoryview) -> None:
        """Bytes in order. Raises `RemoteProtocolError` for what is no Bitswap."""
        if self._ended:
            return
        try:
            messages = self._decoder.feed(chunk)
        except RemoteProtocolError:
            self.reset()
            raise
        for message in messages:
            self._on_message(message)

    def eof(self) -> None:
        """The normal end. Raises `RemoteProtocolError` when it cuts a message off."""
        cut_off = not self._ended and not self._decoder.between_messages
        self.reset()
        if cut_off:
            raise RemoteProtocolError("a bitswap stream ended within a message")

    def reset(self) -> None:
        """The stream is gone."""
        if not self._ended:
            self._ended = True
            self._decoder = MessageDecoder()
            self._on_end()


class Hashing:
    """Turns the wire blocks of messages into blocks, in order of arrival."""

    def __init__(self, done: Callable[[PeerId, Message, list[Block], int, int], None], run_sync: RunSync) -> None:
        self._done = done
        self._run_sync = run_sync
        self._pending: deque[tuple[PeerId, Message, int]] = deque()
        self._wake = trio.Event()

    def add(self, peer: PeerId, message: Message) -> None:
        """Hash the blocks of `message`."""
        self._pending.append((peer, message, sum(len(block.data) for block in message.blocks)))
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            while self._pending:
                await self._batch()
            self._wake = trio.Event()

    async def _batch(self) -> None:
        batch: list[tuple[PeerId, Message]] = []
        total = 0
        while self._pending and total < _HASH_BATCH:
            peer, message, size = self._pending.popleft()
            batch.append((peer, message))
            total += size
        wire = [message.blocks for _, message in batch]
        if total >= _THREAD_MIN:
            hashed = await self._run_sync(lambda: _hash(wire))
        else:
            hashed = _hash(wire)
            await trio.lowlevel.checkpoint()
        for (peer, message), (blocks, refused, refused_bytes) in zip(batch, hashed, strict=True):
            self._done(peer, message, blocks, refused, refused_bytes)


def _hash(messages: list[list[WireBlock]]) -> list[tuple[list[Block], int, int]]:
    """For each message its blocks, and number and bytes of those that have no CID anybody may ask for."""
    out: list[tuple[list[Block], int, int]] = []
    for wire in messages:
        blocks: list[Block] = []
        refused = refused_bytes = 0
        for prefix, data in wire:
            cid = cid_of(prefix, data)
            if cid is None:
                refused += 1
                refused_bytes += len(data)
            else:
                blocks.append(Block(cid, data))
        out.append((blocks, refused, refused_bytes))
    return out
