"""The circuit of a destination, as conversations, and against a model that is slow and plain.

Numbers in ids are those of the invariants of outbound destinations.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.engine.circuit_model import POLICIES, Pair, walk
from tests.support import LONG, examples
from trio_connect._engine import circuit as circuit_module
from trio_connect._engine.circuit import CIRCUIT_DECISIONS, CIRCUIT_FACTS, TICKET_FACTS, Circuit, Health, Ticket, Wait
from trio_connect._engine.facts import ILLEGAL, LATE, IllegalFact
from trio_connect._outbound_values import Backoff, OutboundPolicy

EVEN = Backoff(jitter=0.0)


def a_circuit(**policy: Any) -> Circuit:
    return Circuit(OutboundPolicy(**{"failures_to_delay": 2, "delay": EVEN, **policy}), Random(0))


def ticket(circuit: Circuit, now: float = 0.0) -> Ticket:
    granted = circuit.admit(now)
    assert isinstance(granted, Ticket)
    return granted


def opened(now: float = 0.0, **policy: Any) -> Circuit:
    """A circuit that has just opened for the first time."""
    circuit = a_circuit(failures_to_delay=1, **policy)
    assert circuit.failed(ticket(circuit, now), now)
    assert circuit.health.state == "open"
    return circuit


# Counting


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_1_it_opens_on_exactly_the_nth_failure_in_a_row(n):
    circuit = a_circuit(failures_to_delay=n)
    for failure in range(1, n):
        assert circuit.failed(ticket(circuit), 3.0)
        assert circuit.health == Health("closed", failures=failure)
    assert circuit.failed(ticket(circuit), 3.0)
    assert circuit.health == Health("open", failures=n, openings=1, until=4.0, generation=1)


def test_5_a_success_sets_failures_and_openings_to_0():
    circuit = a_circuit(failures_to_delay=3)
    circuit.failed(ticket(circuit), 0.0)
    circuit.failed(ticket(circuit), 0.0)
    assert circuit.succeeded(ticket(circuit), 0.0)
    assert circuit.health == Health()
    circuit.failed(ticket(circuit), 0.0)
    circuit.failed(ticket(circuit), 0.0)
    assert circuit.state == "closed"


def test_7_a_released_ticket_changes_nothing():
    circuit = a_circuit()
    circuit.failed(ticket(circuit), 0.0)
    before = circuit.health
    circuit.released(ticket(circuit), 9.0)
    assert circuit.health == before


def test_zero_switches_it_off():
    circuit = a_circuit(failures_to_delay=0)
    for _ in range(100):
        assert circuit.failed(ticket(circuit), 0.0)
    assert circuit.health == Health("closed", failures=100)


# Opening


def test_15_nobody_is_admitted_before_its_time():
    circuit = opened(5.0)
    assert circuit.admit(5.0) == Wait(6.0, known=True)
    assert circuit.admit(5.999) == Wait(6.0, known=True)
    states: list[str] = [circuit.state]
    assert isinstance(circuit.admit(6.0), Ticket)
    states.append(circuit.state)
    assert states == ["open", "probing"]


def test_16_the_time_is_the_law_from_the_moment_of_opening():
    circuit = opened(delay=Backoff(initial=1.0, multiplier=2.0, maximum=5.0, jitter=0.0))
    now, delays = 0.0, [circuit.until]
    for _ in range(4):
        now = circuit.until
        circuit.failed(ticket(circuit, now), now + 3.0)
        delays.append(circuit.until - (now + 3.0))
    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_24_two_that_opened_together_come_back_apart():
    policy, random = OutboundPolicy(failures_to_delay=1), Random(1)
    untils = set()
    for _ in range(10):
        circuit = Circuit(policy, random)
        circuit.failed(ticket(circuit), 0.0)
        assert 0.8 <= circuit.until <= 1.2
        untils.add(circuit.until)
    assert len(untils) == 10


# Probing


@pytest.mark.parametrize("limit", [1, 3])
def test_17_so_many_probes_at_once_and_no_more(limit):
    circuit = opened(probe_limit=limit)
    for _ in range(limit):
        assert isinstance(circuit.admit(1.0), Ticket)
    assert circuit.admit(1.5) == Wait(36.0, known=False)


def test_17_probes_from_before_a_re_opening_count():
    circuit = opened(probe_limit=2)
    first, second = ticket(circuit, 1.0), ticket(circuit, 1.0)
    circuit.failed(first, 2.0)
    assert circuit.until == 3.6
    third = ticket(circuit, 4.0)
    assert circuit.admit(4.0) == Wait(36.0, known=False)
    circuit.released(second, 4.0)
    assert isinstance(circuit.admit(4.0), Ticket)
    assert circuit.succeeded(third, 5.0)


def test_18_a_probe_that_succeeds_closes_and_the_rest_comes_by_and_by():
    circuit = a_circuit(failures_to_delay=2, max_connecting=2, max_connections=5)
    circuit.failed(ticket(circuit), 0.0)
    circuit.failed(ticket(circuit), 0.0)
    assert circuit.succeeded(ticket(circuit, 1.0), 1.5)
    assert circuit.health == Health("closed", generation=2)
    first, second = ticket(circuit, 2.0), ticket(circuit, 2.0)
    assert circuit.admit(2.0) == Wait(37.0, known=False)
    circuit.succeeded(first, 3.0)
    third, fourth = ticket(circuit, 3.0), ticket(circuit, 3.0)
    assert circuit.admit(3.0) == Wait(37.0, known=False)
    circuit.failed(second, 3.0)
    fifth = ticket(circuit, 3.0)
    assert isinstance(circuit.admit(3.0), Wait)
    circuit.succeeded(third, 3.0)
    circuit.succeeded(fourth, 3.0)
    assert all(isinstance(circuit.admit(3.0), Ticket) for _ in range(100))
    circuit.succeeded(fifth, 3.0)
    assert all(isinstance(circuit.admit(3.0), Ticket) for _ in range(100))


def test_18_no_ramp_where_all_may_connect_at_once():
    circuit = opened(max_connecting=2, max_connections=2)
    circuit.succeeded(ticket(circuit, 1.0), 1.0)
    assert all(isinstance(circuit.admit(1.0), Ticket) for _ in range(100))


def test_18_a_re_opening_ends_the_ramp():
    circuit = opened(max_connecting=4)
    circuit.succeeded(ticket(circuit, 1.0), 1.0)
    circuit.failed(ticket(circuit, 1.0), 1.0)
    assert circuit.state == "open"
    assert isinstance(circuit.admit(3.0), Ticket)
    assert isinstance(circuit.admit(3.0), Wait)


def test_18_a_ticket_that_stays_out_holds_up_the_ramp_no_longer_than_its_lease():
    circuit = opened(max_connecting=1)
    circuit.succeeded(ticket(circuit, 1.0), 1.0)
    slow = ticket(circuit, 1.0)
    assert isinstance(circuit.admit(35.999), Wait)
    assert isinstance(circuit.admit(36.0), Ticket)
    assert not circuit.succeeded(slow, 36.0)


def test_19_a_probe_that_fails_opens_at_once_with_the_next_delay():
    circuit = opened(delay=Backoff(initial=1.0, multiplier=2.0, jitter=0.0))
    assert circuit.failed(ticket(circuit, 1.0), 1.5)
    assert circuit.health == Health("open", failures=2, openings=2, until=3.5, generation=2)


def test_20_a_probe_that_is_released_frees_its_place_and_changes_nothing():
    circuit = opened()
    probe = ticket(circuit, 1.0)
    before = circuit.health
    circuit.released(probe, 2.0)
    assert circuit.health == before
    assert isinstance(circuit.admit(2.0), Ticket)


def test_21_a_probe_whose_owner_vanished_loses_its_place_after_its_lease():
    circuit = opened(connect_timeout=7.0)
    lost = ticket(circuit, 1.0)
    assert circuit.admit(12.999) == Wait(13.0, known=False)
    assert isinstance(circuit.admit(13.0), Ticket)
    before = circuit.health
    assert not circuit.succeeded(lost, 14.0)
    assert circuit.health == before


def test_21_a_lease_runs_out_also_when_nobody_asks():
    circuit = opened(connect_timeout=7.0)
    lost = ticket(circuit, 1.0)
    assert not circuit.failed(lost, 13.0)
    assert circuit.state == "probing"


@pytest.mark.parametrize("fact", ["succeeded", "failed"])
def test_22_what_an_earlier_generation_reports_is_ignored(fact):
    circuit = a_circuit(failures_to_delay=1)
    old = ticket(circuit)
    circuit.failed(ticket(circuit), 0.0)
    before = circuit.health
    assert getattr(circuit, fact)(old, 0.5) is False
    assert circuit.health == before
    probe = ticket(circuit, 1.0)
    circuit.succeeded(probe, 1.0)
    before = circuit.health
    assert before.generation == 2


def test_22_so_is_a_probe_of_before_the_recovery():
    circuit = opened(probe_limit=2)
    first, second = ticket(circuit, 1.0), ticket(circuit, 1.0)
    circuit.succeeded(first, 2.0)
    assert not circuit.failed(second, 2.0)
    assert circuit.health == Health("closed", generation=2)


def test_23_a_reset_closes_and_forgets_the_backoff():
    circuit = opened()
    circuit.failed(ticket(circuit, 1.0), 1.0)
    circuit.reset()
    assert circuit.health == Health("closed", generation=3)
    assert all(isinstance(circuit.admit(1.0), Ticket) for _ in range(100))
    circuit.failed(ticket(circuit, 1.0), 2.0)
    assert circuit.until == 3.0


def test_23_a_reset_while_probing_or_in_a_ramp():
    circuit = opened(max_connecting=1)
    probe = ticket(circuit, 1.0)
    circuit.reset()
    assert not circuit.failed(probe, 1.0)
    assert circuit.state == "closed"
    circuit = opened(max_connecting=1)
    circuit.succeeded(ticket(circuit, 1.0), 1.0)
    circuit.reset()
    assert all(isinstance(circuit.admit(1.0), Ticket) for _ in range(100))


# The tables


@pytest.mark.parametrize("again", ["succeeded", "failed", "released"])
@pytest.mark.parametrize("first", ["succeeded", "failed", "released"])
def test_a_ticket_speaks_once(first, again):
    circuit = a_circuit()
    held = ticket(circuit)
    getattr(circuit, first)(held, 0.0)
    before = circuit.health
    with pytest.raises(IllegalFact, match=f"{again}: this ticket has said how it went"):
        getattr(circuit, again)(held, 0.0)
    assert circuit.health == before


def test_the_tables_name_every_pair():
    states, facts = {"closed", "open", "probing"}, {"due", "succeeded", "failed", "released", "reset"}
    assert set(CIRCUIT_FACTS) == states
    assert all(set(row) == facts for row in CIRCUIT_FACTS.values())
    assert {word for row in CIRCUIT_FACTS.values() for word in row.values()} <= {*states, ILLEGAL}
    assert all(set(row) == {"succeeded", "failed", "released"} for row in TICKET_FACTS.values())
    assert {word for row in TICKET_FACTS.values() for word in row.values()} == {"over", LATE, ILLEGAL}
    assert CIRCUIT_DECISIONS == {"closed": {"Opened": "open"}}
    illegal = {(state, fact) for state, row in CIRCUIT_FACTS.items() for fact in row if row[fact] == ILLEGAL}
    assert illegal == {
        ("closed", "due"),
        ("probing", "due"),
        ("open", "succeeded"),
        ("open", "failed"),
        ("open", "released"),
    }


@pytest.mark.parametrize(("state", "fact"), [("closed", "due"), ("open", "succeeded"), ("open", "failed")])
def test_an_impossible_pair_raises_and_changes_nothing(state, fact):
    circuit = a_circuit()
    circuit.state = state
    before = circuit.health
    with pytest.raises(IllegalFact, match=f"{fact}: not while the circuit is {state}"):
        circuit._become(fact)
    assert circuit.health == before


def test_before_it_has_opened_there_is_no_time_to_wait_for():
    assert a_circuit().health == Health("closed", 0, 0, -inf, 0)
    assert ticket(a_circuit(), 3.0).expires == inf
    assert ticket(opened(), 3.0).expires == 38.0


# Against the model


@pytest.mark.parametrize("seed", range(40 if LONG else 4))
@pytest.mark.parametrize("policy", POLICIES, ids=range(len(POLICIES)))
def test_random_histories(policy, seed):
    walk(circuit_module, policy, seed, 400)


class CircuitMachine(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(POLICIES), seed=st.integers(0, 99))
    def begin(self, policy: OutboundPolicy, seed: int) -> None:
        self.pair = Pair(circuit_module, policy, seed)

    @rule(times=st.integers(1, 4))
    def admit(self, times: int) -> None:
        for _ in range(times):
            self.pair.admit()

    @precondition(lambda self: self.pair.out)
    @rule(index=st.integers(0, 9), fact=st.sampled_from(["failed", "failed", "succeeded", "released"]))
    def tell(self, index: int, fact: str) -> None:
        self.pair.tell(index, fact)

    @rule(seconds=st.sampled_from([0.25, 1.0, 10.0, 36.0]))
    def wait(self, seconds: float) -> None:
        self.pair.wait(seconds)

    @precondition(lambda self: self.pair.circuit.state == "open")
    @rule()
    def wait_until(self) -> None:
        self.pair.wait_until()

    @rule()
    def reset(self) -> None:
        self.pair.reset()


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(max_examples=examples(20, 300), stateful_step_count=80 if LONG else 40)


def test_a_ticket_is_not_a_value():
    assert attrs.astuple(Wait(1.0, known=True)) == (1.0, True)
    assert Ticket(0, inf) != Ticket(0, inf)
