"""The command line and the node as a user runs them, with a real Kubo and with providers that die."""

from __future__ import annotations

import filecmp

import pytest
import trio

from ipcs.errors import IpcsError
from ipcs.testing.node import open_node_process

pytestmark = [pytest.mark.interop]

MB = 1_000_000
LEAF = 262144


async def test_kubo_and_we_fetch_from_each_other(kubo, random_file, tmp_path):
    to_kubo, to_us, copy = random_file(5 * MB, 1), random_file(5 * MB, 2), tmp_path / "copy"
    async with kubo() as theirs, open_node_process(tmp_path / "ours") as ours:
        (connected,) = await ours.json("connect", theirs.addr)
        assert connected["id"] == theirs.peer_id

        (added,) = await ours.json("add", to_kubo)
        await theirs.call("get", cid=added["cid"], path=str(copy))
        assert filecmp.cmp(to_kubo, copy, shallow=False)
        copy.unlink()

        cid = (await theirs.call("add", path=str(to_us)))["cid"]
        await ours.ipcs("get", cid, "-o", copy, "--timeout", "60s")
        assert filecmp.cmp(to_us, copy, shallow=False)


async def put_leaves(node, file, which):
    """Put the leaves of `file` for whose index `which(index)` holds, as raw blocks."""
    data = file.read_bytes()
    for index, start in enumerate(range(0, len(data), LEAF)):
        if which(index):
            await node.ipcs("block", "put", stdin=data[start : start + LEAF])


@pytest.mark.slow
async def test_a_provider_dies_with_blocks_that_nobody_else_has(random_file, tmp_path):
    original, copy = random_file(8 * LEAF), tmp_path / "copy"
    async with (
        open_node_process(tmp_path / "whole") as whole,
        open_node_process(tmp_path / "half") as half,
        open_node_process(tmp_path / "fetcher") as fetcher,
    ):
        (added,) = await whole.json("add", original)
        root = await whole.ipcs("block", "get", added["cid"])
        await half.ipcs("block", "put", "--cid-codec", "dag-pb", stdin=root)
        await put_leaves(half, original, lambda index: index % 2 == 0)
        for provider in (whole, half):
            await fetcher.ipcs("connect", provider.address)
        whole.process.kill()
        await whole.process.wait()

        missing = f"timed out after 3 s: 4 blocks of {added['cid']} are missing, .*; peers: {half.peer_id}"
        with trio.fail_after(20), pytest.raises(IpcsError, match=missing):
            await fetcher.ipcs("get", added["cid"], "-o", copy, "--timeout", "3s")
        assert not copy.exists()

        await put_leaves(half, original, lambda index: index % 2 == 1)  # a replica of what died
        await fetcher.ipcs("get", added["cid"], "-o", copy, "--timeout", "30s")
        assert filecmp.cmp(original, copy, shallow=False)
