"""What is remembered of addresses and sources."""

from __future__ import annotations

from math import inf, nextafter
from random import Random

from trio_connect._engine.health import Cooldowns, Strikes, Suspensions
from trio_connect._outbound_values import Backoff

LAW = Backoff(initial=1.0, multiplier=2.0, maximum=6.0, jitter=0.0)


def cooldowns(law: Backoff = LAW, expiry: float = 100.0) -> Cooldowns:
    return Cooldowns(law, expiry, Random(0))


def test_4_an_address_that_failed_is_in_cooldown_from_when_it_failed():
    known = cooldowns()
    assert known.until("a") == -inf
    assert known.failures("a") == 0
    known.failed("a", 10.0)
    assert (known.until("a"), known.failures("a")) == (11.0, 1)
    assert known.until("b") == -inf


def test_each_attempt_counts_once_and_the_cooldown_grows_by_the_law():
    known = cooldowns()
    untils = []
    for at in (10.0, 20.0, 30.0, 40.0, 50.0):
        known.failed("a", at)
        untils.append(known.until("a") - at)
    assert untils == [1.0, 2.0, 4.0, 6.0, 6.0]


def test_only_success_resets():
    known = cooldowns()
    known.failed("a", 10.0)
    known.failed("a", 99.0)
    known.succeeded("a")
    assert (known.until("a"), known.failures("a"), len(known)) == (-inf, 0, 0)
    known.failed("a", 100.0)
    assert known.until("a") == 101.0
    known.succeeded("b")


def test_a_failure_told_late_does_not_shorten_a_cooldown():
    known = cooldowns()
    known.failed("a", 50.0)
    known.failed("a", 10.0)
    assert known.until("a") == 51.0
    assert known.failures("a") == 2


def test_the_jitter_is_drawn_for_each():
    known = cooldowns(Backoff(jitter=0.5))
    for name in "abcdefgh":
        known.failed(name, 0.0)
    untils = {known.until(name) for name in "abcdefgh"}
    assert len(untils) == 8
    assert all(0.5 <= until <= 1.5 for until in untils)
    assert min(untils) < 1 < max(untils)


def test_40_what_nobody_has_failed_on_for_long_is_forgotten():
    known = cooldowns(expiry=100.0)
    known.failed("old", 0.0)
    known.failed("older", 0.0)
    known.failed("old", 50.0)
    known.failed("x", 100.999)
    assert len(known) == 3
    known.failed("x", 101.0)
    assert (known.failures("older"), known.failures("old"), len(known)) == (0, 2, 2)
    known.failed("x", 152.0)
    assert (known.failures("old"), len(known)) == (0, 1)


def test_9_a_suspension_has_a_time_and_a_reason():
    suspended = Suspensions()
    assert (suspended.until("a"), suspended.reason("a"), len(suspended)) == (-inf, "", 0)
    suspended.suspend("a", 60.0, "cannot bind")
    assert (suspended.until("a"), suspended.reason("a")) == (60.0, "cannot bind")
    assert suspended.until("b") == -inf
    assert [suspended.is_on("a", now) for now in (0.0, 59.999, 60.0, 61.0)] == [True, True, False, False]
    assert not suspended.is_on("a", nextafter(60.0, 0.0))  # who has slept for the rest comes then
    assert not suspended.is_on("b", 0.0)


def test_of_two_suspensions_the_later_end_counts():
    suspended = Suspensions()
    suspended.suspend("a", 60.0, "first")
    suspended.suspend("a", 50.0, "sooner")
    suspended.suspend("a", 60.0, "same")
    assert (suspended.until("a"), suspended.reason("a")) == (60.0, "first")
    suspended.suspend("a", 70.0, "later")
    assert (suspended.until("a"), suspended.reason("a")) == (70.0, "later")


def test_suspensions_are_lifted_and_forgotten():
    suspended = Suspensions()
    for name, until in (("a", 10.0), ("b", 20.0), ("c", 30.0)):
        suspended.suspend(name, until, "")
    suspended.lift(["a", "x"])
    assert (suspended.until("a"), len(suspended)) == (-inf, 2)
    suspended.forget(20.0)
    assert (suspended.until("b"), suspended.until("c"), len(suspended)) == (-inf, 30.0, 1)


def test_a_proxy_that_fails_three_times_in_five_minutes_is_out_and_the_count_begins_anew():
    strikes = Strikes()
    assert [strikes.failed("a", at) for at in (0.0, 200.0, 300.0)] == [False, False, True]
    assert [strikes.failed("a", at) for at in (300.0, 300.0, 300.0)] == [False, False, True]
    assert not strikes.failed("b", 300.0)


def test_failures_of_a_proxy_that_are_further_apart_do_not_add_up():
    strikes = Strikes()
    assert [strikes.failed("a", at) for at in (0.0, 200.0, 300.001, 500.0, 500.002)] == [
        False,
        False,
        False,
        True,
        False,
    ]
    strikes = Strikes()
    assert not any(strikes.failed("a", 151.0 * n) for n in range(50))
