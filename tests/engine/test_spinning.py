"""Adaptive spinning: what a connect learns from those before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.spinning import CREDIT, PROBE, Spinning


def guesses(spinning: Spinning, passes: list[bool]) -> list[bool]:
    """Connects whose handshake takes one pass or more; returns which of them were given one."""
    spun = []
    for enough in passes:
        spun.append(spinning.is_worthwhile())
        if spun[-1]:
            spinning.learn(enough=enough)
    return spun


def test_it_begins_with_a_look_at_once_and_probes_now_and_then():
    assert guesses(Spinning(), [False] * 3 * PROBE) == ([False] * (PROBE - 1) + [True]) * 3


def test_one_pass_that_was_enough_is_believed():
    spun = guesses(Spinning(), [True] * 50)
    assert spun == [False] * (PROBE - 1) + [True] * (51 - PROBE)


def test_it_stops_after_as_many_in_vain_as_it_has_credit():
    spinning = Spinning()
    spinning.learn(enough=True)
    assert guesses(spinning, [False] * 10) == [True] * CREDIT + [False] * (10 - CREDIT)


def test_one_in_time_renews_the_credit():
    spinning = Spinning()
    spinning.learn(enough=True)
    assert all(guesses(spinning, ([False] * (CREDIT - 1) + [True]) * 20))


def test_the_sixteenth_connect_probes_and_four_passes_in_vain_are_forgiven():
    spinning = Spinning()
    assert guesses(spinning, [False] * 15 + [True] + [False] * 5) == [False] * 15 + [True] * 5 + [False]


def test_a_probe_in_vain_owes_nothing():
    spinning = Spinning()
    spinning.learn(enough=False)
    assert (spinning.credit, spinning.is_worthwhile()) == (0, False)


@given(st.lists(st.booleans(), max_size=300))
def test_it_is_never_blind_for_long_and_remembers_the_last_success(passes):
    spinning = Spinning()
    spun = guesses(spinning, passes)
    since = 0
    for tried in spun:
        since = 0 if tried else since + 1
        assert since < PROBE
    # An oracle that keeps the whole history: credit is what the last success left, less every failure since.
    history = [enough for tried, enough in zip(spun, passes, strict=True) if tried]
    later = history[::-1].index(True) if True in history else None
    assert spinning.credit == (0 if later is None else max(0, CREDIT - later))
