"""The gRPC rim of the control service: every method is one stream of frames each way.

A method runs as a task of the node, so that structured concurrency bounds its life; the server thread that serves the
client only carries frames. When the client leaves, the task is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import trio

from .. import errors
from ..block import Data
from ..rpc import Bridge, Handlers, reporting
from . import bitswap, block, dag, files, pins, repo, swarm
from .call import Call, Method
from .frames import SERVICE, Frame, decode, encode
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
        yield lambda bridge: [_generic_handler(parts, bridge, nursery)]
        nursery.cancel_scope.cancel()


def _generic_handler(parts: NodeParts, bridge: Bridge, nursery: trio.Nursery) -> Any:  # noqa: ANN401 - grpc is untyped
    def serve(method: Method, requests: Iterator[Frame], context: grpc.ServicerContext) -> Iterator[Any]:
        with reporting(context):
            params = next(requests, None)
            if not isinstance(params, dict):
                raise errors.InvalidArgument("the first frame of a call is the JSON object of its parameters")
            call = Call(requests)
            bridge.run(context, _start, nursery, call, method, parts, params)
            try:
                yield from _frames(bridge, context, call)
            finally:
                bridge.post(call.cancel)

    def bound(method: Method) -> Any:  # noqa: ANN401 - grpc is untyped
        return lambda requests, context: serve(method, requests, context)

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: grpc.stream_stream_rpc_method_handler(
                bound(method), request_deserializer=decode, response_serializer=encode
            )
            for name, method in METHODS.items()
        },
    )


async def _start(nursery: trio.Nursery, call: Call, method: Method, parts: NodeParts, params: dict[str, Any]) -> None:
    nursery.start_soon(call.run, method, parts, params)


def _frames(bridge: Bridge, context: grpc.ServicerContext, call: Call) -> Iterator[dict[str, Any] | Data]:
    while (frame := bridge.run(context, call.next_frame)) is not None:
        yield frame
