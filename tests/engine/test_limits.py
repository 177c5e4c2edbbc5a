"""Caps, rates and shares, as conversations, and rates against their definition.

Numbers in ids are those of the invariants of outbound destinations. What waiting makes of limits is in test_turns.py.
"""

from __future__ import annotations

import gc
from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.facts import IllegalFact
from trio_connect._engine.limits import Blocked, Cap, Layers, Lease, Limits, Pace, Share
from trio_connect._outbound_values import MICROSECONDS, Rate


def leased(layers: Layers, member: object = "m", now: float = 0.0) -> Lease:
    lease = Limits.acquire(layers, member, now)
    assert isinstance(lease, Lease)
    return lease


def pace_of(rate: Rate) -> Pace:
    return Pace("rate", rate.interval, rate.burst)


# Caps


def test_25_a_cap_has_as_many_places_as_it_says():
    cap = Cap("cap", 2)
    layers = Layers.of([cap], [])
    first, _second = leased(layers), leased(layers)
    assert cap.held == 2
    assert Limits.acquire(layers, "m", 0.0) == Blocked(cap=cap)
    assert Limits.release(first) == (cap,)
    assert cap.held == 1
    leased(layers)


def test_26_all_or_nothing():
    wide, narrow, pace = Cap("wide", 9), Cap("narrow", 1), pace_of(Rate(1))
    layers = Layers.of([wide, narrow], [pace])
    leased(Layers.of([narrow], []))
    for _ in range(5):
        assert Limits.acquire(layers, "m", 0.0) == Blocked(cap=narrow)
    assert (wide.held, narrow.held, pace.next_start) == (0, 1, 0)


def test_26_a_rate_that_refuses_costs_the_caps_and_the_other_rate_nothing():
    cap, slow, fast = Cap("cap", 9), pace_of(Rate(1, 10.0)), pace_of(Rate(1))
    layers = Layers.of([cap], [slow, fast])
    leased(layers)
    assert Limits.acquire(layers, "m", 5.0) == Blocked(until=10.0)
    assert (cap.held, slow.next_start, fast.next_start) == (1, 10_000_000, 1_000_000)


def test_26_the_binding_rate_is_the_one_that_admits_last():
    soon, late = pace_of(Rate(1, 2.0)), pace_of(Rate(1, 3.0))
    leased(Layers.of([], [late]), now=0.0)
    leased(Layers.of([], [soon]), now=2.0)
    assert Limits.acquire(Layers.of([], [soon, late]), "m", 2.5) == Blocked(until=4.0)


def test_27_the_smallest_is_asked_first():
    asked = []

    class Watched(Cap):
        def has_room(self, member: object) -> bool:
            asked.append(self.limit)
            return super().has_room(member)

    limits = [32, 2, 500, 7]
    layers = Layers.of([Watched(str(limit), limit) for limit in limits], [])
    leased(layers)
    assert asked == sorted(limits)


def test_27_the_slowest_rate_comes_first():
    layers = Layers.of([], [pace_of(Rate(5)), pace_of(Rate(1)), pace_of(Rate(7))])
    assert [pace.interval for pace in layers.paces] == [1_000_000, 200_000, 142_858]


def test_a_lease_is_given_back_cap_by_cap_and_each_once():
    connecting, connections = Cap("connecting", 2), Cap("connections", 32)
    lease = leased(Layers.of([connections, connecting], []))
    assert Limits.release(lease, connecting) == (connecting,)
    assert (connecting.held, connections.held) == (0, 1)
    with pytest.raises(IllegalFact, match="release: the lease holds no place under connecting"):
        Limits.release(lease, connecting)
    assert Limits.release(lease) == (connections,)
    assert Limits.release(lease) == ()
    assert (connecting.held, connections.held) == (0, 0)


# One object for each key


