"""Network interfaces as the kernel knows them: by number, and as what a socket is bound to."""

from __future__ import annotations

import errno
import socket
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import trio

# netinet/in.h and netinet6/in6.h of macOS; not in the socket module.
_IP_BOUND_IF: Final = 25
_IPV6_BOUND_IF: Final = 125


def interface_index(name: str) -> int:
    """Return the index that the interface of a name has now, if_nametoindex(3).

    Raises:
      OSError: ENODEV, there is no such interface.
    """
    try:
        return socket.if_nametoindex(name)
    except OSError as exc:
        raise OSError(errno.ENODEV, f"no interface {name!r}") from exc


def bind_to_interface(sock: socket.SocketType | trio.socket.SocketType, name: str) -> None:
    """Send through one interface only: SO_BINDTODEVICE, socket(7), or IP_BOUND_IF on macOS.

    Raises:
      OSError: ENODEV, there is no such interface; ENOPROTOOPT, this platform cannot.
    """
    if sys.platform == "linux":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
    elif sys.platform == "darwin":
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_BOUND_IF, interface_index(name))
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BOUND_IF, interface_index(name))
    else:
        raise OSError(errno.ENOPROTOOPT, "this platform cannot bind a socket to an interface")
