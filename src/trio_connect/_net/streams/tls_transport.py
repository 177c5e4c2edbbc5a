"""The connection beneath TLS, as the `trio.SSLStream` over it sees it.

`trio.SSLStream` knows no deadlines, so the connection is shown to it as a `TlsTransport`, which waits as long as the
stream above says. Rejected: a cancel scope around each call, which would end a receive whose bytes have come already,
and needs a task for a deadline of 0.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, Final, final

import trio

from ..sockets.waiting import Expired
from .receiving import RECEIVE_SIZE
from .state import turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from ..._endpoint import Endpoint
    from .byte_stream import ByteStream

# It works inside of the connection that it was given, as that one's own methods do.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

MOST_ANSWERS: Final = 1 << 17
"""How many bytes of answers may wait. One read brings 65536 of requests, and an answer is as long as its request."""
_OPENING: Final = 32
"""So many bytes of what a peer sends first are kept, to tell TLS from something else."""
NOT_TOLD: Final = (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError, OSError, Expired)
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
        self.keeps_tickets = False
        """Whether the `trio.SSLStream` keeps session tickets until it is to send: nothing may come before these."""
        self.is_cut_short = False
        """Whether a send has ended in the middle: what the peer has may end within a record."""
        self.send_error = 0
        """The errno that a send has failed with. The `trio.SSLStream` is of no more use then, and does not say why."""
        self.answers = b""
        """What OpenSSL wants to send because of something that came."""
        self.is_patient = False
        """Whether a peer does not wait for answers: not in TLS 1.3."""
        self.is_to_send = False
        """Whether `send_all` is about to be called, with what was encrypted before any answer that comes now."""
        self.is_closed = False
        """Whether the `trio.SSLStream` was closed."""
        self.is_to_receive = False
        """Whether `receive_some` is about to be called, because OpenSSL has found too little in what came so far."""
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
        try:
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
        finally:
            self.is_to_receive = False
        if stream._closed:
            stream._raise_closed()
        if not data:
            if code := stream._sock.lost:
                raise OSError(code, os.strerror(code))
            self.has_ended = True
        if len(self.opening) < _OPENING:
            self.opening += data[:_OPENING]
        return data

    def receive_now(self, size: int) -> bytes | None:
        """Receive what has come, without waiting; None where nothing has.

        Raises:
          NotImplementedError: see `StreamSocket.receive_now`.
          OSError: the connection broke. The next receive hears of that too.
        """
        sock = self.stream._sock
        try:
            data = sock.receive_now(size)
        except OSError as exc:
            sock.lost = exc.errno or errno.EIO  # which Linux tells once
            raise
        if data == b"":
            if code := sock.lost:
                raise OSError(code, os.strerror(code))
            self.has_ended = True
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
        except OSError as exc:
            self.send_error = exc.errno or errno.EIO
            raise
        except BaseException:
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
        stream._sending = True
        self.keeps_tickets = False
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
          OSError: the connection broke, and the peer waits for the answer.
          trio.BrokenResourceError: there are too many.
        """
        stream = self.stream
        if len(self.answers) + len(self._unsent) > MOST_ANSWERS:
            raise trio.BrokenResourceError("the peer asks for new keys, and does not read the answers")
        if stream._sending or self.is_to_send or self.keeps_tickets:
            return  # whoever is sending, or is the first to send, sends them before the next data
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
        except OSError as exc:
            if not self.is_patient:
                raise
            # There may still be something to receive. Linux tells an error once, and EPIPE says nothing of the end.
            if exc.errno != errno.EPIPE:
                stream._sock.lost = exc.errno or errno.EIO
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
        """Take note of it, no more than a checkpoint: whoever has made this closes the connection."""
        self.is_closed = True
        await trio.lowlevel.checkpoint()


async def send_now(transport: TlsTransport, data: bytes) -> None:
    """Send an alert if that can be done without waiting. Never raises."""
    if data:
        transport.send_by(-inf)
        with suppress(*NOT_TOLD):
            await transport.send_all(data)
