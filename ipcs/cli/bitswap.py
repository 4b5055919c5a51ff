"""`ipcs bitswap stat | unban`: what the exchange moved, and forgiving a peer."""

from __future__ import annotations

import argparse
from typing import Any

from .options import Subparsers, command, connect
from .terminal import Terminal, human_bytes


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `ipcs bitswap`."""
    group = sub.add_parser("bitswap", help="look into the exchange of blocks", description="Look into the exchange.")
    commands = group.add_subparsers(required=True, metavar="COMMAND")
    command(
        commands,
        "stat",
        _stat,
        about="show what was exchanged, in all and with each connected peer",
        example="ipcs bitswap stat --json",
    )
    unban = command(
        commands,
        "unban",
        _unban,
        about="accept a banned peer again (`ipcs peers` lists bans)",
        example="ipcs bitswap unban 12D3KooW...",
    )
    unban.add_argument("peer", help="id of the peer")


def _stat(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        result = node.call("bitswap.stat", timeout=args.timeout)
    lines = [f"total: {_moved(result)}; wants {result['wants']} blocks"]
    for peer in result["peers"]:
        lines.append(f"{peer['peer']}: {_moved(peer)}")
        lines.append(
            f"  owes us {peer['asks']} blocks of a window of {human_bytes(peer['window'])}, "
            f"{human_bytes(int(peer['rate']))}/s, {peer['latency'] * 1000:.0f} ms"
            f"{', stalled' if peer['stalled'] else ''}; wants {peer['wants']} of us"
        )
    terminal.show(result, "\n".join(lines))
    return 0


def _moved(row: dict[str, Any]) -> str:
    text = f"received {row['blocks_received']} blocks ({human_bytes(row['bytes_received'])}), "
    text += f"sent {row['blocks_sent']} ({human_bytes(row['bytes_sent'])})"
    if row["duplicate_blocks"]:
        text += f", {row['duplicate_blocks']} twice"
    if row["unasked_blocks"]:
        text += f", {row['unasked_blocks']} unasked"
    return text


def _unban(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        result = node.call("bitswap.unban", {"peer": args.peer}, timeout=args.timeout)
    terminal.show(result, f"{result['id']} may connect again")
    return 0
