"""What the race engine and its driver say to each other, and every pair of state and fact, listed.

`Race` obeys these tables and the state diagram in the documentation is drawn from them, so none of the three can
say something else than the others.
"""

from __future__ import annotations

from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
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
"""What one attempt tries: from where (None for anywhere), and to where."""

Reason: TypeAlias = Literal["attempt_timeout", "lost", "cancelled", "late"]
"""Why an attempt is to be ended: its time is up, another won, the race was cancelled, or it succeeded too late."""


@attrs.frozen
class Start:
    """Begin this attempt now. Ids count up from 0 in the order of first starts; one that was starved keeps its own."""

    id: int
    candidate: Candidate
    cause: Cause
    plain: bool = False
    """Whether it is to be plain TCP where the others ask for MPTCP."""


@attrs.frozen
class Abandon:
    """Close what this attempt has open; whatever it still reports is late."""

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

RESOURCES_RAN_OUT: Final = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})
"""This machine had nothing to try an endpoint with, socket(2). While another attempt is alive, which may give back what
it has, `failed` with one of these is the fact ``ran_out``; told of an attempt that is alone it is a failure."""

ATTEMPT_FACTS: Final[Mapping[AttemptState, Mapping[AttemptFact, AttemptState | Late | Illegal]]] = {
    "waiting": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
    "connecting": {"progressed": "establishing", "ran_out": "starved", "failed": "failed", "succeeded": "won"},
    # It has nothing open, and is to be started again.
    "starved": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
    "establishing": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": "failed", "succeeded": "won"},
    # These three were ended from here, and their tasks may not know yet.
    "lost": {"progressed": LATE, "ran_out": LATE, "failed": LATE, "succeeded": LATE},
    "timed out": {"progressed": LATE, "ran_out": LATE, "failed": LATE, "succeeded": LATE},
    "cancelled": {"progressed": LATE, "ran_out": LATE, "failed": LATE, "succeeded": LATE},
    # These two ended themselves, which is the last thing an attempt says.
    "won": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
    "failed": {"progressed": ILLEGAL, "ran_out": ILLEGAL, "failed": ILLEGAL, "succeeded": ILLEGAL},
}
"""What becomes of an attempt when its driver reports on it. An unknown id is that of one that waits."""

ATTEMPT_DECISIONS: Final[Mapping[AttemptState, Mapping[str, AttemptState]]] = {
    "waiting": {"Start": "connecting"},
    "starved": {"Start": "connecting"},
    "connecting": {"attempt_timeout": "timed out", "lost": "lost", "cancelled": "cancelled"},
    "establishing": {"attempt_timeout": "timed out", "lost": "lost", "cancelled": "cancelled"},
}
"""What becomes of an attempt by a command of the race: `Start`, or `Abandon` with its reason."""

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
"""What becomes of the race by a fact about its candidates, by time, or by a cancel."""

RACE_DECISIONS: Final[Mapping[RaceState, Mapping[str, RaceState]]] = {
    "open": {"Won": "won", "Exhausted": "exhausted"},
    "closed": {"Won": "won", "Exhausted": "exhausted"},
}
"""How the race itself says that it is over."""
