"""The race engine, as conversations: what is told, at what time, and everything that comes out.

Tests named after a line prove that line of the conformance checklist.
"""

from __future__ import annotations

import errno
from itertools import permutations
from math import inf, nan
from socket import AF_INET, AF_INET6
from typing import Any, cast

import attrs
import pytest

from trio_connect._endpoint import Endpoint, Source
from trio_connect._engine.facts import ILLEGAL, LATE, IllegalFact
from trio_connect._engine.history import FAILED, FINE, SLOW, Limits, Memory
from trio_connect._engine.race import MAX_RACED, Race
from trio_connect._engine.race_memory import RaceMemory
from trio_connect._engine.race_schedule import Schedule
from trio_connect._engine.race_table import (
    ATTEMPT_DECISIONS,
    ATTEMPT_FACTS,
    RACE_DECISIONS,
    RACE_FACTS,
    Abandon,
    Candidate,
    Command,
    Exhausted,
    Start,
    Won,
)
from trio_connect._engine.race_tries import Try
from trio_connect._policy import DEFAULT_POLICY, MIN_ATTEMPT_DELAY, Adaptive, RacePolicy, check_policy
from trio_connect._report import Attempt


def peer(host: str, source: Source | None = None) -> Candidate:
    return (source, Endpoint(host, 443))


A, B, C, D, E, F = (peer(f"192.0.2.{n}") for n in range(1, 7))
V6 = peer("2001:db8::1")
NEAR, NEAR6, NEARER = peer("127.0.0.1"), peer("::1"), peer("127.1.2.3")


def at_0(*candidates: Candidate, more: bool = False, **policy: Any) -> Race:
    """A race that began at 0, with its first start behind it."""
    race = Race(RacePolicy(**policy), 0.0, candidates, more=more)
    assert race.tick(0.0) == [Start(0, candidates[0], "first")]
    return race


def refused(race: Race, attempt: int, now: float) -> list[Command]:
    return race.failed(attempt, now, phase="connect", errno=errno.ECONNREFUSED, reason="connection refused")


def unsent(race: Race, attempt: int, now: float) -> list[Command]:
    return race.failed(attempt, now, phase="connect", errno=errno.ENETUNREACH, emitted=False)


def ran_out(race: Race, attempt: int, now: float, code: int = errno.EMFILE) -> list[Command]:
    return race.failed(attempt, now, phase="socket", errno=code, emitted=False, reason="too many open files")


def quiet(race: Race, until: float) -> None:
    """Check that ticks before a point in time, which must be the deadline, do nothing."""
    assert race.deadline == until
    assert race.tick(until - 0.001) == []


def outcomes(race: Race) -> list[str]:
    return [row.outcome for row in race.records()]


# The schedule


def test_line_44_the_default_delay_is_250_ms():
    race = at_0(A, B)
    quiet(race, 0.250)
    assert race.tick(0.250) == [Start(1, B, "delay")]


def test_line_42_one_start_per_timer_firing():
    race = at_0(A, B, C, D)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert race.tick(0.25) == []
    assert race.tick(0.5) == [Start(2, C, "delay")]
    assert race.tick(0.5) == []


def test_line_42_a_timer_that_fires_late_makes_one_start_and_shifts_nothing():
    race = at_0(A, B, C, D)
    assert race.tick(0.270) == [Start(1, B, "delay")]
    quiet(race, 0.5)
    assert race.tick(0.5) == [Start(2, C, "delay")]
    quiet(race, 0.75)


def test_line_42_a_stall_of_a_whole_delay_begins_the_schedule_anew():
    race = at_0(A, B, C, D)
    assert race.tick(1.0) == [Start(1, B, "delay")]
    quiet(race, 1.25)
    assert race.tick(1.25) == [Start(2, C, "delay")]
    # One delay late to the instant is a stall, too: C's successor would be due now.
    assert race.tick(1.75) == [Start(3, D, "delay")]
    race = at_0(A, B, C, attempt_timeout=inf)
    assert race.tick(0.5) == [Start(1, B, "delay")]
    quiet(race, 0.75)


def test_line_43_a_start_leaves_earlier_attempts_running():
    race = at_0(A, B)
    race.tick(0.25)
    assert race.succeeded(0, 0.3) == [Abandon(1, "lost"), Won(0)]


def test_line_75_a_slow_attempt_is_not_ended_by_any_number_of_starts():
    race = at_0(A, B, C, D)
    for n in (1, 2, 3):
        assert race.tick(n * 0.25) == [Start(n, (A, B, C, D)[n], "delay")]
    assert race.succeeded(0, 9.9) == [Abandon(1, "lost"), Abandon(2, "lost"), Abandon(3, "lost"), Won(0)]


def test_line_50_the_timer_is_armed_by_each_start_and_off_at_the_end_of_the_list():
    race = at_0(A, B, attempt_timeout=inf)
    assert race.deadline == 0.25
    race.tick(0.25)
    assert race.deadline == inf
    race = at_0(A, attempt_delay=0.1, attempt_timeout=5.0)
    assert race.deadline == 5.0


def test_line_82_an_infinite_delay_means_one_at_a_time():
    race = at_0(A, B, C, attempt_delay=inf, attempt_timeout=inf)
    assert race.deadline == inf
    assert race.tick(1000.0) == []
    assert refused(race, 0, 1000.0) == [Start(1, B, "failure")]
    assert race.deadline == inf
    assert refused(race, 1, 1001.0) == [Start(2, C, "failure")]


def test_line_82_one_at_a_time_goes_on_after_a_time_out():
    race = at_0(A, B, attempt_delay=inf, attempt_timeout=2.0)
    quiet(race, 2.0)
    assert race.tick(2.0) == [Abandon(0, "attempt_timeout"), Start(1, B, "failure")]


def test_line_82_a_delay_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"attempt_delay must be at least 0\.01 seconds .*, got 0$"):
        RacePolicy(attempt_delay=0)


# Failures


def test_a_failure_starts_the_next_at_once_and_the_schedule_goes_on_from_there():
    race = at_0(A, B, C)
    assert refused(race, 0, 0.1) == [Start(1, B, "failure")]
    quiet(race, 0.35)
    assert race.tick(0.35) == [Start(2, C, "delay")]


def test_the_failure_of_an_older_attempt_starts_the_next_too():
    race = at_0(A, B, C)
    race.tick(0.25)
    assert refused(race, 0, 0.3) == [Start(2, C, "failure")]


def test_line_45_a_failure_within_10_ms_of_a_start_waits_for_the_floor():
    race = at_0(A, B, C)
    assert refused(race, 0, 0.001) == []
    quiet(race, 0.010)
    assert race.tick(0.010) == [Start(1, B, "failure")]
    assert refused(race, 1, 0.011) == []
    quiet(race, 0.020)
    assert race.tick(0.020) == [Start(2, C, "failure")]


def test_line_45_the_floor_counts_from_the_start_itself_when_the_timer_was_late():
    race = at_0(A, B, C)
    assert race.tick(0.495) == [Start(1, B, "delay")]
    quiet(race, 0.495 + MIN_ATTEMPT_DELAY)
    assert race.tick(0.505) == [Start(2, C, "delay")]


def test_line_45_the_schedule_goes_on_from_the_floor():
    race = at_0(A, B, C)
    refused(race, 0, 0.001)
    assert race.tick(0.013) == [Start(1, B, "failure")]
    assert race.deadline == 0.260


@pytest.mark.parametrize("near", [NEAR, NEAR6, NEARER])
def test_line_45_an_attempt_to_loopback_does_not_set_the_floor(near: Candidate):
    race = at_0(near, A, B)
    assert refused(race, 0, 0.0) == [Start(1, A, "failure")]
    assert refused(race, 1, 0.0) == []
    assert race.deadline == 0.010


@pytest.mark.parametrize("host", ["128.0.0.1", "12.7.0.1", "::2", "2001:db8::127", "::ffff:127.0.0.1"])
def test_line_45_an_attempt_to_anywhere_else_does(host: str):
    race = at_0(peer(host), A)
    assert refused(race, 0, 0.0) == []
    assert race.deadline == 0.010


def test_line_45_loopback_waits_for_the_floor_that_another_set():
    race = at_0(A, NEAR, NEAR6)
    assert refused(race, 0, 0.004) == []
    assert race.tick(0.010) == [Start(1, NEAR, "failure")]
    assert refused(race, 1, 0.011) == [Start(2, NEAR6, "failure")]


def test_line_45_an_attempt_that_sent_nothing_does_not_set_the_floor():
    race = at_0(A, B, C)
    assert unsent(race, 0, 0.0) == [Start(1, B, "failure")]
    assert unsent(race, 1, 0.0) == [Start(2, C, "failure")]


def test_line_45_an_attempt_that_sent_nothing_leaves_the_floor_of_a_later_one():
    race = at_0(A, B, C)
    race.tick(0.25)
    assert unsent(race, 0, 0.252) == []
    quiet(race, 0.260)
    assert race.tick(0.260) == [Start(2, C, "failure")]


def test_line_45_a_loopback_attempt_that_sent_nothing_changes_no_floor():
    race = at_0(A, NEAR, B)
    refused(race, 0, 0.004)
    race.tick(0.010)
    assert unsent(race, 1, 0.010) == [Start(2, B, "failure")]


