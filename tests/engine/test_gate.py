from __future__ import annotations

from itertools import chain
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
    assert gate.is_pending == bool(gate.pending)
    assert gate.addresses_of("") == tuple(chain.from_iterable(gate.known.values()))
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


# ---------------------------------------------------------------------- services and hints

ALT = "alt.test"


def served(gate, *targets, at=0.0, name=""):
    gate.served(targets, at, name)


def test_line_8_aaaa_and_services_are_enough_while_a_is_pending():
    gate = asking("HTTPS", "AAAA", "A")
    gate.answered("AAAA", V6, 0.01)
    assert gate.deadline == pytest.approx(0.06)
    served(gate, "", at=0.02)
    assert gate.open
    assert gate.pending == ("A",)


@pytest.mark.parametrize("how", ["none", "error", "own"])
def test_line_11_addresses_are_complete_and_services_come_later(how):
    gate = asking("HTTPS", "AAAA", "A")
    gate.answered("AAAA", V6, 0.0)
    gate.answered("A", V4, 0.0)
    assert gate.state == "waiting"
    if how == "error":
        gate.failed("HTTPS", 0.01)
    else:
        served(gate, *([""] if how == "own" else []), at=0.01)
    assert gate.open


def test_line_12_services_never_come():
    gate = asking("HTTPS", "AAAA", "A")
    gate.answered("AAAA", V6, 0.0)
    gate.answered("A", V4, 0.02)
    gate.tick(0.049)
    assert not gate.open
    gate.tick(0.050)
    assert gate.open


def test_line_13_a_hint_of_the_preferred_family_opens_at_once():
    gate = asking("HTTPS", "AAAA", "A")
    gate.hinted("AAAA", V6, 0.0)
    assert gate.state == "waiting"  # the record that it stands in has not been told yet
    served(gate, "")
    assert (gate.open, gate.pending, dict(gate.known)) == (True, ("AAAA", "A"), {"AAAA": V6})


def test_line_13_a_hint_of_the_other_family_alone_waits():
    gate = asking("HTTPS", "AAAA", "A")
    gate.hinted("A", V4, 0.0)
    served(gate, "")
    assert (gate.state, gate.deadline) == ("waiting", 0.05)
    gate.answered("AAAA", (), 0.01)
    assert gate.open


def test_line_15_real_records_replace_hints_and_errors_do_not():
    gate = asking("HTTPS", "AAAA", "A")
    gate.hinted("A", ["192.0.2.8"], 0.0)
    gate.hinted("A", ["192.0.2.9", "192.0.2.8"], 0.0)
    assert gate.known["A"] == ("192.0.2.8", "192.0.2.9")
    gate.failed("A", 0.0)
    assert gate.known["A"] == ("192.0.2.8", "192.0.2.9")
    gate = asking("HTTPS", "AAAA", "A")
    gate.hinted("A", ["192.0.2.9"], 0.0)
    gate.answered("A", V4, 0.01)
    gate.hinted("A", ["192.0.2.9"], 0.02)
    assert dict(gate.known) == {"A": V4}


def test_a_negative_answer_takes_hints_back_and_the_delay_with_them():
    gate = asking("HTTPS", "A")
    gate.hinted("A", V4, 0.0)
    gate.answered("A", (), 0.01)
    assert (gate.state, gate.deadline, dict(gate.known)) == ("asking", inf, {})
    served(gate, "")
    assert gate.state == "empty"


def test_line_16_the_first_host_with_addresses_opens_while_another_is_looked_up():
    gate = asking("HTTPS", "AAAA", "A")
    gate.asked("AAAA", ALT)
    gate.asked("A", ALT)
    gate.answered("AAAA", V6, 0.0)
    served(gate, ALT, "", at=0.01)
    assert gate.open
    assert gate.pending == ("A", "AAAA", "A")


def test_the_authority_waits_for_the_targets_but_not_for_long():
    gate = asking("HTTPS", "AAAA", "A")
    gate.asked("AAAA", ALT)
    gate.answered("AAAA", V6, 0.0)
    served(gate, ALT, at=0.01)
    assert (gate.state, gate.deadline) == ("waiting", 0.05)
    gate.tick(0.05)
    assert gate.open


def test_the_authority_counts_when_no_target_has_an_address():
    gate = asking("HTTPS", "AAAA")
    gate.asked("AAAA", ALT)
    gate.asked("A", ALT)
    gate.answered("AAAA", V6, 0.0)
    served(gate, ALT, at=0.01)
    gate.answered("AAAA", (), 0.02, ALT)
    assert gate.state == "waiting"
    gate.failed("A", 0.02, ALT)
    assert gate.open


def test_line_17_one_family_only():
    gate = asking("HTTPS", "A")
    gate.answered("A", V4, 0.0)
    assert gate.state == "waiting"
    served(gate, "", at=0.01)
    assert gate.open


