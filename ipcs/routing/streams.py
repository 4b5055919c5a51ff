"""Messages over streams of the network."""

from __future__ import annotations

from ..cid import write_varint
from ..errors import RemoteProtocolError
from ..net.interface import Stream
from . import messages
from .messages import Message


async def no_answer(_stream: Stream) -> Message | None:
    return None


async def read_message(stream: Stream) -> Message:
    return await MessageReader(stream).read()


class MessageReader:
    """Messages of one stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._data = bytearray()

    async def read(self) -> Message:
        """The next message. Raises `RemoteProtocolError` for one that is cut off, too long or malformed."""
        data = self._data
        length: int | None = None
        while length is None or len(data) < length:
            if length is None:
                length = messages.body_length(bytes(data[:9]))
                if length is not None:
                    del data[: len(write_varint(length))]
                    continue
            chunk = await self._stream.read(messages.MAX_MESSAGE)
            if not chunk:
                peer = self._stream.peer
                raise RemoteProtocolError(f"routing message of {peer} is cut off", subject=peer)
            data += chunk
        message = messages.decode(bytes(data[:length]))
        del data[:length]
        return message
