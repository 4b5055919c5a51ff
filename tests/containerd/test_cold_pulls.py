"""Eight nodes with eight containerds that all miss an image at the same moment; the registry has one slow uplink."""

import contextlib
import shutil
import time

import pytest

from ipcs.content.client import RemoteContent, RemoteReader
from ipcs.content.descriptor import Info
from ipcs.store.store import open_store
from ipcs.testing.content_steps import sha256_digest
from ipcs.testing.images import build_image
from ipcs.testing.tiny_registry import TinyRegistry
from ipcs.unixfs.walk import links_of

pytestmark = [pytest.mark.slow, pytest.mark.interop]

NODES = 8
UPLINK = 12_500_000
"""100 Mbit/s, in bytes."""

AIM = 2.0
"""Times the image that the registry may send, however many nodes pull it at once."""

TRIES = 3

WITHIN = 0.1
"""Seconds in which all pulls begin."""


@pytest.fixture(scope="module")
def image():
    """30 MB in three layers."""
    return build_image([20_000_000, 9_000_000], seed="cold pulls")


@contextlib.contextmanager
def mesh(pair, origin, count):
    """Nodes that all know one another, each given the address of the first only."""
    with contextlib.ExitStack() as stack:
        way_back = ("--origin", f"127.0.0.1=http://{origin.address}")
        members = [stack.enter_context(pair("m0", *way_back))]
        entry = [members[0].node.address]
        members += [stack.enter_context(pair(f"m{number}", *way_back, bootstrap=entry)) for number in range(1, count)]
        for member in members:
            member.node.wait_for_peers(count - 1)
        yield members


def pull_together(members, reference):
    """Start a pull on each, all within `WITHIN` seconds."""
    began = time.monotonic()
    pulls = [member.containerd.start_ctr("images", "pull", "--plain-http", reference) for member in members]
    assert time.monotonic() - began < WITHIN
    return pulls


def assert_right(member, image):
    """Every blob of the image, read through this containerd, is what its digest says, and the store is sound."""
    with RemoteContent(member.containerd.socket, "default") as content:
        assert sorted(info.digest for info in content.walk()) == sorted(image.blobs)
        for digest, data in image.blobs.items():
            reader = RemoteReader(content, Info(digest, len(data)))
            read = b"".join(part for at in range(0, len(data), 1 << 20) for part in reader.read(at, 1 << 20))
            assert sha256_digest(read) == digest
    counts = member.node.adoption()
    assert (counts["promises_open"], counts["promises_broken"]) == (0, 0)
    member.containerd.stop()
    member.node.stop()
    with open_store(member.directory / "n" / "repo" / "store", links_of) as store:
        report = store.fsck()
    assert report.is_clean, report.problems


def test_the_registry_sends_the_image_about_once(pair, image):
    """An Info has 200 ms, after which a node that heard nothing leaves the blob to the registry. Where sixteen daemons
    share busy cores that happens, so the figure may take a second or third try; each of them must be right.
    """
    ratios = []
    while len(ratios) < TRIES and min(ratios, default=9.0) > AIM:
        with TinyRegistry({"img": image}, rate=UPLINK) as origin, mesh(pair, origin, NODES) as members:
            reference = f"{origin.address}/img:v1"
            for pulling in pull_together(members, reference):
                assert pulling.wait(100) == 0, pulling.log()
            ratios.append(origin.blob_bytes() / image.size)
            print(f"registry sent {ratios[-1]:.2f} of the image to {NODES} nodes")  # noqa: T201 - the figure, with -s
            for member in members:
                assert_right(member, image)
                shutil.rmtree(member.directory)
    assert min(ratios) <= AIM


def leader_half_way(members, layer, size):
    """Which member writes the layer from the registry, once it has a third of it."""
    with contextlib.ExitStack() as stack:
        contents = [stack.enter_context(RemoteContent(member.node.socket)) for member in members]
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for member, content in zip(members, contents, strict=True):
                for status in content.list_statuses():
                    if status.ref.endswith(layer) and status.offset > size // 3:
                        assert status.offset < size
                        return member
    raise TimeoutError("nobody wrote a third of the layer in 30 s")


def test_the_leader_killed_half_way_and_the_others_are_right(pair, image):
    layer = image.layers[1]
    with TinyRegistry({"img": image}, rate=UPLINK) as origin, mesh(pair, origin, NODES) as members:
        reference = f"{origin.address}/img:v1"
        pulls = pull_together(members, reference)
        leader = leader_half_way(members, layer, len(image.blobs[layer]))
        leader.node.kill()
        for member, pulling in zip(members, pulls, strict=True):
            ended = pulling.wait(100)
            assert (ended == 0) == (member is not leader), pulling.log()
        ratio = origin.blob_bytes() / image.size
        print(f"registry sent {ratio:.2f} of the image, the leader killed half-way")  # noqa: T201 - the figure, with -s
        assert ratio <= AIM
        for member in members:
            if member is not leader:
                assert_right(member, image)
        leader.start_node()
        leader.containerd.pull_again(reference)
        assert_right(leader, image)
