"""What an observer is told while a connection is being made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ._endpoint import Endpoint, Source
from ._report import Cause, ConnectReport, Outcome, Phase

if TYPE_CHECKING:
    from ._answer import Lookup, LookupKind

__all__ = [
    "AttemptConnected",
    "AttemptFinished",
    "AttemptStarted",
    "LookupFinished",
    "LookupStarted",
    "Observer",
    "RaceFinished",
    "TraceEvent",
]


@attrs.frozen
class LookupStarted:
    """A question was sent to the resolver. `at` is Trio time in seconds, as in every event."""

    host: str
    kind: LookupKind
    at: float


@attrs.frozen
class LookupFinished:
    """A question has its outcome. The times in `lookup` are seconds from the start of the call."""

    lookup: Lookup
    at: float


@attrs.frozen
class AttemptStarted:
    """An attempt began. `attempt` is its index in the report's attempts.

    Told again, after its `AttemptFinished`, of one that this machine had no descriptor or memory for at first.
    """

    attempt: int
    endpoint: Endpoint
    source: Source | None
    cause: Cause
    at: float
    delay: float | None = None
    """Seconds after which the next start is due; None unless the policy's `attempt_delay` is `Adaptive`."""
    delay_reason: str | None = None
    """Why it is that long; as in the report."""
    history: str | None = None
    """Why a `History` had it put behind others, or tried again; as in the report."""


@attrs.frozen
class AttemptConnected:
    """An attempt's TCP is up and the caller's establish runs on it."""

    attempt: int
    endpoint: Endpoint
    at: float


@attrs.frozen
class AttemptFinished:
    """An attempt is over, also the one that won."""

    attempt: int
    endpoint: Endpoint
    outcome: Outcome
    phase: Phase
    errno: int | None
    at: float
    reason: str | None = None
    """Why it failed, in one line; as in the report."""


@attrs.frozen
class RaceFinished:
    """The call is over: the last event, and exactly one for each call that passed its argument checks."""

    report: ConnectReport
    at: float


TraceEvent: TypeAlias = (
    LookupStarted | LookupFinished | AttemptStarted | AttemptConnected | AttemptFinished | RaceFinished
)

Observer: TypeAlias = Callable[[TraceEvent], None]
"""Called synchronously by whoever connects: it must be quick. One that raises is logged and dropped for that call."""
