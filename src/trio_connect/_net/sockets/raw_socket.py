"""Sockets of the kernel as C makes them: non-blocking, and without the conversions to enums."""

from __future__ import annotations

import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

# The C base class: `socket.socket` on top of it converts family and type to enums, 1 us for every connection.
CSocket: Final = socket.SocketType
_SOCK_STREAM: Final = int(socket.SOCK_STREAM)

if sys.platform == "linux":
    _STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    # Non-blocking, and not inherited by children, in one system call.
    new_socket = partial(CSocket, type=_STREAM)
    new_datagram_socket = partial(CSocket, type=int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))

else:

    def new_socket(family: int, *, proto: int = 0) -> socket.SocketType:
        """Make a non-blocking stream socket that children do not inherit."""
        sock = CSocket(family, socket.SOCK_STREAM, proto)
        sock.setblocking(False)
        return sock

    def new_datagram_socket(family: int) -> socket.SocketType:
        """Make a non-blocking datagram socket that children do not inherit."""
        sock = CSocket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        return sock


def accept_now(listener: socket.SocketType, family: int, proto: int) -> tuple[socket.SocketType, Any]:
    """Accept one connection, without waiting: its socket, non-blocking, and the address of the peer.

    Args:
      listener: non-blocking.
      family: the listener's address family.
      proto: its protocol number.

    Raises:
      BlockingIOError: no connection waits.
      OSError: see accept(2).
    """
    # What socket.accept() does, without the conversions to enums, which take half of its time.
    accept: Callable[[], tuple[int, Any]] = cast("Any", listener)._accept  # noqa: SLF001
    fd, address = accept()
    sock = CSocket(family, _SOCK_STREAM, proto, fd)
    sock.setblocking(False)
    return sock, address
