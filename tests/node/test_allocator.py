"""The allocator keeps buffers: shown by the page faults of a process that allocates like a transfer does."""

from __future__ import annotations

import subprocess
import sys

CHURN = """
import resource, sys
from ipcs.allocator import keep_buffers
if sys.argv[1] == "keep":
    assert keep_buffers()
def churn():
    for _ in range(200):
        blocks = [bytearray(262144) for _ in range(16)]
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode):
    done = subprocess.run([sys.executable, "-c", CHURN, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_buffers_are_reused_without_page_faults():
    assert faults("keep") < 1000 < faults("default")
