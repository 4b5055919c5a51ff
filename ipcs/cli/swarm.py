"""`ipcs id | peers | connect | stat | version`: this node and its neighbours."""

from __future__ import annotations

import argparse
import platform
from typing import Any

from .. import __version__
from .options import Subparsers, command, connect
from .terminal import Terminal, human_bytes


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the commands about the node itself."""
    command(sub, "id", _id, about="show peer id, addresses and protocols of the node", example="ipcs id --json")
    command(sub, "peers", _peers, about="list the connected peers, and those that are banned", example="ipcs peers")
    dial = command(
        sub,
        "connect",
        _connect,
        about="connect to a peer now",
        example="ipcs connect /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...",
    )
    dial.add_argument("address", help="multiaddr that ends in /p2p/<peer id>")
    command(sub, "stat", _stat, about="show what the node stores and has moved", example="ipcs stat --json")
    command(sub, "version", _version, about="show the versions of ipcs and Python", example="ipcs version", node=False)


def _id(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        result = node.call("id", timeout=args.timeout)
    lines = [result["id"], *result["addresses"], f"agent: {result['agent_version']}"]
    terminal.show(result, "\n".join(lines))
    return 0


def _peers(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        for frame in node.stream("peers", timeout=args.timeout):
            if isinstance(frame, dict) and "item" in frame:
                row = frame["item"]
                moved = f"received {human_bytes(row['bytes_received'])}, sent {human_bytes(row['bytes_sent'])}"
                terminal.show(row, f"{row['address'] or row['id']}  {row['agent_version'] or '?'}  {moved}")
        for frame in node.stream("bitswap.bans", timeout=args.timeout):
            if isinstance(frame, dict) and "item" in frame:
                row = frame["item"]
                left = f"banned for {row['seconds_left']:.0f} s more"
                terminal.show({"banned": row}, f"{row['id']}  {left}: {row['reason']} (see `ipcs bitswap unban`)")
    return 0


def _connect(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        result = node.call("connect", {"address": args.address}, timeout=args.timeout)
    terminal.show(result, f"connected to {result['id']}")
    return 0


def _stat(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        result = node.call("stat", timeout=args.timeout)
    terminal.show(result, "\n".join(_rows(result)))
    return 0


def _rows(values: dict[str, Any], prefix: str = "") -> list[str]:
    rows: list[str] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.")
        else:
            rows.append(f"{prefix}{name}: {value}")
    return rows


def _version(_args: argparse.Namespace, terminal: Terminal) -> int:
    result = {"ipcs": __version__, "python": platform.python_version(), "system": platform.platform()}
    terminal.show(result, f"ipcs {result['ipcs']} (Python {result['python']}, {result['system']})")
    return 0