def test_failures_before_the_next_start_open_one_gate():
    race = at_0(A, B, C, D)
    race.tick(0.25)
    assert refused(race, 1, 0.252) == []
    assert refused(race, 0, 0.254) == []
    quiet(race, 0.260)
    assert race.tick(0.260) == [Start(2, C, "failure")]
    quiet(race, 0.510)


def test_failures_of_one_instant_open_one_gate():
    race = at_0(A, B, C, D)
    race.tick(0.25)
    assert refused(race, 1, 0.5 - 0.1) == [Start(2, C, "failure")]
    assert refused(race, 0, 0.5 - 0.1) == []
    quiet(race, 0.65)


def test_a_failure_when_a_start_is_due_makes_one_start():
    race = at_0(A, B, C)
    assert refused(race, 0, 0.25) == [Start(1, B, "delay")]
    quiet(race, 0.5)


def test_a_failure_just_after_the_timer_has_fired_makes_one_start():
    race = at_0(A, B, C)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert refused(race, 0, 0.25) == []
    quiet(race, 0.5)


def test_an_attempt_that_fails_in_the_instant_of_its_start_opens_the_gate():
    race = at_0(NEAR, NEAR6, A)
    assert race.tick(0.25) == [Start(1, NEAR6, "delay")]
    assert refused(race, 1, 0.25) == [Start(2, A, "failure")]


# attempt_timeout


def test_an_attempt_that_takes_too_long_is_abandoned_and_counts_as_failed():
    race = at_0(A, B, attempt_timeout=0.1)
    quiet(race, 0.1)
    assert race.tick(0.1) == [Abandon(0, "attempt_timeout"), Start(1, B, "failure")]
    quiet(race, 0.2)
    assert race.tick(0.2) == [Abandon(1, "attempt_timeout"), Exhausted()]
    assert outcomes(race) == ["timed out", "timed out"]
    assert [row.errno for row in race.records()] == [errno.ETIMEDOUT, errno.ETIMEDOUT]
    assert [row.ended for row in race.records()] == [0.1, 0.2]


def test_attempt_timeout_covers_establish_too():
    race = at_0(A, attempt_timeout=1.0)
    assert race.progressed(0, 0.9) == []
    assert race.tick(1.0) == [Abandon(0, "attempt_timeout"), Exhausted()]
    assert race.records()[0].phase == "establish"


def test_an_attempt_that_was_abandoned_ended_in_the_phase_that_is_told_afterwards():
    race = at_0(A, B)
    assert race.tick(10.0) == [Abandon(0, "attempt_timeout"), Start(1, B, "delay")]
    race.ended_in(0, "bind")
    assert race.cancel(11.0) == [Abandon(1, "cancelled")]
    race.ended_in(1, "bind")
    assert [(row.outcome, row.phase) for row in race.records()] == [("timed out", "bind"), ("cancelled", "bind")]


def test_several_attempts_can_time_out_in_one_tick_and_open_one_gate():
    race = at_0(A, B, C, D, attempt_timeout=0.3)
    race.tick(0.25)
    assert race.tick(0.60) == [
        Abandon(0, "attempt_timeout"),
        Abandon(1, "attempt_timeout"),
        Start(2, C, "delay"),
    ]


def test_a_result_is_taken_even_when_it_comes_after_the_time_is_up():
    race = at_0(A, B, attempt_timeout=1.0, attempt_delay=inf)
    assert race.succeeded(0, 1.5) == [Won(0)]
    race = at_0(A, B, attempt_timeout=1.0, attempt_delay=inf)
    assert refused(race, 0, 1.0) == [Start(1, B, "failure")]
    assert race.cancel(1.0) == [Abandon(1, "cancelled")]
    assert outcomes(race) == ["failed", "cancelled"]


def test_a_time_out_and_a_start_that_is_due_make_one_start():
    race = at_0(A, B, C, attempt_timeout=0.25)
    assert race.tick(0.25) == [Abandon(0, "attempt_timeout"), Start(1, B, "delay")]
    quiet(race, 0.5)


# The limit on attempts in flight


def test_line_80_at_the_limit_the_next_start_waits_for_a_slot():
    race = at_0(A, B, C, D, max_in_flight=2)
    race.tick(0.25)
    quiet(race, 10.0)
    assert refused(race, 0, 0.9) == [Start(2, C, "slot")]
    assert refused(race, 1, 1.0) == [Start(3, D, "failure")]


def test_line_80_a_time_out_frees_a_slot_and_the_schedule_goes_on_from_there():
    race = at_0(A, B, C, D, max_in_flight=2, attempt_timeout=2.0)
    race.tick(0.25)
    assert race.tick(2.0) == [Abandon(0, "attempt_timeout"), Start(2, C, "slot")]
    quiet(race, 2.25)
    assert race.tick(2.25) == [Abandon(1, "attempt_timeout"), Start(3, D, "slot")]


def test_line_80_a_slot_that_is_free_in_time_is_no_cause():
    race = at_0(A, B, C, max_in_flight=2)
    race.tick(0.25)
    assert refused(race, 1, 0.3) == [Start(2, C, "failure")]


def test_line_80_a_limit_of_one_waits_for_each_end():
    race = at_0(A, B, max_in_flight=1, attempt_timeout=inf)
    assert race.deadline == inf
    assert race.tick(5.0) == []
    assert refused(race, 0, 5.0) == [Start(1, B, "slot")]


def test_slots_freed_in_one_instant_open_one_gate():
    race = at_0(A, B, C, D, max_in_flight=2)
    race.tick(0.25)
    assert refused(race, 0, 0.7) == [Start(2, C, "slot")]
    assert refused(race, 1, 0.7) == []
    quiet(race, 0.95)


def test_a_slot_waits_for_the_floor():
    race = at_0(A, B, attempt_delay=0.010, max_in_flight=1)
    assert race.tick(0.004) == []
    assert refused(race, 0, 0.004) == []
    assert race.tick(0.010) == [Start(1, B, "failure")]


# Progress


def test_line_57_progress_puts_the_next_start_off_by_the_handshake():
    race = at_0(A, B, C)
    assert race.progressed(0, 0.1) == []
    quiet(race, 0.35)
    assert race.tick(0.35) == [Start(1, B, "delay")]
    quiet(race, 0.6)


def test_line_57_by_one_delay_at_most():
    race = at_0(A, B, C, attempt_delay=0.1)
    race.tick(0.1)
    assert race.progressed(0, 0.19) == []
    quiet(race, 0.2 + 0.1)


def test_line_57_a_start_is_put_off_once_by_the_longest_handshake():
    race = at_0(A, B, C)
    race.tick(0.25)
    race.progressed(1, 0.375)
    assert race.deadline == 0.625
    race.progressed(0, 0.4)
    assert race.deadline == 0.75
    race = at_0(A, B, C)
    race.tick(0.25)
    race.progressed(0, 0.375)
    assert race.deadline == 0.75
    race.progressed(1, 0.4)
    assert race.deadline == 0.75


def test_line_57_a_second_connection_with_as_long_a_handshake_puts_nothing_off():
    race = at_0(A, B, more=True, attempt_delay=0.125)
    race.tick(0.125)
    race.progressed(0, 0.5)
    assert race.tick(0.625) == []
    race.progressed(1, 0.75)
    race.add([C], 0.75)
    assert race.tick(0.75) == [Start(2, C, "arrival")]


def test_line_57_each_start_can_be_put_off():
    race = at_0(A, B, C)
    race.progressed(0, 0.125)
    assert race.tick(0.375) == [Start(1, B, "delay")]
    race.progressed(1, 0.5)
    quiet(race, 0.75)


def test_line_57_a_start_that_nobody_was_there_for_is_put_off_from_now():
    race = at_0(A, more=True)
    race.progressed(0, 0.5)
    race.add([B], 0.6)
    quiet(race, 0.75)
    assert race.tick(0.75) == [Start(1, B, "delay")]


@pytest.mark.parametrize("arrives_first", [False, True])
def test_line_57_who_comes_in_the_instant_of_a_handshake_finds_the_start_put_off(arrives_first):
    """The slot that came free was nobody's, so the start bears its name whichever of the two facts is told first."""
    race = at_0(A, B, more=True, max_in_flight=2)
    race.tick(0.25)
    assert race.failed(0, 1.0, phase="connect", errno=111) == []
    if arrives_first:
        race.add([C], 1.125)
    race.progressed(1, 1.125)
    if not arrives_first:
        race.add([C], 1.125)
    quiet(race, 1.375)
    assert race.tick(1.375) == [Start(2, C, "slot")]


@pytest.mark.parametrize("order", [*permutations(["shorter", "longer", "arrival"])], ids="-".join)
def test_line_57_of_two_handshakes_in_the_instant_of_an_arrival_the_longer_counts(order):
    race = at_0(A, B, C, more=True, attempt_delay=0.5)
    race.tick(0.5)
    race.tick(1.0)
    assert race.failed(1, 1.0625, phase="connect", errno=111) == []
    for fact in order:
        match fact:
            case "shorter":
                race.progressed(2, 1.25)
            case "longer":
                race.progressed(0, 1.25)
            case _:
                race.add([D], 1.25)
    quiet(race, 1.75)
    assert race.tick(1.75) == [Start(3, D, "failure")]


