"""The calls of a stream socket that come down to `recv` and `send`."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import trio

from ._tcp import fail

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ByteCalls(trio.socket.SocketType):
    """A stream socket whose further calls receive by its `recv` and send by its `send`."""

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
