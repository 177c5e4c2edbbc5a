"""Processor time at a known pace: what a bound in seconds is to be held against.

Shared machines swing between speeds that differ by a factor of two, within seconds, and processor time swings with
them. A bound in seconds would then measure the neighbours. So a loop that never changes is timed just before and just
after what is measured, and that is divided by how much longer the loop took than on the machine where the bounds were
set. On a machine as fast as that one, or faster, nothing is divided.

Use it in a process of its own: what traces this one, for coverage say, would trace the loop too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

NOMINAL: Final = 0.0325
"""Seconds that the loop takes where the bounds were set: CPython 3.11, 2.5 GHz, nothing else running."""


def _loop() -> float:
    before = time.process_time()
    total = 0
    for i in range(300_000):
        total += i * i % 7
    return time.process_time() - before


def pace() -> float:
    """Return how long the loop takes now, in seconds of processor time.

    The least of three: whatever interrupts it only adds.
    """
    return min(_loop(), _loop(), _loop())


@final
class PacedClock:
    """Adds up processor time as the nominal machine would have taken it. It runs from when it is made.

    Args:
      clock: seconds of processor time.
      pace: how long the loop takes, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.process_time, pace: Callable[[], float] = pace) -> None:
        self.seconds = 0.0
        """What was spent up to the last lap, at the nominal pace."""
        self._clock = clock
        self._measure_pace = pace
        self._pace = pace()
        self._began = clock()

    def lap(self) -> None:
        """Add what was spent since the last lap. Where the pace may change meanwhile, take laps."""
        spent = self._clock() - self._began
        before, self._pace = self._pace, self._measure_pace()
        self.seconds += spent / max(1.0, (before + self._pace) / 2 / NOMINAL)
        self._began = self._clock()


def least(measure: Callable[[], float], *, bound: float, attempts: int = 3) -> float:
    """Return the least of several measurements; none follows one that is within the bound."""
    found = measure()
    for _ in range(attempts - 1):
        if found <= bound:
            break
        found = min(found, measure())
    return found
