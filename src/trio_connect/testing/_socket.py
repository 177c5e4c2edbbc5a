"""The socket of a virtual network: `trio.socket.SocketType` over an `End`. How it waits, see _parking."""

from __future__ import annotations

import builtins
import errno
import os
import socket
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, overload

import trio

from . import _options
from ._address import WILDCARD, SocketAddress, canonical, dressed, is_loopback
from ._byte_calls import ByteCalls
from ._dial import Dial, dial
from ._errors import NotOnVirtualNetwork
from ._fabric import Fabric
from ._listening import WILDCARDS, Listening
from ._node import Node
from ._options import Options
from ._parking import Parking
from ._resolve import resolve
from ._tcp import End, fail
from ._trace import TraceEvent

if TYPE_CHECKING:
    from typing_extensions import Buffer


class VirtualSocket(ByteCalls):
    """A TCP socket that exists only on a virtual network; made with `trio.socket.socket`, as always.

    Args:
      fabric: the network.
      node: the host that it belongs to.
      family: AF_INET or AF_INET6.
      end: what an accepted connection begins with.
      inherited: the listener's options.
    """

    def __init__(
        self, fabric: Fabric, node: Node, family: int, end: End | None = None, inherited: Options | None = None
    ) -> None:
        super().__init__()
        self._fabric = fabric
        self._node = node
        self._family = socket.AddressFamily(family)
        self._options = Options(family, inherited)
        self._binding: Listening | None = None
        self._local: tuple[str, int] | None = None
        self._end: End | None = None
        self._dial: Dial | None = None
        # As the kernel's socket has them beside its connection: what connect(2) has said, what shutdown(2) was told.
        self._step: Literal["unconnected", "connecting", "connected"] = "unconnected"
        self._shut: set[int] = set()
        self._zone: tuple[int, int] = (0, 0)
        self._wrote_eof = False
        self._reading = Parking("another task is currently reading from this socket")
        self._writing = Parking("another task is currently writing to this socket")
        self._fileno = fabric.opened(node, self)
        if end is not None:  # an accepted connection
            self._adopt(end)
            self._step = "connected"

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

    def fileno(self) -> int:
        """Return a number beyond what any kernel gives out, so that nothing real happens by mistake; -1 once closed."""
        return self._fileno

    def __repr__(self) -> str:
        closed = self._fileno == -1
        state = "closed" if closed else f"laddr={self.getsockname()}"
        if not closed and self._end is not None and self._end.state == "open":
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
            raise self._fabric.failed(NotOnVirtualNetwork("a virtual socket has no file descriptor to inherit"))

    def detach(self) -> NoReturn:
        raise self._fabric.failed(NotOnVirtualNetwork("a virtual socket has no file descriptor to detach"))

    def share(self, process_id: int) -> NoReturn:  # noqa: ARG002
        raise self._fabric.failed(NotOnVirtualNetwork("a virtual socket cannot be shared with another process"))

    def dup(self) -> NoReturn:
        raise self._fabric.failed(NotOnVirtualNetwork("a virtual socket has no file descriptor to duplicate"))

    def getsockname(self) -> SocketAddress:
        self._check_open()
        if self._local is None:
            return dressed(self._family, WILDCARD[self._family], 0)
        return dressed(self._family, *self._local, *(self._zone if self._family == socket.AF_INET6 else ()))

    def getpeername(self) -> SocketAddress:
        self._check_open()
        if self._end is None or self._end.state != "open" or self._end.is_over:
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

    @property
    def _v6only(self) -> bool:
        return self._family == socket.AF_INET6 and bool(self._options.number(_options.V6ONLY))

    @property
    def _listening(self) -> bool:
        return self._binding is not None and self._binding.active

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

    def _check_open(self) -> None:
        if self._fileno == -1:
            fail(errno.EBADF)

    def _keep_zone(self, place: SocketAddress) -> None:
        if len(place) == 4:
            self._zone = (place[2], place[3])

    # ---- Names, listening, accepting ----

    async def bind(self, address: Any) -> None:
        place = await resolve(self._family, address, local=True, v6only=self._v6only)
        await trio.lowlevel.checkpoint()
        self._check_open()
        if self._local is not None:
            fail(errno.EINVAL)
        where, port = canonical(place[0]), place[1]
        if self._v6only and ":" not in where:
            fail(errno.EINVAL)
        if where not in WILDCARDS and not is_loopback(where) and where not in self._node.addresses:
            fail(errno.EADDRNOTAVAIL)
        self._bind(where, port)
        self._keep_zone(place)

    def _bind(self, address: str, port: int) -> None:
        binding = Listening(
            address, port,
            v6only=self._v6only,
            reuse_address=self._options.flag("SO_REUSEADDR"),
            reuse_port=self._options.flag("SO_REUSEPORT"),
        )  # fmt: skip
        if port == 0:
            while binding.port == 0 or any(binding.conflicts(other) for other in self._node.bound):
                binding.port = self._node.next_port
                self._node.next_port += 1
        elif any(binding.conflicts(other) for other in self._node.bound):
            fail(errno.EADDRINUSE)
        self._node.bound.append(binding)
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
        if any(other is not binding and other.active and binding.conflicts(other) for other in self._node.bound):
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

        end = await self._reading.until_done(take)
        accepted = VirtualSocket(self._fabric, self._node, self._family, end, self._options)
        return accepted, dressed(self._family, *end.remote)

    # ---- Connecting ----

    async def connect(self, address: Any) -> None:
        try:
            place = await resolve(self._family, address, local=False, v6only=self._v6only)
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
            end = self._end
            while end is not None and end.state == "connecting":
                await self._writing.park()
        except trio.Cancelled:
            # Trio's sockets close themselves here, because the kernel goes on connecting.
            self.close()
            raise
        error = 0 if end is None else end.take_error()
        if error:
            raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")

    def _connect(self, place: SocketAddress) -> None:
        self._check_open()
        if self._listening:
            fail(errno.EISCONN)
        if self._step == "connected":
            fail(errno.EISCONN)  # also when that connection is over
        if self._step == "connecting" and self._end is not None:
            self._say_what_became_of(self._end)
            return
        where = canonical(place[0])
        if self._v6only and ":" not in where:
            fail(errno.ENETUNREACH)
        self._keep_zone(place)
        self._dial = dial(
            self._fabric, self._node, self._local, (where, place[1]),
            send_buffer=self._options.number(_options.SNDBUF) // 2,
            receive_buffer=self._options.number(_options.RCVBUF) // 2,
            retries=self._options.number(_options.SYNCNT) or 6,
        )  # fmt: skip
        self._adopt(self._dial.client)
        self._dial.start()
        if self._dial.client.state == "connecting":
            self._step = "connecting"
            fail(errno.EINPROGRESS)
        if self._dial.client.error:
            fail(self._dial.client.take_error())
        self._step = "connected"

    def _say_what_became_of(self, end: End) -> None:
        """Answer a connect after the one that was not done at once, as Linux does (inet_stream_connect)."""
        if end.state == "connecting":
            fail(errno.EALREADY)
        if end.state == "dead" or end.is_over:
            # Who reads SO_ERROR before has the error; the socket may connect again only after this.
            self._step = "unconnected"
            fail(end.take_error() or errno.ECONNABORTED)
        self._step = "connected"

    def _adopt(self, end: End) -> None:
        self._end = end
        self._local = end.local
        end.read_closed, end.write_closed = socket.SHUT_RD in self._shut, socket.SHUT_WR in self._shut
        end.on_readable, end.on_writable = self._reading.wake, self._writing.wake

    # ---- Bytes ----

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        if index(buflen) < 0:
            raise ValueError("negative buffersize in recv")
        return await self._reading.until_done(lambda: self._receive(buflen, flags))

    def recv_nowait(self, buflen: int, /) -> bytes:
        """Receive what has come; no method of Trio's sockets, but one that any fake may have.

        Raises:
          trio.WouldBlock: nothing has.
        """
        try:
            return self._receive(buflen, 0)
        except BlockingIOError:
            raise trio.WouldBlock from None

    def _receive(self, limit: int, flags: int) -> bytes:
        if not limit:
            return b""  # CPython asks no kernel for nothing, also of a closed socket
        self._check_open()
        if self._listening:
            fail(errno.ENOTCONN)
        if flags & socket.MSG_OOB:
            fail(errno.EINVAL)
        if self._end is None:
            if socket.SHUT_RD in self._shut:
                return b""
            fail(errno.ENOTCONN)
        return self._end.receive(limit, peek=bool(flags & socket.MSG_PEEK))

    async def send(self, data: Buffer, flags: int = 0, /) -> int:  # noqa: ARG002
        def put() -> int:
            self._check_open()
            if self._end is None:
                fail(errno.EPIPE)
            return self._end.send(view)

        with memoryview(data).cast("B") as view:
            return await self._writing.until_done(put)

    def shutdown(self, flag: int) -> None:
        self._check_open()
        if flag not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            fail(errno.EINVAL)
        self._shut_down(read=flag != socket.SHUT_WR, write=flag != socket.SHUT_RD)
        self._wrote_eof |= flag != socket.SHUT_RD

    def _shut_down(self, *, read: bool, write: bool) -> None:
        """Half-close, as Linux does (inet_shutdown): no connection is an error, and remembered all the same."""
        if self._listening and self._binding is not None:
            if read:
                self._binding.close()
                self._reading.wake()
            return
        if self._dial is not None and self._end is not None and self._end.state == "connecting":
            end, self._end, self._step = self._end, None, "unconnected"
            self._dial.abandon()
            end.die(errno.ECONNRESET)  # for the connect that waits; nothing of it is left for the socket
            return
        self._shut.update({socket.SHUT_RD} if read else (), {socket.SHUT_WR} if write else ())
        if self._end is None:
            fail(errno.ENOTCONN)
        if self._step == "connecting" and not self._end.is_over and self._end.state == "open":
            self._step = "connected"
        self._end.shutdown(read=read, write=write)

    def is_readable(self) -> bool:
        if self._fileno == -1:
            raise ValueError("file descriptor cannot be a negative integer (-1)")  # poll(2) is never asked
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
            await self._writing.park()

    def close(self) -> None:
        if self._fileno == -1:
            return
        self._fabric.forget(self._fileno)
        self._fileno = -1
        if self._dial is not None:
            self._dial.abandon()
        if self._end is not None:
            self._note_closed(self._end)
            self._end.close(linger=self._options.lingers)
        if self._binding is not None:
            self._binding.close()
            self._node.bound.remove(self._binding)
        self._reading.close()
        self._writing.close()

    def _note_closed(self, end: End) -> None:
        if end.state == "connecting" or end.peer is None:
            return
        at = self._fabric.elapsed()
        if self._dial is not None:
            self._dial.record.closed = at
        address, port, ordinal, _ = end.place
        self._fabric.note(TraceEvent(at, "closed", address, port, ordinal, self._node.name, str(end.tally)))
