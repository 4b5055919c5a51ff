"""Every bound of the exchange, by name and with its reason. Bytes and seconds throughout.

What an operator may want to change is a field of `Config`; the rest is a constant, because changing it breaks peers.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

# -- the wire ----------------------------------------------------------------------------------------------------------

MAX_MESSAGE_SIZE = 4 * MIB
"""Largest message accepted; equal is fine, larger resets the stream (boxo network.MessageSizeMax, msgio)."""

MAX_PREFIX_SIZE = 40
"""Four varints of at most ten bytes (boxo cid prefix); the digest is not part of a prefix."""

MAX_CID_SIZE = 168
"""Longest CID taken from the wire: 4 varints of 10 bytes and a 128-byte digest (boxo MaximumAllowedCid)."""

MAX_ENTRIES_PER_MESSAGE = 65_536
"""Want entries and presences in one message. Kubo cuts its wantlists at 2 MiB, about 43,000 entries."""

MAX_WANT_MESSAGE_ENTRIES = 1024
"""Entries that we put into one message: about 50 KiB, one yamux frame."""

TARGET_MESSAGE_SIZE = 2 * MIB
"""Blocks are packed into a message up to this size: half of what peers accept, milliseconds of a fast link."""

PACKED_BLOCK_SIZE = 512 * KIB
"""Blocks above this travel alone, as Helia expects of large ones; packing them gains nothing."""

SCARCE_MESSAGE_SIZE = 256 * KIB
"""The same while all peers together hold half of `Config.max_outstanding`; each then gets one message at a time, so
that dozens of peers that do not read leave room for those that do."""

# -- the serving side --------------------------------------------------------------------------------------------------

MAX_WANTS_PER_PEER = 1024
"""Wants kept for one peer (CVE-2023-25568; boxo MaxQueuedWantlistEntriesPerPeer)."""

WANT_HAVE_REPLACE_SIZE = 1024
"""A want-have for a block up to this size is answered with the block (boxo DefaultWantHaveReplaceSize)."""

MAX_PRESENCES_QUEUED = 4096
"""HAVE and DONT_HAVE waiting for one peer's stream; a peer that lets more pile up does not read: it is dropped."""

SUPER_SEED_HOLD = 0.25
"""Seconds before a block that one peer got is sent to a second one that only has a standing want for it."""

SEND_TIMEOUT_FLOOR = 10.0
SEND_TIMEOUT_RATE = 125_000.0
"""A message must leave within the floor plus its size at 1 Mbit/s. boxo allows 100 kbit/s (bsnet `sendTimeout`) for
messages of one block; ours are longer, and a peer that slow holds them in our memory."""

# -- the fetching side -------------------------------------------------------------------------------------------------

WINDOW_START = 1 * MIB
"""Bytes asked of a peer whose speed is not known. Kubo's servers keep as much outstanding."""

WINDOW_TRIPS = 1.5
WINDOW_DELAY = 0.01
"""A peer's window is its measured rate times this many of its shortest delays plus so many seconds: enough to grow
geometrically while the window is what limits it, and to cover scheduling and batching once it is not."""

WINDOW_SLACK = 3 * MIB // 2
WINDOW_SLACK_DELAY = 0.08
"""Bytes kept in flight on top of that, but never more than this many seconds of the peer's rate. Equal for fast peers,
so that those that share our downlink, and would keep any split of it, drift towards an equal one."""

MAX_ASKS_PER_PEER = 448
MAX_PROBES_PER_PEER = 448
"""Want-blocks and want-haves outstanding at one peer; their sum stays below the 1,024 that Kubo keeps."""

MAX_STANDING_PER_PEER = 64
"""Want-blocks left standing at an origin while neighbours trade (swarm simulation, strategy f3)."""

IN_ORDER_WANTS = 32
"""Wants, counted from the first gap, that are fetched in file order whatever their rarity (strategy f3)."""

RAREST_SAMPLE = 32
"""Announced wants of a peer that are compared for rarity; more costs CPU and gains nothing measurable."""

