"""Wants and the sessions that hold them: what is open, in which order it is asked for, who may have it. Pure.

A session knows its DAG: callers feed it the links of inner nodes as they arrive, so `order` is the file order of all
that will be needed. Two cursors run over it: `gap`, the first want that has not arrived, and `_cursor`, before which
nothing is left to ask for. Wants that come back (overdue, refused, their holder gone) go through `returned`, which is
served first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from math import inf

from ..cid import Cid, PeerId
from .limits import DEFAULT_BLOCK_ESTIMATE, IN_ORDER_WANTS, MAX_SESSION_PEERS
from .message import PRIORITY_MAX


class Holding(Enum):
    """What a session believes a peer to hold of its DAG."""

    UNKNOWN = "unknown"
    """Nothing heard yet."""
    FULL = "full"
    """Said HAVE or sent a block, never refused one: asked for blocks straight away."""
    PARTIAL = "partial"
    """Refused a block, or wants blocks of this DAG itself: asked for what it announces."""
    NONE = "none"
    """Refused, and never had anything: asked again only when nobody else can help."""


class Heard(Enum):
    """What a peer can say about a session's blocks."""

    HAS = "has"
    """HAVE, or a block."""
    LACKS = "lacks"
    """DONT_HAVE."""
    WANTS = "wants"
    """It wants such a block itself: a neighbour that is downloading the same DAG."""
    HINT = "hint"
    """Routing says that it holds the whole."""


TRANSITIONS: dict[tuple[Holding, Heard], Holding] = {
    (Holding.UNKNOWN, Heard.HAS): Holding.FULL,
    (Holding.UNKNOWN, Heard.LACKS): Holding.NONE,
    (Holding.UNKNOWN, Heard.WANTS): Holding.PARTIAL,
    (Holding.UNKNOWN, Heard.HINT): Holding.FULL,
    (Holding.FULL, Heard.HAS): Holding.FULL,
    (Holding.FULL, Heard.LACKS): Holding.PARTIAL,
    (Holding.FULL, Heard.WANTS): Holding.PARTIAL,
    (Holding.FULL, Heard.HINT): Holding.FULL,
    (Holding.PARTIAL, Heard.HAS): Holding.PARTIAL,
    (Holding.PARTIAL, Heard.LACKS): Holding.PARTIAL,
    (Holding.PARTIAL, Heard.WANTS): Holding.PARTIAL,
    (Holding.PARTIAL, Heard.HINT): Holding.PARTIAL,
    (Holding.NONE, Heard.HAS): Holding.PARTIAL,
    (Holding.NONE, Heard.LACKS): Holding.NONE,
    (Holding.NONE, Heard.WANTS): Holding.PARTIAL,
    (Holding.NONE, Heard.HINT): Holding.FULL,
}
"""All of what moves a peer between the states; `docs/bitswap.md` prints this table."""


class Want:
    """One CID that at least one session needs. Peers are named by id, in the order in which they came in."""

    __slots__ = ("asked", "cid", "holders", "index", "late", "received", "sessions", "size", "standing", "told")

    def __init__(self, cid: Cid, size: int, index: int) -> None:
        self.cid = cid
        self.size = size
        self.index = index
        self.sessions: list[Session] = []
        self.asked: list[PeerId] = []
        self.standing: PeerId | None = None
        self.holders: dict[PeerId, None] = {}
        self.told: dict[PeerId, None] = {}
        self.late: PeerId | None = None
        self.received = False

    def members(self, peers: Iterable[PeerId]) -> Iterator[Member]:
        """`peers` as members of each session that holds this want."""
        for session in self.sessions:
            yield from (session.members[peer] for peer in peers if peer in session.members)

    @property
    def open(self) -> bool:
        """Whether its bytes are still to come."""
        return not self.received and bool(self.sessions)

    @property
    def unasked(self) -> bool:
        """Whether its bytes are still to come and no peer owes them (a standing want is no debt)."""
        return not self.received and not self.asked and bool(self.sessions)

    @property
    def unclaimed(self) -> bool:
        """Whether it is unasked, no neighbour announced it and no origin was told to send it when convenient."""
        return not (self.received or self.asked or self.holders or self.standing) and bool(self.sessions)

    @property
    def priority(self) -> int:
        """Position in its file as a Bitswap priority: earlier is higher, and never as low as a standing want."""
        return max(PRIORITY_MAX - self.index, 1 << 16)


