"""How leaves become a tree, one leaf at a time: balanced and trickle.

A layout holds the open nodes only, at most `max_links` children for each level, and closes a node when the first leaf
that no longer fits arrives. Closing late is what makes the shapes Kubo's: a full root stays the root.

Source: boxo `ipld/unixfs/importer/{balanced,trickle}/builder.go`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from .builder import Entry, NodeBuilder
from .node import Attributes
from .profile import Layout, Profile

TRICKLE_REPEAT = 4
"""Subtrees of each depth below a trickle node (boxo `trickle.depthRepeat`)."""


class TreeLayout(Protocol):
    """A tree in the making. Inner nodes go to the builder as they close."""

    def add(self, leaf: Entry) -> None:
        """The next leaf, in file order."""
        ...

    def finish(self, attributes: Attributes) -> Entry:
        """The root, with `attributes` on it; the layout is spent."""
        ...


def make_layout(profile: Profile, builder: NodeBuilder) -> TreeLayout:
    """The layout that `profile` names."""
    kind = BalancedLayout if profile.layout is Layout.BALANCED else TrickleLayout
    return kind(builder, profile.max_links)


class BalancedLayout:
    """All leaves at one depth. One leaf alone is the root itself."""

    def __init__(self, builder: NodeBuilder, max_links: int) -> None:
        self._builder = builder
        self._max_links = max_links
        self._levels: list[list[Entry]] = [[]]

    def add(self, leaf: Entry) -> None:
        self._push(leaf, 0)

    def _push(self, child: Entry, depth: int) -> None:
        while depth < len(self._levels) and len(self._levels[depth]) == self._max_links:
            closed = self._builder.file(self._levels[depth])
            self._levels[depth] = [child]
            child, depth = closed, depth + 1
        if depth == len(self._levels):
            self._levels.append([])
        self._levels[depth].append(child)

    def finish(self, attributes: Attributes) -> Entry:
        depth = 0
        while depth < len(self._levels) - 1:  # a trailing leaf gets its chain of one-child parents
            self._push(self._builder.file(self._levels[depth]), depth + 1)
            depth += 1
        if depth == 0 and len(self._levels[0]) == 1:
            return self._levels[0][0]
        return self._builder.file(self._levels[depth], attributes)


@dataclass(slots=True)
class _Open:
    """A trickle node being filled; it takes subtrees of depths below `limit`, None for the root."""

    limit: int | None
    children: list[Entry] = field(default_factory=list)
    depth: int = 1
    repeat: int = 0


class TrickleLayout:
    """First leaves near the root: each node has its leaves, then four subtrees of each depth 1, 2, 3 ..."""

    def __init__(self, builder: NodeBuilder, max_links: int) -> None:
        self._builder = builder
        self._max_links = max_links
        self._open = [_Open(None)]

    def add(self, leaf: Entry) -> None:
        while len(self._open[-1].children) >= self._max_links:
            node = self._open[-1]
            if node.repeat == TRICKLE_REPEAT:
                node.depth, node.repeat = node.depth + 1, 0
            if node.limit is not None and node.depth >= node.limit:
                self._close()
            else:
                node.repeat += 1
                self._open.append(_Open(node.depth))
        self._open[-1].children.append(leaf)

    def _close(self) -> None:
        node = self._open.pop()
        self._open[-1].children.append(self._builder.file(node.children))

    def finish(self, attributes: Attributes) -> Entry:
        while len(self._open) > 1:
            self._close()
        return self._builder.file(self._open[0].children, attributes)
