"""Whom to ask for what: the policy of the fetching side. Pure.

`pump` runs after each event:

1. A peer that holds all of a DAG (FULL) gets the next wants in file order until its window is full; the peer that would
   deliver first is served first, so that work splits by measured rate.
2. A neighbour that is downloading too (PARTIAL) is told what we want (a want-have, kept at its side) and asked for what
   it announces: in file order within the first 32 wants, rarest first beyond.
3. Where there are both, the FULL ones are origins: they get standing want-blocks of lowest priority, only for blocks
   that no neighbour announced, and a cancel as soon as one does (swarm simulation, strategy f3).
4. When nothing is left to ask, a want that is past its expected arrival is asked of a second peer; the loser is
   cancelled.
5. When nobody is known to hold a want, every connected peer is told.

A want-block is never at two peers except by rule 4.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import Protocol

from ..cid import Cid
from .client import Client
from .events import FindProviders
from .limits import (
    DEADLINE_CONSTANT,
    DEADLINE_MULTIPLE,
    ENDGAME_SLACK,
    LONGEST_WAIT,
    LONGEST_WAIT_BESIDE_OTHERS,
    MAX_BROADCAST_WANTS,
    MAX_PROBES_PER_PEER,
    MAX_STANDING_PER_PEER,
    RAREST_SAMPLE,
    REBROADCAST_INTERVAL,
    SEARCH_DELAY,
    Config,
)
from .rate import TokenBucket
from .remote import Ask, Remote
from .session import Holding, Member, Session, Want


class Random(Protocol):
    """The randomness that the scheduler needs; `random.Random` meets it."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        ...


