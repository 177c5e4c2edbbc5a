"""Reports of connects that needed no race, made when somebody looks: most never do.

Making one takes a tenth of the time of a connect, and the classes as long to define as everything that a plain connect
needs, so this module too is loaded when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from trio import current_time

from .._endpoint import Endpoint, Source
from .._errors import DeadlineExceeded
from .._report import EMPTY_REPORT, Attempt, ConnectReport

Pair: TypeAlias = "tuple[Source | None, Endpoint]"
Facts: TypeAlias = "tuple[Sequence[Pair], Sequence[Pair], float, float]"
"""Candidates of which the first won at once, those that were skipped, start and end in Trio time."""

Recorded: TypeAlias = "ConnectReport | Facts | Callable[[], ConnectReport] | None"
"""What a stream keeps of how it was made: a report, or what one can be made of; None for an accepted connection."""


def made_of(recorded: Recorded) -> ConnectReport:
    """Return the report."""
    if isinstance(recorded, ConnectReport):
        return recorded
    if recorded is None:
        return EMPTY_REPORT
    return recorded() if callable(recorded) else _won_at_once(recorded)


def _won_at_once(facts: Facts) -> ConnectReport:
    pairs, skipped, started, ended = facts
    elapsed = ended - started
    (source, endpoint), *others = dict.fromkeys(pairs)
    attempts = [
        Attempt(endpoint=endpoint, source=source, cause="first", started=0.0, ended=elapsed, outcome="won"),
        *(Attempt(endpoint=endpoint, source=source, outcome="not tried") for source, endpoint in others),
        *(Attempt(endpoint=endpoint, source=source, outcome="skipped") for source, endpoint in dict.fromkeys(skipped)),
    ]
    return ConnectReport(attempts=tuple(attempts), started_at=started, elapsed=elapsed)


def exceeded(
    endpoint: Endpoint, source: Source | None, source_text: str, started: float, until: float
) -> DeadlineExceeded:
    """Return the exception for one connect that had no result by its deadline."""
    elapsed = current_time() - started
    # "timed out" is said of attempts that came to their own end; here the caller's patience did.
    attempt = Attempt(endpoint=endpoint, source=source, cause="first", started=0.0, ended=elapsed, outcome="cancelled")
    report = ConnectReport(attempts=(attempt,), started_at=started, elapsed=elapsed)
    return DeadlineExceeded.during(f"connect to {endpoint} from {source_text}", elapsed, until, report=report)
