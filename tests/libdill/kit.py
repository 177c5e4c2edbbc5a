"""What the tests of the compatibility layer share."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio

from tests.support.sockets import Sockets
from tests.support.streams import arrival
from trio_connect import DeadlineExceeded
from trio_connect import libdill as dill
from trio_connect.libdill._handles import count, look_up
from trio_connect.libdill._kinds import Connection, Listening


@contextlib.contextmanager
def fails(code: int) -> Iterator[pytest.ExceptionInfo[OSError]]:
    """What is inside raises an OSError with this errno, and with text of its own."""
    with pytest.raises(OSError) as caught:
        yield caught
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code], caught.value
    assert caught.value.strerror


def counters(sockets: Sockets | None = None) -> dict[str, Callable[[], int]]:
    """For a census: no handle may stay open either."""
    return {"handles": count, **(sockets.counters if sockets is not None else {})}


def loopback(port: int = 0, host: str = "127.0.0.1") -> dill.ipaddr:
    addr = dill.ipaddr()
    assert dill.ipaddr_local(addr, host, port, 0) == 0
    return addr


async def listen(backlog: int = 10) -> tuple[int, dill.ipaddr]:
    addr = loopback()
    return await dill.tcp_listen(addr, backlog), addr


async def tcp_pair() -> tuple[int, int]:
    """A connecting and an accepted handle."""
    listener, addr = await listen()
    client = await dill.tcp_connect(addr, -1)
    server = await dill.tcp_accept(listener, None, -1)
    dill.hclose(listener)
    return client, server


def ipc_pair() -> tuple[int, int]:
    s = [-1, -1]
    assert dill.ipc_pair(s) == 0
    return s[0], s[1]


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[int, int]]:
    """A TCP pair; both are closed if they are still open."""
    client, server = await tcp_pair()
    try:
        yield client, server
    finally:
        for handle in (client, server):
            with contextlib.suppress(OSError):
                dill.hclose(handle)


async def receive(handle: int, size: int, deadline: int = -1) -> bytes:
    buffer = bytearray(size)
    assert await dill.brecv(handle, buffer, size, deadline) == 0
    return bytes(buffer)


async def send(handle: int, data: bytes, deadline: int = -1) -> None:
    assert await dill.bsend(handle, data, len(data), deadline) == 0


async def something_there(handle: int) -> None:
    """Return once there is something to receive, or somebody to accept: who calls with 0 then has it at once."""
    thing = look_up(handle)
    if isinstance(thing, Connection):
        await arrival(thing.stream.socket)
    else:
        assert isinstance(thing, Listening)
        await arrival(thing.listener.socket)


async def connect_in_time(addr: dill.ipaddr, deadline: int) -> int:
    """Connect with a deadline that has passed; try often enough, for the kernel may leave an answer to ksoftirqd."""
    with trio.fail_after(20):
        while True:
            with contextlib.suppress(DeadlineExceeded):
                return await dill.tcp_connect(addr, deadline)
            await trio.sleep(0.001)


def tcp_socket(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM)
