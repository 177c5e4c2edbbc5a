"""Whose turn it is: conversations, and a machine of everything that waits against a model that looks at all of it.

Numbers in ids are those of the invariants of outbound destinations.
"""

from __future__ import annotations

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.support import LONG, examples
from trio_connect._engine.facts import IllegalFact
from trio_connect._engine.limits import Blocked, Cap, Layers, Lease, Limits, Pace, Share
from trio_connect._engine.turns import Turns
from trio_connect._outbound_values import MICROSECONDS

# Conversations


def waiting(turns: Turns, cap: Cap, *members: str) -> None:
    """Have the lines of these members wait for a cap."""
    for member in members:
        turns.join(member, f"{member}1")
        assert turns.next() == (member, f"{member}1")
        turns.refused(member, [cap])


def test_29_only_the_head_of_a_line_tries_and_the_next_after_it():
    turns = Turns()
    for waiter in (1, 2, 3):
        turns.join("a", waiter)
    assert turns.waiting("a") == 3
    for waiter in (1, 2, 3):
        assert turns.next() == ("a", waiter)
        assert turns.next() is None
        turns.granted("a")
    assert turns.next() is None
    assert turns.waiting("a") == 0


def test_29_a_head_that_is_refused_keeps_its_place_and_nobody_overtakes_it():
    turns, cap = Turns(), Cap("cap", 1)
    turns.join("a", 1)
    turns.join("a", 2)
    turns.next()
    turns.refused("a", [cap])
    turns.join("a", 3)
    assert turns.next() is None
    turns.freed(cap, "a")
    assert turns.next() == ("a", 1)


def test_29_a_backlog_blocks_no_other_line():
    turns, cap = Turns(), Cap("cap", 1)
    for waiter in range(100):
        turns.join("a", waiter)
    turns.next()
    turns.refused("a", [cap])
    turns.join("b", "b1")
    assert turns.next() == ("b", "b1")


def test_29_lines_take_turns():
    turns, cap = Turns(), Cap("cap", 1)
    for member in ("a", "b", "c"):
        for n in (1, 2, 3):
            turns.join(member, f"{member}{n}")
        turns.next()
        turns.refused(member, [cap])
    order = []
    for _ in range(9):
        turns.freed(cap, "x")
        granted = turns.next()
        assert granted is not None
        order.append(granted[1])
        turns.granted(granted[0])
        # The place is taken: the next line is refused, and so is the next of this line.
        while (turn := turns.next()) is not None:
            turns.refused(str(turn[0]), [cap])
    assert order == ["a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3"]


def test_28_an_offer_goes_on_until_it_is_taken():
    turns, cap, other = Turns(), Cap("cap", 1), Cap("other", 1)
    waiting(turns, cap, "a", "b", "c")
    turns.freed(cap, "x")
    assert turns.next() == ("a", "a1")
    turns.refused("a", [other])
    assert turns.next() == ("b", "b1")
    turns.granted("b")
    assert turns.next() == ("c", "c1")
    turns.refused("c", [cap])
    assert turns.next() is None
    # It did not lose its turn, and the one that waits for another cap is not asked.
    turns.freed(cap, "x")
    assert turns.next() == ("c", "c1")
    turns.granted("c")
    assert turns.next() is None
    turns.freed(other, "x")
    assert turns.next() == ("a", "a1")


def test_28_a_waiter_that_leaves_passes_its_turn_on():
    turns, cap = Turns(), Cap("cap", 1)
    waiting(turns, cap, "a")
    turns.join("a", "a2")
    turns.leave("a", "a1")
    assert turns.next() == ("a", "a2")
    turns.refused("a", [cap])
    turns.join("a", "a3")
    turns.leave("a", "a3")
    assert turns.next() is None
    turns.leave("a", "a2")
    turns.freed(cap, "x")
    assert turns.next() is None


def test_28_a_head_that_leaves_while_it_tries_passes_its_turn_on():
    turns = Turns()
    turns.join("a", 1)
    turns.join("a", 2)
    assert turns.next() == ("a", 1)
    turns.leave("a", 1)
    assert turns.next() == ("a", 2)
    turns.granted("a")


def test_28_what_changes_while_a_head_tries_is_not_lost():
    turns, cap = Turns(), Cap("cap", 1)
    turns.join("a", 1)
    assert turns.next() == ("a", 1)
    turns.freed(cap, "x")
    turns.refused("a", [cap])
    assert turns.next() == ("a", 1)
    turns.wake("a")
    turns.refused("a", [])
    assert turns.next() == ("a", 1)
    turns.refused("a", [])
    assert turns.next() is None


