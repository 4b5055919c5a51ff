"""What the containerd tests share: a short directory, a registry with an image, and a loud skip."""

import os
from contextlib import contextmanager

import pytest

from ipcs.errors import NotFound
from ipcs.testing.containerd import Containerd, NodeProcess, Registry, missing_binaries
from ipcs.testing.images import BUSYBOX, build_image, push_image
from ipcs.testing.members import short_directory
from ipcs.testing.peers import go_binary


@pytest.fixture(autouse=True)
def _real_containerd():
    missing = missing_binaries() + ([] if BUSYBOX.exists() else ["busybox-static"])
    if missing or os.geteuid():
        why = f"real containerd NOT TESTED: needs root and {', '.join(missing) or 'nothing else'}"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(params=["installed", "2.x"])
def each_containerd(request, monkeypatch):
    """The test runs with the installed containerd, and with the 2.x that `scripts/test-peers` builds with Go."""
    if request.param == "2.x":
        try:
            monkeypatch.setenv("IPCS_TEST_CONTAINERD", str(go_binary("containerd2", "containerd")))
        except NotFound as missing:
            pytest.skip(f"containerd 2.x NOT TESTED: {missing.message}")


@pytest.fixture
def lab():
    with short_directory() as directory:
        yield directory


@pytest.fixture
def registry(lab):
    with Registry(lab / "registry") as running:
        yield running


@pytest.fixture(scope="session")
def image():
    """busybox, 8 MB and 3 MB: 12 MB in three layers."""
    return build_image([8_000_000, 3_000_000])


@pytest.fixture
def reference(registry, image):
    return push_image(image, registry.address, "test/image")


class Pair:
    """A node and its containerd."""

    def __init__(self, directory, bootstrap=(), *args):
        self.directory = directory
        self.bootstrap = bootstrap
        self.args = args
        self.node = None
        self.containerd = None

    def start_node(self):
        api = ("--containerd", str(self.directory / "c" / "c.sock"))
        self.node = NodeProcess(self.directory / "n", *api, *self.args, bootstrap=self.bootstrap)
        return self.node

    def start_containerd(self, **options):
        self.containerd = Containerd(self.directory / "c", self.directory / "n" / "i.sock", **options)
        return self.containerd

    @contextmanager
    def running(self, **options):
        """Both run; `options` are containerd's."""
        try:
            self.start_node()
            self.start_containerd(**options)
            yield self
        finally:
            self.__exit__()

    def __enter__(self):
        self.start_node()
        self.start_containerd()
        return self

    def __exit__(self, *_exc):
        for process in (self.containerd, self.node):
            if process is not None:
                process.stop()


@pytest.fixture
def pair(lab):
    return lambda name, *args, bootstrap=(): Pair(lab / name, bootstrap, *args)
