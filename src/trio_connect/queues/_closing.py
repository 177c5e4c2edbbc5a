"""Closes of queues, done by a reactor in a pass where nothing has to be awaited for them."""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What a set calls of its queues has names with an underscore, because users see a queue's other names.

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from ._values import Closed

if TYPE_CHECKING:
    from ._operations import AnyToken
    from ._scheduler import Scheduler


class Closeable(Protocol):
    """What a close asks of its queue."""

    def _dispose_now(self) -> bool:
        """Close the socket if nothing has to be awaited for that, and say whether it is closed."""
        ...

    def _close_in_task(self, token: AnyToken) -> None:
        """Close the socket in a task."""
        ...


@final
class Closing:
    """One close, which the reactor does in a pass."""

    __slots__ = ("_queue", "_scheduler", "_token")

    def __init__(self, queue: Closeable, scheduler: Scheduler, token: AnyToken) -> None:
        self._queue = queue
        self._scheduler = scheduler
        self._token = token

    def run(self) -> None:
        """Close, or have it done in a task."""
        if self._queue._dispose_now():
            self._scheduler.complete(self._token, Closed())
        else:
            self.abandon()

    def abandon(self) -> None:
        """Close in a task: also when its set is cancelled, a close completes."""
        self._queue._close_in_task(self._token)
