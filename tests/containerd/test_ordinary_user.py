"""The node without root, under a containerd that has it: the socket's mode is all that lets somebody in."""

import os
import stat
import subprocess
import sys

import pytest

from ipcs.testing.containerd import Containerd, NodeProcess

pytestmark = [pytest.mark.slow, pytest.mark.interop]

USER, GROUP = 54321, 54321
SOMEBODY_ELSE = 54322

CONFORMANCE = """
import sys
from pathlib import Path
from ipcs.content.client import RemoteContent
from ipcs.testing.content_conformance import CHECKS
with RemoteContent(Path(sys.argv[1])) as content:
    for check in CHECKS:
        check(content)
print(len(CHECKS), "passed")
"""


def as_user(user, group):
    """A command prefix: no capability but the one to read, for the interpreter may lie in root's home.

    Connecting to a socket takes the right to write, so that one opens none.
    """
    ids = ["--reuid", str(user), "--regid", str(group), "--clear-groups"]
    read = "-all,+dac_read_search"
    return ["setpriv", *ids, "--no-new-privs", "--inh-caps", read, "--ambient-caps", read, "--bounding-set", read]


def python(*argv, under=()):
    command = [*under, sys.executable, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def directory(lab):
    lab.chmod(0o711)  # the user must get through
    own = lab / "n"
    own.mkdir(mode=0o750)
    os.chown(own, USER, GROUP)
    return own


def test_the_node_needs_no_root(lab, directory, reference, image):
    with NodeProcess(directory, "--containerd", str(lab / "c" / "c.sock"), under=as_user(USER, GROUP)) as node:
        assert os.stat(f"/proc/{node.process.pid}").st_uid == USER
        made = node.socket.stat()
        assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (USER, GROUP, 0o660)

        done = python("-c", CONFORMANCE, node.socket, under=as_user(USER, GROUP))
        assert done.stdout.endswith(" passed\n"), done.stderr
        done = python("-m", "ipcs", "stat", "--socket", node.socket, under=as_user(SOMEBODY_ELSE, GROUP))
        assert done.returncode == 0, done.stderr
        stranger = as_user(SOMEBODY_ELSE, SOMEBODY_ELSE)
        refused = python("-m", "ipcs", "stat", "--socket", node.socket, under=stranger)
        assert (refused.returncode, "permission denied" in refused.stderr) == (3, True), refused.stderr

        with Containerd(lab / "c", node.socket) as containerd:
            containerd.pull(reference)
            assert set(containerd.contents()) == set(image.blobs)
            assert "/payload.0" in containerd.run(reference, "sha256sum", "/payload.0")
            check = ("-m", "ipcs", "containerd", "check", "--socket", node.socket, "--containerd", containerd.socket)
            done = python(*check)
            assert done.returncode == 0, done.stdout
            containerd.ctr("images", "rm", "--sync", reference)
            assert containerd.contents() == []
        assert node.is_running()
