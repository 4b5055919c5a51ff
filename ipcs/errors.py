"""The error tree. Words are containerd's errdefs where it has one, so that the gRPC rim maps them in one table.

Every error carries its subject (a CID, digest, ref, peer or path) as a field, and its message says what failed, for
which object, and what to do. Anything that is raised from this package and is not an `IpcsError` is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class IpcsError(Exception):
    """Base of all errors that ipcs raises on purpose.

    `subject` names the object concerned, in the text form a user knows it by; `exit_code` is what a command that fails
    with this error ends with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, subject: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject


class NotFound(IpcsError):  # noqa: N818 - containerd's word
    """The object is not here, and (where peers were asked) no peer sent it."""

    exit_code = 4


class AlreadyExists(IpcsError):  # noqa: N818 - containerd's word
    """The object is there already; containerd treats this as success."""


class Unavailable(IpcsError):  # noqa: N818 - containerd's word
    """A ref is locked by another writer. containerd retries this for ever: raise it for nothing else over gRPC."""

    exit_code = 3


class FailedPrecondition(IpcsError):  # noqa: N818 - containerd's word
    """Size or digest differ from what was declared, or the state of the object forbids the call."""


class InvalidArgument(IpcsError):  # noqa: N818 - containerd's word
    """The caller's input cannot be understood or is refused by policy."""

    exit_code = 2


class OutOfRange(IpcsError):  # noqa: N818 - containerd's word
    """An offset lies beyond the end of the object."""


class ResourceExhausted(IpcsError):  # noqa: N818 - gRPC's word
    """A named limit was reached (disk full, too many waiting reads, queue full)."""

    exit_code = 6


class DeadlineExceeded(IpcsError):  # noqa: N818 - gRPC's word
    """A bounded wait ended before its result came."""

    exit_code = 5


class LimitExceeded(InvalidArgument):
    """Untrusted input asks for more than a budget allows (depth, blocks, bytes, length of a field)."""


class MalformedBlock(InvalidArgument):
    """A block's bytes are not what its codec, or UnixFS, says they must be."""


class HashMismatch(IpcsError):  # noqa: N818 - states the fact
    """Bytes do not hash to the CID or digest they were offered under."""

    exit_code = 7


class StoreCorrupt(IpcsError):  # noqa: N818 - states the fact
    """The local store holds something that it cannot have written, or cannot read back."""

    exit_code = 7


class LocalProtocolError(IpcsError):
    """We were about to break a protocol: a bug on this side."""


class RemoteProtocolError(IpcsError):
    """The peer broke a protocol; its stream or connection ends."""
