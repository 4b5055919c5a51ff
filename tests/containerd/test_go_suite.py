"""containerd's own content test suite (Go, `core/content/testsuite`) against a live node's socket."""

import os
import re
import subprocess

import pytest

from ipcs.errors import NotFound
from ipcs.testing.containerd import NodeProcess
from ipcs.testing.peers import go_binary

pytestmark = [pytest.mark.slow, pytest.mark.interop]

DIRECT = (
    *("Writer", "UpdateStatus", "CommitExists", "Resume", "ResumeTruncate", "ResumeDiscard", "ResumeCopy"),
    *("ResumeCopySeeker", "ResumeCopyReaderAt", "SmallBlob", "Labels", "CommitErrorState"),
)
ACROSS_NAMESPACES = ("CrossNamespaceAppend", "CrossNamespaceShare", "CrossNamespaceIsolate", "SharedNamespaceIsolate")
SUBTESTS = {"TestProxy": DIRECT, "TestMetadata": (*DIRECT, *ACROSS_NAMESPACES)}
TIMEOUT = 300


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """`verdicts(mode, suite)`: what became of each subtest, by name, and all that was printed.

    Each pair is run once, on a node of its own, for the suites write the same blobs.
    """
    try:
        binary = go_binary("suite", "suite.test")
    except NotFound as missing:
        pytest.skip(f"containerd's own content test suite was NOT RUN: {missing.message}")
    done = {}

    def run(mode, suite):
        if (mode, suite) not in done:
            directory = tmp_path_factory.mktemp("n")
            with NodeProcess(directory, "--adopt", mode) as node:
                argv = [binary, "-test.v", "-test.run", f"^{suite}$"]
                env = {**os.environ, "CONTENT_SOCKET": str(node.socket)}
                output = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, env=env).stdout
            found = re.findall(rf"^ +--- (\w+): {suite}/(\w+) ", output, re.MULTILINE)
            done[mode, suite] = {name: verdict for verdict, name in found}, output
        return done[mode, suite]

    return run


@pytest.mark.parametrize("mode", ["off", "swarm"])
@pytest.mark.parametrize("suite", SUBTESTS)
def test_no_subtest_is_unknown_to_us(verdicts, mode, suite):
    names, output = verdicts(mode, suite)
    assert sorted(names) == sorted(SUBTESTS[suite]), output


@pytest.mark.parametrize("mode", ["off", "swarm"])
@pytest.mark.parametrize(("suite", "name"), [(suite, name) for suite, names in SUBTESTS.items() for name in names])
def test_containerds_own(verdicts, mode, suite, name):
    names, output = verdicts(mode, suite)
    assert names.get(name) == "PASS", output
