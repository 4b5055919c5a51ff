"""The fetching side: what sessions want, what peers said, who owes us what. Pure.

These are the facts and the moves between them; whom to ask for what is decided in `schedule`. Two relations are kept in
step: `Want.asked` and `Remote.asks` are inversions of each other, and `Member.available` holds exactly the unasked
wants whose `Want.holders` name that member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from ..block import Block
from ..cid import RAW, Cid, PeerId, codec_of
from .events import DeliverBlocks
from .limits import Config
from .message import PRIORITY_STANDING, Entry
from .remote import Remote
from .session import TRANSITIONS, Heard, Holding, Session, Want
from .statistics import Traffic


class Client:
    """Owner of all wants. Each method is one thing that happened."""

    def __init__(self, config: Config) -> None:
        self.remotes: dict[PeerId, Remote] = {}
        self.sessions: dict[int, Session] = {}
        self.wants: dict[Cid, Want] = {}
        self.paused = False
        """Whether we read nothing: then no peer is late."""
        self._config = config
        self._timed: dict[PeerId, Remote] = {}
        """The peers that time may change something for; others need not be looked at."""

    # -- peers ---------------------------------------------------------------------------------------------------------

    def connected(self, peer: PeerId, traffic: Traffic, changed: Callable[[], None]) -> None:
        """A peer came; it joins every open session, as unknown. `changed`: its wantlist has news."""
        self.remotes[peer] = Remote(peer, self._config, traffic, changed)
        for session in self.sessions.values():
            session.join(peer)

    def disconnected(self, peer: PeerId) -> None:
        """A peer went: what it was asked goes elsewhere."""
        remote = self.remotes.pop(peer, None)
        self._timed.pop(peer, None)
        if remote is None:
            return
        for session in self.sessions.values():
            session.members.pop(peer, None)
        for want in self.wants.values():
            want.told.pop(peer, None)
            owed = want.holders.pop(peer, peer) is None
            if peer in want.asked:
                want.asked.remove(peer)
                owed = True
            if want.standing == peer:
                want.standing = None
                owed = True
            if owed:
                self._give_back(want)

    def legacy(self, peer: PeerId) -> None:
        """`peer` speaks no Bitswap 1.2: it knows no want-have and answers none, only blocks."""
        remote = self.remotes.get(peer)
        if remote is None or not remote.presences:
            return
        remote.presences = False
        for want in self.wants.values():
            if peer in want.told and peer not in want.asked and want.standing != peer:
                self._withdraw(want, peer)
        for session in self.sessions.values():
            if peer in session.members:
                session.members[peer].probes.clear()

    # -- sessions ------------------------------------------------------------------------------------------------------

    def open(self, number: int, root: Cid, hints: Iterable[PeerId], estimate: int, now: float) -> None:
        """A caller begins; `hints` are taken for full holders until they prove otherwise."""
        session = self.sessions[number] = Session(number, root, estimate)
        session.last_progress = now
        self.hint(number, hints)
        for peer in self.remotes:
            session.join(peer)

    def hint(self, number: int, peers: Iterable[PeerId]) -> None:
        """`peers` are said to hold the whole DAG."""
        session = self.sessions.get(number)
        for peer in peers:
            if session is not None and peer in self.remotes and session.join(peer) is not None:
                self._hear(session, peer, Heard.HINT)

    def close(self, number: int) -> None:
        """The caller left: its wants are cancelled unless another session holds them."""
        session = self.sessions.pop(number, None)
        if session is None:
            return
        for want in list(session.wants.values()):
            session.drop(want)
            if not want.sessions and not want.received:
                self._settle(want, None)
                del self.wants[want.cid]

    def want(self, number: int, cids: Sequence[Cid], *, reading: bool) -> None:
        """The session needs `cids`, in this order."""
        session = self.sessions.get(number)
        if session is None:
            return
        for cid in cids:
            want = self.wants.get(cid)
            if want is None:
                want = self.wants[cid] = Want(cid, session.estimate, len(session.order))
            if cid not in session.wants:
                session.add(want, first=reading)
                if want.unasked:
                    self._offer(want)
            elif reading and want.unclaimed:
                session.returned.append(want)

    # -- what peers say ------------------------------------------------------------------------------------------------

    def receive(self, peer: PeerId, blocks: Sequence[Block], now: float) -> tuple[list[Block], int, int]:
        """Blocks from `peer`: (those that were wanted, number and bytes of those that nobody ever asked of it)."""
        remote = self.remotes.get(peer)
        if remote is None:
            return [], 0, 0
        wanted: list[Block] = []
        unasked = unasked_bytes = 0
        for block in blocks:
            cid, data = block
            want = self.wants.get(cid)
            if want is not None and want.open:
                was_stalled = remote.stalled
                remote.delivered(cid, len(data), now)
                want.received = True
                self._settle(want, peer)
                if was_stalled:
                    self._revive(peer)
                for session in want.sessions:
                    session.measure(len(data), leaf=codec_of(cid) == RAW)
                    session.last_progress = now
                    self._hear(session, peer, Heard.HAS)
                wanted.append(block)
            elif cid in remote.settled or want is not None:
                remote.repeated(cid, len(data))
            else:
                unasked += 1
                unasked_bytes += len(data)
        return wanted, unasked, unasked_bytes

    def have(self, peer: PeerId, cids: Sequence[Cid]) -> None:
        """`peer` says that it holds `cids`."""
        remote = self.remotes.get(peer)
        if remote is None:
            return
        for cid in cids:
            want = self.wants.get(cid)
            if cid in remote.wantlist:
                remote.wantlist.announced(cid)
            if want is None or not want.open:
                continue
            want.told.setdefault(peer)
            joined = [session for session in want.sessions if session.join(peer) is not None]
            if Holding.PARTIAL in [self._hear(session, peer, Heard.HAS) for session in joined]:
                self._announce(want, peer)

    def _announce(self, want: Want, peer: PeerId) -> None:
        """A neighbour holds `want`: the origin need not send it. It is one for all sessions as soon as for one."""
        stalled = self.remotes[peer].stalled
        for session in want.sessions:
            if peer in session.members:
                session.members[peer].probes.pop(want.cid, None)
                if stalled:
                    session.members[peer].dormant[want.cid] = want
        if stalled:
            return
        want.holders[peer] = None
        if want.standing is not None and want.standing != peer:
            origin = want.standing
            self.stand(want, None)
            self._withdraw(want, origin)
        if not want.asked:
            self._offer(want)

    def _offer(self, want: Want) -> None:
        """Those that announced `want` may be asked for it, in each of its sessions."""
        for member in want.members(want.holders):
            member.available[want.cid] = want

    def lack(self, peer: PeerId, cids: Sequence[Cid]) -> None:
        """`peer` says that it does not hold `cids`."""
        remote = self.remotes.get(peer)
        if remote is None:
            return
        for cid in cids:
            want = self.wants.get(cid)
            if want is None or not want.open:
                remote.unask(cid)
                continue
            want.holders.pop(peer, None)
            for session in want.sessions:
                if session.join(peer) is not None:
                    session.members[peer].available.pop(cid, None)
                    session.members[peer].dormant.pop(cid, None)
                    self._hear(session, peer, Heard.LACKS)
            if peer in want.asked or want.standing == peer:
                self._take_back(want, remote)

    def wanted_by(self, peer: PeerId, cids: Iterable[Cid]) -> None:
        """`peer` wants `cids` of us: where they are ours too, it is a neighbour that downloads the same DAG."""
        for session in self.sessions.values():
            if session.holding(peer) is Holding.PARTIAL:
                continue
            if any(cid in session.seen for cid in cids) and session.join(peer) is not None:
                self._hear(session, peer, Heard.WANTS)

    def _hear(self, session: Session, peer: PeerId, heard: Heard) -> Holding:
        member = session.members.get(peer)
        if member is None:
            return Holding.UNKNOWN
        before, after = member.holding, TRANSITIONS[member.holding, heard]
        if before is not after:
            member.holding = after
            if after is Holding.PARTIAL and before is Holding.FULL:
                self._release_standing(session, peer)
        return after

    def _release_standing(self, session: Session, peer: PeerId) -> None:
        """An origin turned out to be partial: standing wants there are ordinary wants again."""
        for want in list(session.wants.values()):
            if want.standing == peer:
                self._take_back(want, self.remotes[peer])

    # -- stored --------------------------------------------------------------------------------------------------------

    def stored(self, cids: Sequence[Cid], now: float) -> list[DeliverBlocks]:
        """Blocks are in the local store: their wants are met."""
        done: dict[int, list[Cid]] = {}
        for cid in cids:
            want = self.wants.pop(cid, None)
            if want is None:
                continue
            if not want.received:
                want.received = True
                self._settle(want, None)
            for session in list(want.sessions):
                session.drop(want)
                session.last_progress = now
                done.setdefault(session.number, []).append(cid)
        return [DeliverBlocks(number, met) for number, met in done.items()]

    def store_failed(self, cids: Sequence[Cid]) -> None:
        """The store refused these; the sessions learn it from the shell, the wants end."""
        for cid in cids:
            want = self.wants.pop(cid, None)
            if want is not None:
                for session in list(want.sessions):
                    session.drop(want)

    # -- bookkeeping of one want ---------------------------------------------------------------------------------------

    def _settle(self, want: Want, sender: PeerId | None) -> None:
        """`want` needs nobody any more: cancel it wherever it was told, except at the sender."""
        cid = want.cid
        for peer in want.told:
            remote = self.remotes[peer]
            if peer == sender:
                remote.wantlist.answered(cid)
            else:
                remote.wantlist.cancel(cid)
            remote.unask(cid)
        for member in want.members(want.told | want.holders):
            member.forget(cid)
        want.told.clear()
        want.holders.clear()
        want.asked.clear()
        self.stand(want, None)

    def _withdraw(self, want: Want, peer: PeerId) -> None:
        """Cancel `want` at `peer`, which may still hold it."""
        remote = self.remotes[peer]
        remote.wantlist.cancel(want.cid)
        remote.unask(want.cid)
        want.told.pop(peer, None)

    def _take_back(self, want: Want, remote: Remote) -> None:
        """`remote` will not serve what it was asked: cancel there, and ask elsewhere."""
        self._withdraw(want, remote.peer)
        if remote.peer in want.asked:
            want.asked.remove(remote.peer)
        if want.standing == remote.peer:
            self.stand(want, None)
        self._give_back(want)

    def _give_back(self, want: Want) -> None:
        """An open want that nobody owes us goes to the front of its sessions, or back to those that announced it."""
        if not want.unasked:
            return
        self._offer(want)
        for session in want.sessions:
            if want.unclaimed:
                session.returned.append(want)

    # -- what the scheduler decides ------------------------------------------------------------------------------------

    def ask(self, want: Want, remote: Remote, now: float, patience: float) -> None:
        """Send `remote` a want-block; it owes us the bytes from now on. `patience`: as for `Remote.ask`."""
        if want.standing is not None and want.standing != remote.peer:
            self._withdraw(want, want.standing)
        self.stand(want, None)
        want.asked.append(remote.peer)
        want.told[remote.peer] = None
        for member in want.members(want.holders):
            member.available.pop(want.cid, None)
        for member in want.members([remote.peer]):
            member.probes.pop(want.cid, None)
        remote.ask(want.cid, want.size, now, patience)
        self._timed[remote.peer] = remote
        remote.wantlist.want(Entry(want.cid, want.priority, send_dont_have=True))

    def stand(self, want: Want, remote: Remote | None, now: float = 0.0) -> None:
        """Leave a want-block of lowest priority at an origin; None ends that (and sends nothing)."""
        if want.standing is not None and want.standing in self.remotes:
            self.remotes[want.standing].standing.pop(want.cid, None)
        want.standing = None
        if remote is not None:
            want.standing = remote.peer
            want.told[remote.peer] = None
            remote.standing[want.cid] = now
            self._timed[remote.peer] = remote
            remote.remember(want.cid)
            remote.wantlist.want(Entry(want.cid, PRIORITY_STANDING, send_dont_have=True))

    def probe(self, want: Want, remote: Remote, *, answer: bool) -> None:
        """Tell `remote` that we want `want` announced; `answer`: also when it does not hold it."""
        if not remote.presences or want.standing == remote.peer or remote.peer in want.asked:
            return
        remote.remember(want.cid)
        want.told[remote.peer] = None
        remote.wantlist.want(Entry(want.cid, want.priority, want_have=True, send_dont_have=answer))

    # -- time ----------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Take overdue asks away from their peers."""
        if self.paused:
            return
        for remote in list(self._timed.values()):
            if not remote.timed:
                del self._timed[remote.peer]
                continue
            was_stalled = remote.stalled
            for cid in remote.expire(now):
                want = self.wants.get(cid)
                if want is not None and want.open:
                    want.late = remote.peer
                    self._take_back(want, remote)
            if remote.stalled and not was_stalled:
                self._mute(remote.peer)

    def pause(self, paused: bool, now: float) -> None:  # noqa: FBT001 - the state itself
        """We stop reading from peers, or read again: then every peer gets its time anew."""
        self.paused = paused
        for remote in self.remotes.values():
            remote.excuse(now)

    def _mute(self, peer: PeerId) -> None:
        """A stalled neighbour's announcements count for nothing until it delivers again."""
        for want in self.wants.values():
            if want.holders.pop(peer, peer) is not None:
                continue
            for member in want.members([peer]):
                member.available.pop(want.cid, None)
                member.dormant[want.cid] = want
            if want.unclaimed:
                for session in want.sessions:
                    session.returned.append(want)

    def _revive(self, peer: PeerId) -> None:
        """It delivered: what it announced before counts again."""
        for session in self.sessions.values():
            member = session.members.get(peer)
            if member is not None:
                for want in member.dormant.values():
                    if want.open:
                        self._announce(want, peer)
                member.dormant.clear()

    def next_deadline(self, now: float) -> float:
        """When an ask is overdue, or a quiet peer may be probed."""
        deadline = inf
        for remote in self._timed.values():
            if not self.paused:
                deadline = min(deadline, remote.due())
            if self.wants and remote.quiet_until > now:
                deadline = min(deadline, remote.quiet_until)
        return deadline
