"""A probe as text, for people: who was probed, the picture, TLS, the verdict."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from typing import IO, Final

from trio_connect import Attempt, Lookup

from .outcome import ExitCode, Probe
from .settings import Target
from .verdict import Verdict
from .words import plural

_RESET: Final = "\x1b[0m"
_COLOURS: Final[Mapping[str, str]] = {
    "won": "\x1b[32m", "failed": "\x1b[31m", "timed out": "\x1b[33m", "cancelled": "\x1b[33m", "lost": "\x1b[2m",
    "not tried": "\x1b[2m", "skipped": "\x1b[2m",
}  # fmt: skip
"""Green, red, yellow, dim. The signs at the ends of the bars say the same."""


def wants_colour(stream: IO[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether text for a stream may have colours (https://no-color.org: a variable that is not empty forbids it).

    Args:
      stream: where the text goes.
      environment: the variables.
    """
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def probe_lines(target: Target, probe: Probe, verdict: Verdict, *, width: int, colour: bool, now: float) -> list[str]:
    """Return a probe as text.

    Args:
      target: who was probed.
      probe: what was found.
      verdict: in words.
      width: columns that no line exceeds, at least 60.
      colour: whether rows have the colour of their outcome.
      now: seconds since 1970, for what a certificate has left.
    """
    how = "each address by itself" if probe.each else "a race"
    lines = _wrapped(f"{target}: {how}, {plural(len(probe.report.attempts), 'address', 'addresses')}", width)
    if probe.report.lookups or probe.report.attempts:
        lines += _picture(probe, width, colour=colour)
    if not probe.each or probe.exit_code is ExitCode.OK or probe.error:
        lines += _wrapped(_result(probe), width)
    for index, facts in sorted(probe.tls.items()):
        days = facts.days_left(now)
        left = "certificate not verified" if days is None else f"certificate good for {plural(days, 'day')}"
        who = f"{probe.report.attempts[index].endpoint}: " if probe.each else ""
        lines += _wrapped(f"{who}{facts.version}, {facts.cipher}, ALPN {facts.alpn or 'none'}, {left}", width)
    return [*lines, *_wrapped(f"{verdict}.", width)]


def _result(probe: Probe) -> str:
    if probe.error is not None:
        return probe.error
    if probe.each:
        return "each family has answered"
    # The report's own last line: who won, after how long.
    return probe.report.draw().splitlines()[-1]


def _picture(probe: Probe, width: int, *, colour: bool) -> list[str]:
    report = probe.report
    # The report's last line says who won a race; above it stand an axis, if time has passed, and the rows.
    lines = report.draw(width).splitlines()[:-1]
    rows: list[Lookup | Attempt] = [*report.lookups, *report.attempts]
    if not colour:
        return lines
    axis, pictured = lines[: len(lines) - len(rows)], lines[len(lines) - len(rows) :]
    return axis + [_coloured(line, row) for line, row in zip(pictured, rows, strict=True)]


def _coloured(line: str, row: Lookup | Attempt) -> str:
    if isinstance(row, Attempt):
        code = _COLOURS[row.outcome]
    else:
        code = _COLOURS["failed"] if row.error is not None else ""
    return f"{code}{line}{_RESET}" if code else line


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
