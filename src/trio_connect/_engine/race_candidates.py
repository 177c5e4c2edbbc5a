"""The candidates of a race: which wait, in which order, and which are not to be tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .facts import IllegalFact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .race_table import Candidate

__all__ = ["CandidateList"]


class CandidateList:
    """The candidates that one race knows: each waits, or is raced, or is skipped.

    Args:
      waiting: those known from the start, in the order to try them in. Of duplicates the first counts.
    """

    __slots__ = ("_raced", "skipped", "waiting")

    def __init__(self, waiting: Iterable[Candidate]) -> None:
        self.waiting: dict[Candidate, None] = dict.fromkeys(waiting)
        self.skipped: dict[Candidate, str] = {}
        """Those that are not to be tried, each with the reason."""
        self._raced: set[Candidate] = set()

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Take more, at the end of the list. One that waits keeps its place; one that was skipped waits."""
        for candidate in candidates:
            if candidate not in self._raced:
                self.skipped.pop(candidate, None)
                self.waiting.setdefault(candidate)

    def skip(self, candidates: Mapping[Candidate, str]) -> None:
        """Have these not wait any more, for these reasons. Those that are raced stay as they are."""
        for candidate, reason in candidates.items():
            self.waiting.pop(candidate, None)
            if candidate not in self._raced:
                self.skipped.setdefault(candidate, reason)

    def replace_order(self, candidates: Iterable[Candidate]) -> None:
        """Put those that wait into this order; others may be among them.

        Raises:
          IllegalFact: one that waits is missing, or one is unknown.
        """
        order = dict.fromkeys(candidates)
        for candidate in order:
            if candidate not in self.waiting and candidate not in self._raced and candidate not in self.skipped:
                raise IllegalFact(f"replace_order: {candidate!r} was never added")
        waiting = {candidate: None for candidate in order if candidate in self.waiting}
        if len(waiting) != len(self.waiting):
            raise IllegalFact(f"replace_order: {len(self.waiting)} candidates wait, {len(waiting)} of them were named")
        self.waiting = waiting

    def race(self, candidate: Candidate) -> None:
        """Have one that waits be raced."""
        del self.waiting[candidate]
        self._raced.add(candidate)
