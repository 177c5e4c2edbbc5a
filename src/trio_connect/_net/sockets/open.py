"""How a stream socket comes to be: made by the kernel or the run's socket factory, or taken over from the caller."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import enable_ki_protection
from trio.socket import set_custom_socket_factory

from ..._options import DEFAULT_OPTIONS
from ..._text import shown
from .factory_socket import FactorySocket
from .kernel_socket import KernelSocket
from .raw_socket import new_socket
from .stream_socket import IPPROTO_MPTCP

if TYPE_CHECKING:
    from ..._options import SocketOptions
    from .options import Plan
    from .stream_socket import StreamSocket

# What socket(2) says of IPPROTO_MPTCP: switched off by net.mptcp.enabled; not built into this system, or unknown to
# it; a number that Linux before 5.6 finds too large.
_NO_MULTIPATH: Final = frozenset({errno.ENOPROTOOPT, errno.EPROTONOSUPPORT, errno.EINVAL})


@enable_ki_protection
def factory_installed() -> bool:
    """Say whether this run has a socket factory of its own.

    Trio offers no other way to ask than to replace it; a KeyboardInterrupt between the two calls would leave the
    run without its factory, hence the protection.
    """
    factory = set_custom_socket_factory(None)
    if factory is None:
        return False
    set_custom_socket_factory(factory)
    return True


def open_stream_socket(
    family: int, *, listening: bool = False, factory: bool | None = None, multipath: bool = False
) -> StreamSocket:
    """Make a stream socket, by the kernel or by the socket factory of this run.

    Args:
      family: the address family.
      listening: whether it is to accept connections.
      factory: whether this run has a socket factory, as `factory_installed` has said; None asks.
      multipath: whether an MPTCP socket is wanted; a plain one where the system has no MPTCP.

    Raises:
      OSError: no socket is to be had: EMFILE, ENFILE, ENOBUFS, ENOMEM, EAFNOSUPPORT.
    """
    if factory is None:
        factory = factory_installed()
    if multipath:
        try:
            return _make(family, IPPROTO_MPTCP, listening=listening, factory=factory)
        except OSError as exc:
            if exc.errno not in _NO_MULTIPATH:
                raise
    return _make(family, 0, listening=listening, factory=factory)


def _make(family: int, proto: int, *, listening: bool, factory: bool) -> StreamSocket:
    if factory:
        return FactorySocket(trio.socket.socket(family, socket.SOCK_STREAM, proto))
    return KernelSocket(_new_listening_socket(family, proto) if listening else new_socket(family, proto=proto))


def _new_listening_socket(family: int, proto: int) -> socket.socket:
    """Make a non-blocking socket of the kind that can accept."""
    sock = socket.socket(family, socket.SOCK_STREAM, proto)
    sock.setblocking(False)
    return sock


def set_options(sock: StreamSocket, plan: Plan, options: SocketOptions) -> None:
    """Set all options that were asked for, or raise.

    Args:
      sock: new.
      plan: what `options` mean for it.
      options: the caller's. A fake may know no options at all, so it may refuse the default ones. What the caller asked
        for explicitly must not be dropped in silence.

    Raises:
      OSError: one was refused.
    """
    try:
        sock.set_options(plan)
    except OSError:
        if sock.in_kernel or options is not DEFAULT_OPTIONS:
            raise


def check_socket(sock: object) -> None:
    """Refuse what cannot be taken over, and leave it as it is.

    Raises:
      TypeError: not a socket, or one of a subclass of the standard library's: those do more in their methods than the
        kernel does for the descriptor, an `ssl.SSLSocket` above all. Trio's `from_stdlib_socket` refuses them too.
    """
    if type(sock) is not socket.socket and not isinstance(sock, trio.socket.SocketType):
        hint = (
            "; for TLS give the plain socket, and put trio.SSLStream over the stream" if hasattr(sock, "unwrap") else ""
        )
        raise TypeError(f"from_socket needs a trio.socket or a plain socket.socket, got {shown(sock)}{hint}")


def adopt(sock: trio.socket.SocketType | socket.socket) -> StreamSocket:
    """Return the stream socket over a socket that the caller made and gives away; `check_socket` has let it pass."""
    if isinstance(sock, socket.socket):
        sock.setblocking(False)
        return KernelSocket(sock, shared=True)
    return FactorySocket(sock)
