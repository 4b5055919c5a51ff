"""Leaves of blobs that are on their way in, for peers that follow: what makes simultaneous cold pulls cost one.

The root of a blob does not exist before its last byte, but its leaves do as they fill. Who takes a blob from its
registry (the *leader*) publishes them here in file order; followers fetch them by Bitswap, from it and from each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterable, Sequence

import trio

from ..cid import PeerId

LEAD_WAIT = 1.0
"""Seconds that a follower waits for the first leaf of a leader, and a leader for its own first byte."""

LEAD_TTL = 5.0
"""Seconds for which having decided to take a blob from its registry counts, before the first byte is here."""

MAX_FEEDS = 1024
"""Blobs on their way in at once; the oldest is forgotten, and its followers go their own way."""


def ranking(digest: str, peers: Iterable[PeerId]) -> list[PeerId]:
    """Rendezvous order for `digest`: every node that knows the same peers puts the same one first (Thaler and
    Ravishankar, 1998).
    """
    return sorted(peers, key=lambda peer: hashlib.sha256(f"{digest} {peer}".encode()).digest())


class Feed:
    """The leaves of one blob so far, as 32-byte sha2-256 digests in file order."""

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.is_led = False
        """Whether this node takes the blob from its registry, and does not itself follow another."""
        self.leaves: list[bytes] = []
        self.is_whole = False
        self.is_over = False
        self.changed = trio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class Feeds:
    """All blobs on their way in here. From the trio thread."""

    def __init__(self) -> None:
        self._feeds: dict[str, Feed] = {}
        self._began = trio.Event()

    def lead(self, digest: str) -> None:
        """This node takes `digest` from its registry: others may follow."""
        feed = self._open(digest)
        if not feed.is_led:
            feed.is_led, feed.began_at = True, trio.current_time()
            self._tell_began()

    def add(self, digest: str, first: int, leaves: Sequence[bytes]) -> None:
        """`leaves` are in the store; they are those from index `first` on. What does not follow on is not published."""
        feed = self._open(digest)
        fresh = leaves[max(0, len(feed.leaves) - first) :]
        if fresh and first <= len(feed.leaves):
            feed.leaves += fresh
            feed.wake()
            self._tell_began()

    def _open(self, digest: str) -> Feed:
        feed = self._feeds.get(digest)
        if feed is None:
            feed = self._feeds[digest] = Feed(trio.current_time())
            while len(self._feeds) > MAX_FEEDS:
                self.over(next(iter(self._feeds)), whole=False)
        return feed

    def over(self, digest: str, *, whole: bool) -> None:
        """It is committed here, or will not be."""
        feed = self._feeds.pop(digest, None)
        if feed is not None:
            feed.is_whole, feed.is_over = whole, True
            feed.wake()

    def leads(self, digest: str) -> bool:
        """Whether this node takes it from its registry."""
        feed = self._feeds.get(digest)
        return feed is not None and feed.is_led and self._is_live(feed)

    async def wait_begun(self, digest: str) -> None:
        """Return once following this node makes sense: it leads, or follows somebody."""
        while (feed := self._feeds.get(digest)) is None or not self._is_live(feed):
            await self._began.wait()

    def _tell_began(self) -> None:
        self._began.set()
        self._began = trio.Event()

    def _is_live(self, feed: Feed) -> bool:
        return bool(feed.leaves) or feed.began_at + LEAD_TTL > trio.current_time()

    async def follow(self, digest: str) -> AsyncGenerator[list[bytes], None]:
        """The leaves as they come; ends when the blob is whole, or when nothing comes of it.

        An empty list at the end says that it is whole.
        """
        feed = self._feeds.get(digest)
        if feed is None:
            return
        sent = 0
        while True:
            if sent < len(feed.leaves):
                fresh = feed.leaves[sent:]
                sent += len(fresh)
                yield fresh
            elif feed.is_over:
                if feed.is_whole:
                    yield []
                return
            else:
                await feed.changed.wait()
