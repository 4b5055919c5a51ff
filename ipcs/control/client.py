"""The synchronous client of the control service, for the command line and for scripts.

with ControlClient("/run/ipcs/ipcs.sock") as node:
    print(node.call("id"))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from .. import errors
from ..block import Data
from ..rpc.status import ERRORS, Code
from .frames import SERVICE, Frame, decode, encode

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes: containerd's limit on the same socket."""

DEADLINE_MARGIN = 2.0
"""Seconds after which a node that does not even report its own timeout is given up."""

_ERRORS = {**ERRORS, Code.DATA_LOSS: errors.StoreCorrupt}
"""Commands read what is in the store; a peer's wrong bytes never come this far."""


def _is_closed_to_us(path: str) -> bool:
    """Whether there is, or may be, a socket that this user must not connect to: the right to write is asked for."""
    try:
        os.stat(path)
    except PermissionError:  # its directory is closed already
        return True
    except OSError:
        return False
    return not os.access(path, os.W_OK)


class ControlClient:
    """A connection to the node that listens on the unix socket `path`."""

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        limits = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
        self._channel = grpc.insecure_channel(f"unix:{self._path}", options=limits)

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Call `method` and return its result; `timeout` in seconds. Raises the `IpcsError` the node raised."""
        result: dict[str, Any] = {}
        for frame in self.stream(method, params, timeout=timeout):
            if isinstance(frame, dict) and "progress" in frame and progress is not None:
                progress(frame["progress"])
            elif isinstance(frame, dict) and "result" in frame:
                result = frame["result"]
        return result

    def stream(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        uploads: Iterable[dict[str, Any] | Data] = (),
        *,
        timeout: float | None = None,
    ) -> Iterator[Frame]:
        """Call `method`, sending `uploads` after the parameters, and yield the node's frames as they come.

        Leaving the iterator early cancels the call in the node. Raises the `IpcsError` that the node raised,
        `Unavailable` when no node answers on the socket or it is closed to us, and what `uploads` raises.
        """
        rpc = self._channel.stream_stream(
            f"/{SERVICE}/{method}", request_serializer=encode, response_deserializer=decode
        )
        params = dict(params or {})
        if timeout is not None:
            params["timeout"] = timeout  # the node can say what it was waiting for; gRPC's deadline could not
        requests = _Requests(params, uploads)
        responses = rpc(iter(requests), timeout=None if timeout is None else timeout + DEADLINE_MARGIN)
        try:
            yield from responses
        except grpc.RpcError as exc:
            if requests.failure is not None:
                raise requests.failure from None
            raise self._translate(method, exc) from exc
        finally:
            responses.cancel()

    def _translate(self, method: str, exc: grpc.RpcError) -> errors.IpcsError:
        code, details = exc.code(), exc.details() or "no details"
        if code == grpc.StatusCode.UNAVAILABLE and _is_closed_to_us(self._path):
            return errors.Unavailable(
                f"permission denied on {self._path}; run as its owner, or as a member of its group", subject=self._path
            )
        if code == grpc.StatusCode.UNAVAILABLE:
            return errors.Unavailable(
                f"no node answers on {self._path}; start one with `python -m ipcs.node`, or name another with --repo",
                subject=self._path,
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return errors.FailedPrecondition(
                f"the node on {self._path} does not know {method!r}: it runs another version of ipcs", subject=method
            )
        kind: type[errors.IpcsError] = _ERRORS.get(code.value[0], errors.IpcsError)
        return kind(details, subject=method)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._channel.close()


class _Requests:
    """The frames of one call. gRPC's thread consumes them and drops what they raise, so that is kept here."""

    def __init__(self, params: dict[str, Any], uploads: Iterable[dict[str, Any] | Data]) -> None:
        self._params = params
        self._uploads = uploads
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[dict[str, Any] | Data]:
        yield self._params
        try:
            yield from self._uploads
        except BaseException as exc:
            self.failure = exc
            raise
