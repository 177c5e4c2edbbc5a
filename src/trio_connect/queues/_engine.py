"""Runs operations, keeps their results, and wakes whoever waits for them.

One task per operation at most, and one wake per completion: a result is put into the table, and the one task that it
satisfies is rescheduled. That task takes the result itself, in a step with no checkpoint after it, so a waiter that is
cancelled has taken nothing.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, TypeAlias, cast, final

import attrs
import trio
from trio import current_time
from trio.lowlevel import (
    Abort,
    Task,
    cancel_shielded_checkpoint,
    checkpoint,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from .._errors import DeadlineExceeded
from .._net.waiting import one_pass
from ._table import Entry, Flaw, TokenTable
from ._values import Completion, Op, QResult, QToken

if TYPE_CHECKING:
    from ._queue import IOQueue

AnyToken: TypeAlias = QToken[Any]
AnyResult: TypeAlias = QResult[Any]
Work: TypeAlias = "Callable[[Operation], Awaitable[Completion | None]]"
"""Does an operation. It waits only in the operation's scope, and returns None when it was cancelled, before or then."""

_FLAWS: Final[dict[Flaw, str]] = {
    "empty": "there is no token to wait for",
    "duplicate": "a token is named twice",
}


class Resource(Protocol):
    """What the set closes at its end."""

    async def dispose(self) -> None:
        """Close, whatever state it is in; called when no operation runs any more."""


@attrs.define(eq=False)
class Operation(Entry):
    """What the set knows of one operation."""

    lane: Lane | None = None
    cancelled: bool = False
    result: AnyResult | None = None
    _scope: trio.CancelScope | None = None

    def scope(self) -> trio.CancelScope:
        """Return the scope to wait in. Made on demand: much is done without waiting, and a scope costs microseconds."""
        if self._scope is None:
            self._scope = trio.CancelScope()
            if self.cancelled:
                self._scope.cancel()
        return self._scope

    def cancel(self) -> None:
        """Cancel what waits in the scope, now or later."""
        self.cancelled = True
        if self._scope is not None:
            self._scope.cancel()


@attrs.define(eq=False)
class Waiter:
    """A task that waits, and can be woken once."""

    task: Task | None = None

    def wake(self) -> None:
        """Have the task look again; at once, and only once."""
        if self.task is not None:
            reschedule(self.task)
            self.task = None

    def _abort(self, _raise_cancel: object) -> Abort:
        self.task = None
        return Abort.SUCCEEDED

    async def park(self, until: float) -> bool:
        """Wait to be woken; False when `until` (Trio time) came first."""
        self.task = current_task()
        if until == inf:
            await wait_task_rescheduled(self._abort)
            return True
        with trio.CancelScope(deadline=until):
            await wait_task_rescheduled(self._abort)
            return True
        return False


@attrs.define(eq=False)
class Reaper(Waiter):
    """Waits for results of tokens that nobody names.

    `promised` keeps a second reaper from being woken for what the first has not yet had the time to take.
    """

    want: int = 1
    ends: bool = False
    """Wake it also when there is nothing left to come."""
    promised: int = 0


@attrs.define(eq=False)
class Applicant(Waiter):
    """Waits for room."""

    count: int = 1


