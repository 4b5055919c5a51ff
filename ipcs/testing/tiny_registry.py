"""A registry in a few threads of the test's own process: counted, throttled, and broken on demand."""

from __future__ import annotations

import base64
import enum
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from .content_steps import sha256_digest
from .images import Image

_PIECE = 64 * 1024

CREDENTIALS = "user:pass"
"""What opens a registry with a `Guard`."""

_TOKEN = "opens-everything"
_NAMELESS_TOKEN = "opens-nothing"


class Guard(enum.Enum):
    """What a registry asks for before it gives anything; `CREDENTIALS` open each."""

    ANYBODY = "anybody"
    """A token that its token server gives to anybody: public repositories of Docker Hub."""
    BASIC = "basic"
    """A challenge for a password."""
    TOKEN = "token"
    """A token server that asks for a password."""
    NAMELESS_TOKEN = "nameless token"
    """A token server that gives a token to anybody, which opens nothing without a password: as for private ones."""


PRIVATE = (Guard.BASIC, Guard.TOKEN, Guard.NAMELESS_TOKEN)
"""Guards that let no stranger in."""


@dataclass(frozen=True)
class Served:
    """A request that was answered. `first` is the first byte of its range, `sent` the bytes of body that went out."""

    method: str
    path: str
    status: int
    first: int
    sent: int
    authorized: bool = False
    """Whether the request carried credentials of any kind."""


class TinyRegistry:
    """Serves images read-only. A context manager; `address` is host:port, plain HTTP on loopback.

    `rate` is the uplink in bytes a second for all clients together, 0 for none. While `blobs_fail` is set, blobs (not
    manifests) answer 503; while `guard` is set, everything is behind it; while `storage` is, blobs are redirected to
    that host:port; while `ranges` is not, they are sent from their first byte whatever was asked for.
    """

    def __init__(self, images: Mapping[str, Image], rate: float = 0) -> None:
        self.images = dict(images)
        self.rate = rate
        self.blobs_fail = False
        self.guard: Guard | None = None
        self.storage = ""
        self.ranges = True
        self.served: list[Served] = []
        self._lock = threading.Lock()
        self._free_at = 0.0
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.answer(self)

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def do_POST(self) -> None:
                """Token servers that know no OAuth say so: containerd asks by GET then."""
                self.send_error(404)

            def log_message(self, *_args: object) -> None:
                """Quiet: `served` has it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def blob_bytes(self) -> int:
        """Bytes of blobs that went out so far; manifests are apart."""
        return sum(served.sent for served in list(self.served) if "/blobs/" in served.path)

    def blob_requests(self) -> list[Served]:
        """Requests for blobs so far."""
        return [served for served in list(self.served) if "/blobs/" in served.path]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request, in its own thread."""
        status, kind, data = self._find(request)
        challenge = self._challenge(request)
        first = 0
        if challenge:
            status, kind, data = 401, "application/json", b"{}"
        elif self.storage and "/blobs/" in request.path:
            status, data = 307, b""
        elif "Range" in request.headers and status == 200 and self.ranges:
            first = int(request.headers["Range"].removeprefix("bytes=").split("-")[0])
            status = 206
        request.send_response(status)
        if challenge:
            request.send_header("WWW-Authenticate", challenge)
        if status == 307:
            request.send_header("Location", f"http://{self.storage}{request.path}")
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data) - first))
        if status == 206:
            request.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if "/manifests/" in request.path and status == 200:
            request.send_header("Docker-Content-Digest", sha256_digest(data))
        request.end_headers()
        sent = self._send(request, data[first:])
        known = "Authorization" in request.headers
        self.served.append(Served(request.command, request.path, status, first, sent, known))

    def _send(self, request: BaseHTTPRequestHandler, body: bytes) -> int:
        """How many bytes went out before the client left."""
        sent = 0
        try:
            if request.command == "GET":
                for at in range(0, len(body), _PIECE):
                    self._throttle(min(_PIECE, len(body) - at))
                    request.wfile.write(body[at : at + _PIECE])
                    sent = min(at + _PIECE, len(body))
        except OSError:
            request.close_connection = True
        return sent

    def _challenge(self, request: BaseHTTPRequestHandler) -> str:
        """What a request without the right credentials is asked for; nothing when it has them."""
        given = request.headers.get("Authorization", "")
        if self.guard is None or (_is_token(request) and self.guard in (Guard.ANYBODY, Guard.NAMELESS_TOKEN)):
            return ""
        if self.guard is Guard.BASIC or _is_token(request):
            return "" if given == _basic() else 'Basic realm="registry"'
        realm = f"http://{self.address}/token"
        return (
            "" if given == f"Bearer {_TOKEN}" else f'Bearer realm="{realm}",service="tiny",scope="repository:img:pull"'
        )

    def _find(self, request: BaseHTTPRequestHandler) -> tuple[int, str, bytes]:
        path = request.path
        if _is_token(request):
            opens = self.guard is Guard.ANYBODY or request.headers.get("Authorization") == _basic()
            token = _TOKEN if opens else _NAMELESS_TOKEN
            return 200, "application/json", json.dumps({"token": token}).encode()
        if path.rstrip("/") == "/v2":
            return 200, "application/json", b"{}"
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        image = self.images.get(found[1]) if found else None
        if found is None or image is None:
            return 404, "application/json", b"{}"
        if found[2] == "blobs" and self.blobs_fail:
            return 503, "application/json", b"{}"
        digest = found[3] if found[3].startswith("sha256:") else image.manifest  # any tag
        data = image.blobs.get(digest)
        kind = "application/vnd.oci.image.manifest.v1+json" if found[2] == "manifests" else "application/octet-stream"
        return (404, "application/json", b"{}") if data is None else (200, kind, data)

    def _throttle(self, size: int) -> None:
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self.rate
            wait = self._free_at - now
        time.sleep(wait)


def _is_token(request: BaseHTTPRequestHandler) -> bool:
    return request.path.partition("?")[0] == "/token"


def _basic() -> str:
    return f"Basic {base64.b64encode(CREDENTIALS.encode()).decode()}"
