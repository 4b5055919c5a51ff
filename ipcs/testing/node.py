"""Our own node as a process, and the `ipcs` command line beside it, for tests and benchmarks over real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ..errors import IpcsError

READY_TIMEOUT = 30.0
"""Seconds to the ready line: a second on an idle machine, many times that on a loaded one."""
EXIT_TIMEOUT = 10.0
"""Seconds to end after SIGTERM before the process is killed."""
COMMAND_TIMEOUT = 120.0
"""Seconds that one run of the command line may take."""


@dataclass
class NodeProcess:
    """A running `python -m ipcs.node`; `ready` is its ready line."""

    repo: Path
    process: trio.Process
    ready: dict[str, Any]

    @property
    def peer_id(self) -> str:
        """Its libp2p peer id."""
        return str(self.ready["id"])

    @property
    def address(self) -> str:
        """Its first multiaddr, with `/p2p/`."""
        return str(self.ready["addresses"][0])

    async def cli(self, *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run `ipcs ARGUMENTS` against this node; its exit code and output, whatever they are."""
        with trio.fail_after(COMMAND_TIMEOUT):
            return await trio.run_process(
                [sys.executable, "-m", "ipcs", *map(str, arguments)],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env={**os.environ, "IPCS_PATH": str(self.repo)},
            )

    async def ipcs(self, *arguments: str | Path, stdin: bytes = b"") -> bytes:
        """What `ipcs ARGUMENTS` prints. Raises `IpcsError` with its message and exit code when it fails."""
        done = await self.cli(*arguments, stdin=stdin)
        if done.returncode:
            raise IpcsError(f"{done.stderr.decode().strip()} (exit code {done.returncode})")
        return done.stdout

    async def json(self, *arguments: str | Path) -> list[Any]:
        """The documents that `ipcs ARGUMENTS --json` prints. Raises as `ipcs`."""
        return [json.loads(line) for line in (await self.ipcs(*arguments, "--json")).splitlines()]

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()


@asynccontextmanager
async def open_node_process(
    repo: Path, *flags: str | Path, listen: str = "/ip4/127.0.0.1/tcp/0"
) -> AsyncIterator[NodeProcess]:
    """A node on `repo`, ended on leaving. Its standard error goes to `<repo>/../<name>.log`.

    Raises `IpcsError` with the end of its log when it does not become ready.
    """
    repo.parent.mkdir(parents=True, exist_ok=True)
    log = repo.with_name(f"{repo.name}.log")
    argv = [sys.executable, "-m", "ipcs.node", "--json", "--repo", repo, "--listen", listen, *flags]
    with log.open("ab") as errors:
        process = await trio.lowlevel.open_process(
            [str(argument) for argument in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        line = await _first_line(process)
        if not line:
            raise IpcsError(f"node on {repo} did not become ready: {log.read_text(errors='replace')[-800:]}")
        yield NodeProcess(repo, process, json.loads(line))
    finally:
        await _end(process)


async def _first_line(process: trio.Process) -> bytes:
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(READY_TIMEOUT):
        while not line.endswith(b"\n") and (chunk := await process.stdout.receive_some()):
            line += chunk
    return line


async def _end(process: trio.Process) -> None:
    assert process.stdout is not None
    with trio.CancelScope(shield=True):
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):  # SIGCONT: it may be frozen
            process.send_signal(number)
            if number is not signal.SIGCONT:
                with trio.move_on_after(EXIT_TIMEOUT):
                    await process.wait()
                    break
        await process.stdout.aclose()
