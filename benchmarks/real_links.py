"""ipcs beside a plain TCP copy over the same shaped and delayed links. See README.md.

python -m benchmarks.real_links --rounds 5
python -m benchmarks.real_links --only "1gbit, 10 ms, 3"
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.table import Table

from ipcs.testing.peers import Peer, open_script

from .contenders import Blob, Ipcs, Share
from .links import Host, NoNamespaces, network
from .measure import PROJECT, Record, Spread, cpu_seconds
from .plan import Progress
from .runner import WARM_UP, make_blob
from .scenarios import KIB, MB

FETCH_SECONDS = 120.0
PREPARE_SECONDS = 12.0
"""For each link: namespaces, the file, its providers."""
NODE_SECONDS = 1.5
"""For each round: a fresh fetcher and the warm-up file."""
BUFFER_IN_DELAYS = 2
"""The relay holds this many bandwidth-delay products for each direction, at least `LEAST_BUFFER`."""
LEAST_BUFFER = 4 * MB


@dataclass(frozen=True, slots=True)
class Link:
    """One path: the rate of every host's link, the round trip added by the relay, and how much is moved."""

    rate: str
    bits: int
    """The same, in bit/s."""
    delay: float
    """Seconds added to the round trip, half in each direction."""
    providers: int
    size: int

    @property
    def name(self) -> str:
        held = "1 provider" if self.providers == 1 else f"{self.providers} providers, a third each"
        return f"{self.rate}, {self.delay * 1000:g} ms, {held}"

    @property
    def least_seconds(self) -> float:
        """Seconds of a copy that uses the link fully."""
        return self.size * 8 / self.bits

    @property
    def buffer(self) -> int:
        return max(LEAST_BUFFER, round(BUFFER_IN_DELAYS * self.bits / 8 * self.delay))


LINKS = tuple(
    Link(rate, bits, delay, providers, size)
    for rate, bits, size in (("1gbit", 10**9, 1000 * MB), ("100mbit", 10**8, 128 * MB))
    for delay in (0.0005, 0.01, 0.05)
    for providers in (1, 3)
)


class Route:
    """The processes of one link: a relay, and for each way of copying its providers and its fetcher."""

    def __init__(self, link: Link, hosts: list[Host], middle: Host, directory: Path, stack: AsyncExitStack) -> None:
        self._link = link
        self._provider_hosts, self._fetcher_host = hosts[:-1], hosts[-1]
        self._middle = middle
        self._directory = directory
        self._stack = stack

    async def _open(self, name: str, host: Host, script: str, *flags: str) -> Peer:
        opened = open_script(self._directory / name, script, *flags, enter=host.enter)
        return await self._stack.enter_async_context(opened)

    async def start(self) -> None:
        self._relay = await self._open("relay", self._middle, "relay_peer.py")

    async def relayed(self, target: str) -> tuple[str, int]:
        """Address and port of a way to `target` ("host:port") through the relay."""
        answer = await self._relay.call(
            "relay", listen=self._middle.address, target=target, delay=self._link.delay / 2, buffer=self._link.buffer
        )
        return self._middle.address, answer["port"]

    async def tcp(self) -> Peer:
        """The fetcher of a plain copy, connected."""
        fetcher = await self._open("tcp-fetcher", self._fetcher_host, "tcp_peer.py")
        for index, host in enumerate(self._provider_hosts):
            provider = await self._open(f"tcp-{index}", host, "tcp_peer.py")
            port = (await provider.call("listen", address=host.address))["port"]
            address, port = await self.relayed(f"{host.address}:{port}")
            await fetcher.call("connect", addr=f"{address}:{port}")
        return fetcher

    async def ipcs(self, warm_up: Blob, blob: Blob) -> tuple[list[str], list[Peer], str, str]:
        """Addresses behind the relay and processes of the providers; the roots of the two blobs."""
        addrs, providers, warm_up_root, root = [], [], "", ""
        for index, host in enumerate(self._provider_hosts):
            place = self._directory / f"ipcs-{index}"
            listen = f"/ip4/{host.address}/tcp/0"
            provider = await self._open(
                f"ipcs-{index}", host, "ipcs_peer.py", "--repo", str(place / "repo"), "--listen", listen, "--open"
            )
            warm_up_root = await Ipcs().load(provider, place, warm_up, Share())
            root = await Ipcs().load(provider, place, blob, Share(index, self._link.providers))
            _, _, ip, _, port, _, peer_id = provider.addr.split("/")
            address, relay_port = await self.relayed(f"{ip}:{port}")
            addrs.append(f"/ip4/{address}/tcp/{relay_port}/p2p/{peer_id}")
            providers.append(provider)
        return addrs, providers, warm_up_root, root

    async def fetch(self, number: int, addrs: list[str], warm_up: str, root: str) -> tuple[float, float]:
        """Seconds and CPU-seconds of one fetch by a fresh node."""
        place = self._directory / f"fetcher-{number}"
        flags = ("--repo", str(place / "repo"), "--listen", f"/ip4/{self._fetcher_host.address}/tcp/0", "--open")
        async with open_script(place, "ipcs_peer.py", *flags, enter=self._fetcher_host.enter) as fetcher:
            for addr in addrs:
                await fetcher.call("connect", addr=addr)
            await fetcher.call("fetch", cid=warm_up, timeout=FETCH_SECONDS)
            before = cpu_seconds(fetcher.process.pid)
            answer = await fetcher.call("fetch", cid=root, timeout=FETCH_SECONDS)
            used = cpu_seconds(fetcher.process.pid) - before
        await trio.to_thread.run_sync(shutil.rmtree, place)
        return answer["seconds"], used


