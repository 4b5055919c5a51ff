"""`ipcs cid format | inspect`: CIDs in all their forms; needs no node."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ..cid import (
    DAG_CBOR,
    DAG_PB,
    RAW,
    Cid,
    cid_to_digest,
    cid_v1,
    codec_of,
    digest_to_cid,
    format_cid,
    is_v0,
    multihash_of,
    parse_cid,
    read_varint,
    to_v0,
    to_v1,
)
from ..errors import InvalidArgument
from ..hashes import check_policy, hash_name
from .options import Subparsers, command
from .terminal import Terminal

CODECS = {"raw": RAW, "dag-pb": DAG_PB, "dag-cbor": DAG_CBOR}


def register(sub: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `cid` and its subcommands."""
    parser = sub.add_parser("cid", help="convert and explain CIDs and digests", description="CIDs, without a node.")
    group = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    form = command(
        group,
        "format",
        _format,
        about="convert CIDs and OCI digests to another base, version, codec or form",
        example="ipcs cid format -v 1 -b base32 QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",
        node=False,
    )
    form.add_argument("cids", nargs="*", metavar="CID", help="CID, or sha256:HEX; read from stdin when none is given")
    form.add_argument("-v", type=int, choices=(0, 1), dest="version", help="CID version")
    form.add_argument("-b", dest="base", metavar="BASE", default=None, help="multibase, e.g. base32 or base58btc")
    form.add_argument("--mc", choices=tuple(CODECS), dest="codec", help="codec of the result")
    form.add_argument("--digest", action="store_true", help="print sha256:HEX instead of a CID")
    inspect = command(
        group,
        "inspect",
        _inspect,
        about="show what a CID or an OCI digest consists of",
        example="ipcs cid inspect bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
        node=False,
    )
    inspect.add_argument("cids", nargs="+", metavar="CID", help="CID, or sha256:HEX")


def _parse(text: str) -> Cid:
    text = text.removeprefix("ipfs://").removeprefix("/ipfs/")
    return digest_to_cid(text) if text.startswith("sha256:") else parse_cid(text)


def _given(texts: list[str], lines: Iterable[str]) -> Iterator[str]:
    if texts:
        yield from texts
    else:
        yield from (line.strip() for line in lines if line.strip())


def _format(args: argparse.Namespace, terminal: Terminal) -> int:
    for text in _given(args.cids, sys.stdin):
        cid = _parse(text)
        if args.codec is not None:
            cid = cid_v1(CODECS[args.codec], multihash_of(cid))
        if args.version is not None:
            cid = to_v0(cid) if args.version == 0 else to_v1(cid)
        result = cid_to_digest(cid) if args.digest else _text(cid, args.base)
        terminal.show({"cid": text, "formatted": result}, result)
    return 0


def _text(cid: Cid, base: str | None) -> str:
    if base is None:
        return format_cid(cid)
    if is_v0(cid) and base != "base58btc":
        raise InvalidArgument("a version 0 CID has base58btc only; add -v 1", subject=format_cid(cid))
    return format_cid(cid, base)


def _inspect(args: argparse.Namespace, terminal: Terminal) -> int:
    for text in args.cids:
        facts = inspect_cid(_parse(text))
        terminal.show(facts, "\n".join(f"{name}: {value}" for name, value in facts.items()))
    return 0


def inspect_cid(cid: Cid) -> dict[str, Any]:
    """What `cid` consists of, and its other forms; JSON values."""
    multihash = multihash_of(cid)
    code, at = read_varint(multihash)
    length, at = read_varint(multihash, at)
    codec = codec_of(cid)
    names = {number: name for name, number in CODECS.items()}
    facts: dict[str, Any] = {
        "cid": format_cid(cid),
        "version": 0 if is_v0(cid) else 1,
        "codec": names.get(codec, hex(codec)),
        "hash": hash_name(code),
        "digest_length": length,
        "digest": multihash[at:].hex(),
        "cid_v1": format_cid(to_v1(cid)),
    }
    if is_v0(multihash):
        facts["oci_digest"] = cid_to_digest(cid)
        facts["dag_root_v0"] = format_cid(Cid(multihash))
    try:
        check_policy(code, length)
        facts["acceptable"] = True
    except InvalidArgument as exc:
        facts["acceptable"] = f"no: {exc.message}"
    return facts
