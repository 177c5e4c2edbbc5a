"""The table of tokens: first completed, first had; one holder at a time; nothing lost, nothing had twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from tests.support import examples
from trio_connect.queues._table import Entry, Rejection, TokenTable


class Named:
    """A table whose tokens have names."""

    def __init__(self, limit: int) -> None:
        self.table: TokenTable[Entry] = TokenTable(limit, self)
        self.tokens: dict[Any, Entry] = {}
        self.foreign: dict[Any, Entry] = {}

    def add(self, name: Any) -> None:
        self.tokens[name] = Entry(self)
        self.table.submitted += 1

    def of(self, names: Iterable[Any]) -> list[Entry]:
        return [self.tokens.get(name) or self.foreign.setdefault(name, Entry("another")) for name in names]

    def name(self, token: Entry | None) -> Any:
        return next((name for name, found in self.tokens.items() if found is token), None)

    def complete(self, name: Any) -> object:
        return self.table.complete(self.tokens[name])

    def rejection(self, names: Iterable[Any]) -> Rejection | None:
        return self.table.rejection(self.of(names))

    def reserve(self, names: Iterable[Any], waiter: object) -> None:
        self.table.reserve(self.of(names), waiter)

    def release(self, names: Iterable[Any]) -> bool:
        return self.table.release(self.of(names))

    def oldest(self, names: Iterable[Any]) -> Any:
        return self.name(self.table.oldest(self.of(names)))

    def claim(self, name: Any) -> None:
        self.table.claim(self.tokens[name])

    def take(self, most: int = 99) -> list[Any]:
        return [self.name(token) for token in self.table.take(most)]

    def numbers(self) -> tuple[int, int, int]:
        return self.table.count, self.table.pending, self.table.ready


def table(*names: str, limit: int = 10) -> Named:
    made = Named(limit)
    for name in names:
        made.add(name)
    return made


def test_results_come_in_the_order_of_completion():
    t = table("a", "b", "c")
    for token in ("c", "a", "b"):
        assert t.complete(token) is None
    assert t.take() == ["c", "a", "b"]
    assert t.numbers() == (0, 0, 0)


def test_at_most_so_many_are_taken():
    t = table("a", "b", "c")
    for token in "abc":
        t.complete(token)
    assert (t.take(2), t.numbers()) == (["a", "b"], (1, 0, 1))


def test_the_limit_counts_what_is_submitted_and_not_claimed():
    t = table("a", "b", limit=3)
    assert t.table.fits(1)
    assert not t.table.fits(2)
    t.complete("a")
    assert not t.table.fits(2)
    t.take(1)
    assert t.table.fits(2)


def test_pending_counts_what_has_not_completed():
    t = table("a", "b")
    assert t.numbers() == (2, 2, 0)
    t.complete("b")
    assert t.numbers() == (2, 1, 1)


@pytest.mark.parametrize(
    ("tokens", "rejection"),
    [
        ((), "empty"),
        (("a", "a"), "duplicate"),
        (("x", "x"), "duplicate"),
        (("x",), "unknown"),
        (("reserved", "x"), "unknown"),
        (("done", "x"), "unknown"),
        (("reserved",), "reserved"),
        (("a", "reserved", "done"), "reserved"),
        (("a", "done"), None),
        (("a",), None),
    ],
)
def test_every_token_is_looked_at_first(tokens, rejection):
    t = table("a", "reserved", "done")
    t.complete("done")
    t.reserve(["reserved"], "somebody")
    assert t.rejection(tokens) == rejection


def test_a_claimed_token_is_unknown():
    t = table("a")
    t.complete("a")
    t.reserve(["a"], "me")
    t.claim("a")
    assert t.rejection(["a"]) == "unknown"
    assert not t.release(["a"])


def test_a_completion_names_the_holder_and_is_kept_for_him():
    t = table("a", "b")
    t.reserve(["a"], "me")
    assert t.complete("a") == "me"
    assert t.complete("b") is None
    assert t.take() == ["b"]
    assert t.oldest(["a"]) == "a"


def test_holding_a_completed_token_takes_it_away_from_the_others():
    t = table("a", "b")
    t.complete("a")
    t.complete("b")
    t.reserve(["a"], "me")
    assert t.take() == ["b"]
    assert t.release(["a"])
    assert t.take() == ["a"]


def test_what_is_let_go_stands_where_it_stood():
    t = table("a", "b", "c", "d")
    for token in "abcd":
        t.complete(token)
    t.reserve(["c", "a"], "me")
    assert t.release(["c", "a"])
    assert t.take() == ["a", "b", "c", "d"]


def test_letting_go_of_the_newest_keeps_the_order_too():
    t = table("a", "b", "c")
    t.complete("a")
    t.reserve(["b", "c"], "me")
    t.complete("b")
    t.complete("c")
    assert t.release(["b", "c"])
    assert t.take() == ["a", "b", "c"]


def test_letting_go_of_what_is_pending_frees_no_result():
    t = table("a")
    t.reserve(["a"], "me")
    assert not t.release(["a"])
    assert t.complete("a") is None


def test_the_oldest_of_some():
    t = table("a", "b", "c")
    assert t.oldest(["a", "b", "c"]) is None
    for token in ("c", "b"):
        t.complete(token)
    assert t.oldest(["a", "b"]) == "b"
    assert t.oldest(["a", "b", "c"]) == "c"


def test_a_closed_table_has_nothing():
    t = table("a", "b")
    t.reserve(["a"], "me")
    t.complete("a")
    t.complete("b")
    t.table.close()
    assert not t.release(["a"])
    assert (t.take(), t.numbers()) == ([], (0, 0, 0))


class AgainstAModel(RuleBasedStateMachine):
    """Any interleaving of what a set does, against lists that are searched from the front."""

    tokens = Bundle("tokens")
    holders = Bundle("holders")

    @initialize(limit=st.integers(1, 6))
    def begin(self, limit):
        self.limit = limit
        self.table = Named(limit)
        self.last = 0
        self.unclaimed: list[int] = []
        self.finished: list[int] = []
        self.held: dict[int, object] = {}

    @rule(target=tokens)
    def submit(self):
        self.last += 1
        if self.table.table.fits(1):
            self.table.add(self.last)
            self.unclaimed.append(self.last)
        else:
            assert len(self.unclaimed) == self.limit
        return self.last

    @rule(token=tokens)
    def complete(self, token):
        if token in self.unclaimed and token not in self.finished:
            assert self.table.complete(token) is self.held.get(token)
            self.finished.append(token)

    @rule(target=holders, wanted=st.lists(tokens, max_size=4))
    def reserve(self, wanted):
        unknown = [token for token in wanted if token not in self.unclaimed]
        expected = (
            "empty" if not wanted else
            "duplicate" if len(set(wanted)) < len(wanted) else
            "unknown" if unknown else
            "reserved" if any(token in self.held for token in wanted) else
            None
        )  # fmt: skip
        assert self.table.rejection(wanted) == expected
        if expected is not None:
            return ()
        holder = object()
        self.table.reserve(wanted, holder)
        self.held.update(dict.fromkeys(wanted, holder))
        return tuple(wanted)

    @rule(wanted=consumes(holders), claim=st.booleans())
    def release(self, wanted, claim):
        done = [token for token in self.finished if token in wanted]
        assert self.table.oldest(wanted) == (done[0] if done else None)
        if done and claim:
            self.table.claim(done[0])
            self.unclaimed.remove(done[0])
            self.finished.remove(done.pop(0))
        for token in wanted:
            self.held.pop(token, None)
        assert self.table.release(wanted) == bool(done)

    @rule(most=st.integers(1, 4))
    def take(self, most):
        free = [token for token in self.finished if token not in self.held][:most]
        assert self.table.take(most) == free
        for token in free:
            self.finished.remove(token)
            self.unclaimed.remove(token)

    @precondition(lambda self: hasattr(self, "table"))
    @invariant()
    def the_numbers_agree(self):
        free = len([token for token in self.finished if token not in self.held])
        assert self.table.numbers() == (len(self.unclaimed), len(self.unclaimed) - len(self.finished), free)
        assert len(self.unclaimed) <= self.limit


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=examples(50, 500), stateful_step_count=40)