@final
class Engine:
    """The inner side of a queue set.

    Args:
      nursery: runs the operations.
      limit: how many tokens may be submitted and not claimed.
    """

    def __init__(self, nursery: trio.Nursery, limit: int) -> None:
        self.table: TokenTable[AnyToken, Operation] = TokenTable(limit)
        self.resources: set[Resource] = set()
        """Queues that have something open."""
        self._nursery = nursery
        self._thread = get_ident()
        self._ended = False
        self._last_id = 0
        self._reapers: deque[Reaper] = deque()
        self._promised = 0
        self._applicants: deque[Applicant] = deque()
        self._named: set[Waiter] = set()

    # ------------------------------------------------------------------ submitting

    def check_thread(self) -> None:
        """Refuse calls from another thread: nothing here is safe for them.

        Raises:
          RuntimeError: naming what to do instead.
        """
        if get_ident() != self._thread:
            raise RuntimeError(
                "queues and tokens belong to the thread of their queue set; from another one go through "
                "trio.from_thread.run or trio.from_thread.run_sync"
            )

    def check_open(self) -> None:
        """Refuse a set that has ended.

        Raises:
          OSError: EBADF.
        """
        if self._ended:
            raise OSError(errno.EBADF, "this queue set has ended")

    def check_room(self, op: Op) -> None:
        """Refuse a submission for which there is no room.

        Raises:
          OSError: EAGAIN.
        """
        if not self.table.fits(1):
            raise OSError(
                errno.EAGAIN,
                f"{op}: {self.table.limit} operations are submitted and not claimed; claim results, or await room()",
            )

    def submit(self, op: Op, queue: IOQueue, lane: Lane | None, work: Work) -> AnyToken:
        """Take in an operation for which all checks have passed; it starts when this task next waits.

        Args:
          op: its name.
          queue: where it was submitted.
          lane: whose operations it waits for; None to start alone, and not to be cancelled.
          work: does it.
        """
        self._last_id += 1
        token: AnyToken = QToken(self._last_id, op, queue, current_time(), self)
        operation = Operation(0, None, lane)
        self.table.add(token, operation)
        if lane is None:
            self._nursery.start_soon(self.run, token, operation, work)
        else:
            lane.add(token, operation, work)
        return token

    def spawn(self, call: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task that lives no longer than the set."""
        self._nursery.start_soon(call, *args)

    # ------------------------------------------------------------------ running

    async def run(self, token: AnyToken, operation: Operation, work: Work) -> None:
        """Run an operation to its completion. Anything but an OSError is a bug and passes on."""
        error: OSError | None = None
        value: Completion | None = None
        try:
            value = await work(operation)
        except OSError as exc:
            # Data has no history, and these frames hold the operation, which holds the result, which holds it.
            exc.__traceback__ = exc.__context__ = None
            error = exc
        if value is None and error is None:
            self.complete_cancelled(token, operation)
        else:
            self.complete(token, operation, error, value)

    def complete_cancelled(self, token: AnyToken, operation: Operation) -> None:
        """Complete an operation with ECANCELED."""
        self.complete(token, operation, OSError(errno.ECANCELED, f"{token.op} on {token.queue} was cancelled"), None)

    def complete(self, token: AnyToken, operation: Operation, error: OSError | None, value: Completion | None) -> None:
        """Store a result and wake the task that waits for it."""
        operation.result = QResult(token, token.op, token.queue, error, value, current_time() - token.submitted_at)
        operation.lane = None
        holder = self.table.complete(token)
        if holder is not None:
            cast("Waiter", holder).wake()
        if self._reapers:
            self._wake_reapers()

    def is_done(self, token: AnyToken) -> bool:
        """Say whether a token's operation is over."""
        operation = self.table.entries.get(token)
        return operation is None or operation.number > 0

    def cancel(self, token: AnyToken) -> None:
        """End a pending operation."""
        self.check_thread()
        operation = self.table.entries.get(token)
        if operation is None or operation.number or operation.lane is None:
            return
        if operation.lane.drop(token):
            self.complete_cancelled(token, operation)
        else:
            operation.cancel()

    # ------------------------------------------------------------------ waiting by name

    async def wait(self, tokens: Sequence[AnyToken], until: float) -> tuple[AnyToken, AnyResult]:
        """Claim the oldest completion of these, waiting for one if there is none.

        Raises:
          DeadlineExceeded: `until` (Trio time) came first; every token is as it was.
          OSError: EINVAL, the list is empty or has duplicates, or a token is not ours or was claimed; EBADF, the set
            has ended.
          RuntimeError: this is another thread than the set's.
          trio.BusyResourceError: another task waits for one of the tokens.
        """
        self.check_thread()
        flaw = self.table.flaw(tokens)
        if flaw is not None or self._ended:
            await checkpoint()
            self._refuse(tokens, flaw)
        started = current_time()
        waiter = Waiter()
        self.table.hold(tokens, waiter)
        self._named.add(waiter)
        try:
            if self.table.oldest(tokens) is not None:
                await checkpoint()
                found = self._oldest(tokens)
            elif until <= started:
                await one_pass()
                found = self._oldest(tokens)
            else:
                woken = await waiter.park(until)
                found = self._oldest(tokens)
                if found is None and not woken:
                    # Ready beats expired, whichever task the loop happened to run first in this pass.
                    await cancel_shielded_checkpoint()
                    found = self._oldest(tokens)
            if found is None:
                what = f"the wait for {tokens[0]}" if len(tokens) == 1 else f"the wait for any of {len(tokens)} tokens"
                raise DeadlineExceeded.during(what, current_time() - started, until)
            return found, self._claimed(self.table.claim(found))
        finally:
            self._named.discard(waiter)
            if self.table.let_go(tokens):
                self._wake_reapers()

    def _oldest(self, tokens: Sequence[AnyToken]) -> AnyToken | None:
        self.check_open()
        return self.table.oldest(tokens)

    def _refuse(self, tokens: Sequence[AnyToken], flaw: Flaw | None) -> NoReturn:
        self.check_open()
        if flaw == "held":
            raise trio.BusyResourceError("another task waits for one of these tokens")
        if flaw == "unknown":
            token = next(token for token in tokens if token not in self.table.entries)
            if token.belongs_to(self):
                raise OSError(errno.EINVAL, f"{token} was claimed already: its result has been handed out")
            raise OSError(errno.EINVAL, f"{token} is not ours: it belongs to another queue set")
        raise OSError(errno.EINVAL, _FLAWS[cast("Flaw", flaw)])

    def _claimed(self, operation: Operation) -> AnyResult:
        result, operation.result = operation.result, None
        assert result is not None
        self._make_room()
        return result

    # ------------------------------------------------------------------ waiting for whatever comes

    async def reap(self, most: int, want: int, until: float, *, ends: bool) -> list[AnyResult]:
        """Claim the oldest completions that nobody waits for by name.

        Args:
          most: at most so many.
          want: wait for so many, or for all that are to come when that is fewer.
          until: return what there is, in Trio time.
          ends: return nothing when nothing is left to come.

        Raises:
          OSError: EBADF, the set has ended.
          RuntimeError: this is another thread than the set's.
        """
        self.check_thread()
        if self._is_enough(want, ends=ends) or self._ended:
            await checkpoint()
        elif until <= current_time():
            await one_pass()
        while not self._is_enough(want, ends=ends) and not self._ended and until > current_time():
            reaper = Reaper(want=want, ends=ends)
            self._reapers.append(reaper)
            try:
                if not await reaper.park(until):
                    await cancel_shielded_checkpoint()
                    break
            finally:
                self._promised -= reaper.promised
                if not reaper.promised:
                    self._reapers.remove(reaper)
        self.check_open()
        return [self._claimed(operation) for _, operation in self.table.take(most)]

    def _is_enough(self, want: int, *, ends: bool) -> bool:
        table = self.table
        return table.ready >= want or (table.ready > 0 and not table.pending) or (ends and not table)

    def _wake_reapers(self) -> None:
        table = self.table
        for reaper in tuple(self._reapers):
            free = table.ready - self._promised
            enough = free >= reaper.want or (free > 0 and not table.pending) or (reaper.ends and not table)
            if enough or self._ended:
                self._reapers.remove(reaper)
                reaper.promised = reaper.want
                self._promised += reaper.want
                reaper.wake()

    # ------------------------------------------------------------------ room

    async def room(self, count: int) -> None:
        """Wait until so many submissions fit; those who came first go first.

        Raises:
          OSError: EBADF, the set has ended.
          RuntimeError: this is another thread than the set's.
        """
        self.check_thread()
        if self.table.fits(count) and not self._applicants:
            await checkpoint()
        applicant = Applicant(count=count)
        self._applicants.append(applicant)
        try:
            while not self._ended and not (self._applicants[0] is applicant and self.table.fits(count)):
                await applicant.park(inf)
        finally:
            self._applicants.remove(applicant)
            # The next one looks for itself, after this one's submissions.
            self._wake_applicant()
        self.check_open()

    def _make_room(self) -> None:
        self._wake_applicant()
        if self._reapers and not self.table:
            self._wake_reapers()

    def _wake_applicant(self) -> None:
        if self._applicants and (self.table.fits(self._applicants[0].count) or self._ended):
            self._applicants[0].wake()

    # ------------------------------------------------------------------ the end

    async def end(self) -> None:
        """Close everything that is open and let nobody wait any more; called when no operation runs."""
        self._ended = True
        while self.resources:
            await self.resources.pop().dispose()
        self.table.entries.clear()
        for waiter in (*self._named, *self._applicants):
            waiter.wake()
        self._wake_reapers()


@final
class Lane:
    """Runs the operations of one direction of a queue one after the other, in the order of submission."""

    __slots__ = ("_current", "_engine", "_settled", "_waiting")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._current: Operation | None = None
        # A deque is as large as all the rest of a queue, and most lanes never have two operations.
        self._waiting: deque[tuple[AnyToken, Operation, Work]] | None = None
        self._settled: trio.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether an operation has not completed."""
        return self._current is not None

    def add(self, token: AnyToken, operation: Operation, work: Work) -> None:
        """Run an operation after those that are here already."""
        if self._current is None:
            self._current = operation
            self._engine.spawn(self._serve, token, operation, work)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((token, operation, work))

    def drop(self, token: AnyToken) -> bool:
        """Take out an operation that has not begun; False when it has."""
        for item in self._waiting or ():
            if item[0] is token:
                cast("deque[Any]", self._waiting).remove(item)
                return True
        return False

    def cancel(self) -> None:
        """Cancel every operation here; they complete in their order."""
        if self._current is not None:
            self._current.cancel()
            for _, operation, _ in self._waiting or ():
                operation.cancel()

    async def settled(self) -> None:
        """Wait until no operation is here."""
        if self._current is not None:
            self._settled = self._settled or trio.Event()
            await self._settled.wait()

    async def _serve(self, token: AnyToken, operation: Operation, work: Work) -> None:
        try:
            await self._engine.run(token, operation, work)
            while self._waiting:
                token, operation, work = self._waiting.popleft()
                self._current = operation
                if operation.cancelled:
                    self._engine.complete_cancelled(token, operation)
                else:
                    await self._engine.run(token, operation, work)
        finally:
            self._current = None
            if self._settled is not None:
                self._settled.set()
