"""One ingest as a state machine: bytes arrive in order, leaves leave as they fill, COMMIT checks what came.

            write, truncate                    check ok           build
    (new) ------------------> open(offset) --------------> open ---------> built --> committed by the store
                                ^    |  check fails: the ingest is kept, and may be written to or checked again
                                +----+

It holds the running digest of the whole and an incremental importer; it does no I/O and reads no clock. A hash state
cannot be saved, so an ingest that must survive a restart is rebuilt by feeding it the same bytes again (`journal.py`
remembers which).

Source: containerd plugins/content/local/writer.go and services/content/contentserver (rules and words).
"""

from __future__ import annotations

import hashlib

from ..block import Block, Data
from ..cid import Cid
from ..errors import FailedPrecondition, OutOfRange
from ..unixfs.importer import Importer
from ..unixfs.profile import Profile
from .descriptor import Status, digest_text


class Ingest:
    """Bytes of one ref on their way to a blob. `now` is ns since the epoch everywhere."""

    def __init__(self, ref: str, profile: Profile, now: int, total: int = 0, expected: str = "") -> None:
        self.ref = ref
        self.total = total
        self.expected = expected
        self.started_at = now
        self.updated_at = now
        self.offset = 0
        self._profile = profile
        self._importer = Importer(profile)
        self._hash = hashlib.sha256()
        self._built: tuple[list[Block], Cid] | None = None

    def status(self) -> Status:
        """Offset, times and running digest; cheap, since containerd asks before every write."""
        return Status(self.ref, self.offset, self.total, self.expected, self.started_at, self.updated_at, self.digest())

    def digest(self) -> str:
        """`sha256:<hex>` of the bytes so far."""
        return digest_text(self._hash.digest())

    def reopen(self, total: int, expected: str) -> None:
        """A writer came back. Raises `FailedPrecondition` when it declares another total than the first one did."""
        if total and self.total and total != self.total:
            raise FailedPrecondition(
                f"total {total} of ref {self.ref} differs from the {self.total} declared before; abort it first",
                subject=self.ref,
            )
        self.total = total or self.total
        self.expected = expected or self.expected

    def seek(self, offset: int, now: int) -> bool:
        """Make `offset` the place of the next write: the current one, or 0 to start over. True when it starts over.

        Raises `OutOfRange` for any other offset.
        """
        if offset == self.offset:
            return False
        if offset:
            raise OutOfRange(
                f"write @{offset} must occur at current offset {self.offset} of ref {self.ref}", subject=self.ref
            )
        self._restart()
        self.updated_at = now
        return True

    def write(self, data: Data, now: int) -> list[Block]:
        """Append `data`; returns the blocks to store. Raises `FailedPrecondition` once the DAG is built."""
        if self._built:
            raise FailedPrecondition(f"ref {self.ref} is being committed; abort it to write again", subject=self.ref)
        self._hash.update(data)
        blocks = self._importer.feed(data)
        self.offset += len(data)
        self.updated_at = now
        return blocks

    def check(self, size: int, expected: str) -> str:
        """The digest to commit under. Raises `FailedPrecondition` when size or digest are not as declared."""
        if size and size != self.offset:
            raise FailedPrecondition(
                f"unexpected commit size {self.offset}, expected {size} for ref {self.ref}", subject=self.ref
            )
        digest = self.digest()
        if expected and expected != digest:
            raise FailedPrecondition(
                f"unexpected commit digest {digest}, expected {expected} for ref {self.ref}", subject=self.ref
            )
        return digest

    def build(self) -> tuple[list[Block], Cid]:
        """Last leaf, inner nodes and root. The same again when asked again, so that a failed commit can be retried."""
        if self._built is None:
            blocks = self._importer.finish()
            self._built = blocks, self._importer.root.cid
        return self._built

    def _restart(self) -> None:
        self.offset = 0
        self._hash = hashlib.sha256()
        self._importer = Importer(self._profile)
        self._built = None
