from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._answer import SrvRecord
from trio_connect._engine.srv import srv_in_order


def record(target: str, priority: int = 0, weight: int = 0) -> SrvRecord:
    return SrvRecord(target, 1, priority, weight)


def test_lower_priorities_go_first():
    records = [record("c", 20), record("a", 5), record("b", 10)]
    assert [each.target for each in srv_in_order(records, Random(0))] == ["a", "b", "c"]


def test_within_a_priority_weights_are_chances_and_zero_goes_last():
    records = [record("none", weight=0), record("one", weight=1), record("three", weight=3)]
    first: Counter[str] = Counter()
    for seed in range(4000):
        order = [each.target for each in srv_in_order(records, Random(seed))]
        assert order[2] == "none"
        first[order[0]] += 1
    assert first["three"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_equal_weights_of_zero_are_in_any_order():
    records = [record("a"), record("b")]
    assert {srv_in_order(records, Random(seed))[0].target for seed in range(20)} == {"a", "b"}


@pytest.mark.parametrize("records", [[record(".")], [record("a"), record(".", 5)], []])
def test_a_dot_says_that_the_service_is_not_there(records):
    assert srv_in_order(records, Random(0)) == ()


@given(st.lists(st.builds(record, st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 2))), st.integers(0, 9))
def test_nothing_is_lost_and_the_generator_decides_alone(records, seed):
    order = srv_in_order(records, Random(seed))
    assert sorted(order, key=repr) == sorted(records, key=repr)
    assert [each.priority for each in order] == sorted(each.priority for each in records)
    assert order == srv_in_order(records, Random(seed))
