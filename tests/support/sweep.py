"""Cancel at every step: run an operation again and again, and disturb it one step later each time.

A step is one turn of the operation's task or of a task below it. The modes differ in when, around
step ``k``, the cancel comes:

``before``
    just before the step runs. What woke the task is already decided: the operation's own result
    and the cancel share a tick, and the result came first.
``after``
    as soon as the step has ended. If the task parked, the cancel is what wakes it.
``neighbour``
    from another task, at its ``k``-th turn, before or after the operation's step as Trio shuffles.
``deadline``
    the scope's deadline is reached during the step: it expires in the next pass, after the I/O.
``clock``
    nothing is cancelled; the run's ``MockClock`` jumps before the step, so that deadlines of the
    operation's own are reached during it. Where the operation parks, the clock jumps (again);
    only if that does not help either, it is cancelled.

Trio shuffles each batch of tasks, and offers no way to seed that, so the long run repeats every sweep.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

import attrs
import trio
import trio.testing

from . import LONG
from .leaks import Census, Counters, LeakError, leaks_since, settled_census, threads_at_work, watching

E = TypeVar("E")
T = TypeVar("T")

Mode: TypeAlias = Literal["before", "after", "neighbour", "deadline", "clock"]
Ending: TypeAlias = Literal["returned", "cancelled", "raised"]

CANCELLING: tuple[Mode, ...] = ("before", "after", "neighbour", "deadline")
AFTER: tuple[Mode, ...] = CANCELLING if LONG else ("after",)
"""For what is long and made of operations that have sweeps of their own: all modes in the long run."""

# Passes in a row without a step of the operation after which a neighbour calls it parked.
_PARKED_PASSES = 5


def repeated(rounds: int) -> int:
    """Return how often to repeat what is random: as often as said, or ten times in the long run."""
    return 10 if LONG else rounds


def share_of_modes(*places: int) -> tuple[Mode, ...]:
    """Return two of the four modes for one combination of a grid of cases, or all of them in the long run.

    Args:
      places: where the combination stands along each axis of the grid.

    The two pairs take turns along each axis, so every case of every axis is swept in every mode.
    """
    if LONG:
        return CANCELLING
    pairs: tuple[tuple[Mode, ...], ...] = (("before", "neighbour"), ("after", "deadline"))
    return pairs[sum(places) % 2]


class SweepFailure(AssertionError):
    """An operation did not keep the contract at some step."""


class VacuousSweep(SweepFailure):
    """No step was ever cancelled: the sweep has shown nothing."""


@attrs.frozen(kw_only=True)
class Step:
    """One run of the operation, disturbed at step ``k``."""

    mode: Mode
    round: int
    k: int
    disturbed: bool
    parked: bool
    """The operation came to a standstill before step ``k`` and was cancelled there."""
    ending: Ending
    error: str | None

    def __str__(self) -> str:
        where = "parked" if self.parked else f"step {self.k}" if self.disturbed else "undisturbed"
        tail = f" {self.error}" if self.error else ""
        return f"mode {self.mode}, round {self.round}, {where}: {self.ending}{tail}"


@attrs.frozen
class Summary:
    """Every run of a sweep."""

    runs: tuple[Step, ...]

    @property
    def steps(self) -> int:
        """The highest step that was reached."""
        return max((run.k for run in self.runs if run.disturbed and not run.parked), default=0)

    def endings(self, mode: Mode | None = None) -> dict[int, Counter[Ending]]:
        """How the runs disturbed at each step ended."""
        found: dict[int, Counter[Ending]] = {}
        for run in self.runs:
            if run.disturbed and mode in (None, run.mode):
                found.setdefault(run.k, Counter())[run.ending] += 1
        return dict(sorted(found.items()))

    def __str__(self) -> str:
        lines = [f"{len(self.runs)} runs, {self.steps} steps"]
        modes: dict[Mode, None] = dict.fromkeys(run.mode for run in self.runs)
        for mode in modes:
            for k, endings in self.endings(mode).items():
                lines.append(f"  {mode} {k}: {', '.join(f'{e} {n}' for e, n in endings.items())}")
        return "\n".join(lines)


@overload
async def sweep(
    operation: Callable[[], Awaitable[T]],
    *,
    environment: None = None,
    modes: Sequence[Mode] = ...,
    rounds: int = ...,
    raises: type[Exception] | tuple[type[Exception], ...] = ...,
    dispose: Callable[[T], Awaitable[object]] | None = ...,
    check: Callable[[None, Step], Awaitable[object]] | None = ...,
    counters: Counters | None = ...,
    ports: Sequence[int] = ...,
    ignore_threads: str | None = ...,
    inside: bool = ...,
    clock: trio.testing.MockClock | None = ...,
    jump: float = ...,
    quiet: float = ...,
    max_steps: int = ...,
) -> Summary: ...


@overload
async def sweep(
    operation: Callable[[E], Awaitable[T]],
    *,
    environment: Callable[[], AbstractAsyncContextManager[E]],
    modes: Sequence[Mode] = ...,
    rounds: int = ...,
    raises: type[Exception] | tuple[type[Exception], ...] = ...,
    dispose: Callable[[T], Awaitable[object]] | None = ...,
    check: Callable[[E, Step], Awaitable[object]] | None = ...,
    counters: Counters | None = ...,
    ports: Sequence[int] = ...,
    ignore_threads: str | None = ...,
    inside: bool = ...,
    clock: trio.testing.MockClock | None = ...,
    jump: float = ...,
    quiet: float = ...,
    max_steps: int = ...,
) -> Summary: ...


async def sweep(
    operation: Callable[..., Awaitable[Any]],
    *,
    environment: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    modes: Sequence[Mode] = CANCELLING,
    rounds: int = repeated(1),
    raises: type[Exception] | tuple[type[Exception], ...] = (),
    dispose: Callable[[Any], Awaitable[object]] | None = None,
    check: Callable[[Any, Step], Awaitable[object]] | None = None,
    counters: Counters | None = None,
    ports: Sequence[int] = (),
    ignore_threads: str | None = None,
    inside: bool = True,
    clock: trio.testing.MockClock | None = None,
    jump: float = 0.0,
    quiet: float = 0.02,
    max_steps: int = 500,
) -> Summary:
    """Run ``operation`` disturbed at step 1, 2, ... until it ends undisturbed; all of it ``rounds`` times.

    Each round is a sample, for Trio shuffles the tasks of each pass anew. One is taken unless said otherwise, and ten
    in the long run.

    After each run what it returned is given to ``dispose`` (default: closed), and then nothing
    may be left behind; an exception that is not one of ``raises`` is a failure. ``check`` sees
    every run, once all has settled. ``environment`` makes fresh surroundings for each run, whose
    value the operation gets; leaks are looked for in it and again once it is gone, or with ``inside=False`` only then
    (for surroundings that hold on to their end of the connections). What fails raises
    `SweepFailure` or `LeakError`, and the step is in the text.

    An operation that waits for good (a black hole) is cancelled where it parks, which ends the
    round: no task runnable, no deadline of its own pending, no thread at work, for ``quiet``
    seconds. At least one run must have been cancelled (mode ``clock``: must have raised).
    """
    if "clock" in modes and (clock is None or jump <= 0):
        raise ValueError("mode clock needs clock= and a positive jump=")
    if rounds < 1 or not modes:
        raise ValueError("nothing to sweep: rounds and modes must not be empty")
    surroundings = environment if environment is not None else _nothing
    call = operation if environment is not None else lambda _: operation()
    runs: list[Step] = []

    async def require_clean(before: Census, step: Step, where: str) -> None:
        leaks = await leaks_since(before, ports=ports, counters=counters, ignore_threads=ignore_threads)
        if leaks:
            raise LeakError(leaks, f"{where}by {step}")

    async def disturb(mode: Mode, number: int, k: int, outer: Census) -> Step:
        async def run_once(value: Any) -> Step:
            inner = await settled_census(ports=ports, counters=counters)
            run: _Run[Any] = _Run(mode, k, clock, jump, quiet)
            await run.drive(call, value)
            ending, result, error = run.take()
            step = Step(
                mode=mode,
                round=number,
                k=k,
                disturbed=run.fired or run.parked,
                parked=run.parked,
                ending=ending,
                error=None if error is None else f"{type(error).__name__}: {error}",
            )
            if run.broken is not None:
                raise SweepFailure(f"the sweep itself broke: {step}") from run.broken
            if error is not None and not isinstance(error, raises):
                raise SweepFailure(f"unexpected exception: {step}") from error
            if ending == "returned":
                await (dispose or _close)(result)
            # Their frames and cycles must not keep alive what the operation dropped.
            del run, result, error
            if inside:
                await require_clean(inner, step, "")
            if check is not None:
                await check(value, step)
            return step

        failure: Exception | None = None
        step: Step | None = None
        async with surroundings() as value:
            try:
                step = await run_once(value)
            except Exception as exc:  # noqa: BLE001
                # Raised outside: a nursery of the surroundings would wrap it in a group.
                failure = exc
            del value
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None
        assert step is not None
        await require_clean(outer, step, "(seen after its surroundings were gone) ")
        return step

    with watching():
        # One for all runs: what a run leaves behind ends the sweep, so the next begins where the first did.
        outer = await settled_census(ports=ports, counters=counters)
        for mode in modes:
            for number in range(1, rounds + 1):
                for k in range(1, max_steps + 1):
                    step = await disturb(mode, number, k, outer)
                    runs.append(step)
                    if step.parked or not step.disturbed:
                        break
                else:
                    raise SweepFailure(f"mode {mode}: not at its end after {max_steps} steps")
    summary = Summary(tuple(runs))
    # Not mode by mode: an operation that never parks can be cancelled in one of them only.
    if "clock" in modes and not any(run.ending == "raised" for run in runs if run.mode == "clock"):
        raise VacuousSweep(f"the clock never made a run raise\n{summary}")
    cancelling = [run for run in runs if run.mode != "clock"]
    if cancelling and not any(run.ending == "cancelled" for run in cancelling):
        raise VacuousSweep(f"no run was ever cancelled\n{summary}")
    return summary


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield None


async def _close(value: object) -> None:
    if isinstance(value, trio.abc.AsyncResource):
        await trio.aclose_forcefully(value)
    elif callable(close := getattr(value, "close", None)):
        close()


class _Run(trio.abc.Instrument, Generic[T]):
    """One run: counts the steps of the operation, and disturbs it at the one asked for."""

    def __init__(
        self,
        mode: Mode,
        k: int,
        clock: trio.testing.MockClock | None,
        jump: float,
        quiet: float,
    ) -> None:
        self.mode, self.k = mode, k
        self.clock, self.jump, self.quiet = clock, jump, quiet
        self.scope = trio.CancelScope()
        self.steps = 0
        self.fired = False
        self.parked = False
        self.broken: BaseException | None = None
        self._nursery: trio.Nursery | None = None
        self._root: trio.lowlevel.Task | None = None
        self._stepping: trio.lowlevel.Task | None = None
        self._tasks: set[trio.lowlevel.Task] = set()
        self._idle = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._threads = threads_at_work()
        now = trio.current_time()
        self._horizon = now + _time_to_next_deadline()
        self._ending: Ending | None = None
        self._result: T | None = None
        self._error: Exception | None = None

    async def drive(self, call: Callable[[E], Awaitable[T]], value: E) -> None:
        async def operation_under_sweep() -> None:
            try:
                with self.scope:
                    self._result = await call(value)
                    self._ending = "returned"
                if self._ending is None:
                    self._ending = "cancelled"
            except Exception as exc:  # noqa: BLE001
                self._ending, self._error = "raised", exc
            nursery.cancel_scope.cancel()

        trio.lowlevel.add_instrument(self)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(operation_under_sweep)
                nursery.start_soon(self._neighbour if self.mode == "neighbour" else self._watch)
        finally:
            trio.lowlevel.remove_instrument(self)
            self._nursery = self._root = self._stepping = None

    def take(self) -> tuple[Ending, T | None, Exception | None]:
        """How it ended; given away, so that nothing here keeps it alive."""
        assert self._ending is not None
        result, error = self._result, self._error
        self._result = self._error = None
        return self._ending, result, error

    # Trio drops an instrument that raises, with no more than a log entry: keep the exception.

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is None:
            return
        if self._root is None and nursery is self._nursery:
            self._root = task
            self._tasks.add(task)
        elif nursery.parent_task in self._tasks:
            self._tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._tasks.discard(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task not in self._tasks:
            return
        self.steps += 1
        self._stepping = task
        if self.steps == self.k and self.mode in ("before", "deadline", "clock"):
            self._fire()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self._stepping:
            return
        self._stepping = None
        if self.steps == self.k and self.mode == "after" and self._ending is None:
            self._fire()

    def before_io_wait(self, timeout: float) -> None:
        if self.mode != "neighbour" and not self._idle.is_set() and self._standing_still():
            # How long to wait for I/O is settled by now: only this wakes the loop.
            self._token.run_sync_soon(self._idle.set, idempotent=True)

    def _fire(self) -> None:
        self.fired = True
        try:
            if self.mode == "deadline":
                self.scope.deadline = trio.current_time()
            elif self.mode == "clock":
                assert self.clock is not None
                self.clock.jump(self.jump)
            else:
                self.scope.cancel()
        except BaseException as exc:  # noqa: BLE001
            self.broken = exc

    def _standing_still(self) -> bool:
        if trio.lowlevel.current_statistics().tasks_runnable:
            return False
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock) and clock.rate == 0 and clock.autojump_threshold == math.inf:
            return True  # no deadline comes by itself
        # A deadline that surrounds the sweep does not set the operation going again. The clock is
        # read before there and after here, so that it is never taken for an earlier one.
        left = _time_to_next_deadline()
        return trio.current_time() + left >= self._horizon

    async def _watch(self) -> None:
        nudged = False
        while True:
            await self._idle.wait()
            await trio.testing.wait_all_tasks_blocked(self.quiet)
            working = threads_at_work() - self._threads
            if self._standing_still() and not working:
                if not self.fired:
                    self.parked = True
                    self._fire()
                elif self.mode == "clock":
                    # That jump came before the deadline was set, or is not there.
                    if nudged:
                        self.scope.cancel()
                        return
                    nudged = True
                    self._fire()
            self._idle = trio.Event()
            await trio.lowlevel.checkpoint()

    async def _neighbour(self) -> None:
        still = 0
        for _ in range(self.k - 1):
            seen = self.steps
            await trio.lowlevel.checkpoint()
            still = still + 1 if self.steps == seen else 0
        self.parked = still >= _PARKED_PASSES
        self._fire()


def _time_to_next_deadline() -> float:
    return trio.lowlevel.current_statistics().seconds_to_next_deadline