@pytest.mark.parametrize("failure_first", [False, True])
def test_line_57_a_failure_in_the_instant_of_a_handshake_opens_the_gate_whichever_is_told_first(failure_first):
    race = at_0(A, B, C)
    race.tick(0.25)
    if failure_first:
        race.failed(0, 0.255, phase="connect", errno=111)
    race.progressed(1, 0.255)
    if not failure_first:
        race.failed(0, 0.255, phase="connect", errno=111)
    quiet(race, 0.25 + MIN_ATTEMPT_DELAY)
    assert race.tick(0.25 + MIN_ATTEMPT_DELAY) == [Start(2, C, "failure")]


def test_two_failures_in_one_instant_free_the_slot_that_the_first_held():
    race = at_0(A, B, C, attempt_delay=0.010, max_in_flight=2)
    race.tick(0.015)  # late, so the next start is due before the floor ends
    for attempt in (0, 1):
        assert race.failed(attempt, 0.022, phase="connect", errno=111) == []
    assert race.tick(0.025) == [Start(2, C, "slot")]


def test_line_57_of_a_handshake_told_after_the_start_of_its_instant_nothing_is_put_off():
    race = at_0(A, B, C, D)
    race.tick(0.25)
    assert race.failed(0, 0.375, phase="connect", errno=111) == [Start(2, C, "failure")]
    race.progressed(1, 0.375)
    quiet(race, 0.625)
    assert race.tick(0.625) == [Start(3, D, "delay")]


def test_line_57_who_came_before_a_handshake_is_put_off_all_the_same():
    race = at_0(A, B, more=True)
    race.tick(0.25)
    race.add([C], 1.125)
    race.progressed(1, 1.1875)
    quiet(race, 1.4375)
    assert race.tick(1.4375) == [Start(2, C, "arrival")]


def test_line_57_a_start_that_an_arrival_has_made_stands():
    race = at_0(A, B, more=True)
    race.tick(0.25)
    race.add([C, D], 1.0)
    assert race.tick(1.0) == [Start(2, C, "arrival")]
    race.progressed(1, 1.0)
    quiet(race, 1.25)
    assert race.tick(1.25) == [Start(3, D, "delay")]


def test_line_56_a_path_that_never_establishes_does_not_keep_the_second_from_winning():
    race = at_0(A, B)
    race.progressed(0, 0.02)
    assert race.tick(0.27) == [Start(1, B, "delay")]
    assert race.progressed(1, 0.29) == []
    assert race.succeeded(1, 0.31) == [Abandon(0, "lost"), Won(1)]
    assert [row.phase for row in race.records()] == ["establish", "establish"]


def test_line_55_others_live_until_establish_is_through():
    race = at_0(A, B)
    race.tick(0.25)
    assert race.progressed(0, 0.3) == []
    assert race.progressed(1, 0.31) == []
    assert race.succeeded(1, 0.4) == [Abandon(0, "lost"), Won(1)]


def test_when_establish_fails_the_start_that_it_put_off_is_made():
    race = at_0(A, B)
    race.progressed(0, 0.2)
    assert race.failed(0, 0.3, phase="establish", errno=None) == [Start(1, B, "failure")]
    race.cancel(0.3)
    assert (race.records()[0].phase, race.records()[0].errno) == ("establish", None)


def test_progress_makes_the_start_that_is_due():
    race = at_0(A, B, more=True)
    race.add([NEAR], 0.1)
    race.tick(0.25)
    assert race.progressed(1, 0.25) == []
    assert race.progressed(0, 0.6) == []
    race = at_0(A, B, attempt_timeout=0.1)
    assert race.progressed(0, 0.0) == []
    assert race.deadline == 0.1


def test_a_result_does_not_end_what_is_about_to_report_in_the_same_pass():
    race = at_0(A, B, C, attempt_timeout=1.0)
    race.tick(0.25)
    race.tick(0.5)
    assert refused(race, 1, 1.0) == []
    assert race.progressed(2, 1.0) == []
    assert race.deadline == 1.0
    assert race.succeeded(0, 1.0) == [Abandon(2, "lost"), Won(0)]


# Candidates that come, go and move


def test_line_63_a_late_candidate_goes_where_sorting_puts_it():
    race = at_0(V6, B, C, more=True)
    race.add([D], 0.1)
    race.replace_order([V6, D, B, C])
    assert race.tick(0.1) == []
    assert race.tick(0.25) == [Start(1, D, "delay")]
    assert race.tick(0.5) == [Start(2, B, "delay")]


def test_line_63_the_complete_list_is_sorted_with_those_started_in_it():
    race = at_0(C, D, more=True)
    race.add([A, B], 0.1)
    race.replace_order([A, B, C, D])
    assert race.tick(0.25) == [Start(1, A, "delay")]


def test_duplicates_count_once_and_keep_the_first_place():
    race = Race(DEFAULT_POLICY, 0.0, [A, B, A, peer("192.0.2.2")], more=True)
    race.tick(0.0)
    race.add([A, C, B, C], 0.0)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert race.tick(0.5) == [Start(2, C, "delay")]
    race.cancel(0.5)
    assert [row.endpoint for row in race.records()] == [A[1], B[1], C[1]]


def test_line_64_one_that_is_taken_back_after_its_start_is_not_cancelled():
    race = at_0(A, B, more=True)
    race.skip({A: "not in the answer that came later"})
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert race.succeeded(0, 0.3) == [Abandon(1, "lost"), Won(0)]
    assert [row.outcome for row in race.records()] == ["won", "lost"]


def test_line_65_one_that_is_taken_back_before_its_start_is_never_started():
    race = at_0(A, B, C, more=True)
    race.skip({B: "not in the answer that came later"})
    race.replace_order([A, C])
    assert race.tick(0.25) == [Start(1, C, "delay")]
    assert race.tick(0.5) == []
    race.cancel(0.5)
    assert [(row.endpoint, row.outcome) for row in race.records()] == [
        (A[1], "cancelled"), (C[1], "cancelled"), (B[1], "skipped"),
    ]  # fmt: skip


def test_one_that_was_taken_back_may_come_again():
    race = at_0(A, B, more=True)
    race.skip({B: "not in the answer that came later"})
    race.add([C, B], 0.1)
    assert race.tick(0.25) == [Start(1, C, "delay")]
    assert race.tick(0.5) == [Start(2, B, "delay")]
    race.cancel(0.5)
    assert [row.outcome for row in race.records()] == ["cancelled"] * 3


def test_one_endpoint_from_two_sources_is_two_candidates():
    here, there = Source(ipv4="198.51.100.1"), Source(ipv4="198.51.100.2")
    race = at_0(peer("192.0.2.1", here), peer("192.0.2.1", there))
    refused(race, 0, 0.1)
    race.succeeded(1, 0.2)
    assert [row.source for row in race.records()] == [here, there]


def test_line_81_a_candidate_without_a_usable_source_is_reported_as_skipped():
    race = Race(DEFAULT_POLICY, 0.0, [A], more=True)
    race.skip({V6: "no source of its family"})
    race.skip({V6: "another reason"})
    race.no_more()
    race.tick(0.0)
    assert refused(race, 0, 0.1) == [Exhausted()]
    assert race.records()[1] == Attempt(endpoint=V6[1], outcome="skipped", reason="no source of its family")


def test_the_first_candidate_may_come_after_the_race_began():
    race = Race(DEFAULT_POLICY, 0.0, more=True)
    assert race.deadline == inf
    assert race.tick(0.0) == []
    race.add([A, B], 0.4)
    assert race.deadline == 0.4
    assert race.tick(0.4) == [Start(0, A, "first")]
    quiet(race, 0.65)


def test_a_candidate_that_comes_before_the_timer_waits_for_it():
    race = at_0(A, more=True)
    race.add([B], 0.1)
    assert race.tick(0.1) == []
    assert race.tick(0.25) == [Start(1, B, "delay")]


@pytest.mark.parametrize("order", ["timer first", "candidate first"])
def test_a_candidate_that_comes_with_the_timer_is_started_by_it(order: str):
    race = at_0(A, more=True)
    if order == "timer first":
        assert race.tick(0.25) == []
    race.add([B, C], 0.25)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert race.tick(0.5) == [Start(2, C, "delay")]


def test_a_candidate_that_comes_after_the_timer_starts_at_once_and_the_schedule_goes_on_from_there():
    race = at_0(A, more=True, attempt_timeout=inf)
    assert race.tick(0.25) == []
    race.add([B, C], 0.4)
    assert race.deadline == 0.25 + 0.15
    assert race.tick(0.4) == [Start(1, B, "arrival")]
    assert race.tick(0.649) == []
    assert race.tick(0.65) == [Start(2, C, "delay")]


def test_a_candidate_that_comes_when_no_attempt_is_alive_starts_at_once():
    race = at_0(A, more=True)
    assert refused(race, 0, 0.05) == []
    assert race.deadline == inf
    race.add([B], 0.1)
    assert race.tick(0.1) == [Start(1, B, "arrival")]
    assert race.deadline == 10.0 + 0.1