class Member:
    """A peer in a session."""

    __slots__ = ("available", "dormant", "holding", "probe_cursor", "probes")

    def __init__(self) -> None:
        self.holding = Holding.UNKNOWN
        self.available: dict[Cid, Want] = {}
        """Unasked wants that it announced."""
        self.dormant: dict[Cid, Want] = {}
        """What it announced before it stalled."""
        self.probes: dict[Cid, None] = {}
        """Want-haves of this session that it has not answered."""
        self.probe_cursor = 0
        """Position in `Session.order` before which everything was probed."""

    def forget(self, cid: Cid) -> None:
        """The want for `cid` is settled."""
        self.available.pop(cid, None)
        self.dormant.pop(cid, None)
        self.probes.pop(cid, None)


class Session:
    """The wants of one caller."""

    def __init__(self, number: int, root: Cid, estimate: int) -> None:
        self.number = number
        self.root = root
        self.wants: dict[Cid, Want] = {}
        self.members: dict[PeerId, Member] = {}
        self.order: list[Want] = []
        self.returned: deque[Want] = deque()
        self.seen: set[Cid] = set()
        self.gap = 0
        self.last_progress = 0.0
        self.searched_at = -inf
        self._cursor = 0
        self._estimate = float(estimate or DEFAULT_BLOCK_ESTIMATE)
        self._measured = bool(estimate)

    @property
    def estimate(self) -> int:
        """Expected size of one of its blocks, in bytes."""
        return int(self._estimate)

    def measure(self, size: int, *, leaf: bool) -> None:
        """Learn from the size of a block that arrived; that of an inner node says little about the leaves below it."""
        if size > self._estimate or (leaf and not self._measured):
            self._estimate, self._measured = float(max(size, 1)), True
        else:
            self._estimate += (size - self._estimate) * 0.05

    def add(self, want: Want, *, first: bool) -> None:
        """`want` becomes one of ours; `first`: somebody is waiting for it."""
        want.sessions.append(self)
        self.wants[want.cid] = want
        self.seen.add(want.cid)
        self.order.append(want)
        if first:
            self.returned.append(want)

    def drop(self, want: Want) -> None:
        """`want` is met or given up."""
        self.wants.pop(want.cid, None)
        want.sessions.remove(self)

    def join(self, peer: PeerId) -> Member | None:
        """The member that `peer` is, or becomes; None when the session has enough."""
        member = self.members.get(peer)
        if member is None and len(self.members) < MAX_SESSION_PEERS:
            member = self.members[peer] = Member()
        return member

    def holding(self, peer: PeerId) -> Holding:
        """What `peer` is believed to hold."""
        member = self.members.get(peer)
        return Holding.UNKNOWN if member is None else member.holding

    def next_unasked(self, avoid: PeerId | None = None) -> Want | None:
        """The first unasked want that no neighbour announced, other than those that `avoid` was late with."""
        returned = self.returned
        for _ in range(len(returned)):
            want = returned[0]
            if want.unclaimed:
                if avoid is None or want.late != avoid:
                    return want
                returned.rotate(-1)
            else:
                returned.popleft()
        while self._cursor < len(self.order):
            want = self.order[self._cursor]
            if want.unclaimed:
                return want
            self._cursor += 1
        return None

    def in_order(self) -> list[Want]:
        """The wants that are fetched in file order whatever their rarity: the first ones from the first gap."""
        order = self.order
        while self.gap < len(order) and not order[self.gap].open:
            self.gap += 1
        return order[self.gap : self.gap + IN_ORDER_WANTS]

    def random_unasked(self, fraction: float) -> Want | None:
        """An unasked want that no neighbour announced, at about `fraction` (0 to 1) of what lies beyond the cursor."""
        rest = len(self.order) - self._cursor
        at = self._cursor + int(fraction * rest)
        for want in self.order[at : at + IN_ORDER_WANTS]:
            if want.unclaimed:
                return want
        return self.next_unasked()
