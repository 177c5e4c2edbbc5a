"""Whether a point in time has come.

Such points are sums of floats, and so is the time at which a program wakes that was told how long to sleep: they differ
in their last bits. Who comes back on time must not be told to come back in no time at all: on a clock that stands still
while anybody runs, as that of tests does, he would ask for ever.
"""

from __future__ import annotations

from typing import Final

__all__ = ["has_come"]

TOLERANCE: Final = 5e-7
"""Seconds. Times are told in milliseconds; a float has a tenth of a microsecond for thirty years."""


def has_come(at: float, now: float) -> bool:
    """Say whether a point in time is now or past.

    Args:
      at: the point; infinity never comes.
      now: the time, which is finite.
    """
    return at - now <= TOLERANCE
