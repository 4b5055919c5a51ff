"""Routers over real hosts: questions, announcements, the mesh, and peers that misbehave."""

import contextlib

import pytest
import trio

from ipcs.block import make_block
from ipcs.errors import RemoteProtocolError
from ipcs.routing.messages import PROTOCOL, Record, Resolve, encode
from ipcs.routing.router import STREAMS_PER_PEER, open_router
from ipcs.testing.net import host, until

DIGEST = "sha256:" + "ab" * 32
RECORD = Record(DIGEST, 10, make_block(b"root", 0x70).cid, "ipcs-v1")


@contextlib.asynccontextmanager
async def routers(*names, held=None):
    """Hosts with routers, each connected to the first; `held` gives records by name."""
    held = held or {}
    async with contextlib.AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(host(name)) for name in names]
        opened = []
        for name, one in zip(names, hosts, strict=True):
            mine = {record.digest: record for record in held.get(name, [])}
            answer = lambda digests, mine=mine: [mine[d] for d in digests if d in mine]  # noqa: E731
            opened.append(await stack.enter_async_context(open_router(one, answer)))
        for one in hosts[1:]:
            await one.connect(hosts[0].addresses[0])
            await one.wait_identified(hosts[0].peer_id)
        yield hosts, opened


async def test_a_question_finds_who_holds_it():
    async with routers("a", "b", held={"a": [RECORD]}) as ((a, _b), (_ra, rb)):
        found = await rb.resolve([DIGEST, "sha256:" + "00" * 32], 2.0)
        assert found == {DIGEST: {a.peer_id: RECORD}}


async def test_announcements_and_withdrawals_arrive():
    async with routers("a", "b") as ((a, b), (ra, rb)):
        with trio.fail_after(5):
            await until(lambda: b.is_connected(a.peer_id) and a.is_connected(b.peer_id))
            ra.announce([RECORD])
            await until(lambda: rb.table.claims(DIGEST) == {a.peer_id: RECORD})
            ra.withdraw([DIGEST])
            await until(lambda: not rb.table.claims(DIGEST))


async def test_nodes_with_one_bootstrap_peer_become_a_mesh():
    async with routers("a", "b", "c", "d") as (hosts, _):
        with trio.fail_after(10):
            await until(lambda: all(len(one.peers()) == 3 for one in hosts))


async def test_a_peer_that_goes_takes_its_claims_along():
    async with routers("a", "b", held={"a": [RECORD]}) as ((a, b), (_ra, rb)):
        assert await rb.resolve([DIGEST], 2.0)
        await b.disconnect(a.peer_id, "test")
        with trio.fail_after(5):
            await until(lambda: not rb.table.claims(DIGEST))


@pytest.mark.parametrize("junk", [b"", b"\xff" * 20, b"\x05hello", encode(Resolve([DIGEST]))[:-3]])
async def test_junk_ends_its_stream_and_nothing_else(junk):
    async with routers("a", "b", held={"a": [RECORD]}) as ((a, b), (_ra, rb)):
        stream = await b.open_duplex(a.peer_id, [PROTOCOL])
        await stream.write([junk or b"\x00"])
        await stream.aclose()
        with contextlib.suppress(Exception):
            with trio.move_on_after(2):
                assert await stream.read(100) == b""
        assert (await rb.resolve([DIGEST], 2.0))[DIGEST] == {a.peer_id: RECORD}


async def test_streams_of_one_peer_are_bounded():
    async with routers("a", "b", held={"a": [RECORD]}) as ((a, b), (ra, rb)):
        with trio.fail_after(10):
            await until(lambda: not ra._serving)
            for _ in range(STREAMS_PER_PEER + 4):
                with contextlib.suppress(RemoteProtocolError):  # those that are refused
                    stream = await b.open_duplex(a.peer_id, [PROTOCOL])
                    await stream.write([b"\x80"])  # the first byte of a length
            await until(lambda: ra._serving.get(b.peer_id) == STREAMS_PER_PEER)
        assert await rb.resolve([DIGEST], 0.5) == {}
