"""What a store is: where limits stand that several processes share.

Admission decides without waiting, call by call in the order in which they wait. So a store answers at once too: with
the places, or with the time when it is worth asking again. One that has to ask over a network answers "later", asks in
a task of its own, and has the waiting calls try again when it knows. The order of the calls is thereby kept in each
process. Between processes there is not one.

Only limits are shared. What is known of a destination's health stays with the process that has learned it: the cause of
a failure may be local.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from types import TracebackType
from typing import Final, Protocol

import attrs

from .._engine.limits import Cap, Pace, Place

__all__ = ["CLOSED", "Later", "Store"]


@attrs.frozen
class Later:
    """Why a store gave no place, and when to ask again."""

    cause: str
    seconds: float
    """Until it is worth asking again; infinite for never."""
    known: bool = False
    """Whether the store admits nobody earlier: a rate. When others give a place back is unknown."""
    blockers: tuple[Cap, ...] = ()
    """The limits of which a place that this process gives back may help."""
    pending: bool = False
    """Whether the store is being asked: what it will answer is unknown."""
    is_answered: Callable[[], bool] | None = None
    """Of a pending one, says whether it is not being asked any more, so that another try is worth it."""


CLOSED: Final = Later("the store is closed", inf, known=True)
"""What a call is told that outlives the block of its store."""


class Store(Protocol):
    """Where limits stand that several processes share. Entered once, for as long as an outbound is open."""

    @property
    def may_lose(self) -> bool:
        """Whether a place may be lost before it is given back."""
        ...

    async def __aenter__(self) -> object:
        """Open it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        """Close it. Places that are still held are given back."""
        ...

    def bind(self, changed: Callable[[str, str], None], lost: Callable[[], None]) -> None:
        """Take what is called when something changes without a call.

        Args:
          changed: to try again for the waiting calls; told what has happened to the store and why. "" for both says
            that calls were answered, and is nothing to those that were not.
          lost: to end what holds places that are lost by now, see `Place.is_lost`.
        """
        ...

    def register(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> None:
        """Refuse limits that other processes have with other numbers.

        Raises:
          OSError: it cannot be used. `acquire` refuses then, with the reason.
          ValueError: another process has one of them with another number.
        """
        ...

    def acquire(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> dict[Cap, Place] | Later:
        """Take a place under each cap and count a start of each rate, or do nothing."""
        ...
