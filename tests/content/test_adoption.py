"""Adoption over real hosts and sockets: what is shown, when, and what a liar gets."""

import socket
import time

import pytest
import trio

from ipcs import errors
from ipcs.bitswap.limits import Config as ExchangeConfig
from ipcs.content import adoption, fetching
from ipcs.content.adoption import Mode
from ipcs.content.arrival import MAX_WAITING
from ipcs.content.client import RemoteReader
from ipcs.content.descriptor import Info
from ipcs.content.records import Promise
from ipcs.routing.messages import PROTOCOL
from ipcs.store.store import memory_store
from ipcs.testing.containerd import free_port
from ipcs.testing.content_steps import sha256_digest
from ipcs.testing.images import Image, build_image
from ipcs.testing.liars import lie, store_dag
from ipcs.testing.members import label_store, member, short_directory
from ipcs.testing.net import until
from ipcs.testing.tiny_registry import PRIVATE, Guard, TinyRegistry
from ipcs.unixfs.profile import PROXY_2020
from ipcs.unixfs.walk import links_of

LAYER = 6_000_000


@pytest.fixture(scope="module")
def image():
    return build_image([LAYER])


@pytest.fixture
def impatient(monkeypatch):
    """Two seconds are as good as five when nothing will come."""
    monkeypatch.setattr(fetching, "STALL", 2.0)
    monkeypatch.setattr(adoption, "PATIENCE", 0.5)


def documents_of(image):
    """Manifest and config alone."""
    return Image(image.manifest, image.config, [], {d: image.blobs[d] for d in (image.manifest, image.config)})


async def info(node, digest):
    return await node.call(lambda remote: remote.info(digest))


async def manifest_of(node, image):
    """As a pull begins: Info and Read of manifest and config."""
    for digest in (image.manifest, image.config):
        size = (await info(node, digest)).size
        assert await node.read(digest, size) == image.blobs[digest]


async def test_an_image_comes_from_the_peer_and_nothing_from_the_registry(image):
    async with label_store() as labels:
        with TinyRegistry({"img": image}) as registry:
            labels.knows(image, registry.address, "img")
            async with member("a") as a, member("b", peers=[a], containerd=labels.socket) as b:
                await a.put(image)
                await manifest_of(b, image)
                for layer in image.layers:
                    size = (await info(b, layer)).size
                    assert size == len(image.blobs[layer])
                    assert await b.read(layer, size) == image.blobs[layer]
                with trio.fail_after(5):
                    await until(lambda: b.facade.statistics.promises_kept == len(image.layers))
                assert {i.digest for i in await b.call(lambda remote: list(remote.walk()))} == set(image.blobs)
                assert b.facade.statistics.bytes_from_origin == 0
                assert b.facade.statistics.bytes_from_peers >= LAYER
            assert [(s.method, s.path) for s in registry.served] == [("HEAD", f"/v2/img/manifests/{image.manifest}")]


async def test_without_a_way_back_only_what_is_whole_is_shown(image):
    small = build_image([1_000_000], seed="small")
    async with member("a") as a, member("b", peers=[a]) as b:
        await a.put(image)
        await a.put(small)
        await manifest_of(b, image)
        with pytest.raises(errors.NotFound):
            await info(b, image.layers[1])
        await manifest_of(b, small)
        layer = small.layers[1]
        assert (await info(b, layer)).size == len(small.blobs[layer])
        assert b.facade.statistics.promises_made == 0
        assert b.store.blobs.get(layer).verified


@pytest.mark.parametrize("guard", PRIVATE)
async def test_a_private_repository_is_no_way_back(image, caplog, guard):
    """containerd could pull from it with its credentials; we could not keep a promise from it."""
    async with label_store() as labels:
        with TinyRegistry({"img": image}) as registry:
            registry.guard = guard
            labels.knows(image, registry.address, "img")
            async with member("a") as a, member("b", peers=[a], containerd=labels.socket) as b:
                await a.put(image)
                await manifest_of(b, image)
                for _ in range(3):
                    with pytest.raises(errors.NotFound):
                        await info(b, image.layers[1])
                assert b.facade.statistics.promises_made == 0
                asked = [served for served in registry.served if "/manifests/" in served.path]
                # With a token, once to be told where tokens are, and once with what was given there.
                assert len(asked) == (2 if guard is Guard.NAMELESS_TOKEN else 1), "its answer is remembered"
        assert "is no way back" in caplog.text


