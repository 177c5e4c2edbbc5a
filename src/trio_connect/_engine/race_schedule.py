"""When the next attempt of a race may start.

There is one start timer. It has a due time, and the cause of the next start.

- At first it is due at once. A start sets it to *its own due time* plus the attempt delay, so that a timer which fires
  late does not shift the schedule. (Only a stall of a whole delay begins the schedule anew: a laptop that wakes up does
  not make all the starts at once that were due while it slept.)
- While establish runs on a connection the start is postponed by as long as that connection's handshake took, at most
  by one delay, because that connection is likely to win. A start is postponed once: of several established connections
  the one with the longest handshake counts.
- A failure of any attempt sets it to now, or to the end of the floor if that is later. RFC 9623 section 4.3
  allows this, RFC 8305 does not say. There is one timer, so several failures before the next start make one start.
- When the start was due but every slot was taken, the end of an attempt sets it likewise: cause "slot".
- When the start was due but no candidate waited, the next candidate sets it likewise: cause "arrival". So does a
  candidate that comes when no attempt is alive.

Facts of one instant apply in this list's order, whatever order they are told in: in virtual time instants coincide, and
Trio runs the tasks of a pass in random order. Each new fact recomputes the instant from the state before it. After a
start at the same instant, facts of older attempts change nothing.

- Another race learns that what this one waits for has failed, or is slow: that sets it likewise, cause "history".
- A start that the memory of earlier connects holds back is due again after another delay.

A start for which this machine had no descriptor or memory does not bring the next start forward, which would fail the
same way. It is repeated when another attempt ends, or after another delay.

The floor (RFC 8305 section 5): at least 10 ms lie between two starts of which the first sent a packet. It protects the
network, so an attempt to a loopback address does not set it, nor does one that failed before it sent anything.
"""

from __future__ import annotations

from math import inf

from .._policy import MIN_ATTEMPT_DELAY
from .._report import Cause

__all__ = ["Schedule"]


class _Instant:
    """The facts of one instant, and the state of the timer before them."""

    __slots__ = ("arrival_idle", "at", "cause", "due", "end_full", "handshake", "put_off")

    def __init__(self, at: float, due: float, put_off: float, cause: Cause) -> None:
        self.at = at
        self.due = due
        self.put_off = put_off
        self.cause: Cause = cause
        self.handshake = 0.0
        """The longest handshake of an attempt that reached establish, in seconds."""
        self.end_full: bool | None = None
        """Whether an attempt that has ended held the last free slot; None when none has ended."""
        self.arrival_idle: bool | None = None
        """Whether a candidate came when no attempt was alive; None when none came."""


class Schedule:
    """The start timer and the floor of one race.

    Args:
      delay: seconds between two starts while nothing fails.
      now: when the race began.
    """

    __slots__ = ("_delay", "_due", "_floor", "_instant", "_last_start", "_put_off", "cause")

    cause: Cause
    """The cause of the next start."""
    # Set by the first start, and not read before.
    _last_start: float
    _put_off: float
    _instant: _Instant | None

    def __init__(self, delay: float, now: float) -> None:
        self._delay = delay
        self._due = now
        self._floor = -inf
        self.cause = "first"

    @property
    def next_start(self) -> float:
        """When the next start may be made at the earliest."""
        return max(self._due, self._floor)

    def started(self, now: float, *, sets_floor: bool, delay: float | None = None) -> None:
        """Set the timer after a start.

        Args:
          now: the time.
          sets_floor: whether the start sent a packet into the network.
          delay: seconds to the next start, from now on; None for as many as before.
        """
        if delay is not None:
            self._delay = delay
        self._last_start = now
        if sets_floor:
            self._floor = now + MIN_ATTEMPT_DELAY
        self._due += self._delay
        if self._due <= now:
            self._due = now + self._delay
        self._put_off = 0.0
        self._instant = None
        self.cause = "delay"

    def nothing_was_sent(self) -> None:
        """Cancel the floor of the latest start. That of any older start had ended before."""
        self._floor = -inf

    def ran_out(self) -> None:
        """Ignore the latest start: an attempt that ends at its instant then sets the timer."""
        self._last_start = -inf

    def progressed(self, started: float, now: float) -> None:
        """Postpone the next start, because establish runs on a connection.

        Args:
          started: when its attempt had been started.
          now: the time.
        """
        if now != self._last_start:
            instant = self._instant_at(now)
            instant.handshake = max(instant.handshake, min(now - started, self._delay))
            self._work_out(instant)

    def ended(self, started: float, now: float, *, was_full: bool) -> None:
        """Set the timer for the failure of an attempt.

        Args:
          started: when that attempt had been started.
          now: the time.
          was_full: whether it held the last free slot.
        """
        if not started < now == self._last_start:
            instant = self._instant_at(now)
            instant.end_full = was_full or bool(instant.end_full)
            self._work_out(instant)

    def arrived(self, now: float, *, idle: bool) -> None:
        """Set the timer for a candidate that came when no other waited.

        Args:
          now: the time.
          idle: whether the last attempt had ended before now.
        """
        if self.cause == "first":
            self._due = max(self._due, now)
        else:
            instant = self._instant_at(now)
            instant.arrival_idle = idle
            self._work_out(instant)

    def begins(self, at: float) -> None:
        """Set the timer for the first start."""
        self._due = at

    def held_back(self, now: float) -> None:
        """Set the timer for a start that is not to be made now."""
        self._due = now + self._delay
        self._instant = None

    def learned(self, now: float) -> None:
        """Set the timer, because another race has learned that waiting is in vain."""
        if self.cause == "delay":
            self._due, self.cause = min(self._due, max(now, self._floor)), "history"
            self._instant = None

    def _instant_at(self, now: float) -> _Instant:
        if self._instant is None or self._instant.at != now:
            self._instant = _Instant(now, self._due, self._put_off, self.cause)
        return self._instant

    def _work_out(self, instant: _Instant) -> None:
        now, due, cause = instant.at, instant.due, instant.cause
        if instant.handshake > instant.put_off:
            due = max(due, now) + instant.handshake - instant.put_off
        opened = max(now, self._floor)
        # A start that is due anyway is not ascribed to the failure.
        if instant.end_full is not None and (due > now or instant.end_full):
            due, cause = opened, "failure" if due > now else "slot"
        if instant.arrival_idle is not None and (due < now or instant.arrival_idle):
            due, cause = opened, "arrival"
        self._due, self.cause = due, cause
        self._put_off = max(instant.put_off, instant.handshake)
