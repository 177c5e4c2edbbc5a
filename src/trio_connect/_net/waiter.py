"""A task that waits until another one wakes it."""

from __future__ import annotations

from math import inf

import attrs
import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled


@attrs.define(eq=False)
class Waiter:
    """One task at a time, which waits here and can be woken once."""

    task: Task | None = None
    """The task while it waits."""

    def wake(self) -> None:
        """Reschedule the task. Does nothing while there is not one."""
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