async def test_a_registry_that_is_not_there_is_relied_on_only_beside_peers(image):
    layer = image.layers[1]
    async with label_store() as labels:
        labels.knows(image, f"127.0.0.1:{free_port()}", "img")
        async with member("a") as a, member("b", peers=[a], containerd=labels.socket) as b:
            await a.put(documents_of(image))
            await manifest_of(b, image)
            a.facade.router.feeds.lead(layer)
            with pytest.raises(errors.NotFound):
                await info(b, layer)
            await a.put(image)
            with trio.fail_after(5):
                await until(lambda: b.facade.router.table.claims(layer))
            assert (await info(b, layer)).size == len(image.blobs[layer])
            assert await b.read(layer, len(image.blobs[layer])) == image.blobs[layer]


async def test_a_registry_that_hangs_makes_no_info_slower_than_its_limit(image):
    layer = image.layers[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with label_store() as labels:
            labels.knows(image, f"127.0.0.1:{silent.getsockname()[1]}", "img")
            async with member("a") as a, member("b", peers=[a], containerd=labels.socket) as b:
                await a.put(image)
                await manifest_of(b, image)
                began = time.perf_counter()
                assert (await info(b, layer)).size == len(image.blobs[layer])
                assert time.perf_counter() - began < adoption.INFO_BUDGET + 0.1


async def test_a_bug_ends_one_adoption_and_breaks_its_promise(image, monkeypatch, caplog):
    promised = trio.Event()

    async def broken(*_args, **_more):
        await promised.wait()
        raise KeyError("a bug")

    layer = image.layers[1]
    async with label_store() as labels:
        with TinyRegistry({"img": image}) as registry:
            labels.knows(image, registry.address, "img")
            async with member("a") as a, member("b", peers=[a], containerd=labels.socket) as b:
                await a.put(image)
                await manifest_of(b, image)
                with monkeypatch.context() as patch:
                    patch.setattr(fetching.Fetcher, "from_peers", broken)
                    await info(b, layer)
                    promised.set()
                    with trio.fail_after(10), pytest.raises(errors.NotFound, match="pull again"):
                        await b.read(layer, 100)
                    assert layer not in labels.digests(), "containerd forgot it before its reader was told"
                    patch.setattr(b.facade.router, "resolve", broken)
                    with pytest.raises(errors.NotFound):
                        await info(b, sha256_digest(b"another"))
                assert list(b.facade.content.promises) == []
                assert b.facade.statistics.promises_broken == 1
                assert caplog.text.count("KeyError: 'a bug'") >= 2, "with traceback"
                assert (await info(b, layer)).size == len(image.blobs[layer]), "the node lives and adopts"
                assert await b.read(layer, len(image.blobs[layer])) == image.blobs[layer]


async def test_peers_that_vanish_leave_the_registry(image, impatient):
    layer = image.layers[1]
    data = image.blobs[layer]
    async with label_store() as labels:
        with TinyRegistry({"img": image}) as registry:
            labels.knows(image, registry.address, "img")
            async with member("a") as a, member("b", peers=[a], containerd=labels.socket) as b:
                await a.put(image)
                await manifest_of(b, image)
                root = a.store.blobs.get(layer).root
                lie(a, layer, len(data), root)
                keep_first_mebibyte(a, layer, root, len(data))
                assert (await info(b, layer)).size == len(data)
                with trio.fail_after(20):
                    assert await b.read(layer, len(data)) == data
                counts = b.facade.statistics
                assert counts.bytes_from_origin == len(data) - (1 << 20), "what peers brought is not fetched again"
                assert registry.blob_requests()[0].first == 1 << 20


def keep_first_mebibyte(node, digest, root, size):
    """`node` keeps the inner nodes and four leaves of a DAG, and claims the whole."""
    from ipcs.cid import multihash_of
    from ipcs.content.reader import read_leaves

    leaves = read_leaves(node.store.blocks, root, size)
    gone = {multihash_of(cid) for cid in leaves.cids[4:]}
    blocks = node.store.blocks
    get_many, size_many, has_many = blocks.get_many, blocks.size_many, blocks.has_many
    blocks.get_many = lambda keys: [None if k in gone else d for k, d in zip(keys, get_many(keys), strict=True)]
    blocks.size_many = lambda keys: [None if k in gone else d for k, d in zip(keys, size_many(keys), strict=True)]
    blocks.has_many = lambda keys: [k not in gone and h for k, h in zip(keys, has_many(keys), strict=True)]


async def test_nobody_left_is_a_clear_error_and_containerd_forgets(image, impatient):
    layer = image.layers[1]
    size = len(image.blobs[layer])
    async with label_store() as labels:
        with TinyRegistry({"img": image}) as registry:
            registry.blobs_fail = True
            labels.knows(image, registry.address, "img")
            async with member("a") as a, member("b", peers=[a], containerd=labels.socket) as b:
                await a.put(image)
                await manifest_of(b, image)
                root = a.store.blobs.get(layer).root
                lie(a, layer, size, root)
                keep_first_mebibyte(a, layer, root, size)
                await info(b, layer)
                with trio.fail_after(20), pytest.raises(errors.NotFound, match="pull again"):
                    await b.read(layer, size)
                with trio.fail_after(5):
                    await until(lambda: layer not in labels.digests())
                assert image.manifest in labels.digests()
                assert layer not in {i.digest for i in await b.call(lambda remote: list(remote.walk()))}
                assert list(b.facade.content.promises) == []
                counts = b.facade.statistics.as_json()
                assert (counts["promises_broken"], counts["promises_open"]) == (1, 0)


async def test_a_wrong_root_ends_in_an_error_a_ban_and_the_right_bytes(image, impatient):
    layer = image.layers[1]
    data = image.blobs[layer]
    wrong = bytes(len(data))
    async with label_store() as labels:
        with TinyRegistry({"img": image}) as registry:
            labels.knows(image, registry.address, "img")
            async with member("liar") as liar, member("b", peers=[liar], containerd=labels.socket) as b:
                await liar.put(documents_of(image))
                lie(liar, layer, len(data), store_dag(liar.store, wrong))
                await manifest_of(b, image)
                await info(b, layer)
                seen = bytearray()

                def follow(remote):
                    reader = RemoteReader(remote, Info(layer, len(data)))
                    for at in range(0, len(data), 32768):
                        seen.extend(b"".join(reader.read(at, 32768)))

                try:
                    await b.call(follow)
                except errors.HashMismatch as exc:
                    assert "lied" in exc.message  # noqa: PT017 - whether it is raised depends on who was first
                    assert len(seen) < len(data)
                else:
                    assert bytes(seen) == data
                with trio.fail_after(20):
                    await until(lambda: b.facade.statistics.promises_kept == 1)
                assert await b.read(layer, len(data)) == data
                assert [ban.peer for ban in b.exchange.bans()] == [liar.host.peer_id]
                assert not b.host.is_connected(liar.host.peer_id)


async def test_who_read_wrong_bytes_gets_an_error_however_late_it_reads_on(image, impatient):
    """Even when the right bytes are whole long before its next read: a mixture must not pass for the blob."""
    layer = image.layers[1]
    data = image.blobs[layer]
    wrong = data[::-1]
    async with label_store() as labels:
        with TinyRegistry({"img": image}) as registry:
            labels.knows(image, registry.address, "img")
            slow = ExchangeConfig(upload_rate=2_000_000)  # so that the first read comes before the last block
            async with (
                member("liar", exchange_config=slow) as liar,
                member("b", peers=[liar], containerd=labels.socket) as b,
            ):
                await liar.put(documents_of(image))
                lie(liar, layer, len(data), store_dag(liar.store, wrong))
                await manifest_of(b, image)
                await info(b, layer)
                assert await b.read(layer, 32768) == wrong[:32768], "shown before anybody could know"
                with trio.fail_after(20):
                    await until(lambda: b.facade.statistics.promises_kept == 1)
                reader = RemoteReader(b.remote, Info(layer, len(data)))
                with pytest.raises(errors.HashMismatch, match="lied"):
                    await b.call(lambda _remote: list(reader.read(32768, 32768)))
                assert await b.read(layer, len(data)) == data
                assert b.facade.service._adoption.arriving(layer) is None


@pytest.mark.parametrize("which", ["manifest", "config"])
async def test_forged_documents_are_never_shown(image, which):
    digest = getattr(image, which)
    forged = image.blobs[digest].replace(b"amd64", b"arm64").replace(b"schemaVersion", b"schemaVersiom")
    assert len(forged) == len(image.blobs[digest])
    async with member("liar") as liar, member("b", peers=[liar]) as b:
        lie(liar, digest, len(forged), store_dag(liar.store, forged))
        with pytest.raises(errors.NotFound):
            await info(b, digest)
        lie(liar, digest, len(forged), store_dag(liar.store, b"x" * 300_000))
        with pytest.raises(errors.NotFound):
            await info(b, digest)
        assert b.store.blobs.get(digest) is None
        assert [ban.peer for ban in b.exchange.bans()] == [liar.host.peer_id]


async def test_claims_that_differ_show_nothing_before_it_is_verified(image, impatient):
    layer = image.layers[1]
    data = image.blobs[layer]
    async with label_store() as labels:
        labels.knows(image, "127.0.0.1:1", "img")
        async with (
            member("liar") as liar,
            member("a") as a,
            member("b", peers=[liar, a], containerd=labels.socket) as b,
        ):
            await a.put(image)
            lie(liar, layer, len(data), store_dag(liar.store, bytes(len(data))))
            await manifest_of(b, image)
            await info(b, layer)
            assert await b.read(layer, len(data)) == data
            assert b.facade.statistics.bytes_from_origin == 0


async def test_a_claim_of_another_size_than_the_manifest_says_is_no_claim(image):
    layer = image.layers[1]
    async with label_store() as labels:
        labels.knows(image, "127.0.0.1:1", "img")
        async with member("liar", mode=Mode.LOCAL) as liar, member("b", peers=[liar], containerd=labels.socket) as b:
            await liar.put(documents_of(image))
            lie(liar, layer, 7, store_dag(liar.store, b"seven!!", PROXY_2020))
            await manifest_of(b, image)
            with pytest.raises(errors.NotFound):
                await info(b, layer)


async def test_an_open_promise_is_kept_after_a_restart(image, impatient):
    layer = image.layers[1]
    data = image.blobs[layer]
    with TinyRegistry({"img": image}) as registry, memory_store(links_of) as store, short_directory() as directory:
        async with member("b", store=store, directory=directory) as b:
            b.facade.content.promise(Promise(layer, len(data), ((registry.address, "img"),)))
        async with member("b", store=store, directory=directory) as b:
            assert (await info(b, layer)).size == len(data)
            with trio.fail_after(20):
                assert await b.read(layer, len(data)) == data
                await until(lambda: not list(b.facade.content.promises))
        async with member("b", store=store, directory=directory, mode=Mode.OFF) as b:
            assert await b.read(layer, len(data)) == data


async def test_a_deleted_promise_is_not_kept(image):
    layer = image.layers[1]
    with TinyRegistry({"img": image}, rate=100_000) as registry, memory_store(links_of) as store:
        async with member("b", store=store) as b:
            promise = Promise(layer, len(image.blobs[layer]), ((registry.address, "img"),))
            b.facade.content.promise(promise)
            b.facade.service._adoption.resume()
            await b.call(lambda remote: remote.delete(layer))
            with trio.fail_after(5):
                await until(lambda: b.facade.service._adoption.arriving(layer) is None)
            with pytest.raises(errors.NotFound):
                await b.read(layer, 100)
            assert list(b.facade.content.promises) == []


# ---- modes


async def test_cache_is_adopted_unless_off(image):
    digest = image.layers[0]
    for mode, adopted in ((Mode.OFF, False), (Mode.LOCAL, True), (Mode.SWARM, True)):
        async with member("b", mode=mode) as b:
            await b.put(image)
            await b.call(lambda remote: remote.delete(digest))
            assert digest not in {i.digest for i in await b.call(lambda remote: list(remote.walk()))}
            if adopted:
                assert (await info(b, digest)).size == len(image.blobs[digest])
                assert [ref.owner for ref in b.store.references.holders(digest)] == ["containerd"]
            else:
                with pytest.raises(errors.NotFound):
                    await info(b, digest)


async def test_off_and_local_ask_nobody(image):
    for mode in (Mode.OFF, Mode.LOCAL):
        async with member("a") as a, member("b", mode=mode, peers=[a]) as b:
            await a.put(image)
            with pytest.raises(errors.NotFound):
                await info(b, image.manifest)


# ---- limits


async def test_peers_that_never_answer_cost_the_budget_and_no_more():
    digest = sha256_digest(b"nowhere")
    asked = []

    async def silent(stream):
        asked.append(await stream.read(1000))
        await trio.sleep_forever()

    async with member("silent") as peer, member("b", peers=[peer]) as b:
        peer.host.set_handler(PROTOCOL, silent)
        began = time.perf_counter()
        with pytest.raises(errors.NotFound):
            await info(b, digest)
        assert adoption.INFO_BUDGET * 0.9 < time.perf_counter() - began < adoption.INFO_BUDGET + 0.3
        began = time.perf_counter()
        with pytest.raises(errors.NotFound):
            await info(b, digest)
        assert time.perf_counter() - began < adoption.INFO_BUDGET / 2, "a miss is remembered"
        assert len(asked) <= 2  # the peers' peers, and this one digest


async def test_one_digest_is_sought_once_at_a_time(image):
    asked = []
    async with member("a") as a, member("b", peers=[a]) as b:
        await a.put(image)
        real = a.facade.router._held
        a.facade.router._held = lambda digests: (asked.extend(digests), real(digests))[1]
        table = b.facade.router.table
        await until(lambda: all(table.claims(digest) for digest in image.blobs))
        table.withdrawn(a.host.peer_id, list(image.blobs))  # forget what was announced
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(info, b, image.manifest)
        assert asked.count(image.manifest) == 1


async def test_waiting_reads_are_bounded_and_metadata_is_answered(image):
    layer = image.layers[1]
    with TinyRegistry({"img": image}, rate=1) as registry:
        async with member("b") as b:
            b.facade.content.promise(Promise(layer, LAYER, ((registry.address, "img"),)))
            b.facade.service._adoption.resume()
            refused = []

            async def reader():
                try:
                    await b.read(layer, 100)
                except errors.ResourceExhausted:
                    refused.append(1)
                except (errors.NotFound, errors.RemoteProtocolError):
                    pass

            limiter = trio.to_thread.current_default_thread_limiter()
            limiter.total_tokens = 200
            async with trio.open_nursery() as nursery:
                for _ in range(MAX_WAITING + 10):
                    nursery.start_soon(reader)
                with trio.fail_after(10):
                    await until(lambda: len(refused) == 10)
                    latencies = []
                    for _ in range(20):
                        began = time.perf_counter()
                        assert (await info(b, layer)).size == LAYER
                        latencies.append(time.perf_counter() - began)
                assert sorted(latencies)[-1] < 1
                await b.call(lambda remote: remote.delete(layer))
            assert len(refused) == 10


async def test_a_reader_that_leaves_gives_its_seat_back(image):
    layer = image.layers[1]
    with TinyRegistry({"img": image}, rate=1) as registry:
        async with member("b") as b:
            b.facade.content.promise(Promise(layer, LAYER, ((registry.address, "img"),)))
            b.facade.service._adoption.resume()
            room = b.facade.service._adoption._room._seats

            def leave(remote):
                from ipcs.content import wire

                call = remote._channel.unary_stream(f"/{wire.SERVICE}/Read")(
                    wire.encode_read_request(wire.ReadRequest(layer, 0, 100))
                )
                while room._value == MAX_WAITING:
                    time.sleep(0.005)
                call.cancel()

            await b.call(leave)
            with trio.fail_after(3):
                await until(lambda: room._value == MAX_WAITING)


async def test_a_reader_that_waits_for_the_last_leaf_gets_it(image):
    """The withheld end is served to who waits for it, not only to who asks again."""
    layer = image.layers[1]
    data = image.blobs[layer]
    with TinyRegistry({"img": image}, rate=20_000_000) as registry:
        async with member("b") as b:
            b.facade.content.promise(Promise(layer, len(data), ((registry.address, "img"),)))
            b.facade.service._adoption.resume()
            with trio.fail_after(20):
                assert await b.read(layer, len(data), window=len(data)) == data
