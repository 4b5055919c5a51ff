"""`ipcs containerd` against real containerds: checked, moved in, moved out."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ipcs.testing.containerd import Containerd

pytestmark = [pytest.mark.slow, pytest.mark.interop]

STORE = "root/io.containerd.content.v1.content"


def ipcs(*args):
    argv = [sys.executable, "-m", "ipcs", "containerd", *map(str, args)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


def test_config_names_what_it_changes(tmp_path):
    for version, line in (("1.6.20", "version = 2"), ("2.1.0", "version = 3")):
        done = ipcs("config", "--containerd-version", version, "--socket", "/run/ipcs/ipcs.sock")
        assert done.returncode == 0
        assert line in done.stdout
        assert 'disabled_plugins = ["io.containerd.content.v1.content"]' in done.stdout
        assert "ipcs containerd import" in done.stdout
    assert "version = 2" in ipcs("config", "--repo", tmp_path).stdout  # Debian 12's 1.6


@pytest.mark.usefixtures("each_containerd")
def test_containerd_understands_the_config(lab):
    binary = os.environ.get("IPCS_TEST_CONTAINERD") or shutil.which("containerd")
    config = lab / "config.toml"
    env = {
        **os.environ,
        "PATH": f"{Path(binary).parent}:{os.environ['PATH']}",
    }  # the version is asked of the first there
    argv = [sys.executable, "-m", "ipcs", "containerd", "config", "--socket", lab / "i.sock"]
    config.write_bytes(subprocess.run(argv, check=True, capture_output=True, timeout=60, env=env).stdout)
    argv = [binary, "-c", config, "config", "dump"]
    dumped = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    understood = tomllib.loads(dumped.stdout)
    assert understood["disabled_plugins"] == ["io.containerd.content.v1.content"]
    plugin = understood["proxy_plugins"]["ipcs"]
    assert (plugin["type"], plugin["address"]) == ("content", str(lab / "i.sock"))


@pytest.mark.usefixtures("each_containerd")
def test_an_installation_moves_in_and_out_again(pair, lab, registry, reference):
    with Containerd(lab / "a" / "c", None) as before:
        before.pull(reference)
        a = pair("a")
        node = a.start_node()
        done = ipcs("check", "--json", "--socket", node.socket, "--containerd", before.socket)
        report = json.loads(done.stdout)
        assert (done.returncode, report["works"], report["node"][:2]) == (1, False, "ok")
        assert "keeps its blobs elsewhere" in report["containerd"]
        moved = json.loads(ipcs("import", "--json", "--socket", node.socket, lab / "a" / "c" / STORE).stdout)
        assert (moved["copied"], moved["present"]) == (len(before.contents()), 0)
    try:
        inside = a.start_containerd()
        assert ipcs("check", "--socket", node.socket, "--containerd", inside.socket).returncode == 0
        requests = len(registry.requests())
        assert inside.run(reference, "echo", "in").strip() == "in"
        inside.ctr("images", "pull", "--plain-http", "--snapshotter", "native", reference)
        assert all("/blobs/" not in request.path for request in registry.requests()[requests:])

        second = f"{registry.address}/second:v1"
        inside.ctr("images", "tag", reference, second)
        out = json.loads(ipcs("export", "--json", "--socket", node.socket, lab / "out").stdout)
        assert out["written"] == moved["copied"]
        inside.stop()
    finally:
        a.__exit__()
    (lab / "a" / "c" / STORE / "blobs").rename(lab / "old")
    (lab / "out" / "blobs").rename(lab / "a" / "c" / STORE / "blobs")
    with Containerd(lab / "a" / "c", None) as after:
        assert after.run(reference, "echo", "out").strip() == "out"
        after.ctr("images", "push", "--plain-http", second)


def test_a_corrupt_blob_is_not_imported(pair, lab):
    blobs = lab / "old" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / ("ab" * 32)).write_bytes(b"not what its name says")
    a = pair("a")
    try:
        done = ipcs("import", "--socket", a.start_node().socket, lab / "old")
        assert done.returncode != 0
        assert "corrupt" in done.stderr
    finally:
        a.__exit__()
