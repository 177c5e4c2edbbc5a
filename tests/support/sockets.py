"""The two kinds of socket: the kernel's, and those of a custom ``trio.socket`` factory.

A run with a factory installed must behave as one without. `PassThroughFactory` puts real sockets
behind the second kind, made as awkward as a fake may be:

- ``fileno()`` is -2 while open: the kernel refuses it, so handing it on does not go unnoticed
  (-1 when closed, as `trio.SocketStream` asks for that);
- a cancelled ``connect`` does *not* close the socket, unlike Trio's own;
- whatever is not closed stays open: instances are held, and no finaliser comes to the rescue.

A test that takes the `sockets` fixture runs twice. It must be an argument: pytest-trio does not see
``usefixtures``. ::

    async def test_connect_leaves_nothing(sockets: Sockets) -> None:
        async def connect(peer: Peer) -> TcpStream:
            return await tcp_connect(peer.address.pair)

        summary = await sweep(connect, environment=faults.echoing, counters=sockets.counters)
        assert summary.endings("before")[1]["cancelled"] == repeated(1)
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import attrs
import pytest
import trio

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

T = TypeVar("T")
Name: TypeAlias = Literal["kernel", "factory"]

NAMES: tuple[Name, ...] = ("kernel", "factory")


class PassThroughSocket(trio.socket.SocketType):
    """A real Trio socket behind a wrapper that the kernel does not know."""

    def __init__(self, factory: PassThroughFactory, raw: socket.socket) -> None:
        super().__init__()
        self._factory = factory
        self._raw = raw
        self._inner = trio.socket.from_stdlib_socket(raw)
        factory.created += 1
        factory.open[id(self)] = self

    def detach(self) -> int:
        raise NotImplementedError("a socket of a custom factory has no descriptor to give away")

    def fileno(self) -> int:
        return -1 if self._raw.fileno() == -1 else -2

    def getpeername(self) -> Any:
        return self._inner.getpeername()

    def getsockname(self) -> Any:
        return self._inner.getsockname()

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        if buflen is None:
            return self._inner.getsockopt(level, optname)
        return self._inner.getsockopt(level, optname, buflen)

    def setsockopt(self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None) -> None:
        if optlen is None:
            assert value is not None
            self._inner.setsockopt(level, optname, value)
        else:
            assert value is None
            self._inner.setsockopt(level, optname, value, optlen)

    def listen(self, backlog: int = 128) -> None:
        self._inner.listen(backlog)

    def get_inheritable(self) -> bool:
        return self._inner.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        self._inner.set_inheritable(inheritable)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def family(self) -> socket.AddressFamily:
        return self._inner.family

    @property
    def type(self) -> socket.SocketKind:
        return self._inner.type

    @property
    def proto(self) -> int:
        return self._inner.proto

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self._inner.did_shutdown_SHUT_WR

    def __repr__(self) -> str:
        return f"<pass-through {self._inner!r}>"

    def dup(self) -> PassThroughSocket:
        return PassThroughSocket(self._factory, self._raw.dup())

    def close(self) -> None:
        self._factory.open.pop(id(self), None)
        self._inner.close()

    async def bind(self, address: Any) -> None:
        await self._inner.bind(address)

    def shutdown(self, flag: int) -> None:
        self._inner.shutdown(flag)

    def is_readable(self) -> bool:
        return self._inner.is_readable()

    async def wait_writable(self) -> None:
        await self._inner.wait_writable()

    async def accept(self) -> tuple[PassThroughSocket, Any]:
        inner, address = await self._inner.accept()
        raw = socket.socket(self.family, self.type, self.proto, fileno=inner.detach())
        return PassThroughSocket(self._factory, raw), address

    async def connect(self, address: Any) -> None:
        # Not the inner socket's: that closes itself when cancelled.
        self._factory.connects += 1
        if self.family in (socket.AF_INET, socket.AF_INET6):
            ipaddress.ip_address(address[0])  # a name would make the kernel's connect() look it up
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._raw.connect(address)
        except BlockingIOError as exc:
            if exc.errno != errno.EINPROGRESS:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise
        except OSError:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        await trio.lowlevel.wait_writable(self._raw)
        if error := self._raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        return await self._inner.recv(buflen, flags)

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        return await self._inner.recv_into(buffer, nbytes, flags)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        return await self._inner.recvfrom(bufsize, flags)

    async def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        return await self._inner.recvfrom_into(buffer, nbytes, flags)

    async def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        return await self._inner.recvmsg(bufsize, ancbufsize, flags)

    async def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, object]:
        return await self._inner.recvmsg_into(buffers, ancbufsize, flags)

    async def send(self, data: Buffer, flags: int = 0, /) -> int:
        return await self._inner.send(data, flags)

    async def sendto(self, *args: Any) -> int:
        return await self._inner.sendto(*args)

    async def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        return await self._inner.sendmsg(buffers, ancdata, flags, address)


class PassThroughFactory(trio.abc.SocketFactory):
    """Makes pass-through sockets and knows which are open.

    ``prepare`` gets each real socket as it is made, to set options on it or to raise.
    """

    def __init__(self, prepare: Callable[[socket.socket], object] | None = None) -> None:
        self.prepare = prepare
        self.created = 0
        self.connects = 0
        self.open: dict[int, PassThroughSocket] = {}

    def socket(
        self,
        family: socket.AddressFamily | int = socket.AF_INET,
        type: socket.SocketKind | int = socket.SOCK_STREAM,
        proto: int = 0,
    ) -> PassThroughSocket:
        raw = socket.socket(family, type, proto)
        try:
            if self.prepare is not None:
                self.prepare(raw)
        except BaseException:
            raw.close()
            raise
        return PassThroughSocket(self, raw)

    @property
    def counters(self) -> dict[str, Callable[[], int]]:
        """For a census: the number of open sockets must not have grown."""
        return {"sockets of the custom factory": lambda: len(self.open)}

    def close_all(self) -> None:
        for sock in tuple(self.open.values()):
            sock.close()


@attrs.define
class Sockets:
    """One of the two kinds; ``factory`` is there for the second."""

    name: Name
    factory: PassThroughFactory | None

    @classmethod
    def to(cls, name: Name) -> Sockets:
        return cls(name, PassThroughFactory() if name == "factory" else None)

    @property
    def counters(self) -> dict[str, Callable[[], int]]:
        return {} if self.factory is None else self.factory.counters

    @contextlib.contextmanager
    def installed(self) -> Iterator[Sockets]:
        """Have the run make sockets of this kind, inside; nothing of the factory's may stay open."""
        if self.factory is None:
            yield self
            return
        previous = trio.socket.set_custom_socket_factory(self.factory)
        try:
            yield self
            left = list(self.factory.open.values())
            assert not left, f"sockets of the custom factory left open: {left}"
        finally:
            trio.socket.set_custom_socket_factory(previous)
            self.factory.close_all()


async def through_both_kinds(call: Callable[[Sockets], Awaitable[T]]) -> dict[Name, T]:
    """Await ``call`` once with each kind of socket; with the factory's it must have connected or listened."""
    results: dict[Name, T] = {}
    for name in NAMES:
        with Sockets.to(name).installed() as sockets:
            results[name] = await call(sockets)
        assert sockets.factory is None or sockets.factory.created, "nobody asked the custom factory"
    return results


@pytest.fixture(params=NAMES, ids=NAMES)
async def sockets(request: pytest.FixtureRequest) -> AsyncIterator[Sockets]:
    """Run the test twice: on kernel sockets, and with a custom socket factory installed."""
    with Sockets.to(request.param).installed() as opened:
        yield opened
