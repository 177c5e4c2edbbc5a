"""A network back end for httpcore2 and for httpcore 1, and so for what is built on them.

Both clients ask their back end for a stream by the same calls, and use what they get by the same names. What differs
are the exceptions: each client waits for its own, to try again or to pass them on. So where both are installed, each
exception raised here is of a class that both know. Rejected: a parameter that names the client, for with the wrong one
no client would try again and no ``except`` would catch.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from socket import AF_INET, AF_UNSPEC
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack, final

import trio
from trio.lowlevel import enable_ki_protection

from .. import (
    IMMEDIATE,
    Endpoint,
    History,
    Source,
    StaticResolver,
    TcpStream,
    TlsStream,
    UnixStream,
    connect,
    deadline_after,
    unix_connect,
)
from . import ConnectOptions
from ._nested_tls import NestedTls

__all__ = ["Backend"]

SocketOption: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
"""The arguments of setsockopt(2), as both clients have them."""

if TYPE_CHECKING:
    import httpcore
    import httpcore2

    class _NetworkBackend(httpcore2.AsyncNetworkBackend, httpcore.AsyncNetworkBackend):  # type: ignore[misc]
        """What both expect of a back end."""

    class _NetworkStream(httpcore2.AsyncNetworkStream, httpcore.AsyncNetworkStream):  # type: ignore[misc]
        """What both expect of a stream."""

    class ConnectError(httpcore2.ConnectError, httpcore.ConnectError):
        """No connection came about."""

    class ConnectTimeout(httpcore2.ConnectTimeout, httpcore.ConnectTimeout):
        """No connection came about in time."""

    class ReadError(httpcore2.ReadError, httpcore.ReadError):
        """The connection broke."""

    class ReadTimeout(httpcore2.ReadTimeout, httpcore.ReadTimeout):
        """Nothing came in time."""

    class WriteError(httpcore2.WriteError, httpcore.WriteError):
        """The connection broke."""

    class WriteTimeout(httpcore2.WriteTimeout, httpcore.WriteTimeout):
        """Not all could be sent in time."""

else:
    _CLIENTS = []
    try:
        import httpcore2
    except ImportError:
        pass
    else:
        _CLIENTS.append(httpcore2)
    try:
        import httpcore
    except ImportError:
        pass
    else:
        _CLIENTS.append(httpcore)
    if not _CLIENTS:
        raise ImportError("trio_connect.adapters.httpcore needs httpcore2, or httpcore 1: pip install httpcore2")

    def _common(name: str) -> type:
        found = tuple(getattr(client, name) for client in _CLIENTS)
        return found[0] if len(found) == 1 else type(name, found, {"__module__": __name__})

    _NetworkBackend = _common("AsyncNetworkBackend")
    _NetworkStream = _common("AsyncNetworkStream")
    ConnectError = _common("ConnectError")
    ConnectTimeout = _common("ConnectTimeout")
    ReadError = _common("ReadError")
    ReadTimeout = _common("ReadTimeout")
    WriteError = _common("WriteError")
    WriteTimeout = _common("WriteTimeout")


_ENDS: Final = ssl.SSLEOFError | ssl.SSLSyscallError
"""What OpenSSL says of a connection that ends without close_notify; which of these differs between its versions."""


@contextmanager
def _told(timeout: type[Exception], failure: type[Exception]) -> Generator[None]:
    """Raise what goes wrong as the client's own exception, in our words."""
    try:
        yield
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as exc:
        # A race whose attempts have all timed out ends before the client's timeout, and is no less a timeout.
        is_late = isinstance(exc, trio.TooSlowError) or getattr(exc, "errno", None) == errno.ETIMEDOUT
        raise (timeout if is_late else failure)(str(exc)) from exc


def _deadline(timeout: float | None) -> int:
    """Return the deadline that a client's timeout means: 0 is one try for it, and it would be late for us."""
    return IMMEDIATE if timeout == 0 else deadline_after(timeout)


