"""What a queue has open: one socket of one kind, and what can be done with it.

No state is checked here and no two calls of one direction overlap: the queue above sees to both. Everything fails with
an `OSError` that names the endpoint, because that is what a result holds.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NoReturn, TypeVar, cast, final

import trio
from trio import current_time

from .._endpoint import Endpoint, Source, as_endpoint, check_connectable
from .._errors import DeadlineExceeded, connect_error, strerror
from .._net import sockopts
from .._net.attempt import PENDING, begin, describe_source, failure, finish, open_socket, sockaddr_of
from .._net.datagram import DatagramSocket
from .._net.factory import FactorySocket, LocalFailure, errno_of, factory_installed
from .._net.listener import TcpListener, new_listening_socket, set_options
from .._net.raw import RawSocket, new_socket
from .._net.stream import TcpStream
from .._net.tcp import exceeded
from .._net.unix import (
    UnixListener,
    UnixStream,
    check_path,
    connect_door,
    show_path,
    too_long,
    unix_family,
)
from .._net.waiting import Expired
from .._options import DEFAULT_OPTIONS, SocketOptions
from .._report import EMPTY_REPORT, ConnectReport
from ._states import Kind
from ._values import Address

if TYPE_CHECKING:
    from .._net.attempt import Door
    from .._report import Phase
    from ._engine import Operation

S = TypeVar("S", TcpStream, UnixStream)

# Trouble of this machine, accept(2): whoever connected is not to blame.
_LOCAL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def show(address: Address | None) -> str:
    """Return an address for a message."""
    return show_path(address) if isinstance(address, str | bytes) else str(address)


def _error(code: int, what: str, address: Address | None) -> OSError:
    prefix = "local: " if code in _LOCAL else ""
    return OSError(code, f"{prefix}{what} {show(address)}: {strerror(code)}")


def _raise_broken(what: str, peer: Address, exc: trio.BrokenResourceError) -> NoReturn:
    cause = exc.__cause__
    code = errno_of(cause) if isinstance(cause, OSError) else errno.EIO
    raise _error(code, what, peer) from None


class Transport(ABC):
    """What every kind of queue can be asked; what a kind cannot do, its table of states refuses before."""

    kind: ClassVar[Kind]

    peer: Address | None = None

    @property
    @abstractmethod
    def local(self) -> Address | None:
        """The local address, None as long as there is none."""

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
    async def connect(self, target: Any, until: float, operation: Operation) -> bool:
        """Connect; False when the operation's scope was cancelled.

        After that, as after an exception, nothing is open, neither what was bound before.

        Args:
          target: where to.
          until: when to give up, in Trio time.
          operation: to wait in its scope.
        """

    @abstractmethod
    async def push(self, data: memoryview) -> None:
        """Send all of it."""

    @abstractmethod
    async def pop(self, size: int) -> tuple[bytes, Address]:
        """Receive what comes, and from whom."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is open; never waits for a peer. The caller shields it from cancellation."""


class StreamTransport(Transport, Generic[S]):
    """What TCP and unix-domain queues have in common."""

    kind = "stream"

    def __init__(self, stream: S | None = None) -> None:
        self._stream: S | None = stream
        self._local: Address | None = None
        self._name: Any = None
        """The local address as the socket gave it."""
        self._door: Door | None = None
        self._listener: TcpListener | UnixListener | None = None
        if stream is not None:
            self.peer = stream.peer

    @abstractmethod
    def _open(self, target: Any) -> Door: ...

    @staticmethod
    @abstractmethod
    def _address(name: Any) -> Address: ...

    @abstractmethod
    def _bind_address(self, target: Any) -> Any: ...

    @abstractmethod
    def _wrap(self, door: Door, target: Any) -> TcpListener | UnixListener: ...

    @abstractmethod
    async def _connect(self, target: Any, until: float, operation: Operation) -> S | None:
        """Connect the door, or a new one; it is in `_door` as long as it is not closed."""

    @abstractmethod
    def accepted(self, stream: S) -> StreamTransport[S]:
        """Return the transport of an accepted connection."""

    async def bind(self, target: Any) -> None:
        started = current_time()
        phase: Phase = "socket"
        door: Door | None = None
        try:
            address = self._bind_address(target)
            door = self._open(target)
            phase = "bind"
            if isinstance(door, RawSocket):
                door.bind(address)
            else:
                await door.trio_socket().bind(address)
            self._listener = self._wrap(door, target)
        except OSError as exc:
            if door is not None:
                door.close()
            raise connect_error(errno_of(exc), phase, show(target), "this machine", current_time() - started) from None
        except BaseException:
            if door is not None:
                door.close()
            raise
        self._door = door

    def listen(self, backlog: int) -> None:
        """Listen on the socket that is bound.

        Raises:
          OSError: EADDRINUSE, somebody else listens there.
        """
        assert self._door is not None
        try:
            self._door.listen(backlog)
        except OSError as exc:
            code = errno_of(exc)
            raise OSError(code, f"local: listen on {show(self.local)}: {strerror(code)}") from None

    async def connect(self, target: Any, until: float, operation: Operation) -> bool:
        adopted = False
        try:
            # A connect that need not wait never looks at its scope.
            stream = None if operation.cancelled else await self._connect(target, until, operation)
            if stream is not None:
                assert self._door is not None
                self._name = self._door.getsockname()
                self._local = self._door = None
                self._adopt(stream)
                adopted = True
        finally:
            if not adopted:
                await self._forget()
        return adopted

    async def _forget(self) -> None:
        door, listener = self._door, self._listener
        self._door = self._listener = self._local = None
        if door is not None:
            door.close()
        if listener is not None:
            with trio.CancelScope(shield=True):
                await listener.aclose()

    def _adopt(self, stream: S) -> None:
        self._stream = stream
        self.peer = stream.peer

    @property
    def local(self) -> Address | None:
        if self._local is None:
            if self._name is not None:
                self._local = self._address(self._name)
            elif self._stream is not None and self._stream.fileno() != -1:
                self._local = self._stream.local
        return self._local

    @property
    def report(self) -> ConnectReport:
        return EMPTY_REPORT if self._stream is None else self._stream.report

    async def accept(self) -> tuple[StreamTransport[S], Address]:
        """Accept one connection."""
        assert self._listener is not None
        try:
            stream = cast("S", await self._listener.accept())
        except OSError as exc:
            raise _error(errno_of(exc), "accept on", self.local) from None
        return self.accepted(stream), stream.peer

    async def push(self, data: memoryview) -> None:
        assert self._stream is not None
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as exc:
            _raise_broken("push to", self._stream.peer, exc)

    async def pop(self, size: int) -> tuple[bytes, Address]:
        assert self._stream is not None
        peer = self._stream.peer
        try:
            return await self._stream.receive_some(size), peer
        except trio.BrokenResourceError as exc:
            _raise_broken("pop from", peer, exc)

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
        if self._listener is not None:
            await self._listener.aclose()


