"""Where the time of a transfer goes: a flame graph and the cost per block by stage, of either side. See README.md.

    python -m benchmarks.profile                        both sides of 296 MB between two ipcs nodes
    python -m benchmarks.profile --size 1000 --output DIR

py-spy samples the running processes (it needs root, or ptrace allowed); what waits is left out, so the rest is a share
of the CPU-seconds that were measured.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from ipcs.testing.peers import Peer

from .contenders import Ipcs, Share
from .measure import PROJECT, cpu_seconds
from .runner import WARM_UP, make_blob
from .scenarios import KIB, MB

RATE = 400
"""Samples a second: a 300 MB fetch takes less than one."""
REPEATS = 4
"""Fetches, by fresh nodes, whose samples are added up."""
SETTLE = 0.5
"""Seconds py-spy gets to attach before the fetch begins."""

WAITING = re.compile(r"get_events|_thread_cache\.py|threading\.py|grpc/_server\.py")
"""Leaves of threads that wait. py-spy tells them by their state, which in a virtual machine it often reads too late."""

STAGES = (
    ("sha256", r"bitswap/verify\.py"),
    ("store", r"ipcs/store/"),
    ("Noise: AEAD and framing", r"net/noise"),
    ("yamux", r"net/(yamux|mux|outbox|streams|channel)"),
    ("Bitswap codec", r"bitswap/(message|decoder)\.py"),
    ("Bitswap engine", r"ipcs/bitswap/"),
    ("DAG walk", r"ipcs/unixfs/"),
    ("socket", r"trio/_socket\.py|trio/_highlevel_socket\.py|/socket\.py"),
    ("host", r"ipcs/net/|/libp2p/"),
    ("trio scheduler", r"/trio/|/outcome/"),
)
"""A sample belongs to the stage whose pattern matches the frame nearest to its leaf. C code counts for its caller."""


def stage_of(stack: str) -> str:
    """The stage of one folded stack (`frame;frame;frame`, root first)."""
    for frame in reversed(stack.split(";")):
        for stage, pattern in STAGES:
            if re.search(pattern, frame):
                return stage
    return "other"


def by_stage(folded: Iterable[str]) -> Counter[str]:
    """Samples of each stage in py-spy's raw output (`stack count` lines)."""
    samples: Counter[str] = Counter()
    for line in folded:
        stack, _, count = line.rpartition(" ")
        if not WAITING.search(stack.rpartition(";")[2]):
            samples[stage_of(stack)] += int(count)
    return samples


class Recorder:
    """py-spy attached to one process until the block is left."""

    def __init__(self, pid: int, output: Path, form: str) -> None:
        command = ["py-spy", "record", "--pid", str(pid), "--rate", str(RATE), "--full-filenames", "--nonblocking"]
        self._command = [*command, "--format", form, "--output", str(output), "--duration", "600"]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __exit__(self, *exc: object) -> None:
        self._process.send_signal(2)  # it writes its output on SIGINT
        self._process.wait(30)


async def record(directory: Path, size: int, output: Path) -> dict[str, tuple[Counter[str], float]]:
    """Samples by stage, and CPU-seconds, of each side over `REPEATS` fetches."""
    software = Ipcs()
    warm_up = make_blob(directory / "warm-up", WARM_UP, 256 * KIB, seed=1)
    blob = make_blob(directory / "blob", size, 256 * KIB, seed=2)
    found = {side: (Counter[str](), 0.0) for side in ("fetcher", "provider")}
    async with software.open(directory / "provider", durable=False) as provider:
        warm_up_root = await software.load(provider, directory, warm_up, Share())
        root = await software.load(provider, directory, blob, Share())
        for repeat in range(REPEATS + 1):
            form = "flamegraph" if repeat == REPEATS else "raw"
            async with software.open(directory / f"fetcher-{repeat}", durable=False) as fetcher:
                await fetcher.call("connect", addr=provider.addr)
                await fetcher.call("fetch", cid=warm_up_root)
                sides = {"fetcher": fetcher, "provider": provider}
                used = await _fetch_recorded(sides, root, output, form)
            if form == "raw":
                for side, seconds in used.items():
                    samples, total = found[side]
                    samples += by_stage((output / f"{side}.raw").read_text().splitlines())
                    found[side] = samples, total + seconds
    return found


async def _fetch_recorded(sides: dict[str, Peer], root: str, output: Path, form: str) -> dict[str, float]:
    suffix = "svg" if form == "flamegraph" else "raw"
    with ExitStack() as stack:
        for side, peer in sides.items():
            stack.enter_context(Recorder(peer.process.pid, output / f"{side}.{suffix}", form))
        await trio.sleep(SETTLE)
        before = {side: cpu_seconds(peer.process.pid) for side, peer in sides.items()}
        await sides["fetcher"].call("fetch", cid=root)
        return {side: cpu_seconds(peer.process.pid) - before[side] for side, peer in sides.items()}


def table(side: str, samples: Counter[str], cpu: float, size: int) -> Table:
    """Microseconds a block of 256 KiB and CPU-seconds a GB for each stage."""
    moved = size * REPEATS
    blocks = moved / (256 * KIB)
    out = Table(title=f"{side}: {cpu / moved * 1e9:.2f} CPU-s/GB", title_justify="left")
    for column in ("stage", "share", "us a block", "CPU-s/GB"):
        out.add_column(column, justify="left" if column == "stage" else "right")
    for stage, count in samples.most_common():
        share = count / samples.total()
        out.add_row(stage, f"{share:.1%}", f"{cpu * share / blocks * 1e6:.0f}", f"{cpu * share / moved * 1e9:.3f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=296, help="MB to move (default 296)")
    parser.add_argument("--output", type=Path, default=PROJECT / ".cache" / "profile")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ipcs-profile-") as place:
        found = trio.run(record, Path(place), args.size * MB, args.output)
    console = Console(width=100)
    for side, (samples, cpu) in found.items():
        if not samples:
            sys.exit(f"py-spy saw nothing of the {side}: is it installed (pip install py-spy), and ptrace allowed?")
        console.print(table(side, samples, cpu, args.size * MB))
    print(f"flame graphs: {args.output}/fetcher.svg, {args.output}/provider.svg")


if __name__ == "__main__":
    main()
