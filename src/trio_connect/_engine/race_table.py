"""The commands of the race engine, and every pair of state and fact, listed.

`Race` obeys these tables, and the state diagram in the documentation is drawn from them, so the three agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs

from .facts import ILLEGAL, LATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._endpoint import Endpoint, Source
    from .._report import Cause
    from .facts import Illegal, Late

__all__ = ["Abandon", "Candidate", "Command", "Exhausted", "Start", "Won"]

Candidate: TypeAlias = "tuple[Source | None, Endpoint]"
"""A source (None for any) and an endpoint: what one attempt tries."""

Reason: TypeAlias = Literal["attempt_timeout", "lost", "cancelled", "late"]
"""Why an attempt is to be ended: its time is up, another won, the race was cancelled, or it succeeded too late."""


@attrs.frozen
class Start:
    """Begin this attempt now. Ids count up from 0 in the order of first starts. A starved attempt keeps its id."""

    id: int
    candidate: Candidate
    cause: Cause
    plain: bool = False
    """Whether it is plain TCP although the others ask for MPTCP."""
    memory: tuple[float | None, str | None, str | None] = (None, None, None)
    """The delay after it, why it is that long, and why the attempt was put behind others or is tried again."""


@attrs.frozen
class Abandon:
    """Close the socket of this attempt. Its further reports are late."""

    id: int
    reason: Reason


@attrs.frozen
class Won:
    """The race is over, and this attempt's connection is its result."""

    id: int


@attrs.frozen
class Exhausted:
    """The race is over: every attempt failed and there is nothing left to try."""


Command: TypeAlias = Start | Abandon | Won | Exhausted


AttemptState: TypeAlias = Literal[
    "waiting", "connecting", "starved", "establishing", "won", "lost", "failed", "timed out", "cancelled"
]
AttemptFact: TypeAlias = Literal["progressed", "ran_out", "failed", "succeeded"]
"""A failure with an errno of `SHORTAGE` is ``ran_out`` while another attempt is alive, whose end may free some.
That of a lone attempt is ``failed``."""

ATTEMPT_FACTS: Final[Mapping[AttemptState, Mapping[AttemptFact, AttemptState | Late | Illegal]]] = {
    "waiting": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
    "connecting": {"progressed": "establishing", "ran_out": "starved", "failed": "failed", "succeeded": "won"},
    # It has no socket, and is to be started again.
    "starved": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
    "establishing": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": "failed", "succeeded": "won"},
    # The race has ended these three. Their tasks may still report.
    "lost": {"progressed": LATE, "ran_out": LATE, "failed": LATE, "succeeded": LATE},
    "timed out": {"progressed": LATE, "ran_out": LATE, "failed": LATE, "succeeded": LATE},
    "cancelled": {"progressed": LATE, "ran_out": LATE, "failed": LATE, "succeeded": LATE},
    # These two have ended by their own report, which is the last one.
    "won": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
    "failed": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
}
"""The next state of an attempt, by a report of its task. An unknown id counts as one that waits."""

ATTEMPT_DECISIONS: Final[Mapping[AttemptState, Mapping[str, AttemptState]]] = {
    "waiting": {"Start": "connecting"},
    "starved": {"Start": "connecting"},
    "connecting": {"attempt_timeout": "timed out", "lost": "lost", "cancelled": "cancelled"},
    "establishing": {"attempt_timeout": "timed out", "lost": "lost", "cancelled": "cancelled"},
}
"""The next state of an attempt, by a command of the race: `Start`, or `Abandon` with its reason."""

RaceState: TypeAlias = Literal["open", "closed", "won", "exhausted", "cancelled"]
RaceFact: TypeAlias = Literal["add", "skip", "replace_order", "no_more", "no_multipath", "tick", "cancel"]

RACE_FACTS: Final[Mapping[RaceState, Mapping[RaceFact, RaceState | Late | Illegal]]] = {
    "open": {
        "add": "open",
        "skip": "open",
        "replace_order": "open",
        "no_more": "closed",
        "no_multipath": "open",
        "tick": "open",
        "cancel": "cancelled",
    },
    "closed": {
        "add": ILLEGAL,
        "skip": ILLEGAL,
        "replace_order": "closed",
        "no_more": ILLEGAL,
        "no_multipath": "closed",
        "tick": "closed",
        "cancel": "cancelled",
    },
    **{
        over: {
            "add": LATE,
            "skip": LATE,
            "replace_order": LATE,
            "no_more": LATE,
            "no_multipath": LATE,
            "tick": LATE,
            "cancel": LATE,
        }
        for over in ("won", "exhausted", "cancelled")
    },
}
"""The next state of the race, by a fact about its candidates, by time, or by a cancel."""

RACE_DECISIONS: Final[Mapping[RaceState, Mapping[str, RaceState]]] = {
    "open": {"Won": "won", "Exhausted": "exhausted"},
    "closed": {"Won": "won", "Exhausted": "exhausted"},
}
"""The next state of the race, by its own last command."""
