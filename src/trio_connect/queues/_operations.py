"""Operations under way, and the order in which those of one queue run."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, cast, final

import attrs
import trio

from ._interface import QResult, QToken
from ._table import Entry
from ._values import Completion

AnyToken: TypeAlias = QToken[Any]
AnyResult: TypeAlias = QResult[Any]
Work: TypeAlias = "Callable[[Operation], Awaitable[Completion | None]]"
"""Does an operation. It waits only in the operation's scope, and returns None when that was cancelled."""


@attrs.define(eq=False)
class Operation(Entry):
    """What the set knows of one operation."""

    fifo: FifoRunner | None = None
    cancelled: bool = False
    result: AnyResult | None = None
    _scope: trio.CancelScope | None = None

    def scope(self) -> trio.CancelScope:
        """Return the scope to wait in. It is made on demand: many operations never wait, and it costs microseconds."""
        if self._scope is None:
            self._scope = trio.CancelScope()
            if self.cancelled:
                self._scope.cancel()
        return self._scope

    def cancel(self) -> None:
        """Cancel the operation, whether it waits already or not yet."""
        self.cancelled = True
        if self._scope is not None:
            self._scope.cancel()


class Runner(Protocol):
    """What a `FifoRunner` asks of the set."""

    def spawn(self, call: Callable[..., Awaitable[object]], *args: object) -> None: ...

    async def run(self, token: AnyToken, operation: Operation, work: Work) -> None: ...

    def complete_cancelled(self, token: AnyToken, operation: Operation) -> None: ...


@final
class FifoRunner:
    """Runs the operations of one direction of a queue one after the other, in the order of submission."""

    __slots__ = ("_current", "_drained", "_runner", "_waiting")

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._current: Operation | None = None
        # A deque is as large as all the rest of a queue, and most runners never have two operations.
        self._waiting: deque[tuple[AnyToken, Operation, Work]] | None = None
        self._drained: trio.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether an operation has not completed."""
        return self._current is not None

    def add(self, token: AnyToken, operation: Operation, work: Work) -> None:
        """Run an operation after those that were added before."""
        if self._current is None:
            self._current = operation
            self._runner.spawn(self._serve, token, operation, work)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((token, operation, work))

    def drop(self, token: AnyToken) -> bool:
        """Remove an operation that has not begun. Return False when it has."""
        for item in self._waiting or ():
            if item[0] is token:
                cast("deque[Any]", self._waiting).remove(item)
                return True
        return False

    def cancel(self) -> None:
        """Cancel every operation; they complete in their order."""
        if self._current is not None:
            self._current.cancel()
            for _, operation, _ in self._waiting or ():
                operation.cancel()

    async def drained(self) -> None:
        """Wait until every operation has completed."""
        if self._current is not None:
            self._drained = self._drained or trio.Event()
            await self._drained.wait()

    async def _serve(self, token: AnyToken, operation: Operation, work: Work) -> None:
        try:
            await self._runner.run(token, operation, work)
            while self._waiting:
                token, operation, work = self._waiting.popleft()
                self._current = operation
                if operation.cancelled:
                    self._runner.complete_cancelled(token, operation)
                else:
                    await self._runner.run(token, operation, work)
        finally:
            self._current = None
            if self._drained is not None:
                self._drained.set()
