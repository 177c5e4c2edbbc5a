"""How slow this machine is just now: what a bound in seconds is to be held against.

Shared machines swing between speeds that differ by a factor of two, for minutes at a time, and processor time swings
with them. A bound in seconds would then measure the neighbours. So a loop that never changes is timed just before and
just after, and what was measured is divided by how much longer that loop took than on the machine where the bounds
were set. On a machine as fast as that one, or faster, nothing is divided.
"""

from __future__ import annotations

import time
from collections.abc import Callable

NOMINAL = 0.0325
"""Seconds that the loop takes where the bounds were set: CPython 3.11, 2.5 GHz, nothing else running."""


def _loop() -> float:
    before = time.process_time()
    total = 0
    for i in range(300_000):
        total += i * i % 7
    return time.process_time() - before


def slowness() -> float:
    """Return how many times slower than nominal this machine is now, at least 1."""
    return max(1.0, min(_loop() for _ in range(5)) / NOMINAL)


def cost_within(bound: float, measure: Callable[[], float], *, attempts: int) -> float:
    """Measure until the bound holds or the attempts are used up, and return the least.

    Args:
      bound: in whatever `measure` returns.
      measure: returns processor time. What else runs on the machine only ever adds to that, hence the least counts.
      attempts: how often it may be measured.
    """
    least = float("inf")
    for _ in range(attempts):
        before = slowness()
        measured = measure()
        # The lesser of the two, so that a machine that was slow for a moment excuses nothing.
        least = min(least, measured / min(before, slowness()))
        if least <= bound:
            break
    return least
