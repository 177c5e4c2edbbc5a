from __future__ import annotations

from math import inf, nan
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.facts import ILLEGAL, LATE, IllegalFact
from trio_connect._engine.gate import GATE_FACTS, QUESTION_FACTS, Gate, GateFact, GateState, QuestionFact, QuestionState

V6 = ("2001:db8::1",)
V4 = ("192.0.2.1", "192.0.2.2")


def asking(*kinds, delay=0.050, ipv4_first=False) -> Gate:
    gate = Gate(delay, ipv4_first=ipv4_first)
    for kind in kinds:
        gate.asked(kind)
    return gate


def everything(gate):
    return (
        gate.state, gate.open, gate.deadline, gate.preferred, gate.pending, dict(gate.known),
    )  # fmt: skip


# ---------------------------------------------------------------------- the checklist


def test_lines_1_and_2_both_questions_are_pending_until_answered():
    gate = asking("AAAA", "A")
    assert (gate.state, gate.pending, gate.deadline) == ("asking", ("AAAA", "A"), inf)
    gate.answered("A", V4, 0.01)
    assert gate.pending == ("AAAA",)


def test_line_6_connecting_starts_before_all_answers_are_in():
    gate = asking("AAAA", "A")
    gate.answered("AAAA", V6, 0.02)
    assert gate.open
    assert gate.pending == ("A",)


def test_line_7_one_failure_leaves_the_other_question_alone():
    gate = asking("AAAA", "A")
    gate.failed("AAAA", 0.01)
    assert (gate.state, gate.pending) == ("asking", ("A",))
    gate.answered("A", V4, 0.30)
    assert gate.state == "open"


def test_line_8_an_answer_for_the_preferred_family_opens_at_once():
    gate = asking("AAAA", "A")
    gate.answered("AAAA", V6, 0.02)
    assert (gate.open, gate.deadline, dict(gate.known)) == (True, inf, {"AAAA": V6})


def test_line_9_ipv4_first_waits_for_ipv6():
    gate = asking("AAAA", "A")
    gate.answered("A", V4, 0.10)
    assert gate.state == "waiting"
    assert gate.deadline == pytest.approx(0.15)
    gate.answered("AAAA", V6, 0.11)
    assert gate.open
    assert list(gate.known.items()) == [("AAAA", V6), ("A", V4)]


def test_line_10_ipv4_first_opens_after_the_resolution_delay_and_ipv6_joins():
    gate = asking("AAAA", "A")
    gate.answered("A", V4, 0.0)
    gate.tick(0.049)
    assert gate.state == "waiting"
    gate.tick(0.050)
    assert (gate.open, gate.pending) == (True, ("AAAA",))
    gate.answered("AAAA", V6, 0.150)
    assert (gate.open, gate.pending) == (True, ())
    assert list(gate.known) == ["AAAA", "A"]


def test_line_19_a_negative_answer_ends_the_wait():
    gate = asking("AAAA", "A")
    gate.answered("A", V4, 0.0)
    gate.answered("AAAA", (), 0.01)
    assert (gate.open, dict(gate.known)) == (True, {"A": V4})
    gate = asking("AAAA", "A")
    gate.answered("AAAA", (), 0.0)
    assert (gate.state, gate.deadline) == ("asking", inf)
    gate.answered("A", V4, 0.01)
    assert gate.open


def test_line_19_an_error_ends_the_wait_like_a_negative_answer():
    gate = asking("AAAA", "A")
    gate.answered("A", V4, 0.0)
    gate.failed("AAAA", 0.01)
    assert gate.open


def test_line_20_all_negative_is_empty():
    gate = asking("AAAA", "A")
    gate.answered("AAAA", (), 0.01)
    gate.failed("A", 0.02)
    assert (gate.state, gate.open, gate.pending, dict(gate.known)) == ("empty", False, (), {})


@pytest.mark.parametrize(("kind", "addresses"), [("A", V4), ("AAAA", V6)])
def test_line_21_the_only_family_is_the_preferred_one(kind, addresses):
    gate = asking(kind)
    assert gate.preferred == kind
    gate.answered(kind, addresses, 0.3)
    assert gate.open


def test_the_delay_runs_from_the_first_answer_with_addresses():
    gate = asking("AAAA", "A", "HTTPS")
    gate.answered("HTTPS", (), 0.0)
    assert gate.deadline == inf
    gate.answered("A", V4, 0.1)
    assert gate.deadline == pytest.approx(0.15)


def test_an_answer_that_is_told_after_the_delay_opens_without_a_tick():
    gate = asking("AAAA", "A", "HTTPS")
    gate.answered("A", V4, 0.0)
    gate.answered("HTTPS", (), 0.2)
    assert gate.open


def test_ipv4_first_waits_for_the_ipv4_answer():
    gate = asking("AAAA", "A", ipv4_first=True)
    assert gate.preferred == "A"
    gate.answered("AAAA", V6, 0.02)
    assert gate.state == "waiting"
    assert gate.deadline == pytest.approx(0.07)
    gate.answered("A", V4, 0.03)
    assert gate.open


def test_ipv4_first_without_a_question_for_ipv4_prefers_ipv6():
    gate = asking("AAAA", ipv4_first=True)
    assert gate.preferred == "AAAA"


def test_other_kinds_leave_the_gate_to_the_preferred_family_but_keep_it_from_being_empty():
    gate = asking("AAAA", "A", "HTTPS")
    gate.answered("AAAA", (), 0.0)
    gate.answered("A", (), 0.0)
    assert (gate.state, gate.pending) == ("asking", ("HTTPS",))
    gate.failed("HTTPS", 0.1)
    assert gate.state == "empty"
    gate = asking("SRV")
    assert gate.preferred is None
    gate.answered("SRV", V4, 0.0)
    assert gate.open


