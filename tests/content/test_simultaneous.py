"""Nodes that all miss a layer at the same moment: the registry sends it about once."""

import contextlib
import http.client

import pytest
import trio

from ipcs import errors
from ipcs.content import adoption
from ipcs.testing.images import build_image
from ipcs.testing.members import label_store, member
from ipcs.testing.net import until
from ipcs.testing.tiny_registry import TinyRegistry

LAYER = 12_000_000
UPLINK = 12_500_000
"""100 Mbit/s, in bytes."""


@pytest.fixture(scope="module")
def image():
    return build_image([LAYER], seed="cold")


async def pull(node, image, registry):
    """As containerd does: documents, then each layer by Info, from the registry if that says no; then read all."""

    def from_registry(remote, digest):
        connection = http.client.HTTPConnection(registry.address, timeout=60)
        try:
            with contextlib.suppress(errors.AlreadyExists), remote.writer(f"default/1/layer-{digest}") as writer:
                connection.request("GET", f"/v2/img/blobs/{digest}")
                response = connection.getresponse()
                while data := response.read(1 << 20):
                    writer.write(data)
                writer.commit(len(image.blobs[digest]), digest)
        finally:
            connection.close()

    async def layer(digest):
        try:
            await node.call(lambda remote: remote.info(digest))
        except errors.NotFound:
            await node.call(lambda remote: from_registry(remote, digest))
        assert await node.read(digest, len(image.blobs[digest])) == image.blobs[digest]

    def documents(remote):
        for digest in (image.manifest, image.config):
            data = image.blobs[digest]
            with contextlib.suppress(errors.AlreadyExists), remote.writer(f"default/1/{digest}", len(data)) as writer:
                writer.write(data)
                writer.commit(len(data), digest)

    await node.call(documents)
    async with trio.open_nursery() as nursery:
        for digest in image.layers:
            nursery.start_soon(layer, digest)


@contextlib.asynccontextmanager
async def swarm(image, registry, count):
    async with label_store() as labels, contextlib.AsyncExitStack() as stack:
        labels.knows(image, registry.address, "img")
        members = []
        for number in range(count):
            one = await stack.enter_async_context(member(f"m{number}", containerd=labels.socket, peers=members))
            members.append(one)
        yield members


@pytest.mark.slow
async def test_eight_cold_pulls_cost_the_registry_about_one(image, monkeypatch):
    monkeypatch.setattr(adoption, "INFO_BUDGET", 1.0)  # eight nodes share this process and its processor
    with TinyRegistry({"img": image}, rate=UPLINK) as registry:
        async with swarm(image, registry, 8) as members:
            trio.to_thread.current_default_thread_limiter().total_tokens = 200
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number, one in enumerate(members):
                        nursery.start_soon(delayed, number * 0.0125, pull, one, image, registry)
            ratio = registry.blob_bytes() / image.size
            print(f"registry sent {ratio:.2f} of the image")  # noqa: T201 - the figure, with -s
            assert ratio <= 2
            assert all(one.facade.statistics.promises_broken == 0 for one in members)


async def delayed(seconds, work, *args):
    await trio.sleep(seconds)
    await work(*args)


@pytest.mark.slow
async def test_a_leader_that_dies_half_way_is_replaced(image, monkeypatch):
    """Its followers keep what they have; the next in order takes the rest from the registry."""
    monkeypatch.setattr(adoption, "INFO_BUDGET", 1.0)
    with TinyRegistry({"img": image}, rate=UPLINK / 2) as registry:
        async with swarm(image, registry, 4) as members:
            trio.to_thread.current_default_thread_limiter().total_tokens = 200
            layer = image.layers[1]
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for one in members:
                        nursery.start_soon(pull, one, image, registry)
                    await until(lambda: bytes_written(members, layer) > LAYER // 3)
                    dead = members[leaders(members, layer)[0]]
                    for other in members:
                        await dead.host.disconnect(other.host.peer_id, "killed")
            for one in members:
                assert await one.read(layer, len(image.blobs[layer])) == image.blobs[layer]
                assert one.facade.statistics.promises_broken == 0


def leaders(members, digest):
    """Who is writing the layer as containerd's client."""
    found = []
    for number, one in enumerate(members):
        if any(status.ref.endswith(digest) for status in one.facade.content.list_statuses()):
            found.append(number)
    return found


def bytes_written(members, digest):
    """How far the leader is."""
    statuses = [status for one in members for status in one.facade.content.list_statuses()]
    return max((status.offset for status in statuses if status.ref.endswith(digest)), default=0)


@pytest.mark.slow
async def test_two_that_lead_at_once_cost_two_and_everybody_is_right(image, monkeypatch):
    """Nodes that ask before they have heard of one another may both take it; who comes later follows one of them."""
    monkeypatch.setattr(adoption, "INFO_BUDGET", 1.0)
    with TinyRegistry({"img": image}, rate=UPLINK) as registry:
        async with swarm(image, registry, 4) as members:
            trio.to_thread.current_default_thread_limiter().total_tokens = 200
            first = members[:2]
            for one in first:
                alone(one)
            layer = image.layers[1]
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for one in first:
                        nursery.start_soon(pull, one, image, registry)
                    await until(lambda: leaders(members, layer) == [0, 1])
                    for one in members[2:]:
                        nursery.start_soon(pull, one, image, registry)
            fetched = [request for request in registry.blob_requests() if request.path.endswith(layer)]
            assert [(request.first, request.sent) for request in fetched] == 2 * [(0, len(image.blobs[layer]))]
            for one in members:
                assert one.facade.statistics.promises_broken == 0


def alone(node):
    """It believes that nobody else wants what it wants."""

    async def itself(_digest, _budget, _without=()):
        return node.host.peer_id

    node.facade.router.leader = itself
