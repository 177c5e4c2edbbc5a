"""What an observer is told while a connection is being made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ._endpoint import Endpoint, Source
from ._pickling import reduced_without_password
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
    """A question was sent to the resolver. `at` is Trio time in seconds, as in every event.

    Attributes:
      host: the name.
      kind: "A", "AAAA", "HTTPS" or "SRV".
      at: Trio time in seconds.
    """

    host: str
    kind: LookupKind
    at: float


@attrs.frozen
class LookupFinished:
    """A question has its outcome. The times in `lookup` are seconds from the start of the call.

    Attributes:
      lookup: the question and its outcome.
      at: Trio time in seconds.
    """

    lookup: Lookup
    at: float


@attrs.frozen
class AttemptStarted:
    """An attempt began. `attempt` is its index in the report's attempts.

    Told again, after its `AttemptFinished`, of one that this machine had no descriptor or memory for at first.

    Attributes:
      attempt: its index in the report's attempts.
      endpoint: where it goes.
      source: where it comes from; None when the kernel chooses.
      cause: why it starts now; as in the report.
      at: Trio time in seconds.
      delay: seconds after which the next start is due; None unless the policy's `attempt_delay` is `Adaptive`.
      delay_reason: why it is that long; as in the report.
      history: why a `History` had it put behind others, or tried again; as in the report.
    """

    attempt: int
    endpoint: Endpoint
    source: Source | None
    cause: Cause
    at: float
    delay: float | None = None
    delay_reason: str | None = None
    history: str | None = None

    __reduce__ = reduced_without_password


@attrs.frozen
class AttemptConnected:
    """An attempt's TCP is up and the caller's establish runs on it.

    Attributes:
      attempt: its index in the report's attempts.
      endpoint: where it went.
      at: Trio time in seconds.
    """

    attempt: int
    endpoint: Endpoint
    at: float


@attrs.frozen
class AttemptFinished:
    """An attempt is over, also the one that won.

    Attributes:
      attempt: its index in the report's attempts.
      endpoint: where it went.
      outcome: how it ended; as in the report.
      phase: how far it came; as in the report.
      errno: the error of one that failed; else None.
      at: Trio time in seconds.
      reason: why it failed, in one line; as in the report.
    """

    attempt: int
    endpoint: Endpoint
    outcome: Outcome
    phase: Phase
    errno: int | None
    at: float
    reason: str | None = None


@attrs.frozen
class RaceFinished:
    """The call is over: the last event, and exactly one for each call that passed its argument checks.

    Attributes:
      report: everything that was tried.
      at: Trio time in seconds.
    """

    report: ConnectReport
    at: float


TraceEvent: TypeAlias = (
    LookupStarted | LookupFinished | AttemptStarted | AttemptConnected | AttemptFinished | RaceFinished
)

Observer: TypeAlias = Callable[[TraceEvent], None]
"""Called synchronously by whoever connects: it must be quick. One that raises is logged and dropped for that call.

An async function is a TypeError: nobody would await it.
"""
