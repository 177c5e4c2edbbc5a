"""When the next attempt of a race may start.

There is one gate. It has a due time and the cause that the next start will bear.

- At first it is due at once. A start sets it to *its own due time* plus the attempt delay, so that a timer which fires
  late does not shift the schedule. (Only a stall of a whole delay begins the schedule anew: a laptop that wakes up is
  not to catch up on all that it slept through.)
- While establish runs on a connection the start is put off by as long as that connection's handshake took, at most by
  one delay, for it is likely to win. A start is put off once: of several connections that get that far, the one with
  the longest handshake counts.
- A failure of any attempt sets it to now, or to when the floor ends if that is later. RFC 9623 section 4.3 gives the
  licence, RFC 8305 is silent. There is one gate, so several failures before the next start open it once.
- When the start was due but every slot was taken, the end of an attempt sets it likewise: cause "slot".
- When the start was due but there was nobody to start, the next candidate sets it likewise: cause "arrival". So does a
  candidate that comes when no attempt is alive.

All facts of one instant count as one, whatever order they are told in: in virtual time instants coincide, and which
task ran first is chance. They act in the order of this list, and each time that one is told its instant is worked out
anew from how the gate stood before. When a start was made at this very instant, what is told of older attempts
afterwards changes nothing more.

A start for which this machine had no descriptor or memory opens no gate, for the next would find as little: it is made
again when one of the others ends, or after another delay.

The floor: at least 10 ms lie between two starts of which the first sent a packet. It protects the network, so neither
an attempt to a loopback address nor one that failed before it sent anything sets it.
"""

from __future__ import annotations

from math import inf

from .._policy import MIN_ATTEMPT_DELAY
from .._report import Cause

__all__ = ["Schedule"]


class _Instant:
    """The facts of one instant, and how the gate stood before them."""

    __slots__ = ("arrival_idle", "at", "cause", "due", "end_full", "handshake", "put_off")

    def __init__(self, at: float, due: float, put_off: float, cause: Cause) -> None:
        self.at = at
        self.due = due
        self.put_off = put_off
        self.cause: Cause = cause
        self.handshake = 0.0
        """The longest that has ended, in seconds."""
        self.end_full: bool | None = None
        """Whether an attempt that has ended held the last free slot; None when none has ended."""
        self.arrival_idle: bool | None = None
        """Whether a candidate came when no attempt was alive; None when none came."""


class Schedule:
    """The gate and the floor of one race.

    Args:
      delay: seconds between two starts while nothing fails.
      now: when the race began.
    """

    __slots__ = ("_delay", "_due", "_floor", "_instant", "_last_start", "_put_off", "cause")

    cause: Cause
    """What the next start will be ascribed to."""
    # These are there from the first start on, and nothing asks for them before.
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

    def started(self, now: float, *, sets_floor: bool) -> None:
        """Close the gate behind a start."""
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
        """Take the floor of the latest start back. Any older one had ended before that start was made."""
        self._floor = -inf

    def ran_out(self) -> None:
        """Take the latest start for none: whatever ends in its instant opens the gate."""
        self._last_start = -inf

    def progressed(self, started: float, now: float) -> None:
        """Put the next start off, because a connection is up and establish runs on it.

        Args:
          started: when its attempt had been started.
          now: the time.
        """
        if now != self._last_start:
            instant = self._instant_at(now)
            instant.handshake = max(instant.handshake, min(now - started, self._delay))
            self._work_out(instant)

    def ended(self, started: float, now: float, *, was_full: bool) -> None:
        """Open the gate for the failure of an attempt.

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
        """Open the gate for a candidate that came when none waited, unless it has to wait like any other.

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

    def _instant_at(self, now: float) -> _Instant:
        if self._instant is None or self._instant.at != now:
            self._instant = _Instant(now, self._due, self._put_off, self.cause)
        return self._instant

    def _work_out(self, instant: _Instant) -> None:
        now, due, cause = instant.at, instant.due, instant.cause
        if instant.handshake > instant.put_off:
            due = max(due, now) + instant.handshake - instant.put_off
        opened = max(now, self._floor)
        # Where the start is due anyway it needs nobody's failure.
        if instant.end_full is not None and (due > now or instant.end_full):
            due, cause = opened, "failure" if due > now else "slot"
        if instant.arrival_idle is not None and (due < now or instant.arrival_idle):
            due, cause = opened, "arrival"
        self._due, self.cause = due, cause
        self._put_off = max(instant.put_off, instant.handshake)
