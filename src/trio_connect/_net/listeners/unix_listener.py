"""`unix_listen` and what it returns."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, final

from trio import current_time
from trio.lowlevel import checkpoint, enable_ki_protection

from ..._messages import connect_error
from ..sockets.families import OverUnix
from ..sockets.open import open_stream_socket
from ..sockets.stream_socket import StreamSocket, errno_of
from ..sockets.unix_path import UnixPath, check_path, show_path, too_long, unix_family
from ..streams.unix_stream import UnixStream
from .bound_path import BoundPath, check_mode, set_mode_after_bind, set_mode_before_bind
from .socket_listener import SocketListener, check_backlog

if TYPE_CHECKING:
    from ..._report import Phase

__all__ = ["UnixListener", "listen_on_path", "unix_listen"]


@final
class UnixListener(OverUnix, SocketListener[UnixStream, str | bytes]):
    """A listening unix-domain socket. Made by `unix_listen`; closing it removes the path that it made."""

    __slots__ = ("_made",)

    def __init__(self, sock: StreamSocket, name: str | bytes, made: BoundPath | None = None) -> None:
        super().__init__(sock, name)
        self._made = made

    @property
    def path(self) -> str | bytes:
        """Where it listens."""
        return self._name

    def _stream(self, sock: StreamSocket, name: Any) -> UnixStream:
        return UnixStream(sock, name)

    def _close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.remove()
        super()._close()


@enable_ki_protection  # Ctrl-C cannot come between making a path and the code that removes it
async def unix_listen(path: UnixPath, *, backlog: int | None = None, mode: int | None = None) -> UnixListener:
    """Listen on a unix-domain socket. A checkpoint; never waits.

    A path that exists is an error and is left alone: only its owner can know whether it is in use. Closing the
    listener removes the path, unless another socket has taken its place; also when the program has changed its
    directory since.

    Args:
      path: where; a first NUL byte means Linux's abstract namespace.
      backlog: how many connections may wait to be accepted, see listen(2); None for as many as the system allows.
      mode: who may connect, the permission bits of the path such as 0o660 (connecting needs the right to write, see
        unix(7)). On Linux the path never has more rights than these; elsewhere not once anybody can connect. None
        leaves it to the umask.

    Returns:
      The listener; closing it removes the path.

    Raises:
      OSError: EADDRINUSE, the path exists; ENOENT, its folder does not; EACCES, ENAMETOOLONG.
      TypeError: an argument has the wrong type.
      ValueError: the path is empty, the backlog negative, the mode not from 0 to 0o777 or given for an abstract name.
    """
    return await listen_on_path(path, backlog, mode, remove=True)


def _give_up(sock: StreamSocket | None, made: BoundPath | None) -> None:
    if made is not None:
        made.remove()
    if sock is not None:
        sock.close()


@enable_ki_protection
async def listen_on_path(path: UnixPath, backlog: int | None, mode: int | None = None, *, remove: bool) -> UnixListener:
    """Listen; `remove` says whether closing removes the path."""
    address = check_path(path)
    size = check_backlog(backlog)
    mode = check_mode(mode, address)
    await checkpoint()
    started = current_time()
    phase: Phase = "socket"
    sock: StreamSocket | None = None
    made: BoundPath | None = None
    try:
        family = unix_family()
        sock = open_stream_socket(family, listening=True)
        phase = "bind"
        if too_long(address):
            raise OSError(errno.ENAMETOOLONG, "")
        if mode is not None:
            set_mode_before_bind(sock, mode)
        await sock.bind(address)
        made = BoundPath.find(address)
        if mode is not None:
            set_mode_after_bind(address, mode)
        sock.listen(size)
    except OSError as exc:
        _give_up(sock, made)
        where = show_path(address)
        raise connect_error(errno_of(exc), phase, where, "this machine", current_time() - started) from None
    except BaseException:
        _give_up(sock, made)
        raise
    return UnixListener(sock, address, made if remove else None)
