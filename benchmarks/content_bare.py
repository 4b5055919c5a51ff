"""A gRPC server that answers each Read from memory: grpcio's ceiling, for `benchmarks.content`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from ipcs.content import wire


def main(socket: str) -> None:
    """Serve on `socket` until killed."""
    blob = bytes(64 << 20)

    def read(request: bytes, _context: object) -> Any:  # noqa: ANN401 - grpc has no types
        wanted = wire.decode_read_request(request)
        yield wire.encode_read(wanted.offset, [memoryview(blob)[wanted.offset : wanted.offset + wanted.size]])

    server = grpc.server(ThreadPoolExecutor(128), options=[("grpc.max_send_message_length", -1)])
    handlers: dict[str, Any] = {"Read": grpc.unary_stream_rpc_method_handler(read)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
