"""A kernel socket, tried first and waited for only when it says so.

Operations begin with the cancellation check and end with a shielded pass of the loop, in that order: a cancellable
checkpoint after success would throw away a connection or data that nobody can get again.
"""

from __future__ import annotations

import errno
import socket
import sys
from errno import EALREADY
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

if sys.platform != "win32":
    import fcntl
    import termios

    _FIONREAD: Final = int(termios.FIONREAD)
    _NOTHING: Final = bytes(4)

import trio
from trio import CancelScope, current_time
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    notify_closing,
    wait_readable,
    wait_writable,
)

from .stream_socket import EMPTY_READS, LONGEST_YIELD, PEER_BUFFER, SHORT_READS, StreamSocket, skip_connection_errors
from .waiting import Expired, is_readable, one_pass, park, yield_processor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from .stream_socket import Ancillary

T = TypeVar("T")

# Plain ints: an enum's member costs a look into a module and a conversion.
_SOL_SOCKET: Final = int(socket.SOL_SOCKET)
_SO_ERROR: Final = int(socket.SO_ERROR)
_SO_RCVBUF: Final = int(socket.SO_RCVBUF)
# What one pass of a discard reads. All discards of the process share the buffer, whose content nobody looks at. It is
# a fair share of a pass also where many sockets are closed at once: twenty of them take 1 ms.
_SCRATCH: Final = bytearray(1 << 17)
# More than this without a pass of the loop and other tasks would notice.
FAIR_SHARE: Final = 1 << 20
_PENDING: Final = frozenset(
    {errno.EINPROGRESS, errno.EALREADY, errno.EINTR, errno.EWOULDBLOCK} if sys.platform == "win32" else
    # Not EAGAIN: on a unix-domain socket it says that the backlog is full and that nothing was started, unix(7).
    {errno.EINPROGRESS, errno.EALREADY, errno.EINTR}
)  # fmt: skip