@final
class NetworkStream(_NetworkStream):
    """A connection as httpcore sees it."""

    def __init__(
        self,
        connection: TcpStream | UnixStream,
        tls: TlsStream | NestedTls | None = None,
        *,
        under: TlsStream | UnixStream | TcpStream | None = None,
        host: str = "",
        history: History | None = None,
    ) -> None:
        self._connection = connection
        self._tls = tls
        self._host = host
        self._history = history
        self._stream = tls or connection
        self._idle = tls if isinstance(tls, TlsStream) else under or connection
        """What can be asked whether it is of any more use: this, or what a `NestedTls` is spoken over."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive whatever comes first; b"" at the end."""
        deadline = _deadline(timeout)
        with _told(ReadTimeout, ReadError):
            try:
                return await self._stream.receive_some(max_bytes, deadline)
            except trio.BrokenResourceError as exc:
                # Many servers of HTTP end so, and the framing of HTTP says whether all has come (RFC 9112 section 9.8).
                # Both clients take it for an end in their own back ends.
                if isinstance(exc.__cause__, _ENDS):
                    return b""
                raise

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        if not buffer:
            return
        deadline = _deadline(timeout)
        with _told(WriteTimeout, WriteError):
            await self._stream.send_all(buffer, deadline)

    @enable_ki_protection  # Ctrl-C cannot come between this and the close of the connection
    async def aclose(self) -> None:
        """Close the connection. Never waits for the peer."""
        await self._stream.aclose()

    @enable_ki_protection  # nor between the handshake and its owner
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        """Go on over TLS. Whatever this raises, a cancel too, has closed the connection."""
        deadline = _deadline(timeout)
        try:
            with _told(ConnectTimeout, ConnectError):
                tls: TlsStream | NestedTls
                if isinstance(self._stream, TcpStream):
                    tls = await self._stream.start_tls(ssl_context, deadline, server_hostname=server_hostname)
                else:
                    tls = await NestedTls.start(
                        self._outermost(), ssl_context, deadline,
                        server_hostname=server_hostname, peer=_name(self._connection),
                    )  # fmt: skip
        except BaseException as exc:
            if self._history is not None and server_hostname == self._host:
                self._tell(self._history, exc)
            await trio.aclose_forcefully(self._connection)
            raise
        return NetworkStream(self._connection, tls, under=self._idle)

    def _tell(self, history: History, exc: BaseException) -> None:
        """Have the next connect avoid an address whose TLS does not work.

        With another name than the one that was connected to, TLS goes through a proxy of the client's, or to a name of
        the program's choice. Neither is the fault of this address. Nor is a cancel, or a close on this side.
        """
        is_failure = isinstance(exc, (ConnectError, ConnectTimeout))
        if (
            is_failure
            and isinstance(self._stream, TcpStream)
            and not isinstance(exc.__cause__, trio.ClosedResourceError)
        ):
            winner = self._stream.report.winner
            history.failed(self._stream.peer, str(exc), source=None if winner is None else winner.source)

    def _outermost(self) -> trio.abc.Stream:
        return self._stream.ssl if isinstance(self._stream, NestedTls) else self._stream

    def get_extra_info(self, info: str) -> Any:
        """Return one of the facts that httpcore's streams have, or None.

        Args:
          info: "ssl_object", "client_addr", "server_addr", "socket" or "is_readable" as in httpcore; "report" for the
            `trio_connect.ConnectReport` of this connection.
        """
        if info == "server_addr":
            return _address(self._connection.peer)
        if info == "report":
            return self._connection.report
        if info == "ssl_object":
            # A trio.SSLStream answers what an ssl.SSLObject can be asked.
            return None if self._tls is None else self._tls.ssl
        try:
            if info == "is_readable":
                # A client asks this of an idle connection: whether it is of any more use.
                return self._idle.is_dead()
            if info == "client_addr":
                return _address(self._connection.local)
            if info == "socket":
                return self._connection.socket
        except trio.BusyResourceError:
            return False  # who receives from it will hear
        except trio.ClosedResourceError:
            pass
        return None


def _address(value: Endpoint | str | bytes) -> Any:
    """Return an address as the `socket` module has it."""
    if not isinstance(value, Endpoint):
        return value
    # Only a proxy that looks names up knows the address.
    return (value.host, value.port) if value.family == AF_UNSPEC else value.sockaddr


def _name(connection: TcpStream | UnixStream) -> str:
    """Return what messages call the other end."""
    peer = connection.peer
    return repr(peer) if isinstance(peer, bytes) else str(peer)


