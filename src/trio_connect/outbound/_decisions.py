"""What is raised for a caller that may not connect now: why, and when to come back.

- `NotAdmitted`

  - `RetryAt`: a limit or a rate is used up, or a name could not be looked up; nothing is wrong with the destination
  - `RequeueOne`: this call failed; the destination counts as healthy
  - `DestinationDelayed`: the destination does not work; nothing is to be sent there before `until`
  - `DestinationRejected`: the destination takes nothing, now or later
  - `SourceSuspended`: no source may be used now

- `DestinationFailed`, a `ConnectFailed`: something was tried and failed; its `decision` is one of the above

Each `until` is complete: backoff, jitter and limits are in it. A caller adds no backoff of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from math import inf
from typing import Any, cast

from trio import current_time

from .._check import SIZE_LIMIT, check_float, check_text
from .._deadline import NO_DEADLINE, now, to_seconds
from .._endpoint import Source
from .._errors import ConnectFailed
from .._messages import first_leaf
from .._pickling import without_password
from .._report import ConnectReport
from .._text import shown

__all__ = [
    "DestinationDelayed",
    "DestinationFailed",
    "DestinationRejected",
    "LeaseLost",
    "NotAdmitted",
    "Overloaded",
    "RequeueOne",
    "RetryAt",
    "SourceSuspended",
]


def milliseconds(at: float) -> int:
    """Return the first deadline at or after a point in Trio time; minus and plus infinity are `NO_DEADLINE`."""
    if abs(at) == inf:
        return NO_DEADLINE
    ahead = -(-round(at * 1_000_000) // 1000) - round(current_time() * 1_000_000) // 1000
    return now() + ahead


class NotAdmitted(Exception):
    """No connection may be made now. The subclass says what to do, `until` when.

    Args:
      destination: its name.
      cause: what stands in the way, in words.
      until: when to come back: milliseconds on the clock of `now()`, a deadline; `NO_DEADLINE` for never.
      misses_deadline: whether the caller's own deadline comes before `until`, so that waiting for it is of no use.
    """

    destination: str
    cause: str
    until: int
    misses_deadline: bool

    advice = ""
    endless = " once that has changed"
    """What follows the advice where `until` is never."""

    def __init__(self, destination: str, cause: str, *, until: int, misses_deadline: bool = False) -> None:
        self.destination = destination
        self.cause = cause
        self.until = until
        self.misses_deadline = misses_deadline
        super().__init__(f"{destination}: {cause}; {self.instruction()}")

    def instruction(self) -> str:
        """Return what to do, and in how many seconds from now, in words."""
        if self.until == NO_DEADLINE:
            return self.advice + self.endless
        late = ", which is after the deadline" if self.misses_deadline else ""
        return f"{self.advice} in {max(0, self.until - now()) / 1000:.3f} s{late}"

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(_again, type(self), self.args)
        return make, (), self.__dict__

    @property
    def decision(self) -> NotAdmitted:
        """This exception. `DestinationFailed` has the attribute too, so a retry loop can read it from both."""
        return self

    @property
    def seconds(self) -> float:
        """How long it is until `until`, in seconds from now; `math.inf` for never."""
        return inf if self.until == NO_DEADLINE else max(0.0, to_seconds(self.until) - current_time())


def _again(kind: type[NotAdmitted], args: tuple[Any, ...]) -> NotAdmitted:
    # The text is made once: it may be printed after the run, where there is no clock.
    error = kind.__new__(kind)
    error.args = args
    return error


class RetryAt(NotAdmitted):
    """A limit is used up, or a lookup failed: come back at `until`. The destination itself has not failed."""

    advice = "again"


class RequeueOne(NotAdmitted):
    """This call failed; others may go on. Put this one item back into the queue until `until`."""

    advice = "again with this one"


class DestinationDelayed(NotAdmitted):
    """The destination does not work: send nothing to it before `until`."""

    advice = "nothing to it before it may be back"


class DestinationRejected(NotAdmitted):
    """The destination takes nothing, and no waiting will change that: give up what is for it."""

    advice = "give up what is for it"
    endless = ""


class SourceSuspended(NotAdmitted):
    """No source may be used for this destination now; `source` is the one that is usable again first.

    Args:
      destination: its name.
      cause: why it is suspended.
      until: when it ends.
      source: which one; None for all of them, and for connections without a source.
      misses_deadline: whether the caller's own deadline comes before `until`.
    """

    source: Source | None
    """The source that is usable again first; None for all, and where there are no sources."""
    advice = "again"

    def __init__(
        self, destination: str, cause: str, *, until: int, source: Source | None, misses_deadline: bool = False
    ) -> None:
        self.source = source
        super().__init__(destination, cause, until=until, misses_deadline=misses_deadline)

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments, state = super().__reduce__()
        return make, arguments, {**state, "source": without_password(self.source)}


class DestinationFailed(ConnectFailed):
    """Every address that could be tried has failed. A `ConnectFailed` that says what to do next.

    Args:
      code: the errno, or None.
      message: the text.
      decision: what to do: `RequeueOne`, or `DestinationDelayed` when this failure, or one at the same time, has opened
        the circuit.
      report: what was tried.
      errors: one for each attempt that failed.
    """

    decision: NotAdmitted

    def __init__(
        self,
        code: int | None,
        message: str,
        *,
        decision: NotAdmitted,
        report: ConnectReport | None = None,
        errors: Iterable[Exception] = (),
    ) -> None:
        super().__init__(code, message, report=report, errors=errors)
        self.decision = decision

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(type(self), decision=self.decision)
        return make, (self.errno, self.strerror if self.errno is not None else str(self)), self.__dict__


class LeaseLost(Exception):
    """A strict store has no lease any more for what this call holds, so the call ends. It counts against nobody.

    Args:
      destination: its name.
    """

    def __init__(self, destination: str) -> None:
        super().__init__(
            f"the lease of a place at {destination} could not be renewed, and others may have it soon: end what it was "
            "for, and ask again"
        )
        self.destination = destination

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.destination,)


class Overloaded(Exception):
    """The peer said "not now": raise it from an establish (421, 429, Retry-After).

    It counts as no failure. The source is suspended towards the route group for so long.

    Args:
      seconds: for how long, above 0.
      reason: what the peer said.

    Raises:
      TypeError: the seconds are not a number, or the reason is not a str.
      ValueError: they are not above 0, or not finite.
    """

    seconds: float
    reason: str

    def __init__(self, seconds: float, reason: str = "the peer asked to come back later") -> None:
        if not 0 < check_float(seconds, "seconds", "a number above 0, and finite") < inf:
            raise ValueError(f"seconds must be a number above 0, and finite, got {shown(seconds)}")
        if seconds >= SIZE_LIMIT:
            raise ValueError(f"seconds must be below 2**40, got {shown(seconds)}: a deadline?")
        check_text(reason, "reason")
        super().__init__(seconds, reason)
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} (in {self.seconds} s)"


def overloaded_of(exc: BaseException) -> Overloaded | None:
    """Return the `Overloaded` that an exception is, or that a nursery has wrapped and nothing else with it."""
    if isinstance(exc, BaseExceptionGroup):
        overloaded, others = cast("BaseExceptionGroup[BaseException]", exc).split(Overloaded)
        if overloaded is None or others is not None:
            return None
        exc = first_leaf(overloaded)
    return exc if isinstance(exc, Overloaded) else None
