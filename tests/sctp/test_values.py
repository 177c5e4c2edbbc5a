"""What users of SCTP hold: payload protocols, the timers and what is refused of them, whether there is SCTP here."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect import Endpoint
from trio_connect.sctp._values import Availability, Message, Path, Ppid, SctpTuning, check_seconds

TIMERS = ("rto_initial", "rto_min", "rto_max", "heartbeat")


def test_payload_protocols_are_the_numbers_of_their_registry() -> None:
    # IANA, SCTP Payload Protocol Identifiers.
    assert {ppid.name: int(ppid) for ppid in Ppid} == {
        "UNSPECIFIED": 0, "M3UA": 3, "SUA": 4, "M2PA": 5, "S1AP": 18, "X2AP": 27, "DIAMETER": 46, "DIAMETER_DTLS": 47,
        "NGAP": 60, "XNAP": 61, "F1AP": 62, "E1AP": 64,
    }  # fmt: skip


def test_a_message_and_a_path_have_defaults() -> None:
    assert Message(b"x") == Message(b"x", stream=0, ppid=0, unordered=False, tsn=0)
    endpoint = Endpoint("192.0.2.1", 3868)
    assert Path(endpoint, "active") == Path(endpoint, "active", srtt=0.0, rto=0.0, mtu=0)


def test_availability_is_true_or_says_why_not() -> None:
    assert Availability(ok=True)
    assert not Availability(ok=False, reason="no module")


def test_timers_are_left_to_the_system_unless_they_are_set() -> None:
    tuning = SctpTuning()
    assert [getattr(tuning, name) for name in (*TIMERS, "path_max_retrans")] == [None] * 5
    assert tuning.shutdown == 2.0


@pytest.mark.parametrize("name", TIMERS)
@given(st.floats(0.001, 86_400) | st.integers(1, 86_400))
def test_a_timer_is_a_millisecond_to_a_day(name: str, seconds: float) -> None:
    assert getattr(SctpTuning(**{name: seconds}), name) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*TIMERS, "shutdown"])
@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, 86_401, 10**400])
def test_a_timer_out_of_range_is_refused_with_its_name(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be "):
        SctpTuning(**{name: wrong})


@pytest.mark.parametrize("name", [*TIMERS, "shutdown"])
@pytest.mark.parametrize("wrong", [True, "1", b"2", [1]])
def test_a_timer_that_is_not_a_number_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(f"{name} must be a number of seconds, got {wrong!r}")):
        SctpTuning(**{name: wrong})


def test_only_the_bound_of_closing_may_be_zero() -> None:
    assert SctpTuning(shutdown=0).shutdown == 0
    with pytest.raises(ValueError, match=r"rto_min must be 0\.001 to 86400 seconds, got 0"):
        SctpTuning(rto_min=0)


@given(st.integers(1, 0xFFFF))
def test_retransmissions_are_16_bits(number: int) -> None:
    assert SctpTuning(path_max_retrans=number).path_max_retrans == number


@pytest.mark.parametrize(
    ("wrong", "error"), [(0, ValueError), (65536, ValueError), (True, TypeError), (1.0, TypeError)]
)
def test_other_retransmissions_are_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="path_max_retrans must be"):
        SctpTuning(path_max_retrans=wrong)


@given(st.floats(0.001, 86_400), st.floats(0.001, 86_400))
def test_the_least_time_out_is_not_above_the_greatest(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert SctpTuning(rto_min=low, rto_max=high).rto_max == high
    if low < high:
        with pytest.raises(ValueError, match="rto_min must not be above rto_max"):
            SctpTuning(rto_min=high, rto_max=low)


def test_seconds_are_returned_as_they_were_given() -> None:
    assert check_seconds(0.25, "attempt_delay", 0.01, 30) == 0.25
    with pytest.raises(ValueError, match=r"attempt_delay must be 0\.01 to 30 seconds, got 250"):
        check_seconds(250, "attempt_delay", 0.01, 30)
