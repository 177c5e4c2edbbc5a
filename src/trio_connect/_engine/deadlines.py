"""The deadlines of many operations that one task waits for: which comes next, and which have been reached.

Most operations are over long before their deadline, and to find one in a heap takes as long as to go through all of it.
So what is over stays there until it comes to the top, or until it is more than half of all.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Generic, Protocol, TypeVar, final

__all__ = ["Deadlines", "Timed"]

_FEW: Final = 64
"""While no more than this many are over, going through the heap for them is not worth it."""


class Timed(Protocol):
    """An operation that has a deadline."""

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        ...


T = TypeVar("T", bound=Timed)


@final
class Deadlines(Generic[T]):
    """Operations in the order of their deadlines, points in time on any one clock."""

    __slots__ = ("_count", "_heap", "_over")

    def __init__(self) -> None:
        # The number keeps those of one instant in the order in which they came, and operations from being compared.
        self._heap: list[tuple[float, int, T]] = []
        self._count = 0
        self._over = 0

    def __len__(self) -> int:
        """Return how many operations are kept, those included that are over."""
        return len(self._heap)

    def add(self, until: float, operation: T) -> None:
        """Add an operation that is not over."""
        self._count += 1
        heappush(self._heap, (until, self._count, operation))

    def forget(self) -> None:
        """Note that an operation which was added is over, and has not been returned by `reached`."""
        self._over += 1
        if self._over > _FEW and 2 * self._over > len(self._heap):
            self._heap = [item for item in self._heap if not item[2].over]
            heapify(self._heap)
            self._over = 0

    def clear(self) -> None:
        """Forget every operation."""
        self._heap = []
        self._over = 0

    def next(self) -> float:
        """Return the earliest deadline of those that are not over; infinity without any."""
        heap = self._heap
        while heap:
            until, _, operation = heap[0]
            if not operation.over:
                return until
            heappop(heap)
            self._over -= 1
        return inf

    def reached(self, now: float, most: int) -> list[T]:
        """Remove and return those whose deadline is now or past, the earliest first.

        Args:
          now: the time.
          most: how many to return at most.
        """
        found: list[T] = []
        while len(found) < most and self.next() <= now:
            found.append(heappop(self._heap)[2])
        return found
