"""Processor time at a known pace: what a bound in seconds is to be held against.

Shared machines swing between speeds that differ by a factor of two, within seconds, and processor time swings with
them. A bound in seconds would then measure the neighbours. So a loop that never changes is timed just before and just
after what is measured, and that is divided by how much longer the loop took than on the machine where the bounds were
set. On a machine as fast as that one, or faster, nothing is divided.

There are two loops, because two kinds of work do not slow down alike. What only calculates stays in the caches of its
processor. What runs tasks makes system calls and touches far more memory: on one machine it took three times as long
as on another that calculates as fast.

Use it in a process of its own: what traces this one, for coverage say, would trace the loop too.
"""

from __future__ import annotations

import heapq
import os
import select
import time
from collections import deque
from collections.abc import Callable, Generator
from itertools import count
from typing import Final, final

CALCULATION: Final = 0.0325
"""Seconds that the loop of `calculating` takes where the bounds were set: CPython 3.11, 2.5 GHz, nothing else runs."""

RUNNING_TASKS: Final = 0.004
"""Seconds that the loop of `running_tasks` takes there. It was derived: an admission over a file, the same code, took
36 us there where it took 124 on a machine whose loop takes 0.0100, one over a Redis 480 where it took 1250: the lower
of the two ratios."""


def _calculate() -> float:
    before = time.process_time()
    total = 0
    for i in range(300_000):
        total += i * i % 7
    return time.process_time() - before


class _Thing:
    """A small object, as each task, event and deadline is one."""

    __slots__ = ("number", "parts", "rest")

    def __init__(self, number: int, parts: tuple[int, ...], rest: object) -> None:
        self.number = number
        self.parts = parts
        self.rest = rest


def _run_tasks() -> float:
    """Do what a pass of an event loop does for a task: two system calls, a step, an entry here and one there."""
    descriptor = os.memfd_create("pace")
    os.write(descriptor, bytes(64))
    steps: Generator[int] = (number for number in count())
    waiting: deque[_Thing] = deque()
    due: list[tuple[int, int]] = []
    known: dict[int, _Thing] = {}
    with select.epoll() as epoll:
        before = time.process_time()
        for i in range(3_000):
            epoll.poll(0)
            os.pread(descriptor, 8, 0)
            thing = known[i] = _Thing(i, (i,), None)
            heapq.heappush(due, (i, i))
            waiting.append(thing)
            next(steps)
            heapq.heappop(due)
            waiting.popleft()
            del known[i]
            f"{i}: {thing.number}"
        spent = time.process_time() - before
    os.close(descriptor)
    return spent


def calculating() -> float:
    """Return how many times as long as where the bounds were set calculating takes now.

    The least of three: whatever interrupts it only adds.
    """
    return min(_calculate(), _calculate(), _calculate()) / CALCULATION


def running_tasks() -> float:
    """Return the same of running tasks, on Linux."""
    return min(_run_tasks(), _run_tasks(), _run_tasks()) / RUNNING_TASKS


@final
class PacedClock:
    """Adds up processor time as the nominal machine would have taken it. It runs from when it is made.

    Args:
      clock: seconds of processor time.
      slowness: how many times as long as where the bounds were set such work takes now.
    """

    def __init__(
        self, clock: Callable[[], float] = time.process_time, slowness: Callable[[], float] = calculating
    ) -> None:
        self.seconds = 0.0
        """What was spent up to the last lap, at the nominal pace."""
        self._clock = clock
        self._ask_slowness = slowness
        self._slowness = slowness()
        self._began = clock()

    def lap(self) -> None:
        """Add what was spent since the last lap. Where the pace may change meanwhile, take laps."""
        spent = self._clock() - self._began
        before, self._slowness = self._slowness, self._ask_slowness()
        self.seconds += spent / max(1.0, (before + self._slowness) / 2)
        self._began = self._clock()


def least(measure: Callable[[], float], *, bound: float, attempts: int = 3) -> float:
    """Return the least of several measurements; none follows one that is within the bound."""
    found = measure()
    for _ in range(attempts - 1):
        if found <= bound:
            break
        found = min(found, measure())
    return found
