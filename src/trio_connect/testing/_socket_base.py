"""What a virtual socket says about itself: names, options, what it does not have; and how its methods wait.

Every async method looks for cancellation first, then tries; a try that succeeds or fails is followed by a schedule
point that cannot be cancelled, and only one that would block waits. That is what Trio's real sockets do, so a program
cannot tell.
"""

from __future__ import annotations

import builtins
import errno
import socket
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

import trio

from . import _options
from ._address import WILDCARD, SocketAddress, dressed
from ._errors import NotOnVirtualNetwork
from ._listening import Listening
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


class SocketBase(trio.socket.SocketType):
    """What a virtual socket is, before it does anything."""

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
