"""`ipcs add | cat | get`: files in and out of the node."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..control.frames import CHUNK
from .options import Subparsers, command, connect
from .terminal import Progress, Terminal


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the commands on files."""
    add = command(sub, "add", _add, about="add a file to the node and print its CID", example="ipcs add layer.tar.gz")
    add.add_argument("path", help="file to add; - is stdin")
    add.add_argument("-q", "--quiet", action="store_true", help="print the CID only")
    add.add_argument("--profile", default="ipcs-v1", help="named import parameters (default: ipcs-v1)")
    add.add_argument("--pin", action=argparse.BooleanOptionalAction, default=True, help="keep it (default)")
    cat = command(
        sub, "cat", _cat, about="write a file to stdout, fetching it from peers", example="ipcs cat CID", reads=False
    )
    cat.add_argument("cid")
    cat.add_argument("-o", "--offset", type=int, default=0, help="first byte")
    cat.add_argument("-l", "--length", type=int, help="bytes (default: to the end)")
    get = command(
        sub, "get", _get, about="write a file to disk, fetching it from peers", example="ipcs get CID -o layer.tar.gz"
    )
    get.add_argument("cid")
    get.add_argument("-o", "--output", type=Path, help="where to write (default: ./CID)")


def _add(args: argparse.Namespace, terminal: Terminal) -> int:
    source: BinaryIO = sys.stdin.buffer if args.path == "-" else open(args.path, "rb")  # noqa: SIM115 - closed below
    total = None if args.path == "-" else os.fstat(source.fileno()).st_size
    params = {"profile": args.profile, **({"owner": f"user/{getpass.getuser()}"} if args.pin else {})}
    with source, connect(args) as node, terminal.progress("adding", total) as progress:
        frames = list(node.stream("add", params, _chunks(source, progress), timeout=args.timeout))
    for frame in frames:
        if isinstance(frame, dict) and "result" in frame:
            result = frame["result"]
            name = "" if args.quiet or args.path == "-" else f" {Path(args.path).name}"
            terminal.show(result, result["cid"] if args.quiet else f"added {result['cid']}{name}")
    return 0


def _chunks(source: BinaryIO, progress: Progress) -> Iterator[bytes]:
    done = 0
    while chunk := source.read(CHUNK):
        yield chunk
        done += len(chunk)
        progress.update(done)


def _cat(args: argparse.Namespace, terminal: Terminal) -> int:
    params = {"cid": args.cid, "offset": args.offset, **({} if args.length is None else {"length": args.length})}
    with connect(args) as node:
        for frame in node.stream("cat", params, timeout=args.timeout):
            if isinstance(frame, memoryview):
                terminal.raw.write(frame)
    terminal.raw.flush()
    return 0


def _get(args: argparse.Namespace, terminal: Terminal) -> int:
    target = args.output or Path(args.cid)
    draft = target.with_name(f".{target.name}.part")
    done = 0
    try:
        with draft.open("wb") as file, connect(args) as node, terminal.progress("getting") as progress:
            for frame in node.stream("cat", {"cid": args.cid}, timeout=args.timeout):
                if isinstance(frame, memoryview):
                    file.write(frame)
                    done += len(frame)
                    progress.update(done)
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    terminal.show({"cid": args.cid, "path": str(target), "size": done}, f"saved {target} ({done} bytes)")
    return 0