def test_line_45_an_arrival_waits_for_the_floor():
    race = at_0(A, more=True)
    refused(race, 0, 0.002)
    race.add([B], 0.005)
    assert race.tick(0.005) == []
    quiet(race, 0.010)
    assert race.tick(0.010) == [Start(1, B, "arrival")]


def test_line_45_an_arrival_waits_for_the_floor_of_a_start_that_was_late():
    race = at_0(A, B, more=True, attempt_timeout=inf)
    race.tick(0.495)
    assert race.tick(0.5) == []
    race.add([C, D], 0.502)
    assert race.tick(0.502) == []
    assert race.tick(0.495 + MIN_ATTEMPT_DELAY) == [Start(2, C, "arrival")]
    quiet(race, 0.495 + MIN_ATTEMPT_DELAY + 0.25)


@pytest.mark.parametrize("order", ["failure first", "candidate first"])
def test_a_candidate_that_comes_with_the_last_failure_is_started_by_it(order: str):
    race = at_0(A, more=True)
    if order == "failure first":
        assert refused(race, 0, 0.1) == []
        race.add([B], 0.1)
        assert race.tick(0.1) == [Start(1, B, "failure")]
    else:
        race.add([B], 0.1)
        assert race.tick(0.1) == []
        assert refused(race, 0, 0.1) == [Start(1, B, "failure")]


def test_a_candidate_that_comes_while_others_wait_opens_nothing():
    race = at_0(A, B, more=True)
    race.tick(0.1)
    race.add([C], 0.1)
    assert race.tick(0.1) == []
    race.add([A], 0.2)
    quiet(race, 0.25)


def test_a_candidate_that_comes_while_others_wait_shifts_no_schedule():
    race = at_0(A, B, C, more=True)
    race.add([D], 0.3)
    assert race.tick(0.3) == [Start(1, B, "delay")]
    quiet(race, 0.5)


def test_an_addition_of_nothing_opens_nothing():
    race = at_0(A, more=True)
    refused(race, 0, 0.1)
    race.add([A], 0.2)
    race.add([], 0.2)
    race.add([B], 0.3)
    assert race.tick(0.3) == [Start(1, B, "arrival")]


def test_line_54_what_stands_first_is_started_first_and_runs_on_beside_what_follows():
    first_group, second_group = [A, B], [C, D]
    race = Race(DEFAULT_POLICY, 0.0, [*first_group, *second_group], more=False)
    started = [command for n in range(4) for command in race.tick(n * 0.25)]
    assert started == [Start(0, A, "first"), Start(1, B, "delay"), Start(2, C, "delay"), Start(3, D, "delay")]
    assert race.succeeded(0, 0.8)[-1] == Won(0)


def test_at_most_64_candidates_are_started_and_the_rest_is_reported():
    many = [peer(f"127.0.1.{n}") for n in range(70)]
    race = at_0(*many, more=True)
    assert race.full
    for n in range(MAX_RACED - 1):
        assert refused(race, n, 0.0) == [Start(n + 1, many[n + 1], "failure")]
    assert race.deadline == 10.0
    assert race.tick(5.0) == []
    assert refused(race, MAX_RACED - 1, 6.0) == [Exhausted()]
    assert outcomes(race) == ["failed"] * 64 + ["not tried"] * 6
    assert MAX_RACED == 64


def test_full_says_when_more_candidates_cannot_be_raced():
    race = Race(DEFAULT_POLICY, 0.0, [peer(f"192.0.2.{n}") for n in range(63)], more=True)
    race.tick(0.0)
    assert not race.full
    race.add([V6], 0.0)
    assert race.full


# Ends


def test_line_83_two_successes_in_one_instant_have_one_winner_and_the_other_is_closed():
    race = at_0(A, B)
    race.tick(0.25)
    assert race.succeeded(1, 0.3) == [Abandon(0, "lost"), Won(1)]
    assert race.succeeded(0, 0.3) == [Abandon(0, "late")]
    assert outcomes(race) == ["lost", "won"]


def test_line_51_a_success_abandons_every_other_attempt():
    race = at_0(A, B, C, D)
    race.tick(0.25)
    race.tick(0.5)
    refused(race, 1, 0.501)
    assert race.succeeded(2, 0.502) == [Abandon(0, "lost"), Won(2)]
    assert race.deadline == inf


def test_line_52_what_waits_is_not_started_after_a_success():
    race = at_0(A, B)
    assert race.succeeded(0, 0.1) == [Won(0)]
    assert race.deadline == inf
    assert race.tick(0.25) == []
    assert outcomes(race) == ["won", "not tried"]


def test_line_85_an_empty_list_is_exhausted_at_once():
    race = Race(DEFAULT_POLICY, 0.0, more=False)
    assert race.deadline == -inf
    assert race.tick(0.0) == [Exhausted()]
    assert race.state == "exhausted"
    assert race.records() == ()


def test_line_85_so_is_a_source_of_candidates_that_ends_without_any():
    race = Race(DEFAULT_POLICY, 0.0, more=True)
    assert race.tick(1.0) == []
    race.no_more()
    assert race.deadline == -inf
    assert race.tick(2.0) == [Exhausted()]


def test_when_all_have_failed_the_race_waits_for_more_as_long_as_more_may_come():
    race = at_0(A, more=True)
    assert refused(race, 0, 0.1) == []
    assert race.state == "open"
    assert race.deadline == inf
    race.no_more()
    assert race.tick(0.2) == [Exhausted()]


def test_line_74_a_cancel_ends_every_attempt_at_its_instant():
    race = at_0(A, B, C, D)
    race.tick(0.25)
    race.progressed(1, 0.26)
    refused(race, 0, 0.3)
    assert race.cancel(0.4) == [Abandon(1, "cancelled"), Abandon(2, "cancelled")]
    assert race.deadline == inf
    assert race.tick(9.0) == []
    assert outcomes(race) == ["failed", "cancelled", "cancelled", "not tried"]
    assert [row.ended for row in race.records()] == [0.3, 0.4, 0.4, None]


@pytest.mark.parametrize("more", [False, True])
def test_line_74_a_cancel_before_anything_has_begun_leaves_nothing(more: bool):
    race = Race(DEFAULT_POLICY, 0.0, [A], more=more)
    assert race.cancel(0.0) == []
    assert race.state == "cancelled"
    assert outcomes(race) == ["not tried"]


def test_a_cancel_takes_no_winner_away():
    race = at_0(A)
    race.succeeded(0, 0.1)
    assert race.cancel(0.1) == []
    assert race.state == "won"


def test_line_78_the_report_has_each_candidate_once_with_all_that_is_known():
    here = Source(ipv4="198.51.100.1")
    unreachable, late = peer("2001:db8::1", here), peer("192.0.2.7", here)
    slow, dead, won = peer("192.0.2.1", here), peer("192.0.2.2", here), peer("192.0.2.3", here)
    race = Race(RacePolicy(attempt_timeout=0.75), 1000.0, [dead, A, slow, won, D], more=True)
    race.tick(1000.0)
    refused(race, 0, 1000.125)
    race.tick(1000.375)
    race.progressed(2, 1000.5)
    race.skip({unreachable: "not allowed"})
    race.add([E, late], 1000.5)
    race.no_more()
    assert race.tick(1000.75) == [Start(3, won, "delay")]
    assert race.tick(1000.875) == [Abandon(1, "attempt_timeout"), Start(4, D, "failure")]
    race.succeeded(3, 1001.0)
    assert race.records() == (
        Attempt(
            endpoint=dead[1],
            source=here,
            cause="first",
            started=0.0,
            ended=0.125,
            outcome="failed",
            errno=errno.ECONNREFUSED,
            reason="connection refused",
        ),
        Attempt(
            endpoint=A[1],
            source=None,
            cause="failure",
            started=0.125,
            ended=0.875,
            outcome="timed out",
            errno=errno.ETIMEDOUT,
            reason="took longer than attempt_timeout",
        ),
        Attempt(
            endpoint=slow[1],
            source=here,
            cause="delay",
            started=0.375,
            ended=1.0,
            phase="establish",
            outcome="lost",
            beaten_by=won[1],
        ),
        Attempt(endpoint=won[1], source=here, cause="delay", started=0.75, ended=1.0, outcome="won"),
        Attempt(endpoint=D[1], cause="failure", started=0.875, ended=1.0, outcome="lost", beaten_by=won[1]),
        Attempt(endpoint=E[1], outcome="not tried"),
        Attempt(endpoint=late[1], source=here, outcome="not tried"),
        Attempt(endpoint=unreachable[1], source=here, outcome="skipped", reason="not allowed"),
    )


def test_the_first_attempt_may_have_run_before_there_was_a_race():
    race = Race(DEFAULT_POLICY, 5.0, [A, B], more=False)
    assert race.tick(5.0) == [Start(0, A, "first")]
    assert race.succeeded(0, 5.001) == [Won(0)]
    assert race.records()[0].ended == pytest.approx(0.001)


def test_the_report_waits_for_the_end():
    race = at_0(A)
    with pytest.raises(IllegalFact, match=r"^records: the race is still closed$"):
        race.records()


# MPTCP: one plain TCP attempt at the end of the list


def multipath_at_0(*candidates: Candidate, more: bool = False, **policy: Any) -> Race:
    race = Race(RacePolicy(**policy), 0.0, candidates, more=more, multipath=True)
    assert race.tick(0.0) == [Start(0, candidates[0], "first")]
    return race


