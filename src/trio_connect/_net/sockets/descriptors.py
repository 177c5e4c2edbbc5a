"""File descriptors as messages: what travels beside the bytes; see cmsg(3), and SCM_RIGHTS in unix(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from ..._text import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CARRIER", "CLOSE_ON_EXEC", "duplicate", "pack", "room_for_one", "unpack"]

CARRIER: Final = b"\xcc"
"""The byte that a descriptor rides on: libdill's."""
CLOSE_ON_EXEC: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
"""The flag of recvmsg(2) that keeps a descriptor from children; Linux only."""
_INT: Final = struct.Struct("i")


def duplicate(fd: int) -> int:
    """Return a copy of a descriptor, as dup(2).

    Raises:
      OSError: EBADF, it is not open; EMFILE.
    """
    try:
        return os.dup(fd)
    except OverflowError:
        raise OSError(errno.EBADF, f"descriptor {shown(fd)} is not open") from None


def pack(fd: int) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that carries one descriptor."""
    if sys.platform == "win32":
        raise NotImplementedError  # callers have refused this platform
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(fd))]


def room_for_one() -> int:
    """Return the size of a buffer for one descriptor."""
    if sys.platform == "win32":
        raise NotImplementedError
    # CMSG_LEN: the padding that CMSG_SPACE adds has room for another descriptor.
    return socket.CMSG_LEN(_INT.size)


def unpack(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came; whoever asked owns them."""
    if sys.platform == "win32":
        raise NotImplementedError
    return [
        fd
        for level, kind, content in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (fd,) in _INT.iter_unpack(content[: len(content) // _INT.size * _INT.size])
    ]
