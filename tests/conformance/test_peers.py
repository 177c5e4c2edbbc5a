"""Beside trio, anyio and aiohappyeyeballs in virtual time: never later than the best, but for stated reasons."""

from __future__ import annotations

import pytest

from benchmarks.scoreboard import CONTESTANTS, OURS, RACES, RESOLVING, Scenario, measure, verdict
from trio_connect import RacePolicy

# What the peers need, measured by others before there was any of this.
PEERS_MS = {"A": 270, "B": 270, "C": 1270, "D": 520, "E": 20, "F": 700, "G": 7520}
# ours, and the column "one lookup"
RESOLVING_MS = [(70, 1020), (20, 1020), (50, 50), (270, 370), (520, 570), (320, 120), (320, 320)]
# The price of the floor (row E), and of the limit (row G with the default policy).
LATER_MS = {"E": 400, "G with the default": 6000}


def key(scenario: Scenario) -> str:
    row = scenario.title[0]
    return "G with the default" if row == "G" and scenario.policy == RacePolicy() else row


@pytest.mark.parametrize("scenario", RACES, ids=lambda scenario: scenario.title)
def test_never_later_than_the_best_but_for_the_floor_and_the_limit(scenario, capsys):
    results = measure(scenario)
    assert {result.took for name, result in results.items() if name != OURS} == {PEERS_MS[scenario.title[0]]}
    late = results[OURS].took - PEERS_MS[scenario.title[0]]
    assert late == LATER_MS.get(key(scenario), min(late, 0))
    assert (late > 0) == bool(scenario.forgives)
    assert results[OURS].smallest_gap >= 10
    assert results[OURS].most_in_flight <= scenario.policy.max_in_flight
    assert results[OURS].attempts <= results["trio"].attempts
    with capsys.disabled():
        if late > 0:
            print(f"\n  {scenario.title}: {verdict(scenario, results)}")


def test_a_failure_of_any_attempt_is_used():
    (row,) = [scenario for scenario in RACES if scenario.title.startswith("D")]
    assert measure(row)[OURS].took == 320


@pytest.mark.parametrize(
    ("scenario", "wanted"),
    list(zip(RESOLVING, RESOLVING_MS, strict=True)),
    ids=lambda value: getattr(value, "title", ""),
)
def test_line_10_a_slow_answer_holds_nothing_up(scenario, wanted):
    ours, theirs = wanted
    results = measure(scenario)
    assert results[OURS].took == ours
    assert {result.took for name, result in results.items() if name != OURS} == {theirs}
    assert (ours > theirs) == bool(scenario.forgives)


def test_aiohappyeyeballs_runs_where_it_is_installed():
    pytest.importorskip("aiohappyeyeballs")
    assert list(CONTESTANTS) == [OURS, "trio", "anyio", "aiohappyeyeballs"]
