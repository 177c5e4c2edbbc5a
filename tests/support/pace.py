"""How slow this machine is just now: what a bound in seconds is to be held against.

Shared machines swing between speeds that differ by a factor of two, for minutes at a time, and processor time swings
with them. A bound in seconds would then measure the neighbours. So a loop that never changes is timed before and after
what is measured, and that is divided by how much longer the loop took than on the machine where the bounds were set.
On a machine as fast as that one, or faster, nothing is divided.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Final

NOMINAL: Final = 0.0325
"""Seconds that the loop takes where the bounds were set: CPython 3.11, 2.5 GHz, nothing else running."""

# The least of several: a moment's trouble is not the pace.
_LOOP: Final = """
import time
def once():
    before = time.process_time()
    total = 0
    for i in range(300_000):
        total += i * i % 7
    return time.process_time() - before
print(min(once() for _ in range(5)))
"""


def pace() -> float:
    """Return how long the loop takes now, in seconds of processor time."""
    # In a process of its own: whatever traces this one, for coverage say, must not pass for a slow machine.
    loop = [sys.executable, "-I", "-c", _LOOP]
    return float(subprocess.run(loop, env={}, capture_output=True, text=True, timeout=60, check=True).stdout)


def least_cost(measure: Callable[[], float], *, bound: float, attempts: int, pace: Callable[[], float] = pace) -> float:
    """Measure until the bound holds or the attempts are used up.

    Args:
      measure: returns the processor time of something, in any unit.
      bound: in the same unit, on the nominal machine.
      attempts: how often it may be measured.
      pace: for tests of this.

    Returns:
      The least that was measured, at the nominal pace. What else runs on a machine only ever adds to a time, so of both
      times the least is taken, each over all attempts: a pace that was bad for a moment excuses nothing.
    """
    fastest, least = pace(), float("inf")
    for _ in range(attempts):
        least = min(least, measure())
        fastest = min(fastest, pace())
        if least / max(1.0, fastest / NOMINAL) <= bound:
            break
    return least / max(1.0, fastest / NOMINAL)
