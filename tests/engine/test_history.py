"""What is remembered of addresses: round-trip times, failures, how far back they go, and how much is kept."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples
from trio_connect._endpoint import Endpoint, Source
from trio_connect._engine.history import FAILED, FINE, SLOW, Entry, Key, Limits, Memory, source_key
from trio_connect._policy import Adaptive

EXAMPLES = examples(40, 1000)

LIMITS = Limits(size=100, retry_after=10.0, retry_at_most=60.0, explore_after=600.0, lifetime=3600.0, hedge_budget=None)


def key(number: int = 1, network: str = "", partition: str = "") -> Key:
    return (network, partition, None, Endpoint(f"192.0.2.{number}", 443))


A, B, C = key(1), key(2), key(3)


def memory(**changes: Any) -> Memory:
    return Memory(attrs.evolve(LIMITS, **changes))


def known(mem: Memory, of: Key, now: float) -> Entry:
    entry = mem.entry(of, now)
    assert entry is not None
    return entry


class Waiting:
    """An attempt under way."""

    def __init__(self, mem: Memory, of: Key, began: float, delay: float = 0.25) -> None:
        self.began = began
        self.overdue = began + delay
        self.learned = 0
        mem.waits.setdefault(of, {})[self] = None

    def learn(self) -> None:
        self.learned += 1


# Round-trip times


def test_the_first_sample_is_the_mean_and_half_of_it_the_variation():
    mem = memory()
    mem.answered(A, 0.080, 1.0)
    entry = known(mem, A, 1.0)
    assert (entry.srtt, entry.rttvar, entry.measured) == (0.080, 0.040, 1.0)


def test_further_samples_are_smoothed_as_rfc_6298_says():
    mem = memory()
    mem.answered(A, 0.080, 1.0)
    mem.answered(A, 0.160, 2.0)
    entry = known(mem, A, 2.0)
    # RTTVAR <- 3/4 RTTVAR + 1/4 |SRTT - R'|, with the SRTT before this sample
    assert entry.rttvar == pytest.approx(0.75 * 0.040 + 0.25 * 0.080)
    assert entry.srtt == pytest.approx(7 / 8 * 0.080 + 0.160 / 8)


def test_a_sample_of_a_second_may_be_of_a_syn_that_was_sent_again():
    mem = memory()
    mem.answered(A, 1.0, 1.0)
    assert known(mem, A, 1.0).measured == -inf
    mem.answered(A, 0.999, 1.0)
    assert known(mem, A, 1.0).srtt == 0.999


def test_after_its_lifetime_a_round_trip_begins_anew():
    mem = memory(lifetime=100.0)
    mem.answered(A, 0.080, 0.0)
    mem.tried(A, 60.0)
    mem.tried(A, 120.0)
    assert mem.delay(A, Adaptive(), 120.0) == (0.25, "initial: no round trip is known")
    mem.answered(A, 0.160, 121.0)
    assert known(mem, A, 121.0).srtt == 0.160


@pytest.mark.parametrize(
    ("rtt", "delay"),
    [
        # 2 * SRTT + 4 * RTTVAR, and RTTVAR is half of the first sample
        (0.080, (0.320, "round trip 80 ms +- 40 ms")),
        (0.020, (0.100, "minimum: round trip 20 ms +- 10 ms")),
        (0.025, (0.100, "round trip 25 ms +- 12 ms")),
        (0.500, (2.0, "round trip 500 ms +- 250 ms")),
        (0.600, (2.0, "maximum: round trip 600 ms +- 300 ms")),
    ],
)
def test_line_48_the_delay_follows_the_round_trip_within_the_bounds(rtt, delay):
    mem = memory()
    mem.answered(A, rtt, 0.0)
    seconds, why = mem.delay(A, Adaptive(), 0.0)
    assert (pytest.approx(seconds), why) == delay


def test_line_48_the_delay_is_the_initial_one_while_nothing_was_measured():
    mem = memory()
    assert mem.delay(A, Adaptive(initial=0.5), 0.0) == (0.5, "initial: no round trip is known")
    mem.tried(A, 0.0)
    assert mem.delay(A, Adaptive(initial=0.5), 0.0) == (0.5, "initial: no round trip is known")


def test_line_48_on_a_steady_path_the_delay_comes_down_to_twice_the_round_trip():
    mem = memory()
    for at in range(100):
        mem.answered(A, 0.200, at)
    assert mem.delay(A, Adaptive(), 100.0)[0] == pytest.approx(0.400)


# Failures


def test_what_failed_goes_behind_for_a_time_that_doubles_up_to_a_limit():
    mem = memory()
    at = 0.0
    times = []
    for _ in range(100):
        mem.failed(A, at, "refused", began=at)
        assert mem.level(A, at) == FAILED
        until = known(mem, A, at).until
        times.append(until - at)
        assert mem.level(A, until - 0.001) == FAILED
        assert mem.is_avoided(A, until - 0.001)
        at = until
        assert mem.level(A, at) == FINE
        assert not mem.is_avoided(A, at)
    assert times == [10.0, 20.0, 40.0, *[60.0] * 97]


def test_an_address_that_nobody_knows_is_fine():
    mem = memory()
    assert (mem.level(A, 0.0), mem.why(A, 0.0), mem.is_avoided(A, 0.0), mem.entry(A, 0.0)) == (FINE, None, False, None)


def test_success_ends_it_at_once():
    mem = memory()
    mem.failed(A, 0.0, "refused", began=0.0)
    mem.succeeded(A, 1.0)
    assert (mem.level(A, 1.0), mem.why(A, 1.0), mem.is_avoided(A, 1.0)) == (FINE, None, False)


def test_slow_is_less_bad_than_failed():
    assert FINE < SLOW < FAILED
    mem = memory()
    mem.failed(A, 0.0, "slow", began=0.0, slow=True)
    assert mem.level(A, 1.0) == SLOW
    mem.failed(A, 10.0, "refused", began=10.0)
    assert mem.level(A, 10.0) == FAILED
    mem.failed(A, 30.0, "slow", began=30.0, slow=True)
    assert mem.level(A, 30.0) == SLOW
    mem.succeeded(A, 31.0)
    assert not known(mem, A, 31.0).slow


def test_failures_of_attempts_that_were_under_way_together_count_once():
    mem = memory()
    for _ in range(50):
        mem.failed(A, 0.25, "slow", began=0.0, slow=True)
    mem.failed(A, 9.0, "refused", began=0.25)
    entry = known(mem, A, 9.0)
    assert (entry.failures, entry.until, entry.reason) == (1, 10.25, "slow")
    # One that began later knew of the failure, so it is another one.
    mem.failed(A, 9.0, "refused", began=0.26)
    assert (known(mem, A, 9.0).failures, known(mem, A, 9.0).until) == (2, 29.0)


def test_a_failure_that_outlasts_the_time_counts():
    mem = memory()
    mem.failed(A, 0.25, "slow", began=0.0, slow=True)
    mem.failed(A, 10.25, "timed out", began=0.0)
    assert (known(mem, A, 10.25).failures, known(mem, A, 10.25).until) == (2, 30.25)


def test_a_failure_within_a_minute_of_a_success_goes_on_counting():
    mem = memory()
    mem.failed(A, 0.0, "bad certificate")
    mem.succeeded(A, 10.0)
    mem.failed(A, 69.9, "bad certificate")
    assert known(mem, A, 69.9).failures == 2
    mem.succeeded(A, 90.0)
    mem.failed(A, 150.0, "bad certificate")
    assert known(mem, A, 150.0).failures == 1


def test_what_is_told_of_connections_made_before_the_last_failure_counts_once():
    mem = memory()
    mem.succeeded(A, 1.0)
    mem.failed(A, 2.0, "bad certificate")
    mem.failed(A, 3.0, "bad certificate")
    assert (known(mem, A, 3.0).failures, known(mem, A, 3.0).until) == (1, 12.0)
    mem.succeeded(A, 4.0)
    mem.failed(A, 5.0, "bad certificate")
    assert (known(mem, A, 5.0).failures, known(mem, A, 5.0).until) == (2, 25.0)


def test_of_an_address_that_was_never_used_a_failure_may_be_told_too():
    mem = memory()
    mem.failed(A, 2.0, "bad certificate")
    assert mem.level(A, 2.0) == FAILED
    mem.failed(A, 3.0, "bad certificate")
    assert known(mem, A, 3.0).until == 12.0


def test_on_trial_one_race_at_a_time_tries_it():
    mem = memory()
    mem.failed(A, 0.0, "refused", began=0.0)
    assert (mem.level(A, 10.0), mem.why(A, 10.0)) == (FINE, "tried again: refused 10.00 s before")
    Waiting(mem, A, 10.0)
    assert (mem.level(A, 10.0), mem.why(A, 10.0)) == (
        SLOW,
        "put behind: on trial in another race, refused 10.00 s before",
    )


def test_what_another_race_has_had_pending_for_longer_than_its_delay_goes_behind():
    mem = memory()
    Waiting(mem, A, 1.0)
    Waiting(mem, A, 1.1)
    assert (mem.level(A, 1.24), mem.why(A, 1.24)) == (FINE, None)
    assert (mem.level(A, 1.25), mem.why(A, 1.25)) == (SLOW, "put behind: pending in another race for 250.0 ms")
    mem.waits.clear()
    assert mem.level(A, 1.25) == FINE


def test_one_that_was_only_tried_is_no_worse_for_it():
    mem = memory()
    mem.tried(A, 1.0)
    Waiting(mem, A, 1.0)
    assert (mem.level(A, 1.1), mem.why(A, 1.1)) == (FINE, None)


def test_it_says_why_one_is_put_behind():
    mem = memory()
    mem.failed(A, 100.0, "connection refused", began=100.0)
    assert mem.why(A, 100.5) == "put behind: connection refused 500.0 ms before"


def test_a_failure_that_counts_is_told_to_whoever_waits_for_the_address():
    mem = memory()
    one, other, elsewhere = Waiting(mem, A, 0.0), Waiting(mem, A, 0.1), Waiting(mem, B, 0.0)
    mem.failed(A, 0.3, "slow", began=0.0, slow=True)
    mem.failed(A, 0.3, "slow", began=0.0, slow=True)
    assert (one.learned, other.learned, elsewhere.learned) == (1, 1, 0)


# How much is kept


def test_of_more_than_the_size_the_one_that_was_not_heard_of_longest_goes():
    mem = memory(size=2)
    mem.tried(A, 0.0)
    mem.tried(B, 1.0)
    mem.answered(A, 0.1, 2.0)
    mem.succeeded(C, 3.0)
    assert [of for of, _ in mem.entries(3.0)] == [A, C]
    assert len(mem) == 2
    mem.tried(B, 10_000.0)
    assert [of for of, _ in mem.entries(13_599.0)] == [B]
    assert (mem.latest, memory().latest) == (10_000.0, -inf)


@pytest.mark.parametrize("fact", ["tried", "answered", "succeeded", "failed"])
def test_every_fact_is_something_heard(fact):
    mem = memory(lifetime=100.0)
    arguments = {"tried": (50.0,), "answered": (0.1, 50.0), "succeeded": (50.0,), "failed": (50.0, "refused")}
    mem.tried(A, 0.0)
    getattr(mem, fact)(A, *arguments[fact])
    assert known(mem, A, 149.9).heard == 50.0
    assert known(mem, A, 149.9).since == 0.0
    assert mem.entry(A, 150.0) is None
    assert list(mem.entries(150.0)) == []


def test_what_is_heard_of_after_its_lifetime_is_new():
    mem = memory(lifetime=100.0)
    mem.failed(A, 0.0, "refused", began=0.0)
    mem.tried(A, 100.0)
    entry = known(mem, A, 100.0)
    assert (entry.since, entry.failures, entry.tried, entry.failed) == (100.0, 0, 100.0, -inf)


def test_line_36_what_belongs_to_one_network_can_be_forgotten():
    mem = memory()
    at_home, away = key(1, "home"), key(1, "away")
    mem.tried(at_home, 0.0)
    mem.tried(away, 0.0)
    mem.clear("home")
    assert [of for of, _ in mem.entries(0.0)] == [away]


def test_lines_34_35_networks_partitions_and_sources_know_nothing_of_each_other():
    mem = memory()
    mem.failed(A, 0.0, "refused", began=0.0)
    from_there = ("", "", ("192.0.2.9", "", ""), A[3])
    assert [mem.level(of, 0.0) for of in (A, key(1, "x"), key(1, "", "x"), from_there)] == [FAILED, FINE, FINE, FINE]


V4, V6 = Endpoint("192.0.2.1", 443), Endpoint("2001:db8::1", 443)


@pytest.mark.parametrize(
    ("source", "endpoint", "wanted"),
    [
        (None, V4, None),
        (Source(), V4, None),
        (Source(port=7, name="x", weight=3), V4, None),
        (Source("192.0.2.9", "2001:db8::9"), V4, ("192.0.2.9", "", "")),
        (Source("192.0.2.9", "2001:db8::9"), V6, ("2001:db8::9", "", "")),
        (Source(interface="eth1"), V6, ("", "eth1", "")),
        (Source(proxy="socks5://user:word@192.0.2.8:1080"), V6, ("", "", "socks5://***@192.0.2.8:1080")),
        (Source("192.0.2.9", proxy="http://192.0.2.8:80"), V6, ("192.0.2.9", "", "http://192.0.2.8:80")),
        (Source("192.0.2.9", "2001:db8::9", proxy="http://p:80"), V4, ("192.0.2.9 2001:db8::9", "", "http://p:80")),
    ],
)
def test_a_source_is_its_address_its_interface_and_its_proxy_without_the_password(source, endpoint, wanted):
    assert source_key(source, endpoint) == wanted


# The budget of hedges


def test_without_a_budget_there_is_no_end_to_it():
    mem = memory()
    assert all(mem.take_token() for _ in range(10_000))
    mem.succeeded(A, 0.0)
    assert mem.take_token()


def test_a_hedge_takes_a_token_and_twenty_successes_give_it_back():
    mem = memory(hedge_budget=2.0)
    assert [mem.take_token() for _ in range(3)] == [True, True, False]
    for _ in range(19):
        mem.succeeded(A, 0.0)
    assert not mem.take_token()
    mem.succeeded(A, 0.0)
    mem.succeeded(A, 0.0)
    assert [mem.take_token() for _ in range(2)] == [True, False]


def test_no_more_tokens_are_saved_than_there_were():
    mem = memory(hedge_budget=1.5)
    for _ in range(100):
        mem.succeeded(A, 0.0)
    assert [mem.take_token() for _ in range(2)] == [True, False]


# Against an oracle that keeps every fact, and works everything out from all of them each time.


@attrs.frozen
class Fact:
    kind: str
    at: float
    began: float = 0.0
    slow: bool = False


def what_follows(facts: list[Fact], now: float) -> tuple[int, float]:
    """The level, and the smoothed round trip or 0."""
    lifetime, first, most = LIMITS.lifetime, LIMITS.retry_after, LIMITS.retry_at_most
    # What came before a silence of a lifetime is forgotten.
    for place in range(len(facts) - 1, 0, -1):
        if facts[place].at - facts[place - 1].at >= lifetime:
            facts = facts[place:]
            break
    if not facts or now - facts[-1].at >= lifetime:
        return FINE, 0.0
    streak, until, failed_at, used_at = 0, -inf, -inf, -inf
    doubtful = slow = False
    srtt, measured_at = 0.0, -inf
    for fact in facts:
        if fact.kind == "rtt":
            srtt = fact.began if fact.at - measured_at >= lifetime else 7 / 8 * srtt + 1 / 8 * fact.began
            measured_at = fact.at
        elif fact.kind == "success":
            doubtful, until, used_at = False, -inf, fact.at
        elif fact.kind == "failure" and not (fact.began <= failed_at and fact.at < until):
            streak = streak + 1 if doubtful or fact.at - used_at < 60 else 1
            doubtful, slow, failed_at = True, fact.slow, fact.at
            until = fact.at + min(most, first * 2 ** (streak - 1))
    level = FINE if not doubtful or now >= until else SLOW if slow else FAILED
    return level, srtt if now - measured_at < lifetime else 0.0


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 40))
def test_what_follows_is_what_an_oracle_says(seed, count):
    random = Random(seed)
    mem = memory()
    facts: dict[Key, list[Fact]] = {A: [], B: []}
    now = 0.0
    for _ in range(count):
        now += random.choice([0.0, 1.0, 7.0, 10.0, 59.0, 60.0, 500.0, 3599.0, 3600.0])
        of = random.choice([A, B])
        match random.choice(["try", "rtt", "success", "failure", "failure"]):
            case "try":
                facts[of].append(Fact("try", now))
                mem.tried(of, now)
            case "rtt":
                rtt = random.choice([0.01, 0.1, 0.9])
                facts[of].append(Fact("rtt", now, rtt))
                mem.answered(of, rtt, now)
            case "success":
                facts[of].append(Fact("success", now))
                mem.succeeded(of, now)
            case _:
                began = now - random.choice([0.0, 1.0, 10.0, 30.0])
                slow = random.random() < 0.5
                facts[of].append(Fact("failure", now, began, slow))
                mem.failed(of, now, "failed", began=began, slow=slow)
        for one in (A, B):
            level, srtt = what_follows(facts[one], now)
            assert mem.level(one, now) == level
            entry = mem.entry(one, now)
            measured = entry is not None and mem.is_measured(entry, now)
            assert (entry.srtt if entry is not None and measured else 0.0) == pytest.approx(srtt)
