from __future__ import annotations

from math import inf
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.gate import Gate
from trio_connect._engine.several_names import in_turn, next_release, released

DELAY = 0.050
V6 = ("2001:db8::1",)
V4 = ("192.0.2.1",)


def asking() -> Gate:
    gate = Gate(DELAY)
    gate.asked("AAAA")
    gate.asked("A")
    return gate


def answered(at: float = 0.0, aaaa: tuple[str, ...] = V6, a: tuple[str, ...] = V4) -> Gate:
    gate = asking()
    gate.answered("AAAA", aaaa, at)
    gate.answered("A", a, at)
    return gate


def unknown() -> Gate:
    return answered(aaaa=(), a=())


def test_nothing_is_released_while_nothing_is_known():
    gates = [asking(), asking()]
    assert released(gates, 100.0) == 0
    assert next_release(gates, 0) == inf
    assert released([], 0.0) == 0
    assert next_release([], 0) == inf


def test_names_that_have_answered_are_released_at_once():
    assert released([answered(), answered()], 0.0) == 2


def test_an_unknown_name_holds_nobody_up():
    assert released([unknown(), answered()], 0.0) == 2
    assert released([unknown(), unknown()], 0.0) == 2


def test_a_pending_name_holds_a_later_one_up_for_the_resolution_delay():
    gates = [asking(), answered(at=1.0)]
    assert released(gates, 1.0) == 0
    assert next_release(gates, 0) == 1.0 + DELAY
    assert released(gates, 1.0 + DELAY) == 2


def test_the_first_name_does_not_wait_for_the_second():
    gates = [answered(), asking()]
    assert released(gates, 0.0) == 1
    assert next_release(gates, 1) == inf


def test_a_name_that_waits_for_its_other_family_is_released_with_a_later_one():
    # The second was known first. When its time has come, connecting begins, and what goes before it goes first.
    waiting = asking()
    waiting.answered("A", V4, 0.030)
    gates = [waiting, answered()]
    assert next_release(gates, 0) == DELAY
    assert released(gates, DELAY) == 2


def test_a_name_behind_two_pending_ones_waits_once():
    gates = [asking(), asking(), answered()]
    assert next_release(gates, 0) == DELAY
    assert released(gates, DELAY) == 3


def test_once_overtaken_a_pending_name_holds_up_nobody_else():
    gates = [asking(), answered(), answered(at=0.2)]
    assert released(gates, 0.2) == 3


def test_a_name_in_the_middle_that_is_pending_holds_the_last_one_up():
    gates = [answered(), asking(), answered(at=0.01)]
    assert released(gates, 0.01) == 1
    assert next_release(gates, 1) == 0.01 + DELAY
    assert released(gates, 0.01 + DELAY) == 3


def test_an_endpoint_of_two_names_is_the_first_ones():
    assert in_turn([["a", "b"], ["b", "c", "a"], []]) == {"a": 0, "b": 0, "c": 1}
    assert list(in_turn([["b"], ["a", "b", "c"]])) == ["b", "a", "c"]
    assert in_turn([]) == {}


# ---------------------------------------------------------------------- against an oracle

KINDS: tuple[Any, ...] = ("AAAA", "A")
TIMES = st.integers(0, 20).map(lambda n: n / 100)

facts = st.lists(
    st.tuples(TIMES, st.integers(0, 3), st.sampled_from(KINDS), st.sampled_from(["found", "nothing", "failed"])),
    max_size=12,
)


class Oracle:
    """The rule in its plainest words, from the facts alone and without a gate."""

    def __init__(self, count: int, delay: float) -> None:
        self.count, self.delay = count, delay
        self.outcomes: list[dict[str, str]] = [{} for _ in range(count)]
        self.first: list[float] = [inf] * count

    def tell(self, at: float, name: int, kind: str, outcome: str) -> None:
        self.outcomes[name][kind] = outcome
        if outcome == "found":
            self.first[name] = min(self.first[name], at)

    def may_begin(self, name: int) -> bool:
        outcomes = self.outcomes[name]
        return len(outcomes) == 2 or ("AAAA" in outcomes and "found" in outcomes.values())

    def is_released(self, name: int, now: float) -> bool:
        if any(now >= self.first[other] + self.delay for other in range(name, self.count)):
            return True
        return self.may_begin(name) and all(self.is_released(other, now) for other in range(name))


@given(facts, st.integers(1, 4), st.sampled_from([0.0, DELAY, inf]), st.booleans())
def test_what_is_released_is_what_the_rule_says_and_stays_so(
    facts: list[tuple[float, int, Any, str]], count: int, delay: float, ticking: bool
):
    gates = [Gate(delay) for _ in range(count)]
    for gate in gates:
        for kind in KINDS:
            gate.asked(kind)
    oracle = Oracle(count, delay)
    before = 0
    for at, name, kind, outcome in sorted(facts, key=lambda fact: fact[0]):
        if name < count and kind not in oracle.outcomes[name]:
            oracle.tell(at, name, kind, outcome)
            if outcome == "failed":
                gates[name].failed(kind, at)
            else:
                gates[name].answered(kind, V6 if outcome == "found" else (), at)
        for now in (at, at + DELAY / 2):
            count_now = released(gates, now)
            assert [oracle.is_released(each, now) for each in range(count)] == [
                each < count_now for each in range(count)
            ]
        assert released(gates, at) >= before
        before = released(gates, at)
        following = next_release(gates, before)
        assert following > at
        if following < inf:
            assert released(gates, following) > before
        if ticking:
            for gate in gates:
                gate.tick(at)


@given(st.lists(st.lists(st.integers(0, 9)), max_size=5))
def test_every_endpoint_has_one_turn_and_one_owner(names: list[list[int]]):
    owners = in_turn(names)
    flat = [endpoint for name in names for endpoint in name]
    assert list(owners) == sorted(set(flat), key=flat.index)
    assert all(
        owners[endpoint] == min(place for place, name in enumerate(names) if endpoint in name) for endpoint in flat
    )
