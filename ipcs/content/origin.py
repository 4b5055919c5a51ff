"""The way back: a blob from the registry that it came from, when no peer brings it.

Anonymous pulls only, with the token dance that public registries ask for. Blocking: runs in a worker thread.

Sources: opencontainers/distribution-spec (pull), distribution/distribution docs/spec/auth/token.md; label
`containerd.io/distribution.source.<host>` from containerd core/remotes/docker/handler.go.
"""

from __future__ import annotations

import enum
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO

from ..errors import InvalidArgument, NotFound, RemoteProtocolError

LABEL = "containerd.io/distribution.source."
"""Prefix of the label in which containerd keeps the repositories of a blob, by registry host."""

TIMEOUT = 30.0
"""Seconds of silence after which a registry counts as gone."""

READ_SIZE = 1024 * 1024

MAX_TOKEN = 64 * 1024
"""Bytes of a token server's answer that are read."""

TRY_TIMEOUT = 5.0
"""Seconds of silence after which a registry that is only asked whether it lets us in counts as silent."""

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "*/*",
)
"""Accepted: registries say NOT_FOUND of a manifest whose type is not named."""

DOCKER_HUB = "docker.io"


class Access(enum.Enum):
    """What a registry makes of an anonymous pull."""

    OPEN = "open"
    """It lets us in, and has what was asked for."""
    REFUSED = "refused"
    """It answered, and does not."""
    SILENT = "silent"
    """No answer, or one about itself (5xx, too many requests)."""


@dataclass(frozen=True, slots=True)
class Source:
    """A repository on a registry, in the words of containerd's label."""

    host: str
    repository: str


def sources_of(labels: Mapping[str, str]) -> list[Source]:
    """The repositories that a blob's labels name."""
    return [
        Source(key.removeprefix(LABEL), repository)
        for key, value in labels.items()
        if key.startswith(LABEL)
        for repository in value.split(",")
        if repository
    ]


def parse_origin(text: str) -> tuple[str, str]:
    """`HOST=URL` of `--origin`. Raises `InvalidArgument`."""
    host, _, url = text.partition("=")
    if not host or urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InvalidArgument(
            f"--origin {text!r} is not HOST=URL, as in docker.io=https://mirror.example", subject=text
        )
    return host, url.rstrip("/")


def base_url(host: str, origins: Mapping[str, str]) -> str:
    """Where the registry `host` answers: what `--origin` says, plain HTTP on loopback as for containerd, else HTTPS."""
    if host in origins:
        return origins[host]
    if host == DOCKER_HUB:
        return "https://registry-1.docker.io"
    name = host.rpartition(":")[0] or host
    return f"{'http' if name in ('localhost', '127.0.0.1', '[::1]') else 'https'}://{host}"


class _NoAuthOnRedirect(urllib.request.HTTPRedirectHandler):
    """Registries redirect to storage that must not see the token (distribution-spec, redirects)."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            following.remove_header("Authorization")
        return following


_opener = urllib.request.build_opener(_NoAuthOnRedirect)


def read_blob(
    source: Source, digest: str, offset: int, origins: Mapping[str, str], stopped: Callable[[], bool]
) -> Iterator[bytes]:
    """The bytes of `digest` from `offset` on, as they come. Ends early once `stopped` says so.

    Raises `NotFound` when the registry does not have it, `RemoteProtocolError` for anything else it does wrong.
    Nothing is verified here.
    """
    url = f"{base_url(source.host, origins)}/v2/{source.repository}/blobs/{digest}"
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    with _named(url), closing(_open(url, source, headers)) as response:
        skip = offset if response.status == http.client.OK else 0  # a server may ignore the range
        while not stopped() and (data := response.read(READ_SIZE)):
            if skip >= len(data):
                skip -= len(data)
                continue
            yield data[skip:]
            skip = 0


def try_manifest(source: Source, digest: str, origins: Mapping[str, str]) -> tuple[Access, str]:
    """Whether the repository gives us the manifest `digest`, and so the blobs of it: by HEAD. The text says why not."""
    url = f"{base_url(source.host, origins)}/v2/{source.repository}/manifests/{digest}"
    try:
        with closing(_open(url, source, {"Accept": ", ".join(MANIFEST_TYPES)}, "HEAD", TRY_TIMEOUT)):
            return Access.OPEN, ""
    except urllib.error.HTTPError as exc:
        exc.close()
        is_refusal = exc.code < http.client.INTERNAL_SERVER_ERROR and exc.code != http.client.TOO_MANY_REQUESTS
        return Access.REFUSED if is_refusal else Access.SILENT, f"HTTP {exc.code}"
    except RemoteProtocolError as exc:
        return Access.REFUSED, exc.message
    except (OSError, http.client.HTTPException, ValueError) as exc:
        return Access.SILENT, str(exc)


def _open(
    url: str, source: Source, headers: Mapping[str, str], method: str = "GET", timeout: float = TIMEOUT
) -> http.client.HTTPResponse:
    try:
        return _request(url, headers, method, timeout)
    except urllib.error.HTTPError as exc:
        if exc.code != http.client.UNAUTHORIZED:
            raise
        exc.close()
        token = _token(exc.headers.get("WWW-Authenticate", ""), source, timeout)
        return _request(url, {**headers, "Authorization": f"Bearer {token}"}, method, timeout)


def _request(url: str, headers: Mapping[str, str], method: str, timeout: float) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    response: http.client.HTTPResponse = _opener.open(request, timeout=timeout)
    return response


def _token(challenge: str, source: Source, timeout: float) -> str:
    """An anonymous pull token, as the challenge of the registry says."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer") or "realm" not in fields:
        raise RemoteProtocolError(f"{source.host} wants credentials that ipcs does not have ({challenge[:60]!r})")
    query = {"scope": fields.get("scope", f"repository:{source.repository}:pull")}
    if "service" in fields:
        query["service"] = fields["service"]
    with closing(_request(f"{fields['realm']}?{urllib.parse.urlencode(query)}", {}, "GET", timeout)) as response:
        answer = json.loads(response.read(MAX_TOKEN))
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str):
        raise RemoteProtocolError(f"{fields['realm']} gives no token")
    return token


@contextmanager
def _named(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as exc:
        exc.close()  # the error is the response, with a socket in it
        kind = NotFound if exc.code == http.client.NOT_FOUND else RemoteProtocolError
        raise kind(f"{url}: HTTP {exc.code}", subject=url) from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise RemoteProtocolError(f"{url}: {exc}", subject=url) from exc
