"""A py-libp2p host that breaks Bitswap on purpose: a child process that speaks JSON lines, as README.md says.

    python liar_peer.py --lie wrong-bytes|oversized|unsolicited|truncated|silent

It claims to HAVE whatever is wanted. What it then sends for a want-block:

- wrong-bytes: bytes of the same length that do not hash to the CID, under the CID's prefix
- oversized: a 3 MiB block under the prefix of the CID; `offer` returns the CID which that block really has
- unsolicited: sound blocks that nobody asked for, 256 KiB each, for as long as it is connected
- truncated: a message that ends in the middle of a block
- silent: nothing

Wire format: ipfs/specs bitswap-protocol.md.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import trio
from libp2p import new_host
from libp2p.bitswap.config import BITSWAP_PROTOCOL_V120
from libp2p.bitswap.pb.bitswap_pb2 import Message
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.peerinfo import info_from_p2p_addr
from lines import serve
from multiaddr import Multiaddr

RAW_V1_PREFIX = b"\x01\x55\x12\x20"
DIGEST_LENGTH = 32
BLOCK = 262144
OVERSIZED = 3 * 1024 * 1024
UNSOLICITED_PER_WANT = 8

STREAM_ERRORS = (StreamError, SwarmException, trio.BrokenResourceError, trio.ClosedResourceError)


def framed(message: Message) -> bytes:
    body = message.SerializeToString()
    length, prefix = len(body), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(prefix) + bytes((length,)) + body


def with_payload(*blocks: tuple[bytes, bytes]) -> Message:
    message = Message()
    message.wantlist.SetInParent()
    for prefix, data in blocks:
        block = message.payload.add()
        block.prefix, block.data = prefix, data
    return message


async def read_messages(stream) -> Iterator[Message]:
    """Every message of an inbound stream until its end."""
    rest = bytearray()
    while chunk := await stream.read(65536):
        rest += chunk
        while True:
            length = shift = position = 0
            while position < len(rest):
                byte = rest[position]
                length |= (byte & 0x7F) << shift
                shift, position = shift + 7, position + 1
                if byte < 0x80:
                    break
            else:
                break
            if len(rest) < position + length:
                break
            message = Message()
            message.ParseFromString(bytes(rest[position : position + length]))
            del rest[: position + length]
            yield message


class Liar:
    def __init__(self, host, lie: str) -> None:
        self._host = host
        self._lie = lie
        self._random = random.Random(1)
        self.asked = 0
        self.sent = 0

    def oversized(self) -> bytes:
        return random.Random(2).randbytes(OVERSIZED)

    async def handle(self, stream) -> None:
        try:
            async for message in read_messages(stream):
                await self.answer(stream.muxed_conn.peer_id, message.wantlist.entries)
        except STREAM_ERRORS:
            return  # the peer cut us off, as it should

    async def answer(self, peer, entries) -> None:
        wants = [entry for entry in entries if not entry.cancel]
        haves = Message()
        haves.wantlist.SetInParent()
        for entry in wants:
            haves.blockPresences.add().cid = entry.block  # type 0: HAVE
        await self.send(peer, framed(haves))
        blocks = [bytes(entry.block) for entry in wants if entry.wantType == 0]
        self.asked += len(blocks)
        for data in self.lies(blocks):
            await self.send(peer, data)
            self.sent += 1

    def lies(self, cids: list[bytes]) -> Iterator[bytes]:
        for cid in cids:
            prefix = cid[:-DIGEST_LENGTH]
            if self._lie == "wrong-bytes":
                yield framed(with_payload((prefix, self._random.randbytes(BLOCK))))
            elif self._lie == "oversized":
                yield framed(with_payload((prefix, self.oversized())))
            elif self._lie == "truncated":
                yield framed(with_payload((prefix, self._random.randbytes(BLOCK))))[: BLOCK // 2]
            elif self._lie == "unsolicited":
                for _ in range(UNSOLICITED_PER_WANT):
                    yield framed(with_payload((RAW_V1_PREFIX, self._random.randbytes(BLOCK))))

    async def send(self, peer, data: bytes) -> None:
        stream = await self._host.new_stream(peer, [BITSWAP_PROTOCOL_V120])
        await stream.write(data)
        await stream.close()


def raw_cid_text(data: bytes) -> str:
    import base64

    cid = RAW_V1_PREFIX + hashlib.sha256(data).digest()
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = ["wrong-bytes", "oversized", "unsolicited", "truncated", "silent"]
    parser.add_argument("--lie", choices=choices, required=True)
    args = parser.parse_args()
    host = new_host(key_pair=create_new_key_pair(), muxer_preference="YAMUX")
    liar = Liar(host, args.lie)

    async def connect(addr: str) -> dict[str, Any]:
        await host.connect(info_from_p2p_addr(Multiaddr(addr)))
        return {}

    async def offer() -> dict[str, Any]:
        return {"cid": raw_cid_text(liar.oversized())}

    async def stat() -> dict[str, Any]:
        """want-blocks received; messages sent as an answer to them."""
        return {"asked": liar.asked, "sent": liar.sent}

    async with host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        host.set_stream_handler(BITSWAP_PROTOCOL_V120, liar.handle)
        addrs = [str(addr) for addr in host.get_addrs()]
        ops = {"connect": connect, "offer": offer, "stat": stat}
        await serve(str(host.get_id()), addrs, ops, STREAM_ERRORS)


if __name__ == "__main__":
    trio.run(main)
