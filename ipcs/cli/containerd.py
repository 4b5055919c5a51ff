"""`ipcs containerd config | check | import | export`: putting ipcs under a containerd, and taking it away again."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import SOCKET_NAME, default_repo
from ..errors import AlreadyExists, FailedPrecondition, HashMismatch, IpcsError, NotFound
from .options import Subparsers, command
from .terminal import Terminal

if TYPE_CHECKING:
    from ..content.client import RemoteContent

CONTAINERD = Path("/run/containerd/containerd.sock")
CONFIG = Path("/etc/containerd/config.toml")
BUILT_IN = "io.containerd.content.v1.content"
CONTENT_ROOT = Path("/var/lib/containerd/io.containerd.content.v1.content")
NAMESPACE = "ipcs-check"

_PIECE = 1024 * 1024

_SNIPPET = """\
version = {version}
disabled_plugins = ["{built_in}"]

[proxy_plugins.ipcs]
  type = "content"
  address = "{socket}"
"""

_NOTES = """\
# What this changes in {path}:
# - disabled_plugins: containerd's own content store is switched off (with two of them 1.6 picks one at random and 2.x
#   starts without images, content and tasks). {existing}
# - proxy_plugins: its place is taken by the node at {socket}.
# containerd never moves blobs: those of an existing installation must be copied in first, with both running:
#     ipcs containerd import {root}
# then restart containerd and run `ipcs containerd check`. The way back: `ipcs containerd export {root}`.
"""


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the group."""
    group = sub.add_parser("containerd", help="serve a containerd from this node, and stop doing so")
    commands = group.add_subparsers(metavar="COMMAND", required=True)
    parser = command(
        commands,
        "config",
        _config,
        about="print the configuration that makes containerd use this node, for the containerd found here",
        example="ipcs containerd config --socket /run/ipcs/ipcs.sock",
        reads=False,
    )
    parser.add_argument("--containerd-version", metavar="V", help="for this version instead of the one found")
    check = command(
        commands,
        "check",
        _check,
        about="tell whether containerd really keeps its blobs in this node, by writing one through it",
        example="ipcs containerd check --containerd /run/containerd/containerd.sock",
    )
    check.add_argument(
        "--containerd", type=Path, default=CONTAINERD, metavar="ADDRESS", help=f"(default: {CONTAINERD})"
    )
    incoming = command(
        commands,
        "import",
        _import,
        about="copy the blobs of an existing containerd content directory into this node, verifying each",
        example=f"ipcs containerd import {CONTENT_ROOT}",
    )
    incoming.add_argument("directory", type=Path, help="the directory that holds blobs/sha256")
    outgoing = command(
        commands,
        "export",
        _export,
        about="write containerd's blobs back as a content directory, so that its own store can be switched on again",
        example=f"ipcs containerd export {CONTENT_ROOT}",
    )
    outgoing.add_argument("directory", type=Path, help="where blobs/sha256 is made or added to")


def _config(args: argparse.Namespace, terminal: Terminal) -> int:
    version = args.containerd_version or _found_version()
    major = int(version.partition(".")[0])
    existing = "None is there yet."
    if CONFIG.exists():
        found = re.search(r"^disabled_plugins\s*=\s*(\[[^\]]*\])", CONFIG.read_text(errors="replace"), re.M)
        existing = f"Keep what is there now: {found[1]}." if found else "The file there has none yet."
    socket = _socket(args)
    notes = _NOTES.format(path=CONFIG, existing=existing, socket=socket, root=CONTENT_ROOT)
    terminal.line(_SNIPPET.format(version=3 if major >= 2 else 2, built_in=BUILT_IN, socket=socket))
    terminal.line(notes.rstrip())
    return 0


def _found_version() -> str:
    """Version of the containerd on the PATH. Raises `NotFound` without one."""
    binary = shutil.which("containerd")
    if binary is None:
        raise NotFound("no containerd on the PATH; name its version with --containerd-version 1.6 or 2.1")
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = re.search(r"v?(\d+\.\d+\.\d+)", output)
    if found is None:
        raise NotFound(f"{binary} --version says {output.strip()!r}; name the version with --containerd-version")
    return found[1]


def _check(args: argparse.Namespace, terminal: Terminal) -> int:
    """Each step says what to do when it fails; the first failure ends the check."""
    steps: list[tuple[str, Callable[[], str]]] = [
        ("node", lambda: _check_node(args)),
        ("containerd", lambda: _check_containerd(args)),
    ]
    results: dict[str, str] = {}
    for name, step in steps:
        try:
            results[name] = f"ok: {step()}"
        except IpcsError as exc:
            results[name] = f"failed: {exc.message}"
            break
    works = len(results) == len(steps) and all(text.startswith("ok") for text in results.values())
    terminal.show({"works": works, **results}, "\n".join(f"{name}: {text}" for name, text in results.items()))
    return 0 if works else 1


