"""The attempts of a race, as it keeps them: the data for their rows in the report, and for the schedule."""

from __future__ import annotations

from errno import ENOPROTOOPT, EOPNOTSUPP, ETIMEDOUT, errorcode
from typing import TYPE_CHECKING, Final, cast

from .._report import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .._endpoint import Endpoint
    from .._report import Cause, Outcome, Phase
    from .race_table import AttemptState, Candidate

__all__ = ["Try", "records"]

_OPTION_REFUSED: Final = frozenset({ENOPROTOOPT, EOPNOTSUPP})
"""What setsockopt(2) says of an option that an MPTCP socket does not have."""


class Try:
    """One attempt, which an attempt that was starved begins anew."""

    __slots__ = (
        "candidate",
        "cause",
        "delay",
        "delay_reason",
        "ended",
        "errno",
        "phase",
        "plain",
        "reason",
        "started",
        "state",
    )

    ended: float
    """Unset while the attempt is alive."""

    def __init__(self, candidate: Candidate, cause: Cause, started: float, *, plain: bool = False) -> None:
        self.candidate = candidate
        self.plain = plain
        self.delay: float | None = None
        self.delay_reason: str | None = None
        self.begin(cause, started)

    def begin(self, cause: Cause, started: float) -> None:
        """Start, for the first time or again."""
        self.cause: Cause = cause
        self.started = started
        self.state: AttemptState = "connecting"
        self.phase: Phase = "connect"
        self.errno: int | None = None
        self.reason: str | None = None

    @property
    def is_unanswered(self) -> bool:
        """Whether no peer has answered, so that a middlebox may have dropped MPTCP."""
        if self.state in ("failed", "timed out") and self.errno != ETIMEDOUT:
            return self.phase == "socket" and self.errno in _OPTION_REFUSED
        return self.phase == "connect"

    @property
    def is_loopback(self) -> bool:
        """Whether it goes to an address of this machine."""
        # RFC 1122 section 3.2.1.3 (g) and RFC 4291 section 2.5.3. The text is normalised.
        host = self.candidate[1].host
        return host == "::1" or host.startswith("127.")

    def why(self) -> str:
        """Return in one line why it has failed."""
        if self.reason is not None:
            return self.reason
        return "failed" if self.errno is None else f"failed with {errorcode.get(self.errno, self.errno)}"

    def record(self, origin: float, winner: Endpoint | None, history: str | None) -> Attempt:
        """Return its row in the report of a race that is over.

        Args:
          origin: of the times in the report.
          winner: of the race.
          history: what the memory of earlier connects had to say of it.
        """
        source, endpoint = self.candidate
        return Attempt(
            source=source,
            endpoint=endpoint,
            cause=self.cause,
            started=self.started - origin,
            ended=self.ended - origin,
            phase=self.phase,
            # The race is over, so no attempt is alive, and none is started again.
            outcome="failed" if self.state == "starved" else cast("Outcome", self.state),
            errno=self.errno,
            reason=self.reason,
            beaten_by=winner if self.state == "lost" else None,
            plain=self.plain,
            delay=self.delay,
            delay_reason=self.delay_reason,
            history=history,
        )


def records(
    tries: Sequence[Try],
    waiting: Iterable[Candidate],
    skipped: Mapping[Candidate, str],
    origin: float,
    notes: Mapping[Candidate, str],
) -> tuple[Attempt, ...]:
    """Return the rows of the report of a race that is over.

    Args:
      tries: those that were started, in order of their ids.
      waiting: those that were not.
      skipped: those that were not to be, with the reasons.
      origin: of the times in the report.
      notes: what the memory of earlier connects had to say of candidates.
    """
    winner = next((row.candidate[1] for row in tries if row.state == "won"), None)
    return (
        *(row.record(origin, winner, notes.get(row.candidate)) for row in tries),
        *(Attempt(source=c[0], endpoint=c[1], outcome="not tried", history=notes.get(c)) for c in waiting),
        *(Attempt(source=c[0], endpoint=c[1], outcome="skipped", reason=reason) for c, reason in skipped.items()),
    )
