"""The frozen record of how a connection was made, or why it was not."""

from __future__ import annotations

from errno import errorcode
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from ._durations import microseconds, short_duration
from ._endpoint import Endpoint, Source
from ._pickling import reduced_without_password
from ._render import Ending, TimelineRow, cut_middle, draw_timeline
from ._repr import changed_repr
from ._text import printable, shown

if TYPE_CHECKING:
    from ._answer import Lookup
    from ._multipath import Multipath

__all__ = ["Attempt", "Cause", "ConnectReport", "Outcome", "Phase"]

Phase: TypeAlias = Literal["socket", "bind", "connect", "establish"]
"""How far an attempt had come: making the socket, binding it, connecting, the caller's own test."""

Cause: TypeAlias = Literal["first", "delay", "failure", "slot", "arrival", "history"]
"""Why an attempt was started when it was. "history": another race had learned that what this one waited for failed."""

Outcome: TypeAlias = Literal["won", "lost", "failed", "timed out", "skipped", "not tried", "cancelled"]
"""How an attempt ended."""

SCHEMA_VERSION: Final = 1


@attrs.frozen(kw_only=True, repr=False)
class Attempt:
    """One socket trying one (source, endpoint) pair, once.

    Args:
      endpoint: where it went.
      host: the name that it was tried for.
      nat64: the IPv4 address that the endpoint carries to a NAT64, see `Nat64`.
      source: where it came from; None when the kernel chose.
      cause: why it was started; None when it was not.
      started: seconds after the report's `started_at`; None when it was not started.
      ended: likewise; None when it was not started.
      phase: how far it came: "socket", "bind", "connect" or "establish".
      outcome: how it ended, such as "won", "failed" or "cancelled" (by the deadline or a scope).
      errno: the error of a failed attempt.
      reason: why it failed or was skipped, in one line.
      beaten_by: who won while this one was still trying.
      plain: whether it is the one plain TCP attempt of a race whose others ask for MPTCP.
      delay: seconds after which the next start was due; None unless the policy's `attempt_delay` is `Adaptive`.
      delay_reason: why it was that long.
      history: why a `History` had it put behind others, or tried again.
    """

    endpoint: Endpoint
    """Where it went. Where a proxy was sent a name, the `host` of this is the name."""
    host: str | None = None
    """The name that was looked up and has this endpoint; with several names that do, the first of them. None where the
    caller gave the address itself, unless it was tried through a NAT64."""
    nat64: str | None = None
    """The IPv4 address that the endpoint carries to the NAT64 of a `Nat64`; None for any other endpoint."""
    source: Source | None = None
    cause: Cause | None = None
    """Why it was started; None when it was not."""
    started: float | None = None
    """When it was started; None for "skipped" and "not tried"."""
    ended: float | None = None
    phase: Phase = "connect"
    """How far it came. Through a proxy it is in "bind" until the proxy has been asked for the endpoint."""
    outcome: Outcome
    errno: int | None = None
    """The error of a failed attempt; ETIMEDOUT when `attempt_timeout` ended it."""
    reason: str | None = None
    """Why it failed, in one line: the kernel's words, or what `errno` cannot say, such as "certificate has expired".
    Of one that was skipped: why it was not tried, such as "not allowed by the address filter: ..."."""
    beaten_by: Endpoint | None = None
    """Who won while this one was still trying."""
    plain: bool = False
    """Whether it is the one plain TCP attempt of a race whose others ask for MPTCP, see `SocketOptions.multipath`."""
    delay: float | None = None
    """Seconds from its start after which the next was due; None unless the policy's `attempt_delay` is `Adaptive`."""
    delay_reason: str | None = None
    """Why the delay was that long, such as "round trip 80 ms +- 12 ms"."""
    history: str | None = None
    """Why a `History` had it put behind others, or tried again: "put behind: connection refused 2.00 s before"."""

    __repr__ = changed_repr
    __reduce__ = reduced_without_password

    def to_dict(self) -> dict[str, Any]:
        """Return this attempt as JSON-safe data, times in whole microseconds."""
        return {
            "endpoint": str(self.endpoint),
            "host": self.host,
            "nat64": self.nat64,
            "source": None if self.source is None else str(self.source),
            "cause": self.cause,
            "started_us": microseconds(self.started),
            "ended_us": microseconds(self.ended),
            "phase": self.phase,
            "outcome": self.outcome,
            "errno": self.errno,
            "error": None if self.errno is None else errorcode.get(self.errno, str(self.errno)),
            "reason": self.reason,
            "beaten_by": None if self.beaten_by is None else str(self.beaten_by),
            "plain": self.plain,
            "delay_us": microseconds(self.delay),
            "delay_reason": self.delay_reason,
            "history": self.history,
        }


