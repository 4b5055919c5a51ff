"""containerd's content store over ipcs beside containerd's own: `python -m benchmarks.content [PART ...] [--rounds N]`.

Each part compares within one run, alternating. Parts: `ctr` (content ingest and get of 296 MB), `pull` (an image of
about 320 MB, with unpack), `reads` (Read calls beside a bare gRPC handler), `metadata` (Info and List with 100,000
blobs), `blocked` (metadata while 64 Reads wait), `adopt` (an image from a peer beside the registry). The first two and
the last need root, containerd, runc and docker-registry. The image is `--image LAYOUT:NAME:TAG`, of an OCI layout; by
default one that does not compress, so that unpack costs little and the ratio is the worst one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from ipcs.content import wire
from ipcs.content.client import RemoteContent
from ipcs.content.descriptor import Info
from ipcs.content.records import Promise, Promises, Records
from ipcs.content.wire import ReadRequest
from ipcs.errors import NotFound
from ipcs.store.references import CONTAINERD
from ipcs.store.store import StoreOptions, open_store
from ipcs.testing.containerd import NodeProcess, Process
from ipcs.testing.members import short_directory
from ipcs.testing.peers import go_binary
from ipcs.unixfs.walk import links_of

from .content_containerd import bench_adopt, bench_ctr, bench_pull
from .content_rows import Row, ratio

WINDOW = 32 * 1024
BLOBS = 100_000


def main() -> int:
    """Run the parts asked for, print a line of JSON for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image", metavar="LAYOUT:NAME:TAG", help="an image of an OCI layout, for pull and adopt")
    args = parser.parse_args()
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "date": time.strftime("%Y-%m-%d %H:%M")}
    print(json.dumps({"benchmark": "content", "rounds": args.rounds, **machine}))
    for part in args.parts or PARTS:
        with short_directory() as directory:
            for row in PARTS[part](directory, args.rounds, args.image):
                print(json.dumps({"part": part, **row}), flush=True)
    return 0


def bench_reads(directory: Path, rounds: int, _image: str | None) -> Iterator[Row]:
    """Read calls of a Go client (if one was built) and a Python client, beside a handler that answers from memory."""
    bare = Process(directory, "bare", [sys.executable, "-m", "benchmarks.content_bare", directory / "bare.sock"])
    with bare, NodeProcess(directory / "n", "--adopt", "off") as node:
        bare.wait_listening(directory / "bare.sock")
        data = hashlib.shake_128(b"reads").digest(64 << 20)
        with RemoteContent(node.socket) as content, content.writer("reads", len(data)) as writer:
            for at in range(0, len(data), 1 << 20):
                writer.write(data[at : at + (1 << 20)])
            digest = writer.commit(len(data)).digest
        for client, read_rate in _read_clients().items():
            for window, streams in ((WINDOW, 1), (WINDOW, 4), (1 << 20, 1), (1 << 20, 4)):
                ours: list[float] = []
                theirs: list[float] = []
                for _ in range(rounds):
                    for socket, rates in ((node.socket, ours), (directory / "bare.sock", theirs)):
                        rates.append(read_rate(socket, digest, len(data), window, streams))
                what = f"sequential Reads of {window >> 10} KiB, {streams} at once, {client} client"
                yield ratio(what, (ours, theirs), "MB/s")


ReadRate = Callable[[Path, str, int, int, int], float]
"""(socket, digest, size, window, streams) -> MB/s"""


def _read_clients() -> dict[str, ReadRate]:
    try:
        binary = go_binary("readrate", "readrate")
    except NotFound as missing:
        print(f"!!! NO GO CLIENT: {missing.message}", file=sys.stderr)
        return {"Python": _read_rate}
    return {"Go": partial(_go_read_rate, binary), "Python": _read_rate}


def _go_read_rate(binary: Path, socket: Path, digest: str, size: int, window: int, streams: int) -> float:
    passes = 1 if window == WINDOW else 4  # several tenths of a second either way
    argv = [str(part) for part in (binary, socket, digest, size, window, streams, passes)]
    result = json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=300).stdout)
    return float(result["bytes"]) / float(result["seconds"]) / 1e6


