"""Many probes of one target as numbers: how many succeeded, how long they took, what each address did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs

from .outcome import ExitCode, Probe
from .words import in_words


@attrs.frozen(kw_only=True)
class AddressRow:
    """What one address did in all rounds."""

    endpoint: str
    source: str | None
    outcomes: dict[str, int]
    times: tuple[float, ...]
    """Seconds, of those that won."""


@attrs.frozen(kw_only=True)
class Summary:
    """The numbers of all rounds."""

    rounds: int
    succeeded: int
    times: tuple[float, ...]
    """Seconds from the call to the connection, of the rounds that succeeded, the shortest first."""
    addresses: tuple[AddressRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-safe data."""
        return {
            "rounds": self.rounds,
            "succeeded": self.succeeded,
            "connect": _spread(self.times),
            "addresses": [
                {
                    "endpoint": row.endpoint,
                    "source": row.source,
                    "outcomes": row.outcomes,
                    "connect": _spread(row.times),
                }
                for row in self.addresses
            ],
        }


def summarise(probes: Sequence[Probe]) -> Summary:
    """Return the numbers of several probes of one target."""
    outcomes: dict[tuple[str, str | None], Counter[str]] = {}
    times: dict[tuple[str, str | None], list[float]] = {}
    for probe in probes:
        for attempt in probe.report.attempts:
            key = str(attempt.endpoint), None if attempt.source is None else str(attempt.source)
            outcomes.setdefault(key, Counter())[attempt.outcome] += 1
            if attempt.outcome == "won" and attempt.started is not None and attempt.ended is not None:
                times.setdefault(key, []).append(attempt.ended - attempt.started)
    good = [probe for probe in probes if probe.exit_code is ExitCode.OK]
    return Summary(
        rounds=len(probes),
        succeeded=len(good),
        times=tuple(sorted(probe.report.elapsed for probe in good)),
        addresses=tuple(
            AddressRow(endpoint=key[0], source=key[1], outcomes=dict(counts), times=tuple(sorted(times.get(key, ()))))
            for key, counts in outcomes.items()
        ),
    )


def percentile(times: Sequence[float], percent: float) -> float:
    """Return the time that so many percent of the times do not exceed, by the nearest rank.

    Args:
      times: at least one, the shortest first.
      percent: above 0, at most 100.
    """
    return times[max(math.ceil(len(times) * percent / 100), 1) - 1]


def summary_lines(summary: Summary, width: int) -> list[str]:
    """Return the numbers as text.

    Args:
      summary: of all rounds.
      width: columns that no line exceeds.
    """
    percent = 100 * summary.succeeded / summary.rounds if summary.rounds else 0.0
    lines = [f"{summary.succeeded} of {summary.rounds} succeeded ({percent:.1f} %)"]
    if summary.times:
        lines.append("  ".join(f"{name} {in_words(value)}" for name, value in _named(summary.times)))
    for row in summary.addresses:
        label = row.endpoint if row.source is None else f"{row.endpoint} from {row.source}"
        counts = ", ".join(f"{count} {outcome}" for outcome, count in row.outcomes.items())
        times = f", mean {in_words(sum(row.times) / len(row.times))}" if row.times else ""
        lines.append(f"{label}  {counts}{times}")
    return [line if len(line) <= width else f"{line[: width - 3]}..." for line in lines]


def _named(times: Sequence[float]) -> list[tuple[str, float]]:
    spread = [(f"p{percent}", percentile(times, percent)) for percent in (50, 95, 99)]
    return [("min", times[0]), ("mean", sum(times) / len(times)), *spread, ("max", times[-1])]


def _spread(times: Sequence[float]) -> dict[str, int] | None:
    return {f"{name}_us": round(value * 1e6) for name, value in _named(times)} if times else None