@attrs.frozen(kw_only=True, repr=False)
class ConnectReport:
    """Everything that was tried for one connection, and when.

    Args:
      lookups: every question to a resolver; empty without a name.
      attempts: every candidate once, those that were started first; empty for accepted streams.
      started_at: seconds on Trio's clock, the origin of every other time here.
      elapsed: seconds from the start to the result.
      multipath: what the connection had of Multipath TCP when it was made; None for plain TCP.
    """

    lookups: tuple[Lookup, ...] = ()
    """Every question to a resolver, in the order they were asked; empty without a name."""
    attempts: tuple[Attempt, ...] = ()
    """Every candidate once: the attempts in the order of their starts, then those that were never started."""
    started_at: float = 0.0
    """Seconds on Trio's clock; the origin of every other time here."""
    elapsed: float = 0.0
    """Seconds from the start to the result."""
    multipath: Multipath | None = None
    """What the connection had of Multipath TCP when it was made; None for plain TCP, or without a connection."""

    __repr__ = changed_repr

    @property
    def winner(self) -> Attempt | None:
        """The attempt that won, or None."""
        return next((attempt for attempt in self.attempts if attempt.outcome == "won"), None)

    @property
    def tried(self) -> tuple[Attempt, ...]:
        """The attempts that were started. More than one means that the first address did not do at once."""
        return tuple(attempt for attempt in self.attempts if attempt.started is not None)

    @property
    def failed(self) -> tuple[Attempt, ...]:
        """The attempts that failed, by `RacePolicy.attempt_timeout` too; not those that lost or were cancelled."""
        return tuple(attempt for attempt in self.attempts if attempt.outcome in ("failed", "timed out"))

    def __str__(self) -> str:
        """Return what `draw` returns."""
        return self.draw()

    def draw(self, width: int = 80, *, legend: bool = False) -> str:
        """Return the race as text: one row for each lookup and attempt on one axis of time, then the result.

        A bar ends with ``*`` for connected, ``x`` failed, ``!`` timed out, ``~`` given up (lost or cancelled), ``|``
        for an answer. Each row says when it began. What is too long is cut, labels in the middle.

        Args:
          width: columns that no row exceeds, at least 60.
          legend: whether a line says what the signs mean.

        Raises:
          TypeError: `width` is not an int.
          ValueError: `width` is below 60.
        """
        rows = self._rows()
        picture = draw_timeline(rows, width, legend=legend and bool(rows))
        return f"{picture}\n{self._result(width)}" if rows else self._result(width)

    def draw_svg(self, *, title: str = "") -> str:
        """Return the race as a picture in SVG: the rows of `draw`, with the whole text of each as its tooltip.

        The document has no script and asks nobody for anything. Shapes tell the endings apart, besides colours.

        Args:
          title: what stands above it, such as the name that was connected to.

        Raises:
          TypeError: `title` is not a str.
        """
        if not isinstance(title, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"title must be a str, got {shown(title)}")
        # Most reports are never drawn.
        from ._svg import WIDEST_RESULT, draw_svg

        return draw_svg(self._rows(), title=title, result=self._result(WIDEST_RESULT))

    def _rows(self) -> list[TimelineRow]:
        hosts = len({attempt.host for attempt in self.attempts})
        rows = [_lookup_row(lookup) for lookup in self.lookups]
        return rows + [_attempt_row(attempt, self.elapsed, with_host=hosts > 1) for attempt in self.attempts]

    def _result(self, width: int) -> str:
        winner = self.winner
        if winner is None:
            return f"no connection after {short_duration(self.elapsed)}"
        others = len(self.tried) - 1
        waste = f", {others} other attempt{'' if others == 1 else 's'}" if others > 0 else ""
        tail = f" in {short_duration(self.elapsed)}{waste}"
        return f"connected to {cut_middle(str(winner.endpoint), width - len('connected to ') - len(tail))}{tail}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-safe data: versioned, times in whole microseconds, null for not measured."""
        return {
            "version": SCHEMA_VERSION,
            "started_at_us": microseconds(self.started_at),
            "elapsed_us": microseconds(self.elapsed),
            "lookups": [lookup.to_dict() for lookup in self.lookups],
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "multipath": None if self.multipath is None else {"subflows": self.multipath.subflows},
            "winner": next((i for i, attempt in enumerate(self.attempts) if attempt.outcome == "won"), None),
        }


