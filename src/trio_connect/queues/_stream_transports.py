"""TCP and unix-domain sockets, as queues use them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, cast, final

from trio import current_time

from .._endpoint import Endpoint, Source, as_endpoint, check_connectable
from .._messages import call_exceeded, connect_error
from .._net.attempt import PENDING, Attempt
from .._net.listeners.bound_path import BoundPath
from .._net.listeners.tcp_listener import TcpListener
from .._net.listeners.unix_listener import UnixListener
from .._net.reports import won_alone
from .._net.sockets import options as sockopts
from .._net.sockets.address import sockaddr_of
from .._net.sockets.open import factory_installed, open_stream_socket, set_options
from .._net.sockets.stream_socket import close_on_error, errno_of
from .._net.sockets.unix_path import check_path, too_long, unix_family
from .._net.sockets.waiting import Expired
from .._net.streams.tcp_stream import TcpStream
from .._net.streams.unix_stream import UnixStream
from .._net.unix import connect_socket
from .._options import DEFAULT_OPTIONS
from .._report import EMPTY_REPORT
from ._transport import Cancellable, StreamTransport, check_family, show

if TYPE_CHECKING:
    from .._net.sockets.stream_socket import StreamSocket
    from .._report import ConnectReport


@final
class TcpTransport(StreamTransport[TcpStream]):
    """A TCP connection or listener."""

    __slots__ = ("_multipath", "_source", "_started")

    _source: Source | None
    _started: float
    _multipath: bytes | None

    def check_target(self, value: Any, *, passive: bool) -> Endpoint:
        endpoint = value if value.__class__ is Endpoint else as_endpoint(value)
        if not passive:
            if not endpoint.port:
                check_connectable(endpoint)
            if self.sock is not None:
                check_family(self.local, endpoint)
        return endpoint

    def _open(self, target: Endpoint) -> StreamSocket:
        family = target.family
        plan = sockopts.listening(self.options, family)
        sock = open_stream_socket(family, listening=True, multipath=self.options.multipath)
        with close_on_error(sock):
            set_options(sock, plan, self.options)
        return sock

    @staticmethod
    def _address(name: Any) -> Endpoint:
        return as_endpoint(tuple(name))

    def _bind_address(self, target: Endpoint) -> Any:
        return sockaddr_of(target)

    def _wrap(self, sock: StreamSocket, target: Endpoint) -> TcpListener:  # noqa: ARG002
        self._local = name = as_endpoint(tuple(sock.getsockname()))
        return TcpListener(sock, name, self.options)

    async def _connect(self, target: Endpoint, until: float, operation: Cancellable) -> TcpStream | None:
        started = current_time()
        bound, source = self.sock, self.bound_to
        attempt = Attempt(target, source, started)
        try:
            if bound is None:
                code = attempt.begin(self.options, factory=factory_installed())
            else:
                code = attempt.begin_over(bound)
        finally:
            self.sock = sock = attempt.sock
        try:
            if code == PENDING and sock is not None and sock.in_kernel:
                code = await attempt.first_poll(may_spin=until > started, operation=operation)
                if operation.cancelled:
                    return None
            if code == PENDING:
                with operation.scope():
                    code = await attempt.finish(until)
                if code == PENDING:
                    return None
        except Expired:
            from .._net.reports import deadline_exceeded

            raise deadline_exceeded(target, source, attempt.origin(), started) from None
        if code:
            raise attempt.error(code)
        assert sock is not None
        multipath = attempt.multipath_info(self.options)
        return TcpStream(sock, target, (((source, target),), {}, started, current_time(), multipath))

    def adopt(self, stream: TcpStream) -> None:
        """Take over a connection that was made elsewhere."""
        self._adopt(stream)
        self._local = stream.local

    def accepted(self, stream: TcpStream | None = None) -> TcpTransport:
        return TcpTransport(self.options, stream)

    @property
    def bound_to(self) -> Source | None:
        """What was bound, as the source of a connect; None for the kernel's choice."""
        return None if self.sock is None else _source_of(cast("Endpoint", self.local))

    def connected(self, attempt: Attempt, ended: float) -> None:
        """Take over what an attempt has connected, by this point in Trio time."""
        sock = attempt.sock
        assert sock is not None
        self.sock = sock
        self._name = sock.getsockname()
        self._local = None
        self._peer = attempt.endpoint
        # In slots of its own: a tuple for each connection would be one more for the garbage collector to look at.
        self._source = attempt.source
        self._started = attempt.started
        self._ended = ended
        options = self.options
        self._multipath = None if options is DEFAULT_OPTIONS else attempt.multipath_info(options)

    @property
    def report(self) -> ConnectReport:
        if self._ended is None:
            return super().report
        if self._report is None:
            pair = self._source, cast("Endpoint", self.peer)
            self._report = won_alone(((pair,), {}, self._started, self._ended, self._multipath))
        return self._report

    @property
    def is_plain_tcp(self) -> bool:
        """Whether its socket is TCP of the plain kind, as far as is known without asking the kernel."""
        return not self.options.multipath


