"""One race and its memory of earlier connects: who is next, hedges, and what races learn from each other."""

from __future__ import annotations

from math import inf
from typing import Any

import attrs
import pytest

from trio_connect._endpoint import Endpoint, Source
from trio_connect._engine.history import FAILED, FINE, SLOW, Entry, Limits, Memory, source_key
from trio_connect._engine.race_memory import RaceMemory
from trio_connect._engine.race_table import Candidate
from trio_connect._policy import Adaptive, RacePolicy

LIMITS = Limits(size=100, retry_after=10.0, retry_at_most=60.0, explore_after=600.0, lifetime=3600.0, hedge_budget=None)


def peer(number: int, source: Source | None = None) -> Candidate:
    return (source, Endpoint(f"192.0.2.{number}", 443))


A, B, C, D = map(peer, range(1, 5))


@attrs.define
class Desk:
    """A memory, and the races that were woken."""

    memory: Memory = attrs.Factory(lambda: Memory(LIMITS))
    woken: list[str] = attrs.Factory(list)

    def race(self, name: str = "", **arguments: Any) -> RaceMemory:
        policy = RacePolicy(**{word: arguments.pop(word) for word in {"attempt_delay", "max_in_flight"} & {*arguments}})
        return RaceMemory(self.memory, "", "", policy, wake=lambda: self.woken.append(name), **arguments)

    def entry(self, candidate: Candidate, now: float) -> Entry:
        source, endpoint = candidate
        entry = self.memory.entry(("", "", source_key(source, endpoint), endpoint), now)
        assert entry is not None
        return entry

    def level(self, candidate: Candidate, now: float) -> int:
        source, endpoint = candidate
        return self.memory.level(("", "", source_key(source, endpoint), endpoint), now)

    def fails(self, candidate: Candidate, now: float, *, slow: bool = False) -> None:
        self.memory.failed(("", "", None, candidate[1]), now, "refused", began=now, slow=slow)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Who is next


def test_the_first_that_is_in_its_place_is_next(desk):
    desk.fails(A, 0.0)
    race = desk.race()
    assert race.choose([A, B, C], 1.0) == B
    assert race.notes == {A: "put behind: refused 1.00 s before"}
    assert race.choose([A, C], 1.0) == C


def test_of_those_that_are_put_behind_the_least_bad_is_next_and_of_these_the_first(desk):
    desk.fails(A, 0.0)
    desk.fails(B, 0.0, slow=True)
    desk.fails(C, 0.0, slow=True)
    race = desk.race()
    assert race.choose([A, B, C], 1.0) == B
    assert race.choose([A, C], 1.0) == C
    assert race.choose([A], 1.0) == A
    desk.fails(D, 0.0)
    assert race.choose([D, A], 1.0) == D


def test_on_trial_it_is_next_and_the_report_says_why(desk):
    desk.fails(A, 0.0)
    race, other = desk.race(), desk.race()
    assert race.choose([A, B], 10.0) == A
    assert race.notes == {A: "tried again: refused 10.00 s before"}
    race.begin(0, A, 10.0)
    assert other.choose([A, B], 10.0) == B


def test_line_84_what_another_race_waits_for_in_vain_is_not_next(desk):
    one, other = desk.race(), desk.race()
    one.begin(0, A, 0.0)
    assert other.choose([A, B], 0.249) == A
    assert other.choose([A, B], 0.25) == B
    one.end(0, 0.3, "won")
    assert other.choose([A, B], 0.3) == A


def test_sources_are_told_apart(desk):
    here, there = Source("198.51.100.1"), Source("198.51.100.2")
    race = desk.race()
    race.begin(0, peer(1, here), 0.0)
    race.end(0, 0.1, "failed", "refused")
    assert race.choose([peer(1, here), peer(1, there), A], 0.2) == peer(1, there)
    assert race.choose([peer(1, here), A], 0.2) == A


# The first start


def test_the_first_start_waits_for_better_candidates_as_long_as_the_resolution_delay(desk):
    desk.fails(A, 0.0)
    race = desk.race()
    assert race.begins([A], 1.0, more=True) == pytest.approx(1.05)
    assert race.begins([A], 1.04, more=True) == pytest.approx(1.05)
    assert race.begins([A, B], 1.045, more=True) == 1.045


def test_it_does_not_wait_when_no_more_will_come(desk):
    desk.fails(A, 0.0)
    race = desk.race()
    assert race.begins([A], 1.0, more=False) is None
    race.begins([A], 1.0, more=True)
    assert race.begins([A], 1.01, more=False) == 1.01


