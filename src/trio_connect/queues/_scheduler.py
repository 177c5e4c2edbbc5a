"""Keeps the results of operations, and wakes the tasks that wait for them.

A lane runs an operation, over the set's reactor or in a task. A completion puts its result into the table and wakes at
most one task. The woken task takes the result itself, with no checkpoint afterwards, so a waiter that is cancelled has
taken nothing.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What a set calls of its queues has names with an underscore, because users see a queue's other names.

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from threading import get_ident
from typing import Any, Final, cast, final

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, current_clock, enable_ki_protection

from .._messages import call_exceeded, call_late
from .._net.reactor.reactor import Reactor
from .._net.sockets.open import factory_installed
from .._net.sockets.waiting import one_pass
from .._net.waiter import Waiter
from ._interface import Failed, IOQueue, QToken, Succeeded, Target
from ._operations import AnyResult, AnyToken, Disposable, Operation, Pending, Work
from ._refusals import OTHER_THREAD, refusal_of, the_wait_for
from ._table import TokenTable
from ._values import Completion, Op, named
from ._waiters import Reaper, RoomWaiter

_CLOSES: Final = 64
"""So many sockets are closed in a pass at the end: with their buffers this is a millisecond."""


@final
class Scheduler:
    """The inner side of a queue set.

    Args:
      nursery: runs the reactor, and what needs a task.
      limit: how many tokens may be submitted and not claimed.
    """

    def __init__(self, nursery: trio.Nursery, limit: int) -> None:
        self.table: TokenTable[AnyToken] = TokenTable(limit, self)
        # Trio's current_time() asks it too, through two more calls, which each operation would pay for three times.
        self.clock: Final = current_clock().current_time
        """The time on Trio's clock."""
        self.open: set[Disposable] = set()
        """All queues that have a socket, whatever their state. Closed when no operation runs."""
        self.reactor: Reactor | None = None
        """Waits for the kernel's sockets; None where each operation needs a task."""
        self._nursery = nursery
        self._thread = get_ident()
        self._ended = False
        self.stopped = False
        """Whether what is submitted would never be done: the set has ended, or its tasks were cancelled."""
        self._reapers: deque[Reaper] = deque()
        self._least = 0
        """No reaper waits for fewer results."""
        self._promised = 0
        self._room_waiters: deque[RoomWaiter] = deque()
        self._named: set[Waiter] = set()

    @enable_ki_protection  # or Ctrl-C could come between opening a descriptor and the code that closes it
    def start(self) -> None:
        """Have a reactor, if there is one to be had."""
        if not factory_installed():
            self.reactor = Reactor.open()
        self._nursery.start_soon(self._serve)

    @enable_ki_protection
    async def _serve(self) -> None:
        """Run the reactor, and end what is pending when the set is cancelled around its body.

        The body may go on under a shield of its own, and must not wait there for what nobody does any more.
        """
        try:
            if self.reactor is not None:
                await self.reactor.run()
            await trio.sleep_forever()
        finally:
            self.stopped = True
            self._wake_room_waiter()
            self._wake_reapers()
            await self._cancel_pending()

    async def _cancel_pending(self) -> None:
        """End what is pending, whatever is cancelled around this."""
        for count, queue in enumerate(tuple(self.open), 1):
            if self._ended:  # what is left is closed with the set, and nobody is told
                return
            queue._cancel_all()
            if not count % _CLOSES:
                await cancel_shielded_checkpoint()

    # ------------------------------------------------------------------ submitting

    def check(self) -> None:
        """Refuse a submission from another thread, and one that would never be done.

        Raises:
          OSError: EBADF.
          RuntimeError: see `check_thread`.
        """
        if self.stopped or get_ident() != self._thread:
            self.check_thread()
            self.check_running()

    def check_running(self) -> None:
        """Refuse a set that does nothing any more, although results may still be claimed and queues closed.

        Raises:
          OSError: EBADF.
        """
        if self.stopped:
            self.check_open()
            raise OSError(errno.EBADF, "this queue set has been cancelled")

    def check_thread(self) -> None:
        """Refuse a call from another thread: nothing here is thread-safe.

        Raises:
          RuntimeError: this is another thread; the text says what to do instead.
        """
        if get_ident() != self._thread:
            raise RuntimeError(OTHER_THREAD)

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

    def enter(self, op: Op, queue: IOQueue, target: Target = None, data: Any = None) -> AnyToken:
        """Put a new operation into the table, whose caller has it done.

        Args:
          op: its name.
          queue: where it was submitted.
          target: the token's `target`.
          data: the token's `data`.

        Raises:
          OSError: EAGAIN, there is no room for it; EBADF.
          RuntimeError: see `check_thread`.
        """
        table = self.table
        if self.stopped or get_ident() != self._thread:
            self.check()
        if table.submitted - table.claimed >= table.limit:
            self.check_room(op)
        table.submitted = number = table.submitted + 1
        return QToken(self, number, op, queue, self.clock(), target, data)

    def enter_close(self, queue: IOQueue) -> AnyToken:
        """Put a close into the table, for which there is always room: each queue has one."""
        self.table.submitted = number = self.table.submitted + 1
        return QToken(self, number, "close", queue, self.clock(), None, None)

    def spawn(self, call: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task that lives no longer than the set."""
        self._nursery.start_soon(call, *args)

    # ------------------------------------------------------------------ running

    @enable_ki_protection  # also where it is a task of its own
    async def run(self, operation: Operation, work: Work) -> None:
        """Run an operation to its completion. An exception that is not an OSError is a bug, and propagates."""
        token = operation.token
        error: OSError | None = None
        value: Completion | None = None
        try:
            value = await work(operation.payload, operation)
        except OSError as exc:
            # Drop traceback and context: their frames would form a cycle through the operation and its result.
            exc.__traceback__ = exc.__context__ = None
            error = exc
        except BaseException:
            # Cancelled with its set, or a bug that ends the set: who waits under a shield of his own must hear of it.
            self.complete_cancelled(token)
            raise
        if error is not None:
            self.complete(token, error)
        elif value is not None:
            self.complete(token, value)
        else:
            self.complete_cancelled(token)

    def complete_cancelled(self, token: AnyToken) -> None:
        """Complete an operation with ECANCELED."""
        self.complete(
            token, OSError(errno.ECANCELED, f"{named(token.op, token.target)} on {token.queue} was cancelled")
        )

    def complete(self, token: AnyToken, outcome: OSError | Completion, now: float | None = None) -> None:
        """Store a result and wake the task that waits for it.

        Args:
          token: whose.
          outcome: how it ended.
          now: the time on Trio's clock, where the caller has just asked.
        """
        elapsed = (self.clock() if now is None else now) - token._submitted_at
        if isinstance(outcome, OSError):
            token._result = Failed(token, elapsed, outcome)
        else:
            token._result = Succeeded(token, elapsed, outcome)
        token._lane = None
        table = self.table
        waiter = table.complete(token)
        if waiter is not None:
            cast("Waiter", waiter).wake()
        if self._reapers and (
            len(table.free) - self._promised >= self._least or table.completed == table.submitted
        ):  # not by its properties, each of which costs a hundredth of a push
            self._wake_reapers()

    def is_done(self, token: AnyToken) -> bool:
        """Say whether a token's operation is over."""
        return token._number != 0 or self.table.closed

    def cancel(self, token: AnyToken) -> None:
        """End a pending operation."""
        self.check_thread()
        lane = cast("Pending | None", token._lane)
        if lane is not None and not self.is_done(token):
            lane.cancel(token)

    # ------------------------------------------------------------------ waiting by name

    async def wait(self, tokens: Sequence[AnyToken], until: float) -> tuple[AnyToken, AnyResult]:
        """Claim the oldest completion of these tokens, after waiting for one if necessary.

        Raises:
          DeadlineExceeded: `until` (Trio time) came first. No token was claimed.
          OSError: EINVAL, the list is empty or has duplicates, or a token is not ours or was claimed; EBADF, the set
            has ended.
          RuntimeError: this is another thread than the set's.
          trio.BusyResourceError: another task waits for one of the tokens.
        """
        self.check_thread()
        rejection = self.table.rejection(tokens)
        if rejection is not None or self._ended:
            await checkpoint()
            self.check_open()
            raise refusal_of(tokens, rejection, self)
        started = self.clock()
        if -inf < until <= started:
            await checkpoint()
            raise call_late(the_wait_for(tokens), started - until)
        waiter = Waiter()
        self.table.reserve(tokens, waiter)
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
                    # A result of the same pass as the deadline counts: Trio runs the tasks of a pass in random order.
                    await cancel_shielded_checkpoint()
                    found = self._oldest(tokens)
            if found is None:
                raise call_exceeded(the_wait_for(tokens), self.clock() - started)
            self.table.claim(found)
            result, found._result = found._result, None
            assert result is not None
            self._make_room()
            return found, result
        finally:
            self._named.discard(waiter)
            if self.table.release(tokens):
                self._wake_reapers()

    def _oldest(self, tokens: Sequence[AnyToken]) -> AnyToken | None:
        self.check_open()
        return self.table.oldest(tokens)

    # ------------------------------------------------------------------ waiting for any completion

    async def reap(self, most: int, want: int, until: float, *, ends: bool) -> list[AnyResult]:
        """Claim the oldest completions whose tokens no task waits for by name.

        Args:
          most: how many to claim at most.
          want: how many to wait for. The wait also ends when fewer are left to come.
          until: when to return what there is, in Trio time.
          ends: return nothing when nothing is left to come.

        Raises:
          OSError: EBADF, the set has ended, or was cancelled and has nothing left to wait for.
          RuntimeError: this is another thread than the set's.
        """
        self.check_thread()
        if -inf < until <= self.clock():
            await checkpoint()
            self.check_open()
            return []
        if self._is_enough(self.table.ready, want, ends=ends) or self._ended:
            await checkpoint()
        elif until == -inf:
            await one_pass()
        while not self._is_enough(self.table.ready, want, ends=ends) and not self._ended and until > self.clock():
            reaper = Reaper(want=want, ends=ends)
            self._least = min(self._least, want) if self._reapers else want
            self._reapers.append(reaper)
            takes = False
            try:
                woken = await reaper.park(until)
                takes = not woken or self._is_enough(self.table.ready, want, ends=ends)
                if not woken:
                    await cancel_shielded_checkpoint()
                    break
            finally:
                self._promised -= reaper.promised
                if not reaper.promised:
                    self._reapers.remove(reaper)
                elif not takes:
                    # Cancelled in the pass of the completion, or another task was faster: its results are free again.
                    self._wake_reapers()
        self.check_open()
        if self.stopped and not ends and not self.table.count and self.clock() < until:
            self.check_running()
        results: list[AnyResult] = []
        for token in self.table.take(most):
            results.append(token._result)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            token._result = None  # which holds the token
        self._make_room()
        return results

    def _is_enough(self, free: int, want: int, *, ends: bool) -> bool:
        """Say whether a wait for any results is over, with so many that are there for it."""
        table = self.table
        return free >= want or (free > 0 and not table.pending) or (not table.count and (ends or self.stopped))

    def _wake_reapers(self) -> None:
        for reaper in tuple(self._reapers):
            if self._ended or self._is_enough(self.table.ready - self._promised, reaper.want, ends=reaper.ends):
                self._reapers.remove(reaper)
                reaper.promised = reaper.want
                self._promised += reaper.want
                reaper.wake()

    # ------------------------------------------------------------------ room

    async def room(self, count: int) -> None:
        """Wait until `count` submissions fit. Waiting tasks are served in their order.

        Raises:
          OSError: EBADF, the set has ended.
          RuntimeError: this is another thread than the set's.
        """
        self.check_thread()
        if self.stopped or (self.table.fits(count) and not self._room_waiters):
            await checkpoint()
        waiter = RoomWaiter(count=count)
        self._room_waiters.append(waiter)
        try:
            while not self.stopped and not (self._room_waiters[0] is waiter and self.table.fits(count)):
                await waiter.park(inf)
        finally:
            self._room_waiters.remove(waiter)
            # The next task checks for itself, after this one's submissions.
            self._wake_room_waiter()
        self.check_running()

    def _make_room(self) -> None:
        self._wake_room_waiter()
        if self._reapers and not self.table.count:
            self._wake_reapers()

    def _wake_room_waiter(self) -> None:
        if self._room_waiters and (self.table.fits(self._room_waiters[0].count) or self.stopped):
            self._room_waiters[0].wake()

    # ------------------------------------------------------------------ the end

    @property
    def ended(self) -> bool:
        """Whether the set takes no submissions any more."""
        return self._ended

    def leave(self) -> None:
        """Refuse further submissions. Operations may still be running."""
        self._ended = self.stopped = True

    @enable_ki_protection  # Ctrl-C must not come between taking a queue out of `open` and closing its socket
    async def end(self) -> None:
        """Close every socket and end every wait. Called when no operation runs."""
        self.leave()
        try:
            await self._close_all()
        finally:
            if self.open:  # a socket that cannot be closed must not keep the others open
                await self.end()
            else:
                self._finish()

    def _finish(self) -> None:
        if self.reactor is not None:
            self.reactor.close()
            self.reactor = None
        for token in self.table.take(self.table.count):
            token._result = None  # which holds the token
        self.table.close()
        for waiter in (*self._named, *self._room_waiters):
            waiter.wake()
        self._wake_reapers()

    async def _close_all(self) -> None:
        closed = 0
        while self.open:
            queue = self.open.pop()
            if not queue._dispose_now():
                await queue._dispose()
            else:
                closed += 1
                if not closed % _CLOSES:
                    await cancel_shielded_checkpoint()
