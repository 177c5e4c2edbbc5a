"""The clock that costs are held against bounds with: what it forgives, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tests.support.pace import PacedClock, calculating, least, running_tasks


def told(values: Iterable[float]) -> Callable[[], float]:
    return iter(values).__next__


@pytest.mark.parametrize(
    ("slowness", "seconds"),
    [
        ([1.0, 1.0, 1.0], 5.0),
        ([2.0, 2.0, 2.0], 2.5),  # a slow machine
        ([0.5, 0.5, 0.5], 5.0),  # a fast one owes nothing
        ([1.0, 3.0, 3.0], 1.0 / 2 + 4.0 / 3),  # one that slows down meanwhile
    ],
)
def test_a_clock_of_two_laps(slowness: list[float], seconds: float) -> None:
    # It begins at 10, the first lap ends at 11; what the pace takes to measure counts for nothing.
    clock = PacedClock(told([10.0, 11.0, 20.0, 24.0, 30.0]), told(slowness))
    clock.lap()
    clock.lap()
    assert clock.seconds == pytest.approx(seconds)


def test_the_least_that_is_needed_is_measured() -> None:
    assert least(told([9.0]), bound=10.0) == 9.0
    assert least(told([12.0, 9.0]), bound=10.0) == 9.0
    assert least(told([12.0, 11.0, 13.0]), bound=10.0) == 11.0


@pytest.mark.parametrize("slowness", [calculating, running_tasks])
def test_the_pace_is_that_of_a_machine(slowness: Callable[[], float]) -> None:
    assert 0.1 < slowness() < 100
