"""A peer that claims what is not so, before real containerds: nothing of it is ever accepted."""

import contextlib

import pytest
import trio

from ipcs.content.client import RemoteContent, RemoteReader
from ipcs.content.descriptor import Info
from ipcs.testing.content_steps import sha256_digest
from ipcs.testing.images import Image, build_image
from ipcs.testing.liars import lie, store_dag
from ipcs.testing.members import member
from ipcs.testing.tiny_registry import TinyRegistry
from ipcs.unixfs.profile import PROXY_2020

pytestmark = [pytest.mark.slow, pytest.mark.interop]


@pytest.fixture(scope="module")
def image():
    return build_image([6_000_000], seed="liars")


def wrong_root(liar, image):
    """A sound DAG of another length than claimed."""
    layer = image.layers[1]
    lie(liar, layer, len(image.blobs[layer]), store_dag(liar.store, b"x" * 1_000_000))


def wrong_bytes(liar, image):
    """Right size, and only the last byte is wrong: all before it may be shown."""
    layer = image.layers[1]
    data = image.blobs[layer]
    lie(liar, layer, len(data), store_dag(liar.store, data[:-1] + bytes([data[-1] ^ 1])))


def forged_manifest(liar, image):
    """The same manifest with two layers in the wrong order, in a DAG whose root does not tell that."""
    first, second = (layer.encode() for layer in image.layers)
    data = image.blobs[image.manifest]
    forged = data.replace(first, b"?").replace(second, first).replace(b"?", second)
    assert forged != data
    lie(liar, image.manifest, len(data), store_dag(liar.store, forged, PROXY_2020))


def forged_config(liar, image):
    """The image would run another command; one raw leaf, whose CID gives the lie away."""
    data = image.blobs[image.config]
    forged = data.replace(b"/bin/sh", b"/bin/ls")
    assert forged != data
    lie(liar, image.config, len(data), store_dag(liar.store, forged))


LIES = [wrong_root, wrong_bytes, forged_manifest, forged_config]


def assert_right(b, reference, image):
    """containerd has the image and nothing else, byte for byte, and it runs."""
    with RemoteContent(b.containerd.socket, "default") as content:
        found = {}
        for info in content.walk():
            reader = RemoteReader(content, Info(info.digest, info.size))
            data = b"".join(part for at in range(0, info.size, 1 << 20) for part in reader.read(at, 1 << 20))
            found[info.digest] = sha256_digest(data)
    assert found == {digest: digest for digest in image.blobs}
    assert "/payload.0" in b.containerd.run(reference, "sha256sum", "/payload.0")
    assert b.node.adoption()["promises_broken"] == 0


@contextlib.asynccontextmanager
async def lying(tell, image):
    """A peer that holds manifest and config, and tells this lie."""
    async with member("liar") as liar:
        documents = {digest: image.blobs[digest] for digest in (image.manifest, image.config)}
        await liar.put(Image(image.manifest, image.config, [], documents))
        tell(liar, image)
        yield liar


@pytest.mark.parametrize("tell", LIES)
async def test_beside_an_honest_peer_the_pull_succeeds_without_the_registry(pair, image, tell):
    def pull(liar):
        with TinyRegistry({"img": image}) as origin:
            reference = f"{origin.address}/img:v1"
            way_back = ("--origin", f"127.0.0.1=http://{origin.address}")
            with pair("a") as a:
                a.containerd.pull(reference)
                before = len(origin.served)
                with pair("b", *way_back, bootstrap=[liar.host.addresses[0], a.node.address]) as b:
                    b.node.wait_for_peers(2)
                    b.containerd.pull(reference)
                    assert_right(b, reference, image)
                    layers = [s.path for s in origin.served[before:] if s.path.endswith(tuple(image.layers))]
                    assert layers == []
                    return b.node.bans()

    async with lying(tell, image) as liar:
        bans = await trio.to_thread.run_sync(pull, liar)
        assert set(bans) <= {liar.host.peer_id}, "whoever is honest is not banned"


@pytest.mark.parametrize("tell", LIES)
async def test_alone_it_is_banned_and_the_same_command_succeeds_in_the_end(pair, image, tell):
    def pull(liar):
        with TinyRegistry({"img": image}) as origin:
            reference = f"{origin.address}/img:v1"
            way_back = ("--origin", f"127.0.0.1=http://{origin.address}")
            with pair("b", *way_back, bootstrap=[liar.host.addresses[0]]) as b:
                b.node.wait_for_peers(1)
                first = b.containerd.ctr("images", "pull", "--plain-http", reference, check=False)
                if tell is not wrong_bytes:  # of those bytes containerd saw some, so that it must begin anew
                    assert first.returncode == 0, first.stderr
                b.node.wait_until(lambda: liar.host.peer_id in b.node.bans(), "the ban")
                b.containerd.pull(reference)
                assert_right(b, reference, image)

    async with lying(tell, image) as liar:
        await trio.to_thread.run_sync(pull, liar)
