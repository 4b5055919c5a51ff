"""A liar is banned, `ipcs peers` lists it, `ipcs bitswap unban` forgives it; real processes, the real command line."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio

from ipcs.cli import run
from ipcs.config import NodeConfig
from ipcs.node import open_node
from ipcs.testing.peers import open_script

pytestmark = [pytest.mark.interop, pytest.mark.slow]

LEAVES = 40


async def test_a_liar_is_listed_and_can_be_forgiven(random_file, tmp_path, capsys):
    original = random_file(LEAVES * 262144)

    async def ipcs(*words):
        code = await trio.to_thread.run_sync(
            partial(run, [*words, "--repo", str(tmp_path / "repo"), "--timeout", "30s", "--json"])
        )
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    async with (
        open_script(tmp_path / "liar", "liar_peer.py", "--lie", "unsolicited") as liar,
        open_script(tmp_path / "honest", "ipcs_peer.py", "--repo", str(tmp_path / "honest" / "repo")) as honest,
        open_node(NodeConfig(repo=tmp_path / "repo", listen=("/ip4/127.0.0.1/tcp/0",))) as node,
    ):
        cid = (await honest.call("add", path=str(original)))["cid"]
        await ipcs("connect", liar.addr)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ipcs, "pin", "add", cid)
            with trio.fail_after(20):
                while not node.exchange.bans():
                    await trio.lowlevel.checkpoint()
            await node.host.connect(honest.addr)
        _, rows = await ipcs("peers")
        banned = [row["banned"] for row in rows if "banned" in row]
        assert [(row["id"], row["times"]) for row in banned] == [(liar.peer_id, 1)]
        assert 500 < banned[0]["seconds_left"] <= 600
        assert [row["id"] for row in rows if "banned" not in row] == [honest.peer_id]
        _, (statistics,) = await ipcs("bitswap", "stat")
        assert statistics["unasked_blocks"] >= 4
        assert [peer["peer"] for peer in statistics["peers"]] == [honest.peer_id]
        assert await ipcs("bitswap", "unban", liar.peer_id) == (0, [{"id": liar.peer_id}])
        assert (await ipcs("bitswap", "unban", liar.peer_id))[0] == 4
        assert node.exchange.bans() == []
