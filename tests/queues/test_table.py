"""The table of tokens: first completed, first had; one holder at a time; nothing lost, nothing had twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from tests.support import examples
from trio_connect.queues._table import Entry, TokenTable


def table(*tokens: str, limit: int = 10) -> TokenTable[str, Entry]:
    made: TokenTable[str, Entry] = TokenTable(limit)
    for token in tokens:
        made.add(token, Entry())
    return made


def taken(from_table: TokenTable[str, Entry], most: int = 99) -> list[str]:
    return [token for token, _ in from_table.take(most)]


def test_results_come_in_the_order_of_completion():
    t = table("a", "b", "c")
    for token in ("c", "a", "b"):
        assert t.complete(token) is None
    assert taken(t) == ["c", "a", "b"]
    assert len(t) == 0


def test_at_most_so_many_are_taken():
    t = table("a", "b", "c")
    for token in "abc":
        t.complete(token)
    assert (taken(t, 2), t.ready, len(t)) == (["a", "b"], 1, 1)


def test_the_limit_counts_what_is_submitted_and_not_claimed():
    t = table("a", "b", limit=3)
    assert t.fits(1)
    assert not t.fits(2)
    t.complete("a")
    assert not t.fits(2)
    t.take(1)
    assert t.fits(2)


def test_pending_counts_what_has_not_completed():
    t = table("a", "b")
    assert t.pending == 2
    t.complete("b")
    assert (t.pending, len(t)) == (1, 2)


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
    assert taken(t) == ["b"]
    assert t.oldest(["a"]) == "a"


def test_holding_a_completed_token_takes_it_away_from_the_others():
    t = table("a", "b")
    t.complete("a")
    t.complete("b")
    t.reserve(["a"], "me")
    assert taken(t) == ["b"]
    assert t.release(["a"])
    assert taken(t) == ["a"]


def test_what_is_let_go_stands_where_it_stood():
    t = table("a", "b", "c", "d")
    for token in "abcd":
        t.complete(token)
    t.reserve(["c", "a"], "me")
    assert t.release(["c", "a"])
    assert taken(t) == ["a", "b", "c", "d"]


def test_letting_go_of_the_newest_keeps_the_order_too():
    t = table("a", "b", "c")
    t.complete("a")
    t.reserve(["b", "c"], "me")
    t.complete("b")
    t.complete("c")
    assert t.release(["b", "c"])
    assert taken(t) == ["a", "b", "c"]


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


class AgainstAModel(RuleBasedStateMachine):
    """Any interleaving of what a set does, against lists that are searched from the front."""

    tokens = Bundle("tokens")
    holders = Bundle("holders")

    @initialize(limit=st.integers(1, 6))
    def begin(self, limit):
        self.limit = limit
        self.table: TokenTable[int, Entry] = TokenTable(limit)
        self.last = 0
        self.unclaimed: list[int] = []
        self.finished: list[int] = []
        self.held: dict[int, object] = {}

    @rule(target=tokens)
    def submit(self):
        self.last += 1
        if self.table.fits(1):
            self.table.add(self.last, Entry())
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
        assert [token for token, _ in self.table.take(most)] == free
        for token in free:
            self.finished.remove(token)
            self.unclaimed.remove(token)

    @precondition(lambda self: hasattr(self, "table"))
    @invariant()
    def the_numbers_agree(self):
        assert len(self.table) == len(self.unclaimed) <= self.limit
        assert self.table.pending == len(self.unclaimed) - len(self.finished)
        assert self.table.ready == len([token for token in self.finished if token not in self.held])


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=examples(50, 500), stateful_step_count=40)