EMPTY_REPORT: Final = ConnectReport()


_ENDINGS: Final[dict[Outcome, Ending]] = {
    "won": "connected",
    "lost": "given up",
    "failed": "failed",
    "timed out": "timed out",
    "cancelled": "given up",
}


def _lookup_row(lookup: Lookup) -> TimelineRow:
    ending: Ending
    if lookup.error is not None:
        ending, text = "failed", printable(" ".join(str(lookup.error.strerror or lookup.error).split())) or "error"
    elif lookup.answer is None:
        ending, text = "given up", "cancelled"
    else:
        count = len(lookup.answer.addresses)
        ending, text = "answered", f"{count} address{'' if count == 1 else 'es'}" if count else "no address"
    label = f"{lookup.kind} {lookup.host}"
    return TimelineRow(label=label, text=text, ending=ending, started=lookup.started, ended=lookup.ended)


def _attempt_row(attempt: Attempt, elapsed: float, *, with_host: bool) -> TimelineRow:
    label = str(attempt.endpoint) if attempt.source is None else f"{attempt.endpoint} from {attempt.source}"
    if attempt.nat64 is not None:
        label = f"{attempt.nat64} by {label}"  # the middle is what a narrow picture leaves out
    if with_host and attempt.host is not None:
        label += f" ({printable(attempt.host)})"
    if attempt.plain:
        label += " (plain TCP)"
    if attempt.started is None:
        said = (attempt.outcome, attempt.reason, attempt.history)
        return TimelineRow(label=label, text=": ".join(filter(None, said)))
    text: str = attempt.outcome
    if attempt.outcome == "failed":
        code = "" if attempt.errno is None else f" {errorcode.get(attempt.errno, attempt.errno)}"
        text = attempt.reason or f"failed{code}"
    said_by_the_peer = attempt.outcome == "failed" and attempt.phase == "establish" and attempt.reason is not None
    if attempt.phase != "connect" and attempt.outcome != "won" and not said_by_the_peer:
        text = f"{text} in {attempt.phase}"
    ended = elapsed if attempt.ended is None else attempt.ended
    ending = _ENDINGS.get(attempt.outcome)
    details: list[str] = []
    if attempt.history is not None:
        details.append(attempt.history)
    if attempt.delay is not None:
        details.append(f"delay {short_duration(attempt.delay)} ({attempt.delay_reason})")
    return TimelineRow(
        label=label, text=text, ending=ending, started=attempt.started, ended=ended, details=tuple(details)
    )
