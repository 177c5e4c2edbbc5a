"""TLS over a connection: a `trio.SSLStream` as one more channel of bytes, made by a `Handshake`."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import trio

from ..._messages import reason_of, strerror
from ..._text import printable
from ..sockets.byte_channel import ByteChannel
from .receiving import RECEIVE_SIZE
from .tls_transport import MOST_ANSWERS, NOT_TOLD, send_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from .tls_transport import TlsTransport

# A channel works inside of the connection that it was given, as that one's own methods do.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

_LARGEST_RECORD: Final = 1 << 14
"""RFC 8446 section 5.1: how much one record holds, and so how much one read gives at most."""
_CHUNK: Final = 8 * _LARGEST_RECORD
"""What is encrypted at a time: all of it is held twice, and a deadline is looked at after each."""
_MOST_UNASKED: Final = 1 << 17
"""How many bytes a look at an idle connection takes at most. Session tickets and new keys are a few hundred."""
_IGNORE_UNEXPECTED_EOF: Final = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
"""SSL_CTX_set_options(3); OpenSSL before version 3 has no such option."""


@cache
def _is_lenient_unasked() -> bool:
    """Say whether this Python's contexts take any end for a close_notify, though nobody has asked for that.

    Those of CPython before 3.11.4 do (gh-95494), and their option then says nothing about what a program wants.
    """
    return bool(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).options & _IGNORE_UNEXPECTED_EOF)


@final
class SpyContext:
    """Stands for an `ssl.SSLContext` while a `trio.SSLStream` is made, and keeps what that is made of.

    `trio.SSLStream` shows nobody where OpenSSL has put the alert of a handshake that failed, and what interrupts its
    handshake breaks it for good.

    Args:
      context: what it stands for.
      transport: what the `trio.SSLStream` is made over.
    """

    session: ssl.SSLObject
    spied_on: SpyObject
    """What stands for `session`."""
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    def __init__(self, context: ssl.SSLContext, transport: TlsTransport) -> None:
        self._context = context
        self._transport = transport

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **options: Any) -> SpyObject:
        """Do what the context does."""
        self.incoming, self.outgoing = incoming, outgoing
        self.session = self._context.wrap_bio(incoming, outgoing, **options)
        is_lenient = not _is_lenient_unasked() and bool(self._context.options & _IGNORE_UNEXPECTED_EOF)
        self.spied_on = SpyObject(self.session, outgoing, self._transport, is_lenient=is_lenient)
        return self.spied_on


@final
class SpyObject:
    """An `ssl.SSLObject` as a `trio.SSLStream` has it: its reads leave nothing to be sent.

    OpenSSL answers a KeyUpdate (RFC 8446 section 4.6.3) when it reads. `trio.SSLStream` would send the answer within
    the receive, after whatever another task is sending, and lose it when the receive is cancelled: the peer could
    decrypt nothing any more. Answers have time until the next data, so they are kept for that.

    An end of the connection is an end of its reads only where close_notify came first, or the context is lenient.
    """

    __slots__ = ("_is_lenient", "_object", "_outgoing", "_transport", "failure")

    failure: ssl.SSLError | None
    """What a read has raised that nobody has heard of yet. OpenSSL tells it once."""

    def __init__(
        self, session: ssl.SSLObject, outgoing: ssl.MemoryBIO, transport: TlsTransport, *, is_lenient: bool
    ) -> None:
        self._object = session
        self._outgoing = outgoing
        self._transport = transport
        self._is_lenient = is_lenient
        self.failure = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._object, name)

    def read(self, *args: Any) -> Any:
        """Do what the object does, and keep what it would send."""
        if self.failure is not None:
            failure, self.failure = self.failure, None
            try:
                raise failure
            finally:
                del failure
        transport = self._transport
        transport.is_to_receive = False
        try:
            data = self._object.read(*args)
        except ssl.SSLWantReadError:
            transport.is_to_receive = True
            raise
        finally:
            if self._outgoing.pending:
                transport.answers += self._outgoing.read()
        # Nobody waits for more bytes of a connection after close_notify, so an end of it was seen in its stead.
        if not data and transport.has_ended and not self._is_lenient:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        return data

    def write(self, data: bytes) -> int:
        """Do what the object does, answers first."""
        transport = self._transport
        transport.is_to_receive = False
        try:
            return self._object.write(data)
        except ssl.SSLWantReadError:
            transport.is_to_receive = not self._outgoing.pending and not transport.answers  # else it sends first
            raise
        finally:
            self._answers_first()

    def unwrap(self) -> None:
        """Do what the object does, answers first."""
        transport = self._transport
        transport.is_to_receive = False
        try:
            self._object.unwrap()
        except ssl.SSLWantReadError:
            transport.is_to_receive = not self._outgoing.pending and not transport.answers
            raise
        finally:
            self._answers_first()

    def _answers_first(self) -> None:
        # In the order in which OpenSSL has encrypted it: each record has its number.
        transport = self._transport
        if transport.answers:
            data = self._outgoing.read()
            self._outgoing.write(transport.answers + data)
            transport.answers = b""
        transport.is_to_send = bool(self._outgoing.pending)


@final
class TlsChannel(ByteChannel):
    """The bytes of a connection over TLS. Made by a `Handshake`."""

    __slots__ = ("_incoming", "_object", "_outgoing", "_transport", "_why", "ssl")

    def __init__(self, transport: TlsTransport, session: trio.SSLStream[trio.abc.Stream], spy: SpyContext) -> None:
        self.lost = 0
        self.ssl = session
        self._transport = transport
        self._object = spy.spied_on
        self._incoming = spy.incoming
        self._outgoing = spy.outgoing
        self._why = ""

    @property
    def is_cut_short(self) -> bool:
        """Whether a send has ended in the middle, which nothing can mend."""
        return self._transport.is_cut_short

    async def receive(self, size: int, until: float) -> bytes:
        """Receive up to `size` bytes; b"" once the peer has sent close_notify."""
        self._transport.receive_by(until)
        try:
            return bytes(await self.ssl.receive_some(min(size, _LARGEST_RECORD)))
        except trio.BrokenResourceError as exc:
            self._raise_broken("receive", exc)
        finally:
            self._transport.wait_for_ever()

    def receive_now(self) -> bytes | None:
        """Receive what the peer has sent, without waiting: what makes an idle connection one of no more use.

        Session tickets and KeyUpdates do not; only a read by OpenSSL tells them from data (RFC 8446 section 5.2).
        Whatever else has come, errors too, is there for the next receive.

        Returns:
          What came; b"" if the peer has ended the connection, or it broke; None where it is open and quiet.

        Raises:
          trio.BusyResourceError: another task is receiving, or is sending and has to receive for that.
        """
        transport = self._transport
        is_broken = self._why or transport.is_cut_short or transport.send_error or self._object.failure is not None
        if is_broken or transport.is_closed or transport.stream._closed:
            return b""
        # Who is about to receive would wait for what this takes.
        if transport.is_to_receive:
            transport.stream._refuse_receive()
        transport.stream._check_can_receive()
        room = _MOST_UNASKED
        while room > 0:
            try:
                return bytes(self._object.read(_LARGEST_RECORD))
            except ssl.SSLWantReadError:
                transport.is_to_receive = False
            except ssl.SSLError as exc:
                self._object.failure = exc.with_traceback(None)
                return b""
            if len(transport.answers) > MOST_ANSWERS:
                return b""
            try:
                data = transport.receive_now(min(room, RECEIVE_SIZE))
            except (OSError, NotImplementedError):
                return b""
            if data is None:
                return None
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
            room -= len(data)
        return b""

    async def receive_into(self, view: memoryview, until: float) -> int:
        """Receive into a buffer; 0 once the peer has sent close_notify."""
        data = await self.receive(len(view), until)
        view[: len(data)] = data
        return len(data)

    async def send(self, data: Buffer, until: float) -> int:
        """Send some of the bytes and return how many. What is interrupted breaks the stream."""
        chunk = memoryview(data)[:_CHUNK]
        self._transport.send_by(until)
        try:
            await self.ssl.send_all(chunk)
        except trio.BrokenResourceError as exc:
            self._raise_broken("send", exc)
        finally:
            self._transport.send_by(inf)
        return len(chunk)

    async def send_buffers(self, buffers: Sequence[Buffer], until: float) -> int:
        """Send some of the bytes of several buffers, in records that are as full as they can be."""
        chunk = bytearray()
        for buffer in buffers:
            chunk += memoryview(buffer)[: _CHUNK - len(chunk)]
            if len(chunk) == _CHUNK:
                break
        return await self.send(chunk, until)

    async def wait_writable(self) -> None:
        """Wait until a send would not block."""
        try:
            await self.ssl.wait_send_all_might_not_block()
        except trio.BrokenResourceError as exc:
            self._raise_broken("send", exc)

    async def say_goodbye(self) -> None:
        """Send close_notify if that can be done without waiting. Never raises."""
        transport = self._transport
        stream = transport.stream
        # While another task is sending, this would have to wait for it; and nothing can follow half a record.
        if stream._closed or stream._sending or transport.is_cut_short:
            return
        with trio.CancelScope(shield=True):
            transport.send_by(-inf)
            with suppress(*NOT_TOLD):
                await self.ssl.aclose()
            # OpenSSL refuses to go on with the closing when it finds unread data, and Trio then sends nothing. A server
            # that has never sent has its session tickets still with Trio, and nothing may come before these.
            if not transport.keeps_tickets:
                await send_now(transport, self._outgoing.read())

    def _raise_broken(self, what: str, exc: trio.BrokenResourceError) -> NoReturn:
        if not self._why:
            self._why = self._reason_for(exc)
        peer = printable(str(self._transport.stream.peer))
        text = f"{what}: TLS with {peer} broke: {self._why}"
        raise trio.BrokenResourceError(text) from exc.__cause__ or exc

    def _reason_for(self, exc: trio.BrokenResourceError) -> str:
        if self._transport.is_cut_short:
            return "a send was cut short by its deadline or by a cancel, which may leave half a record"
        if code := self.lost or self._transport.send_error:
            return strerror(code)
        if is_end(exc.__cause__):
            return "the peer ended the connection without close_notify, so that bytes may be missing"
        return reason_of(exc)


def is_end(error: BaseException | None) -> bool:
    """Say whether an error of OpenSSL's stands for the end of the connection."""
    # Which of these OpenSSL gives for the same end differs between its versions.
    return isinstance(error, ssl.SSLEOFError | ssl.SSLSyscallError | ssl.SSLZeroReturnError)
