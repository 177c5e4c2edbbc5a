"""`TcpStream` and `TlsStream`: byte streams whose addresses are endpoints, plain and over TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import trio
from trio.lowlevel import enable_ki_protection

from ..._deadline import to_seconds
from ..._endpoint import Endpoint
from ..._errors import DeadlineExceeded
from ..._text import printable
from ..sockets.families import OverTcp
from .both_halves import BothHalves
from .buffer import EMPTY_BUFFER
from .byte_stream import ByteStream

if TYPE_CHECKING:
    import ssl

    from ..._multipath import Multipath
    from ..._report import ConnectReport
    from .tls import TlsChannel

__all__ = ["TcpStream", "TlsStream"]


@final
class TcpStream(OverTcp, ByteStream[Endpoint]):
    """A TCP connection: a `trio.abc.HalfCloseableStream` with deadlines, exact reads and honest closing.

    Made by `tcp_connect`, `TcpListener.accept` or `TcpStream.from_socket`.
    """

    __slots__ = ()

    @property
    def host(self) -> str | None:
        """The name for whose address this was connected: of several names the one, of MX records the mail host.

        An `establish` has it too, so that ``stream.start_tls(context, server_hostname=stream.host)`` verifies what was
        asked for. None where no name was: for an accepted connection, and where the caller gave the address.
        """
        try:
            return self._host
        except AttributeError:
            winner = self.report.winner
            return None if winner is None else winner.host

    # The race that makes a connection calls this; no user may.

    def _set_host(self, host: str | None) -> None:
        """Say for which name this is, before there is a report that does."""
        self._host = host

    @property
    def multipath(self) -> Multipath | None:
        """What this connection has of Multipath TCP now; None says that it is plain TCP.

        Raises:
          trio.ClosedResourceError: the stream is closed.

        See RFC 8684 and `SocketOptions.multipath`.
        """
        self._check_open()
        from ..sockets.multipath import read_multipath

        return read_multipath(self._sock.multipath_info())

    async def start_tls(
        self,
        context: ssl.SSLContext,
        deadline: int = -1,
        *,
        server_hostname: str | None = None,
        server_side: bool = False,
    ) -> TlsStream:
        """Do a TLS handshake, and go on over TLS; from here on this connection belongs to the new stream.

        For servers, and for protocols that begin in plain text (STARTTLS). A client that wants TLS from the start
        passes ``tls=`` to `connect`. Bytes that came before the handshake and nobody has taken are refused, because
        whoever sits between could have put a command there that would pass for one sent over TLS.

        Args:
          context: such as ``ssl.create_default_context()``, which verifies the peer; its ALPN protocols are offered.
          deadline: milliseconds on the clock of `now()`; -1 for none.
          server_hostname: the name that the server has to prove; None for the address that this is connected to.
          server_side: whether this is the server.

        Returns:
          The stream over TLS.

        Raises:
          DeadlineExceeded: the deadline came first; this stream is closed.
          RuntimeError: bytes are buffered. It is a `trio.BrokenResourceError` too, because a peer can send them on
            purpose. This stream stays as it was.
          TypeError: an argument has the wrong type.
          ValueError: the name is impossible, or the context is for the other side.
          trio.BrokenResourceError: the handshake failed; the text says why, such as "certificate has expired". This
            stream is closed; so it is when the call is cancelled.
          trio.BusyResourceError: another task uses this stream.
          trio.ClosedResourceError: this stream is closed.

        See RFC 8446 for TLS, RFC 3207 section 6 and CVE-2011-0411 for what is wrong with bytes before it.
        """
        until = to_seconds(deadline)
        from .handshake import start

        channel = await start(self, context, until, server_hostname=server_hostname, server_side=server_side)
        return TlsStream(channel, self)


@final
class TlsStream(BothHalves[Endpoint, "TlsChannel"], trio.abc.Stream):
    """A TLS connection: a `trio.abc.Stream` with the receives, sends and deadlines of `TcpStream`.

    Made by `connect` and `connectx` with ``tls=``, and by `TcpStream.start_tls`. What differs from a `TcpStream`:

    - A send that timed out or was cancelled breaks the stream in both directions, because half a record may have gone.
    - The end of the stream is the peer's close_notify. A connection that ends without one is a
      `trio.BrokenResourceError`, after all bytes that came before.
    - There is no half-close, no `detach` and no graceful close.

    Attributes:
      tcp: the connection beneath: its options, its descriptor. What is sent or received through it breaks this stream.
    """

    __slots__ = ("tcp",)

    tcp: TcpStream

    def __init__(self, channel: TlsChannel, tcp: TcpStream) -> None:
        super().__init__(channel, tcp.peer)
        self.tcp = tcp

    @property
    def ssl(self) -> trio.SSLStream[trio.abc.Stream]:
        """The `trio.SSLStream` beneath, for what `ssl.SSLObject` can be asked."""
        return self._sock.ssl

    @property
    def local(self) -> Endpoint:
        """The local address."""
        return self.tcp.local

    @property
    def peer(self) -> Endpoint:
        """The address at the other end."""
        return self.tcp.peer

    @property
    def host(self) -> str | None:
        """The name for whose address this was connected, see `TcpStream`; not always the one that TLS has verified."""
        return self.tcp.host

    @property
    def report(self) -> ConnectReport:
        """How this connection was made; empty for an accepted one."""
        return self.tcp.report

    @property
    def buffered(self) -> int:
        """How many bytes have been read and not been taken yet."""
        return len(self._buffer)

    @property
    def version(self) -> str:
        """The protocol, such as "TLSv1.3"."""
        version: str = self.ssl.version()
        return version

    @property
    def cipher(self) -> tuple[str, str, int]:
        """The cipher suite, the protocol that defines it, and the number of secret bits."""
        cipher: tuple[str, str, int] = self.ssl.cipher()
        return cipher

    @property
    def alpn(self) -> str | None:
        """The application protocol that both sides have agreed on, RFC 7301; None without one."""
        protocol: str | None = self.ssl.selected_alpn_protocol()
        return protocol

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The certificate of the peer as `ssl.SSLSocket.getpeercert` has it; None where none was asked for or shown."""
        return self.ssl.getpeercert() or None

    @enable_ki_protection  # Ctrl-C cannot come between what it reads and where that is kept
    def is_dead(self) -> bool:
        """Say whether a connection that is idle is of no more use; for pools, before they lend it out again.

        It is when the peer has ended or reset it, when bytes are there that nobody has asked for, when it is broken,
        and when it is closed. Session tickets and new keys, which a peer may send at any time, are taken note of and
        do not count. A plain call that loses nothing: what has come can still be received, errors too. The peer may end
        the connection a moment later, so a request can fail all the same.

        Over a socket of a custom factory's only a task can tell a session ticket from data, so there whatever has come
        counts. The sockets of `trio_connect.testing` are no such ones.

        Returns:
          True for such a one; False for one that is open and quiet.

        Raises:
          trio.BusyResourceError: another task is receiving, and hears of the end by itself.

        See RFC 8446 section 4.6.
        """
        if self._closed:
            return True
        if self._receiving:
            self._refuse_receive()
        if not self._buffer:
            data = self._sock.receive_now()
            if data is None:
                return False
            if data:
                self._own_buffer().add(data)
        return True

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return self.tcp.fileno()

    def __repr__(self) -> str:
        return f"<TlsStream to {printable(str(self.peer))}{' (closed)' if self._closed else ''}>"

    @enable_ki_protection  # as that of `ByteStream`
    async def aclose(self) -> None:
        """Send close_notify if that does not block, then close the connection. Never waits for the peer.

        Both also happen when this is cancelled or called by `trio.aclose_forcefully`. While another task is sending no
        close_notify is sent. Twice is once.
        """
        try:
            if not self._closed:
                self._leave()
                await self._sock.say_goodbye()
        finally:
            await self.tcp.aclose()

    @enable_ki_protection
    def abort(self) -> None:
        """Close at once with RST: unsent data is dropped, the peer gets ECONNRESET. Twice is once."""
        self._leave()
        self.tcp.abort()

    def _leave(self) -> None:
        self._closed = True
        self._buffer = EMPTY_BUFFER

    def _exceeded(self, what: str, started: float, transferred: int) -> DeadlineExceeded:
        error = super()._exceeded(what, started, transferred)
        if what == "send" and self._sock.is_cut_short:
            text = f"{error.strerror}; this TLS stream is broken, because half a record may have gone"
            return DeadlineExceeded(text, transferred=transferred)
        return error
