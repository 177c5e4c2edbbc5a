"""Why a call may not go on: one refusal, and what several of them say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import attrs

from .._endpoint import Source
from .._engine.limits import Blocked, Cap, Layers
from ._decisions import NotAdmitted, RequeueOne, RetryAt, SourceSuspended

__all__ = ["Refusal", "joined", "refusal_of"]


@attrs.frozen
class Refusal:
    """Why a call may not go on, and what it waits for."""

    kind: type[NotAdmitted]
    cause: str
    timer: float = inf
    """When another try is due because of time alone."""
    known: bool = False
    """Whether nothing but time can admit the call."""
    blockers: tuple[Cap, ...] = ()
    """The caps of which a free place may admit the call."""
    source: Source | None = None
    """The source that is suspended."""
    pending: bool = False
    """Whether a store is being asked."""
    is_answered: Callable[[], bool] | None = None
    """Of a pending one, says whether the store is not being asked any more."""

    @property
    def has_news(self) -> bool:
        """Whether another try may come out differently because a store has answered."""
        return self.is_answered is None or self.is_answered()


def refusal_of(blocked: Blocked, layers: Layers) -> Refusal:
    """Return the refusal by a limit of these."""
    if blocked.cap is not None:
        cap = blocked.cap
        return Refusal(RetryAt, f"{cap.held} of {cap.limit} {cap.name} are held", blockers=(cap,))
    assert blocked.until is not None
    slowest = max(layers.paces, key=lambda pace: pace.next_start)
    return Refusal(RetryAt, f"the {slowest.name} is used up", blocked.until, known=True)


def joined(refusals: Sequence[Refusal]) -> Refusal:
    """Return one refusal for a call that was refused from several sources: the one that may end first."""
    # A source without the family is not named when another has it: time does not help the first.
    refusals = [each for each in refusals if each.kind is not RequeueOne] or refusals
    if len(refusals) == 1:
        return refusals[0]
    soonest = min(refusals, key=lambda each: each.timer)
    unknown = [each for each in refusals if not each.known]
    # A suspension is named only if every source is suspended.
    ranks = (RetryAt, SourceSuspended, RequeueOne)
    named = min(unknown or refusals, key=lambda each: (ranks.index(each.kind), each.timer))
    timer = soonest.timer if named.kind is not SourceSuspended else named.timer
    blockers = tuple(dict.fromkeys(cap for each in refusals for cap in each.blockers))
    return attrs.evolve(named, timer=timer, known=not unknown, blockers=blockers)
