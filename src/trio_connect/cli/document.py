"""A probe as data, for programs. `probe.schema.json` beside this file is the contract of both formats.

Rules: units in names (`_us` whole microseconds, `_s` seconds), null for what was not measured, one version number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trio_connect import (
    AttemptConnected,
    AttemptFinished,
    AttemptStarted,
    LookupFinished,
    LookupStarted,
    TraceEvent,
)

from .outcome import ExitCode, Probe
from .settings import Target, shown_source
from .summary import summarise
from .verdict import Verdict

VERSION: Final = 1


def document(targets: Sequence[dict[str, Any]], exit_code: ExitCode) -> dict[str, Any]:
    """Return the one document of the format ``json``.

    Args:
      targets: each as `target_data` has it.
      exit_code: of the command.
    """
    return {"version": VERSION, "exit_code": int(exit_code), "targets": list(targets)}


def target_data(
    target: Target, probes: Sequence[Probe], verdict: Verdict | None, exit_code: ExitCode, now: float
) -> dict[str, Any]:
    """Return one target as JSON-safe data.

    Args:
      target: who was probed.
      probes: of each round.
      verdict: on the last round; None without a round.
      exit_code: of this target.
      now: seconds since 1970, for what a certificate has left.
    """
    return {
        "host": target.host,
        "port": target.port,
        "exit_code": int(exit_code),
        "finding": None if verdict is None else verdict.finding,
        "advice": None if verdict is None else verdict.advice,
        "rounds": [
            {
                "exit_code": int(probe.exit_code),
                "each": probe.each,
                "error": probe.error,
                "tls": [{"attempt": index, **facts.to_dict(now)} for index, facts in sorted(probe.tls.items())],
                "report": probe.report.to_dict(),
            }
            for probe in probes
        ],
        "summary": summarise(probes).to_dict() if len(probes) > 1 else None,
    }


def event_data(event: TraceEvent, shift: int, started_at: float) -> dict[str, Any] | None:
    """Return an event as JSON-safe data; None for the end of a race, whose report is in the target's own line.

    Args:
      event: what has happened.
      shift: the number of attempts before those of this race.
      started_at: when the round began, on Trio's clock.
    """
    at: dict[str, Any] = {"at_us": round((event.at - started_at) * 1e6)}
    match event:
        case LookupStarted():
            return {"event": "lookup_started", **at, "host": event.host, "kind": event.kind}
        case LookupFinished():
            return {"event": "lookup_finished", **at, "lookup": event.lookup.to_dict()}
        case AttemptStarted():
            source = shown_source(event.source)
            return {
                "event": "attempt_started",
                **at,
                "attempt": event.attempt + shift,
                "endpoint": str(event.endpoint),
                "source": None if source is None else str(source),
                "cause": event.cause,
            }
        case AttemptConnected():
            return {
                "event": "attempt_connected",
                **at,
                "attempt": event.attempt + shift,
                "endpoint": str(event.endpoint),
            }
        case AttemptFinished():
            return {
                "event": "attempt_finished",
                **at,
                "attempt": event.attempt + shift,
                "endpoint": str(event.endpoint),
                "outcome": event.outcome,
                "phase": event.phase,
                "errno": event.errno,
                "reason": event.reason,
            }
        case _:
            return None
