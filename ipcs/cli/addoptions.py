"""The options of `ipcs add`: Kubo's flags, with Kubo's meanings, over the defaults of a profile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from ..unixfs.scan import ScanOptions
    from ..unixfs.tree import Step

DEFAULT_INLINE_LIMIT = 32
"""Bytes: Kubo's --inline-limit."""


def add_add_options(add: argparse.ArgumentParser) -> None:
    """Everything `ipcs add` takes."""
    switch: dict[str, Any] = {"action": argparse.BooleanOptionalAction, "default": None}
    paths = add.add_argument("paths", nargs="*", default=["-"], metavar="PATH")
    paths.help = "file or directory to add; - is stdin (the default)"
    add.add_argument("-r", "--recursive", action="store_true", help="add directories with all below them")
    add.add_argument("-w", "--wrap-with-directory", action="store_true", help="put all paths into one directory")
    add.add_argument("-H", "--hidden", action="store_true", help="take hidden files in directories too")
    add.add_argument("-n", "--only-hash", action="store_true", help="only compute the CIDs; needs no node")
    add.add_argument("-q", "--quiet", action="store_true", help="print CIDs only")
    add.add_argument("-Q", "--quieter", action="store_true", help="print the last CID only")
    add.add_argument("--pin", action=argparse.BooleanOptionalAction, default=True, help="keep it (default)")
    shape = add.add_argument_group("what decides the CID besides the content")
    shape.add_argument("--profile", default="ipcs-v1", metavar="NAME", help="ipcs-v1 (default), unixfs-v0-2015, ...")
    shape.add_argument("-s", "--chunker", metavar="SPEC", help="size-N, rabin-MIN-AVG-MAX or buzhash")
    shape.add_argument("--raw-leaves", **switch, help="leaves without framing")
    shape.add_argument("--cid-version", type=int, choices=(0, 1), help="1 implies --raw-leaves, 0 the opposite")
    shape.add_argument("--hash", metavar="NAME", help="e.g. sha2-256, blake3; implies --cid-version 1")
    shape.add_argument("-t", "--trickle", **switch, help="trickle layout instead of balanced")
    shape.add_argument("--max-file-links", type=int, metavar="N", help="links in one node of a file")
    shape.add_argument("--inline", **switch, help="put small blocks into their CIDs")
    shape.add_argument("--inline-limit", type=int, metavar="BYTES", default=DEFAULT_INLINE_LIMIT, help="default: 32")
    record = add.add_argument_group("what is recorded of files (implies --no-raw-leaves)")
    record.add_argument("--preserve-mode", action="store_true", help="record permissions")
    record.add_argument("--preserve-mtime", action="store_true", help="record modification times")
    record.add_argument("--mode", type=octal, metavar="OCTAL", help="record these permissions for all")
    record.add_argument("--mtime", type=int, metavar="SECONDS", help="record this modification time for all")
    record.add_argument("--mtime-nsecs", type=int, metavar="N", default=0, help="nanoseconds of --mtime")


def octal(text: str) -> int:
    """Permission bits, `0644`. The leading zero is required, because Kubo takes `644` as decimal.

    Like Kubo's, --mode drops the setuid, setgid and sticky bits, which --preserve-mode keeps.
    """
    try:
        mode = int(text, 8) if text.startswith("0") else -1
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise argparse.ArgumentTypeError(f"{text!r} is not a mode; write it in octal, like 0644")
    return mode & 0o777


def profile_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """What the options change in the profile: parameters of `ipcs.unixfs.profile.customised`."""
    inline = {None: None, False: 0, True: args.inline_limit}[args.inline]
    return {
        "cid_version": args.cid_version,
        "raw_leaves": args.raw_leaves,
        "hash_name": args.hash,
        "chunker": args.chunker,
        "trickle": args.trickle,
        "max_links": args.max_file_links,
        "inline_limit": inline,
    }


def scan_options(args: argparse.Namespace) -> ScanOptions:
    """Which files are taken, and what is recorded of them. As in Kubo, a mode or mtime of 0 is none.

    Raises `InvalidArgument` for options that exclude each other.
    """
    from ..unixfs.node import Mtime
    from ..unixfs.scan import ScanOptions

    if args.mtime_nsecs and not args.mtime:
        raise InvalidArgument("--mtime-nsecs needs --mtime")
    options = ScanOptions(
        recursive=args.recursive,
        hidden=args.hidden,
        preserve_mode=args.preserve_mode,
        preserve_mtime=args.preserve_mtime,
        mode=args.mode or None,
        mtime=Mtime(args.mtime, args.mtime_nsecs) if args.mtime else None,
    )
    if options.has_attributes and args.raw_leaves:
        raise InvalidArgument("raw leaves cannot carry a mode or an mtime; leave out --raw-leaves")
    return options


def steps_of(args: argparse.Namespace, options: ScanOptions) -> Iterator[Step]:
    """All that is to be added, as steps of a tree."""
    from pathlib import Path

    from ..unixfs.scan import scan, scan_stream
    from ..unixfs.tree import CloseDirectory, OpenDirectory

    if args.paths.count("-") > 1:
        raise InvalidArgument("stdin can be added once only")
    if args.wrap_with_directory:
        yield OpenDirectory(b"")
    for path in args.paths:
        yield from scan_stream(sys.stdin.buffer, b"", options) if path == "-" else scan(Path(path), options)
    if args.wrap_with_directory:
        yield CloseDirectory()