def test_34_a_limit_is_shared_by_those_who_name_its_key_and_nobody_else():
    limits = Limits()
    cap, same, other = limits.cap("a", "a", 3), limits.cap("a", "a", 3), limits.cap("b", "b", 3)
    assert cap is same
    assert cap is not other
    rate = Rate(1)
    pace, same_pace, other_pace = limits.pace("a", "a", rate), limits.pace("a", "a", rate), limits.pace("b", "b", rate)
    assert pace is same_pace
    assert pace is not other_pace


def test_34_two_destinations_with_the_same_policy_do_not_share_its_rate():
    limits, rate = Limits(), Rate(1, 60.0)
    first, second = limits.pace("one", "rate", rate), limits.pace("two", "rate", rate)
    leased(Layers.of([], [first]))
    leased(Layers.of([], [second]))


def test_34_of_two_numbers_the_stricter_stands():
    limits = Limits()
    cap = limits.cap("a", "a", 3)
    assert limits.cap("a", "a", 2).limit == 2
    assert limits.cap("a", "a", 9).limit == 2
    assert cap.limit == 2
    pace = limits.pace("a", "a", Rate(1, 2.0, burst=5))
    assert limits.pace("a", "a", Rate(1, 3.0, burst=2)) is pace
    assert (pace.name, pace.interval, pace.burst) == ("a", 3_000_000, 2)
    limits.pace("a", "a", Rate(1, 1.0, burst=9))
    assert (pace.interval, pace.burst) == (3_000_000, 2)


def test_a_limit_lives_as_long_as_somebody_names_it():
    limits = Limits()
    cap = limits.cap("a", "a", 3)
    lease = leased(Layers.of([cap], []))
    del cap
    gc.collect()
    assert limits.cap("a", "again", 3).held == 1
    Limits.release(lease)
    del lease
    gc.collect()
    assert limits.cap("a", "again", 4).name == "again"


# Rates


def test_30_evenly_after_the_burst():
    layers = Layers.of([], [pace_of(Rate(2, 1.0, burst=3))])
    for _ in range(3):
        leased(layers, now=100.0)
    assert Limits.acquire(layers, "m", 100.0) == Blocked(until=100.5)
    assert Limits.acquire(layers, "m", 100.499999) == Blocked(until=100.5)
    leased(layers, now=100.5)
    assert Limits.acquire(layers, "m", 100.5) == Blocked(until=101.0)
    leased(layers, now=200.0)


def test_30_500_a_day_is_exact():
    rate = Rate(500, per=86_400)
    assert rate.interval == 172_800_000
    layers, now = Layers.of([], [pace_of(rate)]), 0.0
    for _ in range(501):
        leased(layers, now=now)
        blocked = Limits.acquire(layers, "m", now)
        assert isinstance(blocked, Blocked)
        assert blocked.until is not None
        now = blocked.until
    assert now == 501 * 172.8


def test_30_a_third_of_a_second_is_rounded_up():
    assert Rate(3).interval == 333_334
    assert Rate(7, 0.5).interval == 71_429


@given(
    rate=st.builds(Rate, st.integers(1, 7), st.sampled_from([0.5, 1.0, 60.0]), st.integers(1, 4)),
    gaps=st.lists(st.sampled_from([0, 1, 250_000, 333_333, 500_000, 3_000_000, 90_000_000]), max_size=40),
)
def test_30_in_any_time_no_more_than_the_burst_and_the_rate(rate, gaps):
    pace = pace_of(rate)
    layers, now = Layers.of([], [pace]), 0
    starts: list[int] = []
    for gap in gaps:
        now += gap
        # By the definition: after every start the k-th is not before k intervals, burst - 1 of them early.
        expected = max(
            (at + (len(starts) - index - rate.burst + 1) * rate.interval for index, at in enumerate(starts)),
            default=now,
        )
        outcome = Limits.acquire(layers, "m", now / MICROSECONDS)
        if expected <= now:
            assert isinstance(outcome, Lease)
            starts.append(now)
        else:
            assert outcome == Blocked(until=expected / MICROSECONDS)
    for i, begin in enumerate(starts):
        for j in range(i, len(starts)):
            window = Fraction(starts[j] - begin, MICROSECONDS)
            assert j - i + 1 <= rate.burst + ceil(window * rate.count / Fraction(rate.per))


