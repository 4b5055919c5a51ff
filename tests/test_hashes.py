"""Hash functions and the allow-list: against the published multihash table and py-multihash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import multihash
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs import hashes
from ipcs.block import block_from_prefix, check_block, identity_data, make_block, prefix_of
from ipcs.cid import SHA2_256, Cid, cid_v1, read_varint, write_varint
from ipcs.errors import HashMismatch, InvalidArgument

VECTORS = json.loads((Path(__file__).parent / "vectors" / "multiformats.json").read_text())["vectors"]
TABLE = [row for row in VECTORS if row["kind"] == "multihash"]
NAMES = {"sha3": "sha3-512"}  # the table's short name


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['algorithm']}-{row['bits']}-{row['input'][:6]}")
def test_published_multihashes(row: dict[str, str]) -> None:
    data, expected = row["input"].encode(), bytes.fromhex(row["multihash"])
    code, at = read_varint(expected)
    length, at = read_varint(expected, at)
    assert hashes.HASH_NAMES[NAMES.get(row["algorithm"], row["algorithm"])] == code
    whole = hashes.digest(code, data)
    assert whole[:length] == expected[at:]
    if length >= hashes.MIN_DIGEST:
        assert hashes.multihash(code, data, length) == expected
        assert hashes.verify(hashes.multihash(code, data, length), data)
    else:
        with pytest.raises(InvalidArgument, match="acceptable are"):
            hashes.multihash(code, data, length)


PY_MULTIHASH_LACKS = {"keccak-224", "keccak-256", "keccak-384", "keccak-512"}


@pytest.mark.parametrize("name", sorted(set(hashes.HASH_NAMES) - PY_MULTIHASH_LACKS))
def test_agrees_with_py_multihash(name: str) -> None:
    data = b"the quick brown fox" * 41
    assert hashes.digest(hashes.HASH_NAMES[name], data) == multihash.digest(data, name).digest


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # of the empty string: keccak.team, "Keccak-f[1600] test vectors"
        ("keccak-224", "f71837502ba8e10837bdd8d365adb85591895602fc552b48b7390abd"),
        ("keccak-256", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
    ],
)
def test_keccak(name: str, expected: str) -> None:
    assert hashes.digest(hashes.HASH_NAMES[name], b"").hex() == expected


@pytest.mark.parametrize(
    ("code", "length"),
    [
        (0xD5, 16),  # md5
        (0x22, 16),  # murmur3-128
        (0x1013, 28),  # sha2-224
        (0x12, 16),
        (0x12, 33),
        (0xB205, 5),  # blake2b-40
        (0xB240 + 19, 19),
        (0x1E, 129),
        (0x19, 129),
        (0x00, 129),
        (0x12, 0),
    ],
)
def test_policy_refuses(code: int, length: int) -> None:
    data = b"x" * (length if code == 0 else 5)
    cid = cid_v1(0x55, write_varint(code) + write_varint(length) + bytes(length))
    with pytest.raises(InvalidArgument):
        check_block(cid, data)
    with pytest.raises(InvalidArgument):
        block_from_prefix(b"\x01\x55" + write_varint(code) + write_varint(length), data)


@given(
    data=st.binary(max_size=200),
    code=st.sampled_from(sorted(hashes.HASH_NAMES.values())),
    codec=st.sampled_from([0x55, 0x70, 0x71, 0x0129]),
)
def test_prefix_rebuilds_the_cid(data: bytes, code: int, codec: int) -> None:
    block = make_block(data, codec, code)
    assert block_from_prefix(prefix_of(block.cid), memoryview(data)).cid == block.cid
    assert check_block(block.cid, memoryview(data)) == block
    with pytest.raises(HashMismatch):
        check_block(block.cid, data + b"!")


@pytest.mark.parametrize("length", [20, 31])
def test_cut_digest_is_cut_and_compared(length: int) -> None:
    prefix = bytes([0x01, 0x55, 0x12, length])
    block = block_from_prefix(prefix, b"data")
    assert block.cid == prefix + hashlib.sha256(b"data").digest()[:length]
    assert check_block(block.cid, b"data") == block


def test_v0_prefix() -> None:
    block = block_from_prefix(b"\x00\x70\x12\x20", b"data")
    assert block.cid == b"\x12\x20" + hashlib.sha256(b"data").digest()
    assert prefix_of(block.cid) == b"\x00\x70\x12\x20"


@pytest.mark.parametrize("prefix", ["", "01", "0155", "015512", "01551220ff", "02551220", "00551220", "00701e20", "80"])
def test_malformed_prefix(prefix: str) -> None:
    with pytest.raises(InvalidArgument):
        block_from_prefix(bytes.fromhex(prefix), b"data")


def test_identity() -> None:
    cid = cid_v1(0x55, hashes.multihash(0, b"hello"))
    assert identity_data(cid) == b"hello"
    assert check_block(cid, b"hello").data == b"hello"
    with pytest.raises(HashMismatch):
        check_block(cid, b"hellO")
    with pytest.raises(InvalidArgument, match="declares 5"):
        block_from_prefix(b"\x01\x55\x00\x05", b"four")
    assert identity_data(make_block(b"hello").cid) is None
    assert identity_data(Cid(b"\x12\x20" + bytes(32))) is None
    with pytest.raises(InvalidArgument, match="129"):
        identity_data(cid_v1(0x55, b"\x00\x81\x01" + bytes(129)))


def test_names() -> None:
    assert hashes.hash_name(SHA2_256) == "sha2-256"
    assert hashes.hash_name(0) == "identity"
    assert hashes.hash_name(0xD5) == "0xd5"
    with pytest.raises(InvalidArgument, match="0xd5"):
        hashes.digest(0xD5, b"")
