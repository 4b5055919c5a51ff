"""Peers that break Bitswap, as real processes: nothing of theirs is stored, and honest peers still deliver."""

from __future__ import annotations

import filecmp
from functools import partial

import pytest

from ipcs.errors import DeadlineExceeded
from ipcs.testing.peers import open_script

pytestmark = [pytest.mark.interop, pytest.mark.slow]

LEAF = 262144
LEAVES = 40
LIES = ["wrong-bytes", "oversized", "unsolicited", "truncated", "silent"]


def open_ours(directory):
    return open_script(directory, "ipcs_peer.py", "--repo", str(directory / "repo"))


def open_liar(tmp_path, lie):
    return open_script(tmp_path / "liar", "liar_peer.py", "--lie", lie)


async def until_asked(liar):
    while not (await liar.call("stat"))["asked"]:
        pass  # each look is a round trip to another process


@pytest.mark.parametrize("lie", LIES)
async def test_an_honest_peer_delivers_beside_a_liar(lie, random_file, tmp_path, nursery):
    original, copy = random_file(LEAVES * LEAF), tmp_path / "copy"
    async with (
        open_liar(tmp_path, lie) as liar,
        open_ours(tmp_path / "honest") as honest,
        open_ours(tmp_path / "fetcher") as fetcher,
    ):
        cid = (await honest.call("add", path=str(original)))["cid"]
        await fetcher.call("connect", addr=liar.addr)
        nursery.start_soon(partial(fetcher.call, "fetch", cid=cid))
        await until_asked(liar)
        await fetcher.call("connect", addr=honest.addr)
        await fetcher.call("get", cid=cid, path=str(copy))
        assert (await fetcher.call("stat"))["blocks"] == LEAVES + 1
    assert filecmp.cmp(original, copy, shallow=False)


@pytest.mark.parametrize("lie", LIES)
async def test_a_liar_alone_gets_nothing_stored_and_the_node_lives_on(lie, random_file, tmp_path):
    original, copy = random_file(2 * LEAF), tmp_path / "copy"
    async with (
        open_liar(tmp_path, lie) as liar,
        open_ours(tmp_path / "honest") as honest,
        open_ours(tmp_path / "fetcher") as fetcher,
    ):
        await fetcher.call("connect", addr=liar.addr)
        cid = (await liar.call("offer"))["cid"]  # a block that exists: 3 MiB, which nobody may send
        with pytest.raises(DeadlineExceeded):
            await fetcher.call("fetch", cid=cid, timeout=2)
        await until_asked(liar)
        assert (await fetcher.call("stat"))["blocks"] == 0

        cid = (await honest.call("add", path=str(original)))["cid"]
        await fetcher.call("connect", addr=honest.addr)
        await fetcher.call("get", cid=cid, path=str(copy))
    assert filecmp.cmp(original, copy, shallow=False)
