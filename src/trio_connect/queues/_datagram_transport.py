"""A UDP socket, as queues use it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, final

from trio import current_time

from .._endpoint import Endpoint, as_endpoint, check_connectable
from .._messages import connect_error
from .._net.sockets.address import sockaddr_of
from .._net.sockets.datagram import DatagramSocket
from .._net.sockets.stream_socket import errno_of
from ._transport import Cancellable, Transport, check_family, error, show
from ._values import Address

if TYPE_CHECKING:
    from socket import SocketType


@final
class DatagramTransport(Transport):
    """A UDP socket."""

    __slots__ = ("_local", "_sock")

    kind = "datagram"

    def __init__(self) -> None:
        super().__init__()
        self._sock: DatagramSocket | None = None
        self._local: Endpoint | None = None

    def check_target(self, value: Any, *, passive: bool) -> Endpoint:
        endpoint = as_endpoint(value)
        if not passive:
            check_connectable(endpoint)
            check_family(self.local, endpoint)
            if self._sock is not None and self._sock.family != endpoint.family:  # opened, but not bound yet
                raise OSError(errno.EAFNOSUPPORT, f"{endpoint} is of another address family than this queue's socket")
        return endpoint

    def open_for(self, endpoint: Endpoint) -> DatagramSocket:
        """Return the socket. The first call makes it.

        Raises:
          OSError: the system has no socket for it.
        """
        if self._sock is None:
            try:
                self._sock = DatagramSocket(endpoint.family)
            except OSError as exc:
                raise connect_error(errno_of(exc), "socket", endpoint, "this machine", 0.0) from None
        return self._sock

    async def bind(self, target: Endpoint) -> None:
        started = current_time()
        sock = self.open_for(target)
        try:
            await sock.bind(sockaddr_of(target))
            self._local = as_endpoint(tuple(sock.getsockname()))
        except OSError as exc:
            self.forget()
            raise connect_error(errno_of(exc), "bind", target, "this machine", current_time() - started) from None
        except BaseException:
            self.forget()
            raise

    async def connect(self, target: Endpoint, until: float, operation: Cancellable) -> bool:  # noqa: ARG002 - never waits
        started = current_time()
        sock = self.open_for(target)
        done = False
        try:
            with operation.scope():
                await sock.connect(sockaddr_of(target))
                done = True
            if not done:
                self.forget()
                return False
            self._local, self._peer = as_endpoint(tuple(sock.getsockname())), target
        except OSError as exc:
            where = "any address" if self.local is None else show(self.local)
            self.forget()
            raise connect_error(errno_of(exc), "connect", target, where, current_time() - started) from None
        except BaseException:
            self.forget()
            raise
        return True

    def connect_now(self, target: Endpoint) -> bool:
        """Connect the kernel's socket, which never waits, and return True.

        Raises:
          OSError: the connect has failed, and what was bound is closed.
        """
        started = current_time()
        sock = self.open_for(target)
        assert sock.raw is not None
        try:
            sock.raw.connect(sockaddr_of(target))
        except OSError as exc:
            where = "any address" if self.local is None else show(self.local)
            self.forget()
            raise connect_error(errno_of(exc), "connect", target, where, current_time() - started) from None
        self._local, self._peer = as_endpoint(tuple(sock.getsockname())), target
        return True

    async def push(self, data: memoryview) -> None:
        assert self._sock is not None
        try:
            await self._sock.send(data)
        except OSError as exc:
            raise error(errno_of(exc), "push to", self.peer) from None

    async def push_to(self, data: memoryview, endpoint: Endpoint) -> None:
        """Send one datagram."""
        assert self._sock is not None
        try:
            await self._sock.send_to(data, sockaddr_of(endpoint))
        except OSError as exc:
            raise error(errno_of(exc), "push to", endpoint) from None

    async def pop(self, size: int) -> tuple[bytes, Address, bool]:
        assert self._sock is not None
        try:
            data, sender, truncated = await self._sock.receive(size)
        except OSError as exc:
            raise error(errno_of(exc), "pop from", self.peer or self.local) from None
        return data, as_endpoint(tuple(sender)), truncated

    @property
    def local(self) -> Endpoint | None:
        if self._local is None and self._sock is not None:
            try:
                name = as_endpoint(tuple(self._sock.getsockname()))
            except OSError:  # closed, or a fake that is not bound
                return None
            if name.port:
                self._local = name
        return self._local

    def forget(self) -> None:
        """Close what a connect that failed has left."""
        sock, self._sock = self._sock, None
        self._local = None
        if sock is not None:
            sock.close()

    async def aclose(self) -> None:
        if self._sock is not None:
            self._local = self.local  # a closed socket has no address
            self._sock.close()

    def close_now(self) -> bool:
        sock = self._sock
        if sock is not None:
            if sock.raw is None:
                return False
            self._local = self.local
            sock.close()
        return True

    @property
    def kernel_socket(self) -> SocketType | None:
        return None if self._sock is None else self._sock.raw
