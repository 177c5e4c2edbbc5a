"""The socket of a virtual network: `trio.socket.SocketType` over an `End`, with Trio's own cancellation habits.

Every async method looks for cancellation first, then tries; a try that succeeds or fails is followed by a schedule
point that cannot be cancelled, and only one that would block waits. That is what Trio's real sockets do, so a program
cannot tell.
"""

from __future__ import annotations

import builtins
import errno
import os
import socket
from collections.abc import Callable, Iterable
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

import trio

from . import _options
from ._address import WILDCARD, SocketAddress, canonical, dressed, is_loopback
from ._errors import NotOnVirtualNetwork
from ._listening import WILDCARDS, Listening
from ._options import Options
from ._parking import Parking
from ._tcp import End, fail

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._dial import Dial
    from ._host import Host
    from ._network import VirtualNetwork
    from ._trace import Connection

T = TypeVar("T")


class VirtualSocket(trio.socket.SocketType):
    """A TCP socket that exists only on a virtual network; made with `trio.socket.socket`, as always."""

    def __init__(self, network: VirtualNetwork, host: Host, family: int, fileno: int) -> None:
        super().__init__()
        self._network = network
        self._host = host
        self._family = socket.AddressFamily(family)
        self._fileno = fileno
        self._options = Options(family)
        self._binding: Listening | None = None
        self._local: tuple[str, int] | None = None
        self._end: End | None = None
        self._dial: Dial | None = None
        self._record: Connection | None = None
        self._zone: tuple[int, int] = (0, 0)
        self._wrote_eof = False
        self._reading = Parking("another task is currently reading from this socket")
        self._writing = Parking("another task is currently writing to this socket")

    @property
    def _sock(self) -> Self:
        # anyio's Trio back end reads its attributes (local and remote address, family) through this name of Trio's.
        return self

    # ---- What it is ----

    @property
    def family(self) -> socket.AddressFamily:
        return self._family

    @property
    def type(self) -> socket.SocketKind:
        return socket.SOCK_STREAM

    @property
    def proto(self) -> int:
        return socket.IPPROTO_TCP

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802
        return self._wrote_eof

    @property
    def closed(self) -> bool:
        """Whether the program closed it."""
        return self._fileno == -1

    @property
    def host(self) -> Host:
        """The virtual host that it belongs to."""
        return self._host

    def fileno(self) -> int:
        """A number beyond what any kernel gives out, so that nothing real happens by mistake; -1 once closed."""
        return self._fileno

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"laddr={self.getsockname()}"
        if not self.closed and self._end is not None and self._end.state == "open":
            state += f", raddr={self.getpeername()}"
        return f"<trio_connect.testing.VirtualSocket {self._family.name} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: builtins.type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def get_inheritable(self) -> bool:
        self._check_open()
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        self._check_open()
        if inheritable:
            raise self._network.failed(NotOnVirtualNetwork("a virtual socket has no file descriptor to inherit"))

    def detach(self) -> NoReturn:
        raise self._network.failed(NotOnVirtualNetwork("a virtual socket has no file descriptor to detach"))

    def share(self, process_id: int) -> NoReturn:  # noqa: ARG002
        raise self._network.failed(NotOnVirtualNetwork("a virtual socket cannot be shared with another process"))

    def dup(self) -> NoReturn:
        raise self._network.failed(NotOnVirtualNetwork("a virtual socket has no file descriptor to duplicate"))

    def getsockname(self) -> SocketAddress:
        self._check_open()
        if self._local is None:
            return dressed(self._family, WILDCARD[self._family], 0)
        return dressed(self._family, *self._local, *(self._zone if self._family == socket.AF_INET6 else ()))

    def getpeername(self) -> SocketAddress:
        self._check_open()
        if self._end is None or self._end.state != "open":
            fail(errno.ENOTCONN)
        return dressed(self._family, *self._end.remote, *(self._zone if self._family == socket.AF_INET6 else ()))

    # ---- Options ----

    @overload
    def getsockopt(self, level: int, optname: int) -> int: ...

    @overload
    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes: ...

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int | bytes:
        self._check_open()
        fact = self._fact(optname) if level == socket.SOL_SOCKET else None
        value = self._options.get((level, optname)) if fact is None else fact
        if buflen is not None:
            return _options.packed(value, buflen)
        return value if isinstance(value, int) else int.from_bytes(value[:4], "little")

    def _fact(self, optname: int) -> int | None:
        if optname == socket.SO_ERROR:
            return 0 if self._end is None else self._end.take_error()
        if optname == socket.SO_TYPE:
            return int(self.type)
        if optname == getattr(socket, "SO_ACCEPTCONN", None):
            return int(self._listening)
        if optname == getattr(socket, "SO_DOMAIN", None):
            return int(self._family)
        if optname == getattr(socket, "SO_PROTOCOL", None):
            return self.proto
        return None

    @overload
    def setsockopt(self, level: int, optname: int, value: int | Buffer) -> None: ...

    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int) -> None: ...

    def setsockopt(self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None) -> None:
        self._check_open()
        if (value is None) != (optlen is not None):
            raise TypeError("setsockopt takes a value, or None and a length")
        key = (level, optname)
        if key == _options.V6ONLY and self._binding is not None:
            fail(errno.EINVAL)
        self._options.set(key, bytes(optlen or 0) if value is None else value)
        if self._end is not None:
            self._end.send_buffer = self._options.number(_options.SNDBUF) // 2
            if key == _options.RCVBUF:
                self._end.resize(self._options.number(_options.RCVBUF) // 2)

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

    @property
    def _listening(self) -> bool:
        return self._binding is not None and self._binding.active

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

    # ---- Waiting and names ----

    def _check_open(self) -> None:
        if self.closed:
            fail(errno.EBADF)

    async def _park(self, parking: Parking) -> None:
        await parking.park()
        if self.closed:
            raise trio.ClosedResourceError("another task closed this socket")

    async def _do(self, attempt: Callable[[], T], parking: Parking) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            result = attempt()
        except BlockingIOError:
            pass
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return result
        while True:
            await self._park(parking)
            try:
                return attempt()
            except BlockingIOError:
                pass

    def _keep_zone(self, place: SocketAddress) -> None:
        if len(place) == 4:
            self._zone = (place[2], place[3])

    async def _resolve(self, address: Any, *, local: bool) -> SocketAddress:
        longest = 2 if self._family == socket.AF_INET else 4
        parts: list[Any] = [*address] if isinstance(address, tuple) else []  # pyright: ignore[reportUnknownVariableType]
        if not 2 <= len(parts) <= longest:
            shape = "(host, port)" if longest == 2 else "(host, port, [flowinfo, [scopeid]])"
            raise ValueError(f"address should be a {shape} tuple")
        host, port, *rest = parts
        if isinstance(port, int) and not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        if not (isinstance(port, int) and isinstance(host, str) and _is_numeric(self._family, host)):
            flags = int(socket.AI_PASSIVE) if local else 0
            if self._family == socket.AF_INET6 and not self._options.number(_options.V6ONLY):
                flags |= socket.AI_V4MAPPED
            found = await trio.socket.getaddrinfo(
                host or None, port, self._family, socket.SOCK_STREAM, socket.IPPROTO_TCP, flags
            )
            resolved: tuple[Any, ...] = found[0][4]
            host, port = resolved[0], resolved[1]
            rest = rest + list(resolved[2 + len(rest) :])
        if self._family == socket.AF_INET:
            return (host, port)
        flow, scope = [*rest, 0, 0][:2]
        return (host, port, int(flow), int(scope))


def _is_numeric(family: int, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except OSError:
        return False
    return True
