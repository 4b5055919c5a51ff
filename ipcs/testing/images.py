"""Small real images for tests: a busybox that runs, and payload layers of any size, pushed to a registry.

Deterministic for one busybox: the same arguments give the same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BUSYBOX = Path("/usr/bin/busybox")
"""Of Debian's `busybox-static`."""

SHELL = Path("/bin/sh")
"""Taken where busybox is not installed: the image moves the same, but does not run (its libraries are missing)."""

_APPLETS = ("sh", "cat", "echo", "sleep", "sha256sum", "ls")
_MTIME = 1_700_000_000
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Image:
    """Blobs by digest; `layers` in order."""

    manifest: str
    config: str
    layers: Sequence[str]
    blobs: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(map(len, self.blobs.values()))


def build_image(payload: Sequence[int] = (), seed: str = "") -> Image:
    """A busybox image, and one further layer with a file `/payload.<n>` for each size in bytes.

    Payload is incompressible, so a layer is about as large as its file.
    """
    blobs: dict[str, bytes] = {}
    tars = [_busybox_tar()]
    for index, size in enumerate(payload):
        data = hashlib.shake_128(f"{seed}-{index}".encode()).digest(size)
        tars.append(_tar([(f"payload.{index}", data, 0o644)]))
    layers = [_add(blobs, gzip.compress(tar, 1, mtime=0)) for tar in tars]
    config = _add(
        blobs,
        _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [_sha(tar) for tar in tars]},
            }
        ),
    )
    manifest = _add(
        blobs,
        _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor("config.v1+json", config, blobs),
                "layers": [_descriptor("layer.v1.tar+gzip", layer, blobs) for layer in layers],
            }
        ),
    )
    return Image(manifest, config, layers, blobs)


def push_image(image: Image, registry: str, name: str, tag: str = "v1") -> str:
    """Upload to the registry at `registry` (host:port, plain HTTP); returns the reference to pull."""
    connection = http.client.HTTPConnection(registry, timeout=60)
    try:
        for digest, data in image.blobs.items():
            if digest == image.manifest:
                continue
            location = _request(connection, "POST", f"/v2/{name}/blobs/uploads/", b"", 202)
            _request(connection, "PUT", f"{location}{'&' if '?' in location else '?'}digest={digest}", data, 201)
        _request(connection, "PUT", f"/v2/{name}/manifests/{tag}", image.blobs[image.manifest], 201)
    finally:
        connection.close()
    return f"{registry}/{name}:{tag}"


def _request(connection: http.client.HTTPConnection, method: str, url: str, body: bytes, status: int) -> str:
    kind = _MANIFEST if "/manifests/" in url else "application/octet-stream"
    connection.request(method, url, body, {"Content-Type": kind})
    response = connection.getresponse()
    text = response.read()
    if response.status != status:
        raise RuntimeError(f"{method} {url}: {response.status} {text[:200]!r}")
    return response.headers.get("Location", "")


def _busybox_tar() -> bytes:
    program = BUSYBOX if BUSYBOX.exists() else SHELL
    files = [("bin/busybox", program.read_bytes(), 0o755)]
    return _tar(files, links=[(f"bin/{name}", "/bin/busybox") for name in _APPLETS])


def _tar(files: Sequence[tuple[str, bytes, int]], links: Sequence[tuple[str, str]] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data, mode in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), mode, _MTIME
            tar.addfile(entry, io.BytesIO(data))
        for name, target in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, target, _MTIME
            tar.addfile(entry)
    return out.getvalue()


def _descriptor(kind: str, digest: str, blobs: dict[str, bytes]) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(blobs[digest])}


def _add(blobs: dict[str, bytes], data: bytes) -> str:
    digest = _sha(data)
    blobs[digest] = data
    return digest


def _sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
