"""The handshake that puts TLS over a connection, and what its arguments may be."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING, Final, cast, final

import trio
from trio import current_time

from ..._deadline import is_late
from ..._errors import HandshakeFailed, PlainTextBeforeTls
from ..._messages import reason_of
from ..._text import printable, shown
from ..sockets.waiting import Expired
from .tls import SpyContext, TlsChannel, is_end
from .tls_transport import TlsTransport, send_now

if TYPE_CHECKING:
    from ..._endpoint import Endpoint
    from .byte_stream import ByteStream

# A handshake works inside of the connection that it was given, as that one's own methods do.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

_CONTENT_TYPES: Final = range(20, 25)
"""RFC 8446 section 5.1 and RFC 6520: the first byte of a record. The second is 3 in every version since SSL 3.0."""
_DOTS: Final = (".", "\u3002", "\uff0e", "\uff61")
"""What a name in any script may close with: all are one full stop when it has been encoded (RFC 3490 section 3.1)."""


async def start(
    stream: ByteStream[Endpoint],
    context: ssl.SSLContext,
    until: float,
    *,
    server_hostname: str | None,
    server_side: bool,
) -> TlsChannel:
    """Do the handshake over a connection. What this raises once it has begun has closed the connection.

    Args:
      stream: the connection.
      context: what the handshake is done with.
      until: the deadline, in Trio time.
      server_hostname: the name to verify; None for the address of the peer.
      server_side: whether the peer is to begin.

    Raises:
      DeadlineExceeded: the deadline came first. It has closed the connection, too.
      PlainTextBeforeTls: bytes are buffered.
      trio.BrokenResourceError: the handshake failed.
    """
    handshake = Handshake(stream, context, server_hostname=server_hostname, server_side=server_side)
    stream._check_can_receive()
    stream._check_can_send()
    if count := stream.buffered:
        raise PlainTextBeforeTls(
            f"{count} bytes from {printable(str(stream.peer))} are buffered that came before TLS: whoever is between "
            "may have put them there, so they must not be taken for what comes over TLS",
            f"{count} bytes are buffered that came before TLS",
        )
    if is_late(until):
        await stream.aclose()
        await stream._refuse_late("TLS handshake", until)
    started = current_time()
    try:
        return await handshake.advance(until)
    except Expired:
        await handshake.abandon()
        raise stream._exceeded("TLS handshake", started, 0) from None


@final
class Handshake:
    """A handshake that a deadline may interrupt, and that then goes on, perhaps in another task.

    A race begins one in the caller's own task, and hands it to a task of its own only when another attempt is to
    start. `trio.SSLStream` cannot be handed over: what interrupts its handshake breaks it for good. So all steps but
    the last are made here, with the objects that it has been made of. It makes the last one, and learns that the
    handshake is done.

    Args:
      stream: the connection.
      context: what the handshake is done with.
      server_hostname: the name to verify; None for the address of the peer.
      server_side: whether the peer is to begin.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: the name is impossible, or the context is for the other side.
    """

    def __init__(
        self, stream: ByteStream[Endpoint], context: ssl.SSLContext, *, server_hostname: str | None, server_side: bool
    ) -> None:
        check_context(context)
        check_server_hostname(server_hostname)
        if not isinstance(server_side, bool):
            raise TypeError(f"server_side must be a bool, got {shown(server_side)}")
        if server_side and server_hostname is not None:
            raise ValueError(f"a server verifies no server_hostname, got {shown(server_hostname)}")
        if context.protocol == (ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER):
            wanted, other = ("servers", "clients") if server_side else ("clients", "servers")
            raise ValueError(f"context must be one for {wanted}, got one for {other}: {shown(context)}")
        # trio.SSLStream would check no name for None, and say nothing.
        name = None if server_side else _to_verify(server_hostname or stream.peer.host)
        self._transport = TlsTransport(stream)
        self._spy = SpyContext(context, self._transport)
        try:
            self._session: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(
                self._transport, cast("ssl.SSLContext", self._spy), server_hostname=name, server_side=server_side
            )
        except (ValueError, ssl.SSLError) as exc:
            raise ValueError(f"TLS cannot begin with {shown(name)} and {shown(context)}: {reason_of(exc)}") from exc
        self._stream = stream
        self._server_side = server_side
        self._unsent = b""
        self._must_receive = self._is_done = False

    async def advance(self, until: float) -> TlsChannel:
        """Go on with it, to its end.

        Args:
          until: the deadline, in Trio time.

        Raises:
          Expired: the deadline came first. A client may call this again; else the connection is to be abandoned.
          trio.BrokenResourceError: the handshake failed; like all others, this has closed the connection.
        """
        transport = self._transport
        transport.receive_by(until)
        transport.send_by(until)
        try:
            while self._unsent or not self._is_done:
                await self._step(until)
            await self._session.do_handshake()
        except Expired:
            raise
        except BaseException as exc:
            await self.abandon()
            if isinstance(exc, trio.BrokenResourceError | OSError):
                reason = _why_not(exc, transport.opening)
                text = f"TLS handshake with {printable(str(self._stream.peer))} failed: {reason}"
                raise HandshakeFailed(text, reason) from exc.__cause__ or exc
            raise
        transport.wait_for_ever()
        transport.is_patient = self._spy.session.version() == "TLSv1.3"
        transport.keeps_tickets = transport.is_patient and self._server_side
        return TlsChannel(transport, self._session, self._spy)

    async def abandon(self) -> None:
        """Send the alert that there may be, if that can be done without waiting, and close the connection."""
        with trio.CancelScope(shield=True):
            try:
                if not self._unsent and not self._transport.is_cut_short:
                    await send_now(self._transport, self._spy.outgoing.read())
            finally:
                await self._stream.aclose()

    async def _step(self, until: float) -> None:
        if self._unsent:
            count = await self._transport.send_some(self._unsent, until)
            self._unsent = self._unsent[count:]
        elif self._must_receive:
            data = await self._transport.receive_some()
            if data:
                self._spy.incoming.write(data)
            else:
                self._spy.incoming.write_eof()
            self._must_receive = False
        else:
            self._ask_openssl()

    def _ask_openssl(self) -> None:
        try:
            self._spy.session.do_handshake()
        except ssl.SSLWantReadError:
            self._must_receive = True
        except ssl.SSLError as exc:
            raise trio.BrokenResourceError from exc
        else:
            self._is_done = True
            if self._server_side:
                return  # OpenSSL puts session tickets there, which trio.SSLStream keeps until something is sent
        self._unsent = self._spy.outgoing.read()


def _to_verify(name: str) -> str:
    """Return a name or an address as a certificate has it."""
    # RFC 6066 section 3: without a trailing dot. A zone is this machine's own name for a link (RFC 4007 section 6).
    name = name.partition("%")[0] if ":" in name else name
    return name[:-1] if name.endswith(_DOTS) else name


def _why_not(error: BaseException, opening: bytes) -> str:
    """Return in one line why a handshake failed."""
    if opening and (opening[0] not in _CONTENT_TYPES or opening[1:2] not in (b"", b"\x03")):
        return f"the peer speaks plain text, not TLS: it sent {opening!r}"
    if is_end(error.__cause__):
        return "the peer ended the connection in the handshake"
    return reason_of(error)


# --- arguments --------------------------------------------------------------------------------------------------------


def check_context(context: object) -> None:
    """Refuse what is not an `ssl.SSLContext`."""
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"context must be an ssl.SSLContext, got {shown(context)}")


def check_server_hostname(server_hostname: object) -> None:
    """Refuse what cannot be the name of a server.

    Raises:
      TypeError: it is not a str.
      ValueError: it is empty, begins with a dot, or has a NUL in it.
    """
    if server_hostname is None:
        return
    if not isinstance(server_hostname, str):
        raise TypeError(f"server_hostname must be a str or None, got {shown(server_hostname)}")
    if not server_hostname.removesuffix(".") or server_hostname.startswith(".") or "\0" in server_hostname:
        raise ValueError(f"server_hostname must be a host name or an address, got {shown(server_hostname)}")


def check_client(context: object, server_hostname: object) -> None:
    """Refuse, before anything is connected, what no client can do a handshake with.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: the name is impossible, or the context is for servers.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"tls must be True, an ssl.SSLContext or None, got {shown(context)}")
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError(f"tls must be a context for clients, got one for servers: {shown(context)}")
    check_server_hostname(server_hostname)


@cache
def default_context() -> ssl.SSLContext:
    """Return the context of ``tls=True``. Made once: reading the system's authorities takes tens of milliseconds."""
    return ssl.create_default_context()