def option_refused(race: Race, attempt: int, now: float, code: int = errno.ENOPROTOOPT) -> list[Command]:
    return race.failed(attempt, now, phase="socket", errno=code, emitted=False, reason="refuses TCP_X")


def test_mptcp_the_best_endpoint_gets_one_plain_attempt_one_delay_after_the_last():
    race = multipath_at_0(A, B)
    quiet(race, 0.25)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    quiet(race, 0.5)
    assert race.tick(0.5) == [Start(2, A, "delay", plain=True)]
    quiet(race, 10.0)
    assert race.succeeded(2, 0.52) == [Abandon(0, "lost"), Abandon(1, "lost"), Won(2)]
    assert [(row.endpoint, row.outcome, row.plain) for row in race.records()] == [
        (A[1], "lost", False),
        (B[1], "lost", False),
        (A[1], "won", True),
    ]


def test_mptcp_a_plain_attempt_is_raced_and_does_not_end_the_others():
    race = multipath_at_0(A)
    assert race.tick(0.25) == [Start(1, A, "delay", plain=True)]
    assert race.succeeded(0, 0.26) == [Abandon(1, "lost"), Won(0)]


@pytest.mark.parametrize("code", [errno.ENOPROTOOPT, errno.EOPNOTSUPP])
def test_mptcp_an_option_that_is_refused_makes_the_plain_attempt_at_once(code: int):
    race = multipath_at_0(A, B)
    assert option_refused(race, 0, 0.0, code) == [Start(1, B, "failure")]
    assert option_refused(race, 1, 0.0, code) == [Start(2, A, "failure", plain=True)]
    assert race.succeeded(2, 0.01) == [Won(2)]
    assert race.records()[0].reason == "refuses TCP_X"


def test_mptcp_the_plain_attempt_goes_where_nobody_has_answered():
    race = multipath_at_0(A, B, C)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert refused(race, 0, 0.375) == [Start(2, C, "failure")]
    assert race.progressed(2, 0.5) == []
    quiet(race, 0.75)  # C's handshake took 125 ms
    assert race.tick(0.75) == [Start(3, B, "delay", plain=True)]


def test_mptcp_who_was_answered_gets_no_plain_attempt():
    race = multipath_at_0(A, B)
    assert refused(race, 0, 0.1) == [Start(1, B, "failure")]
    assert refused(race, 1, 0.2) == [Exhausted()]
    race = multipath_at_0(A)
    assert race.progressed(0, 0.1) == []
    assert race.deadline == 10.0
    assert race.failed(0, 0.2, phase="establish", errno=errno.ENOPROTOOPT) == [Exhausted()]
    race = multipath_at_0(A)
    race.progressed(0, 0.1)
    assert race.failed(0, 0.2, phase="establish", errno=errno.ETIMEDOUT) == [Exhausted()]
    race = multipath_at_0(A)
    assert unsent(race, 0, 0.0) == [Exhausted()]


def test_mptcp_the_kernels_own_giving_up_and_attempt_timeout_are_no_answers():
    race = multipath_at_0(A, attempt_delay=5.0)
    assert race.failed(0, 1.0, phase="connect", errno=errno.ETIMEDOUT) == [Start(1, A, "failure", plain=True)]
    race = multipath_at_0(A, attempt_delay=inf, attempt_timeout=2.0)
    assert race.tick(2.0) == [Abandon(0, "attempt_timeout"), Start(1, A, "failure", plain=True)]
    assert refused(race, 1, 2.1) == [Exhausted()]


def test_mptcp_a_plain_attempt_that_fails_is_not_repeated():
    race = multipath_at_0(A)
    assert race.tick(0.25) == [Start(1, A, "delay", plain=True)]
    assert refused(race, 1, 0.3) == []
    assert race.deadline == 10.0
    assert refused(race, 0, 0.4) == [Exhausted()]


def test_mptcp_the_plain_attempt_keeps_to_the_limit_and_to_the_floor():
    race = multipath_at_0(A, max_in_flight=1)
    assert race.deadline == 10.0
    assert race.tick(10.0) == [Abandon(0, "attempt_timeout"), Start(1, A, "slot", plain=True)]
    race = multipath_at_0(A, B, attempt_delay=1.0)
    assert refused(race, 0, 0.1) == [Start(1, B, "failure")]
    assert race.failed(1, 0.102, phase="connect", errno=errno.ETIMEDOUT) == []
    quiet(race, 0.1 + MIN_ATTEMPT_DELAY)


def test_mptcp_candidates_that_come_late_go_before_the_plain_attempt_and_after_it():
    race = multipath_at_0(A, more=True)
    race.add([B], 0.1)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert race.tick(0.5) == [Start(2, A, "delay", plain=True)]
    race.add([C], 0.6)
    assert race.deadline == 0.75
    assert race.tick(0.75) == [Start(3, C, "delay")]
    race.no_more()
    quiet(race, 10.0)


def test_mptcp_the_plain_attempt_comes_after_as_many_as_one_race_tries():
    candidates = [peer(f"192.0.2.{n}") for n in range(1, MAX_RACED + 3)]
    race = multipath_at_0(*candidates, max_in_flight=100, attempt_timeout=inf)
    for n in range(1, MAX_RACED):
        assert race.tick(race.deadline) == [Start(n, candidates[n], "delay")]
    assert race.tick(race.deadline) == [Start(MAX_RACED, candidates[0], "delay", plain=True)]
    assert race.deadline == inf


def test_mptcp_a_system_without_it_needs_no_plain_attempt():
    race = multipath_at_0(A, more=True)
    race.no_multipath()
    race.no_multipath()
    race.no_more()
    quiet(race, 10.0)
    race = at_0(A)
    quiet(race, 10.0)


# Every pair of state and fact


def snapshot(race: Race) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, Try | Schedule):
            return {name: getattr(value, name, "not there") for name in value.__slots__}
        if isinstance(value, dict):
            return [(key, plain(item)) for key, item in value.items()]
        if isinstance(value, list):
            return [plain(item) for item in value]
        return set(value) if isinstance(value, set) else value

    return {name: plain(getattr(race, name)) for name in race.__slots__}


def race_in(state: str) -> Race:
    # Exhausted is a race whose every candidate was started.
    candidates = [A] if state == "exhausted" else [A, B]
    race = Race(DEFAULT_POLICY, 0.0, candidates, more=state != "closed")
    race.tick(0.0)
    match state:
        case "won":
            race.succeeded(0, 0.1)
        case "cancelled":
            race.cancel(0.1)
        case "exhausted":
            race.no_more()
            refused(race, 0, 0.1)
    assert race.state == state
    return race


TELL_RACE = {
    "add": lambda race: race.add([C], 0.2),
    "skip": lambda race: race.skip({C: "no"}),
    "replace_order": lambda race: race.replace_order([B]),
    "no_more": lambda race: race.no_more(),
    "no_multipath": lambda race: race.no_multipath(),
    "tick": lambda race: race.tick(0.2),
    "cancel": lambda race: race.cancel(0.2),
}


@pytest.mark.parametrize(("state", "fact"), [(s, f) for s, facts in RACE_FACTS.items() for f in facts])
def test_the_race_obeys_its_table(state: str, fact: str):
    race = race_in(state)
    before = snapshot(race)
    becomes = RACE_FACTS[state][fact]  # type: ignore[index]
    if becomes == ILLEGAL:
        with pytest.raises(IllegalFact, match=f"^{fact}: not while the race is {state}$"):
            TELL_RACE[fact](race)
    else:
        said = TELL_RACE[fact](race)
        if becomes != LATE:
            assert race.state == becomes
            return
        assert said in (None, [])
    assert snapshot(race) == before


def attempt_in(state: str) -> Race:
    """A race whose attempt 0 is in this state; attempt 1 runs, where the race does."""
    race = Race(RacePolicy(attempt_timeout=0.3), 0.0, [A, B, C], more=False)
    if state == "waiting":
        return race
    race.tick(0.0)
    race.tick(0.25)
    match state:
        case "starved":
            ran_out(race, 0, 0.26)
        case "establishing":
            race.progressed(0, 0.26)
        case "won":
            race.succeeded(0, 0.26)
        case "failed":
            refused(race, 0, 0.26)
        case "lost":
            race.succeeded(1, 0.26)
        case "cancelled":
            race.cancel(0.26)
        case "timed out":
            race.tick(0.3)
    assert race._tries[0].state == state
    return race


TELL_ATTEMPT = {
    "progressed": lambda race: race.progressed(0, 0.3),
    "ran_out": lambda race: ran_out(race, 0, 0.3),
    "failed": lambda race: refused(race, 0, 0.3),
    "succeeded": lambda race: race.succeeded(0, 0.3),
}


