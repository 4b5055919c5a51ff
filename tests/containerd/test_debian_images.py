"""Images built from Debian packages, as people's images are: used in every way, and run where they were adopted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.interop]

NAMES = ("alpine-like:v2", "tool-like:v1", "tool-like:v2")
"""3 MB in one layer, 21 MB in two; the two versions of a tool share the first. They need no bootstrap of a Debian."""

PROBE = {
    "alpine-like:v2": ("ls", "/usr/share/zoneinfo/Europe/Paris"),
    "tool-like:v1": ("ls", "/usr/bin/containerd"),
    "tool-like:v2": ("ls", "/usr/bin/containerd"),
}
"""What a container of each runs; it prints the path that is its last argument."""


def not_tested(reason):
    why = f"images from Debian packages NOT TESTED: {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Where the images are, as an OCI layout, and what the builder says of each: 40 s."""
    script = Path(os.environ.get("IPCS_FIXTURES", "/nonexistent")) / "containerd" / "make_images.py"
    missing = [name for name in ("skopeo", "apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing or not script.exists():
        why = (
            f"images from Debian packages NOT TESTED: {', '.join(missing) or 'make_images.py of IPCS_FIXTURES'} missing"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    out = tmp_path_factory.mktemp("images")
    argv = [sys.executable, str(script), "--out", str(out), "--only", "alpine-like", "tool-like"]
    built = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if built.returncode:  # mostly a mirror that is out of reach
        not_tested(f"{built.stdout[-500:]}\n{built.stderr[-1500:]}")
    yield out / "oci", json.loads((out / "images.json").read_text())
    shutil.rmtree(out)


@pytest.fixture
def push(registry, images):
    def copy(name):
        layout, built = images
        target = f"{registry.address}/{name}"
        argv = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
        subprocess.run([*argv, f"oci:{layout}:{name}", f"docker://{target}"], check=True, timeout=60)
        return target, [layer["digest"] for layer in built[name]["layers"]]

    return copy


def assert_runs(containerd, reference, name, snapshotter="overlayfs"):
    command = PROBE[name]
    assert containerd.run(reference, *command, snapshotter=snapshotter).strip() == command[-1]


@pytest.mark.parametrize("name", ["alpine-like:v2", "tool-like:v1"])
def test_it_lives_its_whole_life(pair, registry, push, name):
    reference, layers = push(name)
    with pair("a") as a:
        ctr = a.containerd
        ctr.pull(reference)
        assert set(layers) < set(ctr.contents())
        assert_runs(ctr, reference, name)
        ctr.pull(reference, "--snapshotter", "native")
        assert_runs(ctr, reference, name, "native")

        before = len(registry.requests())
        ctr.pull(reference, namespace="other")
        assert [(r.method, "/manifests/" in r.path) for r in registry.requests()[before:]] == [("HEAD", True)]
        assert sorted(ctr.contents("other")) == sorted(ctr.contents())

        copy = f"{registry.address}/copy:v1"
        ctr.ctr("images", "tag", reference, copy)
        ctr.ctr("images", "push", "--plain-http", copy)
        ctr.pull(copy, namespace="third")

        for namespace, names in (("default", [reference, copy]), ("other", [reference]), ("third", [copy])):
            ctr.ctr("images", "rm", "--sync", *names, namespace=namespace)
            assert ctr.contents(namespace) == []


def test_adopted_from_a_peer_it_runs_and_an_update_shares_what_it_can(pair, registry, push):
    with pair("a") as a, pair("b", bootstrap=[a.node.address]) as b:
        b.node.wait_for_peers(1)
        for name in ("tool-like:v1", "tool-like:v2"):
            reference, layers = push(name)
            a.containerd.pull(reference)
            before = len(registry.requests())
            b.containerd.pull(reference)
            asked = [request.path for request in registry.requests()[before:]]
            assert asked
            assert not any(path.endswith(tuple(layers)) for path in asked), "layers came from A"
            assert_runs(b.containerd, reference, name)
