"""What a host offers to its connections: who serves which protocol, and the boundary around code that is not the
network's own."""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import dataclass, field
from types import TracebackType

from .interface import Handler, Inbound

log = logging.getLogger(__name__)


@dataclass
class Services:
    """What the streams that peers open are for, by protocol id. Shared by all connections of a host."""

    pushed: dict[str, Inbound] = field(default_factory=dict)
    handlers: dict[str, Handler] = field(default_factory=dict)
    others: Container[str] = ()
    """Protocols that py-libp2p serves itself."""
    failures: int = 0
    """Exceptions in consumers and handlers. Each ended one stream, or one connection; none ended the host."""

    def __contains__(self, protocol: object) -> bool:
        return protocol in self.pushed or protocol in self.handlers or protocol in self.others

    def contain(self, what: str) -> Containment:
        """`with services.contain("a sink of ...") as run:` keeps an exception of foreign code in."""
        return Containment(self, what)


class Containment:
    """Stops, counts and logs any `Exception`; `raised` tells. Cancellation passes."""

    def __init__(self, services: Services, what: str) -> None:
        self._services = services
        self._what = what
        self.raised = False

    def __enter__(self) -> Containment:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, exc: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if not isinstance(exc, Exception):
            return False
        self.raised = True
        self._services.failures += 1
        log.warning("%s failed", self._what, exc_info=exc)
        return True
