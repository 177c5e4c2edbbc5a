"""The kernel's side of a reactor: one epoll, whose descriptor Trio can wait on, and an eventfd that wakes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, final

# From <sys/epoll.h>: the select module has them on Linux only.
IN: Final = 0x001
PRI: Final = 0x002
OUT: Final = 0x004
ERR: Final = 0x008
HUP: Final = 0x010
RDHUP: Final = 0x2000
EDGE: Final = 1 << 31

MOST_EVENTS: Final = 256
"""How many events one poll brings: what a pass handles must leave room for everybody else's tasks."""


@final
class Events:
    """Tells what has happened to descriptors, see epoll(7).

    Children inherit neither of its two descriptors; those of os.fork() alone have both, and must leave them alone.
    """

    __slots__ = ("_epoll", "_wakeup", "modify", "register", "unregister")

    def __init__(self, epoll: Any, wakeup: int) -> None:
        self._epoll = epoll
        self._wakeup = wakeup
        # The epoll's own methods: one of ours around each would cost as much as the system call.
        self.register: Final[Callable[[int, int], None]] = epoll.register
        """Tell of a descriptor from now on, and at once where there is something to tell; OSError (ENOSPC, ENOMEM)
        where the system is out of room for it."""
        self.modify: Final[Callable[[int, int], None]] = epoll.modify
        """Tell of something else, and at once where there is something to tell; OSError (ENOMEM)."""
        self.unregister: Final[Callable[[int], None]] = epoll.unregister
        """Tell no more of a descriptor."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when `poll` has something to tell."""
        fd: int = self._epoll.fileno()
        return fd

    def poll(self) -> list[tuple[int, int]]:
        """Return descriptors and what has happened to each, at most `MOST_EVENTS`. Never waits."""
        found: list[tuple[int, int]] = self._epoll.poll(0, MOST_EVENTS)
        return found

    def close(self) -> None:
        """Close both descriptors."""
        self._epoll.close()
        os.close(self._wakeup)

    if sys.platform == "linux":

        def wake(self) -> None:
            """Make `fileno` readable."""
            os.eventfd_write(self._wakeup, 1)

        def is_wakeup(self, fd: int) -> bool:
            """Say whether an event is that of `wake`, which is over then."""
            if fd != self._wakeup:
                return False
            os.eventfd_read(fd)
            return True

    else:

        def wake(self) -> None:
            """Never called."""

        def is_wakeup(self, fd: int) -> bool:
            """Never called."""
            return fd == self._wakeup


if sys.platform == "linux":
    import select

    def open_events() -> Events | None:
        """Return a new source of events, None where the system has no room for one."""
        try:
            epoll = select.epoll()
        except OSError:
            return None
        try:
            wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            epoll.close()
            return None
        try:
            epoll.register(wakeup, IN)
        except OSError:
            epoll.close()
            os.close(wakeup)
            return None
        return Events(epoll, wakeup)

else:

    def open_events() -> Events | None:
        """Return None: this system has no epoll."""
        return None
