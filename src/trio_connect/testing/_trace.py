"""The record of what happened on a virtual network, and when.

Times are virtual seconds since the network was installed, rounded to a nanosecond so that sums of floats compare.
Everything is reported in canonical order: by time, then host, port and ordinal. The order in which Trio ran the tasks
that shared an instant is not part of it, because Trio shuffles them on purpose.
"""

from __future__ import annotations

import errno
import os
from typing import Literal

import attrs

from .. import TimelineRow, draw_timeline

EventKind = Literal[
    "lookup",
    "answer",
    "start",
    "retransmit",
    "connected",
    "failed",
    "abandoned",
    "accepted",
    "reset",
    "closed",
    "handler",
    "unknown",
]


@attrs.frozen
class TraceEvent:
    """One thing that happened.

    Attributes:
      at: virtual seconds since the network was installed.
      kind: what happened.
      host: the address connected to, or the name looked up.
      port: the port connected to; 0 for a lookup.
      ordinal: which connection from that source to that host and port, from 0; which lookup of that name and family.
      source: the host that it happened to, by its first address.
      detail: more, in words: the errno's name, the addresses of an answer, byte counts.
    """

    at: float
    kind: EventKind
    host: str
    port: int
    ordinal: int
    source: str
    detail: str = ""

    def __str__(self) -> str:
        where = (
            f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}" if self.port else self.host
        )
        return f"{self.at:.9f} {self.kind} {where} #{self.ordinal} {self.source} {self.detail}".rstrip()


@attrs.define(eq=False)
class Tally:
    """How many bytes a program has handed to a socket, and taken from it, so far."""

    sent: int = 0
    received: int = 0

    def __str__(self) -> str:
        return f"{self.sent} B out, {self.received} B in"


@attrs.define(eq=False)
class Connection:
    """One connection attempt and what became of it; times in virtual seconds, bytes as the connecting side saw them.

    Attributes:
      host, port, ordinal, source: as in `TraceEvent`.
      started: when the first SYN left.
      ended: when connect was over, whatever the outcome; None while it goes on.
      outcome: "connecting", "connected", "abandoned", or the name of the errno, such as "ECONNREFUSED".
      closed: when the connecting side closed its socket, or None.
    """

    host: str
    port: int
    ordinal: int
    source: str
    started: float
    ended: float | None = None
    outcome: str = "connecting"
    closed: float | None = None
    _tally: Tally = attrs.field(alias="tally", factory=Tally, repr=False)

    @property
    def sent(self) -> int:
        """Bytes that the connecting program handed to the socket."""
        return self._tally.sent

    @property
    def received(self) -> int:
        """Bytes that the connecting program took from the socket."""
        return self._tally.received


@attrs.define(eq=False)
class NameLookup:
    """One question to the virtual DNS; times in virtual seconds.

    Attributes:
      name: the name asked for.
      kind: "A" or "AAAA".
      ordinal: which such question, from 0.
      started, ended: when it was asked and answered; ended is None while it is open.
      outcome: "asking", the addresses joined by spaces, "empty", "cancelled", or the name of the error.
    """

    name: str
    kind: Literal["A", "AAAA"]
    ordinal: int
    started: float
    ended: float | None = None
    outcome: str = "asking"


@attrs.define(eq=False)
class Recorder:
    """Writes down what happens on a network; a `Trace` shows it."""

    events: list[tuple[int, TraceEvent]] = attrs.field(factory=list[tuple[int, TraceEvent]], init=False)
    """In the order of writing, with that order."""
    connections: list[Connection] = attrs.field(factory=list[Connection], init=False)
    lookups: list[NameLookup] = attrs.field(factory=list[NameLookup], init=False)
    live: int = attrs.field(default=0, init=False)
    """How many connects are in progress."""
    live_max: int = attrs.field(default=0, init=False)

    def add(self, event: TraceEvent) -> None:
        """Note an event."""
        self.events.append((len(self.events), event))

    def began(self, connection: Connection) -> None:
        """Note that a connect started."""
        self.connections.append(connection)
        self.live += 1
        self.live_max = max(self.live_max, self.live)
        self._note(connection, connection.started, "start")

    def ended(self, connection: Connection, at: float, outcome: str) -> None:
        """Note how a connect ended."""
        connection.ended, connection.outcome = at, outcome
        self.live -= 1
        if outcome in ("connected", "abandoned"):
            self._note(connection, at, "connected" if outcome == "connected" else "abandoned")
        else:
            self._note(connection, at, "failed", outcome)

    def asked(self, lookup: NameLookup) -> None:
        """Note that a name was looked up."""
        self.lookups.append(lookup)
        self.add(TraceEvent(lookup.started, "lookup", lookup.name, 0, lookup.ordinal, "", lookup.kind))

    def answered(self, lookup: NameLookup, at: float, outcome: str) -> None:
        """Note what a lookup gave."""
        lookup.ended, lookup.outcome = at, outcome
        self.add(TraceEvent(at, "answer", lookup.name, 0, lookup.ordinal, "", f"{lookup.kind} {outcome}"))

    def _note(self, connection: Connection, at: float, kind: EventKind, detail: str = "") -> None:
        self.add(TraceEvent(at, kind, connection.host, connection.port, connection.ordinal, connection.source, detail))


