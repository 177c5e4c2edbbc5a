"""The frozen record of how a connection was made, or why it was not."""

from __future__ import annotations

from errno import errorcode
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from ._endpoint import Endpoint, Source

if TYPE_CHECKING:
    from ._answer import Lookup

__all__ = ["Attempt", "Cause", "ConnectReport", "Outcome", "Phase"]

Phase: TypeAlias = Literal["socket", "bind", "connect", "establish"]
"""How far an attempt had come: making the socket, binding it, connecting, the caller's own test."""

Cause: TypeAlias = Literal["first", "delay", "failure", "slot", "arrival"]
"""Why an attempt was started when it was."""

Outcome: TypeAlias = Literal["won", "lost", "failed", "timed out", "skipped", "not tried", "cancelled"]
"""How an attempt ended."""

SCHEMA_VERSION: Final = 1


def _us(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


@attrs.frozen(kw_only=True)
class Attempt:
    """One socket trying one (source, endpoint) pair, once.

    Args:
      endpoint: where it went.
      source: where it came from; None when the kernel chose.
      cause: why it was started; None when it was not.
      started: seconds after the report's `started_at`; None when it was not started.
      ended: likewise; None when it was not started.
      phase: how far it came: "socket", "bind", "connect" or "establish".
      outcome: how it ended, such as "won", "failed" or "cancelled" (by the deadline or a scope).
      errno: the error of a failed attempt.
      reason: why it failed, in one line.
      beaten_by: who won while this one was still trying.
    """

    endpoint: Endpoint
    source: Source | None = None
    cause: Cause | None = None
    """Why it was started; None when it was not."""
    started: float | None = None
    """When it was started; None for "skipped" and "not tried"."""
    ended: float | None = None
    phase: Phase = "connect"
    """How far it came."""
    outcome: Outcome
    errno: int | None = None
    """The error of a failed attempt; ETIMEDOUT when `attempt_timeout` ended it."""
    reason: str | None = None
    """Why it failed, in one line: the kernel's words, or what `errno` cannot say, such as "certificate has expired"."""
    beaten_by: Endpoint | None = None
    """Who won while this one was still trying."""

    def to_dict(self) -> dict[str, Any]:
        """Return this attempt as JSON-safe data, times in whole microseconds."""
        return {
            "endpoint": str(self.endpoint),
            "source": None if self.source is None else str(self.source),
            "cause": self.cause,
            "started_us": _us(self.started),
            "ended_us": _us(self.ended),
            "phase": self.phase,
            "outcome": self.outcome,
            "errno": self.errno,
            "error": None if self.errno is None else errorcode.get(self.errno, str(self.errno)),
            "reason": self.reason,
            "beaten_by": None if self.beaten_by is None else str(self.beaten_by),
        }


@attrs.frozen(kw_only=True)
class ConnectReport:
    """Everything that was tried for one connection, and when.

    Args:
      lookups: every question to a resolver; empty without a name.
      attempts: every candidate once, those that were started first; empty for accepted streams.
      started_at: seconds on Trio's clock, the origin of every other time here.
      elapsed: seconds from the start to the result.
    """

    lookups: tuple[Lookup, ...] = ()
    """Every question to a resolver, in the order they were asked; empty without a name."""
    attempts: tuple[Attempt, ...] = ()
    """Every candidate once: the attempts in the order of their starts, then those that were never started."""
    started_at: float = 0.0
    """Seconds on Trio's clock; the origin of every other time here."""
    elapsed: float = 0.0
    """Seconds from the start to the result."""

    @property
    def winner(self) -> Attempt | None:
        """The attempt that won, or None."""
        return next((attempt for attempt in self.attempts if attempt.outcome == "won"), None)

    def __str__(self) -> str:
        """Return the race as a text waterfall: one row for each lookup and attempt on one axis of time."""
        return waterfall(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-safe data: versioned, times in whole microseconds, null for not measured."""
        return {
            "version": SCHEMA_VERSION,
            "started_at_us": _us(self.started_at),
            "elapsed_us": _us(self.elapsed),
            "lookups": [lookup.to_dict() for lookup in self.lookups],
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "winner": next((i for i, attempt in enumerate(self.attempts) if attempt.outcome == "won"), None),
        }


EMPTY_REPORT: Final = ConnectReport()


# ---------------------------------------------------------------------- the waterfall

_WIDTH: Final = 40
_ENDINGS: Final[dict[Outcome, str]] = {
    "won": "*",
    "lost": "~",
    "failed": "x",
    "timed out": "!",
    "cancelled": "~",
}


def _bar(started: float, ended: float, elapsed: float, ending: str) -> str:
    scale = _WIDTH / elapsed if elapsed > 0 else 0.0
    left = min(round(started * scale), _WIDTH)
    right = min(max(round(ended * scale), left), _WIDTH)
    return " " * left + "=" * (right - left) + ending


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def _attempt_note(attempt: Attempt, took: float) -> str:
    reason = "" if attempt.errno is None else f" {errorcode.get(attempt.errno, attempt.errno)}"
    phase = "" if attempt.phase == "connect" or attempt.outcome == "won" else f" in {attempt.phase}"
    said = f": {attempt.reason}" if attempt.reason and attempt.errno is None else ""
    return f"{attempt.outcome}{reason}{phase} after {_milliseconds(took)}{said}"


def waterfall(report: ConnectReport) -> str:
    """Return a report as text: one row for each lookup and attempt on one axis of time, then the result.

    Shapes tell the outcomes apart without colours: ``*`` won, ``~`` lost or cancelled, ``x`` failed, ``!`` timed out.
    """
    rows: list[tuple[str, str, str]] = []
    for lookup in report.lookups:
        found = "error" if lookup.error is not None else "cancelled" if lookup.answer is None else "found"
        count = len(lookup.answer.addresses) if lookup.answer is not None else 0
        note = f"{count} address{'' if count == 1 else 'es'}" if found == "found" else found
        ending = "x" if found == "error" else ""
        bar = _bar(lookup.started, lookup.ended, report.elapsed, ending)
        rows.append(
            (f"{lookup.kind} {lookup.host}", bar, f"{note} after {_milliseconds(lookup.ended - lookup.started)}")
        )
    for attempt in report.attempts:
        name = str(attempt.endpoint) if attempt.source is None else f"{attempt.endpoint} from {attempt.source}"
        if attempt.started is None:
            rows.append((name, "", attempt.outcome))
            continue
        ended = report.elapsed if attempt.ended is None else attempt.ended
        bar = _bar(attempt.started, ended, report.elapsed, _ENDINGS.get(attempt.outcome, ""))
        rows.append((name, bar, _attempt_note(attempt, ended - attempt.started)))
    width = max((len(name) for name, _, _ in rows), default=0)
    lines = [f"{name:<{width}}  {bar:<{_WIDTH + 1}}  {note}".rstrip() for name, bar, note in rows]
    winner = report.winner
    if winner is not None:
        started = sum(attempt.started is not None for attempt in report.attempts)
        wasted = started - 1
        waste = f", {wasted} other attempt{'' if wasted == 1 else 's'}" if wasted else ""
        lines.append(f"connected to {winner.endpoint} in {_milliseconds(report.elapsed)}{waste}")
    else:
        lines.append(f"no connection after {_milliseconds(report.elapsed)}")
    return "\n".join(lines)
