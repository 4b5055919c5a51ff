"""The wire form: bytes from the specification and from Go, other protobuf code, any chunking, any garbage."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.bitswap.pb import bitswap_pb2

from ipcs.bitswap.decoder import MessageDecoder
from ipcs.bitswap.fields import parse_any_entry, parse_common_entry
from ipcs.bitswap.limits import MAX_ENTRIES_PER_MESSAGE, MAX_MESSAGE_SIZE
from ipcs.bitswap.message import PRIORITY_MAX, Entry, Message, WireBlock, encode
from ipcs.bitswap.network import PROTOCOLS
from ipcs.bitswap.verify import cid_of, may_want
from ipcs.block import prefix_of
from ipcs.cid import DAG_PB, RAW, Cid, cid_v1, sha256_multihash, write_varint
from ipcs.errors import LocalProtocolError, RemoteProtocolError
from ipcs.hashes import multihash

V12, V11, V10, _ = PROTOCOLS
HELLO = b"hello world"
DIGEST = hashlib.sha256(HELLO).digest()
RAW_CID = cid_v1(RAW, sha256_multihash(DIGEST))
V0_CID = Cid(sha256_multihash(DIGEST))
CID_HEX = "01551220" + DIGEST.hex()


def wire(message, protocol=V12):
    return b"".join(encode(message, protocol))


def decode(data, step=None):
    decoder = MessageDecoder()
    step = step or len(data)
    messages = []
    for at in range(0, len(data), step):
        messages += decoder.feed(memoryview(data)[at : at + step])
    return messages, decoder


def plain(message):
    blocks = [(block.prefix, bytes(block.data)) for block in message.blocks]
    return (
        list(message.entries),
        message.full,
        blocks,
        message.haves,
        message.dont_haves,
        message.pending_bytes,
    )


def joined(messages):
    """Everything that `messages` say, in order; a block may come in a message of its own."""
    return [[thing for message in messages for thing in plain(message)[part]] for part in (0, 2, 3, 4)]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            Message([Entry(RAW_CID, PRIORITY_MAX, want_have=True, send_dont_have=True)]),
            f"340a320a300a24{CID_HEX}10ffffffff0720012801",
        ),
        (Message([Entry(RAW_CID, cancel=True)]), f"2c0a2a0a280a24{CID_HEX}1801"),
        (
            Message(blocks=[WireBlock(prefix_of(RAW_CID), HELLO)]),
            "170a001a130a0401551220120b68656c6c6f20776f726c64",
        ),
        (Message(dont_haves=[RAW_CID]), f"2c0a0022280a24{CID_HEX}1001"),
        (Message(haves=[RAW_CID]), f"2a0a0022260a24{CID_HEX}"),
    ],
    ids=["want-have", "cancel", "block", "DONT_HAVE", "HAVE"],
)
def test_bytes_of_the_reference_document(message, expected):
    assert wire(message).hex() == expected
    (read,), decoder = decode(bytes.fromhex(expected))
    assert decoder.between_messages
    assert plain(read)[2:] == plain(message)[2:]
    assert [(e.cid, e.cancel, e.want_have, e.send_dont_have) for e in read.entries] == [
        (e.cid, e.cancel, e.want_have, e.send_dont_have) for e in message.entries
    ]


def test_a_message_that_go_wrote():
    fixtures = os.environ.get("IPCS_FIXTURES")
    if fixtures is None:
        pytest.skip("IPCS_FIXTURES is not set: the vectors that other implementations wrote were not checked")
    (vector,) = json.loads((Path(fixtures) / "vectors" / "bitswap_wire.json").read_text())
    (read,), decoder = decode(bytes.fromhex(vector["hex"]))
    assert decoder.between_messages
    assert read.full is vector["full"]
    assert [(e.cid.hex(), e.priority, e.cancel) for e in read.entries] == [
        (e["cidHex"], e["priority"], bool(e["cancel"])) for e in vector["entries"]
    ]


cids = st.builds(
    lambda digest, kind: kind(digest),
    st.binary(min_size=32, max_size=32),
    st.sampled_from(
        [
            lambda digest: Cid(sha256_multihash(digest)),
            lambda digest: cid_v1(RAW, sha256_multihash(digest)),
            lambda digest: cid_v1(DAG_PB, sha256_multihash(digest)),
            lambda digest: cid_v1(0x0129, write_varint(0xB220) + b"\x20" + digest),
        ]
    ),
)
entries = st.lists(
    st.builds(
        Entry,
        cids,
        st.integers(-(2**31), 2**31 - 1).filter(bool),
        st.just(False),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda entry: entry.cid,
    max_size=4,
)
blocks = st.lists(
    st.builds(lambda cid, data: WireBlock(prefix_of(cid), data), cids, st.binary(max_size=300)),
    max_size=3,
)
messages = st.builds(
    Message,
    entries,
    st.booleans(),
    blocks,
    st.lists(cids, max_size=3),
    st.lists(cids, max_size=3),
    st.integers(0, 2**31 - 1),
)


@settings(deadline=None)
@given(st.lists(messages, min_size=1, max_size=3), st.integers(1, 64))
def test_any_chunking_gives_the_same_messages(sent, step):
    data = b"".join(wire(message) for message in sent)
    whole, _ = decode(data)
    pieces, decoder = decode(data, step)
    assert decoder.between_messages
    assert [plain(message) for message in whole] == [plain(message) for message in sent]
    assert joined(pieces) == joined(whole)


ends = st.sampled_from([b"", b"\x18\x01", b"\x20\x01", b"\x28\x01", b"\x20\x01\x28\x01"]) | st.binary(max_size=8)
priorities = st.just(b"") | st.integers(0, 2**64 - 1).map(lambda value: b"\x10" + write_varint(value))


@settings(deadline=None)
@given(priorities, ends, st.integers(0, 50), st.binary(max_size=4))
def test_the_quick_way_to_read_an_entry_agrees_with_the_general_one(priority, end, cut, behind):
    entry = b"\x0a\x24" + RAW_CID + priority + end
    data, stop = entry + behind, len(entry) - min(cut, len(entry)) if cut % 2 else len(entry)
    quick = parse_common_entry(data, 0, stop)
    if quick is not None:
        assert quick == parse_any_entry(data, 0, stop)


def test_the_entries_of_boxo_and_ours_are_read_the_quick_way():
    for entry in (
        Entry(RAW_CID, 0, cancel=True),
        Entry(RAW_CID, want_have=True, send_dont_have=True),
        Entry(RAW_CID, send_dont_have=True),
        Entry(RAW_CID, 1),
    ):
        data = wire(Message([entry]))[5:]  # behind the lengths of message, wantlist and entry
        assert parse_common_entry(data, 0, len(data)) == entry


@settings(deadline=None)
@given(messages)
def test_another_protobuf_implementation_reads_what_we_write(message):
    data = wire(message)
    size, at = 0, 0
    for at, byte in enumerate(data):
        size |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            break
    assert size == len(data) - at - 1
    read = bitswap_pb2.Message.FromString(data[at + 1 :])
    assert read.HasField("wantlist")
    assert [(e.block, e.priority, e.wantType == 1, e.sendDontHave) for e in read.wantlist.entries] == [
        (e.cid, e.priority, e.want_have, e.send_dont_have) for e in message.entries
    ]
    assert read.wantlist.full == message.full
    assert [(block.prefix, block.data) for block in read.payload] == [tuple(block) for block in message.blocks]
    held = [(presence.cid, presence.type) for presence in read.blockPresences]
    assert held == [(cid, 0) for cid in message.haves] + [(cid, 1) for cid in message.dont_haves]


@settings(deadline=None)
@given(messages)
def test_we_read_what_another_protobuf_implementation_writes(message):
    other = bitswap_pb2.Message()
    other.wantlist.full = message.full
    for entry in message.entries:
        written = other.wantlist.entries.add()
        written.block, written.priority = entry.cid, entry.priority
        written.wantType, written.sendDontHave = int(entry.want_have), entry.send_dont_have
    for prefix, data in message.blocks:
        other.payload.add(prefix=prefix, data=data)
    for cid in message.haves:
        other.blockPresences.add(cid=cid, type=0)
    for cid in message.dont_haves:
        other.blockPresences.add(cid=cid, type=1)
    other.pendingBytes = message.pending_bytes
    body = other.SerializeToString()
    (read,), _ = decode(write_varint(len(body)) + body)
    assert plain(read) == plain(message)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 50))
def test_garbage_is_refused_by_name_or_skipped(data, step):
    try:
        decode(write_varint(len(data)) + data, step)
    except RemoteProtocolError:
        return


def field(key, body):
    return bytes([key]) + write_varint(len(body)) + body


def framed(body):
    return write_varint(len(body)) + body


def test_entries_of_one_cid_are_merged():
    def entry(*extra):
        return field(0x0A, field(0x0A, RAW_CID) + bytes(extra))

    body = entry(0x10, 5, 0x20, 1, 0x28, 1) + entry(0x10, 9) + entry(0x10, 3, 0x20, 1)
    (read,), _ = decode(framed(field(0x0A, body)))
    assert read.entries == [Entry(RAW_CID, 5, want_have=False, send_dont_have=True)]
    (read,), _ = decode(framed(field(0x0A, entry(0x10, 5) + entry(0x18, 1))))
    assert read.entries == [Entry(RAW_CID, 0, cancel=True)]


def test_unknown_fields_types_and_negative_numbers():
    unknown = b"\x58\x07" + b"\x61" + bytes(8) + b"\x6d" + bytes(4) + field(0x72, b"later")
    want = field(0x0A, unknown + field(0x0A, RAW_CID) + b"\x10" + b"\xff" * 9 + b"\x01" + b"\x20\x02" + unknown)
    (read,), _ = decode(framed(unknown + field(0x0A, want + unknown) + unknown), 3)
    assert read.entries == [Entry(RAW_CID, -1, want_have=True)]


@pytest.mark.parametrize(
    "cid",
    [
        Cid(b"\x01\x55" + write_varint(0x1E) + write_varint(129) + bytes(129) + bytes(36)),
        Cid(b"\x01\x55\x00" + write_varint(11) + HELLO),
    ],
    ids=["longer than 168 bytes", "identity"],
)
def test_cids_that_are_ignored(cid):
    want = field(0x0A, field(0x0A, cid))
    (read,), _ = decode(framed(field(0x0A, want + field(0x0A, field(0x0A, RAW_CID))) + field(0x22, field(0x0A, cid))))
    assert [entry.cid for entry in read.entries] == [RAW_CID]
    assert read.haves == []


@pytest.mark.parametrize(
    "body",
    [
        field(0x0A, field(0x0A, b"")),
        field(0x0A, field(0x0A, field(0x0A, b""))),
        field(0x0A, field(0x0A, field(0x0A, b"\x01\x55\x12\x20short"))),
        field(0x22, b""),
        b"\x0b",
        b"\x0a\x05abc",
        b"\x1a\x05\x12\x09abc",
        b"\x1a\x02\x12",
        field(0x1A, field(0x0A, bytes(41))),
        b"\x08" + b"\xff" * 11,
        b"\x61" + bytes(7),
    ],
    ids=[
        "a want without a CID",
        "an empty CID",
        "a CID cut short",
        "a presence without a CID",
        "a group",
        "a field longer than the message",
        "a field longer than its block",
        "a block that ends in a header",
        "a prefix of 41 bytes",
        "a varint without end",
        "a fixed64 cut short",
    ],
)
@pytest.mark.parametrize("step", [None, 1])
def test_malformed_messages_are_refused(body, step):
    with pytest.raises(RemoteProtocolError):
        decode(framed(body), step)


def test_message_size_limit_is_inclusive():
    message = Message(blocks=[WireBlock(prefix_of(RAW_CID), bytes(4_194_286))])
    data = wire(message)
    (read,), _ = decode(data, 65536)
    assert len(read.blocks[0].data) == 4_194_286
    with pytest.raises(LocalProtocolError):
        wire(Message(blocks=[WireBlock(prefix_of(RAW_CID), bytes(4_194_287))]))
    for length in (MAX_MESSAGE_SIZE + 1, 2**63 - 1):
        with pytest.raises(RemoteProtocolError):
            MessageDecoder().feed(memoryview(write_varint(length)))
    with pytest.raises(RemoteProtocolError):
        MessageDecoder().feed(memoryview(b"\x80" * 10))


def test_nothing_is_allocated_because_a_prefix_says_so():
    decoder = MessageDecoder()
    head = write_varint(MAX_MESSAGE_SIZE) + b"\x0a\x00\x1a" + write_varint(MAX_MESSAGE_SIZE - 20)
    decoder.feed(memoryview(head + b"\x12" + write_varint(MAX_MESSAGE_SIZE - 40) + bytes(1000)))
    assert decoder.held == 1000
    assert decoder.allocated <= 4 * 1000
    decoder.feed(memoryview(bytes(2_000_000)))
    assert decoder.allocated <= 4 * 2_001_000


def test_too_many_entries_are_refused():
    entry = field(0x0A, field(0x0A, RAW_CID))
    presence = field(0x22, field(0x0A, RAW_CID))
    for body in (field(0x0A, entry * (MAX_ENTRIES_PER_MESSAGE + 1)), presence * (MAX_ENTRIES_PER_MESSAGE + 1)):
        with pytest.raises(RemoteProtocolError):
            decode(framed(body))


def test_form_follows_the_protocol_of_the_stream():
    message = Message(
        [Entry(RAW_CID, 7, want_have=True), Entry(V0_CID, 8, send_dont_have=True)],
        blocks=[WireBlock(prefix_of(RAW_CID), HELLO), WireBlock(prefix_of(V0_CID), HELLO)],
        haves=[RAW_CID],
    )
    (new,), _ = decode(wire(message, V11))
    assert plain(new) == ([Entry(V0_CID, 8)], False, [tuple(block) for block in message.blocks], [], [], 0)
    (old,), _ = decode(wire(message, V10))
    assert plain(old) == ([Entry(V0_CID, 8)], False, [(b"", HELLO)], [], [], 0)
    for protocol in PROTOCOLS:
        assert wire(Message(), protocol) == b"\x02\x0a\x00"


def test_the_cid_is_rebuilt_from_prefix_and_bytes():
    assert cid_of(prefix_of(RAW_CID), HELLO) == RAW_CID
    assert cid_of(prefix_of(V0_CID), HELLO) == V0_CID
    assert cid_of(b"", HELLO) == V0_CID
    blake = cid_v1(RAW, multihash(0xB220, HELLO))
    assert prefix_of(blake).hex() == "0155a0e40220"
    assert cid_of(prefix_of(blake), HELLO) == blake
    cut = cid_v1(RAW, multihash(0x13, HELLO, 20))
    assert cid_of(prefix_of(cut), HELLO) == cut
    for refused in ("0155120a", "01550010", "0155d50110", "0255122000", "015512", "0155128080808080808080808001"):
        assert cid_of(bytes.fromhex(refused), HELLO) is None


def test_which_cids_may_be_wanted():
    assert may_want(RAW_CID)
    assert may_want(V0_CID)
    for refused in ("01550000", "0155d50110" + "00" * 16, "01551210" + "00" * 16):
        assert not may_want(Cid(bytes.fromhex(refused)))
