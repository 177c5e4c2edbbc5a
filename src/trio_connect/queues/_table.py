"""Who holds which token, and in which order results are to be had.

The rules, in one place and without a clock or a task:

- A token is in the table from its submission to its claim. That is what the limit counts, so results that nobody
  fetches fill the table and stop further submissions instead of growing without end. One submission is never
  stopped: a close, of which a queue has one.
- Completions are numbered. Whoever takes a result gets the lowest number among those that he may have.
- A token that somebody waits for by name is held by him. Nobody else gets it, by name or otherwise, until he lets go;
  then it stands where its number puts it, as if it had never been held.
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
"""What is wrong with a list of tokens; of several flaws the first in this order is told."""


@attrs.define(eq=False)
class Entry:
    """What the table knows of one token."""

    number: int = 0
    """Its completion's; 0 while it is pending."""
    waiter: object = None
    """Who waits for it by name."""


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
        """How many have completed and are held by nobody."""
        return len(self._ready)

    def fits(self, count: int) -> bool:
        """Say whether that many more can be submitted."""
        return len(self.entries) + count <= self.limit

    def add(self, token: T, entry: E) -> None:
        """Take in a token that was submitted."""
        self.entries[token] = entry
        self.pending += 1

    def complete(self, token: T) -> object:
        """Note a completion and return the token's holder; without one it is there for anybody."""
        entry = self.entries[token]
        self._last = entry.number = self._last + 1
        self.pending -= 1
        if entry.waiter is None:
            self._ready[entry.number] = token
        return entry.waiter

    def rejection(self, tokens: Sequence[T]) -> Rejection | None:
        """Look at all tokens that somebody wants to wait for, before anything is done about any of them."""
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
        """Reserve tokens without a rejection."""
        for token in tokens:
            entry = self.entries[token]
            entry.waiter = waiter
            if entry.number:
                del self._ready[entry.number]

    def release(self, tokens: Iterable[T]) -> bool:
        """Give up the reservation of those that were not claimed; say whether a result became free by that."""
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
        """Return the one of these that completed first, or None."""
        best, lowest = None, self._last + 1
        for token in tokens:
            number = self.entries[token].number
            if 0 < number < lowest:
                best, lowest = token, number
        return best

    def claim(self, token: T) -> E:
        """Take a completed token that is held out of the table."""
        return self.entries.pop(token)

    def take(self, most: int) -> list[tuple[T, E]]:
        """Take the oldest completed tokens that nobody holds out of the table, at most so many."""
        taken: list[tuple[T, E]] = []
        while self._ready and len(taken) < most:
            _, token = self._ready.popitem(last=False)
            taken.append((token, self.entries.pop(token)))
        return taken
