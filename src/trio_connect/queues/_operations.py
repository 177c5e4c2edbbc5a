"""Operations under way, and the order in which those of one queue run.

A lane runs the operations of one direction of a queue, one after the other. There are two kinds, with one contract:
`_channel` has those whose sockets a reactor waits for; here are those that need a task, for a socket that the kernel
does not know or a wait that no event ends.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What a set knows of a token has names with an underscore, because users see a token's other names.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias, cast, final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from ._interface import QResult, QToken
from ._values import Completion

AnyToken: TypeAlias = QToken[Any]
AnyResult: TypeAlias = QResult[Any]
Work: TypeAlias = "Callable[[Any, Operation], Awaitable[Completion | None]]"
"""Does an operation, given what was submitted. It waits only in the operation's scope, and returns None when that was
cancelled."""


class Pending(ABC):
    """Operations that were submitted and have not completed."""

    __slots__ = ()

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether an operation has not completed."""

    @abstractmethod
    def cancel(self, token: AnyToken) -> None:
        """Cancel one operation. One that has not begun has completed when this returns."""

    @abstractmethod
    def cancel_all(self) -> None:
        """Cancel every operation; they complete in their order."""

    @abstractmethod
    async def drained(self) -> None:
        """Wait until every operation has completed."""


class Lane(Pending):
    """The operations of one direction of a queue, in the order of their submission."""

    __slots__ = ()

    @abstractmethod
    def add(self, token: AnyToken, payload: Any) -> None:
        """Run an operation after those that were added before, and not before the caller next waits.

        Args:
          token: its name.
          payload: what was submitted, in the form that this lane's work takes.
        """


@attrs.define(eq=False)
class Operation:
    """One operation that a task does."""

    token: AnyToken
    payload: Any
    cancelled: bool = False
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


class Disposable(Protocol):
    """A queue that has a socket."""

    def _dispose_now(self) -> bool:
        """Close the socket if nothing has to be awaited for that, and say whether it is closed."""
        ...

    async def _dispose(self) -> None:
        """Close the socket."""
        ...

    def _cancel_all(self) -> None:
        """Cancel every operation that is pending; those of each direction complete in their order."""
        ...


class Runner(Protocol):
    """What a `TaskLane` asks of the set."""

    def spawn(self, call: Callable[..., Awaitable[object]], *args: object) -> None: ...

    async def run(self, operation: Operation, work: Work) -> None: ...

    def complete_cancelled(self, token: AnyToken) -> None: ...


@final
class TaskLane(Lane):
    """Runs operations in a task."""

    __slots__ = ("_current", "_drained", "_runner", "_waiting", "_work")

    def __init__(self, runner: Runner, work: Work) -> None:
        self._runner = runner
        self._work = work
        self._current: Operation | None = None
        # A deque is as large as all the rest of a queue, and most lanes never have two operations.
        self._waiting: deque[Operation] | None = None
        self._drained: trio.Event | None = None

    @property
    def busy(self) -> bool:
        return self._current is not None

    def add(self, token: AnyToken, payload: Any) -> None:
        token._lane = self
        operation = Operation(token, payload)
        if self._current is None:
            self._current = operation
            self._runner.spawn(self._serve, operation)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(operation)

    def cancel(self, token: AnyToken) -> None:
        for operation in self._waiting or ():
            if operation.token is token:
                cast("deque[Operation]", self._waiting).remove(operation)
                self._runner.complete_cancelled(token)
                return
        if self._current is not None:
            self._current.cancel()

    def cancel_all(self) -> None:
        if self._current is not None:
            self._current.cancel()
            for operation in self._waiting or ():
                operation.cancel()

    async def drained(self) -> None:
        if self._current is not None:
            self._drained = self._drained or trio.Event()
            await self._drained.wait()

    @enable_ki_protection  # Ctrl-C cannot come between what an operation has brought and its result
    async def _serve(self, operation: Operation) -> None:
        try:
            await self._runner.run(operation, self._work)
            while self._waiting:
                self._current = operation = self._waiting.popleft()
                if operation.cancelled:
                    self._runner.complete_cancelled(operation.token)
                else:
                    await self._runner.run(operation, self._work)
        finally:
            for operation in self._waiting or ():  # after an exception
                self._runner.complete_cancelled(operation.token)
            self._current = self._waiting = None
            if self._drained is not None:
                self._drained.set()