async def compare(link: Link, rounds: int) -> list[dict[str, Any]]:
    """Alternate `rounds` times over `link`."""
    rows = []
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ipcs-links-") as place,
        network(link.providers + 1, link.rate) as (hosts, middle),
    ):
        directory = Path(place)
        warm_up = make_blob(directory / "warm-up", WARM_UP, 256 * KIB, seed=1)
        blob = make_blob(directory / "blob", link.size, 256 * KIB, seed=2)
        async with AsyncExitStack() as stack:
            path = Route(link, hosts, middle, directory, stack)
            await path.start()
            tcp = await path.tcp()
            addrs, _, warm_up_root, root = await path.ipcs(warm_up, blob)
            for number in range(rounds):
                plain = (await tcp.call("get", size=link.size, timeout=FETCH_SECONDS))["seconds"]
                seconds, cpu = await path.fetch(number, addrs, warm_up_root, root)
                rows.append({**asdict(link), "name": link.name, "tcp": plain, "ipcs": seconds, "fetcher_cpu": cpu})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    out = Table(title="fetch over real links beside a plain TCP copy", title_justify="left")
    for column in ("link", "TCP MB/s", "ipcs MB/s", "ipcs / TCP", "fetcher CPU-s/GB"):
        out.add_column(column, justify="left" if column == "link" else "right")
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        size = mine[0]["size"]
        out.add_row(
            name,
            f"{Spread.of([size / MB / row['tcp'] for row in mine]):.1f}",
            f"{Spread.of([size / MB / row['ipcs'] for row in mine]):.1f}",
            f"{Spread.of([row['tcp'] / row['ipcs'] for row in mine]):.3f}",
            f"{Spread.of([row['fetcher_cpu'] / size * 1e9 for row in mine]).median:.2f}",
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", default="", help="only links whose name contains TEXT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=PROJECT / ".cache" / "bench" / "real_links.json")
    args = parser.parse_args()
    links = [link for link in LINKS if args.only in link.name]
    progress = Progress([PREPARE_SECONDS + args.rounds * (NODE_SECONDS + 2 * link.least_seconds) for link in links])
    print(f"{len(links)} links, about {progress.left / 60:.0f} minutes")
    record = Record(" ".join(["python -m benchmarks.real_links", *sys.argv[1:]]), [])
    try:
        for link in links:
            record.results.extend(trio.run(compare, link, args.rounds))
            progress.done += 1
            record.write(args.json, complete=progress.done == len(links))
            print(f"{link.name}: {progress}", flush=True)
    except NoNamespaces as refused:
        sys.exit(f"SKIPPED: {refused.message}")
    Console(width=120).print(table(record.results))
    print(f"written to {args.json}")


if __name__ == "__main__":
    main()
