"""Milliseconds for users, Trio's seconds inside; this module is the only bridge.

Every deadline is a point in time on the clock of `now()`. That clock is Trio's, so it stands still, jumps and
starts anew under a `trio.testing.MockClock`, and its values mean nothing outside their `trio.run`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from math import inf
from typing import Final

from trio import CancelScope, current_time

from ._check import SIZE_LIMIT, check_float
from ._messages import call_exceeded
from ._text import shown

__all__ = ["IMMEDIATE", "NO_DEADLINE", "deadline_after", "fail_at", "move_on_at", "now"]

NO_DEADLINE: Final = -1
"""The deadline that never comes."""
IMMEDIATE: Final = 0
"""The deadline that asks for one try: try, let others run, look once more, give up."""

LEAST_DEADLINE: Final = SIZE_LIMIT
"""The least positive deadline. Below it are durations (35 years) and sizes (1 TiB) that are given by mistake."""
# The further 50 days are for `now() - milliseconds` under a fresh MockClock, which reads 0 seconds.
_ORIGIN: Final = LEAST_DEADLINE + (1 << 32) + 1


def now() -> int:
    """Return the current time in milliseconds.

    Add to it to make a deadline: ``await tcp_connect(endpoint, now() + 500)``. The origin is arbitrary, and so large
    that neither a duration nor a size can be taken for a deadline, under a `trio.testing.MockClock` too.

    Rounding goes through whole microseconds: with plain truncation a clock that stands at a deadline, give or take
    a float's last bit, would read one millisecond early, and ``while now() < d: await sleep_until(d)`` would spin.

    Raises:
      RuntimeError: called outside of `trio.run`.
    """
    try:
        return round(current_time() * 1e6) // 1000 + _ORIGIN
    except RuntimeError:
        raise RuntimeError("there is no run of Trio here: call this inside of trio.run()") from None


def deadline_after(seconds: float | None) -> int:
    """Return the deadline that comes after so many seconds.

    Args:
      seconds: from now on, 0 or more; None and `math.inf` for no deadline.

    Returns:
      ``now()`` and as many milliseconds, rounded up; `NO_DEADLINE` for None and `math.inf`.

    Raises:
      RuntimeError: called outside of `trio.run`.
      TypeError: not a number, or a bool.
      ValueError: negative or NaN, or an int beyond what a float can hold; or it was meant as a deadline.
    """
    if seconds is None:
        return NO_DEADLINE
    number = check_float(seconds, "seconds", "a number of seconds, or None for no deadline")
    if number < 0:
        raise ValueError(f"seconds must be 0 or more, got {shown(seconds)}")
    if SIZE_LIMIT <= number < 2 * SIZE_LIMIT:  # where now() is: for ever is a larger number
        raise ValueError(f"seconds must be counted from now, got {shown(seconds)}: a deadline?")
    if number * 1e6 == inf:
        return NO_DEADLINE
    # Rounded to microseconds first: 0.057 s are 57 ms, although 0.057 * 1000 is a little more.
    return now() - (-round(number * 1_000_000) // 1000)


def move_on_at(deadline: int) -> CancelScope:
    """Return a cancel scope that ends its block at a deadline, as `trio.move_on_at` does.

    Args:
      deadline: milliseconds on the clock of `now()`; -1 never, 0 or late at the first checkpoint in the block.

    Returns:
      The scope, for a ``with`` statement; `trio.CancelScope.cancelled_caught` says afterwards whether it ended the
      block.

    Raises:
      RuntimeError: called outside of `trio.run`.
      TypeError: the deadline is not an int.
      ValueError: it is below -1, or a duration.
    """
    until = to_seconds(deadline)
    scope = CancelScope(deadline=until)
    if until <= current_time():
        # Trio looks at deadlines between two turns of a task: a scope that is late would let the first one pass.
        scope.cancel()
    return scope


@contextmanager
def fail_at(deadline: int) -> Generator[CancelScope, None, None]:
    """Bound a block by a deadline: a cancel scope as a context manager, as `trio.fail_at` is.

    Args:
      deadline: milliseconds on the clock of `now()`; -1 never, 0 or late at the first checkpoint in the block.

    Yields:
      The cancel scope.

    Raises:
      DeadlineExceeded: the deadline ended the block.
      RuntimeError: used outside of `trio.run`.
      TypeError: the deadline is not an int.
      ValueError: it is below -1, or a duration.
    """
    started = current_time()
    with move_on_at(deadline) as scope:
        yield scope
    if scope.cancelled_caught:
        raise call_exceeded("the block under fail_at()", current_time() - started)


def check_deadline(deadline: object) -> int:
    """Return the deadline, or say what is wrong with it.

    Raises:
      TypeError: not an int; a bool, float or None is not one.
      ValueError: below -1, or so small that it is a duration.
    """
    if isinstance(deadline, bool) or not isinstance(deadline, int):
        raise TypeError(
            f"a deadline is an int of milliseconds on the clock of now(), or -1 for none, got {shown(deadline)}"
        )
    if deadline < NO_DEADLINE:
        raise ValueError(
            f"a deadline is -1 for none, 0 for now or never, or now() + milliseconds, got {shown(deadline)}"
        )
    if IMMEDIATE < deadline < LEAST_DEADLINE:
        raise ValueError(f"a deadline is a point in time: now() + {deadline}, got {deadline}")
    return deadline


def is_late(until: float) -> bool:
    """Say whether a point in Trio time is now or past: a call that begins then does nothing. 0 is never late."""
    return -inf < until <= current_time()


def to_seconds(deadline: int) -> float:
    """Return the point in Trio time that a deadline means: `math.inf` for none, `-math.inf` for 0."""
    if type(deadline) is not int or deadline < LEAST_DEADLINE:
        deadline = check_deadline(deadline)
        if deadline <= IMMEDIATE:
            return inf if deadline == NO_DEADLINE else -inf
    try:
        return (deadline - _ORIGIN) / 1000
    except OverflowError:  # beyond what a float can hold, and so beyond every clock
        return inf
