"""A plain TCP copy as a peer, the yardstick over real links: JSON lines, as README.md beside this says.

`listen` (an IPv4 address) returns a port; each 8-byte number that arrives is answered by that many zero bytes.
`connect` ("host:port") keeps a connection open; `get` fetches `size` bytes, split evenly over all connections.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

import trio
from lines import serve

CHUNK = 262144
ZEROS = bytes(CHUNK)


def send(connection: socket.socket) -> None:
    with connection:
        while order := connection.recv(8, socket.MSG_WAITALL):
            left = int.from_bytes(order, "big")
            while left:
                left -= connection.send(ZEROS[: min(left, CHUNK)])


def accept(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=send, args=(connection,), daemon=True).start()


def receive(connection: socket.socket, size: int) -> None:
    connection.sendall(size.to_bytes(8, "big"))
    buffer = bytearray(CHUNK)
    while size:
        got = connection.recv_into(buffer, min(size, CHUNK))
        if not got:
            raise ConnectionError(f"{size} bytes before the end")
        size -= got


async def main() -> None:
    connections: list[socket.socket] = []

    async def listen(address: str) -> dict[str, Any]:
        server = socket.create_server((address, 0))
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        return {"port": server.getsockname()[1]}

    async def connect(addr: str) -> dict[str, Any]:
        host, port = addr.split(":")
        connections.append(socket.create_connection((host, int(port))))
        return {}

    async def get(size: int) -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(trio.to_thread.run_sync, receive, connection, size // len(connections))
        return {"bytes": size}

    await serve("tcp", [], {"listen": listen, "connect": connect, "get": get}, (OSError,))


if __name__ == "__main__":
    trio.run(main)
