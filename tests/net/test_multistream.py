"""The short way through a negotiation says what the long one says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcs.net.interface import BITSWAP_PROTOCOLS
from ipcs.net.multistream import HEADER, Listener, message, opening

LONGEST = "/" + "x" * 125  # with its newline 127 bytes: the last length of one byte


@given(st.sampled_from(BITSWAP_PROTOCOLS), st.binary(max_size=300))
def test_a_known_protocol_and_the_block_behind_it(protocol, block):
    first = HEADER + message(protocol) + block
    found, size = opening(memoryview(first))
    listener = Listener(BITSWAP_PROTOCOLS)
    listener.receive(first)
    assert (found, first[size:]) == (listener.protocol, listener.rest()) == (protocol, block)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: HEADER + tail)))
def test_whatever_it_takes_for_a_protocol_a_listener_takes_for_the_same(first):
    protocol, size = opening(memoryview(first))
    if protocol:
        listener = Listener([protocol])
        assert listener.receive(first) == HEADER + message(protocol)
        assert listener.rest() == first[size:]


@pytest.mark.parametrize("protocol", ["/x", LONGEST])
@pytest.mark.parametrize("missing", [1, 2, 30])
def test_an_incomplete_opening_is_left_to_the_listener(protocol, missing):
    whole = HEADER + message(protocol)
    assert opening(memoryview(whole)) == (protocol, len(whole))
    assert opening(memoryview(whole)[:-missing]) == ("", 0)


@pytest.mark.parametrize(
    "first", [b"", HEADER, HEADER + b"\x00", HEADER + message(LONGEST + "x"), HEADER[:-1] + b"x" + message("/x")]
)
def test_what_is_not_so_simple_is_left_to_the_listener(first):
    assert opening(memoryview(first)) == ("", 0)
