"""The installed containerd (1.6 in Debian 12) and 2.x in one swarm: an image goes from either to the other."""

import pytest

from ipcs.errors import NotFound
from ipcs.testing.peers import go_binary

pytestmark = [pytest.mark.slow, pytest.mark.interop]


@pytest.mark.parametrize("first", ["installed", "2.x"])
def test_an_image_goes_from_one_version_to_the_other(pair, registry, reference, image, first, monkeypatch):
    try:
        newer = go_binary("containerd2", "containerd")
    except NotFound as missing:
        pytest.skip(f"containerd 2.x NOT TESTED: {missing.message}")

    def start(member, version):
        with monkeypatch.context() as environment:
            if version == "2.x":
                environment.setenv("IPCS_TEST_CONTAINERD", str(newer))
            member.start_containerd()
        [_, server] = member.containerd.ctr("version").stdout.split("Server:")
        assert (" 2." in server) == (version == "2.x"), server

    a, second = pair("a"), "2.x" if first == "installed" else "installed"
    b = None
    try:
        a.start_node()
        start(a, first)
        a.containerd.pull(reference)
        b = pair("b", bootstrap=[a.node.address])
        b.start_node().wait_for_peers(1)
        start(b, second)
        before = len(registry.requests())
        b.containerd.pull(reference)
        asked = registry.requests()[before:]
        assert not any(layer in request.path for request in asked for layer in image.layers), asked
        assert sorted(b.containerd.contents()) == sorted(image.blobs)
        assert "/payload.0" in b.containerd.run(reference, "sha256sum", "/payload.0")
    finally:
        for member in (b, a):
            if member is not None:
                member.__exit__()
