"""What a session takes the size of its blocks to be: windows count bytes, so what is asked at once depends on it."""

from __future__ import annotations

import random

from ipcs.bitswap import events
from ipcs.bitswap.engine import Engine
from ipcs.bitswap.limits import DEFAULT_BLOCK_ESTIMATE, WINDOW_START, Config
from ipcs.block import make_block
from ipcs.cid import DAG_PB, RAW, PeerId

PEER = PeerId("p")
LEAVES = [make_block(number.to_bytes(2, "big"), RAW) for number in range(300)]


def after_the_root(size, codec):
    """An engine that got a root of `size` bytes and wants the leaves below it."""
    root = make_block(bytes(size), codec)
    engine = Engine(Config(), random.Random(1))
    engine.handle(events.PeerConnected(PEER), 0.0)
    engine.handle(events.SessionOpened(1, root.cid), 0.0)
    engine.handle(events.BlocksWanted(1, [root.cid]), 0.0)
    engine.handle(events.MessageReceived(PEER, haves=[root.cid]), 0.001)
    engine.handle(events.MessageReceived(PEER, blocks=[root]), 0.002)
    engine.handle(events.BlocksWanted(1, [leaf.cid for leaf in LEAVES]), 0.002)
    return engine


def test_a_small_inner_node_does_not_make_leaves_small():
    """Else all leaves would be asked for at once, and the endgame would begin before the first has come."""
    engine = after_the_root(14_000, DAG_PB)
    assert len(engine.client.remotes[PEER].asks) <= 2 * WINDOW_START // DEFAULT_BLOCK_ESTIMATE


def test_the_first_leaf_tells_the_size_of_the_others():
    engine = after_the_root(14_000, DAG_PB)
    engine.handle(events.MessageReceived(PEER, blocks=[LEAVES[0]]), 0.003)
    assert engine.client.sessions[1].estimate == len(LEAVES[0].data)


def test_a_large_inner_node_is_believed():
    assert after_the_root(1_000_000, DAG_PB).client.sessions[1].estimate == 1_000_000