def _source_of(local: Endpoint) -> Source:
    host = local.host if local.host not in ("0.0.0.0", "::") else None
    if ":" not in local.host:
        return Source(ipv4=host, port=local.port)
    return Source(ipv6=f"{host}%{local.scope_id}" if local.scope_id else host, port=local.port)


@final
class UnixTransport(StreamTransport[UnixStream]):
    """A unix-domain connection or listener; what it bound is removed when it is closed."""

    __slots__ = ()

    def check_target(self, value: Any, *, passive: bool) -> str | bytes:  # noqa: ARG002
        return check_path(value)

    def _open(self, target: str | bytes) -> StreamSocket:  # noqa: ARG002
        return open_stream_socket(unix_family(), listening=True)

    @staticmethod
    def _address(name: Any) -> str | bytes:
        return name  # type: ignore[no-any-return]

    def _bind_address(self, target: str | bytes) -> str | bytes:
        if too_long(target):
            raise OSError(errno.ENAMETOOLONG, "")
        return target

    def _wrap(self, sock: StreamSocket, target: str | bytes) -> UnixListener:
        self._local = target
        return UnixListener(sock, target, BoundPath.find(target))

    async def _connect(self, target: str | bytes, until: float, operation: Cancellable) -> UnixStream | None:
        started = current_time()
        where = "this machine" if self.sock is None else show(self.local)
        sock = self.sock
        if sock is None:
            try:
                sock = open_stream_socket(unix_family())
            except OSError as exc:
                elapsed = current_time() - started
                raise connect_error(errno_of(exc), "socket", show(target), where, elapsed) from None
            self.sock = sock
        code = PENDING
        try:
            with operation.scope():
                code = await connect_socket(sock, target, until)
        except Expired:
            what = f"connect to {show(target)}, whose backlog is full,"
            raise call_exceeded(what, current_time() - started, report=EMPTY_REPORT) from None
        if code == PENDING:
            return None
        if code:
            raise connect_error(code, "connect", show(target), where, current_time() - started)
        return UnixStream(sock, target)

    def connect_now(self, target: str | bytes) -> bool:
        """Connect a socket of the kernel's, if that can be done without waiting.

        Returns:
          False when the backlog is full, which no event will tell the end of, unix(7).

        Raises:
          OSError: the connect has failed, and what was bound is closed.
        """
        started = current_time()
        where = "this machine" if self.sock is None else show(self.local)
        sock = self.sock
        if sock is None:
            try:
                sock = open_stream_socket(unix_family(), factory=False)
            except OSError as exc:
                raise connect_error(errno_of(exc), "socket", show(target), where, 0.0) from None
        code = errno.ENAMETOOLONG if too_long(target) else sock.begin(target)
        if code in (errno.EAGAIN, PENDING):
            if self.sock is None:
                sock.close()
            return False
        self.sock = sock
        if code:
            error = connect_error(code, "connect", show(target), where, current_time() - started)
            self.forget()
            raise error
        self._name = sock.getsockname()
        self._local = None
        self._peer = target
        return True

    def accepted(self, stream: UnixStream | None = None) -> UnixTransport:
        return UnixTransport(stream=stream)
