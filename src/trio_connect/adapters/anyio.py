"""Connections of ours for programs written for anyio, which then have to run on Trio."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Unpack, final

import trio
from trio.lowlevel import enable_ki_protection

from .. import HostLike, RaceOptions, Resolver, TcpStream, TlsStream, connect

try:
    import anyio
    from anyio import ConnectionFailed
    from anyio.abc import ByteStream, ByteStreamConnectable, SocketAttribute
    from anyio.streams.tls import TLSAttribute
except ImportError as exc:
    raise ImportError("trio_connect.adapters.anyio needs anyio 4.10 or later: pip install anyio") from exc

__all__ = ["Connectable", "Stream"]

_MOST_HOSTS: Final = 64
"""As many as `connect` looks up: an iterable may have no end."""


@contextmanager
def _told(doing: str) -> Generator[None]:
    """Raise what goes wrong as anyio's own exception, in our words."""
    try:
        yield
    except trio.BrokenResourceError as exc:
        raise anyio.BrokenResourceError(str(exc)) from exc
    except trio.ClosedResourceError as exc:
        raise anyio.ClosedResourceError(str(exc)) from exc
    except trio.BusyResourceError as exc:
        raise anyio.BusyResourceError(doing) from exc


@final
class Stream(ByteStream):
    """A connection of ours as an `anyio.abc.ByteStream`.

    It has the extra attributes of anyio's streams, but for ``raw_socket``.

    Args:
      stream: the connection, which belongs to this stream from here on.
    """

    stream: TcpStream | TlsStream
    """The connection: its report, its exact reads, its deadlines."""

    def __init__(self, stream: TcpStream | TlsStream) -> None:
        self.stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive whatever comes first.

        Args:
          max_bytes: at most this many.

        Returns:
          At least one byte.

        Raises:
          anyio.EndOfStream: the peer has ended the stream.
          anyio.BrokenResourceError: the connection broke.
          anyio.BusyResourceError: another task is receiving.
          anyio.ClosedResourceError: this stream is closed.
        """
        with _told("reading from"):
            data = await self.stream.receive_some(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Send all of it.

        Args:
          item: the bytes.

        Raises:
          anyio.BrokenResourceError: the connection broke.
          anyio.BusyResourceError: another task is sending.
          anyio.ClosedResourceError: this stream is closed.
        """
        with _told("writing to"):
            await self.stream.send_all(item)

    async def send_eof(self) -> None:
        """Close the sending half: the peer reads the end of the stream, receiving goes on.

        Raises:
          NotImplementedError: the connection is over TLS, which has no half-close here.
          anyio.BrokenResourceError: the connection broke.
          anyio.BusyResourceError: another task is sending.
          anyio.ClosedResourceError: this stream is closed.
        """
        if isinstance(self.stream, TlsStream):
            raise NotImplementedError("send_eof() of a TLS stream: there is no half-close over TLS")
        with _told("writing to"):
            await self.stream.send_eof()

    @enable_ki_protection  # Ctrl-C cannot come between this and the close of the connection
    async def aclose(self) -> None:
        """Close the connection. Never waits for the peer."""
        await self.stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """What `extra` can be asked for: `anyio.abc.SocketAttribute`, and over TLS `TLSAttribute`."""
        stream = self.stream
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: stream.peer.family,
            SocketAttribute.local_address: self._local,
            SocketAttribute.local_port: lambda: self._local()[1],
            SocketAttribute.remote_address: lambda: (stream.peer.host, stream.peer.port),
            SocketAttribute.remote_port: lambda: stream.peer.port,
        }
        if isinstance(stream, TlsStream):
            session = stream.ssl
            attributes |= {
                TLSAttribute.alpn_protocol: lambda: stream.alpn,
                TLSAttribute.channel_binding_tls_unique: session.get_channel_binding,
                TLSAttribute.cipher: lambda: stream.cipher,
                TLSAttribute.peer_certificate: lambda: stream.peer_certificate,  # pyright: ignore[reportUnhashable]
                TLSAttribute.peer_certificate_binary: lambda: session.getpeercert(True),
                TLSAttribute.server_side: lambda: session.server_side,
                TLSAttribute.standard_compatible: lambda: True,
                TLSAttribute.tls_version: lambda: stream.version,
            }
        return attributes

    def _local(self) -> tuple[str, int]:
        with _told("asking"):
            return self.stream.local.host, self.stream.local.port


@final
class Connectable(ByteStreamConnectable):
    """A host and a port to connect to by `trio_connect.connect`, for whatever takes a connectable of anyio.

    Args:
      host: a name or a numeric address, or several of one service, see `trio_connect.connect`.
      port: 1 to 65535.
      resolver: whom to ask for addresses; None for the system.
      **options: see `trio_connect.RaceOptions`; with ``tls=`` the race is won when the handshake is done.
    """

    def __init__(
        self,
        host: str | Iterable[HostLike],
        port: int,
        *,
        resolver: Resolver | None = None,
        **options: Unpack[RaceOptions],
    ) -> None:
        # Connecting again reads it again. What `connect` refuses is left to it.
        given: object = host
        is_one = isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)
        self.host = host if is_one else tuple(islice(host, _MOST_HOSTS))
        self.port = port
        self._resolver = resolver
        self._options = options

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r}, {self.port!r})"

    @enable_ki_protection  # Ctrl-C cannot come between a connection and its owner
    async def connect(self) -> Stream:
        """Connect. Scopes of anyio bound it, such as `anyio.fail_after`.

        Returns:
          The connection.

        Raises:
          anyio.ConnectionFailed: there is no connection; ``__cause__`` is the exception of ours, with the report.
          RuntimeError: this does not run on Trio.
          TypeError: an option has the wrong type.
          ValueError: the host is no possible name, or the port is out of range.
        """
        if not trio.lowlevel.in_trio_task():
            raise RuntimeError("trio_connect connects on Trio only: anyio.run(..., backend='trio')")
        try:
            stream = await connect(self.host, self.port, resolver=self._resolver, **self._options)
        except OSError as exc:
            raise ConnectionFailed(exc.errno, exc.strerror) if exc.errno else ConnectionFailed(str(exc)) from exc
        return Stream(stream)
