from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.dns_tries import ENOUGH, LIFETIME, RECHECK_AFTER, TURN, ServerMemory, Tries


def sends(tries: Tries[str], start: float = 0.0) -> list[tuple[float, tuple[str, ...]]]:
    """What is sent when nobody ever answers."""
    found = []
    now = start
    while not tries.is_over(now):
        due = tries.due(now)
        if due:
            found.append((now - start, due))
        assert tries.deadline > now
        now = tries.deadline
    return found


def test_one_server_is_asked_again_after_ever_longer_turns():
    assert sends(Tries(ServerMemory(), ["a"], 5.0), 5.0) == [(0.0, ("a",)), (1.0, ("a",)), (3.0, ("a",)), (7.0, ("a",))]


def test_servers_have_their_turns_in_order():
    assert sends(Tries(ServerMemory(), ["a", "b"], 0.0)) == [
        (0.0, ("a",)), (1.0, ("b",)), (2.0, ("a",)), (4.0, ("b",)), (6.0, ("a",)),
    ]  # fmt: skip


def test_nothing_is_due_before_its_time_and_the_question_ends():
    tries = Tries(ServerMemory(), ["a"], 0.0)
    assert tries.deadline == 0.0
    assert tries.due(0.0) == ("a",)
    assert tries.due(0.5) == ()
    assert tries.deadline == TURN
    assert not tries.is_over(LIFETIME - 0.1)
    assert tries.is_over(LIFETIME)
    assert tries.due(LIFETIME) == ()
    assert tries.deadline == TURN


def test_no_servers_is_over_at_once():
    assert Tries(ServerMemory(), [], 0.0).is_over(0.0)


def test_a_failure_ends_the_turn_and_the_server_is_not_asked_again():
    tries = Tries(ServerMemory(), ["a", "b"], 0.0)
    tries.due(0.0)
    tries.failed("a", 0.2, silent=False)
    assert tries.deadline == 0.2
    assert tries.due(0.2) == ("b",)
    assert tries.deadline == 0.2 + TURN
    assert tries.due(1.2) == ("b",)
    assert not tries.is_over(1.2)
    tries.failed("b", 1.3, silent=True)
    assert tries.is_over(1.3)


def test_the_failure_of_a_server_whose_turn_is_over_ends_no_other_turn():
    tries = Tries(ServerMemory(), ["a", "b", "c"], 0.0)
    tries.due(0.0)
    tries.due(1.0)
    tries.failed("a", 1.5, silent=False)
    assert tries.deadline == 2.0
    assert tries.due(2.0) == ("c",)
    assert tries.due(3.0) == ("b",)


def test_a_server_that_was_silent_goes_behind_the_others():
    memory: ServerMemory[str] = ServerMemory()
    tries = Tries(memory, ["a", "b", "c"], 0.0)
    tries.due(0.0)
    tries.due(1.0)
    tries.answered("b")
    assert memory.turns(["a", "b", "c"], 1.1) == (("b",), ("c",), ("a",))
    assert memory.turns(["a"], 1.1) == (("a",),)
    tries.answered("a")
    assert memory.turns(["a", "b", "c"], 1.1) == (("a",), ("b",), ("c",))


def test_after_half_a_minute_one_question_tries_it_beside_the_best():
    memory: ServerMemory[str] = ServerMemory()
    memory.was_silent("a", 0.0)
    memory.was_silent("c", 10.0)
    assert memory.turns("abcd", RECHECK_AFTER - 0.1) == (("b",), ("d",), ("a",), ("c",))
    assert memory.turns("abcd", RECHECK_AFTER) == (("b", "a"), ("d",), ("c",))
    assert memory.turns("abcd", RECHECK_AFTER) == (("b",), ("d",), ("a",), ("c",))


def test_a_turn_of_two_ends_early_when_both_have_failed():
    memory: ServerMemory[str] = ServerMemory()
    memory.was_silent("a", -RECHECK_AFTER)
    tries = Tries(memory, ["a", "b", "c"], 0.0)
    assert tries.due(0.0) == ("b", "a")
    tries.failed("b", 0.1, silent=False)
    assert tries.deadline == TURN
    tries.failed("a", 0.2, silent=True)
    assert tries.due(0.2) == ("c",)


def test_when_all_were_silent_they_keep_their_order():
    memory: ServerMemory[str] = ServerMemory()
    tries = Tries(memory, ["a", "b"], 0.0)
    assert len(sends(tries)) == 5
    tries.expired(LIFETIME)
    assert memory.turns("ab", LIFETIME) == (("a",), ("b",))
    assert memory.turns("abc", LIFETIME) == (("c",), ("a",), ("b",))


@pytest.mark.parametrize(("waited", "counts"), [(ENOUGH, True), (ENOUGH - 0.01, False)])
def test_a_question_that_is_abandoned_early_proves_nothing(waited, counts):
    memory: ServerMemory[str] = ServerMemory()
    tries = Tries(memory, ["a", "b"], 5.0)
    tries.due(5.0)
    tries.abandoned(5.0 + waited)
    assert memory.turns("ab", 6.0) == ((("b",), ("a",)) if counts else (("a",), ("b",)))


@given(
    st.lists(st.sampled_from("abcde"), unique=True, min_size=1),
    st.dictionaries(st.sampled_from("abcde"), st.sampled_from([0.3, 2.5, 12.0, inf])),
    st.sets(st.sampled_from("abcde")),
    st.integers(min_value=1, max_value=4),
)
def test_a_good_server_answers_and_dead_ones_cost_their_turns_once(servers, errors, dead, questions):
    """Each server answers at once, with an error after a while, or never; each question is followed to its end."""
    memory: ServerMemory[str] = ServerMemory()
    good = [server for server in servers if server not in dead and server not in errors]
    silent = [server for server in servers if server in dead and server not in errors]
    now = 0.0
    for question in range(questions):
        began = now
        tries = Tries(memory, servers, now)
        coming: list[tuple[float, str]] = []
        answer = None
        while answer is None and not tries.is_over(now):
            for server in tries.due(now):
                if server in good:
                    answer = server
                elif server in errors and server not in [name for _, name in coming]:
                    coming.append((now + errors[server], server))
            if answer is not None:
                tries.answered(answer)
                break
            coming.sort()
            moment = min([tries.deadline, *(at for at, _ in coming if at > now)])
            now = moment
            for at, server in coming:
                if at == now:
                    tries.failed(server, now, silent=False)
        assert now - began <= LIFETIME
        if good and len(servers) <= 5:
            assert answer in good
            # Those before it had their turns, each no longer than one second.
            assert now - began <= TURN * (len(servers) - len(good))
        if good and question and not errors:
            assert now == began  # the dead ones are behind
        assert answer is not None or not good
    assert len(silent) <= len(servers)