def test_a_line_that_waits_for_a_time_is_woken():
    turns, cap = Turns(), Cap("cap", 1)
    turns.join("a", 1)
    turns.next()
    turns.refused("a", [])
    assert turns.next() is None
    turns.wake("a")
    turns.wake("a")
    assert turns.next() == ("a", 1)
    turns.refused("a", [cap])
    turns.wake("a")
    turns.freed(cap, "x")
    assert turns.next() == ("a", 1)
    turns.refused("a", [])
    assert turns.next() is None
    turns.wake("nobody")
    assert turns.next() is None


def test_a_line_that_was_made_ready_and_is_gone():
    turns = Turns()
    turns.join("a", 1)
    turns.leave("a", 1)
    assert turns.next() is None
    turns.join("a", 2)
    assert turns.next() == ("a", 2)
    assert turns.next() is None


def test_a_head_waits_for_whichever_cap_is_free_first():
    turns, first, second = Turns(), Cap("first", 1), Cap("second", 1)
    turns.join("a", 1)
    turns.next()
    turns.refused("a", [first, second])
    turns.freed(second, "x")
    assert turns.next() == ("a", 1)
    turns.refused("a", [first, second])
    turns.freed(first, "x")
    assert turns.next() == ("a", 1)
    turns.granted("a")
    turns.freed(first, "x")
    turns.freed(second, "x")
    assert turns.next() is None


def test_29_whom_places_are_kept_back_for_goes_first():
    turns, share = Turns(), Share("total", 4, reserve=1)
    for member in ("rich", "poor"):
        share.join(member)
    for _ in range(3):
        share.take("rich")
    waiting(turns, share, "rich", "poor")
    turns.freed(share, "rich")
    assert turns.next() == ("poor", "poor1")


def test_29_one_that_has_become_poor_while_it_waited_is_found():
    turns, share = Turns(), Share("total", 2, reserve=1)
    for member in ("a", "b"):
        share.join(member)
        share.take(member)
    waiting(turns, share, "a", "b")
    share.give("b")
    turns.freed(share, "b")
    # "a" is refused, for the place is kept back; an offer to it first would have ended there.
    assert turns.next() == ("b", "b1")


def test_who_was_not_asked_does_not_answer():
    turns = Turns()
    for fact in (lambda: turns.granted("a"), lambda: turns.refused("a", [])):
        with pytest.raises(IllegalFact, match="'a' was not asked"):
            fact()
    turns.join("a", 1)
    with pytest.raises(IllegalFact, match="granted: 'a' was not asked"):
        turns.granted("a")
    with pytest.raises(IllegalFact, match="refused: 'a' was not asked"):
        turns.refused("a", [])
    assert turns.next() == ("a", 1)
    turns.refused("a", [])
    with pytest.raises(IllegalFact, match="refused: 'a' was not asked"):
        turns.refused("a", [])


def test_who_does_not_wait_does_not_leave():
    turns = Turns()
    with pytest.raises(IllegalFact, match="leave: 1 does not wait"):
        turns.leave("a", 1)
    turns.join("a", 1)
    with pytest.raises(IllegalFact, match="leave: 2 does not wait"):
        turns.leave("a", 2)


# Everything together


@attrs.define(eq=False)
class Held:
    """A lease, and where the model has it."""

    member: str
    lease: Lease
    caps: set[str]


GROUP_OF = {"a": "g", "b": "g", "c": "h", "d": "i"}