def test_it_does_not_wait_when_one_is_in_its_place(desk):
    assert desk.race().begins([A], 1.0, more=True) is None


# Delays


def test_line_48_the_delay_is_the_policys_unless_it_is_adaptive(desk):
    assert desk.race(attempt_delay=0.3).begin(0, A, 0.0) == (None, None)
    desk.memory.answered(("", "", None, B[1]), 0.08, 0.0)
    race = desk.race(attempt_delay=Adaptive())
    assert race.begin(0, B, 0.0) == (pytest.approx(0.32), "round trip 80 ms +- 40 ms")
    assert race.begin(1, C, 0.0) == (0.25, "initial: no round trip is known")
    other = desk.race()
    assert other.choose([B], 0.319) == B
    assert other.notes == {}
    other.choose([B], 0.3201)
    assert other.notes == {B: "put behind: pending in another race for 320.1 ms"}


# How attempts end


def test_the_winner_is_measured_and_used(desk):
    race = desk.race()
    race.begin(0, A, 5.0)
    assert desk.entry(A, 5.0).tried == 5.0
    race.end(0, 5.02, "won")
    entry = desk.entry(A, 5.02)
    assert (entry.srtt, entry.used, entry.measured) == (pytest.approx(0.02), 5.02, 5.02)


def test_with_an_establish_the_handshake_of_tcp_alone_is_measured(desk):
    race = desk.race()
    race.begin(0, A, 5.0)
    race.connected(0, 5.02)
    assert desk.entry(A, 5.02).used == -inf
    race.end(0, 5.5, "won")
    entry = desk.entry(A, 5.5)
    assert (entry.srtt, entry.used, entry.measured) == (pytest.approx(0.02), 5.5, 5.02)


def test_with_fast_open_nothing_is_measured(desk):
    race = desk.race(measures=False)
    race.begin(0, A, 5.0)
    race.connected(0, 5.0)
    race.end(0, 5.5, "won")
    assert (desk.entry(A, 5.5).measured, desk.entry(A, 5.5).used) == (-inf, 5.5)


def test_a_failure_counts_and_keeps_its_reason(desk):
    race = desk.race()
    race.begin(0, A, 0.0)
    race.end(0, 0.02, "failed", "connection refused")
    assert desk.level(A, 0.02) == FAILED
    assert desk.entry(A, 0.02).reason == "connection refused"


@pytest.mark.parametrize(("ended", "level"), [(0.249, FINE), (0.25, SLOW), (3.0, SLOW)])
def test_given_up_after_its_delay_it_is_slow_and_before_nothing_is_known(desk, ended, level):
    race = desk.race()
    race.begin(0, A, 0.0)
    race.end(0, ended, "given up")
    assert desk.level(A, ended) == level
    if level == SLOW:
        assert desk.entry(A, ended).reason == f"slow, no result within {round(ended * 1000)} ms,"


def test_while_it_establishes_the_delay_is_longer_by_its_handshake_as_the_next_start_is_put_off(desk):
    race = desk.race()
    for number, candidate in enumerate((A, B, C)):
        race.begin(number, candidate, 0.0)
    race.connected(0, 0.1)
    race.connected(1, 0.1)
    race.connected(2, 1.0)
    race.end(0, 0.349, "given up")
    race.end(1, 0.3501, "given up")
    assert (desk.level(A, 1.0), desk.level(B, 1.0)) == (FINE, SLOW)
    # Put off by one delay at most.
    race.end(2, 0.5, "given up")
    assert desk.level(C, 1.0) == SLOW


def test_a_local_end_says_nothing_of_the_address(desk):
    race = desk.race()
    race.begin(0, A, 0.0)
    race.end(0, 9.0, "local")
    assert desk.level(A, 9.0) == FINE
    assert desk.memory.waits == {}


def test_one_at_a_time_is_never_slow(desk):
    race = desk.race(attempt_delay=inf)
    race.begin(0, A, 0.0)
    assert desk.race().choose([A, B], 1000.0) == A
    race.end(0, 1000.0, "given up")
    assert desk.level(A, 1000.0) == FINE


