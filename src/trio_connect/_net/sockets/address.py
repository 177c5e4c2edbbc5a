"""The kernel's view of endpoints and sources: where a socket goes, and what it is bound to."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from ..._endpoint import Endpoint
from .interface import interface_index

if TYPE_CHECKING:
    from ..._endpoint import Source
    from .stream_socket import StreamSocket

# linux/in.h; not in the socket module before Python 3.12.
_IP_BIND_ADDRESS_NO_PORT: Final = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)


def sockaddr_of(endpoint: Endpoint) -> Any:
    """Return the address for the kernel, a zone name turned into the interface's index.

    Raises:
      OSError: ENODEV, there is no such interface.
    """
    if not isinstance(endpoint.scope_id, str):
        return endpoint.sockaddr
    return endpoint.host, endpoint.port, endpoint.flowinfo, interface_index(endpoint.scope_id)


def source_address(source: Source, family: int) -> Any:
    """Return the address to bind to, None to leave it to the kernel.

    Raises:
      OSError: ENODEV, its zone names no interface.
    """
    host = source.ipv4 if family == socket.AF_INET else source.ipv6
    if host is None:
        if not source.port:
            return None
        host = "0.0.0.0" if family == socket.AF_INET else "::"
    return sockaddr_of(Endpoint(host, source.port))


def bind_to_source(sock: StreamSocket, source: Source, address: Any) -> None:
    """Have a new socket connect from a source.

    Args:
      sock: not bound yet.
      source: where from.
      address: its `source_address`.

    Raises:
      OSError: it has no such address or interface, or the port is taken.
    """
    plan: list[tuple[int, int, int]] = []
    if source.port:
        # A fixed local port must be usable again while its last connection is in TIME_WAIT.
        plan.append((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
    elif sys.platform == "linux" and sock.in_kernel:
        # The port is then chosen by connect(), per destination, ip(7). IPv6 sockets take the option too.
        plan.append((socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1))
    sock.set_options(tuple(plan))
    if source.interface is not None:
        sock.bind_to_interface(source.interface)
    if address is not None:
        sock.bind_to_connect(address)