def test_no_delay_and_an_endless_one():
    gate = asking("AAAA", "A", delay=0.0)
    gate.answered("A", V4, 0.1)
    assert gate.open
    gate = asking("AAAA", "A", delay=inf)
    gate.answered("A", V4, 0.1)
    assert gate.deadline == inf
    gate.tick(1e9)
    assert gate.state == "waiting"


@pytest.mark.parametrize("delay", [-0.001, nan, -inf])
def test_a_delay_is_not_negative(delay):
    with pytest.raises(ValueError, match="resolution_delay"):
        Gate(delay)


def test_a_question_may_join_while_the_gate_waits_or_is_open():
    gate = asking("AAAA", "A")
    gate.answered("A", V4, 0.0)
    gate.asked("HTTPS")
    assert (gate.state, gate.pending) == ("waiting", ("AAAA", "HTTPS"))
    gate.tick(0.05)
    gate.asked("SRV")
    assert (gate.state, gate.pending) == ("open", ("AAAA", "HTTPS", "SRV"))


def test_what_is_read_cannot_be_written():
    gate = asking("A")
    gate.answered("A", V4, 0.0)
    with pytest.raises(TypeError):
        gate.known["A"] = ()  # type: ignore[index]


# ---------------------------------------------------------------------- every pair of state and fact


def in_state(state) -> Gate:
    """A gate in that state with the question A pending where a question can be."""
    gate = asking("AAAA", "A")
    if state == "waiting":
        gate = asking("AAAA", "HTTPS", "A")
        gate.answered("HTTPS", V6, 0.0)
    elif state == "open":
        gate.answered("AAAA", V6, 0.0)
    elif state == "empty":
        gate.answered("AAAA", (), 0.0)
        gate.answered("A", (), 0.0)
    elif state == "cancelled":
        gate.cancel()
    assert gate.state == state
    return gate


def tell(gate, fact):
    if fact == "asked":
        gate.asked("MX")
    elif fact == "answered":
        gate.answered("A", V4, 0.01)
    elif fact == "failed":
        gate.failed("A", 0.01)
    elif fact == "tick":
        gate.tick(0.01)
    else:
        gate.cancel()


def test_the_tables_are_complete():
    assert set(GATE_FACTS) == set(get_args(GateState))
    assert all(set(row) == set(get_args(GateFact)) for row in GATE_FACTS.values())
    assert set(QUESTION_FACTS) == set(get_args(QuestionState))
    assert all(set(row) == set(get_args(QuestionFact)) for row in QUESTION_FACTS.values())


@pytest.mark.parametrize("state", get_args(GateState))
@pytest.mark.parametrize("fact", get_args(GateFact))
def test_every_pair_does_what_its_table_says(state, fact):
    gate = in_state(state)
    before = everything(gate)
    entry = GATE_FACTS[state][fact]
    if entry == ILLEGAL:
        with pytest.raises(IllegalFact, match=f"'{fact}' in a gate that is {state}"):
            tell(gate, fact)
        assert everything(gate) == before
    elif entry == LATE:
        tell(gate, fact)
        assert everything(gate) == before
    else:
        tell(gate, fact)
        # With A answered or failed while AAAA is out, "judge" finds these.
        judged = {"asking": {"answered": "waiting"}}.get(state, {}).get(fact, state)
        assert gate.state == (judged if entry == "judge" else entry)


@pytest.mark.parametrize("state", get_args(QuestionState))
@pytest.mark.parametrize("fact", get_args(QuestionFact))
def test_every_pair_of_question_and_fact(state, fact):
    gate = asking("AAAA")
    if state != "unasked":
        gate.asked("A")
    if state == "answered":
        gate.answered("A", (), 0.0)
    elif state == "failed":
        gate.failed("A", 0.0)
    before = everything(gate)

    def act():
        if fact == "asked":
            gate.asked("A")
        else:
            tell(gate, fact)

    if QUESTION_FACTS[state][fact] == ILLEGAL:
        with pytest.raises(IllegalFact, match=f"'{fact}' for the question 'A', which is {state}"):
            act()
        assert everything(gate) == before
    else:
        act()
        assert ("A" in gate.pending) == (fact == "asked")


# ---------------------------------------------------------------------- properties

an_answer = st.tuples(
    st.sampled_from(["positive", "negative", "error"]), st.sampled_from([0.0, 0.01, 0.049, 0.05, 0.051, 0.3])
)


@given(an_answer, an_answer)
def test_the_gate_opens_at_the_first_moment_either_condition_holds(aaaa, a):
    gate = asking("AAAA", "A")
    events: list[Any] = sorted([(aaaa[1], 0, "AAAA", aaaa[0]), (a[1], 1, "A", a[0])])
    opened_at = inf
    for at, _, kind, outcome in events:
        if gate.deadline <= at:
            opened_at = gate.deadline
            gate.tick(gate.deadline)
            assert gate.open
        if outcome == "error":
            gate.failed(kind, at)
        else:
            gate.answered(kind, ("192.0.2.1",) if outcome == "positive" else (), at)
        if gate.open:
            opened_at = min(opened_at, at)
    if gate.state == "waiting":
        opened_at = gate.deadline
        gate.tick(gate.deadline)
        assert gate.open
    positives = [at for at, _, _, outcome in events if outcome == "positive"]
    if not positives:
        assert gate.state == "empty"
        return
    assert opened_at == pytest.approx(min(max(min(positives), aaaa[1]), min(positives) + 0.05))
    assert gate.pending == ()