def test_times_are_moved_to_the_clock_of_the_memory(desk):
    race = desk.race(offset=100.0)
    race.begin(0, A, 5.0)
    race.connected(0, 5.01)
    race.end(0, 5.02, "failed", "refused")
    entry = desk.entry(A, 105.1)
    assert (entry.tried, entry.measured, entry.failed) == (105.0, 105.01, 105.02)
    assert entry.srtt == pytest.approx(0.01)
    assert race.choose([A, B], 6.0) == B
    assert race.choose([A, B], 5.02 + 10.0) == A
    assert race.begins([A], 6.0, more=True) == pytest.approx(6.05)
    assert desk.race(offset=100.0).begins([A], 15.1, more=True) is None
    race.begin(1, B, 8.0)
    race.learn()
    desk.fails(B, 109.0)
    assert race.has_learned(9.0)
    race.learn()
    assert not race.has_learned(19.0)


# Hedges


def test_line_84_of_the_races_that_wait_for_one_address_no_more_hedge_than_may_be_in_flight(desk):
    races = [desk.race(max_in_flight=3) for _ in range(10)]
    for race in races:
        race.begin(0, A, 0.0)
    assert [race.may_hedge() for race in races] == [True] * 3 + [False] * 7
    elsewhere = desk.race(max_in_flight=3)
    elsewhere.begin(0, B, 0.0)
    assert elsewhere.may_hedge()
    # Held back once for each start.
    assert races[3].may_hedge()
    races[3].begin(1, B, 0.25)
    assert not races[3].may_hedge()


def test_when_a_race_that_hedged_is_over_another_one_may(desk):
    one, other, third = (desk.race(max_in_flight=1) for _ in range(3))
    for race in (one, other, third):
        race.begin(0, A, 0.0)
    assert one.may_hedge()
    assert not other.may_hedge()
    one.over()
    assert desk.memory.hedges == {}
    one.over()
    assert third.may_hedge()
    assert desk.memory.hedges == {("", "", None, A[1]): 1}


def test_each_hedge_of_a_race_is_counted_and_given_back(desk):
    race = desk.race(max_in_flight=3)
    race.begin(0, A, 0.0)
    assert [race.may_hedge() for _ in range(2)] == [True, True]
    assert desk.memory.hedges == {("", "", None, A[1]): 2}
    race.over()
    assert desk.memory.hedges == {}


def test_a_hedge_counts_for_the_oldest_attempt(desk):
    race = desk.race()
    race.begin(0, A, 0.0)
    race.begin(1, B, 0.25)
    assert race.may_hedge()
    assert desk.memory.hedges == {("", "", None, A[1]): 1}


def test_without_a_token_no_hedge_however_often_it_was_held_back():
    desk = Desk(Memory(attrs.evolve(LIMITS, hedge_budget=1.0)))
    one, other = desk.race(), desk.race()
    one.begin(0, A, 0.0)
    other.begin(0, A, 0.0)
    assert one.may_hedge()
    assert [other.may_hedge() for _ in range(3)] == [False] * 3
    assert desk.memory.hedges == {("", "", None, A[1]): 1}


# Learning from each other


def test_line_84_who_waits_for_what_fails_elsewhere_learns_of_it(desk):
    one, other, elsewhere = desk.race("one"), desk.race("other"), desk.race("elsewhere")
    one.begin(0, A, 0.0)
    other.begin(0, A, 0.1)
    elsewhere.begin(0, B, 0.1)
    one.end(0, 0.3, "failed", "refused")
    assert desk.woken == ["other"]
    assert other.has_learned(0.3)
    assert not other.has_learned(0.3)
    assert not one.has_learned(0.3)
    assert not elsewhere.has_learned(0.3)


def test_one_that_waits_for_something_else_as_well_goes_on(desk):
    one, other = desk.race("one"), desk.race("other")
    one.begin(0, A, 0.0)
    other.begin(0, A, 0.1)
    other.begin(1, B, 0.2)
    one.end(0, 0.3, "given up")
    assert desk.woken == ["other"]
    assert not other.has_learned(0.3)


def test_one_that_is_connected_and_establishes_goes_on(desk):
    one, other = desk.race("one"), desk.race("other")
    one.begin(0, A, 0.0)
    other.begin(0, A, 0.1)
    other.connected(0, 0.2)
    one.end(0, 0.3, "given up")
    assert not other.has_learned(0.3)


def test_one_that_waits_for_nothing_learns_nothing(desk):
    race = desk.race("one")
    race.look_again()
    assert not race.has_learned(0.0)


def test_new_candidates_are_a_reason_to_look_again(desk):
    race = desk.race("one")
    desk.fails(A, 0.0)
    race.begin(0, A, 1.0)
    assert not race.has_learned(1.1)
    race.look_again()
    assert race.has_learned(1.2)
    assert desk.woken == []
