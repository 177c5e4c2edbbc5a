"""A place where one task waits until a socket may be ready, as with Trio's wait_readable."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False)
class Parking:
    """Holds at most one task. A wake without cause is allowed: who was parked looks again."""

    busy: str
    _task: trio.lowlevel.Task | None = attrs.field(default=None, init=False, alias="_task")

    def check_free(self) -> None:
        """Make sure that nobody waits.

        Raises:
            trio.BusyResourceError: Somebody does.
        """
        if self._task is not None:
            raise trio.BusyResourceError(self.busy)

    async def park(self) -> None:
        """Wait for a wake.

        Raises:
            trio.BusyResourceError: Another task waits already.
        """
        self.check_free()
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake(self) -> None:
        """Let the task look again."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