def test_line_18_an_alias_does_not_open_the_gate():
    gate = asking("HTTPS", "AAAA", "A")
    gate.answered("AAAA", V6, 0.0)
    for kind in ("HTTPS", "AAAA", "A"):
        gate.asked(kind, ALT)
    served(gate, at=0.01)
    assert gate.state == "waiting"
    gate.answered("AAAA", ["2001:db8::2"], 0.02, ALT)
    assert gate.state == "waiting"
    served(gate, ALT, at=0.03, name=ALT)
    assert gate.open
    assert dict(gate.known_of(ALT)) == {"AAAA": ("2001:db8::2",)}


def test_what_has_been_asked():
    gate = asking("A")
    gate.asked("AAAA", ALT)
    assert [gate.is_asked("A"), gate.is_asked("A", ALT), gate.is_asked("AAAA", ALT)] == [True, False, True]


# ---------------------------------------------------------------------- every pair of state and fact


def in_state(state) -> Gate:
    """A gate in that state with the question A pending where a question can be."""
    gate = asking("AAAA", "HTTPS", "SRV", "A")
    if state == "waiting":
        gate.answered("SRV", V4, 0.0)
    elif state == "open":
        gate.answered("SRV", V4, 0.0)
        gate.tick(0.05)
    elif state == "empty":
        for kind in ("AAAA", "SRV", "A"):
            gate.answered(kind, (), 0.0)
        gate.served((), 0.0)
    elif state == "cancelled":
        gate.cancel()
    assert gate.state == state
    return gate


def tell(gate, fact):
    if fact == "asked":
        gate.asked("MX")
    elif fact == "hinted":
        gate.hinted("A", V4, 0.01)
    elif fact == "served":
        gate.served((), 0.01)
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
        judged = {"asking": {"answered": "waiting", "hinted": "waiting"}}.get(state, {}).get(fact, state)
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
        assert ("A" in gate.pending) == (fact == "asked" or (fact, state) == ("hinted", "pending"))
        # A hint counts until there is an answer; an error is not one.
        assert gate.known.get("A") == (V4 if fact == "answered" or (fact == "hinted" and state != "answered") else None)


# ---------------------------------------------------------------------- properties

an_answer = st.tuples(
    st.sampled_from(["positive", "negative", "error"]), st.sampled_from([0.0, 0.01, 0.049, 0.05, 0.051, 0.3])
)


@given(an_answer, an_answer, an_answer, an_answer, st.booleans(), st.booleans())
def test_with_services_it_opens_at_the_first_moment_too(https, aaaa, a, alt, hint, own):
    """The records name another host, perhaps with a hint, and perhaps the authority itself."""
    if hint and alt[0] == "negative":
        alt = ("error", alt[1])  # what takes a hint back has a test of its own
    gate = asking("HTTPS", "AAAA", "A")
    events: list[Any] = [("AAAA", "", aaaa), ("A", "", a), ("HTTPS", "", https)]
    opened_at = inf
    now = 0.0
    while events:
        events.sort(key=lambda event: event[2][1])
        kind, name, (outcome, at) = events.pop(0)
        if gate.deadline <= at:
            opened_at = min(opened_at, gate.deadline)
            gate.tick(gate.deadline)
            assert gate.open
        now = max(now, at)
        if outcome == "error":
            gate.failed(kind, now, name)
        elif kind != "HTTPS":
            gate.answered(kind, ("192.0.2.1",) if outcome == "positive" else (), now, name)
        elif outcome == "negative":
            gate.served((), now)
        else:
            gate.asked("AAAA", ALT)
            events.append(("AAAA", ALT, (alt[0], now + alt[1])))
            if hint:
                gate.hinted("AAAA", V6, now, ALT)
            gate.served([ALT, *([""] if own else [])], now)
        if gate.open:
            opened_at = min(opened_at, now)
    if gate.state == "waiting":
        opened_at = gate.deadline
        gate.tick(gate.deadline)

    # From when each host has an address, and from when its preferred family is known too.
    has_records = https[0] == "positive"
    alt_at = https[1] + alt[1]
    authority_from = min([at for outcome, at in (aaaa, a) if outcome == "positive"], default=inf)
    alt_from = inf if not has_records else https[1] if hint else alt_at if alt[0] == "positive" else inf
    authority_ready = max(authority_from, aaaa[1], https[1])
    if not has_records or own:
        ready = min(authority_ready, alt_from)
    elif alt_from == inf:
        ready = max(authority_ready, alt_at)  # nothing came of the target
    else:
        ready = alt_from
    expected = min(ready, min(authority_from, alt_from) + 0.05)
    if expected == inf:
        assert gate.state == "empty"
    else:
        assert opened_at == pytest.approx(expected)


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
    assert not gate.is_pending