@attrs.define(eq=False)
class Trace:
    """Everything that happened on a network so far."""

    _recorder: Recorder = attrs.field(alias="recorder", factory=Recorder, repr=False)

    @property
    def live_max(self) -> int:
        """The largest number of connects that were in progress at once."""
        return self._recorder.live_max

    @property
    def events(self) -> tuple[TraceEvent, ...]:
        """Every event, in canonical order."""
        # Within one connection the order of noting is cause and effect, so it decides last.
        ordered = sorted(self._recorder.events, key=lambda row: (_place(row[1]), row[0]))
        return tuple(event for _, event in ordered)

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Every connection attempt, in canonical order."""
        return tuple(sorted(self._recorder.connections, key=_key))

    @property
    def unknown(self) -> tuple[tuple[str, float], ...]:
        """Addresses and names that the test does not mention, and when the program touched them."""
        return tuple((event.host, event.at) for event in self.events if event.kind == "unknown")

    @property
    def lookups(self) -> tuple[NameLookup, ...]:
        """Every lookup, in canonical order."""
        return tuple(sorted(self._recorder.lookups, key=lambda row: (row.started, row.name, row.kind, row.ordinal)))

    @property
    def starts(self) -> dict[str, float]:
        """When each address was first connected to, in order of time."""
        first: dict[str, float] = {}
        for connection in self.connections:
            first.setdefault(connection.host, connection.started)
        return first

    def waterfall(self, width: int = 100, rows: int = 60) -> str:
        """Draw the first `rows` lookups and connects on one time axis, as `ConnectReport.draw` draws them.

        Args:
          width: columns that no line exceeds, at least 60.
          rows: how many rows to draw at most.

        Returns:
          Lines of text, the last one ended.
        """
        drawn = [
            *map(_lookup_row, self.lookups),
            *map(_connection_row, self.connections),
            *(_unknown_row(name, at) for name, at in self.unknown),
        ]
        if not drawn:
            return "(nothing happened on the virtual network)\n"
        more = f"... and {len(drawn) - rows} more\n" if len(drawn) > rows else ""
        return f"{draw_timeline(drawn[:rows], width)}\n{more}"

    def canonical(self) -> str:
        """Return one line per event, in canonical order.

        Equal text means that the same things happened at the same times.

        Returns:
          Lines of text.
        """
        return "".join(f"{event}\n" for event in self.events)


def _key(row: Connection) -> tuple[float, str, int, int, str]:
    return (row.started, row.host, row.port, row.ordinal, row.source)


def _place(event: TraceEvent) -> tuple[float, str, int, int, str]:
    return (event.at, event.host, event.port, event.ordinal, event.source)


def errno_name(number: int) -> str:
    """Return the name of an errno, such as ECONNREFUSED; the number where it has no name here."""
    return errno.errorcode.get(number, str(number))


def _lookup_row(row: NameLookup) -> TimelineRow:
    return TimelineRow(
        label=f"{row.kind} {row.name}",
        text=row.outcome,
        ending="going on" if row.ended is None
        else "given up" if row.outcome == "cancelled"
        else "answered" if row.outcome == "empty" or {".", ":"} & {*row.outcome}
        else "failed",
        started=row.started,
        ended=row.ended,
    )  # fmt: skip


def _unknown_row(name: str, at: float) -> TimelineRow:
    return TimelineRow(label=name, text="unknown host", ending="unknown", started=at, ended=at)


def _connection_row(row: Connection) -> TimelineRow:
    number = getattr(errno, row.outcome, None)
    details: list[str] = []
    if row.outcome == "connected":
        details = [f"{row.sent} B out, {row.received} B in"]
        if row.closed is not None:
            details.append(f"closed at {row.closed * 1000:g} ms")
    return TimelineRow(
        label=f"[{row.host}]:{row.port}" if ":" in row.host else f"{row.host}:{row.port}",
        text=os.strerror(number).lower() if isinstance(number, int) else row.outcome,
        ending="connected" if row.outcome == "connected"
        else "given up" if row.outcome == "abandoned"
        else "going on" if row.ended is None
        else "failed",
        started=row.started,
        ended=row.ended,
        details=tuple(details),
    )  # fmt: skip
