"""Pairs of connected streams of ours, over the kernel's loopback, of whichever kind the run makes."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, overload

import trio

from tests.support import tls
from trio_connect import (
    DeadlineExceeded,
    SocketOptions,
    TcpListener,
    TcpStream,
    TlsStream,
    UnixListener,
    UnixStream,
    tcp_connect,
    tcp_listen,
    unix_connect,
    unix_listen,
)

T = TypeVar("T")

Kind: TypeAlias = Literal["tcp", "unix"]
AnyKind: TypeAlias = Literal["tcp", "unix", "tls"]
Stream: TypeAlias = TcpStream | UnixStream
AnyStream: TypeAlias = TcpStream | UnixStream | TlsStream
Listener: TypeAlias = TcpListener | UnixListener

KINDS: tuple[Kind, ...] = ("tcp", "unix")
ANY_KINDS: tuple[AnyKind, ...] = ("tcp", "unix", "tls")
"""With TLS, for what is promised of it as well; its name is `tls.NAME`."""


@contextlib.asynccontextmanager
async def listening(kind: Kind, *, backlog: int | None = None) -> AsyncIterator[Listener]:
    """A listener of ours on loopback or in a folder of its own."""
    if kind == "tcp":
        async with await tcp_listen(("127.0.0.1", 0), backlog=backlog) as tcp:
            yield tcp
    else:
        with tempfile.TemporaryDirectory() as folder:
            async with await unix_listen(Path(folder, "socket"), backlog=backlog) as unix:
                yield unix


async def connect_to(listener: Listener, deadline: int = -1) -> Stream:
    if isinstance(listener, TcpListener):
        return await tcp_connect(listener.endpoint, deadline)
    return await unix_connect(listener.path, deadline)


@overload
async def make_pair(kind: Kind) -> tuple[Stream, Stream]: ...


@overload
async def make_pair(kind: AnyKind) -> tuple[AnyStream, AnyStream]: ...


async def make_pair(kind: AnyKind) -> tuple[AnyStream, AnyStream]:
    """The connecting end and the accepted one."""
    if kind == "tls":
        return await make_tls_pair()
    async with listening(kind) as listener:
        near = await connect_to(listener)
        return near, await listener.accept()


async def make_tls_pair() -> tuple[TlsStream, TlsStream]:
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        near = await tcp_connect(listener.endpoint)
        far = await listener.accept()
    return await secure(near, far)


async def secure(
    near: TcpStream, far: TcpStream, *, client: ssl.SSLContext | None = None, server: ssl.SSLContext | None = None
) -> tuple[TlsStream, TlsStream]:
    """Both ends of a connection over TLS."""
    contexts = tls.contexts()
    servers: list[TlsStream] = []

    async def serve() -> None:
        servers.append(await far.start_tls(server or contexts.server, server_side=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        secured = await near.start_tls(client or contexts.client, server_hostname=tls.NAME)
    return secured, servers[0]


async def send_end(stream: AnyStream) -> None:
    """Have the peer read the end of the stream."""
    await (stream.aclose() if isinstance(stream, TlsStream) else stream.send_eof())


@overload
def pair(kind: Kind) -> AbstractAsyncContextManager[tuple[Stream, Stream]]: ...


@overload
def pair(kind: AnyKind) -> AbstractAsyncContextManager[tuple[AnyStream, AnyStream]]: ...


def pair(kind: AnyKind) -> AbstractAsyncContextManager[tuple[Any, Any]]:
    return _pair(kind)


@contextlib.asynccontextmanager
async def _pair(kind: AnyKind) -> AsyncIterator[tuple[AnyStream, AnyStream]]:
    near, far = await make_pair(kind)
    try:
        yield near, far
    finally:
        near.abort()
        far.abort()


@contextlib.asynccontextmanager
async def narrow_pair(kind: Kind) -> AsyncIterator[tuple[Stream, Stream, int]]:
    """A pair whose buffers have a size and keep it, and how many bytes are more than it holds on their way."""
    options = SocketOptions(send_buffer=65536, receive_buffer=65536)
    if kind == "tcp":
        async with await tcp_listen(("127.0.0.1", 0), options=options) as listener:
            near: Stream = await tcp_connect(listener.endpoint, options=options)
            far: Stream = await listener.accept()
    else:
        near, far = await make_pair(kind)
        for stream in (near, far):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    # socket(7): the kernel doubles what was asked for, and counts its own overhead in it.
    sizes = near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), far.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    try:
        # What it has begun to take may be over its limit by one packet, of 64 KiB at most.
        yield near, far, sum(size for size in sizes if isinstance(size, int)) + 3 * 65536
    finally:
        near.abort()
        far.abort()


async def clog(*streams: Stream) -> None:
    """Send until the kernel takes no more in any direction.

    Over TCP it finds room again in bursts, some time after it said that it had no room, so it must have had none for
    a while.
    """
    tcp = any(isinstance(stream, TcpStream) for stream in streams)
    quiet = 0
    while quiet < (20 if tcp else 1):
        taken = 0
        for stream in streams:
            try:
                await stream.send_all(bytes(1_000_000), 0)
                taken += 1_000_000
            except DeadlineExceeded as exc:
                taken += exc.transferred
        quiet = 0 if taken else quiet + 1
        if tcp:
            await trio.sleep(0.02)


async def make_clogged_pair(kind: Kind) -> tuple[Stream, Stream]:
    if kind == "tcp":
        # Small buffers only spare time.
        options = SocketOptions(send_buffer=65536, receive_buffer=65536)
        async with await tcp_listen(("127.0.0.1", 0), options=options) as listener:
            near: Stream = await tcp_connect(listener.endpoint, options=options)
            far: Stream = await listener.accept()
    else:
        near, far = await make_pair(kind)
    await clog(near, far)
    return near, far


async def make_clogged_tls_pair() -> tuple[TlsStream, TlsStream]:
    """Both ends of a connection over TLS on which no send gets on, unbroken.

    A send that is interrupted breaks such a stream, so none is made. Records are put into the kernel until it takes no
    more. What is left of them waits where a half-sent answer to a KeyUpdate waits, before all else.
    """
    options = SocketOptions(send_buffer=65536, receive_buffer=65536)
    async with await tcp_listen(("127.0.0.1", 0), options=options) as listener:
        near = await tcp_connect(listener.endpoint, options=options)
        far = await listener.accept()
    pair = await secure(near, far)
    await pair[1].send_all(b"x")  # and the session tickets, which nothing may overtake
    assert await pair[0].receive_exactly(1) == b"x"
    left = dict.fromkeys(pair, b"")
    quiet = 0
    while quiet < 20:  # as `clog`
        quiet += 1
        for stream in pair:
            channel = stream._sock
            if not left[stream]:
                channel.ssl._ssl_object.write(bytes(16384))
                left[stream] = channel._outgoing.read()
            with trio.move_on_after(0.02):
                count = await stream.tcp.socket.send(left[stream])
                left[stream] = left[stream][count:]
                quiet = 0
    for stream in pair:
        assert left[stream]
        stream._sock._transport._unsent = left[stream]
    return pair


async def arrival(sock: trio.socket.SocketType) -> None:
    """Return once there is something to read.

    What was sent over loopback is mostly there when send(2) returns. On a busy machine the kernel may leave it to its
    thread for soft interrupts, ksoftirqd, which waits for its turn like any other.
    """
    while not sock.is_readable():
        await trio.lowlevel.checkpoint()


async def in_time(connect: Callable[[], Awaitable[T]]) -> T:
    """Connect by a deadline that has passed, often enough for an answer to be there in time: see `arrival`."""
    with trio.fail_after(20):
        while True:
            with contextlib.suppress(DeadlineExceeded):
                return await connect()
            await trio.sleep(0.001)


def random_bytes(size: int) -> bytes:
    return os.urandom(size)


Receive: TypeAlias = Callable[[AnyStream, int], Awaitable[Any]]


async def _receive_into(stream: AnyStream, size: int, deadline: int) -> bytes:
    target = bytearray(size)
    await stream.receive_into(target, deadline)
    return bytes(target)


# Every way to receive, each of which needs at least two bytes but the first and the last.
RECEIVES: dict[str, Receive] = {
    "receive_some": lambda stream, deadline: stream.receive_some(None, deadline),
    "receive_exactly": lambda stream, deadline: stream.receive_exactly(3, deadline),
    "receive_exactly, large": lambda stream, deadline: stream.receive_exactly(100_000, deadline),
    "receive_into": lambda stream, deadline: _receive_into(stream, 3, deadline),
    "receive_until": lambda stream, deadline: stream.receive_until(b"\r\n", 64, deadline),
    "fill": lambda stream, deadline: stream.fill(deadline),
}
