"""The reactor: one task that waits for the sockets of many operations, with an epoll of its own inside of Trio's.

An operation costs no task, no cancel scope and no registration with Trio. All deadlines are in one heap, under the one
scope around the reactor's own wait. A pass of the loop does a bounded part of the work, so that everybody else's tasks
have their turns between: `BEGINS` connects are begun, `STEPS` other steps made, `events.MOST_EVENTS` events handled,
and `EXPIRIES` operations ended that have reached their deadline.

Descriptors are registered once in their life, and edge-triggered, epoll(7). An event may be stale: that of a descriptor
which was closed and whose number another socket has got in the same pass. So an event says that it is worth trying, and
never what will come of it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol, final

from trio import CancelScope
from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_clock,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
)

from ..._engine.deadlines import Deadlines, Timed
from ..sockets.open import factory_installed
from .events import Events, open_events

BEGINS: Final = 64
STEPS: Final = 256
EXPIRIES: Final = 64
_LINGER: Final = 2
"""Passes without work before the reactor waits: whoever was woken by a result mostly submits the next operation, and in
which order tasks run in a pass is left to chance."""


class Handler(Protocol):
    """What has a registered descriptor."""

    def event(self, flags: int, /) -> None:
        """Do what an event makes worth trying."""
        ...


class Start(Protocol):
    """A connect that has not begun."""

    def start(self, *, factory: bool) -> None:
        """Begin it. `factory` says whether this run has a socket factory."""
        ...


class Step(Protocol):
    """Something else that is to be done in a pass."""

    def run(self) -> None:
        """Do it."""
        ...

    def abandon(self) -> None:
        """Do without the reactor, which has been cancelled."""
        ...


class Pending(Timed, Protocol):
    """A connect under way."""

    def ask(self) -> None:
        """Ask it, a pass after it has begun."""
        ...

    def expire(self) -> None:
        """End it, for its deadline has come."""
        ...


@final
class _Nobody:
    """What has a registered descriptor that nobody uses for now."""

    __slots__ = ()

    def event(self, _flags: int, /) -> None:
        """Do nothing: whoever comes next tries first."""


_NOBODY: Final = _Nobody()


@final
class Reactor:
    """Waits for many operations. Its owner has `run` in a task, and calls `close` when that task has ended.

    Everything here belongs to the thread of its run.
    """

    __slots__ = (
        "_events", "_idle", "_kicked", "_scope", "_starts", "_steps", "_task", "_waiting",
        "asking", "clock", "deadlines", "handlers", "running",
    )  # fmt: skip

    def __init__(self, events: Events) -> None:
        self.running = True
        """Whether submitted work will be done: until the task of `run` is cancelled."""
        # What an attempt asks of it for each connect is not behind methods: each call would cost it a hundredth.
        self.clock: Final = current_clock().current_time
        """The time on Trio's clock: what trio.current_time() asks, through two more calls."""
        self.asking: list[Pending] = []
        """Connects that have begun in this pass, to be asked again in the next one."""
        self.deadlines: Final[Deadlines[Pending]] = Deadlines()
        """Of connects under way."""
        self._events = events
        self.handlers: Final[dict[int, Handler]] = {}
        """What is told of each descriptor that is registered."""
        self._starts: deque[Start] = deque()
        self._steps: deque[Step] = deque()
        self._scope = CancelScope()
        self._task: Task | None = None
        self._idle = self._waiting = self._kicked = False

    @classmethod
    def open(cls) -> Reactor | None:
        """Return a reactor, None where the system has no events for one, and each operation needs a task."""
        events = open_events()
        return None if events is None else cls(events)

    # ------------------------------------------------------------------ what is to be done in the next pass

    def begin_soon(self, start: Start) -> None:
        """Begin a connect, in a pass to come."""
        self._starts.append(start)
        if self._idle or self._waiting:
            self._kick()

    def step_soon(self, step: Step) -> None:
        """Make a step, in a pass to come."""
        self._steps.append(step)
        if self._idle or self._waiting:
            self._kick()

    def _kick(self) -> None:
        if self._idle:
            self._idle = False
            assert self._task is not None
            reschedule(self._task)
        elif not self._kicked:
            self._kicked = True
            self._events.wake()

    # ------------------------------------------------------------------ descriptors and deadlines

    def watch(self, fd: int, handler: Handler, mask: int) -> None:
        """Have a handler told of a descriptor, for as long as that is open.

        Raises:
          OSError: ENOSPC or ENOMEM, the system is out of room for it.
        """
        self._events.register(fd, mask)
        self.handlers[fd] = handler

    def watch_more(self, fd: int, mask: int) -> None:
        """Have a handler told of something else, and of what there is already.

        Raises:
          OSError: ENOMEM.
        """
        self._events.modify(fd, mask)

    def hand_on(self, fd: int, handler: Handler) -> None:
        """Have another handler told of a descriptor."""
        self.handlers[fd] = handler

    def let_go(self, fd: int) -> None:
        """Have nobody told of a descriptor for now, which stays registered.

        What was told of it would live, with all that it holds, for as long as the descriptor is open and not used.
        """
        self.handlers[fd] = _NOBODY

    def unwatch(self, fd: int) -> None:
        """Hear no more of a descriptor that stays open."""
        self.handlers.pop(fd, None)
        self._events.unregister(fd)

    def forget(self, fd: int) -> None:
        """Forget a descriptor that is about to be closed, with which the kernel drops its registration."""
        self.handlers.pop(fd, None)

    def forget_deadline(self) -> None:
        """Note that a connect with a deadline is over before it."""
        self.deadlines.forget()
        # A clock that jumps to the next deadline, as that of Trio's tests, must not find one of nobody's.
        if self._waiting:
            self._scope.deadline = self.deadlines.next()

    # ------------------------------------------------------------------ the task

    @enable_ki_protection  # Ctrl-C must not come between a result and its table
    async def run(self) -> None:
        """Do what is submitted, for ever."""
        self._task = current_task()
        try:
            while True:
                with CancelScope() as self._scope:
                    await self._run()
        finally:
            self.running = False
            for step in tuple(self._steps):
                step.abandon()

    async def _run(self) -> None:
        """Run until a deadline ends the wait, and with it the scope."""
        linger = _LINGER
        fd = self._events.fileno()
        while True:
            linger = _LINGER if self._pass() else linger - 1
            if linger > 0:
                await checkpoint()
                continue
            linger = 1
            self._scope.deadline = self.deadlines.next()
            if not self.handlers:
                self._idle = True
                await wait_task_rescheduled(self._abort)
            else:
                self._waiting = True
                try:
                    await wait_readable(fd)
                finally:
                    self._waiting = False

    def _abort(self, _: object) -> Abort:
        self._idle = False
        return Abort.SUCCEEDED

    def _pass(self) -> bool:
        """Do a fair share, and say whether there was something to do; where not all was done, there was."""
        worked = False
        if self.asking:
            worked = True
            asking, self.asking = self.asking, []
            for pending in asking:
                pending.ask()
        if self._starts:
            worked = True
            factory = factory_installed()
            for _ in range(min(BEGINS, len(self._starts))):
                self._starts.popleft().start(factory=factory)
        if self._steps:
            worked = True
            for _ in range(min(STEPS, len(self._steps))):
                self._steps.popleft().run()
        if self.handlers or self._kicked:
            for fd, flags in self._events.poll():
                handler = self.handlers.get(fd)
                if handler is not None:
                    worked = True
                    handler.event(flags)
                elif self._kicked and self._events.is_wakeup(fd):
                    self._kicked = False
        if self.deadlines:
            for pending in self.deadlines.reached(self.clock(), EXPIRIES):
                worked = True
                pending.expire()
        return worked

    def close(self) -> None:
        """Close the descriptors. The task must have ended."""
        self._events.close()
        # What is in these holds the reactor, and would be left to the garbage collector with it.
        self.handlers.clear()
        self.asking.clear()
        self.deadlines.clear()
        self._starts.clear()
        self._steps.clear()
