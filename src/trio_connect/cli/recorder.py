"""Hears the events of a probe: keeps the reports, also of what was cancelled, and tells whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import attrs
import trio

from trio_connect import Attempt, ConnectReport, Lookup, RaceFinished, TraceEvent

from .settings import shown_source

Watcher: TypeAlias = Callable[[TraceEvent, int], object]
"""Told each event and the number by which the attempts of its race are shifted in the report."""


class Recorder:
    """The observer of every race of one probe.

    A cancelled call returns no report, but its last event has it: so the reports are kept here.
    """

    def __init__(self, watchers: tuple[Watcher, ...] = ()) -> None:
        self.started_at = trio.current_time()
        self._watchers = watchers
        self._races: dict[int, ConnectReport] = {}
        self._lookups: tuple[Lookup, ...] = ()

    def observer(self, shift: int = 0) -> Callable[[TraceEvent], None]:
        """Return the observer of one race.

        Args:
          shift: how many attempts of other races stand before its own in the report.
        """
        return partial(self._hear, shift)

    def hear_lookups(self, event: TraceEvent) -> None:
        """Observe a call that only looks names up."""
        if isinstance(event, RaceFinished):
            self._lookups = event.report.lookups
        else:
            self._tell(event, 0)

    def _hear(self, shift: int, event: TraceEvent) -> None:
        if isinstance(event, RaceFinished):
            self._races[shift] = event.report
        self._tell(event, shift)

    def _tell(self, event: TraceEvent, shift: int) -> None:
        for watcher in self._watchers:
            watcher(event, shift)

    def report(self) -> ConnectReport:
        """Return one report of all races, with one origin of time."""
        races = [self._races[shift] for shift in sorted(self._races)]
        lookups = [*self._lookups]
        attempts: list[Attempt] = []
        end = self.started_at
        for race in races:
            later = race.started_at - self.started_at
            end = max(end, race.started_at + race.elapsed)
            lookups += race.lookups
            attempts += [
                attrs.evolve(
                    attempt,
                    source=shown_source(attempt.source),
                    started=None if attempt.started is None else attempt.started + later,
                    ended=None if attempt.ended is None else attempt.ended + later,
                )
                for attempt in race.attempts
            ]
        end = max(end, self.started_at + max((lookup.ended for lookup in lookups), default=0.0))
        return ConnectReport(
            lookups=tuple(lookups),
            attempts=tuple(attempts),
            started_at=self.started_at,
            elapsed=end - self.started_at,
            multipath=races[0].multipath if len(races) == 1 else None,
        )
