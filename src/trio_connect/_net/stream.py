"""Connected byte streams: everything there is to say between a connect and a close.

Two rules shape this module. A receive that times out or is cancelled loses nothing: bytes go into the stream's
buffer before anything can interrupt the call, and are taken from there at its very end. And an operation belongs to
one task per direction: a second one gets `trio.BusyResourceError` and changes nothing.
"""

from __future__ import annotations

import errno
import socket
from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, final

import trio
from trio import current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .._deadline import to_seconds
from .._endpoint import Endpoint, as_endpoint
from .._errors import DeadlineExceeded, IncompleteRead, strerror
from .._report import EMPTY_REPORT, Attempt, ConnectReport
from .attempt import Door
from .buffer import ReceiveBuffer
from .factory import FactorySocket
from .raw import RawSocket
from .waiting import Expired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer, Self

    from .._endpoint import Source

A = TypeVar("A")

RECEIVE_SIZE: Final = 65536
"""What one read asks for unless told otherwise; trio.SocketStream's own default."""
DISCARD_LIMIT: Final = 16 << 20
"""How much unread input `aclose` throws away: the largest receive buffer that Linux tunes itself to, with room."""
_IOV_MAX: Final = 1024  # limits.h; sendmsg(2) answers EMSGSIZE for more


def _check_size(value: object, what: str, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, got {value!r}")
    if value < lowest:
        raise ValueError(f"{what} must be at least {lowest}, got {value!r}")
    return value


class ByteStream(trio.abc.HalfCloseableStream, Generic[A]):
    """What `TcpStream` and `UnixStream` have in common."""

    __slots__ = (
        "__weakref__", "_buffer", "_closed", "_door", "_eof_sent", "_local", "_peer", "_receiving", "_report", "_sending",
    )  # fmt: skip

    def __init__(self, door: Door, peer: A | None = None, report: Any = EMPTY_REPORT) -> None:
        if not isinstance(door, (RawSocket, FactorySocket)):
            raise TypeError(f"{type(self).__name__} is made by connecting, accepting or from_socket(), not directly")
        self._door: Final = door
        self._buffer: Final = ReceiveBuffer()
        self._peer = peer
        self._local: A | None = None
        self._report = report
        self._receiving = self._sending = self._eof_sent = self._closed = False

    @classmethod
    def from_socket(cls, sock: trio.socket.SocketType | socket.socket) -> Self:
        """Make a stream of a connected socket, and own it.

        Args:
          sock: Trio's kind or the standard library's; the latter becomes non-blocking.

        Raises:
          TypeError: not a socket.
          ValueError: not a stream socket, or of another family.
          OSError: ENOTCONN, the socket is not connected.
        """
        if isinstance(sock, socket.socket):
            sock.setblocking(False)
            door: Door = RawSocket(sock)
        elif isinstance(sock, trio.socket.SocketType):
            door = FactorySocket(sock)
        else:
            raise TypeError(f"from_socket needs a trio.socket or socket object, got {sock!r}")
        if sock.type != socket.SOCK_STREAM or not cls._is_family(sock.family):
            raise ValueError(f"{cls.__name__} needs a stream socket of its family, got {sock!r}")
        return cls(door, cls._address(sock.getpeername()))

    @staticmethod
    @abstractmethod
    def _is_family(family: int) -> bool: ...

    @staticmethod
    @abstractmethod
    def _address(name: Any) -> Any: ...

    # ------------------------------------------------------------------ who and how

    @property
    def local(self) -> A:
        """The local address.

        Raises:
          trio.ClosedResourceError: the stream was closed before anybody asked.
        """
        if self._local is None:
            self._check_open()
            self._local = self._address(self._door.getsockname())
        return self._local

    @property
    def peer(self) -> A:
        """The address at the other end: what was connected to, or where an accepted connection came from."""
        assert self._peer is not None
        return self._peer

    @property
    def report(self) -> ConnectReport:
        """How this connection was made; empty for an accepted one."""
        report = self._report
        if isinstance(report, tuple):
            # Built when somebody looks: most never do, and it would be a tenth of the cost of connecting.
            endpoint, source, started, ended = report
            attempt = Attempt(
                endpoint=endpoint, source=source, cause="first", started=0.0, ended=ended - started, outcome="won"
            )
            report = ConnectReport(attempts=(attempt,), started_at=started, elapsed=ended - started)
            self._report = report
        assert isinstance(report, ConnectReport)
        return report

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket beneath, still owned by the stream; reading from it skips what is `buffered`."""
        self._check_open()
        return self._door.trio_socket()

    @property
    def buffered(self) -> int:
        """How many bytes have been read and not been taken yet."""
        return len(self._buffer)

    def fileno(self) -> int:
        """Return the file descriptor, -1 once closed."""
        return -1 if self._closed else self._door.fileno()

    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None:
        """Set a socket option, see setsockopt(2).

        Raises:
          OSError: the kernel refused.
          trio.ClosedResourceError: the stream is closed.
        """
        self._check_open()
        self._door.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Return a socket option, an int, or bytes when `buffersize` is not 0; see getsockopt(2).

        Raises:
          OSError: the kernel refused.
          trio.ClosedResourceError: the stream is closed.
        """
        self._check_open()
        return self._door.getsockopt(level, option, buffersize)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self._peer}{' (closed)' if self._closed else ''}>"

    # ------------------------------------------------------------------ receiving

    async def receive_some(self, max_bytes: int | None = None, deadline: int = -1) -> bytes:
        """Receive whatever comes first, buffered bytes before all.

        Args:
          max_bytes: at most this many; None leaves it to the stream.
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

        Returns:
          At least one byte, or b"" at the end of the stream.

        Raises:
          DeadlineExceeded: nothing came in time. The stream stays usable.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        size = RECEIVE_SIZE if max_bytes is None else _check_size(max_bytes, "max_bytes", 1)
        self._check_can_receive()
        if self._buffer:
            await checkpoint_if_cancelled()
            data = self._buffer.take_up_to(size)
            await cancel_shielded_checkpoint()
            return data
        return await self._receive(size, until)

    async def receive_exactly(self, n: int, deadline: int = -1) -> bytes:
        """Receive exactly `n` bytes.

        Args:
          n: how many; 0 is a checkpoint and returns b"".
          deadline: milliseconds on the clock of `now()`, for all of them together; -1 for none, 0 for what is there.

        Raises:
          DeadlineExceeded: fewer came in time; those stay buffered, `transferred` counts them.
          IncompleteRead: the peer ended the stream before; what came stays buffered.
          trio.BrokenResourceError: the connection broke; what came stays buffered.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        _check_size(n, "n", 0)
        self._check_can_receive()
        if n > RECEIVE_SIZE and n > len(self._buffer):
            target = bytearray(n)
            await self._fill_target(memoryview(target), until)
            return bytes(target)
        if len(self._buffer) >= n:
            await checkpoint_if_cancelled()
        else:
            await self._fill_to(n, until)
        data = self._buffer.take(n)
        assert data is not None
        await cancel_shielded_checkpoint()
        return data

    async def receive_into(self, buffer: Buffer, deadline: int = -1) -> None:
        """Fill a whole buffer.

        Args:
          buffer: a bytearray, a writable memoryview, an array; an empty one is a checkpoint.
          deadline: milliseconds on the clock of `now()`, for all of it; -1 for none, 0 for what is there.

        Raises:
          DeadlineExceeded: less came in time. What came stays buffered in the stream and will be received again.
          IncompleteRead: the peer ended the stream before; likewise.
          TypeError: the buffer is read-only or no buffer.
          trio.BrokenResourceError: the connection broke; likewise.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        with memoryview(buffer) as whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError("receive_into needs a writable buffer")
            self._check_can_receive()
            await self._fill_target(view, until)

    async def receive_until(self, delimiter: bytes, max_bytes: int, deadline: int = -1) -> bytes:
        r"""Receive up to a delimiter, such as ``b"\\r\\n"``.

        Args:
          delimiter: at least one byte.
          max_bytes: how many bytes may stand before the delimiter.
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

        Returns:
          The bytes before the delimiter. The delimiter is taken from the stream too, and not returned.

        Raises:
          DeadlineExceeded: no delimiter came in time; what came stays buffered.
          IncompleteRead: the peer ended the stream before it; what came stays buffered.
          OSError: EMSGSIZE, more than `max_bytes` came without it; they stay buffered.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        if not isinstance(delimiter, bytes | bytearray | memoryview):
            raise TypeError(f"delimiter must be bytes, got {delimiter!r}")
        delimiter = bytes(delimiter)
        if not delimiter:
            raise ValueError("delimiter must have at least one byte")
        _check_size(max_bytes, "max_bytes", 0)
        self._check_can_receive()
        searched = 0
        started = current_time()
        patience = _Patience(until)
        while True:
            found = self._buffer.find(delimiter, searched)
            if found > max_bytes or (found < 0 and len(self._buffer) >= max_bytes + len(delimiter)):
                await checkpoint()
                text = f"no {delimiter!r} within {max_bytes} bytes from {self._peer}"
                raise OSError(errno.EMSGSIZE, text)
            if found >= 0:
                break
            # The delimiter may have begun already: search its possible beginning again.
            searched = max(0, len(self._buffer) - len(delimiter) + 1)
            if patience.is_over():
                raise self._exceeded("receive", started, until, len(self._buffer))
            data = await self._receive(RECEIVE_SIZE, until, started)
            if not data:
                raise self._incomplete(None, f"{delimiter!r}")
            self._buffer.add(data)
        if not patience.tried:
            await checkpoint_if_cancelled()
        line = self._buffer.take_up_to(found)
        self._buffer.take(len(delimiter))
        await cancel_shielded_checkpoint()
        return line

    def take(self, n: int) -> bytes | None:
        """Take exactly `n` buffered bytes, or None while there are fewer; never waits, no checkpoint.

        With `fill` this is the fast way through many small records::

            while (record := stream.take(64)) is None:
                if not await stream.fill():
                    break

        Raises:
          trio.BusyResourceError: another task is receiving.
          ValueError: n is negative.
        """
        if self._receiving:
            self._refuse_receive()
        if n < 0:
            raise ValueError(f"n must be at least 0, got {n!r}")
        return self._buffer.take(n)

    async def fill(self, deadline: int = -1) -> int:
        """Read once into the buffer.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

        Returns:
          How many bytes were added; 0 at the end of the stream.

        Raises:
          DeadlineExceeded: nothing came in time. The stream stays usable.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        self._check_can_receive()
        data = await self._receive(RECEIVE_SIZE, until)
        self._buffer.add(data)
        return len(data)

    async def _receive(self, size: int, until: float, started: float | None = None) -> bytes:
        if started is None and until != inf:
            started = current_time()
        self._receiving = True
        try:
            return await self._door.receive(size, until)
        except Expired:
            raise self._exceeded("receive", started, until, len(self._buffer)) from None
        except OSError as exc:
            self._raise_broken("receive", exc)
        finally:
            self._receiving = False

    async def _fill_to(self, n: int, until: float) -> None:
        started = current_time()
        patience = _Patience(until)
        while len(self._buffer) < n:
            if patience.is_over():
                raise self._exceeded("receive", started, until, len(self._buffer))
            data = await self._receive(RECEIVE_SIZE, until, started)
            if not data:
                raise self._incomplete(n, f"{n} bytes")
            self._buffer.add(data)

    async def _fill_target(self, view: memoryview, until: float) -> None:
        """Fill a buffer without a detour; whatever ends this early puts the bytes back."""
        started = current_time()
        patience = _Patience(until)
        head = self._buffer.take_up_to(len(view))
        count = len(head)
        view[:count] = head
        if count == len(view):
            try:
                await checkpoint()
            except BaseException:
                self._buffer.put_back(head)
                raise
            return
        self._receiving = True
        try:
            while count < len(view):
                if patience.is_over():
                    raise Expired
                got = await self._door.receive_into(view[count:], until)
                if not got:
                    break
                count += got
        except Expired:
            raise self._exceeded("receive", started, until, count) from None
        except OSError as exc:
            self._raise_broken("receive", exc)
        finally:
            self._receiving = False
            if count < len(view):
                self._buffer.put_back(bytes(view[:count]))
        if count < len(view):
            raise self._incomplete(len(view), f"{len(view)} bytes")

    def _incomplete(self, expected: int | None, what: str) -> IncompleteRead:
        available = len(self._buffer)
        text = f"{self._peer} ended the stream before {what}; {available} bytes came and stay buffered"
        return IncompleteRead(text, expected=expected, available=available)

    # ------------------------------------------------------------------ sending

    async def send_all(self, data: Buffer | Sequence[Buffer], deadline: int = -1) -> None:
        """Send all bytes, of one buffer or of several one after the other.

        Returns when the kernel has taken them, not when the peer has them. The buffers must not change meanwhile.

        Args:
          data: a bytes-like object, or a sequence of them, which costs fewer system calls than joining.
          deadline: milliseconds on the clock of `now()`, for all of it; -1 for none, 0 for what fits now.

        Raises:
          DeadlineExceeded: the kernel did not take all in time; `transferred` says how many it took. The stream stays
            usable: send the rest, or close it.
          TypeError: not bytes.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this stream was closed, before or meanwhile, or `send_eof` was called.
        """
        until = to_seconds(deadline)
        views = _views(data)
        self._check_can_send()
        if self._eof_sent:
            raise trio.ClosedResourceError("nothing can be sent after send_eof()")
        self._sending = True
        started = current_time() if until != inf else 0.0
        patience = _Patience(until)
        total = sum(map(len, views))
        sent = 0
        try:
            if not total:
                await checkpoint()
            while sent < total:
                if patience.is_over():
                    raise Expired
                count = await (
                    self._door.send(views[0], until)
                    if len(views) == 1
                    else self._door.send_buffers(views[:_IOV_MAX], until)
                )
                sent += count
                if sent < total:
                    _consume(views, count)
        except Expired:
            raise self._exceeded("send", started, until, sent) from None
        except OSError as exc:
            self._raise_broken("send", exc)
        finally:
            self._sending = False
            for view in views:  # a bytearray cannot be resized while a traceback keeps a view of it
                view.release()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block, see `trio.abc.SendStream`.

        Raises:
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        self._check_can_send()
        self._sending = True
        try:
            await self._door.wait_writable()
        except OSError as exc:
            self._raise_broken("send", exc)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Close the sending half: the peer reads the end of the stream, receiving goes on. Twice is once.

        Raises:
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this stream is closed.
        """
        self._check_can_send()
        await checkpoint_if_cancelled()
        self._shutdown_write()
        await cancel_shielded_checkpoint()

    def _shutdown_write(self) -> None:
        if not self._eof_sent:
            try:
                self._door.shutdown_write()
            except OSError as exc:
                self._raise_broken("send", exc)
            self._eof_sent = True

    # ------------------------------------------------------------------ closing

    async def close_gracefully(self, deadline: int = -1) -> None:
        """Send the end of the stream, read and throw away until the peer's, then close. Always closed after.

        When this returns, the peer has read everything, or at least has closed its own half after it could.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 waits for the peer for ever.

        Raises:
          DeadlineExceeded: the peer's end did not come in time, however much else did.
          trio.BrokenResourceError: the connection broke before it.
        """
        until = to_seconds(deadline)
        if self._closed:
            await checkpoint()
            return
        started = current_time()
        patience = _Patience(until)
        self._leave()
        try:
            await checkpoint_if_cancelled()
            self._shutdown_write()
            while not patience.is_over():
                if not await self._door.receive(RECEIVE_SIZE, until):
                    return
            raise Expired
        except Expired:
            raise self._exceeded("graceful close", started, until, 0) from None
        except OSError as exc:
            self._raise_broken("graceful close", exc)
        finally:
            await self._finish_closing()

    async def aclose(self) -> None:
        """Send the end of the stream, discard unread input (at most 16 MiB), close. Never waits for the peer.

        What was sent before is still delivered, also when this is cancelled or called by `trio.aclose_forcefully`:
        the kernel does that after the close. Twice is once.
        """
        if not self._closed:
            self._leave()
            await self._finish_closing()
        await checkpoint()

    def abort(self) -> None:
        """Close at once with RST: unsent data is dropped, the peer gets ECONNRESET. Twice is once."""
        if not self._closed:
            self._leave()
            self._door.abort()

    def detach(self) -> trio.socket.SocketType:
        """Give the socket away; this stream is then closed, the connection is not.

        Raises:
          trio.BusyResourceError: a task is sending or receiving.
          trio.ClosedResourceError: the stream is closed.
          RuntimeError: bytes are buffered that the new owner would never see; `take` them first.
        """
        self._check_open()
        if self._receiving or self._sending:
            raise trio.BusyResourceError("another task uses this stream")
        if self._buffer:
            raise RuntimeError(f"{len(self._buffer)} bytes are buffered: take({len(self._buffer)}) them before detach()")
        sock = self._door.trio_socket()
        self._closed = True
        return sock

    def _leave(self) -> None:
        """From here on this stream is closed for everybody, also for those who wait on it."""
        self._closed = True
        self._buffer.clear()
        if self._receiving or self._sending:
            self._door.wake()

    async def _finish_closing(self) -> None:
        try:
            await self._door.discard(DISCARD_LIMIT)
        finally:
            self._door.close()

    # ------------------------------------------------------------------ checks and errors

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")

    def _check_can_receive(self) -> None:
        if self._closed or self._receiving:
            self._refuse_receive()

    def _refuse_receive(self) -> NoReturn:
        self._check_open()
        raise trio.BusyResourceError("another task is receiving from this stream")

    def _check_can_send(self) -> None:
        self._check_open()
        if self._sending:
            raise trio.BusyResourceError("another task is sending to this stream")

    def _raise_broken(self, what: str, exc: OSError) -> NoReturn:
        if self._closed or exc.errno == errno.EBADF:  # EBADF: closed through .socket
            raise trio.ClosedResourceError("this stream was closed by another task") from None
        text = f"{what}: connection with {self._peer} broke: {strerror(exc.errno or errno.EIO)}"
        raise trio.BrokenResourceError(text) from exc

    def _exceeded(self, what: str, started: float | None, until: float, transferred: int) -> DeadlineExceeded:
        now = current_time()
        elapsed = 0.0 if started is None else now - started
        direction = "to" if what == "send" else "from"
        return DeadlineExceeded.during(f"{what} {direction} {self._peer}", elapsed, until, transferred=transferred)