async def _can_exist(host: str, port: int) -> bool:
    """Say whether somebody can have this host and port, by the names of ours that tell."""
    try:
        await StaticResolver({}).addresses(host, AF_INET)
    except ValueError:
        return False
    return 0 < port < 1 << 16


@final
class Backend(_NetworkBackend):
    """A network back end for the pools of httpcore2 and httpcore 1 that connects by `trio_connect.connect`.

    Every address of a host is raced, and what failed is in the text of the client's own exception; see
    `trio_connect.adapters.failure_of` for the report. These clients begin TLS after the connect. So the race is won by
    the first TCP connection, and an address whose TLS is dead can win it. With a `history` it wins once: a handshake
    that fails is told to it, and the next connect tries other addresses first.

    Args:
      **options: see `ConnectOptions`: how to connect.

    Raises:
      ImportError: neither client is installed. Importing this module raises it.
      TypeError: there is no option of this name.
    """

    def __init__(self, **options: Unpack[ConnectOptions]) -> None:
        if unknown := options.keys() - ConnectOptions.__optional_keys__:
            raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
        self._options = options

    @enable_ki_protection  # Ctrl-C cannot come between a connection and its owner
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> NetworkStream:
        """Connect to a host, as httpcore asks for it.

        Args:
          host: a name or a numeric address.
          port: 1 to 65535.
          timeout: seconds for lookups and race together; None for no limit.
          local_address: the numeric address to connect from.
          socket_options: the arguments of setsockopt(2), set on the connected socket.

        Returns:
          The connection.

        Raises:
          ConnectError: httpcore's; there is no connection, or an option was refused.
          ConnectTimeout: httpcore's; likewise, in time.
          RuntimeError: this does not run on Trio.
          ValueError: `local_address` is no numeric address, or the options have `sources` too; or the options
            contradict one another, see `trio_connect.connect`.
        """
        _check_trio()
        options = self._options
        if local_address is not None:
            if options.get("sources"):
                raise ValueError(f"give sources or local_address, not both; got local_address={local_address!r}")
            options = options.copy()
            options["sources"] = [Source(ipv6=local_address) if ":" in local_address else Source(ipv4=local_address)]
        deadline = _deadline(timeout)
        with _told(ConnectTimeout, ConnectError):
            try:
                connection = await connect(host, port, deadline, **options)
            except ValueError as exc:
                # A redirect may lead to a host or a port that nobody can have. What else is refused, such as a filter
                # beside a proxy that looks names up, is a mistake of the program, and no retry will mend it.
                if await _can_exist(host, port):
                    raise
                raise ConnectError(str(exc)) from exc
            return await _finished(connection, socket_options, host, options.get("history"))

    @enable_ki_protection
    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> NetworkStream:
        """Connect to a path, as httpcore asks for it. The options of this back end play no part.

        Args:
          path: where a unix-domain socket listens.
          timeout: seconds; None for no limit.
          socket_options: the arguments of setsockopt(2), set on the connected socket.

        Returns:
          The connection.

        Raises:
          ConnectError: httpcore's; there is no connection, or an option was refused.
          ConnectTimeout: httpcore's; likewise, in time.
          RuntimeError: this does not run on Trio.
        """
        _check_trio()
        deadline = _deadline(timeout)
        with _told(ConnectTimeout, ConnectError):
            return await _finished(await unix_connect(path, deadline), socket_options)

    async def sleep(self, seconds: float) -> None:
        """Sleep, before the client tries again.

        Args:
          seconds: how long.
        """
        await trio.sleep(seconds)


def _check_trio() -> None:
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError("trio_connect connects on Trio only: run the client under trio.run()")


async def _finished(
    connection: TcpStream | UnixStream,
    options: Iterable[SocketOption] | None,
    host: str = "",
    history: History | None = None,
) -> NetworkStream:
    """Set the client's socket options. Whatever this raises has closed the connection."""
    try:
        for option in options or ():
            try:
                if len(option) == 4:
                    connection.socket.setsockopt(*option)
                else:
                    connection.setsockopt(*option)
            except OSError as exc:
                text = f"socket option {option} of the connection to {_name(connection)}: {exc.strerror}"
                raise OSError(exc.errno, text) from exc
    except BaseException:
        await trio.aclose_forcefully(connection)
        raise
    return NetworkStream(connection, host=host, history=history)
