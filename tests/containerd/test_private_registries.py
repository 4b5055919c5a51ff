"""Registries that want credentials: containerd has them, the node has not, so nothing may come to rest on the node."""

import re
from contextlib import contextmanager

import pytest

from ipcs.testing.containerd import Registry
from ipcs.testing.images import build_image, push_image
from ipcs.testing.tiny_registry import CREDENTIALS, PRIVATE, Guard, TinyRegistry

pytestmark = [pytest.mark.slow, pytest.mark.interop]

MIB = 1 << 20
SLOWLY = ("--upload-rate", "4MB")
"""20 MB take 5 s from one: a kill when some of that came is in the middle, whatever the machine."""

WITH_PASSWORD = ("--user", CREDENTIALS)


@pytest.fixture(scope="module")
def large():
    return build_image([20_000_000], seed="private")


class Distribution:
    """A real docker-registry with an htpasswd file."""

    def __init__(self, running):
        self.address = running.address
        self._running = running

    def blobs_sent(self):
        return [r.path.rpartition("/")[2] for r in self._running.requests() if "/blobs/" in r.path and r.status == 200]


class Tiny:
    """What docker-registry cannot be without a token server."""

    def __init__(self, running):
        self.address = running.address
        self._running = running

    def blobs_sent(self):
        return [r.path.rpartition("/")[2] for r in self._running.blob_requests() if r.status == 200]


EACH = ("docker-registry", *PRIVATE)


@pytest.fixture
def private(request, lab, large):
    """A private registry that has the image as img:v1."""
    if request.param == "docker-registry":
        with Registry(lab / "registry") as open_to_all:
            push_image(large, open_to_all.address, "img")
        with Registry(lab / "registry", private=True) as running:
            yield Distribution(running)
    else:
        with TinyRegistry({"img": large}) as running:
            running.guard = request.param
            yield Tiny(running)


def reference_of(registry):
    return f"{registry.address}/img:v1"


def assert_works(b, reference):
    assert "/payload.0" in b.containerd.run(reference, "sha256sum", "/payload.0")
    assert b.node.adoption()["promises_open"] == 0


@contextmanager
def a_has_it(pair, registry, *b_options):
    """A pulled the image with the password, and sends slowly; B knows A."""
    with pair("a", *SLOWLY) as a, pair("b", *b_options, bootstrap=[a.node.address]) as b:
        b.node.wait_for_peers(1)  # announcements go to who is there
        a.containerd.pull(reference_of(registry), *WITH_PASSWORD)
        yield a, b


@pytest.mark.parametrize("private", EACH, indirect=True)
def test_a_registry_that_refuses_us_is_no_way_back_and_containerd_takes_the_layers_itself(pair, private, large):
    # containerd's label has the registry's host without its port.
    way_back = ("--origin", f"127.0.0.1=http://{private.address}")
    reference = reference_of(private)
    with a_has_it(pair, private, *way_back) as (a, b):
        denied = b.containerd.ctr("images", "pull", "--plain-http", reference, check=False)
        assert denied.returncode != 0, "what a peer has opens no registry to who has no password"
        before = len(private.blobs_sent())
        b.containerd.pull(reference, *WITH_PASSWORD)
        assert large.layers[1] in private.blobs_sent()[before:]
        assert "is no way back" in b.node.log()
        assert b.node.adoption()["promises_made"] == 0
        a.node.kill()
        assert_works(b, reference)


@pytest.mark.parametrize("private", ["docker-registry", Guard.TOKEN], indirect=True)
def test_a_promise_that_its_peer_broke_is_taken_back_and_the_same_pull_works(pair, private, large):
    """Without --origin the registry, on a port, does not answer where the label says: peers alone held the promise."""
    reference = reference_of(private)
    with a_has_it(pair, private) as (a, b):
        pulling = b.containerd.start_ctr("images", "pull", "--plain-http", *WITH_PASSWORD, reference)
        b.node.wait_for_bytes(a.node.peer_id, 3 * MIB)
        assert b.node.adoption()["promises_open"] > 0, "A dies after the promise and before the last byte"
        a.node.kill()
        assert pulling.wait(60) != 0, "a broken promise is an error, and not a layer that is cut"
        b.node.wait_until(lambda: b.node.adoption()["promises_open"] == 0, "all its promises to be taken back")
        broken = re.findall(r"promise of (sha256:\w+) broken", b.node.log())
        assert broken
        b.node.wait_until(lambda: not set(broken) & set(b.containerd.contents()), "containerd to forget them")
        b.containerd.pull(reference, *WITH_PASSWORD)
        assert sorted(b.containerd.contents()) == sorted(large.blobs)
        assert_works(b, reference)
