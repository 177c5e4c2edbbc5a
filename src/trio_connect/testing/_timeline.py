"""The events of a virtual network: a heap, and one system task that sleeps until the next event.

The task exists only after something was scheduled, and only in the run that scheduled it. It sleeps with a deadline on
Trio's clock and nothing else, so autojump sees it as blocked and jumps straight to the next event. Cancelling an event
moves that deadline at once, so a cancelled event does not move the clock.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count

import attrs
import trio

Place = tuple[str, int, int, str]
"""Where an event happens: host, port, ordinal, source. Events of one instant run in this order."""


@attrs.define(eq=False)
class Timer:
    """An event to come; `action` is None once it has run or was cancelled."""

    at: float
    action: Callable[[], None] | None
    _timeline: Timeline = attrs.field(alias="timeline")

    def cancel(self) -> None:
        """Forget the event."""
        if self.action is not None:
            self.action = None
            self._timeline.rearm()


@attrs.define(eq=False)
class Timeline:
    """The events of one network in one run."""

    _heap: list[tuple[float, Place, int, Timer]] = attrs.field(
        factory=list[tuple[float, Place, int, "Timer"]], init=False, alias="_heap"
    )
    _ties: count[int] = attrs.field(factory=count, init=False, alias="_ties")
    _alarm: trio.CancelScope | None = attrs.field(default=None, init=False, alias="_alarm")
    _life: trio.CancelScope | None = attrs.field(default=None, init=False, alias="_life")
    _clock: trio.abc.Clock | None = attrs.field(default=None, init=False, alias="_clock")
    # The time that stands still while events run; None between.
    _instant: float | None = attrs.field(default=None, init=False, alias="_instant")
    closed: bool = attrs.field(default=False, init=False)

    def at(self, when: float, place: Place, action: Callable[[], None]) -> Timer:
        """Run `action` at Trio time `when`, seconds; never before this call returns."""
        timer = Timer(when, action, self)
        if self.closed:
            return timer
        heapq.heappush(self._heap, (when, place, next(self._ties), timer))
        if self._life is None:
            self._life = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._pump, name="trio_connect.testing: virtual network")
        else:
            self.rearm()
        return timer

    def close(self) -> None:
        """Drop every event and end the task."""
        self.closed = True
        self._heap.clear()
        if self._life is not None:
            self._life.cancel(reason="the virtual network was closed")

    def now(self) -> float:
        """Return Trio's time, in seconds; while events run, the time at which they began to."""
        if self._instant is not None:
            return self._instant
        if self._clock is None:
            self._clock = trio.lowlevel.current_clock()
        return self._clock.current_time()

    def rearm(self) -> None:
        """Move the alarm to the next event that was not cancelled."""
        if self._alarm is not None and self._instant is None:
            when = self._next_due()
            # Setting a deadline costs a good part of what an event costs, even to the value that it has.
            if when != self._alarm.deadline:
                self._alarm.deadline = when

    def _next_due(self) -> float:
        """Drop what was cancelled in front, and return when the next event is due; inf for never."""
        while self._heap and self._heap[0][3].action is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    async def _pump(self) -> None:
        assert self._life is not None
        task = trio.lowlevel.current_task()

        def wake(_: object) -> trio.lowlevel.Abort:
            # The alarm's way out, without the exception that a sleep would make and catch for every event.
            trio.lowlevel.reschedule(task)
            return trio.lowlevel.Abort.FAILED

        with self._life:
            while True:
                with trio.CancelScope(deadline=self._next_due()) as self._alarm:
                    await trio.lowlevel.wait_task_rescheduled(wake)
                await trio.lowlevel.checkpoint_if_cancelled()  # raises when it was the end that woke us, not the alarm
                self._run_due()

    def _run_due(self) -> None:
        now = self._instant = self.now()
        try:
            while self._heap and self._heap[0][0] <= now:
                timer = heapq.heappop(self._heap)[3]
                if timer.action is not None:
                    action, timer.action = timer.action, None
                    action()
        finally:
            self._instant = None
