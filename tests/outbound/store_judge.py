"""Judges, from what processes have written down outside of any store, whether limits were kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.outbound.redis_server import pause


@attrs.frozen
class Log:
    """When the permits of one process began and ended, in microseconds."""

    intervals: list[tuple[int, int]]
    counted: list[tuple[int, int]] = attrs.field(factory=list[tuple[int, int]])
    """Between which times each start was counted."""

    @property
    def begins(self) -> list[int]:
        """When they began."""
        return [begin for begin, _ in self.intervals]

    @staticmethod
    def moment() -> int:
        """Return the time on the clock of the logs."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

    @classmethod
    def read(cls, path: Path, killed: int | None) -> Log:
        """Read the log of a process. What a killed one held ended when it was killed."""
        begun: dict[str, int] = {}
        intervals: list[tuple[int, int]] = []
        counted: list[tuple[int, int]] = []
        # A line that is being written may be there in part, where it goes on on another page of memory.
        whole, _, _ = path.read_text(encoding="ascii").rpartition("\n")
        for line in whole.splitlines():
            _pid, task, what, at, *after = line.split()
            if what == "counted":
                counted.append((int(at), int(after[0])))
            elif what == "begin":
                begun[task] = int(at)
            else:
                intervals.append((begun.pop(task), int(at)))
        if killed is None:
            assert not begun, "each permit has ended"
        else:
            # Its places are free from the moment of the kill on, which is before anybody could note it.
            last = max([*begun.values(), *(end for _, end in intervals)])
            intervals += [(begin, last) for begin in begun.values()]
        return cls(intervals, counted)


def most_at_once(logs: Sequence[Log]) -> int:
    """Return how many permits there were at once at most. One that ends when another begins is over."""
    steps = sorted((at, step) for log in logs for begin, end in log.intervals for at, step in ((begin, 1), (end, -1)))
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def surely_in_window(counted: Sequence[tuple[int, int]], seconds: float) -> int:
    """Return how many were counted in any window of so many seconds, at least, wherever each lies between its times."""
    width = round(seconds * 1e6)
    return max(
        (sum(begin <= before and after < begin + width for before, after in counted) for begin, _ in counted), default=0
    )


def wait_until(logs: Sequence[Path], *, lines: int, cap: int = 0) -> None:
    """Wait until each process has been admitted, and what all of them have written down shows as much.

    Args:
      logs: where they write.
      lines: how many lines there are, for each process on average.
      cap: how many permits there were at once.
    """
    until = time.monotonic() + 60
    while (
        not all(log.exists() and b" begin " in log.read_bytes() for log in logs)
        or sum(log.read_bytes().count(b"\n") for log in logs) < len(logs) * lines
        or most_at_once([Log.read(log, Log.moment()) for log in logs]) < cap
    ):
        assert time.monotonic() < until
        pause(0.01)
