"""The kernel's side of a reactor: one epoll, whose descriptor Trio can wait on, and an eventfd that wakes it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import Final, final

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


class Events(ABC):
    """Tells what has happened to descriptors, see epoll(7)."""

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable when `poll` has something to tell."""

    @abstractmethod
    def register(self, fd: int, mask: int) -> None:
        """Tell of a descriptor from now on, and at once where there is something to tell.

        Raises:
          OSError: ENOSPC or ENOMEM, the system is out of room for it.
        """

    @abstractmethod
    def modify(self, fd: int, mask: int) -> None:
        """Tell of something else, and at once where there is something to tell.

        Raises:
          OSError: ENOMEM.
        """

    @abstractmethod
    def unregister(self, fd: int) -> None:
        """Tell no more of a descriptor."""

    @abstractmethod
    def poll(self) -> list[tuple[int, int]]:
        """Return descriptors and what has happened to each, at most `MOST_EVENTS`. Never waits."""

    @abstractmethod
    def wake(self) -> None:
        """Make `fileno` readable."""

    @abstractmethod
    def is_wakeup(self, fd: int) -> bool:
        """Say whether an event is that of `wake`, which is over then."""

    @abstractmethod
    def close(self) -> None:
        """Close both descriptors."""


if sys.platform == "linux":
    import os
    import select

    @final
    class _Epoll(Events):
        """Children inherit neither descriptor; those of os.fork() alone have both, and must leave them alone."""

        __slots__ = ("_epoll", "_wakeup")

        def __init__(self, epoll: select.epoll, wakeup: int) -> None:
            self._epoll = epoll
            self._wakeup = wakeup

        def fileno(self) -> int:
            return self._epoll.fileno()

        def register(self, fd: int, mask: int) -> None:
            self._epoll.register(fd, mask)

        def modify(self, fd: int, mask: int) -> None:
            self._epoll.modify(fd, mask)

        def unregister(self, fd: int) -> None:
            self._epoll.unregister(fd)

        def poll(self) -> list[tuple[int, int]]:
            return self._epoll.poll(0, MOST_EVENTS)

        def wake(self) -> None:
            os.eventfd_write(self._wakeup, 1)

        def is_wakeup(self, fd: int) -> bool:
            if fd != self._wakeup:
                return False
            os.eventfd_read(fd)
            return True

        def close(self) -> None:
            self._epoll.close()
            os.close(self._wakeup)

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
        return _Epoll(epoll, wakeup)

else:

    def open_events() -> Events | None:
        """Return None: this system has no epoll."""
        return None
