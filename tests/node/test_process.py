"""The node as an operator meets it: a process with a repo, a socket and signals."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest
import trio

from ipcs.errors import IpcsError
from ipcs.testing.node import open_node_process


async def refused(repo, *flags):
    """Exit code and error line of a node that must not start."""
    argv = [sys.executable, "-m", "ipcs.node", "--repo", str(repo), "--listen", "/ip4/127.0.0.1/tcp/0", *flags]
    with trio.fail_after(30):
        done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


async def test_it_serves_and_ends_within_two_seconds_of_sigterm(tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        async with open_node_process(tmp_path / "repo") as node:
            [me] = await node.json("id")
            assert me["id"] == node.peer_id
            assert me["addresses"] == node.ready["addresses"]
            node.process.send_signal(number)
            with trio.fail_after(2):
                assert await node.process.wait() == 0
        assert not (tmp_path / "repo" / "ipcs.sock").exists()


async def test_the_identity_is_kept_and_private(tmp_path):
    ids = []
    for _ in range(2):
        async with open_node_process(tmp_path / "repo") as node:
            ids.append(node.peer_id)
    assert ids[0] == ids[1]
    assert stat.S_IMODE((tmp_path / "repo" / "identity.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "repo").stat().st_mode) == 0o700


async def test_a_second_process_is_refused(tmp_path):
    async with open_node_process(tmp_path / "repo") as node:
        code, error = await refused(tmp_path / "repo")
        assert code == 3
        assert f"in use by process {node.process.pid}" in error
        code, error = await refused(tmp_path / "other", "--socket", str(tmp_path / "repo" / "ipcs.sock"))
        assert code == 3
        assert "another process serves" in error
        assert (await node.json("id"))[0]["id"] == node.peer_id


async def test_after_kill_9_the_repo_and_the_stale_socket_are_taken_over(tmp_path):
    async with open_node_process(tmp_path / "repo") as node:
        node.kill()
        await node.process.wait()
    assert (tmp_path / "repo" / "ipcs.sock").exists()
    async with open_node_process(tmp_path / "repo") as node:
        assert (await node.json("id"))[0]["id"] == node.peer_id
        assert stat.S_IMODE((tmp_path / "repo" / "ipcs.sock").stat().st_mode) == 0o660


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--listen", "/ip4/0.0.0.0/tcp/0"], "--open"),
        (["--listen", "nonsense"], "'nonsense' is not a multiaddr"),
        (["--bootstrap", "/ip4/127.0.0.1/tcp/1"], "/p2p/"),
        (["--socket", "/proc/nowhere/ipcs.sock"], "/proc/nowhere/ipcs.sock"),
        (["--repo", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
async def test_bad_input_is_one_clear_line(tmp_path, flags, words):
    code, error = await refused(tmp_path / "repo", *flags)
    assert code in (1, 2)
    assert words in error
    assert len(error.strip().splitlines()) == 1


async def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        code, error = await refused(tmp_path / "repo", "--listen", address)
    assert code == 2
    assert address in error


async def test_bootstrap_peers_are_found_late_and_again(tmp_path):
    async with open_node_process(tmp_path / "a") as a:
        address = a.address
    port = address.split("/")[4]
    async with open_node_process(tmp_path / "b", "--bootstrap", address) as b:
        assert await b.json("peers") == []
        for _ in range(2):
            async with open_node_process(tmp_path / "a", listen=f"/ip4/127.0.0.1/tcp/{port}") as a:
                await until_connected(b, a.peer_id)


async def until_connected(node, peer_id):
    with trio.fail_after(40):
        while peer_id not in {row["id"] for row in await node.json("peers")}:
            await trio.lowlevel.checkpoint()


def test_commands_without_a_node_say_how_to_get_one(tmp_path):
    environ = {**os.environ, "IPCS_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "ipcs", "id"], env=environ, capture_output=True, check=False)
    assert done.returncode == 3
    assert b"python -m ipcs.node" in done.stderr
    assert done.stderr.count(b"\n") == 1


async def test_systemd_is_told(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(10)
        os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        try:
            async with open_node_process(tmp_path / "repo"):
                assert notify.recv(100) == b"READY=1"
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert notify.recv(100) == b"STOPPING=1"


def test_help_is_worth_reading():
    done = subprocess.run([sys.executable, "-m", "ipcs.node", "--help"], capture_output=True, check=True)
    text = done.stdout.decode()
    for word in ("--repo", "--listen", "--bootstrap", "--socket", "SIGTERM", "Exit codes", "examples:"):
        assert word in text


async def test_a_node_that_cannot_start_says_so_to_the_harness(tmp_path):
    with pytest.raises(IpcsError, match="nonsense"):
        async with open_node_process(tmp_path / "repo", listen="nonsense"):
            pass


def test_the_ready_line_for_people(tmp_path):
    argv = [sys.executable, "-m", "ipcs.node", "--repo", str(tmp_path / "r"), "--listen", "/ip4/127.0.0.1/tcp/0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        process.terminate()
        assert process.wait(10) == 0
    assert line.startswith("ready: /ip4/127.0.0.1/tcp/")
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)
