"""What the TCP and the unix-domain names have in common: accepting, half-closing, closing, wrapping descriptors."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from trio.lowlevel import checkpoint, notify_closing

from .._check import check_int
from ._failures import check_deadline, failure, refuse
from ._handles import remove
from ._kinds import Connection, Listening

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

T = TypeVar("T")


def check_backlog(backlog: object) -> int | None:
    """Return the backlog as our listeners take it. To the kernel a negative one means "as many as allowed"."""
    number = check_int(backlog, "backlog")
    return None if number < 0 else number


async def accept(listening: Listening[Any], s: int, deadline: int) -> Any:
    """Accept a stream."""
    deadline = check_deadline(deadline)
    if listening.accepting.busy:
        await refuse(errno.EBUSY, f"another task accepts from handle {s}")
    with listening.accepting:
        return await listening.listener.accept(deadline)


async def done(connection: Connection[Any], s: int, deadline: int) -> int:
    """Half-close."""
    deadline = check_deadline(deadline)
    if code := connection.outgoing.refusal():
        await refuse(code, f"ending the outgoing direction of handle {s}")
    with connection.outgoing:
        await connection.stream.send_eof()
    connection.outgoing.done = True
    return 0


async def close(thing: Connection[Any] | Listening[Any], s: int, deadline: int) -> int:
    """Close gracefully. Once the checks have passed the handle is gone, whatever happens."""
    deadline = check_deadline(deadline)
    remove(s)
    if isinstance(thing, Listening):
        thing.close()
        await checkpoint()
        return 0
    incoming, outgoing = thing.incoming, thing.outgoing
    if incoming.broken or outgoing.broken:
        thing.close()
        await refuse(errno.ECONNRESET, f"handle {s} was broken already")
    if outgoing.busy:
        # A FIN after half of what that task sends would look to the peer like the end of a complete stream.
        thing.close()
        await refuse(errno.ECONNRESET, f"handle {s} was reset, because another task was still sending on it")
    try:
        await thing.stream.close_gracefully(deadline)
    except trio.BrokenResourceError as exc:
        raise failure(errno.ECONNRESET, str(exc)) from exc
    return 0


def wrap(make: Callable[[socket.socket], T], fd: int, families: Collection[int], *, listener: bool) -> T:
    """Make a stream or listener of a descriptor, and take the descriptor over.

    Raises:
      OSError: EBADF, EINVAL, ENOTSOCK, ENOTCONN, EMFILE; the caller then keeps the descriptor as it was.
      TypeError: not an int.
    """
    check_int(fd, "fd", "a file descriptor, an int")
    if fd < 0:
        raise failure(errno.EINVAL, f"a descriptor is not negative, got {fd}")
    try:
        mode = os.fstat(fd).st_mode
    except (OSError, OverflowError):
        raise failure(errno.EBADF, f"descriptor {fd} is not open") from None
    if not stat.S_ISSOCK(mode):
        raise failure(errno.ENOTSOCK, f"descriptor {fd}")
    sock = socket.socket(fileno=os.dup(fd))
    try:
        # Checked before `make`, which makes the socket non-blocking: the caller's descriptor shares that flag.
        if sock.type != socket.SOCK_STREAM or sock.family not in families or _is_listening(sock, listener) != listener:
            kind = "listening" if listener else "connected"
            raise failure(errno.EINVAL, f"descriptor {fd} is not a {kind} stream socket of this family")
        if not listener:
            sock.getpeername()
        wrapped = make(sock)
    except BaseException:
        sock.close()
        raise
    notify_closing(fd)
    os.close(fd)
    return wrapped


def _is_listening(sock: socket.socket, unknown: bool) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return unknown  # macOS has no such option: the first accept will tell
