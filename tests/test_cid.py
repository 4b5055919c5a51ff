"""CIDs in binary and text, against the published tables of multiformats, and digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from ipcs import multibase
from ipcs.block import identity_data, make_block
from ipcs.cid import (
    DAG_PB,
    MAX_CID_TEXT,
    RAW,
    check_cid,
    cid_to_digest,
    cid_v1,
    codec_of,
    digest_to_cid,
    format_cid,
    multihash_of,
    parse_cid,
    read_cid,
    read_varint,
    to_v0,
    to_v1,
    write_varint,
)
from ipcs.errors import InvalidArgument
from ipcs.hashes import HASH_NAMES, hash_name

VECTORS = json.loads((Path(__file__).parent / "vectors" / "multiformats.json").read_text())["vectors"]


def kind(*names: str) -> list[Any]:
    rows = [row for row in VECTORS if row["kind"] in names]
    assert rows
    return [pytest.param(row, id=f"{row['kind']}-{number}") for number, row in enumerate(rows)]


@pytest.mark.parametrize("row", kind("multibase"))
def test_multibase(row: dict[str, Any]) -> None:
    data = row["input"].encode()
    assert multibase.decode(row["encoded"]) == data
    if row["test"] != "case_insensitivity":
        assert multibase.encode(data, row["encoding"]) == row["encoded"]


BASES = sorted({row["encoding"] for row in VECTORS if row["kind"] == "multibase"})


@pytest.mark.parametrize("base", BASES)
def test_a_cid_in_every_base(base: str) -> None:
    cid = make_block(b"hello").cid
    assert parse_cid(format_cid(cid, base)) == cid


@pytest.mark.parametrize("row", kind("unsigned-varint"))
def test_varint(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["hex"])
    assert write_varint(row["value"]) == data
    assert read_varint(b"\xff" + data + b"\x7f", 1) == (row["value"], 1 + len(data))


@pytest.mark.parametrize("row", kind("unsigned-varint-invalid"))
def test_invalid_varint(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="varint"):
        read_varint(bytes.fromhex(row["hex"]))


@pytest.mark.parametrize("row", kind("multihash-valid"))
def test_valid_multihash(row: dict[str, Any]) -> None:
    code, digest = row["encoding"]["code"], bytes.fromhex(row["hex"])
    if "varint" in row["encoding"]:
        assert write_varint(code).hex() == row["encoding"]["varint"]
    cid = cid_v1(RAW, write_varint(code) + write_varint(row["size"]) + digest)
    assert check_cid(cid) == cid
    assert multihash_of(cid)[len(multihash_of(cid)) - row["size"] :] == digest
    if row["encoding"]["name"] in HASH_NAMES:
        assert hash_name(code) == row["encoding"]["name"]


@pytest.mark.parametrize("row", kind("multihash-invalid"))
def test_invalid_multihash(row: dict[str, Any]) -> None:
    body = write_varint(row["code"]) + write_varint(row["size"]) + bytes.fromhex(row["hex"])
    with pytest.raises(InvalidArgument):
        check_cid(b"\x01\x55" + (body if row["hex"] else b""))


@pytest.mark.parametrize("row", kind("cid-v0-v1"))
def test_versions(row: dict[str, Any]) -> None:
    v0, v1 = parse_cid(row["v0"]), parse_cid(row["v1"])
    assert to_v1(v0) == v1
    assert to_v0(v1) == v0
    assert multihash_of(v0) == multihash_of(v1)
    assert codec_of(v0) == codec_of(v1) == DAG_PB
    assert (format_cid(v0), format_cid(v1)) == (row["v0"], row["v1"])
    assert to_v0(v0) == v0
    assert to_v1(v1) == v1


@pytest.mark.parametrize("row", kind("cid-identity"))
def test_identity(row: dict[str, Any]) -> None:
    cid = parse_cid(row["cid"])
    if row["valid"]:
        assert identity_data(cid) == row["content"].encode()
    else:
        with pytest.raises(InvalidArgument):
            identity_data(cid)


def test_every_row_of_the_table_is_tested() -> None:
    tested = {"multihash", "multibase", "unsigned-varint", "unsigned-varint-invalid", "multihash-valid"}
    tested |= {"multihash-invalid", "cid-v0-v1", "cid-identity"}
    assert {row["kind"] for row in VECTORS} == tested


@given(
    st.binary(max_size=300), st.sampled_from([RAW, DAG_PB, 0x71, 0x0129, 0x0200]), st.sampled_from(sorted(HASH_NAMES))
)
def test_text_agrees_with_multiformats(data: bytes, codec: int, name: str) -> None:
    cid = make_block(data, codec, HASH_NAMES[name]).cid
    text = format_cid(cid)
    assert parse_cid(text) == cid
    assert read_cid(b"\x00" + cid + data, 1) == (cid, 1 + len(cid))
    if not name.startswith("blake2") and "keccak" not in name:
        assert bytes(CID.decode(text)) == cid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Qm",
        "hello",
        "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMn0",  # 0 is not in base58
        "zQmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR",  # a version 0 under multibase
        "bafkqaaa=",
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzd",  # a character short
        "b",
        "f01",
        "f02551220" + "00" * 32,
        "f01551221" + "00" * 32,
        "f01" + "ff" * 12,
        "é" * 10,
        "\x00",
        "z" * (MAX_CID_TEXT + 1),
    ],
)
def test_not_a_cid(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a CID"):
        parse_cid(text)


@pytest.mark.parametrize(
    "data", ["", "01", "0155", "12", "1220" + "00" * 31, "1220" + "00" * 33, "01551220" + "00" * 31]
)
def test_malformed_binary(data: str) -> None:
    with pytest.raises(InvalidArgument):
        check_cid(bytes.fromhex(data))
    if len(data) < 68:
        with pytest.raises(InvalidArgument):
            read_cid(bytes.fromhex(data))


def test_digest_longer_than_allowed_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidArgument, match="longer than 128"):
        read_cid(b"\x01\x55\x00\xff\xff\xff\x0f", 0, 128)


DIGEST = "sha256:" + "ab" * 32


def test_digest_and_cid() -> None:
    cid = digest_to_cid(DIGEST)
    assert codec_of(cid) == RAW
    assert cid_to_digest(cid) == DIGEST
    assert cid_to_digest(to_v0(cid_v1(DAG_PB, multihash_of(cid)))) == DIGEST


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha512:" + "ab" * 64, DIGEST.upper(), DIGEST + "a", "sha256:" + "zz" * 32, DIGEST[:-2]]
)
def test_malformed_digest(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a sha256 digest"):
        digest_to_cid(text)


def test_conversions_that_do_not_exist() -> None:
    with pytest.raises(InvalidArgument, match="no version 0"):
        to_v0(make_block(b"x").cid)
    with pytest.raises(InvalidArgument, match="no version 0"):
        to_v0(make_block(b"x", DAG_PB, HASH_NAMES["blake3"]).cid)
    with pytest.raises(InvalidArgument, match="not a sha2-256"):
        cid_to_digest(make_block(b"x", RAW, HASH_NAMES["sha2-512"]).cid)
