"""Waiting for admission, under the caller's deadline and scopes.

`_engine.turns` decides which call is next; this module suspends the tasks. A waiting task never tries by itself:
`Waiting.pump` tries for it, and wakes it when it has been admitted or has to wait for something else. So a free place
is given to the next call in the step that made it free.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, TypeVar, cast, final

import attrs
import trio
from trio import current_time

from .._engine.limits import Cap, Lease, Limits
from .._engine.turns import Turns
from .._messages import call_exceeded
from .._net.waiter import Waiter
from ._decisions import DestinationDelayed, RequeueOne, RetryAt, SourceSuspended
from ._refusal import Refusal
from ._shared import Shared
from ._state import Admission, DestinationState

if TYPE_CHECKING:
    from .._errors import DeadlineExceeded
    from ._events import What

__all__ = ["Waiting"]

T = TypeVar("T")

_MOMENT: Final = 0.25
"""Seconds for which the answer of a store is waited for by a call that may not wait: a round trip, around the earth."""
_AT_ONCE: Final = 0.010
"""Seconds likewise for a call whose deadline is 0. One pass of the loop is not enough: another process has to answer. A
server on this machine or in this network has done so by then, and one that is silent holds up nobody who said "now"."""


@attrs.define(eq=False, kw_only=True)
class _Waiter(Waiter):
    """A task that waits for admission."""

    limit: float
    connects: bool
    admission: Admission | None = None
    refusal: Refusal | None = None


def _is_final(refusal: Refusal, limit: float) -> bool:
    """Say whether waiting cannot help: recovery is known to come too late, or time changes nothing."""
    if refusal.kind is RequeueOne:
        return True
    # A suspension that has no end may be lifted. What else has none is a closed store.
    return refusal.known and (refusal.timer > limit or (refusal.timer == inf and refusal.kind is RetryAt))


@final
class Waiting:
    """The lines of all destinations of one outbound."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.turns = Turns()

    async def admit(self, state: DestinationState, until: float, *, connects: bool, waits: bool) -> Admission:
        """Return an admission, at once or when it is this call's turn.

        Args:
          state: the destination.
          until: the caller's deadline in Trio time.
          connects: whether it makes a connection.
          waits: whether it may wait.

        Raises:
          NotAdmitted: it is refused, and it may not wait or the wait is known to end after its deadline.
          DeadlineExceeded: the deadline came while it waited.
        """
        state.register()
        now = current_time()
        limit = min(max(until, now), trio.current_effective_deadline())
        before = state.health()
        if not self.turns.waiting(state):
            if waits and until > now:
                outcome = state.admit(now, connects=connects)
            else:
                outcome = await self.answered(partial(state.admit, connects=connects), until)
            if isinstance(outcome, Admission):
                state.tell("admitted", before, source=outcome.source)
                return outcome
            refusal = outcome
        else:
            refusal = state.last_refusal or Refusal(RetryAt, "others wait")
            if not waits:
                refusal = Refusal(RetryAt, f"{self.turns.waiting(state)} calls wait already", refusal.timer)
        if not waits or _is_final(refusal, limit):
            raise state.refuse(refusal, limit)
        if until <= now:
            raise self._exceeded(state, now, refusal)
        return await self._wait(state, until, limit, connects=connects)

    async def answered(self, ask: Callable[[float], T | Refusal], until: float) -> T | Refusal:
        """Ask for a call that may not wait; while a store is being asked, again after each answer, for a moment.

        Args:
          ask: given the time.
          until: the caller's deadline in Trio time; one that has come says "now or never".
        """
        moment = current_time()
        limit = min(moment + _MOMENT, until) if until > moment else moment + _AT_ONCE
        outcome = ask(moment)
        while isinstance(outcome, Refusal) and outcome.pending and moment < limit:
            with trio.CancelScope(deadline=min(limit, outcome.timer)):
                await self.shared.answers.park()
            moment = current_time()
            if outcome.has_news or moment >= limit:
                outcome = ask(moment)
        return outcome

    def changed(self, states: list[DestinationState], what: str, cause: str) -> None:
        """Try again for the calls that wait for a store: it has answered, or cannot be reached, or is back.

        Where it is still being asked for a call, that one is not tried: there may be thousands of them.
        """
        if what:
            for state in states:
                health = state.health()
                if state.busy and health is not None:
                    state.tell(cast("What", what), health, cause)
        self.wake_all([each for each in states if each.last_refusal is None or each.last_refusal.has_news])
        self.shared.answers.unpark_all()

    def lost(self) -> None:
        """End the calls whose places a store has taken away."""
        for check in tuple(self.shared.holds):
            check()

    async def _wait(self, state: DestinationState, until: float, limit: float, *, connects: bool) -> Admission:
        began = current_time()
        waiter = _Waiter(limit=limit, connects=connects)
        self.turns.join(state, waiter)
        self.pump()
        try:
            while waiter.admission is None:
                refusal = waiter.refusal
                if refusal is not None and _is_final(refusal, limit):
                    raise state.refuse(refusal, limit)
                timer = inf if refusal is None else refusal.timer
                await waiter.park(min(timer, until))
                if waiter.admission is None:
                    now = current_time()
                    if now >= until:
                        # Whoever is not the first in its line waits for what the first one waits for.
                        raise self._exceeded(state, began, waiter.refusal or state.last_refusal)
                    if now >= timer:
                        self.turns.wake(state)
                        self.pump()
        except BaseException as exc:
            if waiter.admission is None:
                self.turns.leave(state, waiter)
                self.pump()
            else:
                # It was admitted after the cancel had rescheduled it, and before it ran.
                self.abandon(state, waiter.admission, type(exc).__name__)
            raise
        return waiter.admission

    def abandon(self, state: DestinationState, admission: Admission, cause: str) -> None:
        """Give back all places of a call without an outcome."""
        if admission.first_lease is not None:
            self.release(admission.first_lease)
        self.end(state, admission, cause)
        self.release(admission.lease)

    def end(self, state: DestinationState, admission: Admission, cause: str) -> None:
        """Release the ticket of a call, unless the call has reported an outcome."""
        if admission.ticket.state != "over":
            before = state.health()
            state.circuit.released(admission.ticket, current_time())
            state.tell("released", before, cause, admission.source)
            self.wake(state)

    def pump(self) -> None:
        """Try for the waiting calls whose turn it is, until no other can be admitted."""
        while (turn := self.turns.next()) is not None:
            state = cast("DestinationState", turn[0])
            waiter = cast("_Waiter", turn[1])
            before = state.health()
            outcome = state.admit(current_time(), connects=waiter.connects)
            if isinstance(outcome, Admission):
                self.turns.granted(state)
                state.last_refusal = None
                waiter.admission = outcome
                state.tell("admitted", before, source=outcome.source)
            else:
                self.turns.refused(state, outcome.blockers)
                state.last_refusal = waiter.refusal = outcome
                if outcome.kind in (DestinationDelayed, SourceSuspended):
                    self._refuse_late(state, outcome)
            waiter.wake()

    def _refuse_late(self, state: DestinationState, refusal: Refusal) -> None:
        """Have those behind the head of a line hear now what comes too late for them, and not when it is their turn."""
        for each in self.turns.line(state):
            waiter = cast("_Waiter", each)
            if waiter.refusal is None and _is_final(refusal, waiter.limit):
                waiter.refusal = refusal
                waiter.wake()

    def release(self, lease: Lease, cap: Cap | None = None) -> None:
        """Give back places, and offer them to waiting calls."""
        for freed in Limits.release(lease, cap):
            self.turns.freed(freed, lease.member)
        self.pump()

    def wake(self, state: DestinationState) -> None:
        """Try again for the calls that wait for a destination: its circuit has changed."""
        if self.turns.waiting(state):
            self.turns.wake(state)
            self.pump()

    def wake_all(self, states: list[DestinationState]) -> None:
        """Try again for the calls that wait for these destinations: something that they share has changed."""
        for state in states:
            self.turns.wake(state)
        self.pump()

    def join(self, state: DestinationState) -> bool:
        """Have places kept back for a destination that is in use. Returns whether that is new."""
        total = self.shared.total
        if total is None or state.is_member:
            return False
        total.join(state)
        state.is_member = True
        return True

    def leave(self, state: DestinationState) -> None:
        """Keep nothing back for a destination that is not in use."""
        total = self.shared.total
        if total is not None and state.is_member:
            total.leave(state)
            state.is_member = False
            self.turns.freed(total, cast("Hashable", state))
            self.pump()

    def _exceeded(self, state: DestinationState, began: float, refusal: Refusal | None) -> DeadlineExceeded:
        detail = "" if refusal is None else refusal.cause
        return call_exceeded(f"admission to {state.name}", current_time() - began, detail=detail)
