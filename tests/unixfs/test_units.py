"""Small parts by themselves: what is refused, and with which words."""

from __future__ import annotations

import pytest

from ipcs import multibase
from ipcs.cid import SHA2_256
from ipcs.errors import InvalidArgument, MalformedBlock
from ipcs.hashes import HASH_NAMES
from ipcs.unixfs import dag_pb, hamt, wire
from ipcs.unixfs.chunker import MAX_CHUNK_SIZE, make_chunker
from ipcs.unixfs.profile import CUSTOM, IPCS_V1, PROXY_2020, UNIXFS_V0_2015, Layout, Profile, customised

CID_V0 = b"\x12\x20" + bytes(32)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("", "not known"),
        ("size", "not known"),
        ("size-", "not known"),
        ("size-x", "not a size"),
        ("size--5", "not a size"),
        ("size-0", "must be 1 to"),
        (f"size-{MAX_CHUNK_SIZE + 1}", "must be 1 to"),
        ("size-99999999999999999999", "not a size"),
        ("size-\u0661", "not a size"),
        ("rabin-", "not known|not a size"),
        ("rabin-1-2", "give rabin"),
        ("rabin-1-2-3-4", "give rabin"),
        ("rabin-15-100-200", "must ascend"),
        ("rabin-100-100-200", "must ascend"),
        ("rabin-100-300-200", "must ascend"),
        ("rabin-20", "must ascend"),
        ("rabin-min:100-max:200-avg:300", "not a size"),
        ("buzhash-5", "not known"),
    ],
)
def test_chunker_specifications_that_are_refused(spec: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        make_chunker(spec)


def test_chunker_specifications_of_kubo() -> None:
    def chunks(spec: str) -> list[bytes]:
        chunker = make_chunker(spec)
        return [bytes(chunk) for chunk in (*chunker.feed(bytes(range(256)) * 40), *chunker.finish())]

    assert chunks("rabin-min:16-avg:64-max:200") == chunks("rabin-16-64-200")
    assert chunks("default") == chunks("size-262144")
    assert make_chunker(f"size-{MAX_CHUNK_SIZE}").finish() == []


def test_parameters_follow_from_each_other_as_in_kubo() -> None:
    assert customised(IPCS_V1) is IPCS_V1
    assert customised(IPCS_V1, cid_version=1, chunker="size-262144", trickle=False) is IPCS_V1
    assert not customised(IPCS_V1, cid_version=0).raw_leaves
    assert customised(UNIXFS_V0_2015, cid_version=1).raw_leaves
    assert not customised(UNIXFS_V0_2015, cid_version=1, raw_leaves=False).raw_leaves
    blake = customised(UNIXFS_V0_2015, hash_name="blake3")
    assert (blake.cid_version, blake.raw_leaves, blake.hash_code, blake.name) == (1, True, HASH_NAMES["blake3"], CUSTOM)
    assert customised(UNIXFS_V0_2015, hash_name="sha2-256").hash_code == SHA2_256
    assert not customised(PROXY_2020, chunker="buzhash").raw_leaves
    assert customised(IPCS_V1, trickle=True).layout is Layout.TRICKLE
    assert customised(IPCS_V1, inline_limit=32, max_links=5) == Profile(CUSTOM, inline_limit=32, max_links=5)
    for wrong in ({"hash_name": "md5"}, {"chunker": "x"}, {"hash_name": "blake3", "cid_version": 0}):
        with pytest.raises(InvalidArgument):
            customised(IPCS_V1, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="CID version 2"):
        Profile(cid_version=2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("0a000a00", "two Data fields"),
        ("1a00", "unknown field: tag 26"),
        ("08", "unknown field: tag 8"),
        ("1202", "2 bytes, 0 are left"),
        ("80", "varint at byte 0"),
        ("12021a00", "link has an unknown field: tag 26"),
        ("120412001200", "out of order or repeated"),
        ("12021801", "no Hash"),
        ("12040a020155", "malformed Hash"),
        ("12030a0a01", "10 bytes, 1 are left"),
        ("ffffffffffffffffff7f", "varint at byte 0"),
    ],
)
def test_malformed_dag_pb(data: str, words: str) -> None:
    with pytest.raises(MalformedBlock, match=words):
        dag_pb.decode(bytes.fromhex(data))


def test_redundant_varints_are_read_as_go_reads_them() -> None:
    link = b"\x0a" + bytes([len(CID_V0)]) + CID_V0
    plain = b"\x12" + bytes([len(link)]) + link
    wordy = b"\x92\x00" + bytes([len(link) | 0x80, 0]) + link
    assert dag_pb.decode(wordy) == dag_pb.decode(plain) == dag_pb.Node([dag_pb.Link(CID_V0, None, None)])  # type: ignore[arg-type]
    trailing = b"\x12\x27\x0a\x25" + b"\x01\x70\x12\x20" + bytes(32) + b"!"
    assert dag_pb.decode(trailing).links[0].cid == b"\x01\x70\x12\x20" + bytes(32)
    assert dag_pb.decode(memoryview(plain)) == dag_pb.decode(plain)


def test_what_is_written_is_canonical_or_refused() -> None:
    good = dag_pb.Link(CID_V0, b"b", 5)  # type: ignore[arg-type]
    for wrong in ([good, good._replace(name=b"a")], [good._replace(tsize=-1)], [good._replace(cid=b"\x01")]):
        with pytest.raises(InvalidArgument):
            dag_pb.encode(dag_pb.Node(wrong))
    for name in (b"", b"n", b"n" * 200):
        for tsize in (0, 1, 300, 1 << 40):
            link = good._replace(name=name, tsize=tsize)
            assert dag_pb.link_size(34, len(name), tsize) == len(dag_pb.encode(dag_pb.Node([link])))


def test_wire_types_that_are_skipped() -> None:
    assert wire.skip_field(b"\x80\x01", wire.VARINT, 0, 2) == 2
    assert wire.skip_field(bytes(8), wire.FIXED64, 0, 8) == 8
    assert wire.skip_field(b"\x01x", wire.BYTES, 0, 2) == 2
    for kind, data in ((wire.FIXED64, bytes(7)), (wire.FIXED32, bytes(3)), (3, b""), (7, bytes(9))):
        with pytest.raises(MalformedBlock):
            wire.skip_field(data, kind, 0, len(data))
    with pytest.raises(MalformedBlock):
        wire.read_uvarint(b"\xff" * 9 + b"\x02", 0, 10)  # 2^64 and more
    assert wire.read_uvarint(b"\xff" * 9 + b"\x01", 0, 10) == ((1 << 64) - 1, 10)


def test_multibase_that_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="try base32"):
        multibase.encode(b"x", "base99")
    for text in ("🚀x", "baa=", "0abc", "Zoo0", ""):
        with pytest.raises(InvalidArgument):
            multibase.decode(text)


def test_hash_bits_can_run_out() -> None:
    place = hamt.placement(8)
    assert [place.bucket((1 << 64) - 1, depth) for depth in range(21)] == [7] * 21
    with pytest.raises(InvalidArgument, match="too deep"):
        place.bucket(0, 21)
