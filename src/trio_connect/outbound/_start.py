"""A call that begins synchronously, may be bound to one source, and goes on in a task of the outbound's block.

This is what `trio_connect.momentum` stands on. `Destination.connect` waits for admission in the caller's task, and its
calls may change their source, so they have no need of it.
"""

# Destination and Outbound are what users hold, so their parts are private. This module is of their package.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import final

import trio
from trio import current_time
from trio.lowlevel import checkpoint_if_cancelled

from .. import ConnectFailed, Source, TcpStream
from .._deadline import NO_DEADLINE
from ._connection import Connection
from ._decisions import RetryAt, SourceSuspended
from ._destination import Destination
from ._outbound import Outbound
from ._refusal import Refusal
from ._running import Run
from ._shared import SourceState
from ._state import Admission, DestinationState

__all__ = ["Start"]


@final
class Start:
    """What `Destination.connect` does before and around a `Run`, for one call that never waits for admission.

    Args:
      out: the outbound, in whose block the call goes on.
      dest: the destination.
      source: the only source to connect from; None for any.

    Raises:
      ValueError: the outbound does not have this destination or this source, or the destination has no candidates.
    """

    __slots__ = ("_admission", "_finding", "_only", "_out", "_scope", "_state", "_waiting", "destination")

    def __init__(self, out: Outbound, dest: Destination, source: Source | None) -> None:
        if dest._waiting is not out._waiting:
            raise ValueError(f"destination {dest.name} belongs to another outbound")
        finding = dest._finding
        if finding is None:
            raise ValueError(f"destination {dest.name} has no candidates and no port: it gives permits only")
        self.destination = dest
        self._finding = finding
        self._out = out
        self._state: DestinationState = dest._state
        self._waiting = dest._waiting
        self._only = None if source is None else self._state.shared.source_state(source)
        self._admission: Admission | None = None
        self._scope: trio.CancelScope | None = None

    def spawn(self, task: Callable[[], Awaitable[object]], name: str) -> None:
        """Be admitted, and run the rest of the call in a task of the outbound's block.

        Args:
          task: has to call `connect` once, and `leave` at the end.
          name: what it is called.

        Raises:
          NotAdmitted: the call may not go on.
          RuntimeError: the block has been left.
        """
        self.destination._enter()
        try:
            self._admission = self._admit_now()
            self._out._lookups._nursery.start_soon(task, name=name)
        except BaseException as exc:
            if self._admission is not None:
                self._waiting.abandon(self._state, self._admission, type(exc).__name__)
            self.leave()
            raise

    def live_on(self, scope: trio.CancelScope) -> None:
        """Have what is in a scope go on until the block is left, also after a cancel from outside."""
        if not self._out._is_left:
            scope.shield = True
            self._scope = scope
            self._out._until_left.add(scope)

    def leave(self) -> None:
        """End the call."""
        if self._scope is not None:
            self._out._until_left.discard(self._scope)
        self.destination._leave()

    def _admit_now(self) -> Admission | None:
        """Admit the call; None when its addresses have to be looked up first, or a store has to be asked."""
        moment = current_time()
        refusal = self._state.refused_by_circuit(moment)
        if refusal is not None and refusal.known:
            # The open circuit refuses before any lookup.
            raise self._state.refuse(refusal, inf)
        if self._finding.is_due(moment):
            return None
        outcome = self._try(moment)
        if isinstance(outcome, Refusal) and outcome.pending:
            # What the store answers, the task hears.
            return None
        return self._checked(outcome)

    async def connect(self) -> tuple[Run, Connection[None]]:
        """Connect, and return what is to be closed at the end; hold nothing when it fails.

        Raises:
          NotAdmitted: see `Destination.try_connect`.
          DestinationFailed: see `Destination.try_connect`.
        """
        admission = self._admission
        try:
            await checkpoint_if_cancelled()
            if admission is None:
                if self._finding.is_due(current_time()):
                    await self._finding.look_up(inf)
                admission = self._checked(await self._waiting.answered(self._try, inf))
        except BaseException as exc:
            if admission is not None:
                self._waiting.abandon(self._state, admission, type(exc).__name__)
            raise
        only = self._only is not None
        run = Run(self._waiting, self._state, admission, NO_DEADLINE, None, None, only_this_source=only)
        try:
            stream, _, candidate = await run.connect()
        except BaseException as exc:
            self._waiting.end(self._state, admission, "ended by its caller")
            run.close()
            if self._only is not None and isinstance(exc, ConnectFailed):
                self._raise_if_suspended(self._only, exc)
            raise
        assert isinstance(stream, TcpStream), "the run was given no tls"
        return run, Connection(stream, None, candidate, run)

    def _checked(self, outcome: Admission | Refusal) -> Admission:
        if isinstance(outcome, Refusal):
            raise self._state.refuse(outcome, inf)
        return outcome

    def _try(self, moment: float) -> Admission | Refusal:
        state = self._state
        state.register()
        before = state.health()
        waiting = self._waiting.turns.waiting(state)
        outcome: Admission | Refusal
        if waiting:
            timer = moment if state.last_refusal is None else state.last_refusal.timer
            outcome = Refusal(RetryAt, f"{waiting} calls wait already", timer)
        elif self._only is None:
            outcome = state.admit(moment, connects=True)
        else:
            outcome = state.refused_by_circuit(moment) or state.admit_from(self._only, moment, connects=True)
        if isinstance(outcome, Admission):
            state.tell("admitted", before, source=outcome.source)
        return outcome

    def _raise_if_suspended(self, source: SourceState, failure: ConnectFailed) -> None:
        # The run would suggest another source. This call may use one source only.
        _, refusal = self._state.usable_families(source, current_time())
        if refusal is not None and refusal.kind is SourceSuspended:
            raise self._state.decision(refusal, inf) from failure
