"""Plans. Numbers in ids are those of the invariants of outbound destinations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from random import Random
from socket import AF_INET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.plan import Host, make_plan, weighted_order
from trio_connect._outbound_values import Candidate


def v4(number: int, priority: int = 0, weight: int = 1) -> Candidate:
    return Candidate((f"192.0.2.{number}", 25), priority, weight)


def v6(number: int, priority: int = 0, weight: int = 1) -> Candidate:
    return Candidate((f"2001:db8::{number}", 25), priority, weight)


def plan(
    candidates: Sequence[Candidate | Host],
    *,
    seed: int = 0,
    limit: int = 99,
    cooling: dict[Candidate, float] | None = None,
) -> list[Candidate]:
    hosts = [each if isinstance(each, Host) else Host.of(each) for each in candidates]
    return make_plan(hosts, 100.0, lambda each: (cooling or {}).get(each, -inf), limit, Random(seed))


def test_one_candidate_is_its_own_plan():
    assert plan([v4(1)]) == [v4(1)]
    assert plan([v4(1)], cooling={v4(1): 200.0}) == [v4(1)]
    assert plan([]) == []


def test_35_the_lower_priority_goes_first():
    for seed in range(20):
        assert plan([v4(3, 30), v4(1, 10, weight=0), v4(2, 20, weight=9)], seed=seed) == [
            v4(1, 10, weight=0),
            v4(2, 20, weight=9),
            v4(3, 30),
        ]


def test_35_within_a_priority_the_order_follows_the_weights():
    candidates = [v4(n, weight=weight) for n, weight in ((1, 1), (2, 2), (3, 5))]
    hosts = [Host.of(each) for each in candidates]
    random, rounds = Random(2782), 4000
    orders = Counter(
        tuple(each.weight for each in make_plan(hosts, 0.0, lambda _: -inf, 9, random)) for _ in range(rounds)
    )
    chi_square = 0.0
    for order, seen in orders.items():
        first, second, _ = order
        expected = rounds * first / 8 * second / (8 - first)
        chi_square += (seen - expected) ** 2 / expected
    assert len(orders) == 6
    # The 99.9 % point of chi-square with 5 degrees of freedom.
    assert chi_square < 20.5


def test_35_weight_0_comes_last_in_any_order():
    random = Random(1)
    orders = Counter(tuple(weighted_order([0, 3, 0], random)) for _ in range(200))
    assert set(orders) == {(1, 0, 2), (1, 2, 0)}
    assert min(orders.values()) > 60


def test_35_equal_weights_are_shuffled():
    random = Random(1)
    firsts = Counter(weighted_order([1, 1, 1, 1], random)[0] for _ in range(4000))
    assert all(850 < firsts[index] < 1150 for index in range(4))
    assert weighted_order([7], random) == [0]
    assert weighted_order([], random) == []


def test_35_the_addresses_of_a_host_share_its_draw_and_keep_their_order():
    one, two = Host(10, 1, (v6(1, 10), v4(1, 10))), Host(10, 1, (v6(2, 10), v4(2, 10)))
    seen = {tuple(plan([one, two], seed=seed)) for seed in range(20)}
    assert seen == {(*one.candidates, *two.candidates), (*two.candidates, *one.candidates)}


def test_36_families_alternate_within_a_priority():
    candidates = [v4(1), v4(2), v4(3), v6(1), v6(2), v4(4, 20), v6(3, 20)]
    firsts = set()
    for seed in range(30):
        families = [each.endpoint.family for each in plan(candidates, seed=seed)]
        assert all(families[n] != families[n + 1] for n in range(3))
        assert families[4] == AF_INET
        assert families[5] != families[6]
        firsts.add(families[0])
    assert len(firsts) == 2, "the draw decides which family begins"


def test_36_both_families_are_there_before_the_limit():
    one = Host(0, 1, (*map(v4, range(1, 20)), v6(1)))
    assert plan([one], limit=2) == [v4(1), v6(1)]
    assert plan([one], limit=1) == [v4(1)]
    two = Host(20, 1, (v6(1, 20),))
    first = Host(10, 1, tuple(v4(n, 10) for n in range(1, 20)))
    assert plan([first, two], limit=4) == [v4(1, 10), v4(2, 10), v4(3, 10), v6(1, 20)]


def test_36_every_priority_is_there_while_places_last():
    hosts = [Host(p, 1, tuple(v4(10 * p + n, p) for n in range(9))) for p in (1, 2, 3)]
    assert plan(hosts, limit=5) == [v4(10, 1), v4(11, 1), v4(12, 1), v4(20, 2), v4(30, 3)]
    assert plan(hosts, limit=2) == [v4(10, 1), v4(20, 2)]
    assert plan(hosts, limit=27) == [each for host in hosts for each in host.candidates]


def test_38_addresses_in_cooldown_go_last_the_soonest_first():
    candidates = [v4(1, 10), v4(2, 20), v4(3, 30), v4(4, 40)]
    cooling = {v4(1, 10): 160.0, v4(2, 20): 150.0, v4(4, 40): 100.0}
    assert plan(candidates, cooling=cooling) == [v4(3, 30), v4(4, 40), v4(2, 20), v4(1, 10)]


def test_38_a_cooldown_that_ends_now_has_ended():
    assert plan([v4(1, 10), v4(2, 20)], cooling={v4(1, 10): 100.0}) == [v4(1, 10), v4(2, 20)]


def test_38_when_all_are_in_cooldown_the_soonest_is_tried():
    cooling = {v4(1): 160.0, v4(2): 150.0, v4(3): 170.0}
    assert plan([v4(1), v4(2), v4(3)], cooling=cooling) == [v4(2), v4(1), v4(3)]
    assert plan([v4(1, 10), v4(2, 5)], cooling={v4(1, 10): 160.0, v4(2, 5): 160.0}) == [v4(2, 5), v4(1, 10)]


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([v4, v6]), st.integers(0, 3), st.integers(0, 3), st.sampled_from([None, 90.0, 150.0])
        ),
        max_size=12,
    ),
    limit=st.integers(1, 14),
    seed=st.integers(0, 9),
)
def test_what_a_plan_always_is(rows, limit, seed):
    candidates, cooling = [], {}
    for number, (make, priority, weight, until) in enumerate(rows, 1):
        candidate = make(number, priority, weight)
        candidates.append(candidate)
        if until is not None:
            cooling[candidate] = until
    chosen = plan(candidates, cooling=cooling, limit=limit, seed=seed)
    assert len(chosen) == min(limit, len(candidates))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(candidates)
    warm = [cooling.get(each, 0.0) > 100.0 for each in chosen]
    assert warm == sorted(warm)
    fit = [each.priority for each in chosen if cooling.get(each, 0.0) <= 100.0]
    assert fit == sorted(fit)
    families = {each.endpoint.family for each in candidates}
    if limit >= len(families):
        assert {each.endpoint.family for each in chosen} == families
    priorities = {each.priority for each in candidates}
    if limit >= len(families) + len(priorities):
        assert {each.priority for each in chosen} == priorities


@pytest.mark.parametrize("limit", [1, 8])
def test_a_host_of_many_addresses_is_cut(limit):
    host = Host(0, 1, tuple(map(v4, range(1, 30))))
    assert plan([host], limit=limit) == list(host.candidates[:limit])
