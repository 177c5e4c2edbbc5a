"""Milliseconds and Trio's seconds: one bridge, and nobody spins on it."""

from __future__ import annotations

import math
import sys

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from trio_connect import IMMEDIATE, NO_DEADLINE, now
from trio_connect._deadline import STALE_SECONDS, check_deadline, is_stale, to_seconds


def under_a_mock_clock(start: float, main: object) -> None:
    clock = trio.testing.MockClock()
    clock.jump(start)
    trio.run(main, clock=clock)  # type: ignore[arg-type]


def test_the_first_millisecond_is_one(mock_clock: trio.testing.MockClock) -> None:
    async def main() -> None:
        assert trio.current_time() == 0.0
        assert now() == 1

    trio.run(main, clock=trio.testing.MockClock())


@given(st.floats(0, 1e9), st.integers(0, 10**6))
@example(0.0, 0)
@example(1.1, 1)  # 1.1 * 1000 is 1100.0000000000002
@example(0.057, 3)  # 0.057 * 1000 is 57.00000000000001, 0.058 * 1000 is 57.99...
def test_sleeping_until_a_deadline_reaches_it(start: float, wait: int) -> None:
    async def main() -> None:
        first = now()
        assert type(first) is int
        assert first > 0
        deadline = first + wait
        sleeps = 0
        while now() < deadline:
            trio.lowlevel.current_clock().jump(to_seconds(deadline) - trio.current_time())  # type: ignore[attr-defined]
            sleeps += 1
        assert sleeps <= 1
        assert now() - deadline <= 1, "nobody wakes a millisecond late either"

    under_a_mock_clock(start, main)


async def test_sleep_until_with_a_clock_that_jumps_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    for wait in range(1, 300):
        deadline = now() + wait
        turns = 0
        while now() < deadline:
            await trio.sleep_until(to_seconds(deadline))
            turns += 1
        assert turns == 1


@given(st.floats(0, 1e9), st.floats(0, 10))
def test_now_does_not_go_back(start: float, step: float) -> None:
    async def main() -> None:
        before = now()
        trio.lowlevel.current_clock().jump(step)  # type: ignore[attr-defined]
        assert now() >= before
        assert abs(now() - before - step * 1000) <= 1.001

    under_a_mock_clock(start, main)


@given(st.integers(1, 10**12))
def test_deadlines_keep_their_order_and_distance_in_seconds(deadline: int) -> None:
    assert to_seconds(deadline) < to_seconds(deadline + 1)
    assert to_seconds(deadline + 1000) - to_seconds(deadline) == pytest.approx(1, abs=1e-3)


def test_now_needs_a_run() -> None:
    with pytest.raises(RuntimeError):
        now()


def test_the_two_special_deadlines() -> None:
    assert (NO_DEADLINE, IMMEDIATE) == (-1, 0)
    assert to_seconds(-1) == math.inf
    assert to_seconds(0) == -math.inf
    assert to_seconds(1) == 0.0


class Milliseconds(int):
    """An int of another class is an int."""


def test_ints_of_other_classes_are_deadlines() -> None:
    assert to_seconds(Milliseconds(-1)) == math.inf
    assert to_seconds(Milliseconds(1001)) == 1.0


@pytest.mark.parametrize("deadline", [sys.maxsize, 10**400], ids=["maxsize", "huge"])
def test_a_deadline_beyond_every_clock_is_as_good_as_none(deadline: int) -> None:
    assert to_seconds(deadline) > 1e15


@pytest.mark.parametrize("deadline", [True, False, 1.5, -1.0, 0.0, None, math.nan, math.inf, "1", b"1"], ids=repr)
def test_what_is_no_int_is_no_deadline(deadline: object) -> None:
    for read in (check_deadline, to_seconds):
        with pytest.raises(TypeError, match="a deadline is an int of milliseconds") as caught:
            read(deadline)  # type: ignore[arg-type]
        assert repr(deadline) in str(caught.value)


@pytest.mark.parametrize("deadline", [-2, -(10**400)], ids=["-2", "huge"])
def test_below_minus_one_is_no_deadline(deadline: int) -> None:
    for read in (check_deadline, to_seconds):
        with pytest.raises(ValueError, match=f"got {deadline}"):
            read(deadline)


def test_a_deadline_more_than_an_hour_back_is_stale() -> None:
    async def main() -> None:
        here = trio.current_time()
        assert is_stale(here - STALE_SECONDS - 1)
        assert is_stale(to_seconds(500))
        for fine in (here, here - STALE_SECONDS + 1, -math.inf, math.inf):
            assert not is_stale(fine)

    under_a_mock_clock(10_000, main)