def test_30_a_tireless_caller_gets_the_whole_rate():
    pace = pace_of(Rate(4, 1.0))
    layers = Layers.of([], [pace])
    starts = [
        at for at in range(0, 3_000_000, 50_000) if isinstance(Limits.acquire(layers, "m", at / MICROSECONDS), Lease)
    ]
    assert {later - earlier for earlier, later in pairwise(starts)} == {250_000}


# Shares


def a_share(limit: int, reserve: int, *members: str) -> Share:
    share = Share("total", limit, reserve=reserve)
    for member in members:
        share.join(member)
    return share


def takes(share: Share, member: str) -> int:
    """How many places a member can take."""
    count = 0
    while share.has_room(member):
        share.take(member)
        count += 1
    return count


def test_29_each_member_has_its_reserve():
    share = a_share(10, 1, "a", "b", "c")
    assert takes(share, "a") == 8
    assert takes(share, "b") == 1
    assert takes(share, "c") == 1
    assert share.held == 10


def test_29_alone_it_has_all():
    assert takes(a_share(10, 1, "a"), "a") == 10
    assert takes(a_share(10, 0, "a", "b"), "a") == 10


def test_29_at_most_half_is_kept_back():
    share = a_share(10, 1, *map(str, range(100)))
    assert takes(share, "0") == 5
    assert [takes(share, str(n)) for n in range(1, 7)] == [1, 1, 1, 1, 1, 0]


def test_29_a_larger_reserve():
    share = a_share(10, 3, "a", "b")
    assert takes(share, "a") == 7
    assert share.favours("b")
    assert takes(share, "b") == 3
    assert not share.favours("b")
    share.give("b")
    assert share.favours("b")
    assert not share.has_room("a")
    assert share.has_room("b")


def test_29_what_is_given_back_counts_for_the_others():
    share = a_share(4, 1, "a", "b")
    takes(share, "a")
    share.take("b")
    share.give("a")
    assert share.has_room("a")
    share.give("b")
    share.take("a")
    assert not share.has_room("a")


def test_a_member_joins_once_and_leaves_with_nothing():
    share = a_share(4, 1, "a", "b")
    with pytest.raises(IllegalFact, match="join: 'a' is a member"):
        share.join("a")
    share.take("a")
    for member in ("a", "x"):
        with pytest.raises(IllegalFact, match=f"leave: '{member}' is not a member, or holds places"):
            share.leave(member)
    assert takes(share, "a") == 2
    share.leave("b")
    assert takes(share, "a") == 1
    assert share.held == 4


def test_a_plain_cap_favours_nobody():
    assert not Cap("cap", 1).favours("a")


def test_a_lease_gives_places_to_another_of_its_member():
    a, b = Cap("a", 1), Cap("b", 1, shared="k")
    lease, other = leased(Layers.of([a, b], [])), Lease("m", [])
    place = GivenBack()
    lease.places[b] = place
    lease.move([b, Cap("c", 1)], other)
    assert (lease.caps, other.caps, lease.places, other.places) == ([a], [b], {}, {b: place})
    lease.move([a], other)
    assert lease.caps == []
    assert Limits.release(lease) == ()
    Limits.release(other, a)
    assert place.times == 0
    Limits.release(other)
    assert (place.times, a.held, b.held) == (1, 0, 0)


class GivenBack:
    """A place that counts how often it was given back."""

    times = 0
    is_lost = False

    def release(self) -> None:
        self.times += 1


def test_layers_of_two_are_in_order_and_tell_what_is_shared():
    limits = Limits()
    small = limits.cap("s", "small", 1, shared="s")
    large = limits.cap("l", "large", 9)
    slow = limits.pace("slow", "slow", Rate(1), shared="p")
    quick = limits.pace("quick", "quick", Rate(9))
    both = Layers.of([large], [quick]) | Layers.of([small], [slow])
    assert (both.caps, both.paces) == ((small, large), (slow, quick))
    assert (both.shared_caps, both.shared_paces) == ([small], [slow])
