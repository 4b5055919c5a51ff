"""What a connection tells: events of `ipcs.rpc.http2`. Streams are numbered as in HTTP/2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A call begins."""

    stream: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a call; `last` when the client sends no more."""

    stream: int
    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The client sends no more messages; said once, unless `Message.last` said it."""

    stream: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The client gave the call up, or we did because of what it sent."""

    stream: int


@dataclass(frozen=True, slots=True)
class Drained:
    """Something that waited for a window went out."""


Event = Request | Message | Ended | Reset | Drained
