"""`ipcs add | cat | get | ls`: files and directories in and out of the node."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import IpcsError
from .addoptions import add_add_options, profile_parameters, scan_options, steps_of
from .options import Subparsers, command, connect, own_owner
from .terminal import Progress, Terminal, human_bytes

_SIZED = ("file", "symlink")


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the commands on files."""
    add = command(
        sub, "add", _add, about="add files or directories and print their CIDs", example="ipcs add -r --only-hash ."
    )
    add_add_options(add)
    cat = command(
        sub, "cat", _cat, about="write a file to stdout, fetching it from peers", example="ipcs cat CID/a", reads=False
    )
    cat.add_argument("path", help="CID, or CID/a/b")
    cat.add_argument("-o", "--offset", type=int, default=0, help="first byte")
    cat.add_argument("-l", "--length", type=int, help="bytes (default: to the end)")
    get = command(
        sub,
        "get",
        _get,
        about="write a file or a directory to disk, fetching it from peers",
        example="ipcs get CID/docs -o docs",
    )
    get.add_argument("path", help="CID, or CID/a/b")
    get.add_argument("-o", "--output", type=Path, help="where to write (default: ./CID or the path's last name)")
    get.add_argument("-a", "--archive", action="store_true", help="write a tar archive; with -o - to stdout")
    ls = command(sub, "ls", _ls, about="list the entries of a directory", example="ipcs ls -l CID")
    ls.add_argument("path", help="CID, or CID/a/b")
    ls.add_argument("-l", "--long", action="store_true", help="mode, size, mtime and CID of each entry")


def _add(args: argparse.Namespace, terminal: Terminal) -> int:
    rows = _hash(args) if args.only_hash else _upload(args, terminal)
    last = None
    for row in rows:
        last = row
        if not args.quieter:
            terminal.show(row, row["cid"] if args.quiet else f"added {row['cid']} {row['name'] or row['cid']}")
    if args.quieter and last is not None:
        terminal.show(last, last["cid"])
    return 0


def _hash(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What `add` would say, computed here: no node, no store."""
    from ..cid import format_cid
    from ..unixfs.profile import customised, profile_named
    from ..unixfs.resolve import decode_name
    from ..unixfs.tree import TreeImporter

    tree = TreeImporter(customised(profile_named(args.profile), **profile_parameters(args)))
    for step in steps_of(args, scan_options(args)):
        tree.step(step)
        for added in tree.take():
            yield {"name": decode_name(added.path), "cid": format_cid(added.cid), "size": added.size}
    tree.finish()


def _upload(args: argparse.Namespace, terminal: Terminal) -> Iterator[dict[str, Any]]:
    from ..unixfs.tree import encode_frames

    options = scan_options(args)
    params = {"profile": args.profile, **profile_parameters(args)}
    if args.pin:
        params["owner"] = own_owner()

    failed: list[Exception] = []  # gRPC would swallow what its request iterator raises

    def uploads(progress: Progress) -> Iterator[Any]:
        done = 0
        try:
            for frame in encode_frames(steps_of(args, options)):
                yield frame
                if isinstance(frame, bytes):  # the small files between do not move a bar
                    done += len(frame)
                    progress.update(done)
        except (IpcsError, OSError) as exc:
            failed.append(exc)

    with connect(args) as node, terminal.progress("adding") as progress:
        try:
            for frame in node.stream("add", params, uploads(progress), timeout=args.timeout):
                if isinstance(frame, dict) and "item" in frame:
                    yield frame["item"]
        finally:
            if failed:  # the node only saw the tree end too early
                raise failed[0]


def _cat(args: argparse.Namespace, terminal: Terminal) -> int:
    params = {"path": args.path, "offset": args.offset, **({} if args.length is None else {"length": args.length})}
    with connect(args) as node:
        for frame in node.stream("cat", params, timeout=args.timeout):
            if isinstance(frame, memoryview):
                terminal.raw.write(frame)
    terminal.raw.flush()
    return 0


def _get(args: argparse.Namespace, terminal: Terminal) -> int:
    target = _target(args)
    with connect(args) as node, terminal.progress("getting") as progress:
        frames = _content(node.stream("get", {"path": args.path}, timeout=args.timeout), progress)
        size = _write_tar(frames, target, args, terminal) if args.archive else _extract(frames, target)
    if str(target) != "-":
        terminal.show({"path": str(target), "size": size}, f"saved {target} ({size} bytes)")
    return 0


def _target(args: argparse.Namespace) -> Path:
    """Where to write: as in Kubo, into --output when that is a directory, else to it."""
    name = Path(args.path.rstrip("/").rpartition("/")[2] + (".tar" if args.archive else ""))
    if args.output is None:
        return name
    output: Path = args.output
    return output / name if output.is_dir() else output


def _content(frames: Iterator[Any], progress: Progress) -> Iterator[Any]:
    from .steps import decode_export_step

    done = 0
    for frame in frames:
        if isinstance(frame, memoryview):
            done += len(frame)
            progress.update(done)
            yield frame
        elif "item" in frame:
            yield decode_export_step(frame["item"])


def _extract(steps: Iterator[Any], target: Path) -> int:
    from ..unixfs.extract import Extractor

    size = 0
    with Extractor(target) as extractor:
        for step in steps:
            extractor.step(step)
            size += len(step) if isinstance(step, memoryview) else 0
        extractor.finish()
    return size


def _write_tar(steps: Iterator[Any], target: Path, args: argparse.Namespace, terminal: Terminal) -> int:
    from ..unixfs.archive import TarWriter
    from ..unixfs.resolve import encode_name
    from .draft import draft_file

    writer = TarWriter(encode_name(args.path.rstrip("/").rpartition("/")[2]))
    size = 0
    with draft_file(target, terminal.raw) as out:
        for step in steps:
            for piece in writer.step(step):
                out.write(piece)
                size += len(piece)
        end = writer.finish()
        out.write(end)
    return size + len(end)


def _ls(args: argparse.Namespace, terminal: Terminal) -> int:
    with connect(args) as node:
        for frame in node.stream("ls", {"path": args.path}, timeout=args.timeout):
            if isinstance(frame, dict) and "item" in frame:
                row = frame["item"]
                terminal.show(row, _long(row) if args.long else _short(row))
    return 0


def _short(row: dict[str, Any]) -> str:
    return f"{row['cid']} {row['size'] if row['type'] in _SIZED else '-'} {_name(row)}"


def _long(row: dict[str, Any]) -> str:
    mode = f"{row['mode']:04o}" if "mode" in row else "-"
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["mtime"][0])) if "mtime" in row else "-"
    size = human_bytes(row["size"]) if row["type"] in _SIZED else "-"
    target = f" -> {row['target']}" if "target" in row else ""
    return f"{row['type'][0]} {mode:>4} {size:>9} {when:>20} {row['cid']} {_name(row)}{target}"


def _name(row: dict[str, Any]) -> str:
    """The name, control characters escaped: a DAG must not write to the terminal."""
    name = row["name"] + ("/" if row["type"] == "directory" else "")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)
