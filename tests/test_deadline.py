"""Milliseconds and Trio's seconds: one bridge, and nobody spins on it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from trio_connect import IMMEDIATE, NO_DEADLINE, DeadlineExceeded, deadline_after, fail_at, move_on_at, now
from trio_connect._deadline import LEAST_DEADLINE, check_deadline, is_late, to_seconds


def under_a_mock_clock(start: float, main: object) -> None:
    clock = trio.testing.MockClock()
    clock.jump(start)
    trio.run(main, clock=clock)  # type: ignore[arg-type]


def test_the_first_millisecond(mock_clock: trio.testing.MockClock) -> None:
    async def main() -> None:
        assert trio.current_time() == 0.0
        assert now() == FIRST

    trio.run(main, clock=trio.testing.MockClock())


@given(st.floats(0, 1e9), st.integers(0, 10**6))
@example(0.0, 0)
@example(1.1, 1)  # 1.1 * 1000 is 1100.0000000000002
@example(0.057, 3)  # 0.057 * 1000 is 57.00000000000001, 0.058 * 1000 is 57.99...
def test_sleeping_until_a_deadline_reaches_it(start: float, wait: int) -> None:
    async def main() -> None:
        first = now()
        assert type(first) is int
        assert first >= FIRST
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


@given(st.integers(LEAST_DEADLINE, 10**13))
def test_deadlines_keep_their_order_and_distance_in_seconds(deadline: int) -> None:
    assert to_seconds(deadline) < to_seconds(deadline + 1)
    assert to_seconds(deadline + 1000) - to_seconds(deadline) == pytest.approx(1, abs=1e-3)


def test_now_needs_a_run() -> None:
    with pytest.raises(RuntimeError, match=r"there is no run of Trio here: call this inside of trio.run\(\)"):
        now()


def test_the_two_special_deadlines() -> None:
    assert (NO_DEADLINE, IMMEDIATE) == (-1, 0)
    assert to_seconds(-1) == math.inf
    assert to_seconds(0) == -math.inf
    assert to_seconds(FIRST) == 0.0
    assert to_seconds(FIRST - 1500) == -1.5


FIRST = 2**40 + 2**32 + 1


class Milliseconds(int):
    """An int of another class is an int."""


def test_ints_of_other_classes_are_deadlines() -> None:
    assert to_seconds(Milliseconds(-1)) == math.inf
    assert to_seconds(Milliseconds(FIRST + 1000)) == 1.0


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
        with pytest.raises(ValueError, match=f"got {str(deadline)[:100]}"):
            read(deadline)


@pytest.mark.parametrize("deadline", [1, 500, 2000, 86_400_000, LEAST_DEADLINE - 1])
def test_a_duration_is_no_deadline(deadline: int) -> None:
    for read in (check_deadline, to_seconds):
        with pytest.raises(ValueError, match=rf"a deadline is a point in time: now\(\) \+ {deadline}, got {deadline}"):
            read(deadline)


@given(st.integers(0, 2**32))
def test_a_moment_ago_is_a_deadline_under_a_fresh_clock_too(ago: int) -> None:
    async def main() -> None:
        assert check_deadline(now() - ago) == now() - ago
        assert to_seconds(now() - ago) == pytest.approx(-ago / 1000)

    under_a_mock_clock(0, main)


# --- the bridge to cancel scopes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [(0, 0), (0.0, 0), (1, 1000), (0.5, 500), (0.057, 57), (0.0001, 1), (2.0005, 2001), (86400, 86_400_000)],
)
async def test_a_deadline_after_some_seconds(seconds: float, ms: int, autojump_clock: trio.testing.MockClock) -> None:
    assert deadline_after(seconds) == now() + ms


async def test_no_deadline_after_none_or_infinity(autojump_clock: trio.testing.MockClock) -> None:
    assert deadline_after(None) == deadline_after(math.inf) == deadline_after(1e305) == NO_DEADLINE


async def test_a_deadline_is_not_taken_for_seconds() -> None:
    with pytest.raises(ValueError, match=r"seconds must be counted from now, got \d+: a deadline\?"):
        deadline_after(now() + 500)
    assert deadline_after(sys.maxsize) > now()


@pytest.mark.parametrize("seconds", [True, "1", b"1", 1j], ids=repr)
async def test_seconds_are_a_number(seconds: object) -> None:
    with pytest.raises(TypeError, match="seconds must be a number of seconds, or None for no deadline, got"):
        deadline_after(seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1, -0.001, -math.inf, math.nan, 10**400], ids=lambda value: repr(value)[:9])
async def test_seconds_have_a_value(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be "):
        deadline_after(seconds)


async def test_a_scope_at_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    deadline = now() + 500
    with move_on_at(deadline) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert now() == deadline


async def test_a_failure_at_a_deadline(autojump_clock: trio.testing.MockClock) -> None:
    deadline = now() + 500
    text = r"the block under fail_at\(\) had no result by its deadline, after 500.0 ms"
    with pytest.raises(DeadlineExceeded, match=text), fail_at(deadline) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert now() == deadline


@pytest.mark.parametrize("bound", [move_on_at, fail_at])
async def test_a_scope_without_a_deadline_never_ends(
    bound: Callable[[int], AbstractContextManager[trio.CancelScope]], autojump_clock: trio.testing.MockClock
) -> None:
    with bound(NO_DEADLINE) as scope:
        assert scope.deadline == math.inf
        await trio.sleep(86_400)
    with bound(now() + 1000) as scope:
        await trio.sleep(0.999)
    assert not scope.cancelled_caught


@pytest.mark.parametrize("ago", [None, 0, 1, 10_000])
async def test_a_scope_that_is_late_lets_nothing_begin(ago: int | None, autojump_clock: trio.testing.MockClock) -> None:
    deadline = IMMEDIATE if ago is None else now() - ago
    with move_on_at(deadline) as scope:
        await trio.lowlevel.checkpoint_if_cancelled()
        pytest.fail("the first step was not stopped")
    assert scope.cancelled_caught
    with pytest.raises(DeadlineExceeded), fail_at(deadline):
        await trio.lowlevel.checkpoint_if_cancelled()
    with fail_at(deadline):
        pass  # nothing was waited for


async def test_what_is_late(autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(1)
    current = trio.current_time()
    assert is_late(current)
    assert is_late(current - 0.001)
    assert not is_late(current + 0.001)
    assert not is_late(math.inf)
    assert not is_late(-math.inf)  # 0 is now or never: one try


async def test_a_scope_around_a_failure_at_a_deadline_has_its_own_end(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(0.1) as outer, fail_at(now() + 100):
        await trio.sleep_forever()
    assert outer.cancelled_caught
    with pytest.raises(LookupError), fail_at(now() + 100):
        raise LookupError


@pytest.mark.parametrize("deadline", [2000, -2, 1.5])
async def test_a_scope_needs_a_deadline(deadline: int) -> None:
    with pytest.raises((TypeError, ValueError), match="a deadline is"):
        move_on_at(deadline)
    with pytest.raises((TypeError, ValueError), match="a deadline is"), fail_at(deadline):
        pytest.fail("entered")


def test_the_bridge_needs_a_run() -> None:
    for call in (deadline_after, move_on_at):
        with pytest.raises(RuntimeError):
            call(0)
