"""Pieces in, messages out, beside an oracle that joins them all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect.sctp._reassembly import MAX_MESSAGE, MessageTooLong, Reassembly
from trio_connect.sctp._values import Message
from trio_connect.sctp._wire import ReceiveInfo

INFO = ReceiveInfo(stream=3, ppid=60, unordered=False, tsn=7)


def test_one_piece_is_a_message_as_it_is() -> None:
    data = b"whole"
    message = Reassembly().add(data, INFO, end=True)
    assert message == Message(b"whole", 3, 60, unordered=False, tsn=7)
    assert message is not None
    assert message.data is data


@given(st.lists(st.lists(st.binary(max_size=9), min_size=1, max_size=5), max_size=6))
def test_pieces_are_joined_up_to_their_end_and_the_last_says_what_they_are(messages: list[list[bytes]]) -> None:
    reassembly = Reassembly(limit=50)
    for number, pieces in enumerate(messages):
        *others, last = pieces
        for piece in others:
            assert reassembly.add(piece, ReceiveInfo(9, 9, unordered=True, tsn=0), end=False) is None
        info = ReceiveInfo(number, 46, unordered=True, tsn=number + 1)
        message = reassembly.add(last, info, end=True)
        assert message == Message(b"".join(pieces), number, 46, unordered=True, tsn=number + 1)


def test_a_message_may_have_as_many_bytes_as_the_limit_says() -> None:
    reassembly = Reassembly(limit=10)
    assert reassembly.add(b"12345", INFO, end=False) is None
    message = reassembly.add(b"67890", INFO, end=True)
    assert message is not None
    assert message.data == b"1234567890"


@pytest.mark.parametrize("end", [False, True])
def test_a_message_with_one_byte_more_is_refused_and_forgotten(*, end: bool) -> None:
    reassembly = Reassembly(limit=10)
    assert reassembly.add(b"12345", INFO, end=False) is None
    with pytest.raises(MessageTooLong, match="more than 10 bytes"):
        reassembly.add(b"678901", INFO, end=end)
    message = reassembly.add(b"new", INFO, end=True)
    assert message is not None
    assert message.data == b"new"


def test_what_will_not_be_completed_is_forgotten() -> None:
    reassembly = Reassembly()
    assert reassembly.add(b"half", INFO, end=False) is None
    reassembly.forget()
    message = reassembly.add(b"other", INFO, end=True)
    assert message is not None
    assert message.data == b"other"


def test_the_limit_is_16_mib() -> None:
    assert MAX_MESSAGE == 16 * 1024 * 1024
