"""The identify codec and its bounds."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.identity.identify.pb.identify_pb2 import Identify as StockIdentify

from ipcs.cid import write_varint
from ipcs.errors import LimitExceeded, RemoteProtocolError
from ipcs.net import identify
from ipcs.net.identify import MAX_ADDRESSES, MAX_BYTES, MAX_PROTOCOLS, MAX_TEXT, Identify, decode, encode

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=40)


@given(
    st.builds(
        Identify,
        agent=TEXT,
        protocol_version=TEXT,
        protocols=st.lists(TEXT.filter(bool), max_size=8, unique=True).map(tuple),
        listen_addresses=st.lists(st.binary(min_size=1, max_size=30), max_size=8, unique=True).map(tuple),
        observed_address=st.binary(max_size=30),
        public_key=st.binary(min_size=1, max_size=40),
    )
)
def test_round_trip_and_agreement_with_protobuf(message):
    data = encode(message)
    assert decode(data) == message
    stock = StockIdentify.FromString(data[len(write_varint(len(data))) :] if len(data) > 128 else data[1:])
    assert stock.agent_version == message.agent
    assert tuple(stock.protocols) == message.protocols
    assert tuple(stock.listen_addrs) == message.listen_addresses
    assert stock.public_key == message.public_key


def test_messages_on_one_stream_are_merged():
    first = encode(Identify(agent="a", protocols=("/x", "/y")))
    second = encode(Identify(protocols=("/y", "/z"), public_key=b"k"))
    assert decode(first + second) == Identify(agent="a", protocols=("/x", "/y", "/z"), public_key=b"k")


def field(number, value):
    return write_varint(number << 3 | 2) + write_varint(len(value)) + value


def message(*fields):
    body = b"".join(fields)
    return write_varint(len(body)) + body


def test_a_flood_of_protocols_and_addresses_is_cut():
    flood = message(*(field(3, b"/%d" % i) for i in range(1000))) + message(
        *(field(2, i.to_bytes(2, "big")) for i in range(1500))
    )
    assert len(flood) < MAX_BYTES
    told = decode(flood)
    assert len(told.protocols) == MAX_PROTOCOLS
    assert len(told.listen_addresses) == MAX_ADDRESSES


def test_long_and_dangerous_texts_are_made_harmless():
    told = decode(message(field(6, b"\x1b[2J" + b"A" * 5000), field(3, b"/" + b"p" * MAX_TEXT)))
    assert len(told.agent) == MAX_TEXT
    assert told.agent.startswith("\N{REPLACEMENT CHARACTER}[2J")
    assert told.protocols == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05ab",
        write_varint(identify.MAX_MESSAGE + 1) + bytes(identify.MAX_MESSAGE + 1),
        write_varint(2**62),
        b"\xff" * 12,
        message() * (identify.MAX_MESSAGES + 1),
        message(b"\x0b"),
        message(b"\x0a\x7f"),
    ],
    ids=["empty", "cut", "too long", "2^62", "endless varint", "too many", "wire type", "field cut"],
)
def test_malformed_streams(data):
    with pytest.raises(RemoteProtocolError, match="identify"):
        decode(data)


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_the_peers_fault(data):
    with contextlib.suppress(RemoteProtocolError):
        decode(data)


def test_our_own_description_has_to_fit():
    with pytest.raises(LimitExceeded):
        encode(Identify(protocols=tuple(f"/{i}/" + "x" * 100 for i in range(100))))
