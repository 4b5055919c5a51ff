"""A real image for the demo: an OCI image layout of three gzip layers made from the Python of this machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

LAYER_BYTES = 45_000_000
"""A layer is closed once it is this large, compressed: three of them stay between 50 and 150 MB."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"

MIN_BYTES = 50_000_000


class _Hashing:
    """A file that knows the sha256 and length of what was written to it."""

    def __init__(self, below: BinaryIO | gzip.GzipFile) -> None:
        self._below = below
        self.sha256 = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.length += len(data)
        return self._below.write(data)

    def flush(self) -> None:
        self._below.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self.sha256.hexdigest()}"


def build_image(layout: Path) -> Path:
    """The OCI image layout at `layout`, built once: standard library, then site-packages in two layers."""
    if (layout / "index.json").exists():
        return layout
    print("building an image of this machine's Python (once)")
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    packages = Path(sysconfig.get_paths()["purelib"])
    rest = _files(packages)
    layers, diff_ids = [], []
    for files in (_files(stdlib, skip=packages), rest, rest):
        descriptor, diff_id = _layer(blobs, files)
        layers.append(descriptor)
        diff_ids.append(diff_id)
    if sum(layer["size"] for layer in layers) < MIN_BYTES:
        raise SystemExit("demo: this Python is too small for a telling image; name one with IMAGE=path")
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": ["python3"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _document(blobs, config, "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    index = {"schemaVersion": 2, "manifests": [_document(blobs, manifest, MANIFEST)]}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    draft = layout / "index.json.part"
    draft.write_text(json.dumps(index))
    draft.rename(layout / "index.json")
    return layout


def _files(directory: Path, skip: Path | None = None) -> Iterator[Path]:
    for folder, names, files in os.walk(directory):
        names[:] = sorted(name for name in names if name != "__pycache__" and Path(folder, name) != skip)
        yield from (Path(folder, name) for name in sorted(files))


def _layer(blobs: Path, files: Iterator[Path]) -> tuple[dict[str, Any], str]:
    """One gzip layer of `files`, until it is large enough; its descriptor and diff id."""
    draft = blobs / "layer.part"
    with draft.open("wb") as file:
        packed = _Hashing(file)
        with gzip.GzipFile(fileobj=cast("BinaryIO", packed), mode="wb", compresslevel=1, mtime=0) as zipped:
            plain = _Hashing(zipped)
            with tarfile.open(fileobj=cast("BinaryIO", plain), mode="w|") as tar:
                for path in files:
                    tar.add(path, arcname=str(path).lstrip("/"), recursive=False)
                    if packed.length >= LAYER_BYTES:
                        break
    draft.rename(blobs / packed.sha256.hexdigest())
    descriptor = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": packed.digest,
        "size": packed.length,
    }
    return descriptor, plain.digest


def _document(blobs: Path, document: dict[str, Any], media_type: str) -> dict[str, Any]:
    data = json.dumps(document).encode()
    name = hashlib.sha256(data).hexdigest()
    (blobs / name).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}
