"""The events of connects as records of the standard library's `logging`, in httpcore's cadence.

Each lookup and attempt logs ``.started``, then ``.complete`` or ``.failed``, at DEBUG; each call logs one record at its
end, which says whom it was for, and why there is no connection. An event does not say which call it is of, so where
many calls run at once that record is the one to read. It is an observer like any other: a call without one pays
nothing, and neither does one whose logger is off.
"""

from __future__ import annotations

import logging
from typing import Final

from trio_connect import (
    AttemptConnected,
    AttemptFinished,
    AttemptStarted,
    ConnectReport,
    LookupFinished,
    LookupStarted,
    Observer,
    TraceEvent,
)

__all__ = ["log_events"]

_MOST: Final = 3
"""Names or reasons in one record; a race has up to 64."""


def log_events(logger: logging.Logger | None = None) -> Observer | None:
    """Return an observer that logs each event at DEBUG, to pass as ``observer=``.

    Losing a race is no failure: an attempt that lost is ``complete``.

    Args:
      logger: where to; None for the one that is called ``trio_connect``.

    Returns:
      The observer; None where the logger takes no DEBUG records now, so that nothing is paid.

    Raises:
      TypeError: `logger` is not one.
    """
    log = logging.getLogger("trio_connect") if logger is None else logger
    if not isinstance(log, logging.Logger):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"logger must be a logging.Logger or None, got {type(log).__name__}")
    if not log.isEnabledFor(logging.DEBUG):
        return None

    def observe(event: TraceEvent) -> None:
        match event:
            case LookupStarted():
                log.debug("lookup.started host=%s kind=%s", event.host, event.kind)
            case LookupFinished():
                lookup = event.lookup
                took = (lookup.ended - lookup.started) * 1000
                if lookup.error is not None:
                    log.debug("lookup.failed host=%s kind=%s ms=%.1f %s", lookup.host, lookup.kind, took, lookup.error)
                else:
                    found = () if lookup.answer is None else lookup.answer.addresses
                    log.debug("lookup.complete host=%s kind=%s ms=%.1f %s", lookup.host, lookup.kind, took, list(found))
            case AttemptStarted():
                log.debug("attempt.started n=%d endpoint=%s cause=%s", event.attempt, event.endpoint, event.cause)
            case AttemptConnected():
                log.debug("attempt.connected n=%d endpoint=%s", event.attempt, event.endpoint)
            case AttemptFinished():
                why = f" {event.reason}" if event.reason else ""
                how = "failed" if event.outcome in ("failed", "timed out") else "complete"
                log.debug(
                    "attempt.%s n=%d endpoint=%s outcome=%s phase=%s%s",
                    how, event.attempt, event.endpoint, event.outcome, event.phase, why,
                )  # fmt: skip
            case _:
                winner = event.report.winner
                how, why = ("complete", "") if winner is not None else ("failed", _why(event.report))
                log.debug(
                    "race.%s to=%s ms=%.1f attempts=%d winner=%s%s",
                    how, _whom(event.report), event.report.elapsed * 1000, len(event.report.tried),
                    None if winner is None else winner.endpoint, why,
                )  # fmt: skip

    return observe


def _whom(report: ConnectReport) -> str:
    """Return the names that a call was for, else its endpoints."""
    names = [lookup.host for lookup in report.lookups] + [each.host for each in report.attempts if each.host]
    return _few(names or [str(attempt.endpoint) for attempt in report.attempts], ",")


def _why(report: ConnectReport) -> str:
    """Return, after a blank, why there is no connection: each reason once."""
    lookups = [str(lookup.error.strerror or lookup.error) for lookup in report.lookups if lookup.error is not None]
    attempts = [each.reason or each.outcome for each in report.attempts if each.outcome not in ("not tried", "lost")]
    return " " + _few(lookups + attempts or ["no address"], "; ")


def _few(texts: list[str], separator: str) -> str:
    different = [printable for text in dict.fromkeys(texts) if (printable := " ".join(text.split()))]
    more = len(different) - _MOST
    return separator.join(different[:_MOST]) + (f"{separator}{more} more" if more > 0 else "")
