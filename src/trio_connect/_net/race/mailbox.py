"""The facts that the tasks of a race have reported and the driver has not processed.

The driver's own task collects everything that happened at one instant, passes it to the engine and executes its
commands, so the order in which Trio ran the tasks does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs
import trio
from trio import current_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..._report import Phase


@attrs.frozen
class Connected:
    """TCP is up."""

    id: int


@attrs.frozen
class Established:
    """The caller's establish has returned."""

    id: int
    value: Any


@attrs.frozen
class Failed:
    """The attempt has failed."""

    id: int
    phase: Phase
    code: int | None
    error: Exception
    reason: str
    emitted: bool
    """Whether a packet may have left this machine."""


Fact: TypeAlias = Connected | Established | Failed


# The order in which the engine gets the facts of one instant: progress postpones a start that a failure would make, and
# a success makes the start unnecessary. Of one kind the attempt that began first goes first, as where sockets are
# polled: of two that have connected at once it is the better one.
_ORDER: Final[tuple[type[Fact], ...]] = (Connected, Established, Failed)


@final
class Mailbox:
    """The facts, the exception that ends the race if there is one, and the task that waits for either."""

    __slots__ = ("_lot", "_scope", "crash", "facts")

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.crash: BaseException | None = None
        """The exception that ends the whole race: it is not the failure of an attempt."""
        self._lot = trio.lowlevel.ParkingLot()
        self._scope: trio.CancelScope | None = None

    def tell(self, fact: Fact) -> None:
        """Add a fact."""
        self.facts.append(fact)
        self.wake()

    def crash_with(self, exc: BaseException) -> None:
        """Add an exception that ends the race.

        Keep the first exception; later ones may be its consequences. An interrupt replaces an ordinary exception.
        """
        if self.crash is None or (isinstance(self.crash, Exception) and not isinstance(exc, Exception)):
            self.crash = exc
        self.wake()

    def wake(self) -> None:
        """Have the driver's loop go round once."""
        self._lot.unpark_all()
        if self._scope is not None:
            self._scope.cancel()

    async def wait(self, deadline: float) -> None:
        """Wait to be woken, until a deadline in Trio time at most."""
        if deadline > current_time():
            with trio.CancelScope(deadline=deadline):
                await self._lot.park()

    async def park(self, wait: Callable[[int], Awaitable[None]], fd: int, deadline: float) -> None:
        """Wait for an fd, until a deadline in Trio time at most, or to be woken.

        For a race that has one attempt and no task, while others may learn what it should know.
        """
        with trio.CancelScope(deadline=deadline) as self._scope:
            await wait(fd)

    def discard(self) -> None:
        """Drop the facts. Their exceptions would form a reference cycle: they refer to frames, which refer to this."""
        self.facts = []
        self.crash = None

    def take(self) -> list[Fact]:
        """Empty it, and return what was in it, in the order in which the facts of one instant are told."""
        facts, self.facts = self.facts, []
        if len(facts) > 1:
            facts.sort(key=lambda fact: (_ORDER.index(type(fact)), fact.id))
        return facts
