"""Reports of connects that needed no race, and the error of one that came too late.

A report is made when somebody looks, as most never do: it takes a tenth of the time of a connect. Its classes take as
long to define as everything that a plain connect needs, so this module is loaded then too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from trio import current_time

from .._answer import Lookup
from .._endpoint import Endpoint, Source
from .._errors import DeadlineExceeded
from .._messages import call_exceeded, call_late
from .._report import EMPTY_REPORT, Attempt, ConnectReport, Phase
from .host_of import HostOfEndpoint, with_hosts
from .sockets.multipath import read_multipath

if TYPE_CHECKING:
    from .._engine.race_table import Candidate

Facts: TypeAlias = "tuple[Sequence[Candidate], Mapping[Candidate, str], float, float, bytes | None]"
"""The candidates, of which the first won without a race; what was skipped, and why; start and end in Trio time; what
the kernel then said of MPTCP."""

Recorded: TypeAlias = "ConnectReport | Facts | Callable[[], ConnectReport] | None"
"""What a stream keeps of how it was made: a report, or what one can be made of; None for an accepted connection."""


def report_of(recorded: Recorded) -> ConnectReport:
    """Return the report that a stream's record stands for."""
    if isinstance(recorded, ConnectReport):
        return recorded
    if recorded is None:
        return EMPTY_REPORT
    return recorded() if callable(recorded) else won_alone(recorded)


def won_alone(
    facts: Facts,
    *,
    phase: Phase = "connect",
    origin: float | None = None,
    lookups: Sequence[Lookup] = (),
    host_of: HostOfEndpoint | None = None,
) -> ConnectReport:
    """Return the report of a connect that needed no race.

    Args:
      facts: of it.
      phase: how far its attempt had to come.
      origin: when the call began, in Trio time; None for when the attempt did.
      lookups: of the call.
      host_of: for which name each endpoint was to be tried; None without names.
    """
    pairs, skipped, started, ended, info = facts
    origin = started if origin is None else origin
    elapsed = ended - origin
    (source, endpoint), *others = dict.fromkeys(pairs)
    attempts = (
        Attempt(
            endpoint=endpoint, source=source, cause="first", started=started - origin, ended=elapsed, phase=phase,
            outcome="won",
        ),
        *untried(others, skipped),
    )  # fmt: skip
    return ConnectReport(
        lookups=tuple(lookups),
        attempts=with_hosts(attempts, host_of),
        started_at=origin,
        elapsed=elapsed,
        multipath=read_multipath(info),
    )


def untried(pairs: Iterable[Candidate], skipped: Mapping[Candidate, str]) -> tuple[Attempt, ...]:
    """Return the rows of candidates that were not started.

    Args:
      pairs: those that might have been.
      skipped: those that were not to be, with the reasons.
    """
    return (
        *(Attempt(endpoint=endpoint, source=source, outcome="not tried") for source, endpoint in pairs),
        *(
            Attempt(endpoint=endpoint, source=source, outcome="skipped", reason=reason)
            for (source, endpoint), reason in skipped.items()
        ),
    )


def late_connect(endpoint: Endpoint, source: Source | None, until: float) -> DeadlineExceeded:
    """Return the exception for one connect that was called for at or after its deadline.

    Args:
      endpoint: where it was to go.
      source: where it was to come from.
      until: the deadline, in Trio time.
    """
    now = current_time()
    attempt = Attempt(endpoint=endpoint, source=source, outcome="not tried")
    report = ConnectReport(attempts=(attempt,), started_at=now, elapsed=0.0)
    return call_late(f"connect to {endpoint}", now - until, report=report)


def deadline_exceeded(endpoint: Endpoint, source: Source | None, source_text: str, started: float) -> DeadlineExceeded:
    """Return the exception for one connect that had no result by its deadline.

    Args:
      endpoint: where it went.
      source: where it was to come from.
      source_text: the same in words, for the message.
      started: when it began, in Trio time.
    """
    elapsed = current_time() - started
    # "timed out" is said of attempts that came to their own end; here the caller's patience did.
    attempt = Attempt(endpoint=endpoint, source=source, cause="first", started=0.0, ended=elapsed, outcome="cancelled")
    report = ConnectReport(attempts=(attempt,), started_at=started, elapsed=elapsed)
    return call_exceeded(f"connect to {endpoint} from {source_text}", elapsed, report=report)