@pytest.mark.parametrize(("state", "fact"), [(s, f) for s, facts in ATTEMPT_FACTS.items() for f in facts])
def test_an_attempt_obeys_its_table(state: str, fact: str):
    race = attempt_in(state)
    before = snapshot(race)
    becomes = ATTEMPT_FACTS[state][fact]  # type: ignore[index]
    if fact == "ran_out" and len(race._live) < 2:
        fact = "failed"  # of one that is alone, or of none
    if becomes == ILLEGAL:
        with pytest.raises(IllegalFact, match=f"^{fact}: not while attempt 0 is {state}$"):
            TELL_ATTEMPT[fact](race)
    else:
        said = TELL_ATTEMPT[fact](race)
        if becomes != LATE:
            assert race._tries[0].state == becomes
            return
        assert said == ([Abandon(0, "late")] if fact == "succeeded" else [])
    assert snapshot(race) == before


DECIDE_ATTEMPT = {
    "Start": lambda race: race.tick(0.0),
    "attempt_timeout": lambda race: race.tick(0.3),
    "lost": lambda race: race.succeeded(1, 0.3),
    "cancelled": lambda race: race.cancel(0.3),
}


@pytest.mark.parametrize(("state", "decision"), [(s, d) for s, row in ATTEMPT_DECISIONS.items() for d in row])
def test_a_decision_of_the_race_moves_an_attempt_as_its_table_says(state: str, decision: str):
    race = attempt_in(state)
    if state == "starved":
        assert race.tick(0.5) == [Start(0, A, "delay")]
    else:
        command = DECIDE_ATTEMPT[decision](race)[0]
        assert command == (Start(0, A, "first") if decision == "Start" else Abandon(0, cast("Any", decision)))
    assert race._tries[0].state == ATTEMPT_DECISIONS[state][decision]  # type: ignore[index]


@pytest.mark.parametrize("state", list(RACE_DECISIONS))
def test_the_race_ends_as_its_table_says(state: str):
    race = race_in(state)
    assert race.succeeded(0, 0.1) == [Won(0)]
    assert race.state == RACE_DECISIONS[state]["Won"]  # type: ignore[index]
    # An open race is exhausted only when it may start no more.
    race = Race(DEFAULT_POLICY, 0.0, [peer(f"127.0.1.{n}") for n in range(MAX_RACED)], more=state == "open")
    commands = race.tick(0.0)
    for n in range(MAX_RACED):
        commands = refused(race, n, 0.0)
    assert commands == [Exhausted()]
    assert race.state == RACE_DECISIONS[state]["Exhausted"]  # type: ignore[index]


@pytest.mark.parametrize("attempt", [-1, 2, 99])
def test_an_attempt_that_was_never_started_has_nothing_to_say(attempt: int):
    race = at_0(A, B, C)
    race.tick(0.25)
    before = snapshot(race)
    with pytest.raises(IllegalFact, match=f"^succeeded: not while attempt {attempt} is waiting$"):
        race.succeeded(attempt, 0.3)
    assert snapshot(race) == before


def test_an_order_with_a_stranger_in_it_is_illegal():
    race = at_0(A, B, C)
    before = snapshot(race)
    with pytest.raises(IllegalFact, match=r"^replace_order: \(None, Endpoint\('192.0.2.6', 443\)\) was never added$"):
        race.replace_order([C, F, B])
    assert snapshot(race) == before


def test_an_order_that_leaves_one_out_is_illegal():
    race = at_0(A, B, C)
    before = snapshot(race)
    with pytest.raises(IllegalFact, match=r"^replace_order: 2 candidates wait, 1 of them were named$"):
        race.replace_order([A, C])
    assert snapshot(race) == before


def test_an_order_may_name_what_was_set_aside():
    race = at_0(A, B, C, more=True)
    race.skip({V6: "no"})
    race.replace_order([V6, C, C, A, B])
    assert race.tick(0.25) == [Start(1, C, "delay")]
    assert race.tick(0.5) == [Start(2, B, "delay")]


def test_the_tables_list_every_pair_and_agree_on_what_is_over():
    facts = {frozenset(row) for row in ATTEMPT_FACTS.values()}
    assert facts == {frozenset(TELL_ATTEMPT)}
    assert {frozenset(row) for row in RACE_FACTS.values()} == {frozenset(TELL_RACE)}
    over = {state for state, row in RACE_FACTS.items() if row["tick"] == LATE}
    assert over == set(RACE_FACTS) - set(RACE_DECISIONS) == {"won", "exhausted", "cancelled"}
    assert {becomes for row in RACE_DECISIONS.values() for becomes in row.values()} <= over
    assert {becomes for row in ATTEMPT_DECISIONS.values() for becomes in row.values()} <= set(ATTEMPT_FACTS)


# This machine runs out of descriptors or memory


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_field_19_a_start_that_this_machine_had_nothing_for_is_made_again_when_an_attempt_ends(code: int):
    race = at_0(A, B, C)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert ran_out(race, 1, 0.25, code) == []
    quiet(race, 0.5)
    assert refused(race, 0, 0.4) == [Start(1, B, "failure")]
    assert race.succeeded(1, 0.42) == [Won(1)]
    assert [(row.endpoint, row.outcome, row.errno) for row in race.records()] == [
        (A[1], "failed", errno.ECONNREFUSED),
        (B[1], "won", None),
        (C[1], "not tried", None),
    ]


def test_field_19_or_after_another_delay():
    race = at_0(A, B, C)
    race.tick(0.25)
    assert ran_out(race, 1, 0.25) == []
    assert race.tick(0.5) == [Start(1, B, "delay")]
    assert race.tick(0.75) == [Start(2, C, "delay")]


def test_field_19_also_by_a_time_out_and_by_a_slot():
    race = at_0(A, B, C, attempt_delay=inf, attempt_timeout=1.0)
    assert race.tick(1.0) == [Abandon(0, "attempt_timeout"), Start(1, B, "failure")]
    race = at_0(A, B, C, max_in_flight=2, attempt_timeout=1.0)
    race.tick(0.25)
    assert race.tick(1.0) == [Abandon(0, "attempt_timeout"), Start(2, C, "slot")]
    assert ran_out(race, 2, 1.0) == []
    assert refused(race, 1, 1.1) == [Start(2, C, "failure")]


def test_field_19_none_under_way_it_has_failed():
    race = at_0(A, B)
    assert ran_out(race, 0, 0.0) == [Start(1, B, "failure")]
    assert ran_out(race, 1, 0.0) == [Exhausted()]
    assert [(row.outcome, row.errno, row.reason) for row in race.records()] == [
        ("failed", errno.EMFILE, "too many open files")
    ] * 2


def test_field_19_the_last_try_is_the_one_that_fails():
    race = at_0(A, B, C)
    race.tick(0.25)
    assert ran_out(race, 1, 0.25) == []
    assert refused(race, 0, 0.3) == [Start(1, B, "failure")]
    assert ran_out(race, 1, 0.3) == [Start(2, C, "failure")]
    assert refused(race, 2, 0.4) == [Exhausted()]
    assert [(row.started, row.outcome) for row in race.records()] == [(0.0, "failed"), (0.3, "failed"), (0.3, "failed")]


@pytest.mark.parametrize("end", ["won", "cancelled"])
def test_field_19_one_that_is_not_tried_again_is_reported_as_it_failed(end: str):
    race = at_0(A, B)
    race.tick(0.25)
    assert ran_out(race, 1, 0.25) == []
    if end == "won":
        assert race.succeeded(0, 0.3) == [Won(0)]
    else:
        assert race.cancel(0.3) == [Abandon(0, "cancelled")]
    row = race.records()[1]
    assert (row.outcome, row.phase, row.errno, row.started, row.ended) == ("failed", "socket", errno.EMFILE, 0.25, 0.25)
    assert (row.beaten_by, row.reason) == (None, "too many open files")


def test_field_19_an_establish_that_opens_a_file_in_vain_has_failed():
    race = at_0(A, B, C)
    race.tick(0.25)
    race.progressed(0, 0.3)
    assert race.failed(0, 0.35, phase="establish", errno=errno.EMFILE) == [Start(2, C, "failure")]


def test_field_19_an_end_in_the_very_instant_starts_it_again():
    race = at_0(A, B, C)
    race.tick(0.25)
    assert race.tick(0.5) == [Start(2, C, "delay")]
    assert ran_out(race, 2, 0.5) == []
    assert refused(race, 1, 0.5) == [Start(2, C, "failure")]


def test_field_19_it_waits_for_the_floor_and_the_race_for_it():
    race = at_0(A, B)
    assert race.tick(0.25) == [Start(1, B, "delay")]
    assert race.failed(1, 0.252, phase="connect", errno=errno.ENOBUFS) == []
    assert refused(race, 0, 0.253) == []
    assert race.deadline == pytest.approx(0.26)
    assert race.tick(race.deadline) == [Start(1, B, "failure")]


def test_field_19_it_goes_before_those_that_wait_and_also_as_the_64th():
    candidates = [peer(f"127.0.1.{n}") for n in range(MAX_RACED + 1)]
    race = Race(RacePolicy(max_in_flight=MAX_RACED, attempt_timeout=inf), 0.0, candidates, more=True)
    assert race.tick(0.0) == [Start(0, candidates[0], "first")]
    for n in range(1, MAX_RACED):
        assert race.tick(0.25 * n) == [Start(n, candidates[n], "delay")]
    at = 0.25 * (MAX_RACED - 1)
    assert ran_out(race, MAX_RACED - 1, at) == []
    # Who comes now has to wait like any other, and is one too many.
    race.add([A], at + 0.1)
    assert refused(race, 0, at + 0.2) == [Start(MAX_RACED - 1, candidates[MAX_RACED - 1], "failure")]
    assert race.tick(at + 1) == []


