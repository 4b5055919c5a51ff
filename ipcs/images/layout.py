"""Images as files: an OCI image layout in a directory or tar, or a tar written by `docker save`.

Sources: opencontainers/image-spec image-layout.md, descriptor.md; moby image/tarexport (`docker save`: manifest.json).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cid import digest_to_cid
from ..errors import HashMismatch, InvalidArgument

MAX_MANIFEST = 4 * 1024 * 1024
"""Bytes of an index, manifest or config that are read at all; registries accept no more (distribution-spec)."""

MAX_DEPTH = 4
"""An index may hold indexes; deeper nesting than this is nobody's image."""

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_READ = 1024 * 1024


@dataclass(frozen=True)
class BlobFile:
    """A blob of an image in a file."""

    digest: str
    """`sha256:<hex>` of the file's bytes."""
    size: int
    """Bytes."""
    path: Path


def read_image(path: Path, workdir: Path) -> list[BlobFile]:
    """The blobs of the image at `path`, manifests first, each once; tars are unpacked below `workdir`.

    Of an OCI layout the manifests are blobs too; an old `docker save` tar has config and layers only, and no manifest
    that a registry would know. Raises `InvalidArgument` when it is no image, `HashMismatch` when a blob does not have
    its digest.
    """
    directory = path
    if not path.is_dir():
        directory = workdir / "unpacked"
        _unpack(path, directory)
    if (directory / "index.json").exists():
        found: dict[str, BlobFile] = {}
        index = _json(directory / "index.json")
        for descriptor in _list(index, "manifests", directory / "index.json"):
            _collect(directory, descriptor, found, depth=0)
        return list(found.values())
    if (directory / "manifest.json").exists():
        return _docker_save(directory)
    raise InvalidArgument(f"{path} is no image: it has neither index.json nor manifest.json", subject=str(path))


def _unpack(path: Path, directory: Path) -> None:
    """The files of a tar, none of them outside `directory`. (tarfile's own filters are missing in Python 3.11.2.)"""
    directory.mkdir(parents=True)
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isdir():
                    continue
                target = _inside(directory, member.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                if member.isfile() and (source := tar.extractfile(member)) is not None:
                    with target.open("wb") as file:
                        shutil.copyfileobj(source, file, _READ)
                elif member.issym():  # how `docker save` stores a layer that it has already written
                    os.link(_inside(directory, f"{member.name}/../{member.linkname}"), target)
                else:
                    raise InvalidArgument(f"{path} holds {member.name}, which is no regular file", subject=str(path))
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise InvalidArgument(f"{path} is neither a directory nor a readable tar: {exc}", subject=str(path)) from exc


def _inside(directory: Path, name: str) -> Path:
    """`name` below `directory`, taken as text: nothing that was unpacked before can lead outside."""
    path = os.path.normpath(directory / name)
    if not path.startswith(f"{directory}/"):
        raise InvalidArgument(f"the tar holds {name!r}, which would lie outside of it", subject=name)
    return Path(path)


def _collect(directory: Path, descriptor: Any, found: dict[str, BlobFile], depth: int) -> None:  # noqa: ANN401 - JSON
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or depth > MAX_DEPTH:
        raise InvalidArgument(f"{directory} holds a descriptor without digest, or nested too deeply: {descriptor!r}")
    digest_to_cid(digest)
    if digest in found:
        return
    path = directory / "blobs" / "sha256" / digest.removeprefix("sha256:")
    if not path.exists():
        if depth == 0:
            raise InvalidArgument(f"{directory} lacks the blob {digest}", subject=digest)
        return  # other platforms of an index, and foreign layers, may be absent
    found[digest] = _checked(path, digest)
    media_type = str(descriptor.get("mediaType", ""))
    if media_type in _INDEXES:
        for child in _list(_json(path), "manifests", path):
            _collect(directory, child, found, depth + 1)
    elif media_type.endswith(("manifest.v1+json", "manifest.v2+json")):
        manifest = _json(path)
        for child in [manifest.get("config"), *_list(manifest, "layers", path)]:
            _collect(directory, child, found, depth + 1)


def _docker_save(directory: Path) -> list[BlobFile]:
    document = json.loads(_bounded(directory / "manifest.json"))
    found: dict[str, BlobFile] = {}
    for image in document if isinstance(document, list) else []:
        for name in [image.get("Config"), *image.get("Layers", [])]:
            path = directory / str(name)
            if not path.resolve().is_relative_to(directory.resolve()) or not path.is_file():
                raise InvalidArgument(f"{directory / 'manifest.json'} names {name!r}, which is not in it")
            blob = _checked(path, None)
            found[blob.digest] = blob
    if not found:
        raise InvalidArgument(f"{directory / 'manifest.json'} names no image", subject=str(directory))
    return list(found.values())


def _checked(path: Path, digest: str | None) -> BlobFile:
    with path.open("rb") as file:
        actual = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    if digest not in (None, actual):
        raise HashMismatch(f"{path} should have the digest {digest} and has {actual}", subject=str(digest))
    return BlobFile(actual, size, path)


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > MAX_MANIFEST:
        raise InvalidArgument(
            f"{path} is larger than {MAX_MANIFEST} bytes, too large for a manifest", subject=str(path)
        )
    return path.read_bytes()


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_bounded(path))
    except ValueError as exc:
        raise InvalidArgument(f"{path} holds malformed JSON: {exc}", subject=str(path)) from exc
    if not isinstance(document, dict):
        raise InvalidArgument(f"{path} holds JSON that is not an object", subject=str(path))
    return document


def _list(document: dict[str, Any], key: str, path: Path) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise InvalidArgument(f"{path} has no list {key!r}", subject=str(path))
    return value
