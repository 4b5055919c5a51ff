"""The hand-written messages against protobuf's own code for the same .proto, and against hostile bytes."""

import contextlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs.content import wire
from ipcs.content.descriptor import Info, Status
from ipcs.errors import InvalidArgument

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pb(tmp_path_factory):
    """protobuf's module for content.proto, compiled for this run."""
    import importlib.resources

    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("pb")
    wellknown = importlib.resources.files("grpc_tools") / "_proto"
    assert protoc.main(["protoc", f"-I{HERE}", f"-I{wellknown}", f"--python_out={out}", "content.proto"]) == 0
    sys.path.insert(0, str(out))
    import content_pb2

    yield content_pb2
    sys.path.remove(str(out))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
int64 = st.integers(-(2**63), 2**63 - 1)
naturals = st.integers(0, 2**63 - 1)
times = st.integers(0, 2**60)
label_maps = st.dictionaries(texts, texts, max_size=4)
infos = st.builds(Info, texts, naturals, times, times, label_maps)
statuses = st.builds(Status, texts, naturals, naturals, texts, times, times)
writes = st.builds(
    wire.WriteRequest,
    st.sampled_from(wire.WriteAction),
    texts,
    int64,
    texts,
    int64,
    st.binary(max_size=300),
    label_maps,
)


def ns(stamp):
    return stamp.seconds * 10**9 + stamp.nanos


def same_info(info, message):
    assert (info.digest, info.size, dict(info.labels)) == (message.digest, message.size, dict(message.labels))
    assert (info.created_at, info.updated_at) == (ns(message.created_at), ns(message.updated_at))


@given(infos, st.lists(texts, max_size=3))
def test_update_request(pb, info, paths):
    ours = pb.UpdateRequest.FromString(wire.encode_update_request(info, paths))
    same_info(info, ours.info)
    assert list(ours.update_mask.paths) == paths
    assert wire.decode_update_request(ours.SerializeToString()) == (info, paths)


@given(st.lists(infos, max_size=5), st.integers(1, 200))
def test_list_responses(pb, listed, limit):
    messages = [pb.ListContentResponse.FromString(data) for data in wire.encode_list(listed, limit)]
    theirs = [info for message in messages for info in message.info]
    assert len(theirs) == len(listed)
    for info, message in zip(listed, theirs, strict=True):
        same_info(info, message)
    assert all(message.info for message in messages), "an empty message is a wasted round"
    assert [i for m in messages for i in wire.decode_infos(m.SerializeToString())] == listed


@given(st.lists(statuses, max_size=3))
def test_statuses(pb, listed):
    theirs = pb.ListStatusesResponse.FromString(b"".join(map(wire.encode_status, listed))).statuses
    assert [(s.ref, s.offset, s.total, s.expected, ns(s.started_at), ns(s.updated_at)) for s in theirs] == [
        (s.ref, s.offset, s.total, s.expected, s.started_at, s.updated_at) for s in listed
    ]
    assert wire.decode_statuses(pb.ListStatusesResponse(statuses=theirs).SerializeToString()) == listed


@given(writes)
def test_write_request(pb, request_):
    theirs = pb.WriteContentRequest.FromString(wire.encode_write_request(request_))
    assert (theirs.action, theirs.ref, theirs.total, theirs.expected, theirs.offset) == (
        request_.action,
        request_.ref,
        request_.total,
        request_.expected,
        request_.offset,
    )
    assert (theirs.data, dict(theirs.labels)) == (request_.data, request_.labels)
    assert wire.decode_write_request(theirs.SerializeToString()) == request_


@given(st.sampled_from(wire.WriteAction), statuses, texts)
def test_write_response(pb, action, status, digest):
    status = Status("", status.offset, status.total, "", status.started_at, status.updated_at, digest)
    theirs = pb.WriteContentResponse.FromString(wire.encode_write(action, status))
    assert (theirs.action, theirs.offset, theirs.total, theirs.digest) == (action, status.offset, status.total, digest)
    assert (ns(theirs.started_at), ns(theirs.updated_at)) == (status.started_at, status.updated_at)
    assert wire.decode_write(theirs.SerializeToString()) == (action, status)


@given(texts, int64, int64)
def test_read_request(pb, digest, offset, size):
    request = wire.ReadRequest(digest, offset, size)
    theirs = pb.ReadContentRequest.FromString(wire.encode_read_request(request))
    assert (theirs.digest, theirs.offset, theirs.size) == (digest, offset, size)
    assert wire.decode_read_request(theirs.SerializeToString()) == request


@given(st.integers(0, 2**62), st.lists(st.binary(max_size=200), max_size=3))
def test_read_response_joins_its_parts(pb, offset, parts):
    theirs = pb.ReadContentResponse.FromString(wire.encode_read(offset, [memoryview(part) for part in parts]))
    assert (theirs.offset, theirs.data) == (offset, b"".join(parts))
    assert wire.decode_read(theirs.SerializeToString()) == b"".join(parts)


@given(st.lists(texts, max_size=3))
def test_filters(pb, filters):
    theirs = pb.ListContentRequest.FromString(wire.encode_filters(filters))
    assert list(theirs.filters) == filters
    assert wire.decode_filters(theirs.SerializeToString()) == filters


DECODERS = [
    wire.decode_digest_request,
    wire.decode_filters,
    wire.decode_update_request,
    wire.decode_read_request,
    wire.decode_write_request,
    wire.decode_infos,
    wire.decode_statuses,
]


@given(st.sampled_from(DECODERS), st.binary(max_size=80))
def test_hostile_bytes_raise_only_invalid_argument(decode, data):
    with contextlib.suppress(InvalidArgument):
        decode(data)


@given(writes, st.data())
def test_a_cut_message_is_refused_or_shorter(request_, data):
    whole = wire.encode_write_request(request_)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with contextlib.suppress(InvalidArgument):
        wire.decode_write_request(cut)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff" * 11, "varint"),
        (b"\x08", "varint"),
        (b"\x0a\x05ab", "inside a field"),
        (b"\x0b", "wire type 3"),
        (b"\x09\x01", "inside a field"),
        (b"\x08\x07", "action 7"),
        (b"\x12\x02\xff\xfe", "UTF-8"),
        (b"\x10\x01", "is a number"),
        (b"\x0a\x01x", "not a number"),
    ],
)
def test_named_refusals(data, why):
    with pytest.raises(InvalidArgument, match=why):
        wire.decode_write_request(data)


def test_unknown_fields_are_skipped():
    extra = b"\x79" + bytes(8) + b"\x7d" + bytes(4) + b"\x78\x05"
    assert wire.decode_digest_request(extra + wire.encode_digest_request("x") + extra) == "x"