def test_field_19_what_was_known_of_the_first_try_is_forgotten():
    race = at_0(A, B)
    race.tick(0.25)
    assert ran_out(race, 1, 0.25) == []
    assert race.tick(0.5) == [Start(1, B, "delay")]
    assert race.succeeded(0, 0.6) == [Abandon(1, "lost"), Won(0)]
    row = race.records()[1]
    assert (row.started, row.ended, row.phase, row.outcome, row.errno, row.reason) == (
        0.5, 0.6, "connect", "lost", None, None,
    )  # fmt: skip
    assert row.beaten_by == A[1]


# Policies


def test_the_default_policy_is_what_the_rfc_recommends():
    assert (DEFAULT_POLICY.attempt_delay, DEFAULT_POLICY.resolution_delay) == (0.250, 0.050)
    assert (DEFAULT_POLICY.attempt_timeout, DEFAULT_POLICY.max_in_flight) == (10.0, 16)
    assert DEFAULT_POLICY.preferred_family_count == 1
    assert MIN_ATTEMPT_DELAY == 0.010
    assert RacePolicy() == DEFAULT_POLICY


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attempt_delay", 0.010),
        ("attempt_delay", 1),
        ("attempt_delay", inf),
        ("attempt_timeout", 1e-9),
        ("attempt_timeout", inf),
        ("resolution_delay", 0),
        ("resolution_delay", 3.5),
        ("max_in_flight", 1),
        ("preferred_family_count", 1),
    ],
)
def test_a_policy_takes(field: str, value: Any):
    assert getattr(RacePolicy(**{field: value}), field) == value


NUMBERS = ("attempt_delay", "attempt_timeout", "resolution_delay")


COUNTS = ("max_in_flight", "preferred_family_count")


def test_a_first_family_is_one_of_three():
    for family in ("system", AF_INET, AF_INET6):
        assert RacePolicy(first_family=family).first_family == family
    for bad in ("ipv4", 4, None, True):
        with pytest.raises(ValueError, match="first_family must be"):
            RacePolicy(first_family=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [True, "1", None])
def test_a_policy_wants_numbers_of_seconds(field: str, value: Any):
    with pytest.raises(TypeError, match=rf"^{field} must be a number of seconds, got {value!r}$"):
        RacePolicy(**{field: value})


@pytest.mark.parametrize("field", NUMBERS)
def test_nan_is_no_number_of_seconds(field: str):
    with pytest.raises(ValueError, match=rf"^{field} must be a number of seconds, got nan$"):
        RacePolicy(**{field: cast("Any", nan)})


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("value", [True, 1.0, None])
def test_a_policy_wants_whole_counts(field: str, value: Any):
    with pytest.raises(TypeError, match=rf"^{field} must be an int, got {value!r}$"):
        RacePolicy(**{field: value})


@pytest.mark.parametrize("field", COUNTS)
def test_a_count_is_at_least_one(field: str):
    with pytest.raises(ValueError, match=rf"^{field} must be at least 1, got 0$"):
        RacePolicy(**{field: cast("Any", 0)})


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("attempt_delay", 0.0099, "at least 0.01 seconds (RFC 8305 section 5), or math.inf for one attempt at a time"),
        ("attempt_delay", -inf, "at least 0.01 seconds (RFC 8305 section 5), or math.inf for one attempt at a time"),
        ("attempt_delay", 30.001, "at most 30 seconds"),
        ("attempt_timeout", 0, "above 0 seconds, or math.inf for none"),
        ("resolution_delay", -0.001, "0 seconds or more, and finite"),
        ("resolution_delay", inf, "0 seconds or more, and finite"),
        ("resolution_delay", 50, "at most 30 seconds"),
    ],
)
def test_a_policy_is_never_clamped(field: str, value: Any, rule: str):
    with pytest.raises(ValueError) as caught:
        RacePolicy(**{field: value})
    hint = ": milliseconds were probably meant, and it is in seconds" if "at most" in rule else ""
    assert str(caught.value) == f"{field} must be {rule}, got {value!r}{hint}"


def test_a_policy_is_frozen_and_by_keyword():
    with pytest.raises(AttributeError):
        DEFAULT_POLICY.attempt_delay = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        RacePolicy(0.25)  # type: ignore[call-arg]


def test_only_a_policy_is_a_policy():
    check_policy(DEFAULT_POLICY)
    with pytest.raises(TypeError, match=r"^policy must be a RacePolicy, got 0\.25$"):
        check_policy(0.25)


# With a memory of earlier connects


LIMITS = Limits(size=100, retry_after=10.0, retry_at_most=60.0, explore_after=600.0, lifetime=3600.0, hedge_budget=None)


def the_start(commands: list[Command]) -> Start:
    (command,) = commands
    assert isinstance(command, Start)
    return command


def approximately(value: float) -> Any:
    return pytest.approx(value)


class Remembering:
    """Races with one memory."""

    def __init__(self, **limits: Any) -> None:
        self.memory = Memory(attrs.evolve(LIMITS, **limits))

    def race(self, *candidates: Candidate, now: float = 0.0, more: bool = False, **policy: Any) -> Race:
        values = RacePolicy(**policy)
        memory = RaceMemory(self.memory, "", "", values, wake=lambda: None)
        return Race(values, now, candidates, more=more, memory=memory)

    def fails(self, candidate: Candidate, now: float) -> None:
        self.memory.failed(("", "", None, candidate[1]), now, "refused", began=now)

    def level(self, candidate: Candidate, now: float) -> int:
        return self.memory.level(("", "", None, candidate[1]), now)


def test_what_failed_lately_is_started_last_and_the_report_says_why():
    earlier = Remembering()
    earlier.fails(A, 0.0)
    race = earlier.race(A, B, C, now=1.0)
    assert [race.tick(at)[0] for at in (1.0, 1.25)] == [Start(0, B, "first"), Start(1, C, "delay")]
    note = "put behind: refused 1.00 s before"
    assert race.tick(1.5) == [Start(2, A, "delay", memory=(None, None, "put behind: refused 1.50 s before"))]
    race = earlier.race(A, B, now=1.0)
    race.tick(1.0)
    race.succeeded(0, 1.1)
    assert race.records() == (
        Attempt(endpoint=B[1], cause="first", started=0.0, ended=approximately(0.1), outcome="won"),
        Attempt(endpoint=A[1], outcome="not tried", history=note),
    )


def test_line_48_each_delay_is_that_of_the_attempt_that_was_started_last():
    earlier = Remembering()
    earlier.memory.answered(("", "", None, A[1]), 0.1, 0.0)
    race = earlier.race(A, B, C, attempt_delay=Adaptive())
    (start,) = race.tick(0.0)
    assert start == Start(0, A, "first", memory=(approximately(0.4), "round trip 100 ms +- 50 ms", None))
    quiet(race, 0.4)
    assert race.tick(0.4) == [Start(1, B, "delay", memory=(0.25, "initial: no round trip is known", None))]
    quiet(race, 0.65)
    race.tick(0.65)
    race.succeeded(0, 0.7)
    assert [row.delay for row in race.records()] == [pytest.approx(0.4), 0.25, 0.25]
    assert race.records()[1].delay_reason == "initial: no round trip is known"


def test_line_49_the_delay_is_the_same_for_whatever_is_established_over_it():
    earlier = Remembering()
    earlier.memory.answered(("", "", None, A[1]), 0.1, 0.0)
    for _ in range(2):
        race = earlier.race(A, B, attempt_delay=Adaptive())
        race.tick(0.0)
        assert race.deadline == pytest.approx(0.4)
        race.cancel(0.0)


REFUSED_BY_ESTABLISH: dict[str, Any] = {"phase": "establish", "errno": None}
NO_PACKET: dict[str, Any] = {"phase": "connect", "errno": errno.ENETUNREACH, "emitted": False}


@pytest.mark.parametrize(
    ("end", "level"),
    [
        (lambda race: refused(race, 0, 0.2), FAILED),
        (lambda race: race.failed(0, 0.2, **REFUSED_BY_ESTABLISH), FAILED),
        (lambda race: race.failed(0, 0.2, phase="bind", errno=errno.EADDRINUSE), FINE),
        (lambda race: race.failed(0, 0.2, phase="socket", errno=errno.EPROTONOSUPPORT), FINE),
        (lambda race: race.failed(0, 0.2, **NO_PACKET), FINE),
        (lambda race: race.succeeded(0, 0.2), FINE),
        (lambda race: race.cancel(0.2), FINE),
        (lambda race: race.cancel(0.3), SLOW),
        (lambda race: (race.tick(0.25), race.succeeded(1, 0.3)), SLOW),
        (lambda race: (race.tick(0.25), ran_out(race, 0, 0.3), race.cancel(0.3)), FINE),
    ],
    ids=["refused", "establish", "bind", "socket", "no packet", "won", "cancel", "late cancel", "beaten", "ran out"],
)
def test_what_the_memory_learns_of_how_an_attempt_ends(end, level):
    earlier = Remembering()
    race = earlier.race(A, B)
    race.tick(0.0)
    end(race)
    race.cancel(0.3)
    assert earlier.level(A, 0.3) == level
    assert (earlier.memory.waits, earlier.memory.hedges) == ({}, {})


