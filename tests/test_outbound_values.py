"""What the values of outbound destinations take, and what they refuse."""

from __future__ import annotations

from math import inf, nan

import pytest

from trio_connect import Endpoint
from trio_connect._outbound_values import DEFAULT_OUTBOUND_POLICY, Backoff, Candidate, OutboundPolicy, Rate


def test_the_defaults_are_those_of_the_page():
    policy = OutboundPolicy()
    assert policy == DEFAULT_OUTBOUND_POLICY
    assert (policy.attempt_timeout, policy.connect_timeout, policy.stagger) == (10.0, 30.0, 0.250)
    assert (policy.max_addresses_per_plan, policy.failures_to_delay) == (8, 5)
    assert policy.delay == policy.address_cooldown == Backoff()
    assert Backoff() == Backoff(initial=1.0, multiplier=1.6, maximum=120.0, jitter=0.2)
    assert (policy.source_suspension, policy.probe_limit, policy.probe_lease) == (60.0, 1, 35.0)
    assert (policy.max_connections, policy.max_connecting, policy.reserve) == (32, 2, 1)
    assert (policy.group_max_connections, policy.total_connections, policy.rate, policy.group_rate) == (None,) * 4
    assert (policy.min_dns_ttl, policy.max_dns_ttl, policy.stale_dns) == (1.0, 86_400.0, 3600.0)
    assert (policy.state_expiry, policy.prohibited) == (3600.0, "skip")


BAD = [
    ("attempt_timeout", 0, ValueError, "attempt_timeout must be above 0 seconds, or math.inf for none, got 0"),
    ("attempt_timeout", nan, ValueError, "attempt_timeout must be a number, got nan"),
    ("stagger", 0.009, ValueError, "stagger must be at least 0.01 seconds (RFC 8305 section 5), got 0.009"),
    ("stagger", "1", TypeError, "stagger must be a number, got '1'"),
    ("stagger", True, TypeError, "stagger must be a number, got True"),
    ("stagger", 0.0099, ValueError, "stagger must be at least 0.01 seconds (RFC 8305 section 5), got 0.0099"),
    ("connect_timeout", inf, ValueError, "connect_timeout must be at least 0.001 seconds, and finite, got inf"),
    ("connect_timeout", 2.0**40, ValueError, "connect_timeout must be below 2**40 seconds, got 1099511627776.0: a"),
    ("source_suspension", 0.0009, ValueError, "source_suspension must be at least 0.001 seconds, and finite"),
    ("failures_to_delay", -1, ValueError, "failures_to_delay must be at least 0, got -1"),
    ("failures_to_delay", 1.0, TypeError, "failures_to_delay must be an int, got 1.0"),
    ("max_connections", 0, ValueError, "max_connections must be at least 1, got 0"),
    ("max_connections", True, TypeError, "max_connections must be an int, got True"),
    ("total_connections", 0, ValueError, "total_connections must be at least 1, got 0"),
    ("group_max_connections", "1", TypeError, "group_max_connections must be an int, got '1'"),
    ("reserve", -1, ValueError, "reserve must be at least 0, got -1"),
    ("delay", 3.0, TypeError, "delay must be a Backoff, got 3.0"),
    ("rate", 3, TypeError, "rate must be a Rate or None, got 3"),
    ("prohibited", "ignore", ValueError, "prohibited must be 'skip' or 'reject', got 'ignore'"),
]


@pytest.mark.parametrize(("name", "value", "error", "text"), BAD, ids=[f"{row[0]}_{row[1]}" for row in BAD])
def test_a_policy_refuses(name, value, error, text):
    with pytest.raises(error) as caught:
        OutboundPolicy(**{name: value})
    assert text in str(caught.value)