class _Patience:
    """How often a call of several steps may go on: always once, and after its deadline once more."""

    __slots__ = ("_last", "_until", "tried")

    def __init__(self, until: float) -> None:
        self._until = until
        self._last = self.tried = False

    def is_over(self) -> bool:
        """Ask before each step."""
        if self._last:
            return True
        if self.tried and self._until != inf and current_time() >= self._until:
            self._last = True
        self.tried = True
        return False


def _views(data: Buffer | Sequence[Buffer]) -> list[memoryview]:
    try:
        return [memoryview(data).cast("B")]  # type: ignore[arg-type]
    except TypeError:
        if not isinstance(data, list | tuple):
            raise TypeError(f"send_all needs bytes or a list of bytes, got {type(data).__name__}") from None
    return [view for view in (memoryview(part).cast("B") for part in data) if view]


def _consume(views: list[memoryview], count: int) -> None:
    done = 0
    while count >= len(views[done]):
        count -= len(views[done])
        done += 1
    del views[:done]
    views[0] = views[0][count:]


@final
class TcpStream(ByteStream[Endpoint]):
    """A TCP connection: a `trio.abc.HalfCloseableStream` with deadlines, exact reads and honest closing.

    Made by `tcp_connect`, `TcpListener.accept` or `TcpStream.from_socket`.
    """

    __slots__ = ()

    @staticmethod
    def _is_family(family: int) -> bool:
        return family in (socket.AF_INET, socket.AF_INET6)

    @staticmethod
    def _address(name: Any) -> Endpoint:
        return as_endpoint(tuple(name))
