"""The serving side: what peers want of us, whose turn it is, how much may be on its way. Pure.

Between peers: the one that was served the fewest bytes since it became busy goes first, and each has a bounded number
of bytes read or being written, so that a peer that does not read costs its bound and nothing else. Within a peer:
higher priority first, then in the order asked.

A want for a block that we lack is kept until it is cancelled, met, or the peer is gone, and is answered when the block
arrives: a peer that is still downloading already serves.

Super-seeding: a want of priority `PRIORITY_STANDING` says that its peer expects the block from a neighbour. Such wants
come last, a block that no peer got before one that some peer got; a second copy waits `SUPER_SEED_HOLD`, within which
the first receiver announces it and the want is cancelled (swarm simulation, strategy f3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from ..block import Data, prefix_of
from ..cid import Cid, Multihash, PeerId, multihash_of
from .ledger import Ledger, PeerWant
from .limits import (
    MAX_MESSAGE_SIZE,
    MAX_WANTS_PER_PEER,
    PACKED_BLOCK_SIZE,
    SCARCE_MESSAGE_SIZE,
    SUPER_SEED_HOLD,
    TARGET_MESSAGE_SIZE,
    WANT_HAVE_REPLACE_SIZE,
    Config,
)
from .message import Entry, WireBlock, block_size
from .rate import TokenBucket
from .statistics import Traffic

_COPIES_REMEMBERED = 16_384
"""Blocks of which it is remembered that some peer got a copy (16,384 leaves of 256 KiB: 4 GiB)."""


class Server:
    """All ledgers, and the decision engine over them."""

    def __init__(self, config: Config) -> None:
        self.ledgers: dict[PeerId, Ledger] = {}
        self._config = config
        self._bucket = TokenBucket(config.upload_rate)
        self._waiting: dict[Multihash, dict[PeerId, list[Cid]]] = {}
        self._copies: dict[Cid, float] = {}
        self._busy: dict[PeerId, Ledger] = {}
        """The peers that some block could be sent to."""
        self._outstanding = 0
        self._virtual = 0
        self._wake = inf

    @property
    def next_deadline(self) -> float:
        """When `next_reads` has something to do although nothing happened."""
        return self._wake

    @property
    def waits(self) -> bool:
        """Whether a peer waits for a block that we lack."""
        return bool(self._waiting)

    def connected(self, peer: PeerId, traffic: Traffic, changed: Callable[[], None]) -> None:
        """Open a ledger. `changed`: there is something to send."""
        self.ledgers[peer] = Ledger(peer, self._config.upload_rate_per_peer, traffic, changed)

    def disconnected(self, peer: PeerId) -> None:
        """Free everything of `peer`."""
        ledger = self.ledgers.pop(peer, None)
        self._busy.pop(peer, None)
        if ledger is None:
            return
        for want in ledger.wants.values():
            if want.size is None:
                self._no_longer_waiting(want.cid, peer)
        self._outstanding -= ledger.outstanding

    # -- wants ---------------------------------------------------------------------------------------------------------

    def receive(self, peer: PeerId, entries: Sequence[Entry], sizes: Sequence[int | None], *, full: bool) -> None:
        """A wantlist of `peer`; `sizes[i]` is that of the i-th block here, None where we lack it."""
        ledger = self.ledgers.get(peer)
        if ledger is None:
            return
        if full:
            ledger.presences.clear()
            for cid in [cid for cid, want in ledger.wants.items() if not want.claimed]:
                self._forget(ledger, cid)
        for entry, size in zip(entries, sizes, strict=True):
            if not entry.cancel:
                self._want(ledger, entry, size)
        for entry in entries:
            if entry.cancel:
                self._forget(ledger, entry.cid)

    def _want(self, ledger: Ledger, entry: Entry, size: int | None) -> None:
        if size is not None and block_size(size) > MAX_MESSAGE_SIZE:
            size = None  # no peer could receive it
        known = ledger.wants.get(entry.cid)
        want_block = not entry.want_have
        if known is not None:
            if known.claimed:
                return  # on its way
            want_block = want_block or known.want_block
            ledger.unqueue(known)
        elif len(ledger.wants) >= MAX_WANTS_PER_PEER and not self._make_room(ledger, entry):
            return
        if size is None:
            if entry.send_dont_have:
                ledger.say(entry.cid, held=False)
            else:  # the peer's last word counts, for an answer to an earlier one that has not left as well
                ledger.presences.pop(entry.cid, None)
            want = PeerWant(entry.cid, want_block, entry.priority, entry.send_dont_have, None)
            ledger.wants[entry.cid] = want
            if known is None or known.size is not None:
                self._waiting.setdefault(multihash_of(entry.cid), {}).setdefault(ledger.peer, []).append(entry.cid)
            return
        if known is not None and known.size is None:
            self._no_longer_waiting(entry.cid, ledger.peer)
        self._serve(ledger, PeerWant(entry.cid, want_block, entry.priority, entry.send_dont_have, size))

    def _serve(self, ledger: Ledger, want: PeerWant) -> None:
        """Queue the answer to a want for a block that we hold."""
        if want.want_block or (want.size is not None and want.size <= WANT_HAVE_REPLACE_SIZE):
            ledger.presences.pop(want.cid, None)
            ledger.wants[want.cid] = want
            ledger.queue(want)
            self._busy[ledger.peer] = ledger
        else:
            ledger.wants.pop(want.cid, None)
            ledger.say(want.cid, held=True)

    def _make_room(self, ledger: Ledger, entry: Entry) -> bool:
        """Drop a want for a block that we lack, else one of lower priority; False when `entry` is the least."""
        for cid, want in ledger.wants.items():
            if want.size is None:
                self._forget(ledger, cid)
                return True
        lowest = min(ledger.wants.values(), key=lambda want: want.priority)
        if lowest.priority >= entry.priority:
            return False
        self._forget(ledger, lowest.cid)
        return True

    def _forget(self, ledger: Ledger, cid: Cid) -> None:
        want = ledger.wants.pop(cid, None)
        ledger.presences.pop(cid, None)
        if want is None:
            return
        ledger.unqueue(want)
        if want.size is None:
            self._no_longer_waiting(cid, ledger.peer)

    def _no_longer_waiting(self, cid: Cid, peer: PeerId) -> None:
        key = multihash_of(cid)
        peers = self._waiting[key]
        peers[peer].remove(cid)
        if not peers[peer]:
            del peers[peer]
        if not peers:
            del self._waiting[key]

    def stored(self, blocks: Sequence[tuple[Cid, int]]) -> None:
        """Blocks arrived in the store: answer those who waited for them."""
        if not self._waiting:
            return
        for stored, size in blocks:
            for peer, cids in self._waiting.pop(multihash_of(stored), {}).items():
                ledger = self.ledgers[peer]
                for cid in cids:
                    want = ledger.wants[cid]
                    want.size = size
                    self._serve(ledger, want)

    # -- blocks --------------------------------------------------------------------------------------------------------

    def next_reads(self, now: float) -> list[tuple[PeerId, list[Cid]]]:
        """Which blocks to read for whom, in the order of who is served next."""
        self._wake = inf
        reads: list[tuple[PeerId, list[Cid]]] = []
        ready: list[Ledger] = []
        for ledger in list(self._busy.values()):
            if not ledger.busy:
                del self._busy[ledger.peer]
            elif self._may_read(ledger, now):
                ready.append(ledger)
        while ready and self._outstanding < self._config.max_outstanding:
            ledger = min(ready, key=lambda candidate: candidate.served)
            ready.remove(ledger)
            cids = self._batch(ledger, now)
            if cids:
                reads.append((ledger.peer, cids))
        return reads

    @property
    def _scarce(self) -> bool:
        """Whether peers together hold half of what they may: then slow ones must not take all of the rest."""
        return 2 * self._outstanding >= self._config.max_outstanding

    def _may_read(self, ledger: Ledger, now: float) -> bool:
        if ledger.reading or ledger.ready is not None or ledger.outstanding >= self._config.max_outstanding_per_peer:
            return False
        if ledger.outstanding and self._scarce:
            return False
        at = max(self._bucket.ready_at(now), ledger.bucket.ready_at(now))
        if at > now:
            self._wake = min(self._wake, at)
        return at <= now

    def _batch(self, ledger: Ledger, now: float) -> list[Cid]:
        """The next blocks for one message to this peer; they are its debt until the message has left."""
        cids: list[Cid] = []
        total = 0
        target = SCARCE_MESSAGE_SIZE if self._scarce else TARGET_MESSAGE_SIZE
        while total < target:
            want = ledger.next_queued() or self._next_standing(ledger, now)
            if want is None or want.size is None:
                break
            size = block_size(want.size)
            if cids and (total + size > target or want.size > PACKED_BLOCK_SIZE):
                break
            ledger.unqueue(want)
            want.claimed = True
            cids.append(want.cid)
            total += size
            self._copies[want.cid] = now
        if len(self._copies) > _COPIES_REMEMBERED:
            self._copies = dict(list(self._copies.items())[_COPIES_REMEMBERED // 2 :])
        if cids:
            self._virtual = max(ledger.served, self._virtual)
            ledger.served = self._virtual + total
            ledger.reading = total
            ledger.outstanding += total
            self._outstanding += total
            self._bucket.take(total, now)
            ledger.bucket.take(total, now)
        return cids

    def _next_standing(self, ledger: Ledger, now: float) -> PeerWant | None:
        oldest: PeerWant | None = None
        oldest_at = inf
        for want in ledger.standing.values():
            at = self._copies.get(want.cid, -inf)
            if at == -inf:
                return want
            if at < oldest_at:
                oldest, oldest_at = want, at
        if oldest is not None and now < oldest_at + SUPER_SEED_HOLD:
            self._wake = min(self._wake, oldest_at + SUPER_SEED_HOLD)
            return None
        return oldest

    def read(self, peer: PeerId, blocks: Sequence[tuple[Cid, Data | None]]) -> None:
        """The store's answer to one of `next_reads`. A block that has vanished is answered like one we lack."""
        ledger = self.ledgers.get(peer)
        if ledger is None:
            return
        ready: list[tuple[Cid, Data]] = []
        total = 0
        for cid, data in blocks:
            want = ledger.wants.get(cid)
            if want is None or not want.claimed:
                continue  # cancelled meanwhile; if it was asked for again, that want has its own turn
            if data is None:
                del ledger.wants[cid]
                self._want(ledger, Entry(cid, want.priority, False, not want.want_block, want.send_dont_have), None)
                continue
            ready.append((cid, data))
            total += block_size(len(data))
        self._release(ledger, ledger.reading - total)
        ledger.reading = 0
        if ready:
            ledger.put_ready(ready, total)

    def take_blocks(self, peer: PeerId) -> list[WireBlock]:
        """The blocks of the next message to `peer`, less those it cancelled; empty when there is none."""
        ledger = self.ledgers[peer]
        blocks: list[WireBlock] = []
        total = 0
        for cid, data in ledger.ready or ():
            want = ledger.wants.get(cid)
            if want is not None and want.claimed:
                del ledger.wants[cid]
                blocks.append(WireBlock(prefix_of(cid), data))
                ledger.traffic.bytes_sent += len(data)
                total += block_size(len(data))
        ledger.traffic.blocks_sent += len(blocks)
        self._release(ledger, ledger.ready_size - total)
        ledger.sending, ledger.ready, ledger.ready_size = total, None, 0
        return blocks

    def sent(self, peer: PeerId) -> None:
        """That message has left, or is lost."""
        ledger = self.ledgers.get(peer)
        if ledger is not None:
            self._release(ledger, ledger.sending)
            ledger.sending = 0

    def _release(self, ledger: Ledger, size: int) -> None:
        ledger.outstanding -= size
        self._outstanding -= size
