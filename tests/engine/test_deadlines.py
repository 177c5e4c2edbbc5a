"""Deadlines of many: the earliest first, what is over never, and memory only for what is not."""

from __future__ import annotations

from math import inf

import attrs
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.deadlines import Deadlines


@attrs.define(eq=False)
class Operation:
    name: int = 0
    over: bool = False


def test_without_any_there_is_no_deadline():
    deadlines: Deadlines[Operation] = Deadlines()
    assert deadlines.next() == inf
    assert deadlines.reached(1e9, 10) == []
    assert len(deadlines) == 0


def test_the_earliest_comes_first_and_of_one_instant_the_first_added():
    deadlines: Deadlines[Operation] = Deadlines()
    operations = [Operation(i) for i in range(4)]
    for until, operation in zip((2.0, 1.0, 2.0, 3.0), operations, strict=True):
        deadlines.add(until, operation)
    assert deadlines.next() == 1.0
    assert deadlines.reached(0.5, 10) == []
    assert deadlines.reached(2.0, 10) == [operations[1], operations[0], operations[2]]
    assert deadlines.next() == 3.0


def test_nothing_is_left_when_it_is_cleared():
    deadlines: Deadlines[Operation] = Deadlines()
    deadlines.add(1.0, Operation(over=True))
    deadlines.forget()
    deadlines.add(2.0, Operation())
    deadlines.clear()
    assert len(deadlines) == 0
    assert deadlines.reached(1e9, 10) == []
    deadlines.add(3.0, last := Operation())
    assert deadlines.next() == 3.0
    assert deadlines.reached(3.0, 10) == [last]


def test_at_most_so_many_are_returned():
    deadlines: Deadlines[Operation] = Deadlines()
    operations = [Operation(i) for i in range(5)]
    for operation in operations:
        deadlines.add(1.0, operation)
    assert deadlines.reached(1.0, 2) == operations[:2]
    assert deadlines.reached(1.0, 9) == operations[2:]


def test_what_is_over_has_no_deadline():
    deadlines: Deadlines[Operation] = Deadlines()
    first, second = Operation(), Operation()
    deadlines.add(1.0, first)
    deadlines.add(2.0, second)
    first.over = True
    deadlines.forget()
    assert deadlines.next() == 2.0
    assert len(deadlines) == 1
    assert deadlines.reached(9.0, 9) == [second]


def test_what_is_over_is_not_kept_for_long():
    """Operations that end in time must not fill the memory until their deadline comes."""
    deadlines: Deadlines[Operation] = Deadlines()
    pending = [Operation(i) for i in range(10)]
    for operation in pending:
        deadlines.add(60.0, operation)
    for _ in range(10_000):
        operation = Operation()
        deadlines.add(120.0, operation)
        operation.over = True
        deadlines.forget()
    assert len(deadlines) < 200
    assert deadlines.reached(1e9, 100) == pending


@given(st.lists(st.tuples(st.sampled_from(["add", "end", "reach"]), st.integers(0, 30)), max_size=400))
def test_against_a_list_that_is_searched(steps):
    deadlines: Deadlines[Operation] = Deadlines()
    model: list[tuple[int, Operation]] = []
    for what, number in steps:
        if what == "add":
            operation = Operation(number)
            deadlines.add(number, operation)
            model.append((number, operation))
        elif what == "end" and model:
            _, operation = model.pop(number % len(model))
            operation.over = True
            deadlines.forget()
        elif what == "reach":
            expected = [item for item in sorted(model, key=lambda item: item[0]) if item[0] <= number][:3]
            assert deadlines.reached(number, 3) == [operation for _, operation in expected]
            for item in expected:
                model.remove(item)
                item[1].over = True
        assert deadlines.next() == min((until for until, _ in model), default=inf)
