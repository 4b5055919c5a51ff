"""Bytes of one inbound stream -> messages. Incremental, pure, and bounded by what has arrived.

A block's bytes are copied once, out of the network's buffer into the buffer that the block keeps. Nothing is allocated
because a length prefix says so: at most four times the bytes that came. Unknown fields are skipped, as protobuf
demands.

States, per byte position: before a message (its length varint) -> at a field of the message -> at a field of a payload
block -> inside a body that is being collected (`_Body`) -> back. A header that is cut by the end of a chunk waits in
`_rest` (at most a few bytes) for the next chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..block import Data
from ..errors import RemoteProtocolError
from .fields import merge, parse_presence, parse_wantlist, varint
from .limits import MAX_ENTRIES_PER_MESSAGE, MAX_MESSAGE_SIZE, MAX_PREFIX_SIZE
from .message import Entry, Message, WireBlock

_WANTLIST, _BLOCK_V0, _PAYLOAD, _PRESENCE = 0x0A, 0x12, 0x1A, 0x22
_PENDING_BYTES = 0x28
_PREFIX, _DATA = 0x0A, 0x12
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

_TRUST_FACTOR: Final = 4
"""A body's buffer is allocated whole once a quarter of it is here; until then its pieces are kept in a list."""


class _Body:
    """Bytes of known length that arrive in pieces."""

    __slots__ = ("_buffer", "_pieces", "filled", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.filled = 0
        self._pieces: list[bytes] | None = []
        self._buffer = memoryview(b"")

    def add(self, piece: memoryview) -> bool:
        """Take `piece`; True once complete."""
        end = self.filled + len(piece)
        if self._pieces is not None and end * _TRUST_FACTOR >= self.size:
            self._buffer = memoryview(bytearray(self.size))
            head = b"".join(self._pieces)
            self._buffer[: len(head)] = head
            self._pieces = None
        if self._pieces is None:
            self._buffer[self.filled : end] = piece
        else:
            self._pieces.append(bytes(piece))
        self.filled = end
        return end == self.size

    @property
    def allocated(self) -> int:
        return self.filled if self._pieces is not None else self.size

    @property
    def missing(self) -> int:
        return self.size - self.filled

    def data(self) -> Data:
        return self._buffer.toreadonly()


class MessageDecoder:
    """One inbound stream. `feed` returns the messages that a chunk completes.

    Blocks of a long message are given out as they arrive, in messages of their own.

    Raises `RemoteProtocolError` for anything a peer may not send; the decoder must not be fed after that.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._left = -1  # bytes of the message not yet taken; -1 between messages
        self._block_left = -1  # the same for the payload block; -1 outside one
        self._body: _Body | None = None
        self._body_done: Callable[[Data], None] = self._skip
        self._message = Message()
        self._entries: list[Entry] = []
        self._prefix = b""
        self._data: Data | None = None
        self._count = 0

    @property
    def between_messages(self) -> bool:
        """Whether the stream may end here without cutting a message off."""
        return self._left < 0 and not self._rest

    @property
    def held(self) -> int:
        """Bytes of an unfinished field that have arrived."""
        return len(self._rest) + (self._body.filled if self._body is not None else 0)

    @property
    def allocated(self) -> int:
        """Bytes allocated for an unfinished field."""
        return len(self._rest) + (self._body.allocated if self._body is not None else 0)

    def feed(self, chunk: memoryview) -> list[Message]:
        """Take the next bytes of the stream; they are not referenced afterwards."""
        if self._rest:
            chunk = memoryview(self._rest + bytes(chunk))
            self._rest = b""
        done: list[Message] = []
        at, end = 0, len(chunk)
        while True:
            if self._body is not None:
                stop = min(end, at + self._body.missing)
                if self._body.add(chunk[at:stop]):
                    body, self._body = self._body, None
                    self._body_done(body.data())
                at = stop
                if self._body is not None:
                    return self._with_finished_blocks(done)
            if self._block_left == 0:
                self._end_block()
            if self._left == 0:
                done.append(self._end_message())
            after = self._header(chunk, at, end)
            if after < 0:
                self._rest = bytes(chunk[at:])
                return self._with_finished_blocks(done)
            at = after

    # -- headers -------------------------------------------------------------------------------------------------------

    def _header(self, chunk: memoryview, at: int, end: int) -> int:
        """Read one header at `at`; the offset after it (and after its body when that is all here), or -1: cut off."""
        if self._left < 0:
            return self._message_header(chunk, at, end)
        key, after = varint(chunk, at, end)
        if after < 0:
            return self._incomplete(end - at)
        wire = key & 7
        if wire == _LENGTH:
            size, after = varint(chunk, after, end)
            if after < 0:
                return self._incomplete(end - at)
            return self._field(key, size, chunk, at, after, end)
        if wire == _VARINT:
            value, after = varint(chunk, after, end)
            if after < 0:
                return self._incomplete(end - at)
            if key == _PENDING_BYTES and self._block_left < 0:
                self._message.pending_bytes = value & 0x7FFFFFFF
        elif wire in (_FIXED64, _FIXED32):
            after += 8 if wire == _FIXED64 else 4
            if after > end:
                return self._incomplete(end - at)
        else:
            raise RemoteProtocolError(f"bitswap message has a field of wire type {wire}")
        self._take(after - at)
        return after

    def _message_header(self, chunk: memoryview, at: int, end: int) -> int:
        size, after = varint(chunk, at, end)
        if after < 0:
            return -1
        if size > MAX_MESSAGE_SIZE:
            raise RemoteProtocolError(f"bitswap message of {size} bytes is over the limit of {MAX_MESSAGE_SIZE}")
        self._left = size
        return after

    def _incomplete(self, have: int) -> int:
        left = self._block_left if self._block_left >= 0 else self._left
        if have >= left:
            raise RemoteProtocolError("bitswap message ends within a field")
        return -1

    def _take(self, size: int) -> None:
        """Account `size` bytes to the enclosing block and message."""
        if self._block_left >= 0:
            self._block_left -= size
            if self._block_left < 0:
                raise RemoteProtocolError("a field of a bitswap block is longer than the block")
        self._left -= size
        if self._left < 0:
            raise RemoteProtocolError("a field of a bitswap message is longer than the message")

    def _field(self, key: int, size: int, chunk: memoryview, at: int, after: int, end: int) -> int:
        """A length-delimited field whose header is `chunk[at:after]`."""
        if self._block_left < 0 and key == _PAYLOAD:
            self._take(after - at)
            if size > self._left:
                raise RemoteProtocolError("a bitswap block is longer than its message")
            self._block_left = size
            return after
        self._take(after - at + size)
        self._body_done = self._sink_of(key, size)
        if after + size <= end:  # all of it is here: one copy, no buffer to fill
            body = chunk[after : after + size]
            self._body_done(b"" if self._body_done == self._skip else bytes(body))
            return after + size
        self._body = _Body(size)
        return after

    def _sink_of(self, key: int, size: int) -> Callable[[Data], None]:
        if self._block_left >= 0:
            if key == _DATA:
                return self._on_data
            if key == _PREFIX:
                if size > MAX_PREFIX_SIZE:
                    raise RemoteProtocolError(f"a block prefix of {size} bytes is no prefix of a CID")
                return self._on_prefix
            return self._skip
        return {_WANTLIST: self._on_wantlist, _BLOCK_V0: self._on_block, _PRESENCE: self._on_presence}.get(
            key, self._skip
        )

    # -- bodies --------------------------------------------------------------------------------------------------------

    def _skip(self, body: Data) -> None:
        pass

    def _on_prefix(self, body: Data) -> None:
        self._prefix = bytes(body)

    def _on_data(self, body: Data) -> None:
        self._data = body

    def _on_block(self, body: Data) -> None:
        self._message.blocks.append(WireBlock(b"", body))

    def _on_wantlist(self, body: Data) -> None:
        self._entries, self._message.full = parse_wantlist(bytes(body), self._entries)

    def _on_presence(self, body: Data) -> None:
        self._count += 1
        if self._count > MAX_ENTRIES_PER_MESSAGE:
            raise RemoteProtocolError(f"more than {MAX_ENTRIES_PER_MESSAGE} presences in one bitswap message")
        cid, absent = parse_presence(bytes(body))
        if cid is not None:
            (self._message.dont_haves if absent else self._message.haves).append(cid)

    def _end_block(self) -> None:
        self._block_left = -1
        data = self._data if self._data is not None else b""
        self._message.blocks.append(WireBlock(self._prefix, data))
        self._prefix, self._data = b"", None

    def _with_finished_blocks(self, done: list[Message]) -> list[Message]:
        """`done`, and the blocks that are whole of the message that is not: they need not wait for its end."""
        if self._message.blocks:
            done.append(Message(blocks=self._message.blocks))
            self._message.blocks = []
        return done

    def _end_message(self) -> Message:
        message = self._message
        message.entries = merge(self._entries)
        self._left, self._count, self._message, self._entries = -1, 0, Message(), []
        return message
