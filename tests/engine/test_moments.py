"""Whether a point in time has come, whatever the last bits of two floats are."""

from __future__ import annotations

from math import inf, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.moments import has_come


@pytest.mark.parametrize(
    ("at", "now", "come"),
    [(1.0, 1.0, True), (1.0, 0.999, False), (1.0, 2.0, True), (inf, 1e9, False), (-inf, 0.0, True)],
)
def test_a_point_in_time_comes_once_and_stays(at, now, come):
    assert has_come(at, now) is come


@given(st.floats(0, 1e8), st.integers(1, 10**7))
def test_who_sleeps_for_as_long_as_he_was_told_is_never_too_early(began, milliseconds):
    at = began + milliseconds / 1000
    for woken in (began + (at - began), nextafter(at, -inf)):
        assert has_come(at, woken)
    assert not has_come(at, at - 0.001)
