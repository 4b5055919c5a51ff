"""Providers that freeze or die in the middle of a transfer, as real processes."""

from __future__ import annotations

import filecmp
from contextlib import AsyncExitStack

import pytest

from ipcs.testing.peers import open_script

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SIZE = 120_000_000
PROVIDERS = 3


def open_ours(directory):
    return open_script(directory, "ipcs_peer.py", "--repo", str(directory / "repo"))


async def until_received(fetcher, peer, blocks):
    while (await fetcher.call("stat"))["received"].get(peer.peer_id, 0) < blocks:
        pass  # each look is a round trip to another process


@pytest.mark.parametrize("failing", ["freeze", "kill"])
async def test_one_of_three_providers_fails_mid_transfer(failing, random_file, tmp_path, nursery, capsys, pytestconfig):
    original, copy = random_file(SIZE), tmp_path / "copy"
    async with AsyncExitStack() as stack:
        providers = [await stack.enter_async_context(open_ours(tmp_path / f"p{n}")) for n in range(PROVIDERS)]
        for provider in providers:
            cid = (await provider.call("add", path=str(original)))["cid"]
        seconds = {}
        for run in ("undisturbed", failing):
            fetcher = await stack.enter_async_context(open_ours(tmp_path / run))
            for provider in providers:
                await fetcher.call("connect", addr=provider.addr)
            if run != "undisturbed":
                nursery.start_soon(fail_after_blocks, fetcher, providers[0], failing)
            seconds[run] = (await fetcher.call("fetch", cid=cid, timeout=120))["seconds"]
            await fetcher.call("get", cid=cid, path=str(copy))
            assert filecmp.cmp(original, copy, shallow=False)
    with capsys.disabled():
        delay = seconds[failing] - seconds["undisturbed"]
        pytestconfig.get_terminal_writer().line(f"\n{failing} one of {PROVIDERS} providers: {delay:+.2f} s, {seconds}")


async def fail_after_blocks(fetcher, provider, failing):
    await until_received(fetcher, provider, blocks=30)
    getattr(provider, failing)()
