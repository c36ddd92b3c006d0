"""Messages come through whole, in pieces of any size, or not at all."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apftrace.batch.wire import Damaged, Decoder, Message, decode, read

MESSAGES = st.builds(
    Message,
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9) | st.none(), max_size=4),
    st.lists(st.binary(max_size=40), max_size=3).map(tuple),
)


@given(st.lists(MESSAGES, min_size=1, max_size=4), st.integers(1, 50))
def test_pieces_of_any_size(messages, step):
    stream = b"".join(message.encode() for message in messages)
    decoder, found = Decoder(), []
    for at in range(0, len(stream), step):
        found += decoder.feed(stream[at : at + step])
    assert found == messages
    blocking = io.BytesIO(stream)
    assert [read(blocking.read) for _ in messages] == messages
    assert read(blocking.read) is None


@given(MESSAGES, st.data())
def test_no_change_goes_unnoticed(message, data):
    frame = bytearray(message.encode())
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        decode(bytes(frame))


@given(MESSAGES, st.data())
def test_no_cut_goes_unnoticed(message, data):
    frame = message.encode()
    with pytest.raises(Damaged):
        decode(frame[: data.draw(st.integers(0, len(frame) - 1))])
