"""The socket of a virtual network: `trio.socket.SocketType` over an `End`. How it waits, see _socket_base."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from operator import index
from typing import TYPE_CHECKING, Any

import trio

from . import _options
from ._address import WILDCARD, SocketAddress, canonical, dressed, is_loopback
from ._listening import WILDCARDS, Listening
from ._options import Options
from ._socket_base import SocketBase
from ._tcp import End, fail

if TYPE_CHECKING:
    from typing_extensions import Buffer


class VirtualSocket(SocketBase):
    """A TCP socket that exists only on a virtual network; made with `trio.socket.socket`, as always."""

    # ---- Names, listening, accepting ----

    async def bind(self, address: Any) -> None:
        place = await self._resolve(address, local=True)
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._local is not None:
            fail(errno.EINVAL)
        where, port = canonical(place[0]), place[1]
        if where not in WILDCARDS and not is_loopback(where) and where not in self._host.addresses:
            fail(errno.EADDRNOTAVAIL)
        self._bind(where, port)
        self._keep_zone(place)

    def _bind(self, address: str, port: int) -> None:
        binding = Listening(
            self._host, address, port,
            v6only=self._family == socket.AF_INET6 and bool(self._options.number(_options.V6ONLY)),
            reuse_address=self._options.flag("SO_REUSEADDR"),
            reuse_port=self._options.flag("SO_REUSEPORT"),
        )  # fmt: skip
        if port == 0:
            while binding.port == 0 or any(binding.conflicts(other) for other in self._host.bound):
                binding.port = self._host.next_port
                self._host.next_port += 1
        elif any(binding.conflicts(other) for other in self._host.bound):
            fail(errno.EADDRINUSE)
        self._host.bound.append(binding)
        self._binding = binding
        self._local = (address, binding.port)

    def listen(self, backlog: int = 128) -> None:
        self._check_open()
        if self._end is not None:
            fail(errno.EINVAL)
        if self._binding is None:
            self._bind(WILDCARD[self._family], 0)
        binding = self._binding
        assert binding is not None
        if any(other is not binding and other.active and binding.conflicts(other) for other in self._host.bound):
            fail(errno.EADDRINUSE)
        binding.active, binding.backlog = True, max(backlog, 0)
        binding.send_buffer = self._options.number(_options.SNDBUF) // 2
        binding.receive_buffer = self._options.number(_options.RCVBUF) // 2
        binding.on_ready = self._reading.wake

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        def take() -> End:
            self._check_open()
            binding = self._binding
            if binding is None or not binding.active:
                fail(errno.EINVAL)
            if not binding.queue:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return binding.queue.popleft()

        end = await self._do(take, self._reading)
        accepted = self._network.adopt(self._host, self._family, end, self._options)
        return accepted, dressed(self._family, *end.remote)

    # ---- Connecting ----

    async def connect(self, address: Any) -> None:
        try:
            place = await self._resolve(address, local=False)
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                self._connect(place)
            except BlockingIOError:
                pass
            except BaseException:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            while self._end is not None and self._end.state == "connecting":
                await self._park(self._writing)
        except trio.Cancelled:
            # Trio's sockets close themselves here, because the kernel goes on connecting.
            self.close()
            raise
        error = 0 if self._end is None else self._end.take_error()
        if error:
            raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")

    def _connect(self, place: SocketAddress) -> None:
        self._check_open()
        if self._listening:
            fail(errno.EISCONN)
        if self._end is not None and self._end.state != "dead":
            fail(errno.EALREADY if self._end.state == "connecting" else errno.EISCONN)
        self._keep_zone(place)
        self._dial, self._record = self._network.dial(
            self._host, self._local, (canonical(place[0]), place[1]),
            send_buffer=self._options.number(_options.SNDBUF) // 2,
            receive_buffer=self._options.number(_options.RCVBUF) // 2,
            retries=self._options.number(_options.SYNCNT) or 6,
        )  # fmt: skip
        self._hold(self._dial.client)
        self._dial.start()
        if self._dial.client.state == "connecting":
            fail(errno.EINPROGRESS)
        if self._dial.client.error:
            fail(self._dial.client.take_error())

    def _hold(self, end: End) -> None:
        self._end = end
        self._local = end.local
        end.on_readable, end.on_writable = self._reading.wake, self._writing.wake

    def adopt(self, end: End, options: Options | None) -> None:
        """Become the socket of an accepted connection."""
        self._options = Options(self._family, options)
        self._hold(end)

    # ---- Bytes ----

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        if index(buflen) < 0:
            raise ValueError("negative buffersize in recv")
        return await self._do(lambda: self._receive(buflen, flags), self._reading)

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        with memoryview(buffer) as view, view.cast("B") as target:
            if nbytes < 0:
                raise ValueError("negative buffersize in recv_into")
            if nbytes > len(target):
                raise ValueError("buffer too small for requested bytes")
            data = await self.recv(nbytes or len(target), flags)
            target[: len(data)] = data
            return len(data)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        return await self.recv(bufsize, flags), None

    async def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        return await self.recv_into(buffer, nbytes, flags), None

    async def recvmsg(
        self,
        bufsize: int,
        ancbufsize: int = 0,  # noqa: ARG002
        flags: int = 0,
        /,
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        return await self.recv(bufsize, flags), [], 0, None

    async def recvmsg_into(
        self,
        buffers: Iterable[Buffer],
        ancbufsize: int = 0,  # noqa: ARG002
        flags: int = 0,
        /,
    ) -> tuple[int, list[tuple[int, int, bytes]], int, object]:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        data = await self.recv(sum(map(len, views)), flags)
        rest = memoryview(data)
        for view in views:
            size = min(len(view), len(rest))
            view[:size] = rest[:size]
            rest = rest[size:]
        return len(data), [], 0, None

    def _receive(self, limit: int, flags: int) -> bytes:
        self._check_open()
        if flags & socket.MSG_OOB:
            fail(errno.EINVAL)
        if self._end is None:
            fail(errno.ENOTCONN)
        return self._end.receive(limit, peek=bool(flags & socket.MSG_PEEK)) if limit else b""

    async def send(self, data: Buffer, flags: int = 0, /) -> int:  # noqa: ARG002
        def put() -> int:
            self._check_open()
            if self._end is None:
                fail(errno.EPIPE)
            return self._end.send(view)

        with memoryview(data).cast("B") as view:
            return await self._do(put, self._writing)

    async def sendto(self, *args: Any) -> int:
        if len(args) not in (2, 3):
            raise TypeError(f"sendto takes data, optional flags and an address, not {len(args)} arguments")
        # Linux ignores the address on a connected stream socket.
        return await self.send(args[0], *(args[1:2] if len(args) == 3 else ()))

    async def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,  # noqa: ARG002
        /,
    ) -> int:
        if list(ancdata):
            fail(errno.EINVAL)
        return await self.send(b"".join(buffers), flags)

    def shutdown(self, flag: int) -> None:
        self._check_open()
        if flag not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            fail(errno.EINVAL)
        if self._listening and self._binding is not None:
            self._binding.close()
            self._reading.wake()
            return
        if self._end is None:
            fail(errno.ENOTCONN)
        self._end.shutdown(read=flag != socket.SHUT_WR, write=flag != socket.SHUT_RD)
        if flag != socket.SHUT_RD:
            self._wrote_eof = True

    def is_readable(self) -> bool:
        self._check_open()
        if self._listening and self._binding is not None:
            return bool(self._binding.queue)
        return self._end is None or self._end.readable

    async def wait_writable(self) -> None:
        self._check_open()
        await trio.lowlevel.checkpoint_if_cancelled()
        end = self._end
        if end is None or end.writable:
            self._writing.check_free()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        while not end.writable:
            await self._park(self._writing)

    def close(self) -> None:
        if self.closed:
            return
        self._network.forget(self._fileno)
        self._fileno = -1
        if self._dial is not None:
            self._dial.abandon()
        if self._end is not None:
            self._network.closes(self._host, self._end, self._record)
            self._end.close(linger=self._options.lingers)
        if self._binding is not None:
            self._binding.close()
            self._host.bound.remove(self._binding)
        # Trio wakes who waits on a socket that another task closes.
        self._reading.wake()
        self._writing.wake()
