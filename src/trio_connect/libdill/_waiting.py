"""Time and raw file descriptors: `msleep`, `fdin`, `fdout`, `fdclean`."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Final

import trio
from trio import current_time
from trio.lowlevel import RunVar, cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .._check import check_int
from .._deadline import to_seconds
from .._messages import call_exceeded
from .._net.sockets.waiting import park
from .._text import shown
from ._failures import check_deadline, failure, refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# A descriptor, and which of the two functions waits.
_run_waiting: Final[RunVar[set[tuple[int, str]]]] = RunVar("descriptors waited for through trio_connect.libdill")


def _waiting() -> set[tuple[int, str]]:
    try:
        return _run_waiting.get()
    except LookupError:
        waiting: set[tuple[int, str]] = set()
        _run_waiting.set(waiting)
        return waiting


async def msleep(deadline: int) -> int:
    """Sleep until a deadline. A deadline that has passed is one checkpoint, which lets other tasks run.

    Args:
      deadline: milliseconds on the clock of `now()`; -1 sleeps until cancelled.

    Returns:
      0.

    Raises:
      OSError: EINVAL, the deadline is negative and not -1.
      TypeError: the deadline is not an int.

    libdill: msleep(3).
    """
    deadline = check_deadline(deadline)
    until = to_seconds(deadline)
    if until <= current_time():
        await checkpoint()
    else:
        await trio.sleep_until(until)
    return 0


async def fdin(fd: int, deadline: int) -> int:
    """Wait until a file descriptor is readable; an error and the end of a stream count as readable.

    Args:
      fd: a descriptor of the system, not a handle.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 or past to look, let others run, look again.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT, nothing came in time.
      OSError: EBADF, not an open descriptor, or `trio.lowlevel.notify_closing` was called for it meanwhile; EBUSY,
        another task waits for the same; EINVAL, the deadline is negative and not -1; ENOTSUP, it cannot be waited
        for, such as a regular file.
      TypeError: an argument is not an int.

    libdill: fdin(3).
    """
    return await _wait(fd, "fdin", deadline)


async def fdout(fd: int, deadline: int) -> int:
    """Wait until a file descriptor is writable; an error counts as writable. Everything else is as in `fdin`.

    Args:
      fd: a descriptor of the system, not a handle.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 or past to look, let others run, look again.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT, no room came in time.
      OSError: EBADF, EBUSY, EINVAL and ENOTSUP as in `fdin`.
      TypeError: an argument is not an int.

    libdill: fdout(3).
    """
    return await _wait(fd, "fdout", deadline)


def fdclean(fd: int) -> int:
    """Announce that a descriptor is about to be closed. This layer keeps nothing about it, so this only checks.

    Args:
      fd: a descriptor of the system, not a handle.

    Returns:
      0.

    Raises:
      OSError: EBADF, not an open descriptor; EBUSY, a task waits for it.
      TypeError: not an int.

    libdill: fdclean(3).
    """
    _check_open(fd)
    if not _waiting().isdisjoint(((fd, "fdin"), (fd, "fdout"))):
        raise failure(errno.EBUSY, f"a task waits for descriptor {fd}")
    return 0


def _check_open(fd: object) -> int:
    number = check_int(fd, "fd", "a file descriptor, an int")
    try:
        return os.fstat(number).st_mode
    except (OSError, OverflowError):
        raise failure(errno.EBADF, f"descriptor {shown(fd)} is not open") from None


if sys.platform == "win32":

    async def _wait(fd: int, what: str, deadline: int) -> int:  # noqa: ARG001
        return await refuse(errno.ENOTSUP, "this platform cannot wait for descriptors")

else:

    async def _wait(fd: int, what: str, deadline: int) -> int:
        deadline = check_deadline(deadline)
        until = to_seconds(deadline)
        wait: Callable[[int], Awaitable[None]]
        if what == "fdin":
            events, wait = select.POLLIN, trio.lowlevel.wait_readable
        else:
            events, wait = select.POLLOUT, trio.lowlevel.wait_writable
        await checkpoint_if_cancelled()
        try:
            mode = _check_open(fd)
            if (fd, what) in _waiting():
                raise failure(errno.EBUSY, f"another task waits in {what}({fd})")
            ready = _is_ready(fd, events)
            if ready and not _is_pollable(fd, mode):
                raise failure(errno.ENOTSUP, f"descriptor {fd} cannot be waited for")
        except OSError:
            await cancel_shielded_checkpoint()
            raise
        if ready:
            await cancel_shielded_checkpoint()
            return 0
        started = current_time()
        _waiting().add((fd, what))
        try:
            if not await park(wait, fd, until) and not _is_ready(fd, events):
                raise call_exceeded(f"{what}({fd})", current_time() - started)
        except trio.BusyResourceError:
            raise failure(errno.EBUSY, f"another task waits for descriptor {fd}") from None
        except trio.ClosedResourceError:
            raise failure(errno.EBADF, f"descriptor {fd} was closed by another task") from None
        finally:
            _waiting().discard((fd, what))
        return 0

    def _is_ready(fd: int, events: int) -> bool:
        poll = select.poll()
        poll.register(fd, events)
        found = poll.poll(0)
        if found and found[0][1] & select.POLLNVAL:
            raise failure(errno.EBADF, f"descriptor {fd} is not open")
        return bool(found)

    def _is_pollable(fd: int, mode: int) -> bool:
        # poll(2) reports every regular file as ready. Only epoll_ctl(2) says that it cannot be waited for (EPERM).
        if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
            return True
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return False
        if sys.platform == "linux":
            with select.epoll() as epoll:
                try:
                    epoll.register(fd, select.EPOLLIN)
                except PermissionError:
                    return False
        return True
