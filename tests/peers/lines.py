"""The JSON-lines protocol of README.md, for peers that run on trio."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

Op = Callable[..., Awaitable[dict[str, Any]]]

READ_SIZE = 65536


def say(answer: Mapping[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


async def serve(peer_id: str, addrs: list[str], ops: Mapping[str, Op], errors: tuple[type[Exception], ...]) -> None:
    """Say that the peer is ready, then answer requests until standard input ends.

    An op's exception of a type in `errors` is an answer; any other ends the peer, which is a bug in it.
    """

    async def work(request: dict[str, Any]) -> None:
        ident, op = request.pop("id"), request.pop("op")
        began = time.perf_counter()
        try:
            answer = {"ok": True, **(await ops[op](**request))}
        except errors as error:
            answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        say({"id": ident, **answer, "seconds": time.perf_counter() - began})

    say({"ready": True, "pid": os.getpid(), "peer_id": peer_id, "addrs": addrs})
    rest = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as requests, trio.open_nursery() as nursery:
        while chunk := await requests.receive_some(READ_SIZE):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                nursery.start_soon(work, json.loads(line))
        nursery.cancel_scope.cancel()
