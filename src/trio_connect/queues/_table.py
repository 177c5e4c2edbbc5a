"""The tokens of a queue set: which are reserved by a waiting task, and in which order results are claimed.

The rules, in one place and without a clock or a task:

- A token is in the table from its submission to its claim, and the limit counts the tokens in the table. So results
  that no task claims stop further submissions instead of growing without end. A close is never stopped, and each queue
  has only one.
- Completions are numbered. A task that takes a result gets the lowest number among those that it may take.
- A task that waits for a token by name reserves it. No other task gets the token until it is released. A released token
  goes back to the place of its number, as if it had never been reserved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, Literal, TypeAlias, TypeVar

import attrs

__all__ = ["Entry", "Rejection", "TokenTable"]

T = TypeVar("T", bound=Hashable)
E = TypeVar("E", bound="Entry")

Rejection: TypeAlias = Literal["empty", "duplicate", "unknown", "reserved"]
"""Why a list of tokens is refused. Of several reasons the first in this order is given."""


@attrs.define(eq=False)
class Entry:
    """What the table knows of one token."""

    number: int = 0
    """The number of its completion; 0 while it is pending."""
    waiter: object = None
    """The task that has reserved it; None when it is free."""


@attrs.define(eq=False)
class TokenTable(Generic[T, E]):
    """The tokens of one queue set.

    Args:
      limit: how many may be submitted and not claimed.
    """

    limit: int
    entries: dict[T, E] = attrs.field(factory=dict[T, E], init=False)
    pending: int = attrs.field(default=0, init=False)
    """How many have not completed."""
    _ready: OrderedDict[int, T] = attrs.field(factory=OrderedDict[int, T], init=False)
    _last: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def ready(self) -> int:
        """How many have completed and are not reserved."""
        return len(self._ready)

    def fits(self, count: int) -> bool:
        """Say whether that many more can be submitted."""
        return len(self.entries) + count <= self.limit

    def add(self, token: T, entry: E) -> None:
        """Add a token that was submitted."""
        self.entries[token] = entry
        self.pending += 1

    def complete(self, token: T) -> object:
        """Note a completion. Return the task that has reserved the token, None when any task may take it."""
        entry = self.entries[token]
        self._last = entry.number = self._last + 1
        self.pending -= 1
        if entry.waiter is None:
            self._ready[entry.number] = token
        return entry.waiter

    def rejection(self, tokens: Sequence[T]) -> Rejection | None:
        """Return why these tokens cannot be waited for together, None when they can. Nothing is changed."""
        if not tokens:
            return "empty"
        if len(tokens) > 1 and len(set(tokens)) < len(tokens):
            return "duplicate"
        entries = self.entries
        reserved = False
        for token in tokens:
            entry = entries.get(token)
            if entry is None:
                return "unknown"
            reserved = reserved or entry.waiter is not None
        return "reserved" if reserved else None

    def reserve(self, tokens: Iterable[T], waiter: object) -> None:
        """Reserve tokens that `rejection` has passed."""
        for token in tokens:
            entry = self.entries[token]
            entry.waiter = waiter
            if entry.number:
                del self._ready[entry.number]

    def release(self, tokens: Iterable[T]) -> bool:
        """Release those that were not claimed. Say whether that made a result free."""
        entries, ready = self.entries, self._ready
        highest = next(reversed(ready), 0)
        freed = sort = False
        for token in tokens:
            entry = entries.get(token)
            if entry is None:
                continue
            entry.waiter = None
            if entry.number:
                freed = True
                ready[entry.number] = token
                sort = sort or entry.number < highest
                highest = max(highest, entry.number)
        if sort:
            self._ready = OrderedDict(sorted(ready.items()))
        return freed

    def oldest(self, tokens: Iterable[T]) -> T | None:
        """Return the token that completed first, None when all are pending."""
        best, lowest = None, self._last + 1
        for token in tokens:
            number = self.entries[token].number
            if 0 < number < lowest:
                best, lowest = token, number
        return best

    def claim(self, token: T) -> E:
        """Remove a completed token that its waiter claims."""
        return self.entries.pop(token)

    def take(self, most: int) -> list[tuple[T, E]]:
        """Remove the oldest completed tokens that are not reserved, at most so many."""
        taken: list[tuple[T, E]] = []
        while self._ready and len(taken) < most:
            _, token = self._ready.popitem(last=False)
            taken.append((token, self.entries.pop(token)))
        return taken
