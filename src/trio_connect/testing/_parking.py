"""How the methods of a socket wait, and where.

Every async method checks for cancellation first, then tries. A try that succeeds or fails is followed by a schedule
point that cannot be cancelled. A try that would block waits. Trio's real sockets do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

T = TypeVar("T")


@attrs.define(eq=False)
class Parking:
    """Suspends at most one task until its socket may be ready. A spurious wake is allowed: the task tries again."""

    busy: str
    """What a second task is told."""
    closed: bool = attrs.field(default=False, init=False)
    _task: trio.lowlevel.Task | None = attrs.field(default=None, init=False, alias="_task")

    def check_free(self) -> None:
        """Refuse a second waiting task.

        Raises:
          trio.BusyResourceError: another task waits.
        """
        if self._task is not None:
            raise trio.BusyResourceError(self.busy)

    async def park(self) -> None:
        """Wait for a wake.

        Raises:
          trio.BusyResourceError: another task waits already.
          trio.ClosedResourceError: the socket was closed.
        """
        self.check_free()
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if self.closed:
            raise trio.ClosedResourceError("another task closed this socket")

    async def until_done(self, attempt: Callable[[], T]) -> T:
        """Try until it would not block.

        Args:
          attempt: does it, or raises BlockingIOError.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            result = attempt()
        except BlockingIOError:
            pass
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return result
        while True:
            await self.park()
            try:
                return attempt()
            except BlockingIOError:
                pass

    def wake(self) -> None:
        """Have the task try again."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def close(self) -> None:
        """Let the task know that the socket is closed, as Trio does."""
        self.closed = True
        self.wake()