def _check_node(args: argparse.Namespace) -> str:
    with _remote(_socket(args)) as node:
        _round_trip(node, "ipcs-check")
    return f"{_socket(args)} writes, reads and deletes"


def _check_containerd(args: argparse.Namespace) -> str:
    """Write through containerd in a namespace of its own, and look whether the bytes came here."""
    with _remote(args.containerd, NAMESPACE) as through, _remote(_socket(args)) as node:
        digest = _write(through, f"check-{time.time_ns()}")
        try:
            node.info(digest)
        except NotFound as exc:
            raise FailedPrecondition(
                f"containerd at {args.containerd} keeps its blobs elsewhere; put what `ipcs containerd config` prints "
                f"into {CONFIG} and restart it"
            ) from exc
        finally:
            through.delete(digest)
    return f"what is written through {args.containerd} is in this node"


def _round_trip(content: RemoteContent, ref: str) -> None:
    digest = _write(content, f"{ref}-{time.time_ns()}")
    try:
        if not b"".join(content.reader(digest).read(0, 0)).startswith(b"ipcs check "):
            raise HashMismatch(f"{digest} reads back as something else", subject=digest)
    finally:
        content.delete(digest)


def _write(content: RemoteContent, ref: str) -> str:
    data = f"ipcs check {time.time_ns()}".encode()
    with content.writer(ref, len(data)) as writer:
        writer.write(data)
        return writer.commit(len(data)).digest


def _import(args: argparse.Namespace, terminal: Terminal) -> int:
    copied = present = size = 0
    with _remote(_socket(args)) as node:
        for path in _blobs(args.directory):
            digest = f"sha256:{path.name}"
            try:
                _copy_in(node, path, digest)
            except AlreadyExists:
                present += 1
                continue
            copied += 1
            size += path.stat().st_size
    terminal.show(
        {"copied": copied, "bytes": size, "present": present},
        f"copied {copied} blobs ({size} bytes), {present} were here already",
    )
    return 0


def _copy_in(node: RemoteContent, path: Path, digest: str) -> None:
    """Raises `FailedPrecondition` when the file is not what its name says; nothing of it is kept then."""
    ref = f"import-{digest}"
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        with node.writer(ref, total, digest) as writer:
            file.seek(writer.status().offset)
            while piece := file.read(_PIECE):
                writer.write(piece)
            try:
                writer.commit(total, digest)
                return
            except FailedPrecondition as exc:
                failure = FailedPrecondition(f"{path} is corrupt and was not imported: {exc.message}", subject=digest)
    node.abort(ref)
    raise failure


def _blobs(directory: Path) -> Iterator[Path]:
    blobs = directory / "blobs" / "sha256"
    if not blobs.is_dir():
        raise NotFound(f"{directory} holds no blobs/sha256; containerd keeps its blobs in {CONTENT_ROOT}")
    return (path for path in sorted(blobs.iterdir()) if re.fullmatch(r"[0-9a-f]{64}", path.name))


def _export(args: argparse.Namespace, terminal: Terminal) -> int:
    blobs = args.directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    written = present = size = 0
    with _remote(_socket(args)) as node:
        for info in node.walk():
            path = blobs / info.digest.removeprefix("sha256:")
            if path.exists() and path.stat().st_size == info.size:
                present += 1
                continue
            _copy_out(node, info.digest, info.size, path)
            written += 1
            size += info.size
    terminal.show(
        {"written": written, "bytes": size, "present": present},
        f"wrote {written} blobs ({size} bytes), {present} were there already",
    )
    return 0


def _copy_out(node: RemoteContent, digest: str, size: int, path: Path) -> None:
    """The blob as a file that appears whole, verified and durable, read-only as containerd's are."""
    import hashlib

    reader = node.reader(digest)
    digester = hashlib.sha256()
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        for at in range(0, size, _PIECE):
            for piece in reader.read(at, _PIECE):
                digester.update(piece)
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if digester.hexdigest() != path.name:
        part.unlink()
        raise HashMismatch(f"{digest} reads back as sha256:{digester.hexdigest()}; run `ipcs fsck`", subject=digest)
    part.chmod(0o444)
    part.rename(path)


def _socket(args: argparse.Namespace) -> Path:
    path: Path = args.socket or (args.repo or default_repo(os.environ)) / SOCKET_NAME
    return path.absolute()


def _remote(socket: Path, namespace: str = "") -> RemoteContent:
    from ..content.client import RemoteContent  # importing grpc takes longer than many commands

    return RemoteContent(socket, namespace)
