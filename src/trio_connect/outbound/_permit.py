"""A permit: the permission to use a destination with another client, and how its user reports the outcome."""

from __future__ import annotations

from typing import final

from trio import current_time
from trio.lowlevel import enable_ki_protection

from .. import Source
from .._check import check_text
from .._net.race.errors import fails_an_attempt
from .._outbound_values import Candidate
from ._decisions import Overloaded, overloaded_of
from ._state import Admission, DestinationState
from ._waiting import Waiting

__all__ = ["Permit", "PermitOutcome"]


class PermitOutcome:
    """Reports the outcome of a permit, once."""

    __slots__ = ("_admission", "_state", "_waiting", "candidate")

    def __init__(self, waiting: Waiting, state: DestinationState, admission: Admission) -> None:
        self._waiting = waiting
        self._state = state
        self._admission = admission
        self.candidate = admission.plan[0] if admission.plan else None

    @property
    def is_told(self) -> bool:
        """Whether the outcome has been reported."""
        return self._admission.ticket.state == "over"

    def check_untold(self) -> None:
        """Refuse a second report."""
        if self.is_told:
            raise RuntimeError("the outcome of this permit has been reported already")

    def failed(self, reason: str) -> None:
        """Report that the destination does not work."""
        state, admission, moment = self._state, self._admission, current_time()
        if self.candidate is not None:
            state.shared.cooldowns.failed(self.candidate.endpoint, moment)
        before = state.health()
        counted = state.circuit.failed(admission.ticket, moment)
        state.errors.append(reason)
        state.tell("failed" if counted else "late", before, reason, admission.source)
        self._waiting.wake(state)

    def overloaded(self, overloaded: Overloaded) -> None:
        """Report that the peer said "not now"."""
        state, source = self._state, self._admission.source
        state.suspend((source, state.group), current_time() + overloaded.seconds, overloaded.reason, source)
        self.released(overloaded.reason)

    def succeeded(self) -> None:
        """Report that the destination works."""
        state, admission = self._state, self._admission
        if self.candidate is not None:
            state.shared.cooldowns.succeeded(self.candidate.endpoint)
        before = state.health()
        counted = state.circuit.succeeded(admission.ticket, current_time())
        state.tell("succeeded" if counted else "late", before, source=admission.source)
        self._waiting.wake(state)

    def raise_interrupt(self) -> None:
        """Raise what an observer was interrupted by."""
        self._state.shared.raise_interrupt()

    def released(self, cause: str) -> None:
        """Report that the outcome is unknown."""
        self._waiting.end(self._state, self._admission, cause)

    def raised(self, exc: BaseException) -> None:
        """Report the outcome that an exception from the block stands for."""
        overloaded = overloaded_of(exc)
        if overloaded is not None:
            self.overloaded(overloaded)
        elif fails_an_attempt(exc):
            self.failed(f"{type(exc).__name__}: {exc}")
        else:
            self.released(type(exc).__name__)


@final
class Permit:
    """The permission to use a destination with another client, such as the pool of an HTTP client.

    Leaving the block reports the outcome. A normal exit is a success. An exception of the kinds that fail an attempt
    (see `trio_connect.connectx`) is a failure. `Overloaded` says that the peer said "not now". Any other exception, and
    a cancel, reports nothing. A method reports the outcome earlier.

    Attributes:
      source: the source whose limits it is under; None without sources.
      candidate: the address whose limits it is under; None when the destination has no candidates.
    """

    source: Source | None
    candidate: Candidate | None

    def __init__(self, outcome: PermitOutcome, source: Source | None) -> None:
        self._outcome = outcome
        self.source = source
        self.candidate = outcome.candidate

    @enable_ki_protection
    def failed(self, reason: str = "the caller said so") -> None:
        """Say that the destination does not work. It counts now; leaving the block then reports nothing.

        Args:
          reason: what happened.

        Raises:
          RuntimeError: the outcome has been reported.
          TypeError: the reason is not a str.
        """
        check_text(reason, "reason")
        self._outcome.check_untold()
        self._outcome.failed(reason)
        self._outcome.raise_interrupt()

    @enable_ki_protection
    def overloaded(self, seconds: float, reason: str = "the peer asked to come back later") -> None:
        """Say that the peer asked to come back later (429, Retry-After). It counts as no failure.

        Suspends the source towards the route group.

        Args:
          seconds: for how long, above 0.
          reason: what the peer said.

        Raises:
          RuntimeError: the outcome has been reported.
          TypeError: the seconds are not a number, or the reason is not a str.
          ValueError: they are not above 0, or not finite.
        """
        overloaded = Overloaded(seconds, reason)
        self._outcome.check_untold()
        self._outcome.overloaded(overloaded)
        self._outcome.raise_interrupt()
