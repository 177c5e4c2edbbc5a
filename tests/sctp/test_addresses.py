"""Which addresses an association may have, and which of them has refused."""

from __future__ import annotations

import errno

import pytest

from trio_connect import Endpoint
from trio_connect.sctp._addresses import distinct, is_refusal, is_same_address, one_port, refuser

A, B, C = Endpoint("192.0.2.1", 3868), Endpoint("192.0.2.2", 3868), Endpoint("2001:db8::1", 3868)


def test_an_address_that_is_named_twice_is_there_once_and_keeps_its_first_place() -> None:
    mapped = Endpoint("::ffff:192.0.2.1", 3868)
    assert distinct([A, B, mapped, C, B]) == (A, B, C)
    assert distinct([mapped, A]) == (mapped,)
    assert distinct([Endpoint("fe80::1", 1, 1), Endpoint("fe80::1", 1, 2)]) == (
        Endpoint("fe80::1", 1, 1), Endpoint("fe80::1", 1, 2),
    )  # fmt: skip


def test_ports_make_no_other_address() -> None:
    assert is_same_address(A, Endpoint("::ffff:192.0.2.1", 1))
    assert not is_same_address(A, B)


def test_a_peer_has_one_port() -> None:
    assert one_port([A, B, C]) == 3868
    with pytest.raises(ValueError, match="the addresses of one SCTP peer have one port, got 3868, 3869"):
        one_port([A, Endpoint("192.0.2.2", 3869)])


def test_the_refuser_is_the_one_whose_turn_it_was() -> None:
    assert [refuser((A, B, C), elapsed, 0.2) for elapsed in (0.0, 0.19, 0.21, 0.45, 0.65)] == [0, 0, 1, 2, 0]
    assert [is_refusal(code) for code in (errno.ECONNREFUSED, errno.ENOPROTOOPT, errno.EHOSTUNREACH)] == [
        True, True, False,
    ]  # fmt: skip
