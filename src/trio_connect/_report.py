"""The frozen record of how a connection was made, or why it was not."""

from __future__ import annotations

from errno import errorcode
from typing import Any, Final, Literal, TypeAlias

import attrs

from ._endpoint import Endpoint, Source

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
      outcome: how it ended, such as "won", "failed" or "cancelled" (the caller's deadline came).
      errno: the error of a failed attempt.
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
            "beaten_by": None if self.beaten_by is None else str(self.beaten_by),
        }


@attrs.frozen(kw_only=True)
class ConnectReport:
    """Everything that was tried for one connection, and when.

    Args:
      attempts: what was tried, in order of start; empty for accepted streams.
      started_at: seconds on Trio's clock, the origin of every other time here.
      elapsed: seconds from the start to the result.
    """

    attempts: tuple[Attempt, ...] = ()
    started_at: float = 0.0
    """Seconds on Trio's clock; the origin of every other time here."""
    elapsed: float = 0.0
    """Seconds from the start to the result."""

    @property
    def winner(self) -> Attempt | None:
        """The attempt that won, or None."""
        return next((attempt for attempt in self.attempts if attempt.outcome == "won"), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-safe data: versioned, times in whole microseconds, null for not measured."""
        return {
            "version": SCHEMA_VERSION,
            "started_at_us": _us(self.started_at),
            "elapsed_us": _us(self.elapsed),
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "winner": next((i for i, attempt in enumerate(self.attempts) if attempt.outcome == "won"), None),
        }


EMPTY_REPORT: Final = ConnectReport()
