"""The routing protocol's messages: round trips, limits, and hostile bytes."""

import contextlib

import dag_cbor
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs.block import make_block
from ipcs.cid import Cid, read_varint
from ipcs.errors import RemoteProtocolError
from ipcs.routing import messages
from ipcs.routing.messages import (
    MAX_ENTRIES,
    MAX_MESSAGE,
    Addresses,
    Announce,
    Follow,
    Leaves,
    Peers,
    Pulling,
    Pulls,
    Record,
    Records,
    Resolve,
    Whole,
    Withdraw,
)

digests = st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex())
roots = st.binary(max_size=20).flatmap(lambda data: st.sampled_from([make_block(data).cid, make_block(data, 0x70).cid]))
records = st.builds(Record, digests, st.integers(0, messages.MAX_SIZE), roots, st.text("abc-1", max_size=20))
some = st.lists(digests, max_size=5)
any_message = st.one_of(
    st.builds(Resolve, some),
    st.builds(Withdraw, some),
    st.builds(Pulling, some),
    st.builds(Pulls, some, some),
    st.builds(Follow, st.lists(digests, max_size=1)),
    st.builds(Leaves, st.lists(st.binary(min_size=32, max_size=32), max_size=5)),
    st.builds(Records, st.lists(records, max_size=5)),
    st.builds(Announce, st.lists(records, max_size=5)),
    st.builds(Addresses, st.lists(st.text(max_size=40), max_size=5)),
    st.just(Peers()),
    st.just(Whole()),
)


@given(any_message)
def test_round_trip(message):
    data = messages.encode(message)
    length, at = read_varint(data)
    assert length == len(data) - at == messages.body_length(data)
    assert messages.decode(data[at:]) == message


@given(st.binary(max_size=60))
def test_hostile_bytes_are_protocol_errors(data):
    with contextlib.suppress(RemoteProtocolError):
        messages.decode(data)


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**62), 2**62), st.binary(max_size=40), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
kinds = st.sampled_from(sorted(messages._READERS))


@given(kinds, plain)
def test_any_value_under_a_known_kind_is_a_message_or_a_protocol_error(kind, value):
    with contextlib.suppress(RemoteProtocolError):
        messages.decode(dag_cbor.encode({kind: value}))


def record(**changes):
    fields = {"digest": bytes(32), "size": 1, "root": bytes(make_block(b"x", 0x70).cid), "profile": "p", **changes}
    return {"records": [list(fields.values())]}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "map"),
        ({}, "one entry"),
        ({"resolve": [], "peers": []}, "one entry"),
        ({"gossip": []}, "not known"),
        ({"resolve": {}}, "not known"),
        ({"resolve": [b"short"]}, "32 bytes"),
        ({"resolve": [bytes(32)] * (MAX_ENTRIES + 1)}, "over the limit"),
        ({"follow": [bytes(32)] * 2}, "over the limit"),
        ({"leaves": [b"x"]}, "leaf"),
        ({"pulls": [[]]}, "two lists"),
        ({"records": [[]]}, "four parts"),
        (record(size=-1), "size"),
        (record(size=True), "size"),
        (record(size=messages.MAX_SIZE + 1), "size"),
        (record(root=b"\x02nonsense"), "root"),
        (record(root="text"), "root"),
        (record(profile="x" * 257), "profile"),
        ({"addresses": ["/ip4/1.2.3.4" * 40]}, "address"),
    ],
)
def test_named_refusals(value, why):
    with pytest.raises(RemoteProtocolError, match=why):
        messages.decode(dag_cbor.encode(value))


def test_deep_nesting_is_refused():
    with pytest.raises(RemoteProtocolError):
        messages.decode(b"\x81" * 100_000 + b"\x00")


@pytest.mark.parametrize("head", [b"\xff" * 9, b"\xff\xff\xff\xff\x7f", messages.write_varint(MAX_MESSAGE + 1)])
def test_lengths_that_are_too_long(head):
    with pytest.raises(RemoteProtocolError):
        messages.body_length(head)


def test_a_length_that_is_cut_off_waits():
    assert messages.body_length(b"") is None
    assert messages.body_length(b"\x80") is None
    assert messages.body_length(b"\x80\x01") == 128


def test_a_full_message_fits_its_limit():
    cid = Cid(bytes(make_block(b"x", 0x70).cid))
    full = [Record("sha256:" + "ab" * 32, messages.MAX_SIZE, cid, "x" * messages.MAX_TEXT)] * MAX_ENTRIES
    assert len(messages.encode(Announce(full))) <= MAX_MESSAGE
    assert len(messages.encode(Leaves([bytes(32)] * messages.MAX_LEAVES))) <= MAX_MESSAGE


def test_a_record_that_contradicts_itself():
    leaf = make_block(b"hello")
    digest = "sha256:" + leaf.cid[-32:].hex()
    assert Record(digest, 5, leaf.cid, "p").is_plausible()
    assert not Record("sha256:" + "00" * 32, 5, leaf.cid, "p").is_plausible()
    assert Record("sha256:" + "00" * 32, 5, leaf.cid, "p").contradicts_itself()
    assert Record("sha256:" + "00" * 32, 5, make_block(b"hello", 0x70).cid, "p").is_plausible()
    other_hash = Record(digest, 5, Cid(b"\x01\x70\x11\x14" + bytes(20)), "p")
    assert not other_hash.is_plausible()
    assert not other_hash.contradicts_itself(), "who hashes otherwise is of no use, but no liar"


@pytest.mark.parametrize("head", [b"\x7b", b"\x5b", b"\x9b", b"\xbb"])
def test_lengths_beyond_memory_are_protocol_errors(head):
    with pytest.raises(RemoteProtocolError):
        messages.decode(b"\xa1" + head + b"\xff" * 8)
