"""Cancel every call at every step: no descriptor, task, waiter or handle stays, and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.libdill.kit import (
    counters,
    fails,
    ipc_pair,
    listen,
    loopback,
    receive,
    send,
    something_there,
    tcp_pair,
)
from tests.support import faults
from tests.support.sockets import Sockets
from tests.support.sweep import Summary, share_of_modes, sweep
from trio_connect import DeadlineExceeded
from trio_connect import libdill as dill


async def swept(sockets: Sockets | None, operation, **options) -> Summary:
    options.setdefault("inside", False)
    if sockets is not None:
        options.setdefault("modes", share_of_modes(sockets.factory is None))
    return await sweep(operation, counters=counters(sockets), **options)


async def drop(handle: int) -> None:
    dill.hclose(handle)


async def nothing(_: object) -> None:
    pass


@attrs.define
class Ends:
    client: int
    server: int


@contextlib.asynccontextmanager
async def tcp_ends() -> AsyncIterator[Ends]:
    ends = Ends(*await tcp_pair())
    try:
        yield ends
    finally:
        for handle in (ends.client, ends.server):
            with contextlib.suppress(OSError):
                dill.hclose(handle)


@contextlib.asynccontextmanager
async def ipc_ends() -> AsyncIterator[Ends]:
    ends = Ends(*ipc_pair())
    try:
        yield ends
    finally:
        for handle in (ends.client, ends.server):
            with contextlib.suppress(OSError):
                dill.hclose(handle)


@pytest.mark.parametrize("patience", [-1, 0, 10_000])
async def test_connect(sockets, patience):
    async def connect(peer: faults.Peer) -> int:
        deadline = patience if patience <= 0 else dill.now() + patience
        return await dill.tcp_connect(loopback(peer.address.port, peer.address.host), deadline)

    # The kernel may leave the answer to ksoftirqd, and 0 does not wait for that.
    late = () if patience else DeadlineExceeded
    await swept(sockets, connect, environment=faults.echoing, dispose=drop, raises=late, inside=True)


async def test_connect_to_a_black_hole(sockets):
    with faults.black_hole() as address:

        async def connect() -> int:
            return await dill.tcp_connect(loopback(address.port, address.host), -1)

        await swept(sockets, connect, dispose=drop, ports=[address.port], inside=True)


async def test_listen(sockets):
    async def call() -> int:
        return (await listen())[0]

    await swept(sockets, call, dispose=drop, inside=True)


async def test_accept_loses_nobody(sockets):
    @attrs.define
    class Lobby:
        listener: int
        client: int

    @contextlib.asynccontextmanager
    async def lobby() -> AsyncIterator[Lobby]:
        listener, addr = await listen()
        client = await dill.tcp_connect(addr, -1)
        await something_there(listener)
        try:
            yield Lobby(listener, client)
        finally:
            dill.hclose(listener)
            dill.hclose(client)

    async def accept(where: Lobby) -> int:
        return await dill.tcp_accept(where.listener, dill.ipaddr(), -1)

    async def check(where: Lobby, step) -> None:
        if step.ending == "cancelled":
            dill.hclose(await dill.tcp_accept(where.listener, None, 0))

    await swept(sockets, accept, environment=lobby, dispose=drop, check=check, inside=True)


async def test_receive_loses_nothing(sockets):
    async def call(ends: Ends) -> bytes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ends.client, b"hello")
            return await receive(ends.server, 5)

    @contextlib.asynccontextmanager
    async def filled() -> AsyncIterator[Ends]:
        async with tcp_ends() as ends:
            await send(ends.client, b"hel")
            yield ends

    async def receive_five(ends: Ends) -> bytes:
        return await receive(ends.server, 5)

    async def check(ends: Ends, step) -> None:
        await send(ends.client, b"lo")
        assert step.ending == "cancelled"
        assert await receive(ends.server, 5) == b"hello"

    await swept(sockets, call, environment=tcp_ends, dispose=nothing)
    await swept(sockets, receive_five, environment=filled, dispose=nothing, check=check)


async def test_a_list_of_pieces_loses_nothing(sockets):
    target = bytearray(2), bytearray(2)

    async def call(ends: Ends) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ends.client, b"lo")
            last = dill.iolist(target[1], 2)
            skip = dill.iolist(None, 1, last)
            await dill.brecvl(ends.server, dill.iolist(target[0], 2, skip), last, -1)

    @contextlib.asynccontextmanager
    async def filled() -> AsyncIterator[Ends]:
        async with ipc_ends() as ends:
            await send(ends.client, b"hel")
            yield ends

    async def check(ends: Ends, step) -> None:
        if step.ending == "cancelled":
            assert await receive(ends.server, 3) == b"hel"
        else:
            assert target[0] + target[1] == b"helo"

    await swept(sockets, call, environment=filled, dispose=nothing, check=check)


@pytest.mark.parametrize("pieces", [1, 2])
async def test_send(sockets, pieces):
    data = bytes(faults.more_than_fits())
    last = dill.iolist(data, len(data))
    first = last if pieces == 1 else dill.iolist(b"begin", 5, last)

    async def call(ends: Ends) -> None:
        if pieces == 1:
            await send(ends.client, data)
        else:
            await dill.bsendl(ends.client, first, last, -1)

    async def check(ends: Ends, step) -> None:
        with fails(errno.ETIMEDOUT):
            while True:
                await dill.brecv(ends.server, None, 65536, 0)
        await send(ends.client, b"usable")

    await swept(sockets, call, environment=tcp_ends, dispose=nothing, check=check)


@pytest.mark.parametrize("name", ["tcp_done", "ipc_done"])
async def test_done_is_done_or_not_begun(sockets, name):
    async def call(ends: Ends) -> object:
        return await getattr(dill, name)(ends.client, -1)

    async def check(ends: Ends, step) -> None:
        if step.ending == "returned":
            with fails(errno.EPIPE):
                await getattr(dill, name)(ends.client, -1)
            with fails(errno.EPIPE):
                await receive(ends.server, 1)
        else:
            await send(ends.client, b"x")

    environment = tcp_ends if name == "tcp_done" else ipc_ends
    await swept(sockets, call, environment=environment, dispose=nothing, check=check)


@pytest.mark.parametrize("name", ["tcp_close", "ipc_close"])
@pytest.mark.parametrize("polite", [True, False])
async def test_close_consumes_the_handle(sockets, name, polite):
    async def call(ends: Ends) -> object:
        return await getattr(dill, name)(ends.client, -1)

    @contextlib.asynccontextmanager
    async def ends() -> AsyncIterator[Ends]:
        async with tcp_ends() if name == "tcp_close" else ipc_ends() as both:
            if polite:
                await getattr(dill, name.replace("close", "done"))(both.server, -1)
            yield both

    async def check(both: Ends, step) -> None:
        with fails(errno.EBADF):
            dill.hclose(both.client)

    await swept(sockets, call, environment=ends, dispose=nothing, check=check)


@contextlib.asynccontextmanager
async def ipc_lobby() -> AsyncIterator[tuple[int, Path]]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "s")
        listener = await dill.ipc_listen(path, 10)
        try:
            yield listener, path
        finally:
            dill.hclose(listener)


async def test_ipc_connect(sockets):
    async def call(lobby: tuple[int, Path]) -> int:
        return await dill.ipc_connect(lobby[1], -1)

    await swept(sockets, call, environment=ipc_lobby, dispose=drop)


async def test_ipc_connect_with_a_full_backlog(sockets):
    with faults.full_unix_backlog() as path:

        async def call() -> int:
            return await dill.ipc_connect(path, dill.now() + 30)

        await swept(sockets, call, dispose=drop, raises=TimeoutError, inside=True)


async def test_ipc_accept(sockets):
    async def call(lobby: tuple[int, Path]) -> int:
        client = await dill.ipc_connect(lobby[1], -1)
        try:
            return await dill.ipc_accept(lobby[0], -1)
        finally:
            dill.hclose(client)

    await swept(sockets, call, environment=ipc_lobby, dispose=drop)


async def test_ipc_listen(sockets):
    async def call() -> int:
        with tempfile.TemporaryDirectory() as directory:
            return await dill.ipc_listen(Path(directory, "s"), 10)

    await swept(sockets, call, dispose=drop, inside=True)


async def test_passing_a_descriptor_leaks_none():
    async def call(ends: Ends) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dill.ipc_sendfd, ends.client, 0, -1)
            fd = await dill.ipc_recvfd(ends.server, -1)
            os.close(fd)
            return fd

    async def wait_for_room(ends: Ends) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                await dill.bsend(ends.client, bytes(65536), 65536, 0)
        await dill.ipc_sendfd(ends.client, 0, -1)

    await swept(None, call, environment=ipc_ends, dispose=nothing)
    await swept(None, wait_for_room, environment=ipc_ends, dispose=nothing)


@pytest.mark.parametrize("call", [dill.fdin, dill.fdout])
async def test_waiting_for_descriptors(call):
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                one.send(bytes(65536))

        async def wait() -> object:
            return await call(one.fileno(), -1)

        await swept(None, wait, dispose=nothing, inside=True)
        assert dill.fdclean(one.fileno()) == 0


async def test_sleeping(mock_clock):
    async def wait() -> int:
        return await dill.msleep(dill.now() + 1000)

    await swept(None, wait, dispose=nothing, inside=True)


async def test_lookups():
    class Slow(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
            for _ in range(3 if family == socket.AF_INET else 5):
                await trio.lowlevel.checkpoint()
            if family == socket.AF_INET6:
                raise socket.gaierror(socket.EAI_NONAME, "no name")
            return [(family, type, 6, "", ("192.0.2.1", port))]

        async def getnameinfo(self, sockaddr, flags):
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Slow())
    addr = dill.ipaddr()

    async def one() -> int:
        return await dill.ipaddr_remote(addr, "name.test", 80, dill.IPADDR_PREF_IPV6, -1)

    async def several() -> int:
        return await dill.ipaddr_remotes([addr], 1, "name.test", 80, 0, dill.now() + 10_000)

    for call in (one, several):
        summary = await swept(None, call, dispose=nothing, inside=True)
        assert summary.steps > 3
