"""`SocketOptions` as the setsockopt(2) calls of this platform."""

from __future__ import annotations

import errno
import socket
import sys
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Final

from ..._options import DEFAULT_OPTIONS, SocketOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

Plan = tuple[tuple[int, int, int], ...]

_TCP: Final = int(socket.IPPROTO_TCP)
_SOL: Final = int(socket.SOL_SOCKET)
# macOS names the idle time TCP_KEEPALIVE, tcp(4).
_IDLE: Final = "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE"
# The length of the queue of connections whose data came with the SYN, tcp(7).
_FAST_OPEN_BACKLOG: Final = 1024


# linux/tcp.h; Python's socket module does not have it.
_LINUX: Final = {"TCP_FASTOPEN_CONNECT": 30} if sys.platform == "linux" else {}


def _constant(name: str) -> int:
    value = getattr(socket, name, _LINUX.get(name))
    if value is None:
        raise OSError(errno.ENOPROTOOPT, f"this platform has no {name}")
    return int(value)


def refused(error: OSError, level: int, option: int, *, by: str = "the system") -> OSError:
    """Return the error of a setsockopt(2) that failed, with the name of the option.

    Args:
      error: what setsockopt raised.
      level: its first argument.
      option: its second argument.
      by: who refuses it, in words.
    """
    prefix = {_SOL: "SO_", _TCP: "TCP_", int(socket.IPPROTO_IP): "IP_", int(socket.IPPROTO_IPV6): "IPV6_"}.get(level)
    constants = {**vars(socket), **_LINUX}
    names = [name for name, value in constants.items() if prefix and name.startswith(prefix) and value == option]
    name = names[0] if names else f"option {option} of level {level}"
    return OSError(error.errno or errno.EIO, f"{by} refuses {name}")


def _common(options: SocketOptions) -> Iterator[tuple[int, int, int]]:
    if options.nodelay:
        yield _TCP, int(socket.TCP_NODELAY), 1
    idle, interval, count = options.keepalive_idle, options.keepalive_interval, options.keepalive_count
    if (idle, interval, count) != (None, None, None):
        yield _SOL, int(socket.SO_KEEPALIVE), 1
    if idle is not None:
        yield _TCP, _constant(_IDLE), ceil(idle)
    if interval is not None:
        yield _TCP, _constant("TCP_KEEPINTVL"), ceil(interval)
    if count is not None:
        yield _TCP, _constant("TCP_KEEPCNT"), count
    if options.user_timeout is not None:
        yield _TCP, _constant("TCP_USER_TIMEOUT"), ceil(options.user_timeout * 1000)
    if options.notsent_lowat is not None:
        yield _TCP, _constant("TCP_NOTSENT_LOWAT"), options.notsent_lowat
    # Before connect and listen, because the window scale is agreed on in the handshake (RFC 7323 section 2).
    if options.send_buffer is not None:
        yield _SOL, int(socket.SO_SNDBUF), options.send_buffer
    if options.receive_buffer is not None:
        yield _SOL, int(socket.SO_RCVBUF), options.receive_buffer
    if options.reuse_port:
        yield _SOL, _constant("SO_REUSEPORT"), 1


def _connecting(options: SocketOptions, family: int) -> Plan:
    plan = [*_common(options)]
    if options.fast_open:
        plan.append((_TCP, _constant("TCP_FASTOPEN_CONNECT"), 1))
    if options.v6only is not None and family == socket.AF_INET6:
        plan.append((int(socket.IPPROTO_IPV6), int(socket.IPV6_V6ONLY), int(options.v6only)))
    return tuple(plan)


_cached_connecting = lru_cache(maxsize=64)(_connecting)
DEFAULT_PLAN: Final = _connecting(DEFAULT_OPTIONS, socket.AF_INET)
"""What `connecting` returns for the default options; the same for IPv4 and IPv6."""


def connecting(options: SocketOptions, family: int) -> Plan:
    """Return the options to set before connect(2).

    Raises:
      OSError: ENOPROTOOPT, the platform has no such option.
    """
    # The identity check keeps the fast path from hashing twelve fields.
    return DEFAULT_PLAN if options is DEFAULT_OPTIONS else _cached_connecting(options, family)


def listening(options: SocketOptions, family: int) -> Plan:
    """Return the options to set before bind(2) of a listener; on Linux accepted sockets inherit them."""
    plan = [*_common(options)]
    if sys.platform == "win32":
        # There SO_REUSEADDR would let another process steal the port.
        plan.append((_SOL, int(socket.SO_EXCLUSIVEADDRUSE), 1))
    else:
        plan.append((_SOL, int(socket.SO_REUSEADDR), 1))
    if family == socket.AF_INET6:
        # Set always: the default is a sysctl (net.ipv6.bindv6only), and "::" shall mean the same on every machine.
        plan.append((int(socket.IPPROTO_IPV6), int(socket.IPV6_V6ONLY), int(bool(options.v6only))))
    if options.fast_open:
        plan.append((_TCP, _constant("TCP_FASTOPEN"), _FAST_OPEN_BACKLOG))
    return tuple(plan)


def accepted(options: SocketOptions) -> Plan:
    """Return the options to set on accepted sockets where they do not inherit them."""
    return tuple(item for item in _common(options) if item[1] != getattr(socket, "SO_REUSEPORT", None))
