"""The gRPC rim of the control service: every method is one stream of frames each way.

A method runs as a task of the node, so that structured concurrency bounds its life; the server thread that serves the
client only carries frames. When the client leaves, the task is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from .. import errors
from ..rpc import call as rpc
from ..rpc.bridge import Bridge
from ..rpc.server import Handlers
from . import bitswap, block, dag, files, pins, repo, swarm
from .call import Call, Method
from .frames import SERVICE, decode, encode
from .parts import NodeParts

METHODS: Mapping[str, Method] = {
    **swarm.METHODS,
    **bitswap.METHODS,
    **files.METHODS,
    **dag.METHODS,
    **block.METHODS,
    **pins.METHODS,
    **repo.METHODS,
}
"""Every control method by name; the command line uses nothing else."""


@asynccontextmanager
async def control_service(parts: NodeParts) -> AsyncIterator[Handlers]:
    """The handlers to give to `rpc.serve`. Calls that are still running when the block ends are cancelled."""
    async with trio.open_nursery() as nursery:
        yield lambda bridge: {
            f"/{SERVICE}/{name}": _served(method, parts, bridge, nursery) for name, method in METHODS.items()
        }
        nursery.cancel_scope.cancel()


def _served(method: Method, parts: NodeParts, bridge: Bridge, nursery: trio.Nursery) -> rpc.Method:
    def serve(requests: Iterator[bytes], client: rpc.Call) -> Generator[bytes, None, None]:
        frames = map(decode, requests)
        params = next(frames, None)
        if not isinstance(params, dict):
            raise errors.InvalidArgument("the first frame of a call is the JSON object of its parameters")
        call = Call(frames)
        bridge.run(client, _start, nursery, call, method, parts, params)
        try:
            while (frame := bridge.run(client, call.next_frame)) is not None:
                yield encode(frame)
        finally:
            bridge.post(call.cancel)

    return rpc.duplex(serve)


async def _start(nursery: trio.Nursery, call: Call, method: Method, parts: NodeParts, params: dict[str, Any]) -> None:
    nursery.start_soon(call.run, method, parts, params)
