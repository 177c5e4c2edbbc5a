"""`ipc_*`: libdill's names over `UnixStream` and `UnixListener`."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from trio.lowlevel import enable_ki_protection

from .._net import unix
from .._net.listeners.unix_listener import UnixListener, listen_on_path
from .._net.streams.unix_stream import UnixStream
from .._text import shown
from ._failures import check_deadline, check_not_null, failure, refuse
from ._handles import add, find
from ._kinds import IpcConnection, IpcListening
from ._sockets import accept, check_backlog, close, done, wrap

if TYPE_CHECKING:
    from .._net.sockets.unix_path import UnixPath

# Windows has none.
_FAMILIES: Final[tuple[int, ...]] = tuple(int(getattr(socket, name)) for name in ("AF_UNIX",) if hasattr(socket, name))


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
async def ipc_connect(path: UnixPath, deadline: int) -> int:
    """Connect to a unix-domain socket. While its backlog is full, this waits for room.

    Args:
      path: where to; a first NUL means Linux's abstract namespace.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 or past not to wait.

    Returns:
      The handle of the connection.

    Raises:
      DeadlineExceeded: ETIMEDOUT, the backlog stayed full.
      OSError: ENOENT, ECONNREFUSED (nobody listens there any more), EACCES, EMFILE and what else the kernel says;
        EINVAL, the path is None or empty or has a NUL in it, or the deadline is negative and not -1; ENAMETOOLONG.
      TypeError: an argument has the wrong type.

    libdill: ipc_connect(3).
    """
    deadline = check_deadline(deadline)
    check_not_null(path, "the path")
    try:
        stream = await unix.unix_connect(path, deadline)
    except ValueError as exc:
        raise failure(errno.EINVAL, str(exc)) from None
    return add(IpcConnection(stream))


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
async def ipc_listen(path: UnixPath, backlog: int) -> int:
    """Listen on a unix-domain socket. A checkpoint; never waits.

    Neither this nor closing removes the path.

    Args:
      path: where; a first NUL means Linux's abstract namespace.
      backlog: how many connections may wait to be accepted, see listen(2); a negative one is as many as allowed.

    Returns:
      The handle of the listener.

    Raises:
      OSError: EADDRINUSE, the path exists; EACCES, EMFILE, ENOENT and what else the kernel says; EINVAL, the path is
        None or empty or has a NUL in it; ENAMETOOLONG.
      TypeError: an argument has the wrong type.

    libdill: ipc_listen(3).
    """
    check_not_null(path, "the path")
    try:
        listener = await listen_on_path(path, check_backlog(backlog), remove=False)
    except ValueError as exc:
        raise failure(errno.EINVAL, str(exc)) from None
    return add(IpcListening(listener))


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
async def ipc_accept(s: int, deadline: int) -> int:
    """Accept a connection. A timeout or a cancellation loses none.

    Args:
      s: the handle of a unix-domain listener.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 or past for one that waits already.

    Returns:
      The handle of the connection.

    Raises:
      DeadlineExceeded: ETIMEDOUT, nobody connected in time.
      OSError: EBADF, no such handle, or it was closed meanwhile; EBUSY, another task is accepting; EINVAL, the
        deadline is negative and not -1; EMFILE, ENFILE, ENOBUFS, ENOMEM; ENOTSUP, not a unix-domain listener.
      TypeError: an argument has the wrong type.

    libdill: ipc_accept(3).
    """
    stream: UnixStream = await accept(await find(s, IpcListening), s, deadline)
    return add(IpcConnection(stream))


async def ipc_done(s: int, deadline: int) -> int:
    """End the outgoing direction: the peer gets EPIPE after what was sent, receiving goes on. Never waits.

    Args:
      s: the handle of a unix-domain connection.
      deadline: is not needed, as in libdill.

    Returns:
      0.

    Raises:
      OSError: EBADF, EBUSY, ECONNRESET, EINVAL, ENOTSUP and EPIPE as in `tcp_done`.
      TypeError: an argument has the wrong type.

    libdill: ipc_done(3).
    """
    return await done(await find(s, IpcConnection), s, deadline)


@enable_ki_protection  # Ctrl-C cannot come between the end of a handle and that of its socket
async def ipc_close(s: int, deadline: int) -> int:
    """Close a connection well, or a listener; everything is as in `tcp_close`.

    Args:
      s: the handle of a unix-domain connection, or of a listener, which is then simply closed.
      deadline: milliseconds on the clock of `now()`; -1 waits for the peer for ever.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT, the peer did not end its direction in time.
      OSError: EBADF, ECONNRESET, EINVAL and ENOTSUP as in `tcp_close`.
      TypeError: an argument has the wrong type.

    libdill: ipc_close(3).
    """
    return await close(await find(s, IpcConnection, IpcListening), s, deadline)


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
def ipc_pair(s: list[int]) -> int:
    """Make two connections that are each other's peer, and write their handles to ``s[0]`` and ``s[1]``.

    Args:
      s: a list; its first two items become the handles.

    Returns:
      0.

    Raises:
      OSError: EINVAL, `s` is None; EMFILE, ENFILE, ENOMEM and what else the kernel says.
      TypeError: not a list.

    libdill: ipc_pair(3).
    """
    check_not_null(s, "what ipc_pair writes to")
    if not isinstance(s, list):
        raise TypeError(f"ipc_pair needs a list to write to, got {shown(s)}")
    if not _FAMILIES:
        raise failure(errno.EAFNOSUPPORT, "this platform has no unix-domain sockets")
    s[:2] = [add(IpcConnection(UnixStream.from_socket(end))) for end in socket.socketpair()]
    return 0


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
def ipc_fromfd(fd: int) -> int:
    """Make a handle of a connected unix-domain socket, and take it over: the number `fd` is closed.

    Args:
      fd: a descriptor of the system; its number is not to be used afterwards.

    Returns:
      The handle of the connection.

    Raises:
      OSError: EBADF, EINVAL, EMFILE, ENOTCONN and ENOTSOCK as in `tcp_fromfd`. The caller then keeps `fd`.
      TypeError: not an int.

    libdill: ipc_fromfd(3).
    """
    return add(IpcConnection(wrap(UnixStream.from_socket, fd, _FAMILIES, listener=False)))


@enable_ki_protection  # Ctrl-C cannot come between a socket and its handle
def ipc_listener_fromfd(fd: int) -> int:
    """Make a handle of a listening unix-domain socket, and take it over: the number `fd` is closed.

    Args:
      fd: a descriptor of the system; its number is not to be used afterwards.

    Returns:
      The handle of the listener.

    Raises:
      OSError: EBADF, EINVAL, EMFILE and ENOTSOCK as in `tcp_listener_fromfd`. The caller then keeps `fd`.
      TypeError: not an int.

    libdill: ipc_listener_fromfd(3).
    """
    return add(IpcListening(wrap(UnixListener.from_socket, fd, _FAMILIES, listener=True)))


async def ipc_sendfd(s: int, fd: int, deadline: int) -> int:
    """Give the peer a copy of a file descriptor. It rides on one byte of the stream, 0xCC.

    Args:
      s: the handle of a unix-domain connection.
      fd: stays open here, and may be closed as soon as this is called.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what fits now.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT, there was no room in time; nothing was sent.
      OSError: EBADF, no such handle, or it was closed meanwhile, or `fd` is not open; EBUSY, another task is sending;
        ECONNRESET, the connection is broken; EINVAL, `fd` is negative, or the deadline is and not -1; EMFILE;
        ENOTSUP, not a unix-domain connection; EPIPE, after `ipc_done`; ETOOMANYREFS, unix(7).
      TypeError: an argument has the wrong type.

    libdill: ipc_sendfd(3).
    """
    connection = await find(s, IpcConnection)
    deadline = check_deadline(deadline)
    if fd.__class__ is int and fd < 0:
        raise failure(errno.EINVAL, f"a descriptor is not negative, got {fd}")
    if code := connection.outgoing.refusal():
        await refuse(code, f"sending on handle {s}")
    with connection.outgoing:
        await connection.stream.send_fd(fd, deadline)
    return 0


@enable_ki_protection  # Ctrl-C cannot come between a descriptor that has come and its owner
async def ipc_recvfd(s: int, deadline: int) -> int:
    """Receive a file descriptor, and own it; children do not inherit it.

    It has its place between the bytes: receive exactly those before it first.

    Args:
      s: the handle of a unix-domain connection.
      deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

    Returns:
      The descriptor.

    Raises:
      DeadlineExceeded: ETIMEDOUT, none came in time.
      OSError: EBADF, no such handle, or it was closed meanwhile; EBUSY, another task is receiving; ECONNRESET, the
        connection is broken; EINVAL, the deadline is negative and not -1; EMFILE, there was no room for it, and it is
        lost; ENOTSUP, not a unix-domain connection; EPIPE, the peer ended the stream; EPROTO, what comes next is a
        plain byte, which can still be received.
      TypeError: an argument has the wrong type.

    libdill: ipc_recvfd(3).
    """
    connection = await find(s, IpcConnection)
    deadline = check_deadline(deadline)
    if code := connection.incoming.refusal():
        await refuse(code, f"receiving on handle {s}")
    with connection.incoming:
        return await connection.stream.receive_fd(deadline)