@final
class TcpTransport(StreamTransport[TcpStream]):
    """A TCP connection or listener."""

    def __init__(self, options: SocketOptions = DEFAULT_OPTIONS, stream: TcpStream | None = None) -> None:
        super().__init__(stream)
        self._options = options

    def check_target(self, value: Any, *, passive: bool) -> Endpoint:
        endpoint = as_endpoint(value)
        if not passive:
            check_connectable(endpoint)
            if self._door is not None:
                _check_family(self.local, endpoint)
        return endpoint

    def _open(self, target: Endpoint) -> Door:
        family = target.family
        plan = sockopts.listening(self._options, family)
        door = FactorySocket.make(family) if factory_installed() else RawSocket(new_listening_socket(family))
        try:
            set_options(door, plan, self._options)
        except BaseException:
            door.close()
            raise
        return door

    @staticmethod
    def _address(name: Any) -> Endpoint:
        return as_endpoint(tuple(name))

    def _bind_address(self, target: Endpoint) -> Any:
        return sockaddr_of(target)

    def _wrap(self, door: Door, target: Endpoint) -> TcpListener:  # noqa: ARG002
        self._local = name = as_endpoint(tuple(door.getsockname()))
        return TcpListener(door, name, self._options)

    async def _connect(self, target: Endpoint, until: float, operation: Operation) -> TcpStream | None:
        source = None if self._door is None else _source_of(cast("Endpoint", self.local))
        started = current_time()
        try:
            door = self._door
            if door is None:
                factory = factory_installed()
                self._door = door = open_socket(target, None, self._options, factory=factory)
            code = begin(door, target, source)
            if code == PENDING:
                with operation.scope():
                    code = await finish(door, target, source, until)
                if code == PENDING:
                    return None
        except LocalFailure as exc:
            raise failure(exc.code, exc.phase, None, target, source, current_time() - started) from None
        except Expired:
            raise exceeded(target, source, describe_source(self._door, target, source), started, until) from None
        if code:
            raise failure(code, "connect", door, target, source, current_time() - started)
        return TcpStream(door, target, (((source, target),), (), started, current_time()))

    def adopt(self, stream: TcpStream) -> None:
        """Own a connection that somebody else made."""
        self._adopt(stream)
        self._local = stream.local

    def accepted(self, stream: TcpStream) -> TcpTransport:
        return TcpTransport(self._options, stream)


def _check_family(local: Address | None, endpoint: Endpoint) -> None:
    if isinstance(local, Endpoint) and local.family != endpoint.family:
        raise OSError(errno.EAFNOSUPPORT, f"{endpoint} cannot be reached from {local}, another address family")


def _source_of(local: Endpoint) -> Source:
    host = local.host if local.host not in ("0.0.0.0", "::") else None
    if ":" not in local.host:
        return Source(ipv4=host, port=local.port)
    return Source(ipv6=f"{host}%{local.scope_id}" if local.scope_id else host, port=local.port)


