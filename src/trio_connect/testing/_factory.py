"""What makes the sockets of a run that is on a virtual network."""

from __future__ import annotations

import errno
import socket

import trio

from ._errors import NotOnVirtualNetwork
from ._fabric import Fabric, current_node
from ._socket import VirtualSocket
from ._tcp import fail


class Factory(trio.abc.SocketFactory):
    """The socket factory that a network installs."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> VirtualSocket:
        """Make a socket for the task that asks.

        Raises:
          OSError: a family or protocol that a kernel may lack: EAFNOSUPPORT, EPROTONOSUPPORT.
          NotOnVirtualNetwork: anything else that is not TCP.
        """
        fabric = self._fabric
        fabric.check_usable()
        kind = type & ~(getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0))
        if family == getattr(socket, "AF_UNIX", None):
            raise fabric.failed(
                NotOnVirtualNetwork(
                    "a virtual network has no AF_UNIX sockets: listen on 127.0.0.1, or take the real thing with "
                    "trio.socket.from_stdlib_socket() or socketpair(), outside virtual time"
                )
            )
        if family not in (socket.AF_INET, socket.AF_INET6):
            fail(errno.EAFNOSUPPORT)
        if kind != socket.SOCK_STREAM:
            raise fabric.failed(NotOnVirtualNetwork(f"a virtual network has TCP only, not {socket.SocketKind(kind)!r}"))
        if proto not in (0, socket.IPPROTO_TCP):
            fail(errno.EPROTONOSUPPORT)
        return VirtualSocket(fabric, current_node.get() or fabric.local, family)
