"""TLS over a connection: a `trio.SSLStream` as one more channel of bytes, made by a `Handshake`.

`trio.SSLStream` knows no deadlines, so the connection beneath it is shown to it as a `TlsTransport`, which waits as
long as the stream above says. Rejected: a cancel scope around each call, which would end a receive whose bytes have
come already, and needs a task for a deadline of 0.
"""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from functools import cache
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import trio

from ..._messages import reason_of, strerror
from ..._text import printable
from ..sockets.byte_channel import ByteChannel
from ..sockets.waiting import Expired
from .byte_stream import ByteStream
from .receiving import RECEIVE_SIZE
from .state import turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from ..._endpoint import Endpoint

# The transport and the channel work inside of the connection that they were given, as its own methods do.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

_LARGEST_RECORD: Final = 1 << 14
"""RFC 8446 section 5.1: how much one record holds, and so how much one read gives at most."""
_CHUNK: Final = 8 * _LARGEST_RECORD
"""What is encrypted at a time: all of it is held twice, and a deadline is looked at after each."""
_MOST_ANSWERS: Final = 1 << 17
"""How many bytes of answers may wait. One read brings 65536 of requests, and an answer is as long as its request."""
_OPENING: Final = 32
"""So many bytes of what a peer sends first are kept, to tell TLS from something else."""
_NOT_TOLD: Final = (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError, OSError, Expired)
"""What may come of a last message to a peer; nobody is told."""


