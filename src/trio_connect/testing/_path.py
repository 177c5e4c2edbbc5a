"""How long things take between two hosts, and in what order they arrive.

Rules. A message takes half a round trip, plus a draw of the jitter, plus the time its bytes need at the path's
bandwidth behind those sent before it. Messages of one direction never overtake one another: TCP puts them back in
order anyway, so an early second message waits for a late first one. Every connection has its own random stream, named
by seed, source, destination and ordinal; what other connections do cannot change its draws.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, Literal, cast

import attrs

from ._arguments import check_number, check_seconds, shown

SEGMENT: Final = 16 * 1024
"""Largest piece of a stream that travels as one; small against any bandwidth worth testing, large enough to be fast."""

FlapState = Literal["up", "down"]


def _not_negative(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    check_seconds(attribute.name, value)


def _positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not check_number(attribute.name, value, "a number of bytes per second") > 0:
        raise ValueError(f"{attribute.name} must be > 0, not {shown(value)}")


@attrs.frozen(kw_only=True)
class Path:
    """The path between two hosts: round trip and jitter in seconds, bandwidth in bytes per second and direction."""

    rtt: float = attrs.field(default=0.0, validator=_not_negative)
    jitter: float = attrs.field(default=0.0, validator=_not_negative)
    bandwidth: float = attrs.field(default=math.inf, validator=_positive)

    def changed(self, rtt: float | None, jitter: float | None, bandwidth: float | None) -> Path:
        """Return this path with whatever is given replaced."""
        return Path(
            rtt=self.rtt if rtt is None else rtt,
            jitter=self.jitter if jitter is None else jitter,
            bandwidth=self.bandwidth if bandwidth is None else bandwidth,
        )


@attrs.define(eq=False)
class Wire:
    """One direction of one connection: says when a message sent now arrives."""

    path: Path
    name: str
    _random: random.Random | None = attrs.field(default=None, init=False)
    _busy_until: float = attrs.field(default=0.0, init=False)
    _latest: float = attrs.field(default=0.0, init=False)

    def delay(self) -> float:
        """Return the next draw of the latency alone, in seconds."""
        if not self.path.jitter:
            return self.path.rtt / 2
        if self._random is None:
            # A text seed goes through SHA-512: the same in every process, whatever PYTHONHASHSEED says.
            self._random = random.Random(self.name)  # noqa: S311
        return self.path.rtt / 2 + self._random.random() * self.path.jitter

    def arrival(self, now: float, size: int) -> float:
        """Return when `size` bytes sent at `now` have arrived; never before what was sent earlier."""
        departs = now
        if size and self.path.bandwidth != math.inf:
            departs = self._busy_until = max(now, self._busy_until) + size / self.path.bandwidth
        self._latest = max(self._latest, departs + self.delay())
        return self._latest


@attrs.frozen
class Flap:
    """A host that goes up and down at given times; up before the first of them."""

    times: tuple[float, ...]
    states: tuple[FlapState, ...]

    @classmethod
    def of(cls, schedule: Sequence[tuple[float, FlapState]]) -> Flap:
        """Check a schedule of (seconds, "up" or "down").

        Raises:
          ValueError: times that do not ascend, or another state.
        """
        given: object = schedule
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise TypeError(f"a flap schedule is a sequence of (seconds, state), not {shown(given)}")
        for entry in cast("Sequence[object]", given):
            pair = entry
            if not isinstance(pair, tuple) or len(cast("tuple[object, ...]", pair)) != 2:
                raise TypeError(f"a flap schedule is a sequence of (seconds, state), not of {shown(entry)}")
        times = tuple(check_seconds("a time of a flap schedule", at) for at, _ in schedule)
        states: tuple[FlapState, ...] = tuple(state for _, state in schedule)
        if list(times) != sorted(set(times)):
            raise ValueError(f"a flap schedule needs ascending times, not {times!r}")
        for state in states:
            if state not in ("up", "down"):
                raise ValueError(f'a flap schedule knows the states "up" and "down", not {shown(state)}')
        return cls(times, states)

    def is_up(self, at: float) -> bool:
        """Say whether the host is up at `at` seconds."""
        passed = bisect_right(self.times, at)
        return not passed or self.states[passed - 1] == "up"
