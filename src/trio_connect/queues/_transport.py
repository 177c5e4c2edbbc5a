"""The socket of a queue, by kind, and what can be done with it.

The queue checks its state, and never makes two calls of one direction at a time. So nothing here checks either. Every
failure is an `OSError` that names the endpoint, because that is what a result contains.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Protocol, TypeVar, cast

import trio
from trio import current_time

from .._endpoint import Endpoint
from .._engine.shortage import SHORTAGE
from .._messages import connect_error, own_words, strerror
from .._net.listeners.tcp_listener import TcpListener
from .._net.listeners.unix_listener import UnixListener
from .._net.sockets.kernel_socket import KernelSocket
from .._net.sockets.stream_socket import close_on_error, errno_of
from .._net.sockets.unix_path import show_path
from .._net.streams.tcp_stream import TcpStream
from .._net.streams.unix_stream import UnixStream
from .._options import DEFAULT_OPTIONS
from .._report import EMPTY_REPORT
from ._states import Kind
from ._values import Address

if TYPE_CHECKING:
    from socket import SocketType

    from .._net.sockets.stream_socket import StreamSocket
    from .._options import SocketOptions
    from .._report import ConnectReport, Phase

S = TypeVar("S", TcpStream, UnixStream)


def show(address: Address | None) -> str:
    """Return an address for a message."""
    return show_path(address) if isinstance(address, str | bytes) else str(address)


def error(code: int, what: str, address: Address | None, own: Address | None = None) -> OSError:
    """Return the error of an operation, with a text that names the operation and the peer.

    Args:
      code: its errno.
      what: the operation.
      address: the peer's; a unix-domain client has none.
      own: that of our end, which tells then.
    """
    prefix = "local: " if code in SHORTAGE else ""
    whom = show(address) or (f"a client of {show(own)}" if own else "a peer without a name")
    return OSError(code, f"{prefix}{what} {whom}: {strerror(code)}")


def raise_broken(what: str, peer: Address, own: Address | None, exc: trio.BrokenResourceError) -> NoReturn:
    """Raise the cause of a broken connection as the error of an operation."""
    cause = exc.__cause__
    code = errno_of(cause) if isinstance(cause, OSError) else errno.EIO
    raise error(code, what, peer, own) from None


def check_family(local: Address | None, endpoint: Endpoint) -> None:
    """Refuse an endpoint that cannot be reached from what is bound."""
    if isinstance(local, Endpoint) and local.family != endpoint.family:
        raise OSError(errno.EAFNOSUPPORT, f"{endpoint} cannot be reached from {local}, another address family")


class Cancellable(Protocol):
    """What a connect needs to know of its operation."""

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled before it began to wait."""
        ...

    def scope(self) -> trio.CancelScope:
        """Return the scope to wait in."""
        ...


class Transport(ABC):
    """What every kind of queue offers. The table of states refuses what a kind cannot do."""

    __slots__ = ("_peer",)

    kind: ClassVar[Kind]

    def __init__(self) -> None:
        self._peer: Address | None = None

    @property
    def peer(self) -> Address | None:
        """What it is or was connected to; None if it never was."""
        return self._peer

    @property
    @abstractmethod
    def local(self) -> Address | None:
        """The local address; None before there is a socket."""

    @property
    def report(self) -> ConnectReport:
        """How the connection was made."""
        return EMPTY_REPORT

    @abstractmethod
    def check_target(self, value: Any, *, passive: bool) -> Any:
        """Return an address to bind to (passive) or to reach, or say what is wrong with it.

        Raises:
          OSError: EAFNOSUPPORT, what this is bound to cannot reach it.
          TypeError: it is no address of this kind.
          ValueError: likewise.
        """

    @abstractmethod
    async def bind(self, target: Any) -> None:
        """Make a socket and bind it."""

    @abstractmethod
    async def connect(self, target: Any, until: float, operation: Cancellable) -> bool:
        """Connect; False when the operation's scope was cancelled.

        After False, as after an exception, no socket is open: one that was bound before is closed too.

        Args:
          target: where to.
          until: when to give up, in Trio time.
          operation: whose scope to wait in.
        """

    @abstractmethod
    async def push(self, data: memoryview) -> None:
        """Send all of it."""

    @abstractmethod
    async def pop(self, size: int) -> tuple[bytes, Address, bool]:
        """Return the data, its sender, and whether a datagram was longer than `size`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the socket. Never waits for the peer. The caller shields this from cancellation."""

    @abstractmethod
    def close_now(self) -> bool:
        """Close the socket, where nothing has to be awaited for that. Return False, and do nothing, where it has."""

    @property
    @abstractmethod
    def kernel_socket(self) -> SocketType | None:
        """The socket, for a reactor to wait for; None where it has not been made, or its operations need tasks."""