def test_attempt_timeout_is_a_failure_that_the_memory_learns_of():
    earlier = Remembering()
    race = earlier.race(A, attempt_timeout=1.0)
    race.tick(0.0)
    assert race.tick(1.0) == [Abandon(0, "attempt_timeout"), Exhausted()]
    assert earlier.level(A, 1.0) == FAILED
    other = earlier.race(A, now=2.0)
    assert other.tick(2.0)[0] == Start(
        0, A, "first", memory=(None, None, "put behind: took longer than attempt_timeout 1.00 s before")
    )


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"phase": "connect", "errno": errno.ECONNRESET}, "failed with ECONNRESET"),
        ({"phase": "connect", "errno": 9999}, "failed with 9999"),
        ({"phase": "establish", "errno": None}, "failed"),
    ],
)
def test_a_failure_without_a_reason_is_told_by_its_errno(how, reason):
    earlier = Remembering()
    race = earlier.race(A)
    race.tick(0.0)
    race.failed(0, 0.1, **how)
    assert earlier.memory.why(("", "", None, A[1]), 1.1) == f"put behind: {reason} 1.00 s before"


def test_what_is_measured_is_the_handshake_of_tcp():
    earlier = Remembering()
    race = earlier.race(A)
    race.tick(0.0)
    race.progressed(0, 0.1)
    race.succeeded(0, 0.5)
    assert earlier.memory.delay(("", "", None, A[1]), Adaptive(), 0.5)[0] == pytest.approx(0.4)


def test_line_84_of_many_races_that_wait_for_one_address_as_many_hedge_as_may_be_in_flight():
    earlier = Remembering()
    races = [earlier.race(A, B, max_in_flight=3) for _ in range(10)]
    for race in races:
        race.tick(0.0)
    assert [len(race.tick(0.25)) for race in races] == [1] * 3 + [0] * 7
    held = races[5]
    # It is due again after another delay.
    quiet(held, 0.5)
    # The first one that hedged wins: A is slow, and every race that waits for it alone goes on at once.
    races[0].succeeded(1, 0.27)
    assert [race.tick(0.27) for race in races[1:3]] == [[], []]
    assert all(race.tick(0.27) == [Start(1, B, "history")] for race in races[3:])
    held.succeeded(1, 0.29)
    for race in races:
        race.cancel(0.29)
    assert (earlier.memory.waits, earlier.memory.hedges) == ({}, {})


def test_a_start_that_was_held_back_is_made_after_another_delay():
    earlier = Remembering()
    races = [earlier.race(A, B, C, max_in_flight=2) for _ in range(3)]
    for race in races:
        race.tick(0.0)
    assert [race.tick(0.25) for race in races] == [[Start(1, B, "delay")], [Start(1, B, "delay")], []]
    quiet(races[2], 0.5)
    # By then B is pending elsewhere for longer than its delay too.
    assert races[2].tick(0.5) == [Start(1, C, "delay")]


def test_line_84_what_another_race_has_learned_starts_the_next_before_its_own_delay_but_not_within_the_floor():
    earlier = Remembering()
    one, other, late = earlier.race(A, B), earlier.race(A, B, now=0.1), earlier.race(A, B, now=0.2)
    one.tick(0.0)
    other.tick(0.1)
    late.tick(0.2)
    one.tick(0.25)
    one.succeeded(1, 0.27)
    assert other.tick(0.27) == [Start(1, B, "history")]
    assert other.deadline != inf
    assert other.tick(0.3) == []
    assert late.tick(0.28) == [Start(1, B, "history")]
    young = earlier.race(C, A, now=0.27)
    young.tick(0.27)
    earlier.fails(C, 0.275)
    assert young.tick(0.275) == []
    quiet(young, 0.27 + MIN_ATTEMPT_DELAY)
    assert the_start(young.tick(0.28)).cause == "history"


def test_line_84_a_start_that_is_due_when_the_race_learns_is_no_hedge():
    earlier = Remembering(hedge_budget=1.0)
    earlier.memory.take_token()
    race = earlier.race(A, B, C)
    race.tick(0.0)
    earlier.fails(A, 0.25)
    assert race.tick(0.25) == [Start(1, B, "history")]
    # The schedule goes on from when it was due.
    assert race.deadline == 0.5


def test_what_a_failure_starts_is_not_ascribed_to_what_was_learned():
    earlier = Remembering()
    race = earlier.race(A, B, C)
    race.tick(0.0)
    assert refused(race, 0, 0.004) == []
    earlier.fails(A, 0.004)
    assert race.tick(0.004) == []
    assert the_start(race.tick(MIN_ATTEMPT_DELAY)).cause == "failure"
    race.cancel(0.02)
    # B is pending, and fails elsewhere while a failure has set the timer.
    race = earlier.race(D, B, C, E, now=1.0)
    race.tick(1.0)
    assert the_start(race.tick(1.25)).candidate == B
    assert refused(race, 0, 1.255) == []
    earlier.fails(B, 1.256)
    assert race.tick(1.256) == []
    assert the_start(race.tick(1.26)).cause == "failure"


def test_a_race_that_has_nothing_left_learns_nothing():
    earlier = Remembering()
    race = earlier.race(A, attempt_timeout=1.0)
    race.tick(0.0)
    earlier.fails(A, 0.1)
    assert race.tick(0.1) == []
    assert race.deadline == 1.0


def test_a_start_that_a_failure_has_caused_is_never_held_back():
    earlier = Remembering(hedge_budget=1.0)
    one, other, third = (earlier.race(A, B, C) for _ in range(3))
    for race in (one, other, third):
        race.tick(0.0)
    assert one.tick(0.25) == [Start(1, B, "delay")]
    assert other.tick(0.25) == []
    assert the_start(refused(other, 0, 0.3)).id == 1
    # At the instant that the start is due anyway as well.
    earlier = Remembering(hedge_budget=1.0)
    one, other = (earlier.race(A, B, C) for _ in range(2))
    one.tick(0.0)
    one.tick(0.25)
    other.tick(0.0)
    assert refused(other, 0, 0.25) == [Start(1, B, "delay")]


def test_without_a_token_a_hedge_waits_until_there_is_one():
    earlier = Remembering(hedge_budget=1.0)
    one, other = earlier.race(A, B), earlier.race(A, B, now=0.125)
    one.tick(0.0)
    other.tick(0.125)
    one.tick(0.25)
    for at in (0.375, 0.625, 0.875):
        quiet(other, at)
        assert other.tick(at) == []
    for _ in range(20):
        earlier.memory.succeeded(("", "", None, D[1]), 1.0)
    start = the_start(other.tick(1.125))
    assert (start.candidate, start.cause) == (B, "delay")


def test_the_first_start_waits_for_better_candidates_while_more_may_come():
    earlier = Remembering()
    earlier.fails(A, 0.0)
    race = earlier.race(A, now=1.0, more=True)
    assert race.tick(1.0) == []
    quiet(race, 1.05)
    race.add([B], 1.02)
    assert race.tick(1.02) == [Start(0, B, "first")]
    quiet(race, 1.27)
    race.succeeded(0, 1.04)
    race = earlier.race(A, now=2.0, more=True)
    race.tick(2.0)
    assert the_start(race.tick(2.05)).candidate == A
    # Nothing that waits is known to be any good, so what comes is started at once.
    race.add([B], 2.1)
    assert race.tick(2.1) == [Start(1, B, "history")]


def test_it_does_not_wait_any_longer_when_no_more_will_come():
    earlier = Remembering()
    earlier.fails(A, 0.0)
    race = earlier.race(A, now=1.0, more=True)
    race.tick(1.0)
    race.no_more()
    assert the_start(race.tick(1.01)).candidate == A


# Adaptive delays


def test_line_48_the_bounds_are_those_of_the_rfc():
    assert (Adaptive().initial, Adaptive().minimum, Adaptive().maximum) == (0.250, 0.100, 2.0)
    assert Adaptive(initial=0.1, maximum=0.1).maximum == 0.1
    assert RacePolicy(attempt_delay=Adaptive(minimum=0.010)).attempt_delay == Adaptive(minimum=0.010)
    assert repr(Adaptive(maximum=3)) == "Adaptive(maximum=3)"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"minimum": 0.009}, ValueError, "minimum must be at least 0.01 seconds"),
        ({"maximum": 31}, ValueError, "milliseconds were probably meant"),
        ({"maximum": inf}, ValueError, "maximum must be finite"),
        ({"initial": nan}, ValueError, "initial must be a number of seconds"),
        ({"initial": True}, TypeError, "initial must be a number of seconds"),
        ({"initial": "1"}, TypeError, "initial must be a number of seconds"),
        ({"initial": 0.05}, ValueError, "minimum <= initial <= maximum must hold, got 0.1, 0.05 and 2"),
        ({"initial": 2.5}, ValueError, "minimum <= initial <= maximum must hold, got 0.1, 2.5 and 2"),
    ],
)
def test_bounds_of_adaptive_delays_are_checked(arguments, error, text):
    with pytest.raises(error, match=text):
        Adaptive(**arguments)
