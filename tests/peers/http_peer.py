"""Plain HTTP as a peer, the yardstick of the benchmarks: JSON lines, as README.md beside this says.

`add` offers a file on a `http.server` of its own and returns its URL and sha256 as the `cid`; `get` streams it into a
file and checks the digest, as a registry client does. `connect` does nothing.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from http.client import HTTPException
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import trio
from lines import serve

READ_SIZE = 1 << 20


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """No line for each request."""


def offer(path: str) -> dict[str, Any]:
    file = Path(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(file.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return {"cid": f"http://127.0.0.1:{server.server_port}/{file.name}#{digest}"}


def fetch(cid: str, path: str) -> dict[str, Any]:
    url, digest = cid.split("#")
    sha256, buffer = hashlib.sha256(), memoryview(bytearray(READ_SIZE))
    with urlopen(url) as response, Path(path).open("wb", buffering=0) as out:
        while got := response.readinto(buffer):
            sha256.update(buffer[:got])
            out.write(buffer[:got])
        size = out.tell()
    if sha256.hexdigest() != digest:
        raise OSError(f"{url} does not have the digest {digest}")
    return {"bytes": size}


async def main() -> None:
    async def connect(addr: str) -> dict[str, Any]:
        return {}

    async def add(path: str) -> dict[str, Any]:
        return await trio.to_thread.run_sync(offer, path)

    async def get(cid: str, path: str) -> dict[str, Any]:
        return await trio.to_thread.run_sync(fetch, cid, path)

    await serve("http", ["http"], {"connect": connect, "add": add, "get": get}, (OSError, HTTPException))


if __name__ == "__main__":
    trio.run(main)
