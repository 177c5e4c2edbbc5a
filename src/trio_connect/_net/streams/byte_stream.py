"""Connected byte streams: what a connection is, how it is made into a stream and how it ends."""

from __future__ import annotations

import socket
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final, Self

import trio
from trio import current_time
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
)

from ..._check import check_range
from ..._deadline import to_seconds
from ..._text import shown
from ..sockets.families import OverSocket
from ..sockets.open import adopt
from ..sockets.stream_socket import StreamSocket
from ..sockets.waiting import Expired
from .both_halves import BothHalves
from .buffer import EMPTY_BUFFER
from .receiving import RECEIVE_SIZE
from .state import A, turns

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..._report import ConnectReport


_C_INT: Final = (-(1 << 31), (1 << 31) - 1)  # what setsockopt(2) takes


class ByteStream(OverSocket, BothHalves[A, StreamSocket], trio.abc.HalfCloseableStream):
    """What `TcpStream` and `UnixStream` have in common."""

    __slots__ = ()

    @classmethod
    def from_socket(cls, sock: trio.socket.SocketType | socket.socket) -> Self:
        """Make a stream of a connected socket, and own it.

        Args:
          sock: Trio's kind or the standard library's; the latter becomes non-blocking. A socket that is refused stays
            as it was, and the caller's.

        Returns:
          The stream.

        Raises:
          TypeError: not a socket, or one of a subclass, such as an `ssl.SSLSocket`.
          ValueError: not a stream socket, or of another family.
          OSError: ENOTCONN, the socket is not connected.
        """
        cls._check_socket(sock, listening=False)
        peer = cls._address(sock.getpeername())
        return cls(adopt(sock), peer)

    # ------------------------------------------------------------------ who and how

    @property
    def local(self) -> A:
        """The local address.

        Raises:
          trio.ClosedResourceError: the stream was closed before anybody asked.
        """
        local = self._local
        if local is None:
            self._check_open()
            self._local = local = self._own_address()
        return local

    def _own_address(self) -> A:
        address: A = self._address(self._sock.getsockname())
        return address

    @property
    def peer(self) -> A:
        """The address at the other end: what was connected to, or where an accepted connection came from."""
        return self._peer

    @property
    def report(self) -> ConnectReport:
        """How this connection was made; empty for an accepted one."""
        from ..reports import report_of

        self._report = report = report_of(self._report)
        return report

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket beneath, still owned by the stream; reading from it skips what is `buffered`."""
        self._check_open()
        return self._sock.trio_socket()

    @property
    def buffered(self) -> int:
        """How many bytes have been read and not been taken yet."""
        return len(self._buffer)

    def is_dead(self) -> bool:
        """Say whether a connection that is idle is of no more use; for pools, before they lend it out again.

        It is when the peer has ended or reset it, when bytes are there that nobody has asked for, and when it is
        closed. A plain call that takes nothing: what has come can still be received. The peer may end the connection
        a moment later, so a request can fail all the same.

        Returns:
          True for such a one; False for one that is open and quiet.

        Raises:
          trio.BusyResourceError: another task is receiving, and hears of the end by itself.
        """
        if self._closed:
            return True
        if self._receiving:
            self._refuse_receive()
        return len(self._buffer) > 0 or self._sock.is_readable()

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed. Closing the stream wakes whoever waits on it through Trio."""
        return -1 if self._closed else self._sock.share_fileno()

    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None:
        """Set a socket option, see setsockopt(2).

        Args:
          level: such as `socket.SOL_SOCKET`.
          option: such as `socket.SO_RCVBUF`.
          value: an int of 32 bits, or a bytes-like object.

        Raises:
          OSError: the kernel refused.
          TypeError: an argument has the wrong type.
          ValueError: an int does not fit a C int.
          trio.ClosedResourceError: the stream is closed.
        """
        check_range(level, "level", *_C_INT)
        check_range(option, "option", *_C_INT)
        if isinstance(value, int):
            check_range(value, "value", *_C_INT)
        else:
            try:
                memoryview(value).release()
            except TypeError:
                raise TypeError(f"value must be an int or bytes, got {shown(value)}") from None
        self._check_open()
        self._sock.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Return a socket option, see getsockopt(2).

        Args:
          level: such as `socket.SOL_SOCKET`.
          option: such as `socket.SO_RCVBUF`.
          buffersize: how many bytes to ask for, at most 1024; 0 asks for an int.

        Returns:
          An int, or bytes when `buffersize` is not 0.

        Raises:
          OSError: the kernel refused.
          TypeError: an argument is not an int.
          ValueError: an argument is out of range.
          trio.ClosedResourceError: the stream is closed.
        """
        check_range(level, "level", *_C_INT)
        check_range(option, "option", *_C_INT)
        check_range(buffersize, "buffersize", 0, 1024)
        self._check_open()
        return self._sock.getsockopt(level, option, buffersize)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._whom()}{' (closed)' if self._closed else ''}>"

    # ------------------------------------------------------------------ closing

    async def send_eof(self) -> None:
        """Close the sending half: the peer reads the end of the stream, receiving goes on. Twice is once.

        Raises:
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this stream is closed.
        """
        self._check_can_send()
        await checkpoint_if_cancelled()
        try:
            self._shutdown_write("send")
        finally:
            await cancel_shielded_checkpoint()

    def _shutdown_write(self, what: str) -> None:
        if not self._eof_sent:
            try:
                self._sock.shutdown_write()
            except OSError as exc:
                # After a reset the kernel only says ENOTCONN; what broke the connection was told before.
                self._check_end(what)
                self._raise_broken(what, exc)
            self._eof_sent = True

    @enable_ki_protection  # as in `aclose`
    async def close_gracefully(self, deadline: int = -1) -> None:
        """Send the end of the stream, read and throw away until the peer's, then close. Always closed after.

        When this returns, the peer has read everything, or at least has closed its own half after it could. Another
        task may cut it short with `aclose` or `abort`.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 waits for the peer for ever.

        Raises:
          DeadlineExceeded: the peer's end did not come in time, however much else did.
          trio.BrokenResourceError: the connection broke before it.
          trio.ClosedResourceError: another task closed the stream meanwhile.
        """
        until = to_seconds(deadline)
        if self._closed:
            await self.aclose()
            return
        started = current_time()
        if -inf < until <= started:
            await self.aclose()
            await self._refuse_late("graceful close", until)
        self._leave()
        self._draining = True
        try:
            await checkpoint_if_cancelled()
            while self._receiving or self._sending:
                # They may have been on their way when they were woken, and have parked again since.
                await cancel_shielded_checkpoint()
                self._sock.wake()
            self._receiving = True
            self._shutdown_write("graceful close")
            for _ in turns(until):
                data = await self._sock.receive(RECEIVE_SIZE, until)
                if not self._draining:
                    self._raise_closed()
                if not data:
                    self._check_end("graceful close")
                    return
            raise Expired
        except Expired:
            raise self._exceeded("graceful close", started, 0) from None
        except OSError as exc:
            self._raise_broken("graceful close", exc)
        finally:
            self._receiving = self._draining = False
            await self._finish_closing()

    @enable_ki_protection  # Ctrl-C cannot leave a stream that calls itself closed, and a socket that is open
    async def aclose(self) -> None:
        """Send the end of the stream, discard unread input, close. Never waits for the peer.

        What was sent before is still delivered, also when this is cancelled or called by `trio.aclose_forcefully`:
        the kernel does that after the close. Twice is once.

        Linux would answer a close with unread input by a reset, which destroys what the peer has not read yet. What
        is discarded is what stood unread, then at most a full receive buffer (SO_RCVBUF) and 16 MiB that the peer's
        kernel may still have held, 128 KiB in each pass of Trio's loop: a peer that floods is reset. Where the receive
        buffer was full, some passes more wait for this machine's kernel to deliver, and none for the peer.
        """
        if not self._closed or self._draining:
            self._leave()
            await self._finish_closing()
        await checkpoint()

    # The race that made a connection calls these two; no user may.

    @enable_ki_protection
    def _close_now(self) -> None:
        """Close without a checkpoint and without reading what came: for connections that lost their race."""
        if not self._closed:
            self._leave()
            self._sock.close()

    def _set_report(self, report: ConnectReport | Callable[[], ConnectReport]) -> None:
        """Attach the report of the race that this connection has won, or what makes it when somebody looks."""
        self._report = report

    @enable_ki_protection
    def abort(self) -> None:
        """Close at once with RST: unsent data is dropped, the peer gets ECONNRESET. Twice is once."""
        if not self._closed or self._draining:
            self._leave()
            self._sock.abort()

    @enable_ki_protection
    def detach(self) -> trio.socket.SocketType:
        """Give the socket away; this stream is then closed, the connection is not.

        Returns:
          The socket, which the caller now owns.

        Raises:
          trio.BusyResourceError: a task is sending or receiving.
          trio.ClosedResourceError: the stream is closed.
          RuntimeError: bytes are buffered that the new owner would never see; `take` them first.
        """
        self._check_open()
        if self._receiving or self._sending:
            raise trio.BusyResourceError(f"another task uses {self._named()}")
        if count := len(self._buffer):
            raise RuntimeError(f"{count} bytes are buffered: take({count}) them before detach()")
        sock = self._sock.trio_socket()
        self._closed = True
        return sock

    def _leave(self) -> None:
        """From here on this stream is closed for everybody, also for those who wait on it."""
        self._closed = True
        self._draining = False
        self._buffer = EMPTY_BUFFER
        if self._receiving or self._sending or self._sock.shared:
            self._sock.wake()

    async def _finish_closing(self) -> None:
        try:
            await self._sock.discard()
        finally:
            if self._receiving or self._sending:
                # Whoever was on its way when it was woken may have parked again, and close(2) wakes nobody.
                self._sock.wake()
            self._sock.close()
