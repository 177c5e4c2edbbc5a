"""The tokens of a queue set: which are reserved by a waiting task, and in which order results are claimed.

The rules, in one place and without a clock or a task:

- A token is in the table from its submission to its claim, and the limit counts the tokens in the table. So results
  that no task claims stop further submissions instead of growing without end. A close is never stopped, and each queue
  has only one.
- Completions are numbered. A task that takes a result gets the lowest number among those that it may take.
- A task that waits for a token by name reserves it. No other task gets the token until it is released. A released token
  goes back to the place of its number, as if it had never been reserved.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What the table knows of a token has names with an underscore, because users see a token's other names.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import attrs

__all__ = ["Entry", "Rejection", "TokenTable"]

E = TypeVar("E", bound="Entry")

Rejection: TypeAlias = Literal["empty", "duplicate", "unknown", "reserved"]
"""Why a list of tokens is refused. Of several reasons the first in this order is given."""

_CLAIMED: Final = -1


@attrs.define(eq=False)
class Entry:
    """What the table knows of a token; the token inherits it, under names that its users do not see.

    A record for each token, in a dict, costs as much as all the rest of a token: a tenth of a push or a pop, and 200
    bytes.
    """

    _owner: Any
    """Whose token it is: the `owner` of its table."""
    _number: int = attrs.field(default=0, init=False)
    """The number of its completion; 0 while it is pending, negative once it was claimed."""
    _waiter: object = attrs.field(default=None, init=False)
    """The task that has reserved it; None when it is free."""


@attrs.define(eq=False)
class TokenTable(Generic[E]):
    """The tokens of one queue set. Whoever submits one counts it in `submitted`.

    Args:
      limit: how many may be submitted and not claimed.
      owner: what its tokens have as their owner.
    """

    limit: int
    owner: object
    submitted: int = attrs.field(default=0, init=False)
    """How many were ever submitted."""
    completed: int = attrs.field(default=0, init=False)
    """How many have ever completed: the number of the last completion."""
    claimed: int = attrs.field(default=0, init=False)
    """How many were ever claimed; those of them that were not are in the table."""
    closed: bool = attrs.field(default=False, init=False)
    """Whether everything in it was dropped."""
    free: OrderedDict[int, E] = attrs.field(factory=OrderedDict[int, E], init=False)
    """Those that have completed and are not reserved, by the numbers of their completion."""

    @property
    def count(self) -> int:
        """How many are submitted and not claimed."""
        return self.submitted - self.claimed

    @property
    def pending(self) -> int:
        """How many have not completed."""
        return self.submitted - self.completed

    @property
    def ready(self) -> int:
        """How many have completed and are not reserved."""
        return len(self.free)

    def fits(self, count: int) -> bool:
        """Say whether that many more can be submitted."""
        return self.count + count <= self.limit

    def complete(self, token: E) -> object:
        """Note a completion. Return the task that has reserved the token, None when any task may take it."""
        self.completed = token._number = number = self.completed + 1
        waiter = token._waiter
        if waiter is None:
            self.free[number] = token
        return waiter

    def rejection(self, tokens: Sequence[E]) -> Rejection | None:
        """Return why these tokens cannot be waited for together, None when they can. Nothing is changed."""
        if not tokens:
            return "empty"
        if len(tokens) > 1 and len(set(tokens)) < len(tokens):
            return "duplicate"
        reserved = False
        for token in tokens:
            if token._owner is not self.owner or token._number < 0:
                return "unknown"
            reserved = reserved or token._waiter is not None
        return "reserved" if reserved else None

    def reserve(self, tokens: Iterable[E], waiter: object) -> None:
        """Reserve tokens that `rejection` has passed."""
        for token in tokens:
            token._waiter = waiter
            if token._number:
                del self.free[token._number]

    def release(self, tokens: Iterable[E]) -> bool:
        """Release those that were not claimed. Say whether that made a result free."""
        if self.closed:
            return False
        free = self.free
        highest = next(reversed(free), 0)
        freed = sort = False
        for token in tokens:
            number = token._number
            if number < 0:
                continue
            token._waiter = None
            if number:
                freed = True
                free[number] = token
                sort = sort or number < highest
                highest = max(highest, number)
        if sort:
            self.free = OrderedDict(sorted(free.items()))
        return freed

    def oldest(self, tokens: Iterable[E]) -> E | None:
        """Return the token that completed first, None when all are pending."""
        best, lowest = None, self.completed + 1
        for token in tokens:
            if 0 < token._number < lowest:
                best, lowest = token, token._number
        return best

    def claim(self, token: E) -> None:
        """Remove a completed token that its waiter claims."""
        token._number = _CLAIMED
        self.claimed += 1

    def take(self, most: int) -> list[E]:
        """Remove the oldest completed tokens that are not reserved, at most so many."""
        free = self.free
        taken = [free.popitem(last=False)[1] for _ in range(min(most, len(free)))]
        for token in taken:
            token._number = _CLAIMED
        self.claimed += len(taken)
        return taken

    def close(self) -> None:
        """Drop everything in it."""
        self.closed = True
        self.completed = self.claimed = self.submitted
        self.free.clear()
