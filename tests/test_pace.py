"""The helper that holds costs against bounds: what it forgives, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tests.support.pace import NOMINAL, least_cost, pace


def told(values: Iterable[float]) -> Callable[[], float]:
    return iter(values).__next__


@pytest.mark.parametrize(
    ("costs", "paces", "least"),
    [
        ([9.0], [1.0, 1.0], 9.0),  # holds at once, and is not measured again
        ([12.0, 9.0], [1.0, 1.0, 1.0], 9.0),
        ([12.0, 11.0, 13.0], [1.0] * 4, 11.0),  # never holds
        ([18.0], [2.0, 2.0], 9.0),  # a slow machine
        ([12.0, 11.0, 12.0], [2.0, 1.0, 2.0, 2.0], 11.0),  # one that was slow for a moment
        ([12.0, 11.0, 13.0], [0.5] * 4, 11.0),  # a fast one
    ],
)
def test_least_cost(costs: list[float], paces: list[float], least: float) -> None:
    paces = [NOMINAL * slowness for slowness in paces]
    assert least_cost(told(costs), bound=10.0, attempts=3, pace=told(paces)) == pytest.approx(least)


def test_the_pace_is_that_of_a_machine() -> None:
    assert NOMINAL / 10 < pace() < NOMINAL * 100
