"""Import speed, chunkers, memory, start-up of the command: `python -m benchmarks.unixfs` (`make bench-unixfs`).

Speeds are MB/s (10^6 bytes), medians over alternating repetitions with the range in brackets; ratios are taken within
a repetition. The input lies in the page cache, one thread, both the leaf hashes and the hash of the whole are computed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ipcs.store.store import open_store
from ipcs.unixfs.chunker import make_chunker
from ipcs.unixfs.importer import Importer
from ipcs.unixfs.profile import IPCS_V1
from ipcs.unixfs.scan import PIECE
from ipcs.unixfs.walk import links_of

SIZE = 296_000_000
HUGE = 5_000_000_000


def pieces(path: Path) -> Iterator[bytes]:
    """The file as `ipcs add` reads it."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def hash_twice(path: Path) -> None:
    """The bound: nothing but what must be computed, on the same reads."""
    first, second = hashlib.sha256(), hashlib.sha256()
    for piece in pieces(path):
        first.update(piece)
        second.update(piece)


def import_only(path: Path) -> None:
    """What `ipcs add --only-hash` and the ingest of a blob compute."""
    importer, whole = Importer(IPCS_V1), hashlib.sha256()
    for piece in pieces(path):
        whole.update(piece)
        importer.feed(piece)
    importer.finish()


def import_into(path: Path, folder: Path) -> None:
    """The same, every block put into a fresh store."""
    importer, whole = Importer(IPCS_V1), hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=folder) as repo, open_store(Path(repo), links_of) as store:
        for piece in pieces(path):
            whole.update(piece)
            store.blocks.put_many(importer.feed(piece))
        store.blocks.put_many(importer.finish())


def chunk(path: Path, spec: str) -> None:
    """Only the cutting."""
    chunker = make_chunker(spec)
    for piece in pieces(path):
        chunker.feed(piece)
    chunker.finish()


def seconds(run: Callable[[], None]) -> float:
    """Wall-clock seconds of one run."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def report(name: str, size: int, times: list[float], bounds: list[float] | None = None) -> None:
    """One line: median speed, range, and the ratio to the bound."""
    speeds = sorted(size / second / 1e6 for second in times)
    line = f"{name:<34} {statistics.median(speeds):7.0f} MB/s  [{speeds[0]:.0f} to {speeds[-1]:.0f}]"
    if bounds is not None:
        ratios = [bound / second for bound, second in zip(bounds, times, strict=True)]
        line += f"  {statistics.median(ratios):.2f} of the bound [{min(ratios):.2f} to {max(ratios):.2f}]"
    print(line)


def speed(folder: Path, repetitions: int) -> None:
    """All that is measured over one file of random bytes."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(SIZE // PIECE):
            file.write(os.urandom(PIECE))
        file.write(os.urandom(SIZE % PIECE))
        file.flush()
        path = Path(file.name)
        runs: dict[str, Callable[[], None]] = {
            "sha256 twice (the bound)": lambda: hash_twice(path),
            "import, only hash": lambda: import_only(path),
            "import into a store": lambda: import_into(path, folder),
            "cut: buzhash": lambda: chunk(path, "buzhash"),
            "cut: rabin": lambda: chunk(path, "rabin"),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repetitions):
            for name, run in runs.items():
                times[name].append(seconds(run))
        bound = times["sha256 twice (the bound)"]
        for name, measured in times.items():
            report(name, SIZE, measured, bound if name.startswith("import") else None)


def resident(field: str) -> int:
    """Bytes of this process's `VmRSS` (now) or `VmHWM` (its peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def memory(size: int) -> None:
    """Peak memory of an import of `size` bytes above the idle process; run in a process of its own."""
    block = os.urandom(PIECE)
    idle = resident("VmRSS")
    importer, whole = Importer(IPCS_V1), hashlib.sha256()
    for number in range(size // PIECE):
        piece = number.to_bytes(8, "big") + block[8:]
        whole.update(piece)
        importer.feed(piece)
    importer.finish()
    print(f"import of {size / 1e9:.1f} GB                    {(resident('VmHWM') - idle) / 1e6:7.1f} MB above idle")


_STARTUP = """
import sys, time
from ipcs.cli import run
run(["add", "--only-hash", "-Q", {path!r}])
loaded = {{"libp2p", "grpc", "trio", "numpy"}} & set(sys.modules)
assert not loaded, loaded
"""


def startup(repetitions: int) -> None:
    """The command on a small file, as a process from start to end."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"hello")
        file.flush()
        argv = [sys.executable, "-m", "ipcs", "add", "--only-hash", "-Q", file.name]
        times = [seconds(lambda: _quiet(argv)) for _ in range(repetitions)]
        _quiet([sys.executable, "-c", _STARTUP.format(path=file.name)])
    median, worst = statistics.median(times), max(times)
    print(f"ipcs add --only-hash, whole process  {median * 1000:5.0f} ms  [to {worst * 1000:.0f}], no libp2p, no grpc")


def _quiet(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where input and store lie")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--memory", type=int, metavar="BYTES", help="only measure the memory of such an import")
    args = parser.parse_args()
    if args.memory:
        memory(args.memory)
        return
    speed(args.dir, args.repetitions)
    startup(2 * args.repetitions)
    subprocess.run([sys.executable, "-m", "benchmarks.unixfs", "--memory", str(HUGE)], check=True)


if __name__ == "__main__":
    main()
