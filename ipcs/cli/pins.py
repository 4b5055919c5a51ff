"""`ipcs pin add|rm|ls` and `ipcs lease add|rm|ls`: who keeps what, for whom and until when."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from .options import Subparsers, command, connect, duration, own_owner
from .terminal import Terminal

LEASE_DURATION = 24 * 3600.0
"""Seconds that a lease lasts unless told: containerd's own default for leases (`ctr leases create`)."""

DIGEST = "sha256:edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb"


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `pin` and `lease` with their subcommands."""
    parser = sub.add_parser(
        "pin",
        help="keep DAGs and blobs from collection, and see who does",
        description="Pins: named references of users. What nobody references is cache, which goes when space is short.",
    )
    group = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    add = command(
        group,
        "add",
        _add,
        about="keep a DAG or a blob, fetching what is missing of it from peers",
        example="ipcs pin add --name base bafybeif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu",
    )
    _root(add)
    _owner(add)
    add.add_argument("--name", default="", help="what to call it")
    rm = command(group, "rm", _rm, about="no longer keep it for an owner", example=f"ipcs pin rm {DIGEST}")
    _root(rm)
    _owner(rm)
    ls = command(
        group, "ls", _ls, about="list references; with ROOT, say who holds it", example=f"ipcs pin ls {DIGEST}"
    )
    _root(ls, nargs="?")
    ls.add_argument("--owner", help="only those of containerd, user/<name> or lease/<id>")

    parser = sub.add_parser(
        "lease", help="keep DAGs and blobs for some time", description="Leases: references that expire by themselves."
    )
    group = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    add = command(
        group,
        "add",
        _lease_add,
        about="keep a DAG or a blob under a lease; once more to extend it",
        example=f"ipcs lease add build-7 {DIGEST} --expires 2h",
    )
    add.add_argument("id", help="name of the lease")
    _root(add)
    add.add_argument("--expires", type=duration, default=LEASE_DURATION, metavar="DURATION", help="default: 24h")
    rm = command(group, "rm", _lease_rm, about="end a lease and drop all it keeps", example="ipcs lease rm build-7")
    rm.add_argument("id", help="name of the lease")
    ls = command(group, "ls", _lease_ls, about="list what a lease keeps", example="ipcs lease ls build-7 --json")
    ls.add_argument("id", help="name of the lease")


def _root(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("root", metavar="ROOT", nargs=nargs, help="CID of a DAG, or digest sha256:... of a blob")


def _owner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--owner", default=own_owner(), help="containerd, user/<name> or lease/<id> (default: user/<you>)"
    )


def _add(args: argparse.Namespace, terminal: Terminal) -> int:
    return _keep(args, terminal, {"root": args.root, "owner": args.owner, "name": args.name})


def _lease_add(args: argparse.Namespace, terminal: Terminal) -> int:
    seconds = math.ceil(args.expires)
    return _keep(args, terminal, {"root": args.root, "owner": f"lease/{args.id}", "expires_in": seconds})


def _keep(args: argparse.Namespace, terminal: Terminal, params: dict[str, Any]) -> int:
    with connect(args) as node:
        row = node.call("pin.add", params, timeout=args.timeout)
    terminal.show(row, f"kept {row['root']} for {row['owner']}")
    return 0


def _rm(args: argparse.Namespace, terminal: Terminal) -> int:
    return _drop(args, terminal, {"root": args.root, "owner": args.owner})


def _lease_rm(args: argparse.Namespace, terminal: Terminal) -> int:
    return _drop(args, terminal, {"owner": f"lease/{args.id}"})


def _drop(args: argparse.Namespace, terminal: Terminal, params: dict[str, Any]) -> int:
    with connect(args) as node:
        result = node.call("pin.rm", params, timeout=args.timeout)
    terminal.show(result, f"dropped {result['dropped']} of {params['owner']}")
    return 0


def _ls(args: argparse.Namespace, terminal: Terminal) -> int:
    params = {name: value for name, value in (("root", args.root), ("owner", args.owner)) if value is not None}
    return _list(args, terminal, params)


def _lease_ls(args: argparse.Namespace, terminal: Terminal) -> int:
    return _list(args, terminal, {"owner": f"lease/{args.id}"})


def _list(args: argparse.Namespace, terminal: Terminal, params: dict[str, Any]) -> int:
    with connect(args) as node:
        for frame in node.stream("pin.ls", params, timeout=args.timeout):
            if isinstance(frame, dict) and "item" in frame:
                row = frame["item"]
                until = f"  until {_when(row['expires_at'])}" if row["expires_at"] else ""
                name = f"  {row['name']}" if row["name"] else ""
                terminal.show(row, f"{row['root']}  {row['owner']}{name}{until}")
    return 0


def _when(nanoseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // 10**9))
