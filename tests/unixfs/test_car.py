"""CAR archives: what others wrote, what we write, and what a hostile writer may try."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipcs.block import Block, make_block
from ipcs.blockservice import LocalBlocks
from ipcs.cid import DAG_PB, RAW, Cid, cid_v1, format_cid, write_varint
from ipcs.errors import HashMismatch, InvalidArgument, LimitExceeded, MalformedBlock, NotFound
from ipcs.store.blockstore import MemoryBlockstore
from ipcs.unixfs import car
from ipcs.unixfs.car import CarReader, encode_car, encode_header, encode_section, header_v2
from ipcs.unixfs.importer import Importer, import_blocks
from ipcs.unixfs.node import Kind
from ipcs.unixfs.profile import Profile
from ipcs.unixfs.resolve import decode_name
from ipcs.unixfs.traverse import Enter, traverse
from ipcs.unixfs.walk import dag_stat, links_of, walk

FIXTURES = os.environ.get("IPCS_FIXTURES")
VECTORS = Path(FIXTURES) / "vectors" if FIXTURES else None


def fixtures() -> list[Any]:
    if VECTORS is None:
        reason = "CAR FIXTURES NOT RUN: IPCS_FIXTURES does not name the folder with the public fixtures"
        return [pytest.param("", {}, marks=pytest.mark.skip(reason=reason), id="none")]
    index = json.loads((VECTORS / "car_index.json").read_text())["cars"]
    return [pytest.param(name, row, id=name) for name, row in index.items()]


def load(data: bytes, piece: int = 1 << 16) -> tuple[CarReader, list[Block]]:
    reader, blocks = CarReader(), []
    for begin in range(0, len(data), piece):
        blocks += reader.feed(data[begin : begin + piece])
    reader.finish()
    return reader, blocks


@pytest.mark.parametrize(("name", "row"), fixtures())
async def test_fixture(name: str, row: dict[str, Any]) -> None:
    assert VECTORS is not None
    data = (VECTORS / "car" / name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == row["sha256"]
    reader, blocks = load(data)
    assert reader.version == row["version"]
    assert [format_cid(root) for root in reader.roots] == row["roots"]
    assert len(blocks) == row["blockCount"]
    if "blocks" in row:
        assert [[format_cid(cid), len(block)] for cid, block in blocks] == row["blocks"]
    assert b"".join(encode_car(reader.roots, blocks)) == data
    store = MemoryBlockstore()
    store.put_many(blocks)
    if "entries" in row:
        await check_entries(LocalBlocks(store), reader.roots, row["entries"])


async def check_entries(source: LocalBlocks, roots: list[Cid], entries: list[dict[str, Any]]) -> None:
    """What the exporter of js-ipfs-unixfs saw in the DAG is what we see; blocks left out on purpose are missed."""
    expected = {entry["path"]: entry for entry in entries}
    for root in roots:
        base = format_cid(root)
        path, content = "", hashlib.sha256()
        seen: set[str] = set()
        try:
            async for step in traverse(source, root):
                if isinstance(step, (bytes, memoryview)):
                    content.update(step)
                elif isinstance(step, Enter):
                    check_content(expected, path, content)
                    path, content = "/".join([base, *map(decode_name, step.path)]), hashlib.sha256()
                    seen.add(path)
                    check_entry(expected.get(path), step)
            check_content(expected, path, content)
            assert seen >= {p for p in expected if p.split("/")[0] == base and "error" not in expected[p]}
        except NotFound:
            assert any("rror" in key for entry in entries for key in entry), "a block is missing that should be there"
        except InvalidArgument:
            assert any(entry.get("type") == "object" or "/../" in entry["path"] for entry in entries)


def check_entry(entry: dict[str, Any] | None, step: Enter) -> None:
    if entry is None or "error" in entry:
        return
    assert format_cid(step.stat.cid) == entry["cid"]
    if entry.get("type") == "directory":
        assert step.stat.kind in (Kind.DIRECTORY, Kind.HAMT_SHARD)
    elif step.stat.kind is Kind.FILE and "size" in entry:
        assert step.stat.size == entry["size"]


def check_content(expected: dict[str, dict[str, Any]], path: str, content: Any) -> None:
    if "sha256" in expected.get(path, {}):
        assert content.hexdigest() == expected[path]["sha256"]


@settings(deadline=None, max_examples=60)
@given(
    data=st.binary(max_size=2000),
    size=st.integers(1, 200),
    links=st.integers(2, 9),
    raw=st.booleans(),
    piece=st.integers(1, 700),
    version=st.sampled_from([1, 2]),
    tail=st.binary(max_size=40),
)
def test_round_trip(data, size, links, raw, piece, version, tail) -> None:
    importer = Importer(Profile(chunker=f"size-{size}", max_links=links, raw_leaves=raw))
    blocks = list(import_blocks(importer, [data]))
    archive = b"".join(encode_car([importer.root.cid], blocks))
    if version == 2:
        archive = header_v2(len(archive)) + archive + tail  # the tail stands for an index
    reader, read = load(archive, piece)
    assert (reader.version, reader.roots) == (version, [importer.root.cid])
    assert [(cid, bytes(block)) for cid, block in read] == [(cid, bytes(block)) for cid, block in blocks]


async def test_export_of_a_walk_is_each_block_once_parents_first() -> None:
    importer = Importer(Profile(chunker="size-10", max_links=3))
    store = MemoryBlockstore()
    store.put_many(list(import_blocks(importer, [bytes(400)])))  # zeros: one leaf, many times
    source = LocalBlocks(store)
    blocks = [block async for block in walk(source, [importer.root.cid])]
    assert len(blocks) == len(set(blocks)) == len(list(store.keys()))
    assert blocks[0].cid == importer.root.cid
    _, again = load(b"".join(encode_car([importer.root.cid], blocks)))
    assert again == blocks
    summary = await dag_stat(source, [importer.root.cid, blocks[1].cid])
    assert summary.dags[0].blocks == summary.unique_blocks == len(blocks)
    assert summary.unique_size == sum(len(block.data) for block in blocks)
    assert summary.shared_size == summary.dags[1].size > 0
    assert summary.ratio > 1
    assert (await dag_stat(source, [])).ratio == 1.0


BLOCK = make_block(b"hello")
GOOD = b"".join(encode_car([BLOCK.cid], [BLOCK]))


@pytest.mark.parametrize("cut", range(len(GOOD)))
def test_cut_off_anywhere(cut: int) -> None:
    if cut == len(encode_header([BLOCK.cid])):
        assert load(GOOD[:cut])[1] == []  # an archive may end after any section
        return
    with pytest.raises(MalformedBlock, match="cut off"):
        load(GOOD[:cut])
    with pytest.raises(MalformedBlock, match="cut off"):
        load(header_v2(len(GOOD)) + GOOD[:cut])


MD5 = cid_v1(RAW, b"\xd5\x01\x10" + bytes(16))
CUT = cid_v1(RAW, b"\x12\x10" + bytes(16))


def header(cbor: bytes) -> bytes:
    return write_varint(len(cbor)) + cbor


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (write_varint(1 << 40), LimitExceeded, "header at byte 0 declares 1099511627776 bytes"),
        (b"\xff" * 12, MalformedBlock, "bad length"),
        (b"\x00", MalformedBlock, "header at byte 0 is empty"),
        (header(b"\xff"), MalformedBlock, "not dag-cbor"),
        (header(b"\xa1\x67version\x01"), MalformedBlock, "not {roots, version: 1}"),
        (header(b"\xa2\x65roots\x80\x67version\x03"), MalformedBlock, "not {roots, version: 1}"),
        (header(b"\xa2\x65roots\x81\x01\x67version\x01"), MalformedBlock, "root that is no CID"),
        (header(b"\xa2\x65roots\x19\x07\xff\x67version\x01"), MalformedBlock, "not {roots, version: 1}"),
        (header(b"\xa2\x65roots\x99\x07\xd0" + b"\x01" * 2000 + b"\x67version\x01"), LimitExceeded, "2000 roots"),
        (encode_header([]) + write_varint(1 << 40), LimitExceeded, "section at byte 18 declares"),
        (encode_header([]) + b"\x00", MalformedBlock, "section at byte 18 is empty"),
        (encode_header([]) + b"\x02\x01\x55", MalformedBlock, "bad CID"),
        (encode_header([]) + b"\x05\x01\x55\x12\xff\x7f", MalformedBlock, "bad CID"),
        (encode_header([]) + b"\x06\x01\x55\x12\x20\x00\x00", MalformedBlock, "bad CID"),
        (encode_header([]) + encode_section(Block(BLOCK.cid, b"other")), HashMismatch, "section at byte 18"),
        (
            encode_header([]) + encode_section(Block(MD5, b"x")),
            InvalidArgument,
            "0xd5",
        ),
        (
            encode_header([]) + encode_section(Block(CUT, b"x")),
            InvalidArgument,
            "16 bytes",
        ),
        (car.PRAGMA_V2 + bytes(16) + bytes(24), MalformedBlock, "0 bytes of payload at byte 0"),
        (header_v2(20) + encode_header([BLOCK.cid]) + encode_section(BLOCK), MalformedBlock, "ends inside a section"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_malformed(data: bytes, error: type[Exception], words: str) -> None:
    for piece in (1, 5, 1 << 20):
        with pytest.raises(error, match=words):
            load(data, piece)


def test_a_length_makes_no_reader_allocate() -> None:
    reader = CarReader()
    reader.feed(encode_header([]))
    reader.feed(write_varint(car.MAX_SECTION) + b"\x01\x55\x12\x20")
    assert len(reader._buffer) < 100


def test_a_v2_payload_far_into_the_file_is_found_without_keeping_what_lies_before() -> None:
    pad = 5_000_000
    head = bytearray(header_v2(len(GOOD)))
    head[27:35] = (len(head) + pad).to_bytes(8, "little")
    reader = CarReader()
    reader.feed(head)
    for _ in range(5):
        reader.feed(bytes(pad // 5))
        assert len(reader._buffer) == 0
    assert reader.feed(GOOD) == [BLOCK]
    reader.finish()


def test_blocks_in_identity_cids_are_checked_and_left_out() -> None:
    inside = Block(cid_v1(RAW, b"\x00\x05hello"), b"hello")
    assert load(b"".join(encode_car([inside.cid], [inside, BLOCK])))[1] == [BLOCK]
    with pytest.raises(HashMismatch):
        load(b"".join(encode_car([], [Block(inside.cid, b"hellO")])))


def codec_rows(name: str) -> list[Any]:
    if VECTORS is None:
        reason = "CODEC FIXTURES NOT RUN: IPCS_FIXTURES does not name the folder with the public fixtures"
        return [pytest.param({}, marks=pytest.mark.skip(reason=reason), id="none")]
    rows = json.loads((VECTORS / f"{name}.json").read_text())["vectors"]
    return [pytest.param(row, id=f"{row.get('codec', '')}{row['name']}-{number}") for number, row in enumerate(rows)]


@pytest.mark.parametrize("row", codec_rows("codec_fixtures"))
def test_codec_fixture(row: dict[str, Any]) -> None:
    import dag_cbor

    from ipcs.cid import parse_cid
    from ipcs.unixfs import cbor, dag_pb

    data, cid = bytes.fromhex(row["hex"]), parse_cid(row["cid"])
    if row["codec"] == "dag-pb":
        assert make_block(data, DAG_PB).cid == cid
        assert dag_pb.encode(dag_pb.decode(data)) == data
    else:
        assert make_block(data, 0x71).cid == cid
        assert dag_cbor.encode(cbor.decode(data)) == data  # type: ignore[arg-type]
    assert isinstance(links_of(cid, data), list)


@pytest.mark.parametrize("row", codec_rows("codec_negative"))
def test_codec_negative(row: dict[str, Any]) -> None:
    from ipcs.unixfs import cbor, dag_pb

    if "hex" in row:
        decode = dag_pb.decode if "dag-pb" in row["file"] else cbor.decode
        with pytest.raises(MalformedBlock):
            decode(bytes.fromhex(row["hex"]))
    else:
        with pytest.raises((InvalidArgument, TypeError, AttributeError, KeyError)):
            dag_pb.encode(node_of_form(row["dag-json"]))


def node_of_form(form: Any) -> Any:
    """A dag-pb node as the data model has it. What our types cannot say fails here, as mypy would fail it."""
    from ipcs.cid import parse_cid
    from ipcs.unixfs.dag_pb import Link, Node

    def link(value: Any) -> Link:
        name, tsize = value.get("Name", ""), value.get("Tsize", 0)
        if type(tsize) is not int or not isinstance(name, str):
            raise TypeError("Name is a string and Tsize an integer")
        return Link(parse_cid(value["Hash"]["/"]), name.encode(), tsize) if "Hash" in value else Link(**value)

    if set(form) - {"Data", "Links"} or not isinstance(form.get("Links"), list):
        raise TypeError("a node is Links and Data")
    data = form.get("Data", {"/": {"bytes": ""}})
    if not isinstance(data["/"]["bytes"], str):
        raise TypeError("Data is bytes")
    return Node([link(value) for value in form["Links"]], b"")


def test_seeded_archives_of_several_roots() -> None:
    randomness = random.Random(4)
    blocks = [make_block(randomness.randbytes(randomness.randrange(3000))) for _ in range(50)]
    reader, read = load(b"".join(encode_car([block.cid for block in blocks[:7]], blocks)), 333)
    assert read == blocks
    assert reader.roots == [block.cid for block in blocks[:7]]
