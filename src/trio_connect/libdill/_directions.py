"""The two directions of a connection: whether one is in use, how it ended, and which errno that is."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, final

import trio

from .._errors import IncompleteRead
from ._failures import failure

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Direction", "errno_of_break"]


@final
class Direction:
    """One direction of a connection, or the accepting of a listener: whether it is in use, and how it ended.

    Its ``with`` block marks it as in use, and turns what Trio's streams raise into libdill's errno. A timeout or a
    cancellation changes nothing here: the direction stays usable.
    """

    __slots__ = ("broken", "busy", "done")

    def __init__(self) -> None:
        self.busy = self.done = self.broken = False

    def refusal(self) -> int:
        """Return the errno that an operation gets without being tried, 0 for none. The order is libdill's."""
        if self.busy:
            return errno.EBUSY
        if self.done:
            return errno.EPIPE
        return errno.ECONNRESET if self.broken else 0

    def __enter__(self) -> None:
        self.busy = True

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.busy = False
        if isinstance(exc, IncompleteRead):
            self.done = True
            raise failure(errno.EPIPE, str(exc)) from exc
        if isinstance(exc, trio.BrokenResourceError):
            self.broken = True
            raise failure(errno_of_break(exc), str(exc)) from exc
        if isinstance(exc, trio.ClosedResourceError):
            raise failure(errno.EBADF, "this handle was closed by another task") from None


def errno_of_break(exc: trio.BrokenResourceError) -> int:
    """Return the errno of a broken connection. It is never EPIPE, which stands for an end that a caller asked for."""
    cause = exc.__cause__
    code = cause.errno if isinstance(cause, OSError) else None
    return errno.ECONNRESET if code in (None, errno.EPIPE, errno.ENOTCONN) else code
