"""`ipcs block get|put|stat`: single blocks, as `ipfs block` has them."""

from __future__ import annotations

import argparse
import sys

from .options import Subparsers, command, connect
from .terminal import Terminal


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `block` and its subcommands."""
    parser = sub.add_parser("block", help="get, put and stat single blocks", description="Single blocks.")
    group = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    get = command(
        group,
        "get",
        _get,
        about="write the bytes of a block to stdout, fetching it from peers when it is not local",
        example="ipcs block get bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e --timeout 5s",
        reads=False,
    )
    get.add_argument("cid", help="CID of the block")
    put = command(
        group,
        "put",
        _put,
        about="store stdin or a file as one block and print its CID",
        example="echo -n 'hello world' | ipcs block put",
    )
    put.add_argument("path", nargs="?", default="-", help="file to read; - is stdin (the default)")
    put.add_argument("--cid-codec", default="raw", choices=("raw", "dag-pb", "dag-cbor"), help="codec in the CID")
    stat = command(
        group,
        "stat",
        _stat,
        about="print CID and size of a block, fetching it from peers when it is not local",
        example="ipcs block stat bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
    )
    stat.add_argument("cid", help="CID of the block")


def _get(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        for frame in node.stream("block.get", {"cid": args.cid}, timeout=args.timeout):
            if isinstance(frame, memoryview):
                terminal.raw.write(frame)
    return 0


def _put(args: argparse.Namespace, terminal: Terminal) -> int:
    if args.path == "-":
        data = sys.stdin.buffer.read()
    else:
        with open(args.path, "rb") as file:
            data = file.read()
    with connect(args) as node:
        for frame in node.stream("block.put", {"codec": args.cid_codec}, [data], timeout=args.timeout):
            if isinstance(frame, dict) and "result" in frame:
                terminal.show(frame["result"], frame["result"]["cid"])
    return 0


def _stat(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        result = node.call("block.stat", {"cid": args.cid}, timeout=args.timeout)
    terminal.show(result, f"Key: {result['cid']}\nSize: {result['size']}")
    return 0