@final
class KernelSocket(StreamSocket):
    """A non-blocking kernel socket under Trio's public wait functions."""

    __slots__ = ("shared",)

    in_kernel = True
    _sock: socket.SocketType

    def __init__(self, sock: socket.SocketType, *, shared: bool = False) -> None:
        self._sock = sock
        self.lost = 0
        # close(2) wakes nobody, and epoll forgets the descriptor in silence.
        self.shared = shared

    # ------------------------------------------------------------------ connecting

    def begin(self, address: Any) -> int:
        """Start connecting: 0 when that has already succeeded, EALREADY while it goes on, else the error.

        EALREADY also when the handshake is over and connect(2) only could not say so yet, as on plain loopback: `poll`.
        """
        code = self._sock.connect_ex(address)
        return EALREADY if code in _PENDING else code

    async def finish(self, address: Any, until: float) -> int:
        """Wait for a pending connect: 0, or its error. Worth a `poll` first: most of what this costs is the waiting.

        Wakeups may be spurious, so after each the socket is asked: see `poll`.

        Raises:
          Expired: `until` came first.
        """
        fd = self._sock.fileno()
        # No frame between here and Trio's: each one is paid for at every wakeup, and in memory by all that are pending.
        if until == inf:
            while True:
                await wait_writable(fd)
                code = self.poll(address)
                if code != EALREADY:
                    return code
        if current_time() < until:
            with CancelScope(deadline=until):
                while True:
                    await wait_writable(fd)
                    code = self.poll(address)
                    if code != EALREADY:
                        return code
        else:
            await one_pass()
        code = self.poll(address)
        if code == EALREADY:
            raise Expired
        return code

    if sys.platform == "linux":

        def poll(self, address: Any) -> int:
            """Ask a pending connect: 0, EALREADY, or its error.

            An ICMP error that comes back inside connect(2) finds the socket locked, and the kernel notes it as a soft
            error: the socket stays in SYN_SENT and connect(2) goes on saying EALREADY, but SO_ERROR has it. So it is
            with a local REJECT, across a veth, and with a Kubernetes service without endpoints. An SO_ERROR of 0 does
            not mean connected, so connect(2) is asked first.
            """
            code = self._sock.connect_ex(address)
            if not code:
                return 0
            if code in _PENDING:
                return self._sock.getsockopt(_SOL_SOCKET, _SO_ERROR) or EALREADY
            return 0 if code == errno.EISCONN else code

    else:

        def poll(self, address: Any) -> int:  # noqa: ARG002 - POSIX leaves the second connect() to the system
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return code
            try:
                self._sock.getpeername()
            except OSError as exc:
                return EALREADY if exc.errno == errno.ENOTCONN else exc.errno or errno.EIO
            return 0

    # ------------------------------------------------------------------ moving bytes

    async def receive(self, size: int, until: float) -> bytes:
        """Receive up to `size` bytes; b"" at the end of the stream."""
        # This is `_do` written out, as `send` and `exchange` are: its layers make a short answer a quarter dearer.
        await checkpoint_if_cancelled()
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            pass
        except OSError:
            await cancel_shielded_checkpoint()  # or a loop of retries would starve every other task
            raise
        else:
            await cancel_shielded_checkpoint()
            return data
        ready = True
        while True:
            if until == inf:
                await wait_readable(self._sock.fileno())
            else:
                ready = await park(wait_readable, self._sock.fileno(), until)
            try:
                return self._sock.recv(size)
            except BlockingIOError:
                if not ready:
                    raise Expired from None

    async def receive_into(self, view: memoryview, until: float) -> int:
        """Receive into a buffer until it is full, the stream ends or the kernel has no more; 0 at the end only."""
        return await self._do(partial(self._receive_into_now, view), wait_readable, until)

    # The "now" methods look the socket up each time: trio_socket() may replace it while somebody waits.

    def _receive_into_now(self, view: memoryview) -> int:
        # What is ready is taken without a pass of the loop for every segment, up to a fair share.
        count = self._sock.recv_into(view)
        size = min(len(view), FAIR_SHARE)
        try:
            while 0 < count < size:
                more = self._sock.recv_into(view[count:])
                if not more:
                    break
                count += more
        except BlockingIOError:
            pass
        except OSError as exc:
            self.lost = exc.errno or errno.EIO  # told only now; the next call meets the end
        return count

    async def send(self, data: Buffer, until: float) -> int:
        """Send some of the bytes and return how many."""
        await checkpoint_if_cancelled()
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            pass
        except OSError:
            await cancel_shielded_checkpoint()
            raise
        else:
            await cancel_shielded_checkpoint()
            return count
        return await self._wait_and_do(partial(self._send_now, data), wait_writable, until)

    async def exchange(self, data: bytes, size: int, until: float) -> tuple[int, bytes | None]:
        """Send, and once all is sent receive up to `size` bytes.

        The checkpoint of a send that did not wait is the receive's as well. It comes between the two, when the peer may
        have answered already.
        """
        await checkpoint_if_cancelled()
        count = 0
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            pass
        except OSError:
            await cancel_shielded_checkpoint()
            raise
        else:
            await cancel_shielded_checkpoint()
        if not count:
            count = await self._wait_and_do(partial(self._send_now, data), wait_writable, until)
        if count < len(data):
            return count, None
        ready = True
        while True:
            try:
                return count, self._sock.recv(size)
            except BlockingIOError:
                if not ready:
                    return count, None
            if until == inf:
                await wait_readable(self._sock.fileno())
            else:
                ready = await park(wait_readable, self._sock.fileno(), until)

    async def send_buffers(self, buffers: Sequence[Buffer], until: float) -> int:
        """Send some of the bytes of several buffers in one system call and return how many."""
        if sys.platform == "win32":
            return await self.send(buffers[0], until)
        return await self._do(partial(self._send_buffers_now, buffers), wait_writable, until)

    def _send_now(self, data: Buffer) -> int:
        return self._sock.send(data)

    if sys.platform != "win32":

        def _send_buffers_now(self, buffers: Sequence[Buffer]) -> int:
            return self._sock.sendmsg(buffers)

    async def send_message(self, data: bytes, ancillary: Sequence[Ancillary], until: float) -> int:
        """Send bytes with ancillary data riding on them, see sendmsg(2)."""
        if sys.platform == "win32":
            raise OSError(errno.EOPNOTSUPP, "this platform has no ancillary data")
        return await self._do(partial(self._send_message_now, data, ancillary), wait_writable, until)

    async def receive_message(
        self, size: int, room: int, flags: int, until: float
    ) -> tuple[bytes, Sequence[tuple[int, int, bytes]], int]:
        """Receive up to `size` bytes and up to `room` bytes of ancillary data, and the flags of recvmsg(2)."""
        if sys.platform == "win32":
            raise OSError(errno.EOPNOTSUPP, "this platform has no ancillary data")
        return await self._do(partial(self._receive_message_now, size, room, flags), wait_readable, until)

    if sys.platform != "win32":

        def _send_message_now(self, data: bytes, ancillary: Sequence[Ancillary]) -> int:
            return self._sock.sendmsg([data], ancillary)

        def _receive_message_now(
            self, size: int, room: int, flags: int
        ) -> tuple[bytes, Sequence[tuple[int, int, bytes]], int]:
            return self._sock.recvmsg(size, room, flags)[:3]

    def receive_now(self, size: int) -> bytes | None:
        """Receive up to `size` bytes without waiting: b"" at the end of the stream, None where nothing has come."""
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            return None

    async def accept(self, until: float) -> tuple[KernelSocket, Any]:
        """Accept one connection, skipping those that died while they waited."""
        accept = partial(self._do, self._accept_now, wait_readable, until)
        sock, address = await skip_connection_errors(accept, until)
        return KernelSocket(sock), address

    def _accept_now(self) -> tuple[socket.socket, Any]:
        listener = self._sock
        assert isinstance(listener, socket.socket)
        sock, address = listener.accept()
        sock.setblocking(False)
        return sock, address

    async def wait_writable(self) -> None:
        """Wait until a send would not block."""
        await self.check_open()
        await wait_writable(self._sock.fileno())

    async def _do(self, call: Callable[[], T], wait: Callable[[int], Awaitable[None]], until: float) -> T:
        await checkpoint_if_cancelled()
        try:
            result = call()
        except BlockingIOError:
            pass
        except OSError:
            await cancel_shielded_checkpoint()
            raise
        else:
            await cancel_shielded_checkpoint()
            return result
        return await self._wait_and_do(call, wait, until)

    async def _wait_and_do(self, call: Callable[[], T], wait: Callable[[int], Awaitable[None]], until: float) -> T:
        while True:
            ready = await park(wait, self._sock.fileno(), until)
            try:
                return call()
            except BlockingIOError:
                if not ready:
                    raise Expired from None

    # ------------------------------------------------------------------ ending

    async def discard(self) -> None:
        """Throw away what has been received, without waiting for the peer.

        Linux answers a close() with unread input by RST (RFC 2525 section 2.17), which destroys whatever the peer
        has not received yet. While the peer's own kernel is still emptying its queue into the room that reading
        makes, each pass of the loop finds more. What was unread, as much again as our receive buffer holds, and the
        peer's send buffer: whatever is beyond these was sent after we began, and a peer that floods is reset.

        Where the receive buffer was full, the peer's kernel had probably no room to send what it holds. A pass that
        finds nothing then may only be too early, and some more follow.
        """
        limit: float = inf  # asked for when there is something to discard, which is rare
        short = empty = allowed_empty = 0
        yielded = 0.0
        while limit > 0 and short < SHORT_READS:
            count = 0
            try:
                count = self._sock.recv_into(_SCRATCH)
                if not count:
                    return
                if limit == inf:
                    unread, buffer = count + self.unread(), self._sock.getsockopt(_SOL_SOCKET, _SO_RCVBUF)
                    limit = unread + buffer + PEER_BUFFER
                    # At most half of the buffer is lost to bookkeeping, tcp_adv_win_scale in tcp(7).
                    allowed_empty = EMPTY_READS if 2 * unread >= buffer else 0
                empty = 0
            except BlockingIOError:
                if empty == allowed_empty or yielded > LONGEST_YIELD:
                    return
                empty += 1
                yielded += yield_processor()
            except OSError:
                return
            limit -= count
            short += count < len(_SCRATCH)
            await cancel_shielded_checkpoint()

    if sys.platform == "win32":

        def unread(self) -> int:
            """Return 0: this system does not say."""
            return 0  # nearly all of it is within the receive buffer's size

    else:

        def unread(self) -> int:
            """Return how many bytes have been received and not been read."""
            # FIONREAD, tcp(7) and unix(7). A unix-domain socket's unread bytes count against the peer's buffer.
            return int.from_bytes(fcntl.ioctl(self._sock.fileno(), _FIONREAD, _NOTHING), sys.byteorder)

    def wake(self) -> None:
        """Wake every task that waits on this socket with `trio.ClosedResourceError`."""
        fd = self._sock.fileno()
        if fd >= 0:
            try:
                notify_closing(fd)
            except RuntimeError:
                pass  # outside of a run, where nobody waits

    def close(self) -> None:
        """Close; what was sent is still delivered unless unread input makes the kernel send RST."""
        if self.shared:
            self.wake()
        self._sock.close()

    # ------------------------------------------------------------------ the rest

    @property
    def raw(self) -> socket.SocketType:
        """The socket beneath, for whoever waits for it by other means than Trio's."""
        return self._sock

    def bind_to_connect(self, address: Any) -> None:
        """Bind to a local address now."""
        self._sock.bind(address)

    async def bind(self, address: Any) -> None:
        """Bind to a local address."""
        self._sock.bind(address)

    def is_readable(self) -> bool:
        """Say whether a read would not wait."""
        fd = self._sock.fileno()
        return fd < 0 or is_readable(fd)

    def share_fileno(self) -> int:
        """Give the descriptor out, to somebody who may wait on it."""
        self.shared = True
        return self._sock.fileno()

    def trio_socket(self) -> trio.socket.SocketType:
        """Give out Trio's view of the same socket; closing either closes both."""
        self.shared = True
        sock = self._sock
        if not isinstance(sock, socket.socket):
            self._sock = sock = socket.socket(fileno=sock.detach())
        return trio.socket.from_stdlib_socket(sock)
