"""Milliseconds for users, Trio's seconds inside; this module is the only bridge.

Every deadline is a point in time on the clock of `now()`. That clock is Trio's, so it stands still, jumps and
starts at zero under a `trio.testing.MockClock`, and its values mean nothing outside their `trio.run`.
"""

from __future__ import annotations

from math import inf
from typing import Final

from trio import current_time

__all__ = ["IMMEDIATE", "NO_DEADLINE", "now"]

NO_DEADLINE: Final = -1
"""The deadline that never comes."""
IMMEDIATE: Final = 0
"""The deadline that has always passed: try once, look once more, give up."""

# A deadline this far in the past is almost surely a duration that was taken for a point in time.
STALE_SECONDS: Final = 3600.0
STALE_HINT: Final = "deadlines are absolute: use now() + ..."


def now() -> int:
    """Return the current time in milliseconds.

    The origin is arbitrary; the value is always above 0, so that it can never be taken for `NO_DEADLINE` or
    `IMMEDIATE`. Add to it to make a deadline: ``await tcp_connect(endpoint, now() + 500)``.

    Rounding goes through whole microseconds: with plain truncation a clock that stands at a deadline, give or take
    a float's last bit, would read one millisecond early, and ``while now() < d: await sleep_until(d)`` would spin.

    Raises:
      RuntimeError: called outside of `trio.run`.
    """
    return round(current_time() * 1e6) // 1000 + 1


def check_deadline(deadline: object) -> int:
    """Return the deadline, or say what is wrong with it.

    Raises:
      TypeError: not an int; a bool, float or None is none.
      ValueError: below -1.
    """
    if isinstance(deadline, bool) or not isinstance(deadline, int):
        raise TypeError(f"a deadline is an int of milliseconds on the clock of now(), or -1 for none, got {deadline!r}")
    if deadline < NO_DEADLINE:
        raise ValueError(f"a deadline is -1 for none, 0 for now or never, or now() + milliseconds, got {deadline!r}")
    return deadline


def to_seconds(deadline: int) -> float:
    """Return the point in Trio time that a deadline means: `math.inf` for none, `-math.inf` for 0."""
    if type(deadline) is not int or deadline < NO_DEADLINE:
        deadline = check_deadline(deadline)
    if deadline > IMMEDIATE:
        try:
            return (deadline - 1) / 1000
        except OverflowError:  # beyond what a float can hold, and so beyond every clock
            return inf
    return inf if deadline == NO_DEADLINE else -inf


def is_stale(until: float) -> bool:
    """Say whether a point in Trio time lies so far back that it was probably meant as a duration."""
    return -inf < until < current_time() - STALE_SECONDS
