"""The harness itself: foreign peers start, exchange files among themselves and end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import trio

from ipcs.errors import DeadlineExceeded
from ipcs.testing.peers import PROJECT, PeerError, open_peer

pytestmark = pytest.mark.interop

ECHO = """
import json, sys, time
print("noise that is no protocol")
print(json.dumps({"ready": True, "peer_id": "p", "addrs": ["a"]}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "die":
        sys.exit(3)
    if request["op"] != "hang":
        print(json.dumps({"id": request["id"], "ok": request["op"] == "echo", "error": "no such op"}), flush=True)
"""


async def test_calls_are_answered_refused_or_bounded(tmp_path):
    async with open_peer("echo", [sys.executable, "-c", ECHO], tmp_path) as peer:
        assert (await peer.call("echo"))["ok"]
        with pytest.raises(PeerError, match="no such op"):
            await peer.call("other")
        with pytest.raises(DeadlineExceeded, match="did not answer 'hang'"):
            await peer.call("hang", timeout=0.01)
        with pytest.raises(PeerError, match="ended during 'die'"):
            await peer.call("die")
        with pytest.raises(PeerError, match="has ended"):
            await peer.call("echo")


async def test_the_process_has_ended_on_leaving_even_when_it_was_frozen(tmp_path):
    async with open_peer("echo", [sys.executable, "-c", ECHO], tmp_path) as peer:
        peer.freeze()
    assert peer.process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(peer.process.pid, 0)


async def test_a_peer_that_does_not_start_shows_its_log(tmp_path):
    with pytest.raises(PeerError, match="no such library"):
        async with open_peer("bad", [sys.executable, "-c", "raise SystemExit('no such library')"], tmp_path):
            pass


@pytest.mark.slow
async def test_kubo_and_helia_exchange_files(kubo, helia, random_file, tmp_path):
    original = random_file(3_000_000)
    async with kubo() as a, helia() as b:
        await b.call("connect", addr=a.addr)
        for provider, fetcher in ((a, b), (b, a)):
            cid = (await provider.call("add", path=str(original)))["cid"]
            copy = tmp_path / f"copy-of-{fetcher.name}"
            await fetcher.call("get", cid=cid, path=str(copy))
            assert await trio.Path(copy).read_bytes() == original.read_bytes()


def test_without_go_its_peers_are_missed_loudly_and_nothing_fails(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "env", "find", "rm", "sha256sum", "sort", "xargs"):
        (tools / tool).symlink_to(shutil.which(tool))
    stale = tmp_path / "peers" / "suite" / "suite.test"
    stale.parent.mkdir(parents=True)
    stale.touch()
    done = subprocess.run(
        [PROJECT / "scripts" / "test-peers", "suite", "kubo-current"],
        env={"PATH": str(tools), "IPCS_PEERS": str(tmp_path / "peers")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for peer in ("suite", "kubo-current"):
        assert f"!!! NOT BUILT: {peer}: no go on the PATH" in done.stderr
    assert not stale.exists(), "what other sources made is not tested in their place"
