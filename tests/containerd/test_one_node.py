"""One node and one real containerd: every way in which an image is used, and every way to die."""

import subprocess
import sys
import time

import pytest

from ipcs.store.store import open_store
from ipcs.testing.content_conformance import CHECKS
from ipcs.testing.images import build_image
from ipcs.testing.tiny_registry import TinyRegistry
from ipcs.unixfs.walk import links_of

pytestmark = [pytest.mark.slow, pytest.mark.interop]
each_containerd = pytest.mark.usefixtures("each_containerd")


@each_containerd
def test_an_image_lives_its_whole_life(pair, registry, reference, image):
    with pair("a") as a:
        ctr = a.containerd
        ctr.pull(reference)
        assert sorted(ctr.contents()) == sorted(image.blobs)
        assert "/payload.0" in ctr.run(reference, "sha256sum", "/payload.0")
        ctr.pull(reference, "--snapshotter", "native")
        assert ctr.run(reference, "echo", "native", name="c2", snapshotter="native").strip() == "native"

        before = len(registry.requests())
        ctr.pull(reference, namespace="other")
        moved = registry.requests()[before:]
        assert [(r.method, "/manifests/" in r.path) for r in moved] == [("HEAD", True)], moved
        assert sorted(ctr.contents("other")) == sorted(image.blobs)

        copy = f"{registry.address}/copy:v1"
        ctr.ctr("images", "tag", reference, copy)
        ctr.ctr("images", "push", "--plain-http", copy)
        pulled = ctr.ctr("images", "pull", "--plain-http", copy, namespace="third")
        assert pulled.returncode == 0

        for namespace, names in (("default", [reference, copy]), ("other", [reference]), ("third", [copy])):
            ctr.ctr("images", "rm", "--sync", *names, namespace=namespace)
        assert ctr.contents() == ctr.contents("other") == ctr.contents("third") == []


@each_containerd
def test_content_ingest_and_get_are_byte_exact(pair, lab):
    data = bytes(range(256)) * 5000
    path = lab / "blob"
    path.write_bytes(data)
    with pair("a") as a:
        with path.open("rb") as source:
            argv = a.containerd.ctr_argv("content", "ingest", "my-ref")
            subprocess.run(argv, stdin=source, check=True, capture_output=True, timeout=60)
        [digest] = a.containerd.contents()
        argv = a.containerd.ctr_argv("content", "get", digest)
        assert subprocess.run(argv, check=True, capture_output=True, timeout=60).stdout == data
        a.containerd.ctr("content", "rm", digest)


@each_containerd
def test_containerd_may_restart_and_may_come_first(pair, reference):
    a = pair("a")
    try:
        a.start_containerd()
        pulling = a.containerd.start_ctr("images", "pull", "--plain-http", reference)
        time.sleep(1.0)  # long enough that the pull has met the missing socket
        assert pulling.is_running()
        a.start_node()
        assert pulling.wait(60) == 0, pulling.log()
        a.containerd.stop()
        a.start_containerd()
        assert a.containerd.run(reference, "echo", "again").strip() == "again"
    finally:
        a.__exit__()


@each_containerd
@pytest.mark.parametrize("restart_containerd", [False, True])
def test_kill_mid_ingest_resumes_at_the_byte(pair, restart_containerd):
    """Not when containerd collects garbage between the pulls, which aborts the ingest: its default is not to."""
    image = build_image([12_000_000], seed="resume")
    a = pair("a")
    with TinyRegistry({"img": image}, rate=6_000_000) as origin, a.running(eager=False):
        reference = f"{origin.address}/img:v1"
        layer = image.layers[1]
        pulling = a.containerd.start_ctr("images", "pull", "--plain-http", reference)
        deadline = time.monotonic() + 30
        offset = 0
        while offset < 3_000_000 and time.monotonic() < deadline:
            offset = ingest_offset(a, layer)
        a.node.kill()
        assert pulling.wait(60) != 0
        if restart_containerd:
            a.containerd.stop()
        a.start_node()
        if restart_containerd:
            a.start_containerd(eager=False)
        a.containerd.pull_again(reference)
        resumed = [served.first for served in origin.blob_requests() if served.path.endswith(layer) and served.first]
        assert resumed
        assert resumed[-1] >= offset, "what was acknowledged before the kill is not fetched again"
        assert "/payload.0" in a.containerd.run(reference, "sha256sum", "/payload.0")
        fsck(a)


def ingest_offset(a, digest):
    """How much of the layer the node has acknowledged."""
    from ipcs.content.client import RemoteContent

    with RemoteContent(a.node.socket) as remote:
        return max((s.offset for s in remote.list_statuses() if s.ref.endswith(digest)), default=0)


def fsck(a):
    """The store is sound once the node has stopped."""
    a.node.stop()
    with open_store(a.directory / "n" / "repo" / "store", links_of) as store:
        report = store.fsck()
    assert report.is_clean, report.problems


@each_containerd
def test_kill_mid_unpack_and_the_same_command_succeeds(pair, reference):
    with pair("a") as a:
        a.containerd.ctr("content", "fetch", "--plain-http", reference)
        pulling = a.containerd.start_ctr("images", "pull", "--plain-http", reference)
        time.sleep(0.05)
        a.node.kill()
        pulling.wait(60)
        a.start_node()
        a.containerd.pull_again(reference)
        assert a.containerd.run(reference, "echo", "ok").strip() == "ok"


@pytest.mark.parametrize("mode", ["off", "swarm"])
def test_the_shipped_suite_against_a_real_node(pair, mode):
    from ipcs.content.client import RemoteContent

    node = pair("a", "--adopt", mode)
    try:
        with RemoteContent(node.start_node().socket) as remote:
            for check in CHECKS:
                check(remote)
    finally:
        node.__exit__()


def test_the_fixture_suite_against_a_real_node(pair, lab):
    """The wire checks that are not ours, where they are at hand."""
    import os
    from pathlib import Path

    script = Path(os.environ.get("IPCS_FIXTURES", "/nonexistent")) / "containerd" / "conformance.py"
    if not script.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("the containerd conformance script of IPCS_FIXTURES is not at hand")
        pytest.skip("IPCS_FIXTURES is not set: foreign conformance checks were NOT RUN")
    node = pair("a")
    try:
        argv = [sys.executable, str(script), "--socket", str(node.start_node().socket)]
        env = {**os.environ, "IPCS_PB": str(lab / "pb")}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env)
        assert done.stdout.strip().endswith("20 passed, 0 failed"), done.stdout
    finally:
        node.__exit__()
