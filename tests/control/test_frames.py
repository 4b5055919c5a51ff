import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs.control.frames import decode, encode
from ipcs.errors import IpcsError, RemoteProtocolError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_a_document_comes_back(document):
    assert decode(encode(document)) == document


@given(st.binary())
def test_content_comes_back(content):
    assert decode(encode(content)) == content


def test_content_has_the_published_form():
    assert encode(b"hello") == b"\x12\x05hello"
    assert encode({"a": 1}) == b'\x0a\x07{"a":1}'


@pytest.mark.parametrize(
    "message", [b"", b"\x1a\x00", b"\x12\x05hell", b"\x12\x05hellos", b"\x0a\x02[]", b"\x0a\x01{", b"\x0a\x02\xff\xfe"]
)
def test_malformed_frames_are_refused(message):
    with pytest.raises(RemoteProtocolError):
        decode(message)


@given(st.binary(max_size=64))
def test_any_bytes_give_a_frame_or_a_named_error(message):
    with contextlib.suppress(IpcsError):
        decode(message)
