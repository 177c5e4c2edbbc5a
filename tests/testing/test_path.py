"""The pure part: when messages arrive, and when a host is up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect.testing._path import Flap, Path, Wire


def test_latency_is_half_a_round_trip() -> None:
    wire = Wire(Path(rtt=0.2), "any name")
    assert wire.arrival(1.0, 0) == 1.1
    assert wire.arrival(1.0, 10**9) == 1.1


def test_bytes_queue_behind_those_sent_before() -> None:
    wire = Wire(Path(rtt=0.2, bandwidth=1000), "any name")
    assert [wire.arrival(0.0, 500), wire.arrival(0.0, 500), wire.arrival(5.0, 500)] == pytest.approx([0.6, 1.1, 5.6])
    assert wire.arrival(5.0, 0) == pytest.approx(5.6)  # what weighs nothing still does not overtake


def test_a_name_is_a_random_stream() -> None:
    def draws(name: str) -> list[float]:
        wire = Wire(Path(jitter=1.0), name)
        return [wire.delay() for _ in range(5)]

    assert draws("0 here there 443 0") == draws("0 here there 443 0")
    assert draws("0 here there 443 0") != draws("0 here there 443 1")
    # The generator itself is part of the promise: a trace that was kept is still true with the next release.
    assert [round(draw, 6) for draw in draws("0 here there 443 0")] == [
        0.941321,
        0.449701,
        0.192103,
        0.422697,
        0.490562,
    ]


@given(
    st.floats(0, 10), st.floats(0, 10), st.floats(1, 1e9), st.lists(st.tuples(st.floats(0, 5), st.integers(0, 10**6)))
)
def test_messages_never_overtake_and_never_arrive_early(
    rtt: float, jitter: float, bandwidth: float, messages: list[tuple[float, int]]
) -> None:
    wire = Wire(Path(rtt=rtt, jitter=jitter, bandwidth=bandwidth), "x")
    now, last = 0.0, 0.0
    for pause, size in messages:
        now += pause
        arrival = wire.arrival(now, size)
        assert arrival >= max(last, now + rtt / 2)
        last = arrival


def test_a_flapping_host_is_up_until_the_schedule_says_otherwise() -> None:
    flap = Flap.of([(1.0, "down"), (2.0, "up")])
    assert [flap.is_up(at) for at in (0.0, 0.999, 1.0, 1.999, 2.0, math.inf)] == [True, True, False, False, True, True]
