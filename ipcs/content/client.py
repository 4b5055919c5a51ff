"""A content store on the other side of a unix socket: ours, or containerd's own, with `ContentStore`'s interface.

For the shipped conformance suite, `ipcs containerd check`, and what must be asked of containerd itself.
Every call raises the same errors as `ContentStore`; `FailedPrecondition` when nobody listens on the socket.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from .. import errors
from ..block import Data
from ..rpc.framing import MAX_MESSAGE
from ..rpc.status import ERRORS
from . import wire
from .descriptor import Info, Status
from .wire import ReadRequest, WriteAction, WriteRequest

TIMEOUT = 30.0
"""Seconds for one call that moves no bulk."""


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """gRPC's errors as ours."""
    try:
        yield
    except grpc.RpcError as exc:
        code, details = exc.code(), exc.details() or ""
        # UNAVAILABLE is a locked ref when a server said so, and no server at all otherwise.
        if code is grpc.StatusCode.UNAVAILABLE and "locked" not in details:
            raise errors.FailedPrecondition(f"no answer: {details}", subject=subject) from exc
        raise ERRORS.get(code.value[0], errors.RemoteProtocolError)(details or code.name, subject=subject) from exc


class RemoteContent:
    """A client of `containerd.services.content.v1.Content`. A context manager; thread-safe.

    `namespace` is containerd's, sent as the header `containerd-namespace`; our own socket needs none.
    """

    def __init__(self, socket: Path, namespace: str = "", service: str = wire.SERVICE) -> None:
        self._channel: Any = grpc.insecure_channel(
            f"unix:{socket}",
            options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)],
        )
        self._metadata = (("containerd-namespace", namespace),) if namespace else ()
        self._service = service

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._channel.close()

    def call(self, method: str, request: bytes, subject: str = "") -> bytes:
        """One unary call, bytes in and bytes out."""
        with translated(subject):
            answer: bytes = self._channel.unary_unary(f"/{self._service}/{method}")(
                request, timeout=TIMEOUT, metadata=self._metadata
            )
        return answer

    def stream(self, method: str, request: bytes, subject: str = "") -> Iterator[bytes]:
        """The answers to one request."""
        with translated(subject):
            yield from self._channel.unary_stream(f"/{self._service}/{method}")(request, metadata=self._metadata)

    def info(self, digest: str) -> Info:
        return wire.decode_infos(self.call("Info", wire.encode_digest_request(digest), digest))[0]

    def update(self, info: Info, *paths: str) -> Info:
        return wire.decode_infos(self.call("Update", wire.encode_update_request(info, paths), info.digest))[0]

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        for answer in self.stream("List", wire.encode_filters(filters)):
            yield from wire.decode_infos(answer)

    def delete(self, digest: str) -> None:
        self.call("Delete", wire.encode_digest_request(digest), digest)

    def reader(self, digest: str) -> RemoteReader:
        return RemoteReader(self, self.info(digest))

    def status(self, ref: str) -> Status:
        return wire.decode_statuses(self.call("Status", wire.encode_digest_request(ref), ref))[0]

    def list_statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        return wire.decode_statuses(self.call("ListStatuses", wire.encode_filters(filters)))

    def abort(self, ref: str) -> None:
        self.call("Abort", wire.encode_digest_request(ref), ref)

    def writer(self, ref: str, total: int = 0, expected: str = "") -> RemoteWriter:
        """Opens a Write stream. Raises `Unavailable` while another holds the ref."""
        stream = self._channel.stream_stream(f"/{self._service}/Write")
        return RemoteWriter(lambda requests: stream(requests, metadata=self._metadata), ref, total, expected)


class RemoteReader:
    """A blob that is read by Read calls."""

    def __init__(self, content: RemoteContent, info: Info) -> None:
        self._content = content
        self._digest = info.digest
        self.size = info.size

    def read(self, offset: int, size: int) -> list[Data]:
        """At most `size` bytes (0: all) from `offset` on."""
        request = wire.encode_read_request(ReadRequest(self._digest, offset, size))
        return [wire.decode_read(answer) for answer in self._content.stream("Read", request, self._digest)]


class RemoteWriter:
    """A Write stream: one request, one answer, as containerd's own client does. A context manager."""

    def __init__(self, start: Callable[[Iterator[bytes]], Any], ref: str, total: int, expected: str) -> None:
        self.ref = ref
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers = start(iter(self._requests.get, None))
        self._offset = 0
        self._last = Status(ref)
        try:
            self._ask(WriteRequest(WriteAction.STAT, ref, total, expected))
        except BaseException:  # whatever ended it, nobody has the writer yet to close it
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self) -> Status:
        return self._ask(WriteRequest(WriteAction.STAT))

    def seek(self, offset: int) -> None:
        """Where the next write claims to be; the server judges it then."""
        self._offset = offset

    def truncate(self, size: int = 0) -> None:
        self.seek(size)

    def write(self, data: Data) -> int:
        return self._ask(WriteRequest(WriteAction.WRITE, offset=self._offset, data=data)).offset

    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> Status:
        """The status after the commit, with the digest."""
        request = WriteRequest(WriteAction.COMMIT, "", size, expected, self._offset, labels=labels or {})
        try:
            return self._ask(request)
        finally:
            self.close()

    def cancel(self) -> None:
        """Vanish, as a client that crashes does."""
        self._answers.cancel()
        self.close()

    def close(self) -> None:
        """End the stream; the ingest stays. Idempotent."""
        self._requests.put(None)

    def _ask(self, request: WriteRequest) -> Status:
        self._requests.put(wire.encode_write_request(request))
        with translated(self.ref):
            answer = next(self._answers, None)
        if answer is None:
            raise errors.RemoteProtocolError(f"the write stream of ref {self.ref} ended", subject=self.ref)
        _action, status = wire.decode_write(answer)
        self._offset = status.offset
        return status