@final
class UnixTransport(StreamTransport[UnixStream]):
    """A unix-domain connection or listener; what it bound is removed when it is closed."""

    def check_target(self, value: Any, *, passive: bool) -> str | bytes:  # noqa: ARG002
        return check_path(value)

    def _open(self, target: str | bytes) -> Door:  # noqa: ARG002
        family = unix_family()
        return FactorySocket.make(family) if factory_installed() else RawSocket(new_listening_socket(family))

    @staticmethod
    def _address(name: Any) -> str | bytes:
        return name  # type: ignore[no-any-return]

    def _bind_address(self, target: str | bytes) -> str | bytes:
        if too_long(target):
            raise OSError(errno.ENAMETOOLONG, "")
        return target

    def _wrap(self, door: Door, target: str | bytes) -> UnixListener:
        self._local = target
        listener = UnixListener(door, target)
        listener.own_path()
        return listener

    async def _connect(self, target: str | bytes, until: float, operation: Operation) -> UnixStream | None:
        started = current_time()
        where = "this machine" if self._door is None else show(self.local)
        door = self._door
        if door is None:
            try:
                family = unix_family()
                door = FactorySocket.make(family) if factory_installed() else RawSocket(new_socket(family))
            except OSError as exc:
                elapsed = current_time() - started
                raise connect_error(errno_of(exc), "socket", show(target), where, elapsed) from None
            self._door = door
        code = PENDING
        try:
            with operation.scope():
                code = await connect_door(door, target, until)
        except Expired:
            what = f"connect to {show(target)}, whose backlog is full,"
            raise DeadlineExceeded.during(what, current_time() - started, until) from None
        if code == PENDING:
            return None
        if code:
            raise connect_error(code, "connect", show(target), where, current_time() - started)
        return UnixStream(door, target)

    def accepted(self, stream: UnixStream) -> UnixTransport:
        return UnixTransport(stream)


@final
class DatagramTransport(Transport):
    """A UDP socket."""

    kind = "datagram"

    def __init__(self) -> None:
        self._sock: DatagramSocket | None = None
        self._local: Endpoint | None = None

    def check_target(self, value: Any, *, passive: bool) -> Endpoint:
        endpoint = as_endpoint(value)
        if not passive:
            check_connectable(endpoint)
            _check_family(self.local, endpoint)
        return endpoint

    def open_for(self, endpoint: Endpoint) -> DatagramSocket:
        """Return the socket, made now if there is none.

        Raises:
          OSError: there could be none.
        """
        if self._sock is None:
            try:
                self._sock = DatagramSocket(endpoint.family)
            except OSError as exc:
                raise connect_error(errno_of(exc), "socket", endpoint, "this machine", 0.0) from None
        return self._sock

    async def bind(self, target: Endpoint) -> None:
        started = current_time()
        sock = self.open_for(target)
        try:
            await sock.bind(sockaddr_of(target))
            self._local = as_endpoint(tuple(sock.getsockname()))
        except OSError as exc:
            self._drop()
            raise connect_error(errno_of(exc), "bind", target, "this machine", current_time() - started) from None
        except BaseException:
            self._drop()
            raise

    async def connect(self, target: Endpoint, until: float, operation: Operation) -> bool:  # noqa: ARG002 - never waits
        started = current_time()
        sock = self.open_for(target)
        done = False
        try:
            with operation.scope():
                await sock.connect(sockaddr_of(target))
                done = True
            if not done:
                self._drop()
                return False
            self._local, self.peer = as_endpoint(tuple(sock.getsockname())), target
        except OSError as exc:
            where = "any address" if self.local is None else show(self.local)
            self._drop()
            raise connect_error(errno_of(exc), "connect", target, where, current_time() - started) from None
        except BaseException:
            self._drop()
            raise
        return True

    async def push(self, data: memoryview) -> None:
        assert self._sock is not None
        try:
            await self._sock.send(data)
        except OSError as exc:
            raise _error(errno_of(exc), "push to", self.peer) from None

    async def push_to(self, data: memoryview, endpoint: Endpoint) -> None:
        """Send one datagram."""
        assert self._sock is not None
        try:
            await self._sock.send_to(data, sockaddr_of(endpoint))
        except OSError as exc:
            raise _error(errno_of(exc), "push to", endpoint) from None

    async def pop(self, size: int) -> tuple[bytes, Address]:
        assert self._sock is not None
        try:
            data, sender = await self._sock.receive(size)
        except OSError as exc:
            raise _error(errno_of(exc), "pop from", self.peer or self.local) from None
        return data, as_endpoint(tuple(sender))

    @property
    def local(self) -> Endpoint | None:
        if self._local is None and self._sock is not None:
            try:
                name = as_endpoint(tuple(self._sock.getsockname()))
            except OSError:  # closed, or a fake that is not bound
                return None
            if name.port:
                self._local = name
        return self._local

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        self._local = None
        if sock is not None:
            sock.close()

    async def aclose(self) -> None:
        if self._sock is not None:
            self._local = self.local  # nobody can be asked afterwards
            self._sock.close()
