"""When the next attempt of a race may start.

There is one gate. It has a due time and the cause that the next start will bear.

- At first it is due at once. A start sets it to *its own due time* plus the attempt delay, so that a timer which fires
  late does not shift the schedule. (Only a stall of a whole delay begins the schedule anew: a laptop that wakes up is
  not to catch up on all that it slept through.)
- A failure of any attempt sets it to now, or to when the floor ends if that is later. RFC 9623 section 4.3 gives the
  licence, RFC 8305 is silent. There is one gate, so several failures before the next start open it once. All facts of
  one instant count as one: when a start was made at this very instant, an older attempt that fails now opens nothing
  more, whichever of the two was told first.
- When the start was due but every slot was taken, the end of an attempt sets it likewise: cause "slot".
- When the start was due but there was nobody to start, the next candidate sets it likewise: cause "arrival". So does a
  candidate that comes when no attempt is alive.
- While establish runs on a connection the start is put off by as long as that connection's handshake took, at most by
  one delay, for it is likely to win. A start is put off once: of several connections that get that far, the one with
  the longest handshake counts. A candidate that comes in the instant in which a connection came up is put off with it,
  whichever of the two was told first.

The floor: at least 10 ms lie between two starts of which the first sent a packet. It protects the network, so neither
an attempt to a loopback address nor one that failed before it sent anything sets it.
"""

from __future__ import annotations

from math import inf

from .._policy import MIN_ATTEMPT_DELAY
from .._report import Cause

__all__ = ["Schedule"]


class Schedule:
    """The gate and the floor of one race.

    Args:
      delay: seconds between two starts while nothing fails.
      now: when the race began.
    """

    __slots__ = ("_before_arrival", "_delay", "_due", "_floor", "_last_start", "_put_off", "cause")

    cause: Cause
    """What the next start will be ascribed to."""
    # These are there from the first start on, and nothing asks for them before.
    _last_start: float
    _put_off: float
    _before_arrival: tuple[float, float, Cause] | None
    """When a candidate opened the gate, and the due time and the cause that it replaced; None once that is past."""

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
        self._before_arrival = None
        self.cause = "delay"

    def nothing_was_sent(self) -> None:
        """Take the floor of the latest start back. Any older one had ended before that start was made."""
        self._floor = -inf

    def ended(self, started: float, now: float, *, was_full: bool) -> None:
        """Open the gate for the failure of an attempt.

        Args:
          started: when that attempt had been started.
          now: the time.
          was_full: whether it held the last free slot.
        """
        if started < now == self._last_start:
            return
        if self._due > now:
            self.cause = "failure"
        elif was_full:
            self.cause = "slot"
        else:
            # The start is due anyway, and needs nobody's failure.
            return
        self._due = max(now, self._floor)

    def arrived(self, now: float, *, idle: bool) -> None:
        """Open the gate for a candidate that came when none waited, unless it has to wait like any other.

        Args:
          now: the time.
          idle: whether the last attempt had ended before now.
        """
        if self.cause == "first":
            self._due = max(self._due, now)
        elif idle or self._due < now:
            self._before_arrival = now, self._due, self.cause
            self._due = max(now, self._floor)
            self.cause = "arrival"

    def progressed(self, handshake: float, now: float) -> None:
        """Put the next start off, because a connection is up and establish runs on it."""
        put_off = min(handshake, self._delay)
        if put_off > self._put_off:
            if self._before_arrival is not None:
                arrived_at, due, cause = self._before_arrival
                self._before_arrival = None
                if arrived_at == now:
                    # Told first, it has opened a gate that this handshake keeps shut.
                    self._due, self.cause = due, cause
            self._due = max(self._due, now) + put_off - self._put_off
            self._put_off = put_off