@final
class TlsTransport(trio.abc.Stream):
    """A connection as its `trio.SSLStream` sees it: encrypted bytes, until the deadlines of the stream above."""

    def __init__(self, stream: ByteStream[Endpoint]) -> None:
        self.stream = stream
        self.opening = b""
        """The first bytes that came."""
        self.has_ended = False
        """Whether the peer has ended the connection."""
        self.has_sent = False
        """Whether anything was sent since this was last set to false."""
        self.is_cut_short = False
        """Whether a send has ended in the middle: what the peer has may end within a record."""
        self.answers = b""
        """What OpenSSL wants to send because of something that came."""
        self.is_patient = False
        """Whether a peer does not wait for answers: not in TLS 1.3."""
        self.is_to_send = False
        """Whether `send_all` is about to be called, with what was encrypted before any answer that comes now."""
        self._unsent = b""
        """Answers that are under way, perhaps the rest of a record: nothing may be sent before them."""
        self._answering: trio.Event | None = None
        self._send_until = inf
        self._receive_until = inf
        self._turns: Iterator[None] = repeat(None)

    def receive_by(self, until: float) -> None:
        """Set until when the next call may receive, in Trio time: however many records it takes."""
        self._receive_until = until
        self._turns = turns(until)

    def send_by(self, until: float) -> None:
        """Set until when the next call may send, in Trio time."""
        self._send_until = until

    def wait_for_ever(self) -> None:
        """Have no deadlines any more: the next call may be that of a user of the `trio.SSLStream`."""
        self._send_until = self._receive_until = inf
        self._turns = repeat(None)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what comes first.

        Raises:
          Expired: the deadline came first.
          OSError: the connection broke.
        """
        stream = self.stream
        stream._check_can_receive()
        if next(self._turns, Expired) is Expired:
            raise Expired
        if self.answers or self._unsent:
            await self._answer()
        stream._receiving = True
        try:
            data = await stream._sock.receive(max_bytes or RECEIVE_SIZE, self._receive_until)
        finally:
            stream._receiving = False
        if stream._closed:
            stream._raise_closed()
        if not data:
            if code := stream._sock.lost:
                raise OSError(code, os.strerror(code))
            self.has_ended = True
        if len(self.opening) < _OPENING:
            self.opening += data[:_OPENING]
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        Raises:
          Expired: the deadline came first.
          OSError: the connection broke.
        """
        try:
            while self._answering is not None:
                await self._answering.wait()
            view = memoryview(self._unsent + data if self._unsent else data)
            self._unsent = b""
            for _ in turns(self._send_until):
                view = view[await self.send_some(view, self._send_until) :]
                if not view:
                    return
            raise Expired
        except (Expired, trio.Cancelled):
            self.is_cut_short = True
            raise
        finally:
            self.is_to_send = False

    async def send_some(self, data: Buffer, until: float) -> int:
        """Send some of the bytes and return how many. What interrupts this has sent nothing.

        Raises:
          Expired: `until`, a point in Trio time, came first.
          OSError: the connection broke.
        """
        stream = self.stream
        stream._check_can_send()
        stream._sending = self.has_sent = True
        try:
            count = await stream._sock.send(data, until)
        finally:
            stream._sending = False
        if stream._closed:
            stream._raise_closed()
        return count

    async def _answer(self) -> None:
        """Send answers, as far as that can be done without waiting. What interrupts this loses nothing.

        In a renegotiation of TLS 1.2 the peer waits for the answer. There this waits too.

        Raises:
          Expired: the deadline of the receive came first.
          trio.BrokenResourceError: there are too many.
        """
        stream = self.stream
        if len(self.answers) + len(self._unsent) > _MOST_ANSWERS:
            raise trio.BrokenResourceError("the peer asks for new keys, and does not read the answers")
        if stream._sending or self.is_to_send:
            return  # another task is sending, and sends them before its next data
        self._unsent += self.answers
        self.answers = b""
        until = -inf if self.is_patient else self._receive_until
        self._answering = trio.Event()
        try:
            while self._unsent:
                self._unsent = self._unsent[await self.send_some(self._unsent, until) :]
        except Expired:
            if not self.is_patient:
                raise
        finally:
            self._answering.set()
            self._answering = None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block."""
        stream = self.stream
        stream._check_can_send()
        stream._sending = True
        try:
            await stream._sock.wait_writable()
        finally:
            stream._sending = False

    async def aclose(self) -> None:
        """Do nothing but a checkpoint: whoever has made this closes the connection."""
        await trio.lowlevel.checkpoint()


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
        return SpyObject(self.session, outgoing, self._transport, is_lenient=is_lenient)


@final
class SpyObject:
    """An `ssl.SSLObject` as a `trio.SSLStream` has it: its reads leave nothing to be sent.

    OpenSSL answers a KeyUpdate (RFC 8446 section 4.6.3) when it reads. `trio.SSLStream` would send the answer within
    the receive, after whatever another task is sending, and lose it when the receive is cancelled: the peer could
    decrypt nothing any more. Answers have time until the next data, so they are kept for that.

    An end of the connection is an end of its reads only where close_notify came first, or the context is lenient.
    """

    __slots__ = ("_is_lenient", "_object", "_outgoing", "_transport")

    def __init__(
        self, session: ssl.SSLObject, outgoing: ssl.MemoryBIO, transport: TlsTransport, *, is_lenient: bool
    ) -> None:
        self._object = session
        self._outgoing = outgoing
        self._transport = transport
        self._is_lenient = is_lenient

    def __getattr__(self, name: str) -> Any:
        return getattr(self._object, name)

    def read(self, *args: Any) -> Any:
        """Do what the object does, and keep what it would send."""
        transport = self._transport
        try:
            data = self._object.read(*args)
        finally:
            if self._outgoing.pending:
                transport.answers += self._outgoing.read()
        # Nobody waits for more bytes of a connection after close_notify, so an end of it was seen in its stead.
        if not data and transport.has_ended and not self._is_lenient:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        return data

    def write(self, data: bytes) -> int:
        """Do what the object does, answers first."""
        try:
            return self._object.write(data)
        finally:
            self._answers_first()

    def unwrap(self) -> None:
        """Do what the object does, answers first."""
        try:
            self._object.unwrap()
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

    __slots__ = ("_outgoing", "_transport", "_why", "ssl")

    def __init__(
        self, transport: TlsTransport, session: trio.SSLStream[trio.abc.Stream], outgoing: ssl.MemoryBIO
    ) -> None:
        self.lost = 0
        self.ssl = session
        self._transport = transport
        self._outgoing = outgoing
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
            with suppress(*_NOT_TOLD):
                await self.ssl.aclose()
            # OpenSSL refuses to go on with the closing when it finds unread data, and Trio then sends nothing. A server
            # that has never sent has its session tickets still with Trio, and nothing may come before these.
            if self.ssl.server_side is False or transport.has_sent:
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
        if self.lost:
            return strerror(self.lost)
        if is_end(exc.__cause__):
            return "the peer ended the connection without close_notify, so that bytes may be missing"
        return reason_of(exc)


def is_end(error: BaseException | None) -> bool:
    """Say whether an error of OpenSSL's stands for the end of the connection."""
    # Which of these OpenSSL gives for the same end differs between its versions.
    return isinstance(error, ssl.SSLEOFError | ssl.SSLSyscallError | ssl.SSLZeroReturnError)


async def send_now(transport: TlsTransport, data: bytes) -> None:
    """Send an alert if that can be done without waiting. Never raises."""
    if data:
        transport.send_by(-inf)
        with suppress(*_NOT_TOLD):
            await transport.send_all(data)