class Scheduler:
    """Decides for one `Client`."""

    def __init__(self, client: Client, config: Config, rng: Random) -> None:
        self._client = client
        self._rng = rng
        self._bucket = TokenBucket(config.download_rate)
        self._wake = inf

    @property
    def next_deadline(self) -> float:
        """When `pump` has something to do although nothing happened."""
        return self._wake

    def pump(self, now: float) -> list[FindProviders]:
        """Ask for all that can be asked for now."""
        self._wake = inf
        searches: list[FindProviders] = []
        for session in self._client.sessions.values():
            if session.wants:
                self._pump(session, now, searches)
        return searches

    def _pump(self, session: Session, now: float, searches: list[FindProviders]) -> None:
        remotes = self._client.remotes
        full = [remotes[peer] for peer, member in session.members.items() if member.holding is Holding.FULL]
        neighbours = False
        for peer, member in session.members.items():
            if member.holding is Holding.PARTIAL:
                neighbours = True
                self._probe(session, remotes[peer], member)
            self._ask_neighbour(session, remotes[peer], member, now)  # it may be one in another session of a want
        if neighbours:
            for remote in full:
                self._leave_standing(session, remote, now)
        else:
            self._ask_holders(session, full, now)
        self._discover(session, now, alone=not full)
        self._endgame(session, full, now)
        if all(remote.stalled for remote in full):
            self._broadcast(session, now, searches)

    # -- rule 1 --------------------------------------------------------------------------------------------------------

    def _ask_holders(self, session: Session, full: list[Remote], now: float) -> None:
        ready = [remote for remote in full if self._may_ask(remote, now)]
        healthy = sum(not remote.stalled for remote in full)
        size = session.estimate
        while ready:
            remote = ready[0] if len(ready) == 1 else min(ready, key=lambda candidate: candidate.delay(size))
            avoid = remote.peer if healthy - (not remote.stalled) else None
            want = session.next_unasked(avoid)
            if want is None:
                ready.remove(remote)
                continue
            self._ask(want, session, remote, now, alone=avoid is None)
            if not (remote.room(now) and self._permitted(remote, now)):
                ready.remove(remote)

    def _may_ask(self, remote: Remote, now: float) -> bool:
        return remote.hungry(now) and self._permitted(remote, now)

    def _permitted(self, remote: Remote, now: float) -> bool:
        """Whether the download rate limits allow another ask; sets the alarm when not."""
        at = max(self._bucket.ready_at(now), remote.bucket.ready_at(now))
        if at > now:
            self._wake = min(self._wake, at)
        return at <= now

    def _ask(self, want: Want, session: Session, remote: Remote, now: float, *, alone: bool) -> None:
        """`alone`: nobody else is known to hold it, so more patience costs nothing."""
        want.size = session.estimate
        self._bucket.take(want.size, now)
        remote.bucket.take(want.size, now)
        self._client.ask(want, remote, now, LONGEST_WAIT if alone else LONGEST_WAIT_BESIDE_OTHERS)

    # -- rule 2 --------------------------------------------------------------------------------------------------------

    def _probe(self, session: Session, remote: Remote, member: Member) -> None:
        """Tell a neighbour about our next wants, a batch at a time."""
        order = session.order
        if len(member.probes) > MAX_PROBES_PER_PEER * 3 // 4:
            return
        while len(member.probes) < MAX_PROBES_PER_PEER and member.probe_cursor < len(order):
            want = order[member.probe_cursor]
            member.probe_cursor += 1
            if want.open and remote.peer not in want.holders and want.standing != remote.peer:
                member.probes[want.cid] = None
                self._client.probe(want, remote, answer=False)

    def _ask_neighbour(self, session: Session, remote: Remote, member: Member, now: float) -> None:
        source = member.available or (member.dormant if remote.stalled else {})
        if not source or not self._may_ask(remote, now):
            return
        while wants := self._choose(session, source):
            for want in wants:
                if source is member.dormant:
                    member.dormant.pop(want.cid)
                self._ask(want, session, remote, now, alone=len(want.holders) < 2)
                if not (remote.room(now) and self._permitted(remote, now)):
                    return

    def _choose(self, session: Session, source: dict[Cid, Want]) -> list[Want]:
        """The next wants to ask for, best first; empty when `source` has no more."""
        first = [want for want in session.in_order() if want.cid in source and want.unasked]
        if first:
            return first
        sample = [want for want in islice(source.values(), RAREST_SAMPLE) if want.unasked]
        return sorted(sample, key=lambda want: len(want.holders) + self._rng.random())

    # -- rule 3 --------------------------------------------------------------------------------------------------------

    def _leave_standing(self, session: Session, remote: Remote, now: float) -> None:
        """Half of the standing wants are the next in file order, half are anywhere, so that fetchers differ."""
        limit = 1 if remote.stalled else MAX_STANDING_PER_PEER
        if now < remote.quiet_until or len(remote.standing) > limit * 3 // 4:
            return
        while len(remote.standing) < limit and self._permitted(remote, now):
            if len(remote.standing) % 2:
                want = session.random_unasked(self._rng.random())
            else:
                want = session.next_unasked()
            if want is None:
                return
            self._client.stand(want, remote, now)

    # -- rule 4 --------------------------------------------------------------------------------------------------------

    def _endgame(self, session: Session, full: list[Remote], now: float) -> None:
        if session.next_unasked() is not None:
            return
        idle = [remote for remote in full if not remote.stalled and self._may_ask(remote, now)]
        for want in session.wants.values():
            if len(want.asked) != 1 or want.received:
                continue
            ask = self._client.remotes[want.asked[0]].asks.get(want.cid)
            helper = self._helper(want, idle, now)
            if ask is None or helper is None:
                continue
            late = ask.sent + self._patience(ask, self._client.remotes[want.asked[0]], helper)
            if late > now:
                self._wake = min(self._wake, late)
            else:
                self._ask(want, session, helper, now, alone=False)

    def _patience(self, ask: Ask, remote: Remote, helper: Remote) -> float:
        """Seconds to wait for an asked want while `helper` is idle: what its peer should need, or some of the helper's
        times, whichever is less."""
        own = ask.expected - ask.sent + max(ENDGAME_SLACK, remote.latency)
        helpers = max(helper.delay(ask.size), helper.latency)
        return min(own, DEADLINE_CONSTANT + DEADLINE_MULTIPLE * helpers)

    def _helper(self, want: Want, idle: list[Remote], now: float) -> Remote | None:
        """The peer that would deliver a late want soonest, other than the one that is late."""
        able = [remote for remote in idle if remote.peer not in want.asked and remote.room(now)]
        for peer in want.holders:
            remote = self._client.remotes[peer]
            if peer not in want.asked and not remote.stalled and self._may_ask(remote, now):
                able.append(remote)
        return min(able, key=lambda remote: remote.delay(want.size), default=None)

    # -- rule 5 --------------------------------------------------------------------------------------------------------

    def _discover(self, session: Session, now: float, *, alone: bool) -> None:
        """Ask each peer of which nothing is known about the first open want.

        A peer before Bitswap 1.2 can only be asked for the block itself, one at a time and when nobody else is known.
        """
        for peer, member in session.members.items():
            if member.holding is not Holding.UNKNOWN or member.probes:
                continue
            remote = self._client.remotes[peer]
            if remote.presences:
                want = next((want for want in session.in_order() if want.open), None)
                if want is not None:
                    member.probes[want.cid] = None
                    self._client.probe(want, remote, answer=True)
            elif alone and not remote.asks and self._may_ask(remote, now):
                want = session.next_unasked()
                if want is not None:
                    self._ask(want, session, remote, now, alone=True)

    def _broadcast(self, session: Session, now: float, searches: list[FindProviders]) -> None:
        if session.next_unasked() is None:
            return
        told = 0
        for want in session.order[session.gap : session.gap + 4 * MAX_BROADCAST_WANTS]:
            if told >= MAX_BROADCAST_WANTS:
                break
            if not want.unclaimed:
                continue
            told += 1
            for peer, remote in self._client.remotes.items():
                if peer not in want.told:
                    self._client.probe(want, remote, answer=True)
        self._search(session, now, searches)

    def _search(self, session: Session, now: float, searches: list[FindProviders]) -> None:
        """Nobody has what this session needs: ask routing after a second, and repeat everything now and then."""
        at = max(session.last_progress + SEARCH_DELAY, session.searched_at + REBROADCAST_INTERVAL)
        if now >= at:
            searches.append(FindProviders(session.number))
            if session.searched_at > session.last_progress:
                for remote in self._client.remotes.values():
                    remote.wantlist.restart()
            session.searched_at = now
            at = now + REBROADCAST_INTERVAL
        self._wake = min(self._wake, at)
