"""What an open ingest leaves on disk, so that after kill -9 it goes on at its exact byte.

Leaves go to the blockstore as they fill; the journal, a directory per ref, remembers their order and the bytes that
do not fill a leaf yet:

    header      JSON: ref, total, expected, started_at. Its absence means that the ingest never began.
    leaves      the 32-byte sha2-256 of each leaf, appended; its mtime is the ingest's updated_at
    tail.<n>    bytes behind the n-th leaf, as frames: length u32, crc32 u32, bytes

A write that fills leaves first makes the new tail, then appends to `leaves` (the switch), then drops the old tail, so
a crash between any two steps leaves the state before or the state after. After power loss any of this may be cut off
or zeroed: what is resumed is the longest prefix whose blocks are there and hash right, with the frames behind it
whose checksums hold. That may be less than was acknowledged, never something else.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from ..block import Data
from ..cid import SHA2_256_PREFIX, Multihash, sha256_multihash

_FRAME = struct.Struct("<II")
_DIGEST = 32


@dataclass(frozen=True, slots=True)
class Saved:
    """A journal as read back. Times in ns since the epoch; `leaves` are left out where only the header was read."""

    ref: str
    total: int
    expected: str
    started_at: int
    updated_at: int
    leaves: Sequence[Multihash]


class Journal:
    """The journal of one ref. Errors of the file system pass through as `OSError`."""

    def __init__(self, root: Path, ref: str) -> None:
        """The journal of `ref` under `root`; nothing is touched yet."""
        self.path = root / sha256(ref.encode()).hexdigest()[:32]
        self._leaves = -1
        self._count = 0

    def begin(self, ref: str, total: int, expected: str, now: int) -> None:
        """Start afresh, dropping what was there."""
        self.drop()
        self.path.mkdir(parents=True)
        self._open()
        os.utime(self._leaves, ns=(now, now))
        header = {"ref": ref, "total": total, "expected": expected, "started_at": now}
        part = self.path / "header.part"
        part.write_text(json.dumps(header))
        part.rename(self.path / "header")

    def append(self, leaves: Sequence[Multihash], tail: Data, now: int) -> None:
        """`leaves` were stored; `tail` are the written bytes that lie behind them and not yet in the journal."""
        old = self._tail(self._count)
        self._count += len(leaves)
        if tail:
            frame = b"".join((_FRAME.pack(len(tail), zlib.crc32(tail)), tail))
            with self._tail(self._count).open("ab", buffering=0) as file:
                file.write(frame)
        if leaves:
            os.write(self._leaves, b"".join(leaf.removeprefix(SHA2_256_PREFIX) for leaf in leaves))
            old.unlink(missing_ok=True)
        os.utime(self._leaves, ns=(now, now))

    def sync(self) -> None:
        """Put what was appended behind a durability barrier. The leaves themselves are the store's to sync."""
        os.fsync(self._leaves)
        for path in (self._tail(self._count), self.path / "header", self.path, self.path.parent):
            if path.exists():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def load(self) -> Saved:
        """Read back what an earlier process left. Raises `ValueError` when the header cannot be read."""
        header = _header(self.path)
        self._open()
        raw = os.pread(self._leaves, os.fstat(self._leaves).st_size, 0)
        whole = len(raw) - len(raw) % _DIGEST
        return replace(header, leaves=[sha256_multihash(raw[at : at + _DIGEST]) for at in range(0, whole, _DIGEST)])

    def resume(self, leaves: int, updated_at: int) -> bytes:
        """Go on behind the first `leaves` leaves: forget what follows them, return the tail found there."""
        self._count = leaves
        os.ftruncate(self._leaves, leaves * _DIGEST)
        keep = self._tail(leaves)
        for path in self.path.glob("tail.*"):
            if path != keep:
                path.unlink()
        tail, sound = _frames(keep.read_bytes() if keep.exists() else b"")
        if keep.exists():
            os.truncate(keep, sound)
        os.utime(self._leaves, ns=(updated_at, updated_at))
        return tail

    def drop(self) -> None:
        """Close and remove it: the ingest was committed or aborted."""
        self.close()
        # Without its header a half-removed journal is no journal.
        (self.path / "header").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)
        self._count = 0

    def close(self) -> None:
        """Give the descriptor back."""
        if self._leaves >= 0:
            os.close(self._leaves)
            self._leaves = -1

    def _open(self) -> None:
        self._leaves = os.open(self.path / "leaves", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _tail(self, leaves: int) -> Path:
        return self.path / f"tail.{leaves}"


def _frames(raw: bytes) -> tuple[bytes, int]:
    """(bytes of the sound frames, length of file they take)."""
    parts: list[bytes] = []
    at = 0
    while at + _FRAME.size <= len(raw):
        length, check = _FRAME.unpack_from(raw, at)
        part = raw[at + _FRAME.size : at + _FRAME.size + length]
        if len(part) != length or not length or zlib.crc32(part) != check:
            break
        parts.append(part)
        at += _FRAME.size + length
    return b"".join(parts), at


def _header(path: Path) -> Saved:
    """Raises `FileNotFoundError` when there is no journal, `ValueError` or `KeyError` for one that cannot be read."""
    header = json.loads((path / "header").read_text())
    return Saved(
        str(header["ref"]),
        int(header["total"]),
        str(header["expected"]),
        int(header["started_at"]),
        (path / "leaves").stat().st_mtime_ns,
        (),
    )


def journals(root: Path) -> list[Saved]:
    """Headers of the journals under `root`; remains without one are removed."""
    found: list[Saved] = []
    for path in sorted(root.iterdir()) if root.exists() else []:
        try:
            found.append(_header(path))
        except (FileNotFoundError, ValueError, KeyError):
            shutil.rmtree(path, ignore_errors=True)
    return found