class StreamTransport(Transport, Generic[S]):
    """What TCP and unix-domain queues have in common."""

    __slots__ = ("_ended", "_listener", "_local", "_name", "_peer_name", "_report", "_stream", "options", "sock")

    kind = "stream"

    def __init__(self, options: SocketOptions = DEFAULT_OPTIONS, stream: S | None = None) -> None:
        self.options = options
        """What is set on the socket; a unix-domain one has none of them."""
        self._peer = None if stream is None else stream.peer
        self._peer_name: Any = None
        """The address of an accepted peer, as the socket gave it."""
        self._stream: S | None = stream
        self._local: Address | None = None
        self._name: Any = None
        """The local address as the socket gave it."""
        self.sock: StreamSocket | None = None
        """Bound, connecting, or connected over a reactor; what a task has connected is in the stream."""
        self._report: ConnectReport | None = None
        """Of what a reactor has connected, made when somebody looks."""
        self._listener: TcpListener | UnixListener | None = None
        self._ended: float | None = None
        """When a reactor had connected it, None for what was made otherwise."""

    @abstractmethod
    def _open(self, target: Any) -> StreamSocket: ...

    @staticmethod
    @abstractmethod
    def _address(name: Any) -> Address: ...

    @abstractmethod
    def _bind_address(self, target: Any) -> Any: ...

    @abstractmethod
    def _wrap(self, sock: StreamSocket, target: Any) -> TcpListener | UnixListener: ...

    @abstractmethod
    async def _connect(self, target: Any, until: float, operation: Cancellable) -> S | None:
        """Connect the socket, or a new one; it is in `sock` as long as it is not closed."""

    @abstractmethod
    def accepted(self, stream: S | None = None) -> StreamTransport[S]:
        """Return the transport of a connection that a task has accepted; without a stream, one without a connection."""

    def take_accepted(self, sock: SocketType, name: Any) -> StreamTransport[S]:
        """Return the transport of a connection that a reactor has accepted.

        Args:
          sock: of the connection.
          name: the address of the peer, as the socket gave it.
        """
        transport = self.accepted()
        transport.sock = KernelSocket(sock)
        transport._peer_name = name  # noqa: SLF001 - of its own class
        return transport

    @property
    def peer(self) -> Address | None:
        if self._peer is None and self._peer_name is not None:
            self._peer = self._address(self._peer_name)
        return self._peer

    async def bind(self, target: Any) -> None:
        started = current_time()
        phase: Phase = "socket"
        try:
            address = self._bind_address(target)
            sock = self._open(target)
            with close_on_error(sock):
                phase = "bind"
                await sock.bind(address)
                self._listener = self._wrap(sock, target)
        except OSError as exc:
            where = target if isinstance(target, Endpoint) else show(target)
            raise connect_error(
                errno_of(exc), phase, where, "this machine", current_time() - started, own_words(exc)
            ) from None
        self.sock = sock

    def listen(self, backlog: int) -> None:
        """Listen on the socket that is bound.

        Raises:
          OSError: EADDRINUSE, another socket listens there.
        """
        assert self.sock is not None
        try:
            self.sock.listen(backlog)
        except OSError as exc:
            code = errno_of(exc)
            raise OSError(code, f"local: listen on {show(self.local)}: {strerror(code)}") from None

    async def connect(self, target: Any, until: float, operation: Cancellable) -> bool:
        adopted = False
        try:
            # A connect that need not wait never enters its scope, so a cancel is looked for here.
            stream = None if operation.cancelled else await self._connect(target, until, operation)
            if stream is not None:
                assert self.sock is not None
                self._name = self.sock.getsockname()
                self._local = self.sock = None
                self._adopt(stream)
                adopted = True
        finally:
            if not adopted:
                self.forget()
        return adopted

    def forget(self) -> None:
        """Close what a connect that failed has left: a socket that was bound before, too."""
        sock, listener = self.sock, self._listener
        self.sock = self._listener = self._local = None
        if sock is not None:
            sock.close()
        if listener is not None:
            listener.close()

    def _adopt(self, stream: S) -> None:
        self._stream = stream
        self._peer = stream.peer

    @property
    def local(self) -> Address | None:
        if self._local is None:
            if self._name is not None:
                self._local = self._address(self._name)
            elif self._stream is not None:
                try:
                    self._local = self._stream.local
                except trio.ClosedResourceError:
                    pass
            elif self.sock is not None:
                try:
                    self._local = self._address(self.sock.getsockname())
                except OSError:  # closed before anybody asked
                    pass
        return self._local

    @property
    def report(self) -> ConnectReport:
        return EMPTY_REPORT if self._stream is None else self._stream.report

    @property
    def kernel_socket(self) -> SocketType | None:
        sock = self.sock
        return sock.raw if isinstance(sock, KernelSocket) else None

    async def accept(self) -> StreamTransport[S]:
        """Accept one connection."""
        assert self._listener is not None
        try:
            stream = cast("S", await self._listener.accept())
        except OSError as exc:
            raise error(errno_of(exc), "accept on", self.local) from None
        return self.accepted(stream)

    async def push(self, data: memoryview) -> None:
        assert self._stream is not None
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as exc:
            raise_broken("push to", self._stream.peer, self.local, exc)

    async def pop(self, size: int) -> tuple[bytes, Address, bool]:
        assert self._stream is not None
        peer = self._stream.peer
        try:
            return await self._stream.receive_some(size), peer, False
        except trio.BrokenResourceError as exc:
            raise_broken("pop from", peer, self.local, exc)

    async def aclose(self) -> None:
        try:
            if self._stream is not None:
                await self._stream.aclose()
            elif isinstance(self.sock, KernelSocket):
                try:
                    await self.sock.discard()
                finally:
                    self.sock.close()
        finally:
            if self._listener is not None:
                await self._listener.aclose()

    def close_now(self) -> bool:
        sock = self.sock
        if self._stream is not None or self._listener is not None:
            return False
        if sock is not None:
            if not isinstance(sock, KernelSocket) or sock.unread():
                return False
            sock.close()
        return True