def _read_rate(socket: Path, digest: str, size: int, window: int, streams: int) -> float:
    requests = [wire.encode_read_request(ReadRequest(digest, at, window)) for at in range(0, size, window)]

    def client() -> None:
        with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.max_receive_message_length", -1)]) as channel:
            read: Any = channel.unary_stream(f"/{wire.SERVICE}/Read")
            for request in requests:
                for _ in read(request):
                    pass

    threads = [threading.Thread(target=client) for _ in range(streams)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return size * streams / (time.perf_counter() - began) / 1e6


def bench_metadata(directory: Path, _rounds: int, _image: str | None) -> Iterator[Row]:
    """Info and List with 100,000 blobs."""
    digests = ["sha256:" + hashlib.sha256(b"%d" % n).hexdigest() for n in range(BLOBS)]
    with open_store(directory / "n" / "repo" / "store", links_of, StoreOptions(durability="none")) as store:
        records = Records(store.records)
        for digest in digests:
            store.references.add(CONTAINERD, digest)
            records.put(Info(digest, 1000, 1, 1))
        # Without bytes they pass for promises.
        promised = [(b"P" + bytes.fromhex(digest[7:]), b'{"size":1000,"sources":[]}') for digest in digests]
        store.records.write(promised, sync=True)
    began = time.perf_counter()
    with NodeProcess(directory / "n", "--adopt", "off") as node, RemoteContent(node.socket) as content:
        yield {"what": "start with 100,000 blobs", "seconds": round(time.perf_counter() - began, 2)}
        began = time.perf_counter()
        count = sum(1 for _ in content.walk())
        yield {"what": f"List of {count} blobs", "seconds": round(time.perf_counter() - began, 2)}
        data = hashlib.shake_128(b"metadata").digest(64 << 20)
        with content.writer("metadata", len(data)) as writer:
            for at in range(0, len(data), 1 << 20):
                writer.write(data[at : at + (1 << 20)])
            blob = writer.commit(len(data)).digest
        readers = [
            threading.Thread(target=_read_rate, args=(node.socket, blob, len(data), WINDOW, 1)) for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        samples = sorted(_timed_call(partial(content.info, digest)) for digest in digests[:500])
        yield {
            "what": "Info with 100,000 blobs beside 4 clients that read, seen by a Python client",
            "p50_ms": round(samples[250] * 1e3, 2),
            "p99_ms": round(samples[495] * 1e3, 2),
        }
        for reader in readers:
            reader.join()


def bench_blocked(directory: Path, _rounds: int, _image: str | None) -> Iterator[Row]:
    """p99 of metadata calls while 64 Reads wait for a blob that does not come."""
    digest = "sha256:" + "ab" * 32
    with open_store(directory / "n" / "repo" / "store", links_of) as store:
        store.references.add(CONTAINERD, digest)
        Records(store.records).put(Info(digest, 10_000_000, 1, 1))
        Promises(store.records).put(Promise(digest, 10_000_000, ()))
    with NodeProcess(directory / "n") as node, RemoteContent(node.socket) as content:
        readers = [threading.Thread(target=_blocked_read, args=(node.socket, digest)) for _ in range(64)]
        for reader in readers:
            reader.start()
        time.sleep(1.0)
        waiting = sum(reader.is_alive() for reader in readers)
        samples = sorted(_timed_call(lambda: content.info(digest)) for _ in range(300))
        yield {"what": f"Info while {waiting} Reads wait", "p50_ms": samples[150] * 1e3, "p99_ms": samples[297] * 1e3}
        content.delete(digest)
        for reader in readers:
            reader.join()


def _blocked_read(socket: Path, digest: str) -> None:
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        read: Any = channel.unary_stream(f"/{wire.SERVICE}/Read")
        try:
            for _ in read(wire.encode_read_request(ReadRequest(digest, 0, 1000))):
                pass
        except grpc.RpcError:
            return


def _timed_call(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


PARTS: dict[str, Callable[[Path, int, str | None], Iterator[Row]]] = {
    "ctr": bench_ctr,
    "pull": bench_pull,
    "reads": bench_reads,
    "metadata": bench_metadata,
    "blocked": bench_blocked,
    "adopt": bench_adopt,
}

if __name__ == "__main__":
    sys.exit(main())