def test_the_edges_that_a_policy_takes():
    policy = OutboundPolicy(
        attempt_timeout=inf, connect_timeout=0.001, stagger=inf, failures_to_delay=0, total_connections=1, reserve=0,
        prohibited="reject", rate=Rate(1), group_max_connections=1, max_connections=1,
    )  # fmt: skip
    assert policy.probe_lease == 5.001
    assert OutboundPolicy(stagger=0.010, attempt_timeout=0.5).stagger == 0.010


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((0,), ValueError, "count must be at least 1, got 0"),
        ((1, 0), ValueError, "per must be at least 0.001 seconds, and finite, got 0"),
        ((1, 1.0, 0), ValueError, "burst must be at least 1, got 0"),
        ((1.5,), TypeError, "count must be an int, got 1.5"),
        ((1_000_001,), ValueError, "a rate is at most one a microsecond, got 1000001 per 1.0 seconds"),
    ],
)
def test_a_rate_refuses(arguments, error, text):
    with pytest.raises(error) as caught:
        Rate(*arguments)
    assert text in str(caught.value)


def test_intervals():
    assert [Rate(1_000_000).interval, Rate(1).interval, Rate(60, 60).interval] == [1, 1_000_000, 1_000_000]
    assert Rate(1) == Rate(1, 1.0, 1)


def test_a_backoff_grows_to_its_maximum():
    law = Backoff(initial=2.0, multiplier=3.0, maximum=50.0, jitter=0.5)
    assert [law.delay(k, 0.0) for k in (1, 2, 3, 4, 5)] == [2.0, 6.0, 18.0, 50.0, 50.0]
    assert law.delay(10**6, 0.0) == 50.0
    assert [law.delay(1, draw) for draw in (-1.0, 1.0)] == [1.0, 3.0]
    assert law.delay(9, 1.0) == 75.0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"initial": 0}, ValueError, "initial must be at least 0.001 seconds, and finite, got 0"),
        ({"multiplier": 0.9}, ValueError, "multiplier must be at least 1, and finite, got 0.9"),
        ({"multiplier": inf}, ValueError, "multiplier must be at least 1, and finite, got inf"),
        ({"jitter": 1}, ValueError, "jitter must be at least 0 and below 1, got 1"),
        ({"jitter": -0.1}, ValueError, "jitter must be at least 0 and below 1, got -0.1"),
        ({"initial": 5.0, "maximum": 4.0}, ValueError, "maximum (4.0) must not be below initial (5.0)"),
        ({"maximum": None}, TypeError, "maximum must be a number, got None"),
    ],
)
def test_a_backoff_refuses(arguments, error, text):
    with pytest.raises(error) as caught:
        Backoff(**arguments)
    assert text in str(caught.value)


def test_a_backoff_may_be_constant():
    assert Backoff(initial=3.0, multiplier=1.0, maximum=3.0, jitter=0.0).delay(99, 0.5) == 3.0


def test_a_candidate():
    assert Candidate(("192.0.2.1", 25)) == Candidate(Endpoint("192.0.2.1", 25), 0, 1, None, None)
    assert Candidate(("192.0.2.1", 25), weight=0, priority=0).weight == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((("mx.test", 25),), ValueError, "'mx.test'"),
        ((("192.0.2.1", 0),), ValueError, "cannot connect to port 0"),
        ((("192.0.2.1", 25), -1), ValueError, "priority must be at least 0, got -1"),
        ((("192.0.2.1", 25), 0, -1), ValueError, "weight must be at least 0, got -1"),
        ((("192.0.2.1", 25), 0, 1, 0), ValueError, "max_connections must be at least 1, got 0"),
        ((("192.0.2.1", 25), 0, 1, None, 5), TypeError, "rate must be a Rate or None, got 5"),
    ],
)
def test_a_candidate_refuses(arguments, error, text):
    with pytest.raises(error) as caught:
        Candidate(*arguments)
    assert text in str(caught.value)


def test_reprs_say_what_differs_from_the_defaults():
    assert repr(OutboundPolicy()) == "OutboundPolicy()"
    assert repr(OutboundPolicy(rate=Rate(3, burst=2))) == "OutboundPolicy(rate=Rate(count=3, burst=2))"
    assert repr(Candidate(("192.0.2.1", 25), weight=3)) == "Candidate(endpoint=Endpoint('192.0.2.1', 25), weight=3)"
    assert repr(Backoff(maximum=9.0)) == "Backoff(maximum=9.0)"
