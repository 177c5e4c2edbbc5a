"""A `trio.socket.SocketType`: the kind of socket for runs with a socket factory of their own.

Such an object may be a fake, so only what every one of them has is used, nothing is tried without waiting, and no
file descriptor is ever taken from it for the kernel.
"""

from __future__ import annotations

import errno
import socket
import sys
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, final

import trio
from trio.lowlevel import cancel_shielded_checkpoint

from .stream_socket import (
    EMPTY_READS,
    LONGEST_YIELD,
    PEER_BUFFER,
    SHORT_READS,
    LocalFailure,
    StreamSocket,
    errno_of,
    skip_connection_errors,
)
from .waiting import Expired, within, yield_processor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Buffer

    from .stream_socket import Ancillary

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


# What one read asks for at most: the memory for it has to be there before anything has come.
_LARGEST_READ: Final = 1 << 18
# What one pass of a discard reads.
_SHARE: Final = 1 << 17


@final
class FactorySocket(StreamSocket):
    """Whatever the run's socket factory made."""

    __slots__ = ("_bind_address", "_scopes")

    in_kernel = False
    _sock: trio.socket.SocketType
    # Closing such a socket wakes whoever waits on it, if the object is as Trio's own; nothing else could.
    shared = False

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._bind_address: Any = None
        self._scopes: set[trio.CancelScope] = set()
        self.lost = 0

    # ------------------------------------------------------------------ connecting

    def begin(self, address: Any) -> int:  # noqa: ARG002 - the kernel's needs it
        """Return EALREADY: here connecting is a coroutine, nothing can be started without a task."""
        return errno.EALREADY

    def poll(self, address: Any) -> int:  # noqa: ARG002 - the kernel's needs it
        """Return EALREADY: only the coroutine knows, and it runs in `finish`."""
        return errno.EALREADY

    async def finish(self, address: Any, until: float) -> int:
        """Bind to the address of `bind_to_connect`, if any, and connect: 0, or the error.

        Raises:
          Expired: `until` came first.
          LocalFailure: it could not be bound.
        """
        try:
            if self._bind_address is not None:
                await self._sock.bind(self._bind_address)
        except OSError as exc:
            raise LocalFailure.of(exc, "bind") from exc
        try:
            await within(until, self._sock.connect, address)
        except OSError as exc:
            return errno_of(exc)
        if self._sock.family == getattr(socket, "AF_UNIX", None):
            # Trio takes EAGAIN, which here says that the backlog is full, for EINPROGRESS, and reports success.
            try:
                self._sock.getpeername()
            except OSError as exc:
                return errno.EAGAIN if exc.errno == errno.ENOTCONN else errno_of(exc)
        return 0

    def bind_to_connect(self, address: Any) -> None:
        """Bind to a local address when `finish` begins: here that is a coroutine."""
        self._bind_address = address

    async def bind(self, address: Any) -> None:
        """Bind to a local address."""
        await self._sock.bind(address)

    # ------------------------------------------------------------------ moving bytes

    async def receive(self, size: int, until: float) -> bytes:
        """Receive up to `size` bytes; b"" at the end of the stream."""
        return bytes(await self._run(until, self._sock.recv, size))

    async def receive_into(self, view: memoryview, until: float) -> int:
        """Receive into a buffer; 0 at the end of the stream."""
        data = await self._run(until, self._sock.recv, min(len(view), _LARGEST_READ))
        view[: len(data)] = data
        return len(data)

    async def send(self, data: Buffer, until: float) -> int:
        """Send some of the bytes and return how many."""
        return await self._run(until, self._sock.send, data)

    async def send_buffers(self, buffers: Sequence[Buffer], until: float) -> int:
        """Send some of the bytes of the first of several buffers and return how many."""
        return await self._run(until, self._sock.send, buffers[0])

    async def send_message(self, data: bytes, ancillary: Sequence[Ancillary], until: float) -> int:
        """Send bytes with ancillary data riding on them, see sendmsg(2)."""
        if sys.platform == "win32":
            raise OSError(errno.EOPNOTSUPP, "this platform has no ancillary data")
        return await self._run(until, self._sock.sendmsg, [data], ancillary)

    async def receive_message(
        self, size: int, room: int, flags: int, until: float
    ) -> tuple[bytes, Sequence[tuple[int, int, bytes]], int]:
        """Receive up to `size` bytes and up to `room` bytes of ancillary data, and the flags of recvmsg(2)."""
        if sys.platform == "win32":
            raise OSError(errno.EOPNOTSUPP, "this platform has no ancillary data")
        return (await self._run(until, self._sock.recvmsg, size, room, flags))[:3]

    def receive_now(self, size: int) -> bytes | None:
        """Receive up to `size` bytes without waiting: b"" at the end of the stream, None where nothing has come.

        Trio's sockets have no call for it. Those of `trio_connect.testing` do, and so may others.

        Raises:
          NotImplementedError: something has come, and only a coroutine of this socket could take it.
        """
        receive = getattr(self._sock, "recv_nowait", None)
        if receive is not None:
            try:
                return bytes(receive(size))
            except trio.WouldBlock:
                return None
        if self.is_readable():
            raise NotImplementedError
        return None

    async def accept(self, until: float) -> tuple[FactorySocket, Any]:
        """Accept one connection, skipping those that died while they waited."""
        sock, address = await skip_connection_errors(partial(self._run, until, self._sock.accept), until)
        return FactorySocket(sock), address

    async def wait_writable(self) -> None:
        """Wait until a send would not block."""
        await self.check_open()
        await self._run(inf, self._sock.wait_writable)

    async def _run(self, until: float, call: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        # A fake need not wake those who wait on it when it is closed, so each wait can be ended from here.
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                return await within(until, call, *args)
            finally:
                self._scopes.discard(scope)
        raise trio.ClosedResourceError("this socket was closed by another task")

    # ------------------------------------------------------------------ ending

    async def discard(self) -> None:
        """Throw away what has been received, without waiting for the peer; see `KernelSocket.discard`."""
        limit = short = empty = allowed_empty = 0
        yielded = 0.0
        with trio.CancelScope(shield=True):
            while short < SHORT_READS:
                try:
                    data = await within(-inf, self._sock.recv, _SHARE)
                except Expired:
                    if empty == allowed_empty or yielded > LONGEST_YIELD:
                        return
                    empty += 1
                    short += 1
                    yielded += yield_processor()
                    continue
                except (OSError, trio.ClosedResourceError, trio.BusyResourceError):
                    return
                if not data:
                    return
                if not limit:
                    # A fake cannot be asked how much is unread, but that fits its buffer; once more for what follows.
                    buffer = self._receive_buffer()
                    limit = PEER_BUFFER + 2 * buffer
                    allowed_empty = EMPTY_READS if 2 * len(data) >= buffer else 0
                empty = 0
                limit -= len(data)
                if limit <= 0:
                    return
                short += len(data) < _SHARE
                await cancel_shielded_checkpoint()

    def _receive_buffer(self) -> int:
        try:
            return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        except OSError:
            return 0

    def wake(self) -> None:
        """Wake every task that waits on this socket with `trio.ClosedResourceError`."""
        for scope in tuple(self._scopes):
            scope.cancel()

    def close(self) -> None:
        """Close."""
        self._sock.close()

    # ------------------------------------------------------------------ the rest

    def is_readable(self) -> bool:
        """Say whether a read would not wait."""
        return self._sock.fileno() == -1 or self._sock.is_readable()

    def share_fileno(self) -> int:
        """Give the descriptor out, to somebody who may wait on it."""
        return self._sock.fileno()

    def trio_socket(self) -> trio.socket.SocketType:
        """Return the socket itself."""
        return self._sock
