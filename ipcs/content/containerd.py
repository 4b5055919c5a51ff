"""What ipcs asks of containerd itself, over containerd's API: which repository a blob is of, and to forget a blob.

The content proxy protocol carries neither labels nor namespaces; both live in containerd's own database. Reading there
while containerd waits for our answer inside a write transaction is safe: its readers see a snapshot and take no lock
that a writer holds (bolt; core/metadata/content.go `Info`).
"""

from __future__ import annotations

from pathlib import Path

from ..errors import IpcsError, NotFound
from . import wire
from .client import RemoteContent
from .origin import Source, sources_of

NAMESPACES = "containerd.services.namespaces.v1.Namespaces"


class ContainerdAPI:
    """A client of the containerd at socket `address`. Blocking, thread-safe; a context manager is not needed: it
    connects when first used, and again after containerd restarts.
    """

    def __init__(self, address: Path) -> None:
        self.address = address
        self._namespaces = RemoteContent(address, service=NAMESPACES)
        self._contents: dict[str, RemoteContent] = {}

    def namespaces(self) -> list[str]:
        """All of containerd's namespaces. Raises `FailedPrecondition` when it does not answer."""
        return wire.decode_names(self._namespaces.call("List", b"", str(self.address)))

    def sources(self, digest: str) -> list[Source]:
        """The repositories that `digest` was pulled from, by any namespace; empty when containerd does not know it.

        Raises `FailedPrecondition` when containerd does not answer.
        """
        found: dict[Source, None] = {}
        for namespace in self.namespaces():
            try:
                info = self._content(namespace).info(digest)
            except NotFound:
                continue
            found.update(dict.fromkeys(sources_of(info.labels)))
        return list(found)

    def forget(self, digest: str) -> list[str]:
        """Take `digest` out of every namespace's metadata, so that the next pull asks for it again.

        Returns the namespaces it was in. Raises the first error after all were tried.
        """
        forgotten: list[str] = []
        failure: IpcsError | None = None
        for namespace in self.namespaces():
            try:
                self._content(namespace).delete(digest)
                forgotten.append(namespace)
            except NotFound:
                continue
            except IpcsError as exc:
                failure = failure or exc
        if failure is not None:
            raise failure
        return forgotten

    def _content(self, namespace: str) -> RemoteContent:
        return self._contents.setdefault(namespace, RemoteContent(self.address, namespace))

    def close(self) -> None:
        """Close the connections."""
        for client in (self._namespaces, *self._contents.values()):
            client.close()
