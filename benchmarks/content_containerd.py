"""The parts of `benchmarks.content` that need containerd: ingest, get, pull and adopt.

Three stores side by side, alternating: ours behind containerd's proxy plugin, containerd's own in its own process, and,
where Go built it, containerd's own behind the same proxy plugin (`goproxy`), which is what any external store costs.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ipcs.control.client import ControlClient
from ipcs.errors import NotFound
from ipcs.testing.containerd import Containerd, NodeProcess, Process, Registry
from ipcs.testing.images import build_image, push_image
from ipcs.testing.peers import go_binary

from .content_rows import Row, ratio

BLOB = 296_160_075
LAYERS = (30_000_000, 6_000_000, 42_000_000, 81_000_000, 93_000_000, 68_000_000)
"""Sizes of the layers of a golang image, in bytes."""

IPCS, BUILT_IN, GO_PROXY = "ipcs", "built-in", "Go proxy"
PAIRS = ((IPCS, BUILT_IN), (GO_PROXY, BUILT_IN), (IPCS, GO_PROXY))


@dataclass(frozen=True)
class Contender:
    """A containerd, and the process that its content store runs in when that is another."""

    containerd: Containerd
    store: Process | None = None

    def cpu(self) -> float:
        """Seconds of processor time that both used so far."""
        return sum(_cpu(one.process.pid) for one in (self.containerd, self.store) if one is not None)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def contenders(directory: Path) -> Iterator[dict[str, Contender]]:
    """All that can be run here, by name."""
    with ExitStack() as stack:
        node = stack.enter_context(NodeProcess(directory / "n", "--adopt", "off"))
        ours = stack.enter_context(Containerd(directory / "ours", node.socket))
        found = {IPCS: Contender(ours, node)}
        found[BUILT_IN] = Contender(stack.enter_context(Containerd(directory / "theirs", None)))
        try:
            binary = go_binary("readrate", "goproxy")
        except NotFound as missing:
            print(f"!!! NO GO PROXY: {missing.message}", file=sys.stderr)
        else:
            socket = directory / "g.sock"
            proxy = stack.enter_context(Process(directory / "g", "goproxy", [binary, socket, directory / "g" / "root"]))
            proxy.wait_listening(socket)
            found[GO_PROXY] = Contender(stack.enter_context(Containerd(directory / "go", socket)), proxy)
        yield found


class Clock:
    """What each contender took, round by round."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._cpu: dict[tuple[str, str], list[float]] = {}

    def time(self, what: str, name: str, one: Contender, work: Callable[[], object]) -> None:
        """Do `work` and write down its seconds, and those of the processors."""
        subprocess.run(["sync"], check=True)
        used, began = one.cpu(), time.perf_counter()
        work()
        self._seconds.setdefault((what, name), []).append(time.perf_counter() - began)
        self._cpu.setdefault((what, name), []).append(one.cpu() - used)

    def rows(self, pairs: Sequence[tuple[str, str]] = PAIRS) -> Iterator[Row]:
        """The ratios of `pairs` of contenders, as far as those took part."""
        for what in dict.fromkeys(what for what, _ in self._seconds):
            for over, under in pairs:
                if (what, over) in self._seconds and (what, under) in self._seconds:
                    seconds = self._seconds[what, over], self._seconds[what, under]
                    yield ratio(what, seconds, "s", (over, under), (self._cpu[what, over], self._cpu[what, under]))


def bench_ctr(directory: Path, rounds: int, _image: str | None) -> Iterator[Row]:
    """`ctr content ingest` and `get`."""
    path = directory / "blob"
    clock = Clock()
    with contenders(directory) as all_of_them:
        for number in range(rounds):
            data = hashlib.shake_128(b"%d" % number).digest(BLOB)
            path.write_bytes(data)
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            for name, one in all_of_them.items():
                put = one.containerd.ctr_argv("content", "ingest", "bench")
                clock.time("ctr content ingest of 296 MB", name, one, partial(_run_with_input, put, path))
                get = partial(
                    subprocess.run,
                    one.containerd.ctr_argv("content", "get", digest),
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                clock.time("ctr content get of 296 MB", name, one, get)
                one.containerd.ctr("content", "rm", digest)
        yield from clock.rows()


def _run_with_input(argv: list[str], path: Path) -> None:
    with path.open("rb") as file:
        subprocess.run(argv, stdin=file, check=True, capture_output=True)


def push(registry: Registry, image: str | None) -> str:
    """The image (`LAYOUT:NAME:TAG` of an OCI layout; None makes one that does not compress) in the registry."""
    if image is None:
        return push_image(build_image(LAYERS), registry.address, "golang")
    if shutil.which("skopeo") is None:
        raise NotFound("skopeo is not installed: it copies the image into the registry")
    target = f"{registry.address}/{image.partition(':')[2]}"
    argv = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
    subprocess.run([*argv, f"oci:{image}", f"docker://{target}"], check=True)
    return target


def bench_pull(directory: Path, rounds: int, image: str | None) -> Iterator[Row]:
    """Pull and unpack from a local registry."""
    clock = Clock()
    with Registry(directory / "r") as registry, contenders(directory) as all_of_them:
        reference = push(registry, image)
        for number in range(rounds + 1):
            for name, one in all_of_them.items():
                what = "pull and unpack" if number else "the same, the first of all"
                clock.time(what, name, one, partial(one.containerd.pull, reference))
                one.containerd.ctr("images", "rm", "--sync", reference)
        yield from clock.rows()


def bench_adopt(directory: Path, rounds: int, image: str | None) -> Iterator[Row]:
    """An image from a peer, until every blob is verified here, beside the same from the registry with `--adopt off`."""
    clock = Clock()
    modes = {PEER: "swarm", REGISTRY: "off"}
    with Registry(directory / "r") as registry, NodeProcess(directory / "a") as a:
        reference = push(registry, image)
        with Containerd(directory / "ca", a.socket) as ca:
            ca.ctr("content", "fetch", "--plain-http", reference)
        for number in range(rounds):
            for name in sorted(modes, reverse=bool(number % 2)):
                for what, command in ADOPTING.items():
                    place = directory / "b"
                    origin = ("--origin", f"127.0.0.1=http://{registry.address}")
                    api = ("--adopt", modes[name], "--containerd", str(place / "c" / "c.sock"), *origin)
                    with (
                        NodeProcess(place / "n", *api, bootstrap=[a.address]) as b,
                        Containerd(place / "c", b.socket) as cb,
                    ):
                        b.wait_for_peers(1)
                        work = partial(_get_verified, cb, b, *command, "--plain-http", reference)
                        clock.time(what, name, Contender(cb, b), work)
                        cb.ctr("images", "rm", "--sync", reference)  # and its snapshots
                    shutil.rmtree(place)
    yield from clock.rows([(PEER, REGISTRY)])


PEER, REGISTRY = "from a peer", "from the registry"
ADOPTING = {
    "every blob here and verified, without unpack": ("content", "fetch"),
    "every blob here and verified, with unpack": ("images", "pull"),
}
"""What is timed: the ctr command of each."""


def _get_verified(containerd: Containerd, node: NodeProcess, *command: str) -> None:
    containerd.ctr(*command)
    with ControlClient(node.socket) as client:
        while client.call("stat")["adoption"]["promises_open"]:
            time.sleep(0.02)