class Admissions(RuleBasedStateMachine):
    """Four destinations, two of which share a group, below one total: whoever waits has a reason to, at any moment."""

    @initialize(total=st.integers(2, 7), reserve=st.integers(0, 2), group=st.integers(1, 3), paced=st.booleans())
    def begin(self, total: int, reserve: int, group: int, paced: bool) -> None:
        self.turns, self.now, self.count = Turns(), 0, 0
        self.reserve = reserve
        limits = Limits()
        self.caps: dict[str, Cap] = {"total": Share("total", total, reserve=reserve)}
        self.paces: dict[str, Pace] = {}
        self.layers = {}
        for member, key in GROUP_OF.items():
            self.caps["total"].join(member)  # type: ignore[attr-defined]
            self.caps[key] = limits.cap(key, key, group)
            self.caps[f"{member} connecting"] = limits.cap(member, member, 2)
            paces = []
            if paced and member in "ac":
                self.paces[member] = Pace(member, 3 * MICROSECONDS, 2)
                paces = [self.paces[member]]
            self.layers[member] = Layers.of([self.caps[name] for name in self.names(member)], paces)
        self.starts: dict[str, list[int]] = {member: [] for member in GROUP_OF}
        self.lines: dict[str, list[int]] = {member: [] for member in GROUP_OF}
        self.held: list[Held] = []

    def names(self, member: str) -> list[str]:
        return ["total", GROUP_OF[member], f"{member} connecting"]

    # The model: everything is counted anew from what is held.

    def holders(self, name: str) -> list[str]:
        return [held.member for held in self.held if name in held.caps]

    def may_start(self, member: str) -> bool:
        for name in self.names(member):
            free = self.caps[name].limit - len(self.holders(name))
            if name == "total" and self.holders(name).count(member) >= self.reserve:
                short = sum(max(0, self.reserve - self.holders(name).count(each)) for each in GROUP_OF)
                free -= min(short, self.caps[name].limit // 2)
            if free < 1:
                return False
        return self.due(member) <= self.now

    def due(self, member: str) -> int:
        if member not in self.paces:
            return 0
        starts = self.starts[member]
        return max((at + (len(starts) - i - 1) * 3 * MICROSECONDS for i, at in enumerate(starts)), default=0)

    def pump(self) -> None:
        while (turn := self.turns.next()) is not None:
            member, waiter = str(turn[0]), turn[1]
            assert waiter == self.lines[member][0], "not first in, first out"
            expected = self.may_start(member)
            outcome = Limits.acquire(self.layers[member], member, self.now / MICROSECONDS)
            assert isinstance(outcome, Lease) is expected
            if isinstance(outcome, Lease):
                self.lines[member].pop(0)
                self.starts[member].append(self.now)
                self.held.append(Held(member, outcome, set(self.names(member))))
                self.turns.granted(member)
            else:
                assert isinstance(outcome, Blocked)
                if outcome.until is not None:
                    assert round(outcome.until * MICROSECONDS) == self.due(member)
                self.turns.refused(member, [] if outcome.cap is None else [outcome.cap])
        assert not self.turns._asked, "nobody is trying now"
        for name, cap in self.caps.items():
            assert cap.held == len(self.holders(name)) <= cap.limit
        for member, line in self.lines.items():
            assert self.turns.waiting(member) == len(line)
            assert not (line and self.may_start(member)), "a wake-up was lost"

    @rule(member=st.sampled_from("abcd"), times=st.integers(1, 3))
    def ask(self, member: str, times: int) -> None:
        for _ in range(times):
            self.count += 1
            self.lines[member].append(self.count)
            self.turns.join(member, self.count)
            self.pump()

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 20))
    def connected(self, index: int) -> None:
        held = self.held[index % len(self.held)]
        name = f"{held.member} connecting"
        if name in held.caps:
            held.caps.remove(name)
            self.freed(held, Limits.release(held.lease, self.caps[name]))

    @precondition(lambda self: self.held)
    @rule(index=st.integers(0, 20))
    def close(self, index: int) -> None:
        held = self.held.pop(index % len(self.held))
        self.freed(held, Limits.release(held.lease))

    def freed(self, held: Held, caps: tuple[Cap, ...]) -> None:
        for cap in caps:
            self.turns.freed(cap, held.member)
        self.pump()

    @precondition(lambda self: any(self.lines.values()))
    @rule(index=st.integers(0, 20))
    def give_up(self, index: int) -> None:
        everybody = [(member, waiter) for member, line in self.lines.items() for waiter in line]
        member, waiter = everybody[index % len(everybody)]
        self.lines[member].remove(waiter)
        self.turns.leave(member, waiter)
        self.pump()

    @rule(seconds=st.sampled_from([1, 3, 10]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * MICROSECONDS
        for member in self.paces:
            self.turns.wake(member)
        self.pump()


TestAdmissions = Admissions.TestCase
TestAdmissions.settings = settings(max_examples=examples(40, 500), stateful_step_count=100 if LONG else 50)


def test_a_line_is_shown_with_its_head_first():
    turns = Turns()
    assert turns.line("a") == ()
    turns.join("a", 1)
    turns.join("a", 2)
    assert turns.line("a") == (1, 2)
