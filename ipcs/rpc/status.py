"""How a call ends: gRPC's codes, and the one mapping of our errors to them.

Source: grpc/doc/statuscodes.md; containerd's errgrpc/grpc.go reads them back.
"""

from __future__ import annotations

from enum import IntEnum

from .. import errors


class Code(IntEnum):
    """gRPC's status codes, those that this server sends."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


STATUS: dict[type[errors.IpcsError], Code] = {
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.FailedPrecondition: Code.FAILED_PRECONDITION,
    errors.InvalidArgument: Code.INVALID_ARGUMENT,
    errors.OutOfRange: Code.OUT_OF_RANGE,
    errors.ResourceExhausted: Code.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    errors.HashMismatch: Code.DATA_LOSS,
    errors.StoreCorrupt: Code.DATA_LOSS,
    errors.LocalProtocolError: Code.INTERNAL,
    errors.RemoteProtocolError: Code.ABORTED,
}
"""An error has the code of its nearest class here."""

ERRORS: dict[int, type[errors.IpcsError]] = {int(code): error for error, code in reversed(STATUS.items())}
"""What a code means to a client: of several classes that have it, the first."""


def status_of(error: errors.IpcsError) -> Code:
    """The code for `error`: that of its nearest class in `STATUS`."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), Code.UNKNOWN)
