"""`SocketListener`: what `TcpListener` and `UnixListener` have in common."""

from __future__ import annotations

import errno
import socket
from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio
from trio import current_time
from trio.lowlevel import checkpoint, enable_ki_protection

from ..._check import check_int
from ..._deadline import to_seconds
from ..._messages import call_exceeded, call_late
from ..._text import printable, shown
from ..sockets.families import OverSocket
from ..sockets.open import adopt
from ..sockets.stream_socket import StreamSocket, close_on_error
from ..sockets.waiting import Expired
from ..streams.byte_stream import ByteStream

if TYPE_CHECKING:
    from typing import Self


A = TypeVar("A")
S = TypeVar("S", bound="ByteStream[Any]", covariant=True)  # noqa: PLC0105

_MAX_BACKLOG: Final = 65535  # Linux clamps to net.core.somaxconn, listen(2); more than 16 bits once wrapped around


def check_backlog(backlog: object) -> int:
    """Return the number for listen(2), or say what is wrong with it."""
    if backlog is None:
        return _MAX_BACKLOG
    number = check_int(backlog, "backlog", "an int or None")
    if number < 0:
        raise ValueError(f"backlog must be at least 0, got {shown(number)}")
    return min(number, _MAX_BACKLOG)


class SocketListener(OverSocket, trio.abc.Listener[S], Generic[S, A]):
    """What `TcpListener` and `UnixListener` have in common."""

    __slots__ = ("__weakref__", "_accepting", "_closed", "_name", "_sock")

    def __init__(self, sock: StreamSocket, name: A) -> None:
        if not isinstance(sock, StreamSocket):
            raise TypeError(f"{type(self).__name__} is made by listening or from_socket(), not directly")
        self._sock: Final = sock
        self._name = name
        self._accepting = self._closed = False

    @classmethod
    def from_socket(cls, sock: trio.socket.SocketType | socket.socket) -> Self:
        """Make a listener of a listening socket, such as one passed in by a service manager, and own it.

        Args:
          sock: Trio's kind or the standard library's; the latter becomes non-blocking. A socket that is refused stays
            as it was, and the caller's.

        Returns:
          The listener.

        Raises:
          TypeError: not a socket, or one of a subclass, such as an `ssl.SSLSocket`.
          ValueError: not a stream socket, of another family, or not listening.
        """
        cls._check_socket(sock, listening=True)
        name = cls._address(sock.getsockname())
        return cls(adopt(sock), name)

    @abstractmethod
    def _stream(self, sock: StreamSocket, name: Any) -> S: ...

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket beneath, still owned by the listener."""
        self._check_open()
        return self._sock.trio_socket()

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed. Closing the listener wakes tasks that wait on it through Trio."""
        return -1 if self._closed else self._sock.share_fileno()

    @enable_ki_protection  # Ctrl-C cannot come between a connection and the stream that owns it
    async def accept(self, deadline: int = -1) -> S:
        """Accept one connection.

        Connections that died while they waited are skipped, as accept(2) says: their clients gave up, or a firewall
        forbids them (ECONNABORTED, EPROTO, EPERM and the others that `trio.SocketListener` skips).

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for one that already waits.

        Returns:
          The stream; its `peer` is the client.

        Raises:
          DeadlineExceeded: no client connected in time.
          OSError: EMFILE, ENFILE, ENOBUFS or ENOMEM as they come, nothing was accepted; `trio.serve_listeners`
            waits a little and tries again.
          trio.BusyResourceError: another task is accepting.
          trio.ClosedResourceError: this listener was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        self._check_open()
        if self._accepting:
            raise trio.BusyResourceError(f"another task is accepting from {self._named()}")
        started = current_time()
        if -inf < until <= started:
            await checkpoint()
            raise call_late(f"accept on {printable(str(self._name))}", started - until)
        self._accepting = True
        try:
            sock, name = await self._sock.accept(until)
        except Expired:
            what = f"accept on {printable(str(self._name))}"
            raise call_exceeded(what, current_time() - started) from None
        except OSError as exc:
            if self._closed or exc.errno == errno.EBADF:  # EBADF: closed through .socket
                raise trio.ClosedResourceError(f"{self._named()} was closed by another task") from None
            raise
        finally:
            self._accepting = False
        with close_on_error(sock):
            return self._stream(sock, name)

    @enable_ki_protection  # as that of a stream
    async def aclose(self) -> None:
        """Stop listening. Connections that were not accepted get RST. A second call does nothing."""
        self._close()
        await checkpoint()

    @enable_ki_protection
    def close(self) -> None:
        """Do what `aclose` does, for callers that cannot await. A second call does nothing."""
        self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._accepting and not self._sock.shared:  # else closing does
                self._sock.wake()
            self._sock.close()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError(f"{self._named()} is closed")

    def _named(self) -> str:
        """Return what a message calls this."""
        return f"the listener on {printable(str(self._name))}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {printable(str(self._name))}{' (closed)' if self._closed else ''}>"
