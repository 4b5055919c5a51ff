"""What goes into the engine and what comes out. Values only; batches, not single blocks, cross this boundary.

Every action's outcome returns as an event: SendMessage -> MessageSent or StreamFailed, ReadBlocks -> BlocksRead,
StoreBlocks -> BlocksStored or StoreFailed, Disconnect -> PeerDisconnected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from ..block import Block, Data
from ..cid import Cid, PeerId
from .message import Entry, Message


class Lane(Enum):
    """The two long-lived streams to a peer: what is small and urgent never waits behind blocks."""

    CONTROL = "control"
    BLOCKS = "blocks"


# -- events ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """The first connection to `peer` is up."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The last connection to `peer` is gone; nothing that was sent to it is known to have arrived."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """We opened a stream to `peer` and know what it speaks: `presences` is false before Bitswap 1.2.0."""

    peer: PeerId
    presences: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """Whether we read from peers. While we do not, because what arrived must be stored first, no peer is late."""

    paused: bool


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """One message of `peer`, its blocks already hashed."""

    peer: PeerId
    entries: Sequence[Entry] = ()
    sizes: Sequence[int | None] = ()
    """For each entry the size in bytes of that block in the local store, None when it is not there."""
    full: bool = False
    haves: Sequence[Cid] = ()
    dont_haves: Sequence[Cid] = ()
    blocks: Sequence[Block] = ()
    refused: int = 0
    """Blocks of the message that have no CID we could have asked for (malformed prefix, refused hash)."""
    refused_bytes: int = 0


@dataclass(frozen=True, slots=True)
class MessageSent:
    """The message last given out for this lane has left."""

    peer: PeerId
    lane: Lane


@dataclass(frozen=True, slots=True)
class StreamFailed:
    """The stream of this lane broke; a new one can be tried. What it carried may be lost."""

    peer: PeerId
    lane: Lane


@dataclass(frozen=True, slots=True)
class BlocksRead:
    """The store's answer to `ReadBlocks`, in its order; None where a block has vanished."""

    peer: PeerId
    blocks: Sequence[tuple[Cid, Data | None]]


@dataclass(frozen=True, slots=True)
class BlocksStored:
    """Blocks that are now in the local store, whoever put them there: (CID, size)."""

    blocks: Sequence[tuple[Cid, int]]


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store refused blocks (disk full); their wants cannot be met."""

    cids: Sequence[Cid]


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A caller wants a DAG. `hints` are peers said to hold all of it; `estimate` the size of its blocks, in bytes."""

    session: int
    root: Cid
    hints: Sequence[PeerId] = ()
    estimate: int = 0


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The caller left; wants of this session alone are cancelled."""

    session: int


@dataclass(frozen=True, slots=True)
class BlocksWanted:
    """The session needs blocks that the store lacks, in this order. `reading`: somebody waits for them now."""

    session: int
    cids: Sequence[Cid]
    reading: bool = False


@dataclass(frozen=True, slots=True)
class ProvidersFound:
    """Peers said to hold the session's DAG (a routing answer)."""

    session: int
    peers: Sequence[PeerId]


@dataclass(frozen=True, slots=True)
class TimePassed:
    """`next_deadline()` has come."""


Event: TypeAlias = (
    PeerConnected
    | PeerDisconnected
    | StreamOpened
    | Reading
    | MessageReceived
    | MessageSent
    | StreamFailed
    | BlocksRead
    | BlocksStored
    | StoreFailed
    | SessionOpened
    | SessionClosed
    | BlocksWanted
    | ProvidersFound
    | TimePassed
)

# -- actions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Write `message` on the peer's stream of `lane`. At most one per lane is out at a time."""

    peer: PeerId
    lane: Lane
    message: Message


@dataclass(frozen=True, slots=True)
class ReadBlocks:
    """Read these from the store, for `peer`."""

    peer: PeerId
    cids: Sequence[Cid]


@dataclass(frozen=True, slots=True)
class StoreBlocks:
    """Put these verified and wanted blocks into the store."""

    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DeliverBlocks:
    """The session's wants that are met (in the store now)."""

    session: int
    cids: Sequence[Cid]


@dataclass(frozen=True, slots=True)
class FindProviders:
    """No connected peer is known to hold what the session wants: ask routing for others."""

    session: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close all connections to `peer`."""

    peer: PeerId
    reason: str


Action: TypeAlias = SendMessage | ReadBlocks | StoreBlocks | DeliverBlocks | FindProviders | Disconnect
