"""Tasks that wait for something of a queue set: for tokens, for results, for room."""

from __future__ import annotations

from math import inf

import attrs
import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled


@attrs.define(eq=False)
class Waiter:
    """A task that waits, and can be woken once."""

    task: Task | None = None

    def wake(self) -> None:
        """Reschedule the task. A second call does nothing."""
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

    `promised` keeps a second reaper from being woken for a result that the first one is about to take.
    """

    want: int = 1
    ends: bool = False
    """Whether to wake it also when nothing is left to come."""
    promised: int = 0


@attrs.define(eq=False)
class RoomWaiter(Waiter):
    """Waits for room."""

    count: int = 1
