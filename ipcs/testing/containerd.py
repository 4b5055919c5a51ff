"""A private containerd, docker-registry and ipcs node as child processes, on loopback and in one directory.

Nothing of the machine's own containerd is touched; every process is ended by its pid. Needs root, and Debian's
`containerd`, `runc` and `docker-registry`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..control.client import ControlClient

START_SECONDS = 30.0
DISCONNECTED = ("connection refused", "connection closed", "transport is closing", "broken pipe")
"""grpc-go's words for a server that went away."""

STOP_SECONDS = 10.0

BINARIES = ("containerd", "ctr", "runc", "docker-registry")


def missing_binaries() -> list[str]:
    """What of the lab's needs is not installed."""
    return [name for name in BINARIES if shutil.which(name) is None]


class Process:
    """A child with its output in a file; a context manager that ends it."""

    def __init__(
        self, directory: Path, name: str, argv: Sequence[str | Path], env: dict[str, str] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log_path = directory / f"{name}.log"
        self._log: IO[bytes] = self.log_path.open("ab")
        self.process = subprocess.Popen(
            [str(arg) for arg in argv], stdout=self._log, stderr=self._log, env={**os.environ, **(env or {})}
        )

    def log(self) -> str:
        """All that it printed."""
        return self.log_path.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises `subprocess.TimeoutExpired` when it does not end in time."""
        try:
            return self.process.wait(seconds)
        finally:
            self.stop()

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9, and reap."""
        self.stop(signal.SIGKILL)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it, by force after `STOP_SECONDS`. Idempotent."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()

    def wait_listening(self, address: Path | tuple[str, int]) -> Self:
        """Return when something answers at a unix socket or TCP address."""
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log()[-2000:]}")
            with socket.socket(family) as probe:
                try:
                    probe.connect(str(address) if isinstance(address, Path) else address)
                    return self
                except OSError:
                    time.sleep(0.02)
        raise TimeoutError(f"{self.name} did not answer at {address}:\n{self.log()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True)
class Request:
    """One line of the registry's access log. `written` in bytes."""

    method: str
    path: str
    status: int
    written: int


HTPASSWD = "user:$2y$04$dSzU3S/Nv2.WhP4GQfiV.uBxlM4BzQmRVhhKCP.6PB9m/trpE7MKe\n"
"""`tiny_registry.CREDENTIALS`, as `htpasswd -nbB` writes them."""


class Registry(Process):
    """docker-registry on a free port of loopback; when `private`, it asks for `tiny_registry.CREDENTIALS` (Basic)."""

    def __init__(self, directory: Path, *, private: bool = False) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "registry.yml"
        config.write_text(
            "version: 0.1\n"
            "log: {level: warn, accesslog: {disabled: false}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory}/registry}}, delete: {{enabled: true}}}}\n"
            f'http: {{addr: "{self.address}"}}\n'
            + (f"auth: {{htpasswd: {{realm: registry, path: {directory}/htpasswd}}}}\n" if private else "")
        )
        (directory / "htpasswd").write_text(HTPASSWD)
        super().__init__(directory, "registry", ["docker-registry", "serve", config])
        host, _, port = self.address.partition(":")
        self.wait_listening((host, int(port)))

    def requests(self) -> list[Request]:
        """The access log so far."""
        found = re.findall(r'"([A-Z]+) (\S+) HTTP/1\.1" (\d+) (\d+)', self.log())
        return [Request(method, path, int(status), int(written)) for method, path, status, written in found]


CONFIG = """\
version = 2
root = "{run}/root"
state = "{run}/state"
disabled_plugins = [{disabled}]
[grpc]
  address = "{run}/c.sock"
[ttrpc]
  address = "{run}/c.sock.ttrpc"
[debug]
  level = "debug"
[plugins."io.containerd.metadata.v1.bolt"]
  content_sharing_policy = "{policy}"
{snapshotters}[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1h"
  schedule_delay = "0s"
  deletion_threshold = {deletions}
"""

UNPACK = """\
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "{platform}"
  snapshotter = "{snapshotter}"
"""
"""2.x unpacks only for the snapshotters that it was told of, even when ctr names another."""

SNAPSHOTTERS = ("overlayfs", "native")

PROXY = """\
[proxy_plugins.ipcs]
  type = "content"
  address = "{socket}"
"""

BUILT_IN = "io.containerd.content.v1.content"


class Containerd(Process):
    """A containerd whose content store is the proxy at `content`, or its own when that is None.

    `IPCS_TEST_CONTAINERD` names another binary than Debian's; its `ctr` is expected beside it. Garbage is collected
    after each deletion, unless not `eager`: then only as containerd's defaults have it.
    """

    def __init__(
        self, directory: Path, content: Path | None, *, policy: str = "shared", eager: bool = True, wait: bool = True
    ) -> None:
        binary = os.environ.get("IPCS_TEST_CONTAINERD", "containerd")
        self._ctr = str(Path(binary).parent / "ctr") if "/" in binary else "ctr"
        self.socket = directory / "c.sock"
        directory.mkdir(parents=True, exist_ok=True)
        disabled = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
        text = CONFIG.format(
            run=directory,
            policy=policy,
            snapshotters=_unpack_config(),
            deletions=int(eager),
            disabled=", ".join(f'"{name}"' for name in (disabled if content is None else [*disabled, BUILT_IN])),
        )
        config = directory / "config.toml"
        config.write_text(text + (PROXY.format(socket=content) if content else ""))
        paths = [str(Path(binary).parent)] if "/" in binary else []
        env = {"PATH": os.pathsep.join([*paths, os.environ["PATH"]])}
        super().__init__(directory, "containerd", [binary, "-c", config], env)
        if wait:
            self.wait_listening(self.socket)

    def ctr_argv(self, *args: str, namespace: str = "default") -> list[str]:
        """A ctr command for this containerd."""
        return [self._ctr, "-a", str(self.socket), "-n", namespace, *args]

    def ctr(
        self, *args: str, namespace: str = "default", check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run ctr to its end. Raises `RuntimeError` with its output when it fails and `check`."""
        argv = self.ctr_argv(*args, namespace=namespace)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode:
            raise RuntimeError(f"ctr {' '.join(args)}: {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}")
        return done

    def start_ctr(self, *args: str, namespace: str = "default") -> Process:
        """Start ctr and leave it running; `wait` for it."""
        return Process(self.socket.parent, "ctr", self.ctr_argv(*args, namespace=namespace))

    def pull(self, reference: str, *args: str, namespace: str = "default") -> None:
        """`ctr images pull` over plain HTTP, with unpack."""
        self.ctr("images", "pull", "--plain-http", *args, reference, namespace=namespace)

    def pull_again(self, reference: str) -> None:
        """`pull` after the node was restarted: containerd dials it anew within 3 s, and until then its calls end with
        what became of the old connection.
        """
        end = time.monotonic() + STOP_SECONDS
        while True:
            try:
                return self.pull(reference)
            except RuntimeError as exc:
                if not any(words in str(exc) for words in DISCONNECTED) or time.monotonic() > end:
                    raise

    def run(self, reference: str, *argv: str, name: str = "c1", snapshotter: str = "overlayfs") -> str:
        """Run a container to its end; its output."""
        done = self.ctr("run", "--rm", "--snapshotter", snapshotter, reference, name, *argv)
        return done.stdout

    def contents(self, namespace: str = "default") -> list[str]:
        """Digests that containerd lists."""
        return self.ctr("content", "ls", "-q", namespace=namespace).stdout.split()


class NodeProcess(Process):
    """`python -m ipcs.node` in `directory`, on a free port of loopback; `under` is a command that starts it."""

    def __init__(self, directory: Path, *args: str, bootstrap: Sequence[str] = (), under: Sequence[str] = ()) -> None:
        self.directory = directory
        self.socket = directory / "i.sock"
        argv = [*under, sys.executable, "-m", "ipcs.node", "--json", "--listen", "/ip4/127.0.0.1/tcp/0"]
        argv += ["--repo", str(directory / "repo"), "--socket", str(self.socket)]
        for address in bootstrap:
            argv += ["--bootstrap", address]
        already = (directory / "node.log").stat().st_size if (directory / "node.log").exists() else 0
        super().__init__(directory, "node", [*argv, *args])
        self.wait_listening(self.socket)
        ready = self._ready(already)
        self.peer_id: str = ready["id"]
        self.address: str = ready["addresses"][0]

    def wait_for_peers(self, count: int) -> Self:
        """Return when it is connected to at least `count` peers."""
        with ControlClient(self.socket) as client:
            self.wait_until(lambda: client.call("stat")["peers"] >= count, f"{count} peers")
        return self

    def wait_for_bytes(self, peer: str, count: int) -> int:
        """Return, when at least `count` bytes of blocks came from the peer, how many did."""
        with ControlClient(self.socket) as client:
            received = 0

            def enough() -> bool:
                nonlocal received
                received = _received(client).get(peer, 0)
                return received >= count

            self.wait_until(enough, f"{count} bytes from {peer}")
        return received

    def received(self) -> dict[str, int]:
        """Bytes of blocks that came from each connected peer."""
        with ControlClient(self.socket) as client:
            return _received(client)

    def adoption(self) -> dict[str, float]:
        """The `adoption` part of `ipcs stat`."""
        with ControlClient(self.socket) as client:
            counts: dict[str, float] = client.call("stat")["adoption"]
            return counts

    def bans(self) -> dict[str, str]:
        """Why each banned peer is."""
        with ControlClient(self.socket) as client:
            return {row["id"]: row["reason"] for row in _rows(client, "bitswap.bans")}

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Return when `holds`; `what` is said when that takes too long."""
        end = time.monotonic() + START_SECONDS
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"the node waited {START_SECONDS:g} s for {what}:\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def _ready(self, already: int) -> dict[str, str]:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            for line in self.log()[already:].splitlines():
                if line.startswith("{"):
                    ready: dict[str, str] = json.loads(line)
                    return ready
            time.sleep(0.02)
        raise TimeoutError(f"the node printed no ready line:\n{self.log()[-2000:]}")


def _received(client: ControlClient) -> dict[str, int]:
    return {row["id"]: row["bytes_received"] for row in _rows(client, "peers")}


def _rows(client: ControlClient, method: str) -> list[dict[str, Any]]:
    return [frame["item"] for frame in client.stream(method) if isinstance(frame, dict) and "item" in frame]


def _unpack_config() -> str:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return "".join(UNPACK.format(platform=f"linux/{architecture}", snapshotter=name) for name in SNAPSHOTTERS)


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