MAX_LATE_CANCELS = 64
LATE_CANCEL_DELAY = 0.1
"""Cancels of want-haves that wait for another message to the same peer, and seconds that they wait at most. Without
waiting, each block costs a message to every other peer of its session."""

MAX_SESSION_PEERS = 32
"""Peers one session trades with: announcements cost about 111 bytes x peers for each block (strategy f3, k16/32)."""

MAX_BROADCAST_WANTS = 64
"""Wants of a session asked of every connected peer when nobody is known to hold them (boxo broadcastLiveWantsLimit)."""

DEADLINE_CONSTANT = 0.25
DEADLINE_MULTIPLE = 3.0
"""An ask is overdue after the constant plus this multiple of the time its peer's queue should take."""

FIRST_DEADLINE = 1.0
"""Seconds before an ask to a peer whose rate is not known is overdue."""

LONGEST_WAIT = 5.0
"""Seconds that a peer's queue is believed to take at most, however slow it was: a leaf at 50 kB/s."""

LONGEST_WAIT_BESIDE_OTHERS = 1.0
"""The same where other peers hold the block too: a frozen peer that was slow before must not hold it for long."""

STANDING_DEADLINE = 2.5
"""Seconds in which an origin that delivers nothing at all loses the standing wants left with it."""

HARD_DEADLINE_MULTIPLE = 4.0
"""A peer that delivers other blocks may be late by this much more before one want is taken from it."""

STALL_BACKOFF_MAX = 15.0
"""A peer that stalled is probed with a single want, after 0.25 s at first, then twice as long, up to this."""

ENDGAME_SLACK = 0.05
"""Seconds past its expected arrival after which a want of the last window is asked of a second peer as well."""

RATE_MEMORY = 0.25
"""Seconds over which a peer's rate is averaged."""

DEFAULT_BLOCK_ESTIMATE = 256 * KIB
"""Assumed size of a block before one has arrived (chunker `size-262144`)."""

SEARCH_DELAY = 1.0
"""Seconds without progress before routing is asked for providers (boxo ProviderSearchDelay)."""

REBROADCAST_INTERVAL = 30.0
"""Wants that nobody holds are asked of everyone again after this long (boxo RebroadcastInterval)."""

ASKED_MEMORY = 2048
"""CIDs asked of a peer that are remembered after they were settled, so that a late answer is not taken for spam."""

# -- misbehaviour ------------------------------------------------------------------------------------------------------

MIN_UNASKED_BLOCKS = 4
UNASKED_PER_GOOD = 1 / 16
"""A peer is banned at this many blocks that nobody asked of it, if they are more than this share of its good ones:
one rotten disk block does not exile a node, a liar costs at most its first window."""

MAX_UNASKED_BYTES = 16 * MIB
"""Bytes of unasked blocks after which a peer is banned whatever it delivered."""

BAN_SECONDS = 600.0
BAN_SECONDS_MAX = 86_400.0
"""A first ban; each further one of the same peer doubles it, up to a day."""


@dataclass(frozen=True)
class Config:
    """What an operator may tune. The defaults suit nodes of one cluster."""

    max_outstanding_per_peer: int = 4 * MIB
    """Bytes of blocks read or being written for one peer (Kubo 1 MiB; "greedy" starts at 10 MB in its documents)."""

    max_outstanding: int = 64 * MIB
    """The same over all peers: what slow readers together may hold of our memory."""

    window_max: int = 16 * MIB
    """Upper bound of bytes asked of one peer: 16 MiB is 130 ms at 1 Gbit/s."""

    upload_rate: float = float("inf")
    """Bytes of blocks a second to all peers together."""

    upload_rate_per_peer: float = float("inf")
    """Bytes of blocks a second to one peer."""

    download_rate: float = float("inf")
    """Bytes of blocks a second asked of all peers together."""

    download_rate_per_peer: float = float("inf")
    """Bytes of blocks a second asked of one peer."""

    max_streams_per_peer: int = 256
    """Inbound streams open at once from one peer: Kubo's server opens one for every reply, 8 at a time."""

    max_unstored: int = 32 * MIB
    """Bytes received and not yet stored, over all peers; beyond it readers wait."""
