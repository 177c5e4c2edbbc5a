"""`tcp_*`: libdill's names over `TcpStream` and `TcpListener`."""

from __future__ import annotations

import errno
import socket
from typing import Final

from trio.lowlevel import enable_ki_protection

from .._net import tcp
from .._net.listeners import tcp_listener
from .._net.listeners.tcp_listener import TcpListener
from .._net.streams.tcp_stream import TcpStream
from ._addresses import check_ipaddr, endpoint_of, ipaddr
from ._failures import check_deadline, failure
from ._handles import add, find
from ._kinds import TcpConnection, TcpListening
from ._sockets import accept, check_backlog, close, done, wrap

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
async def tcp_connect(addr: ipaddr, deadline: int) -> int:
    """Connect to an address.

    Args:
      addr: where to.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 or past to try, let others run, look once more.

    Returns:
      The handle of the connection.

    Raises:
      DeadlineExceeded: ETIMEDOUT, the deadline came first. The kernel's own giving up is a plain TimeoutError.
      OSError: what the kernel says, such as ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ENETDOWN, EMFILE,
        ENFILE, ENOMEM, EADDRNOTAVAIL (no local port is left); EAFNOSUPPORT, `addr` was never set; EINVAL, `addr` is
        None, its port is 0, or the deadline is negative and not -1.
      TypeError: an argument has the wrong type.

    libdill: tcp_connect(3).
    """
    endpoint = endpoint_of(addr)
    deadline = check_deadline(deadline)
    if not endpoint.port:
        raise failure(errno.EINVAL, f"cannot connect to port 0 of {endpoint.host}")
    return add(TcpConnection(await tcp.tcp_connect(endpoint, deadline)))


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
async def tcp_listen(addr: ipaddr, backlog: int) -> int:
    """Listen on an address. A checkpoint; never waits.

    Args:
      addr: where; the port that was chosen for port 0 is written back into it.
      backlog: how many connections may wait to be accepted, see listen(2); a negative one is as many as allowed.

    Returns:
      The handle of the listener.

    Raises:
      OSError: EADDRINUSE, EADDRNOTAVAIL, EACCES, EMFILE and what else the kernel says; EAFNOSUPPORT, `addr` was never
        set; EINVAL, `addr` is None.
      TypeError: an argument has the wrong type.

    libdill: tcp_listen(3).
    """
    endpoint = endpoint_of(addr)
    listener = await tcp_listener.tcp_listen(endpoint, backlog=check_backlog(backlog))
    addr.endpoint = listener.endpoint
    return add(TcpListening(listener))


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
async def tcp_accept(s: int, addr: ipaddr | None, deadline: int) -> int:
    """Accept a connection. A timeout or a cancellation loses none.

    Args:
      s: the handle of a TCP listener.
      addr: gets the peer's address, unless it is None.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 or past for one that waits already.

    Returns:
      The handle of the connection.

    Raises:
      DeadlineExceeded: ETIMEDOUT, nobody connected in time.
      OSError: EBADF, no such handle, or it was closed meanwhile; EBUSY, another task is accepting; EINVAL, the
        deadline is negative and not -1; EMFILE, ENFILE, ENOBUFS, ENOMEM; ENOTSUP, not a TCP listener.
      TypeError: an argument has the wrong type.

    libdill: tcp_accept(3).
    """
    if addr is not None:
        check_ipaddr(addr)
    stream: TcpStream = await accept(await find(s, TcpListening), s, deadline)
    if addr is not None:
        addr.endpoint = stream.peer
    return add(TcpConnection(stream))


async def tcp_done(s: int, deadline: int) -> int:
    """End the outgoing direction: the peer gets EPIPE after what was sent, receiving goes on. Never waits.

    Args:
      s: the handle of a TCP connection.
      deadline: is not needed, as in libdill.

    Returns:
      0.

    Raises:
      OSError: EBADF, no such handle; EBUSY, another task is sending; ECONNRESET, the connection is broken; EINVAL, the
        deadline is negative and not -1; ENOTSUP, not a TCP connection; EPIPE, done already.
      TypeError: an argument has the wrong type.

    libdill: tcp_done(3).
    """
    return await done(await find(s, TcpConnection), s, deadline)


@enable_ki_protection  # Ctrl-C cannot come between the end of a handle and that of its socket
async def tcp_close(s: int, deadline: int) -> int:
    """Close a connection well: end it, throw away what comes until the peer ends it too, and close.

    The handle is gone after every outcome but EBADF, EINVAL and ENOTSUP. What was sent before is delivered also when
    this times out or is cancelled. Another task that is receiving gets EBADF. When another task is still sending, the
    connection is reset, and both get an error, for its end would look to the peer like the end of the data.

    Args:
      s: the handle of a TCP connection, or of a listener, which is then simply closed.
      deadline: milliseconds on the clock of `now()`; -1 waits for the peer for ever.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT, the peer did not end its direction in time, however much else it sent.
      OSError: EBADF, no such handle; ECONNRESET, the connection is broken, or another task was sending; EINVAL, the
        deadline is negative and not -1; ENOTSUP, not a TCP handle.
      TypeError: an argument has the wrong type.

    libdill: tcp_close(3).
    """
    return await close(await find(s, TcpConnection, TcpListening), s, deadline)


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
def tcp_fromfd(fd: int) -> int:
    """Make a handle of a connected TCP socket, and take it over: the number `fd` is closed.

    Args:
      fd: a descriptor of the system; its number is not to be used afterwards.

    Returns:
      The handle of the connection.

    Raises:
      OSError: EBADF, `fd` is not open; EINVAL, it is negative, a listener, not TCP or not a stream; EMFILE; ENOTCONN,
        it is not connected; ENOTSOCK. The caller then keeps `fd`.
      TypeError: not an int.

    libdill: tcp_fromfd(3).
    """
    return add(TcpConnection(wrap(TcpStream.from_socket, fd, _FAMILIES, listener=False)))


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
def tcp_listener_fromfd(fd: int) -> int:
    """Make a handle of a listening TCP socket, and take it over: the number `fd` is closed.

    Args:
      fd: a descriptor of the system; its number is not to be used afterwards.

    Returns:
      The handle of the listener.

    Raises:
      OSError: EBADF, `fd` is not open; EINVAL, it is negative, not listening, not TCP or not a stream; EMFILE;
        ENOTSOCK. The caller then keeps `fd`.
      TypeError: not an int.

    libdill: tcp_listener_fromfd(3).
    """
    return add(TcpListening(wrap(TcpListener.from_socket, fd, _FAMILIES, listener=True)))
