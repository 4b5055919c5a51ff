"""The main job on one machine: an image spread over three peers arrives whole at a fourth. `make demo` runs it.

Only the public command line and library are used. Every process that it starts is ended, on Ctrl-C too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo_image import build_image
from rich.console import Console
from rich.table import Table

from ipcs.cid import format_cid
from ipcs.control.client import ControlClient
from ipcs.errors import IpcsError
from ipcs.images.layout import BlobFile, read_image
from ipcs.unixfs.importer import Importer, import_blocks

PROVIDERS = 3
PIECE = 1024 * 1024
START_SECONDS = 30
FETCH_SECONDS = 300
STOP_SECONDS = 5


class Peer:
    """A node in a process of its own, and the client that talks to it."""

    def __init__(self, repo: Path, bootstrap: tuple[str, ...] = ()) -> None:
        argv = [sys.executable, "-m", "ipcs.node", "--json", "--repo", str(repo), "--listen", "/ip4/127.0.0.1/tcp/0"]
        for address in bootstrap:
            argv += ["--bootstrap", address]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        self.repo = repo
        self.address = ""
        self.client: ControlClient | None = None

    def wait_ready(self) -> ControlClient:
        """Read the line that the node prints when it serves."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"demo: a peer ended at start with exit code {self.process.wait()}; its error is above")
        ready = json.loads(line)
        self.address = ready["addresses"][0]
        self.client = ControlClient(ready["socket"])
        return self.client

    def stop(self) -> None:
        """End the process: politely, then not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def peers(workdir: Path) -> Iterator[tuple[list[Peer], Peer]]:
    """Three providers, and a fetcher that is connected to all of them."""
    started: list[Peer] = []
    try:
        started += [Peer(workdir / f"provider{number}") for number in range(1, PROVIDERS + 1)]
        for peer in started:
            peer.wait_ready()
        fetcher = Peer(workdir / "fetcher", tuple(peer.address for peer in started))
        started.append(fetcher)
        client = fetcher.wait_ready()
        deadline = time.monotonic() + START_SECONDS
        while len(_rows(client, "peers")) < PROVIDERS:
            if time.monotonic() > deadline:
                raise SystemExit("demo: the fetcher did not connect to its three peers")
            time.sleep(0.05)
        yield started[:PROVIDERS], fetcher
    finally:
        for peer in started:
            peer.stop()


def spread(blobs: list[BlobFile], providers: list[Peer]) -> tuple[dict[str, str], int]:
    """Put every block of the image on one of the providers, in turn. Root CID of each digest, and blocks in all."""
    roots: dict[str, str] = {}
    seen: set[bytes] = set()
    for blob in blobs:
        importer = Importer()
        with blob.path.open("rb") as file:
            for block in import_blocks(importer, iter(lambda: file.read(PIECE), b"")):
                if block.cid in seen:
                    continue
                client = providers[len(seen) % PROVIDERS].client
                assert client is not None
                upload: list[Any] = [block.data]
                for _frame in client.stream("block.put", {"cid": format_cid(block.cid)}, upload):
                    pass
                seen.add(block.cid)
        roots[blob.digest] = format_cid(importer.root.cid)
    return roots, len(seen)


def fetch(blobs: list[BlobFile], roots: dict[str, str], client: ControlClient, target: Path) -> None:
    """Fetch every blob and check its sha256."""
    for blob in blobs:
        path = target / blob.digest.removeprefix("sha256:")
        sha256 = hashlib.sha256()
        with path.open("wb") as file:
            for frame in client.stream("cat", {"path": roots[blob.digest]}, timeout=FETCH_SECONDS):
                if isinstance(frame, memoryview):
                    sha256.update(frame)
                    file.write(frame)
        if f"sha256:{sha256.hexdigest()}" != blob.digest or path.stat().st_size != blob.size:
            raise SystemExit(f"demo: {blob.digest} arrived wrong")


def _rows(client: ControlClient, method: str) -> list[dict[str, Any]]:
    return [frame["item"] for frame in client.stream(method) if isinstance(frame, dict) and "item" in frame]


def report(blobs: list[BlobFile], blocks: int, seconds: float, providers: list[Peer], fetcher: Peer) -> None:
    """The table."""
    assert fetcher.client is not None
    size = sum(blob.size for blob in blobs)
    sources = {row["id"]: row for row in _rows(fetcher.client, "peers")}
    received = [sources[peer.address.rpartition("/")[2]]["blocks_received"] for peer in providers]
    duplicates = sum(row["duplicate_blocks"] for row in sources.values())
    table = Table(title="one image, spread over three peers, fetched by a fourth")
    columns = ("bytes", "blocks", "seconds", "MB/s", "from peer 1 / 2 / 3", "duplicates")
    for column in columns:
        table.add_column(column, justify="right")
    per_peer = " / ".join(str(count) for count in received)
    table.add_row(
        f"{size:,}", f"{blocks:,}", f"{seconds:.2f}", f"{size / 1e6 / seconds:.0f}", per_peer, str(duplicates)
    )
    Console(width=100).print(table)
    print(f"{len(blobs)} blobs arrived; every sha256 is right")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="an OCI image layout (directory or tar) or a `docker save` tar")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="ipcs-demo-") as scratch:
        workdir = Path(scratch)
        source = arguments.image or build_image(Path(".cache") / "demo-image")
        blobs = read_image(source, workdir)
        target = workdir / "out"
        target.mkdir()
        print(f"image: {source}, {len(blobs)} blobs, {sum(blob.size for blob in blobs):,} bytes")
        with peers(workdir) as (providers, fetcher):
            roots, blocks = spread(blobs, providers)
            assert fetcher.client is not None
            began = time.monotonic()
            fetch(blobs, roots, fetcher.client, target)
            report(blobs, blocks, time.monotonic() - began, providers, fetcher)


if __name__ == "__main__":
    try:
        main()
    except IpcsError as exc:
        sys.exit(f"demo: {exc.message}")
    except KeyboardInterrupt:
        sys.exit(130)
