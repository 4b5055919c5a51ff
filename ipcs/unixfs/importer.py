"""Bytes to blocks: a file's DAG built as its bytes arrive, in constant memory, with no store and no I/O.

    importer = Importer(IPCS_V1)
    for piece in pieces:
        store.put_many(importer.feed(piece))
    store.put_many(importer.finish())
    importer.root.cid

Leaves come out as soon as they are complete; inner nodes when they close. Whoever only wants the CID drops the blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..block import Block, Data
from ..errors import FailedPrecondition
from .builder import NO_ATTRIBUTES, Entry, NodeBuilder
from .chunker import make_chunker
from .layout import make_layout
from .node import Attributes, Kind
from .profile import IPCS_V1, Layout, Profile


class Importer:
    """Builds one file. Raises `InvalidArgument` at once for a profile that cannot be had.

    A block's data is a slice of the piece fed wherever it can be: feed `bytes`, or buffers that stay unchanged until
    the blocks have been used.
    """

    def __init__(self, profile: Profile = IPCS_V1, attributes: Attributes = NO_ATTRIBUTES) -> None:
        self._attributes = attributes
        self._has_attributes = attributes != NO_ATTRIBUTES
        self._profile = profile.with_attributes() if self._has_attributes else profile
        self._chunker = make_chunker(profile.chunker)
        self._builder = NodeBuilder(self._profile)
        self._layout = make_layout(self._profile, self._builder)
        self._is_balanced = profile.layout is Layout.BALANCED
        self._leaf_kind = Kind.FILE if self._is_balanced else Kind.RAW
        self._first: bytes | None = None
        self._root: Entry | None = None
        self._leaves = 0

    @property
    def root(self) -> Entry:
        """The root of the finished file: CID, bytes of all blocks, bytes of the file."""
        if self._root is None:
            raise FailedPrecondition("the import is not finished: it has no root yet")
        return self._root

    def feed(self, data: Data) -> list[Block]:
        """The blocks that `data` completes, children before parents."""
        self._add(self._chunker.feed(data))
        return self._builder.take()

    def finish(self) -> list[Block]:
        """The remaining blocks, the root last. `root` is known from now on."""
        self._add(self._chunker.finish())
        if self._first is not None:  # the only chunk: its leaf is the root and carries the attributes
            self._root = self._builder.leaf(self._first, raw=False, kind=Kind.FILE, attributes=self._attributes)
        elif self._is_balanced and not self._leaves:
            raw = self._profile.raw_leaves
            self._root = self._builder.leaf(b"", raw=raw, kind=Kind.FILE, attributes=self._attributes)
        else:
            self._root = self._layout.finish(self._attributes)
        return self._builder.take()

    def _add(self, chunks: list[Data]) -> None:
        if not chunks:
            return
        if self._has_attributes and self._is_balanced and not self._leaves:
            # A single leaf is the root and must carry the attributes, so the first waits for a second.
            self._leaves = 1
            self._first = bytes(chunks[0])
            chunks = chunks[1:]
            if not chunks:
                return
        if self._first is not None:
            self._add_leaf(self._first)
            self._first = None
        for chunk in chunks:
            self._add_leaf(chunk)

    def _add_leaf(self, chunk: Data) -> None:
        self._leaves += 1
        self._layout.add(self._builder.leaf(chunk, raw=self._profile.raw_leaves, kind=self._leaf_kind))


def import_blocks(importer: Importer, pieces: Iterable[Data]) -> Iterator[Block]:
    """The blocks of the file that `pieces` make up, lazily; afterwards `importer.root` is its root."""
    for piece in pieces:
        yield from importer.feed(piece)
    yield from importer.finish()
