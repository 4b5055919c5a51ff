"""The key file of a node: made once, read at every start, readable by its owner only.

Its content is libp2p's private key protobuf, so that other libp2p tools can read it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from .keys import Identity

_OWNER_ONLY = 0o600
_MAX_KEY_FILE = 4096


def load_or_create(path: Path) -> Identity:
    """The identity in `path`; a new one is made and stored there when the file does not exist.

    Raises `FailedPrecondition` when others than the owner may read the file or when it does not hold a key.
    """
    try:
        return load(path)
    except NotFound:
        pass
    try:
        return create(path)
    except AlreadyExists:
        return load(path)


def load(path: Path) -> Identity:
    """The identity in `path`.

    Raises `NotFound` when there is no such file, `FailedPrecondition` as `load_or_create` does.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"no key file {path}", subject=str(path)) from None
    with open(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise FailedPrecondition(
                f"key file {path} is open to others (mode {mode:04o}); run: chmod 600 {path}", subject=str(path)
            )
        data = file.read(_MAX_KEY_FILE)
    try:
        return Identity.from_protobuf(data)
    except InvalidArgument as exc:
        raise FailedPrecondition(
            f"key file {path} does not hold a key ({exc.message}); restore it, or remove it to get a new peer id",
            subject=str(path),
        ) from exc


def create(path: Path) -> Identity:
    """A new random identity, stored in `path` with mode 0600.

    The file appears whole or not at all, also after a crash. Raises `AlreadyExists` when there is one.
    """
    identity = Identity(secrets.token_bytes(32))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    try:
        with open(descriptor, "wb") as file:
            file.write(identity.to_protobuf())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        raise AlreadyExists(f"key file {path} exists", subject=str(path)) from None
    finally:
        draft.unlink()
    _sync_directory(path.parent)
    return identity


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
