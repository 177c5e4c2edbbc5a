"""How the memory of earlier connects changes the order: lines 32, 33 and 37 of the conformance checklist."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples
from trio_connect._endpoint import Endpoint, Source
from trio_connect._engine.history import Key, Limits, Memory, source_key
from trio_connect._engine.history_order import Recollections
from trio_connect._engine.order import Knowledge, order

LIMITS = Limits(size=100, retry_after=10.0, retry_at_most=60.0, explore_after=600.0, lifetime=3600.0, hedge_budget=None)
V4A, V4B, V4C = (Endpoint(f"192.0.2.{n}", 443) for n in (1, 2, 3))
V6A, V6B = (Endpoint(f"2001:db8::{n}", 443) for n in (1, 2))
ONE, OTHER = Source("198.51.100.1"), Source("198.51.100.2")


def key(endpoint: Endpoint, source: Source | None = None) -> Key:
    return ("", "", source_key(source, endpoint), endpoint)


def ordered(memory: Memory, now: float, *endpoints: Endpoint, sources: tuple[Source, ...] = ()) -> list[Endpoint]:
    return [*order(endpoints, Knowledge(history=Recollections(memory, "", "", sources, now)))]


def used(memory: Memory, endpoint: Endpoint, at: float, rtt: float = 0.02, source: Source | None = None) -> None:
    """Connect once."""
    memory.tried(key(endpoint, source), at)
    memory.answered(key(endpoint, source), rtt, at)
    memory.succeeded(key(endpoint, source), at)


@pytest.fixture
def memory() -> Memory:
    return Memory(LIMITS)


def test_line_32_a_lower_round_trip_goes_first(memory):
    used(memory, V4A, 0.0, rtt=0.03)
    used(memory, V4B, 0.0, rtt=0.02)
    used(memory, V4C, 0.0, rtt=0.01)
    for given_order in permutations([V4A, V4B, V4C]):
        assert ordered(memory, 1.0, *given_order) == [V4C, V4B, V4A]


def test_line_32_a_round_trip_never_beats_the_rules_before_it(memory):
    used(memory, V4A, 0.0, rtt=0.001)
    used(memory, V6A, 0.0, rtt=0.9)
    assert ordered(memory, 1.0, V4A, V6A) == [V6A, V4A]


def test_line_32_an_old_round_trip_decides_nothing(memory):
    used(memory, V4B, 0.0, rtt=0.01)
    memory.succeeded(key(V4B), 3500.0)
    used(memory, V4A, 3500.0, rtt=0.9)
    assert ordered(memory, 3599.0, V4A, V4B) == [V4B, V4A]
    assert ordered(memory, 3600.0, V4A, V4B) == [V4A, V4B]


def test_line_33_used_before_goes_ahead_of_never_used(memory):
    memory.succeeded(key(V4C), 0.0)
    assert ordered(memory, 1.0, V4A, V4B, V4C) == [V4C, V4A, V4B]


def test_line_33_but_after_a_measured_one(memory):
    memory.succeeded(key(V4C), 0.0)
    memory.answered(key(V4B), 0.5, 0.0)
    assert ordered(memory, 1.0, V4A, V4B, V4C) == [V4B, V4C, V4A]


def test_line_33_tried_in_vain_is_never_used(memory):
    memory.tried(key(V4B), 0.0)
    assert ordered(memory, 1.0, V4A, V4B) == [V4A, V4B]


def test_what_failed_or_is_slow_goes_behind_all_others_after_families_took_turns(memory):
    memory.failed(key(V6A), 0.0, "refused", began=0.0)
    memory.failed(key(V4A), 0.0, "slow", began=0.0, slow=True)
    assert ordered(memory, 1.0, V6A, V4A, V6B, V4B, V4C) == [V6B, V4B, V4C, V4A, V6A]


def test_when_the_time_is_over_it_is_tried_first_for_once(memory):
    used(memory, V4A, 0.0)
    used(memory, V4B, 0.0, rtt=0.9)
    memory.failed(key(V4B), 100.0, "refused", began=100.0)
    assert ordered(memory, 109.9, V4A, V4B) == [V4A, V4B]
    assert ordered(memory, 110.0, V4A, V4B, V4C) == [V4B, V4A, V4C]
    memory.succeeded(key(V4B), 110.0)
    assert ordered(memory, 111.0, V4A, V4B) == [V4A, V4B]


def test_of_several_one_is_tried_first_and_the_next_is_good(memory):
    used(memory, V4C, 0.0)
    for endpoint in (V4A, V4B):
        memory.failed(key(endpoint), 0.0, "refused", began=0.0)
    assert ordered(memory, 10.0, V4A, V4B, V4C) == [V4A, V4C, V4B]


def test_one_that_is_on_trial_in_its_family_goes_first_in_its_family(memory):
    used(memory, V6A, 0.0)
    memory.failed(key(V4B), 0.0, "refused", began=0.0)
    assert ordered(memory, 10.0, V6A, V4A, V4B) == [V6A, V4B, V4A]


def test_line_37_what_was_not_tried_for_long_is_tried_first_for_once(memory):
    used(memory, V4A, 0.0)
    assert ordered(memory, 599.0, V4A, V4B, V4C) == [V4A, V4B, V4C]
    assert ordered(memory, 600.0, V4A, V4B, V4C) == [V4B, V4A, V4C]
    used(memory, V4B, 600.0, rtt=0.5)
    assert ordered(memory, 1199.0, V4A, V4B, V4C) == [V4A, V4B, V4C]
    assert ordered(memory, 1200.0, V4A, V4B, V4C) == [V4C, V4A, V4B]


def test_line_37_nothing_is_explored_before_there_is_a_preference(memory):
    assert ordered(memory, 10_000.0, V4A, V4B) == [V4A, V4B]
    memory.failed(key(V4A), 10_000.0, "refused", began=10_000.0)
    assert ordered(memory, 10_001.0, V4B, V4C) == [V4B, V4C]


@settings(max_examples=examples(25, 250), deadline=None)
@given(best=st.integers(0, 3), first=st.integers(0, 3))
def test_line_37_clients_with_any_history_find_the_best_one(best, first):
    """Whatever was the best one first, after a change each client comes to prefer the one that is the best now."""
    memory = Memory(LIMITS)
    endpoints = [Endpoint(f"192.0.2.{n}", 443) for n in range(4)]
    for number, endpoint in enumerate(endpoints):
        used(memory, endpoint, 0.0, rtt=0.02 if number == first else 0.05)
    chosen: Counter[Endpoint] = Counter()
    for minute in range(1, 120):
        at = minute * 60.0
        leader = ordered(memory, at, *endpoints)[0]
        used(memory, leader, at, rtt=0.01 if leader == endpoints[best] else 0.05)
        if minute > 40:  # four addresses, ten minutes each
            chosen[leader] += 1
    assert chosen.most_common(1)[0][0] == endpoints[best]
    assert chosen[endpoints[best]] >= 0.85 * sum(chosen.values())


def test_of_several_sources_the_best_one_counts(memory):
    used(memory, V4A, 0.0, rtt=0.03, source=ONE)
    used(memory, V4B, 0.0, rtt=0.02, source=ONE)
    used(memory, V4A, 0.0, rtt=0.01, source=OTHER)
    assert ordered(memory, 1.0, V4B, V4A, sources=(ONE, OTHER)) == [V4A, V4B]
    assert ordered(memory, 1.0, V4A, V4B, sources=(ONE,)) == [V4B, V4A]
    used(memory, V4B, 0.0, rtt=0.015, source=OTHER)
    assert ordered(memory, 1.0, V4B, V4A, sources=(ONE, OTHER)) == [V4A, V4B]
    memory.failed(key(V4A, ONE), 1.0, "refused", began=1.0)
    assert ordered(memory, 2.0, V4B, V4A, sources=(ONE, OTHER)) == [V4A, V4B]
    assert ordered(memory, 2.0, V4A, V4C, sources=(ONE,)) == [V4C, V4A]


def test_one_that_is_on_trial_from_one_source_and_works_from_another_is_not_tried_first(memory):
    used(memory, V4A, 0.0, rtt=0.01, source=ONE)
    used(memory, V4B, 0.0, rtt=0.03, source=OTHER)
    memory.failed(key(V4B, ONE), 0.0, "refused", began=0.0)
    assert ordered(memory, 10.0, V4A, V4B, sources=(ONE, OTHER)) == [V4A, V4B]
    assert ordered(memory, 10.0, V4A, V4B, sources=(ONE,)) == [V4B, V4A]


def test_line_37_what_was_tried_from_any_source_was_tried(memory):
    used(memory, V4A, 0.0, source=ONE)
    used(memory, V4B, 0.0, rtt=0.5, source=ONE)
    used(memory, V4B, 500.0, rtt=0.5, source=OTHER)
    used(memory, V4A, 650.0, source=ONE)
    assert ordered(memory, 700.0, V4A, V4B, sources=(ONE, OTHER)) == [V4A, V4B]
    assert ordered(memory, 1100.0, V4A, V4B, sources=(ONE, OTHER)) == [V4B, V4A]


def test_line_37_the_time_to_the_first_exploration_runs_from_the_first_connect_from_any_source(memory):
    used(memory, V4A, 0.0, source=ONE)
    used(memory, V4A, 650.0, source=OTHER)
    assert ordered(memory, 700.0, V4A, V4B, sources=(ONE, OTHER)) == [V4B, V4A]


def test_a_family_that_no_source_has_is_in_its_place(memory):
    assert ordered(memory, 1.0, V6A, V4A, sources=(ONE,)) == [V6A, V4A]
    assert ordered(memory, 1.0, V6A, V6B, sources=(ONE,)) == [V6A, V6B]
