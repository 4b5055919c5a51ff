"""`ipcs car import | export`: DAGs as archives, to move them without a network."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..control.frames import CHUNK
from ..errors import InvalidArgument
from .draft import draft_file
from .options import Subparsers, command, connect, own_owner
from .terminal import Progress, Terminal


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `car` and its subcommands."""
    parser = sub.add_parser("car", help="export and import DAGs as CAR archives", description="CAR archives.")
    group = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    export = command(
        group,
        "export",
        _export,
        about="write DAGs as one CAR archive, fetching what is missing",
        example="ipcs car export CID -o image.car --local-only",
    )
    export.add_argument("paths", nargs="+", metavar="PATH", help="CID, or CID/a/b: the roots of the archive")
    export.add_argument("-o", "--output", type=Path, required=True, help="file to write; - is stdout")
    export.add_argument("--car-version", type=int, choices=(1, 2), default=1, help="2 only to a file (default: 1)")
    export.add_argument("--local-only", action="store_true", help="ask no peer for missing blocks")
    load = command(
        group,
        "import",
        _import,
        about="store the blocks of a CAR archive and keep its roots",
        example="ipcs car import image.car --local-only",
    )
    load.add_argument("path", help="CAR version 1 or 2; - is stdin")
    load.add_argument("--pin-roots", action=argparse.BooleanOptionalAction, default=True, help="keep them (default)")
    load.add_argument("--local-only", action="store_true", help="ask no peer for what the archive lacks")


def _export(args: argparse.Namespace, terminal: Terminal) -> int:
    params = {"paths": args.paths, "local_only": args.local_only}
    if args.car_version == 2 and str(args.output) == "-":
        raise InvalidArgument("a version 2 archive needs a file: its header is written last; give one with -o")
    with (
        connect(args) as node,
        terminal.progress("exporting") as progress,
        draft_file(args.output, terminal.raw) as out,
    ):
        result = _write(node.stream("car.export", params, timeout=args.timeout), out, args.car_version, progress)
    if str(args.output) != "-":
        terminal.show(result, f"exported {result['blocks']} blocks, {result['size']} bytes to {args.output}")
    return 0


def _write(frames: Iterator[object], out: BinaryIO, version: int, progress: Progress) -> dict[str, object]:
    from ..unixfs.car import header_v2

    out.write(header_v2(0) if version == 2 else b"")
    done, result = 0, {}
    for frame in frames:
        if isinstance(frame, memoryview):
            out.write(frame)
            done += len(frame)
            progress.update(done)
        elif isinstance(frame, dict) and "result" in frame:
            result = frame["result"]
    if version == 2:
        out.seek(0)
        out.write(header_v2(done))
    return result


def _import(args: argparse.Namespace, terminal: Terminal) -> int:
    params = {"local_only": args.local_only}
    if args.pin_roots:
        params["owner"] = own_owner()
    source: BinaryIO = sys.stdin.buffer if args.path == "-" else open(args.path, "rb")  # noqa: SIM115 - closed below
    with source, connect(args) as node, terminal.progress("importing") as progress:
        frames = node.stream("car.import", params, _chunks(source, progress), timeout=args.timeout)
        result = next(frame["result"] for frame in frames if isinstance(frame, dict) and "result" in frame)
    roots = "\n".join(f"root {root}" for root in result["roots"])
    terminal.show(result, f"imported {result['blocks']} blocks, {result['size']} bytes\n{roots}".rstrip())
    return 0


def _chunks(source: BinaryIO, progress: Progress) -> Iterator[bytes]:
    done = 0
    while chunk := source.read(CHUNK):
        yield chunk
        done += len(chunk)
        progress.update(done)
