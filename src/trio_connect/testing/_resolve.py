"""The address arguments of bind and connect."""

from __future__ import annotations

import socket
from typing import Any

import trio

from ._address import SocketAddress


async def resolve(family: socket.AddressFamily, address: Any, *, local: bool, v6only: bool) -> SocketAddress:
    """Return the address that a socket of `family` is given, with a name looked up as Trio's sockets do.

    Args:
      family: the socket's.
      address: what the program passed to bind or connect.
      local: whether it is for bind.
      v6only: whether an IPv6 socket refuses IPv4-mapped addresses.

    Raises:
      OverflowError: the port is not one.
      ValueError: the tuple has another shape.
      socket.gaierror: the name has no address of the family.
    """
    longest = 2 if family == socket.AF_INET else 4
    parts: list[Any] = [*address] if isinstance(address, tuple) else []  # pyright: ignore[reportUnknownVariableType]
    if not 2 <= len(parts) <= longest:
        shape = "(host, port)" if longest == 2 else "(host, port, [flowinfo, [scopeid]])"
        raise ValueError(f"address should be a {shape} tuple")
    host, port, *rest = parts
    if isinstance(port, int) and not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535.")
    if not (isinstance(port, int) and isinstance(host, str) and _is_numeric(family, host)):
        flags = int(socket.AI_PASSIVE) if local else 0
        if family == socket.AF_INET6 and not v6only:
            flags |= socket.AI_V4MAPPED
        found = await trio.socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, flags)
        resolved: tuple[Any, ...] = found[0][4]
        host, port = resolved[0], resolved[1]
        rest = rest + list(resolved[2 + len(rest) :])
    if family == socket.AF_INET:
        return (host, port)
    flow, scope = [*rest, 0, 0][:2]
    return (host, port, int(flow), int(scope))


def _is_numeric(family: int, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except OSError:
        return False
    return True
