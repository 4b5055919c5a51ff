"""What one peer has been told of our wants, and what it must still be told. Pure.

`sent` is what the peer holds of us, as far as we know; `_pending` the difference to what we want of it. A want that is
withdrawn before it was sent costs nothing; a cancel is only sent for what was really sent (boxo messagequeue). A
want-block cannot be turned into a want-have in place (the stronger one wins at the peer): cancel first, the new want
goes into a later message, because within one message entries of a CID are merged.

The cancel of a want-have is not urgent: its peer owes us no bytes. It waits in `_later` for a message that leaves
anyway, because one message for each block would cost both sides more than the block's other bookkeeping.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from ..cid import Cid
from .limits import MAX_LATE_CANCELS
from .message import Entry


class Wantlist:
    """Our wants as one peer should hold them. Iteration orders are insertion orders.

    `changed` is called whenever there is something new to say.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self.sent: dict[Cid, Entry] = {}
        self._pending: dict[Cid, Entry] = {}
        self._later: dict[Cid, None] = {}
        self._resend = False

    @property
    def dirty(self) -> bool:
        """Whether `take` has something to say."""
        return self.urgent or bool(self._later)

    @property
    def urgent(self) -> bool:
        """Whether that should leave now: it is more than a few cancels of want-haves."""
        return bool(self._pending) or self._resend or len(self._later) >= MAX_LATE_CANCELS

    def hurry(self) -> None:
        """What could wait has waited long enough."""
        self._join_later()
        self._changed()

    def _join_later(self) -> None:
        for cid in self._later:
            self._pending[cid] = Entry(cid, 0, cancel=True)
        self._later.clear()

    def __contains__(self, cid: object) -> bool:
        """Whether the peer was told, or will be, that we want `cid`."""
        entry = self._pending.get(cid) or self.sent.get(cid)  # type: ignore[call-overload]
        return entry is not None and not entry.cancel

    def want(self, entry: Entry) -> None:
        """Tell the peer about `entry`; what it was told already is not said again."""
        self._later.pop(entry.cid, None)
        if self.sent.get(entry.cid) == entry:
            self._pending.pop(entry.cid, None)
        else:
            self._pending[entry.cid] = entry
            self._changed()

    def cancel(self, cid: Cid) -> None:
        """Withdraw: a cancel when the peer holds the want, nothing when it was never told."""
        self._pending.pop(cid, None)
        known = self.sent.get(cid)
        if known is None:
            return
        if known.want_have:
            self._later[cid] = None
        else:
            self._pending[cid] = Entry(cid, 0, cancel=True)
        self._changed()

    def answered(self, cid: Cid) -> None:
        """The peer sent the block: it has dropped the want by itself."""
        self.sent.pop(cid, None)
        self._later.pop(cid, None)
        pending = self._pending.get(cid)
        if pending is not None and pending.cancel:
            del self._pending[cid]

    def announced(self, cid: Cid) -> None:
        """The peer said HAVE: that ends a want-have at its side, not a want-block."""
        entry = self.sent.get(cid)
        if entry is not None and entry.want_have:
            self.answered(cid)

    def restart(self) -> None:
        """The stream broke: what the peer holds is not known. The next message states the full list."""
        self._resend = True
        self._changed()

    def take(self, limit: int) -> tuple[list[Entry], bool]:
        """The entries of the next message, at most `limit`, and whether they are the full list."""
        full, self._resend = self._resend, False
        self._join_later()
        if full:
            for cid, entry in self.sent.items():
                self._pending.setdefault(cid, entry)
            self._pending = {cid: entry for cid, entry in self._pending.items() if not entry.cancel}
            self.sent = {}
        taken = [self._next(entry) for entry in islice(self._pending.values(), limit)]
        for entry in taken:
            if entry.cancel:
                self.sent.pop(entry.cid, None)
                if self._pending[entry.cid].cancel:
                    del self._pending[entry.cid]
            else:
                self.sent[entry.cid] = self._pending.pop(entry.cid)
        return taken, full

    def _next(self, entry: Entry) -> Entry:
        """`entry`, or the cancel that must go before it."""
        known = self.sent.get(entry.cid)
        if known is not None and entry.want_have and not known.want_have:
            return Entry(entry.cid, 0, cancel=True)
        return entry
