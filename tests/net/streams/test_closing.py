"""Ending a connection: whoever waits is woken, what was sent arrives, and nothing stays."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import (
    ANY_KINDS,
    KINDS,
    RECEIVES,
    AnyKind,
    Kind,
    Stream,
    clog,
    connect_to,
    listening,
    make_clogged_pair,
    make_pair,
    pair,
)
from tests.support.sweep import repeated
from trio_connect import DeadlineExceeded, SocketOptions, TcpStream, UnixStream, now, tcp_connect, tcp_listen
from trio_connect._net.sockets import factory_socket, kernel_socket

# More than the kernel takes on both sides together while nobody reads.
HUGE = bytes(faults.more_than_fits())

kinds = pytest.mark.parametrize("kind", KINDS)


async def abort(stream: Stream) -> None:
    stream.abort()


async def forcefully(stream: Stream) -> None:
    await trio.aclose_forcefully(stream)


async def gracefully_now(stream: Stream) -> None:
    with contextlib.suppress(DeadlineExceeded):
        await stream.close_gracefully(0)


CLOSES: dict[str, Callable[[Stream], Awaitable[None]]] = {
    "aclose": lambda stream: stream.aclose(),
    "abort": abort,
    "aclose_forcefully": forcefully,
    "close_gracefully": gracefully_now,
}
closes = pytest.mark.parametrize("close", CLOSES.values(), ids=CLOSES)
any_closes = pytest.mark.parametrize(
    ("kind", "close"),
    [
        pytest.param(kind, close, id=f"{kind} {name}")
        for kind in ANY_KINDS
        for name, close in CLOSES.items()
        if kind != "tls" or name != "close_gracefully"
    ],
)


# --- others are woken -------------------------------------------------------------------------------------------------


@any_closes
@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
async def test_closing_wakes_a_receive(sockets: Sockets, kind: AnyKind, close: Any, receive: Any) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        async with trio.open_nursery() as nursery:

            async def waiting() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await receive(near, -1)

            nursery.start_soon(waiting)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(5):
                await close(near)
        assert near.fileno() == -1
        assert near.buffered == 0
        await far.aclose()


@any_closes
@pytest.mark.parametrize("several", [False, True])
async def test_closing_wakes_a_send(sockets: Sockets, kind: AnyKind, close: Any, several: bool) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_pair(kind)
        async with trio.open_nursery() as nursery:

            async def waiting() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await near.send_all([HUGE, b"x"] if several else HUGE)

            async def also_waiting() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    while True:
                        await near.receive_exactly(1 << 20)

            nursery.start_soon(waiting)
            nursery.start_soon(also_waiting)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.fail_after(5):
                await close(near)
        far.abort()


@kinds
async def test_closing_wakes_who_waits_for_room(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_clogged_pair(kind)
        async with trio.open_nursery() as nursery:

            async def waiting() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await near.wait_send_all_might_not_block()

            nursery.start_soon(waiting)
            await trio.testing.wait_all_tasks_blocked()
            near.abort()
        far.abort()


@kinds
async def test_closing_a_listener_wakes_its_accept(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        async with trio.open_nursery() as nursery:

            async def waiting() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await listener.accept()

            nursery.start_soon(waiting)
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()
        assert listener.fileno() == -1
        assert "(closed)" in repr(listener)
        await listener.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        with pytest.raises(trio.ClosedResourceError):
            _ = listener.socket


@kinds
@pytest.mark.parametrize("close", ["aclose", "abort", "close_gracefully"])
async def test_closing_ends_a_graceful_close_of_another_task(sockets: Sockets, kind: Kind, close: str) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, _):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def waiting() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await near.close_gracefully()

                nursery.start_soon(waiting)
                await trio.testing.wait_all_tasks_blocked()
                assert near.fileno() == -1
                await CLOSES[close](near)
        for _ in range(2):
            await near.aclose()


@kinds
@closes
@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
async def test_closing_in_the_tick_in_which_bytes_arrive(
    sockets: Sockets, kind: Kind, close: Any, receive: Any
) -> None:
    # Whoever receives is on its way already when the close comes: it must neither park again nor get in the way.
    async with no_leaks(counters=sockets.counters):
        for _ in range(repeated(3)):
            near, far = await make_pair(kind)
            other, signal = await make_pair("unix")
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:

                    async def receiving(near: Stream = near) -> None:
                        # Bytes that came first may be given; the next call says that it is over.
                        with pytest.raises(trio.ClosedResourceError):
                            while True:
                                await receive(near, -1)

                    async def closing(near: Stream = near, other: Stream = other) -> None:
                        await other.receive_some()
                        await close(near)

                    nursery.start_soon(receiving)
                    nursery.start_soon(closing)
                    await trio.testing.wait_all_tasks_blocked()
                    # Both before the loop looks at its sockets again, so that both are woken in one batch.
                    os.write(_number(far), b"x")
                    os.write(_number(signal), b"x")
            for stream in (near, far, other, signal):
                stream.abort()


def _number(stream: Stream) -> int:
    sock = stream.socket
    raw = getattr(sock, "_raw", sock)
    number = raw.fileno()
    assert isinstance(number, int)
    return number


@kinds
async def test_a_descriptor_is_not_used_once_it_is_somebody_elses(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_pair(kind)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def receiving() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await near.receive_exactly(10)

                nursery.start_soon(receiving)
                await trio.testing.wait_all_tasks_blocked()
                os.write(_number(far), b"x")
                near.abort()
                # Gets the number that has just become free.
                left, right = socket.socketpair()
                with left, right:
                    left.send(b"stolen")
                    await trio.testing.wait_all_tasks_blocked()
                    right.setblocking(False)
                    assert right.recv(10) == b"stolen"
        far.abort()


# --- closed is closed -------------------------------------------------------------------------------------------------


@kinds
@closes
async def test_a_closed_stream_says_so_everywhere(sockets: Sockets, kind: Kind, close: Any) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abc")
        await near.fill()
        peer, report = near.peer, near.report
        await close(near)
        for receive in RECEIVES.values():
            with pytest.raises(trio.ClosedResourceError):
                await receive(near, -1)
        for call in (near.send_eof, near.wait_send_all_might_not_block, lambda: near.send_all(b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        for look in (
            lambda: near.socket,
            lambda: near.local,
            near.detach,
            lambda: near.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
            lambda: near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        ):
            with pytest.raises(trio.ClosedResourceError):
                look()
        assert (near.fileno(), near.buffered, near.peer, near.report) == (-1, 0, peer, report)
        assert near.take(1) is None
        assert repr(near).endswith("(closed)>")
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await near.aclose()
            with trio.testing.assert_checkpoints():
                await near.close_gracefully()
            near.abort()


@kinds
async def test_the_local_address_is_remembered(sockets: Sockets, kind: Kind) -> None:
    async with pair(kind) as (near, far):
        local = near.local
        await near.aclose()
        assert near.local == local
        await far.aclose()


@kinds
async def test_closing_through_the_socket_closes_the_stream(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters):
        for parked in (False, True):
            near, far = await make_pair(kind)
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:

                    async def receiving(near: Stream = near) -> None:
                        with pytest.raises(trio.ClosedResourceError):
                            await near.receive_some()

                    if parked and sockets.name == "kernel":  # the fake wakes nobody
                        nursery.start_soon(receiving)
                        await trio.testing.wait_all_tasks_blocked()
                    near.socket.close()
            assert near.is_dead()
            for call in (
                near.receive_some,
                lambda near=near: near.send_all(b"x"),
                near.send_eof,
                near.wait_send_all_might_not_block,
            ):
                with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
                    await call()
            assert near.fileno() == -1
            await near.aclose()
            await far.aclose()


async def test_closing_through_the_socket_closes_the_listener(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        listener = await tcp_listen(("127.0.0.1", 0))
        listener.socket.close()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        await listener.aclose()


@kinds
async def test_the_socket_may_be_looked_at_while_a_receive_is_parked(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        got = []
        async with trio.open_nursery() as nursery:

            async def receiving() -> None:
                got.append(await near.receive_exactly(6))

            nursery.start_soon(receiving)
            await trio.testing.wait_all_tasks_blocked()
            number = near.fileno()
            assert near.socket.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
            assert near.fileno() == number
            await far.send_all(b"abc")
            await trio.testing.wait_all_tasks_blocked()
            assert near.socket.family == far.socket.family
            await far.socket.send(b"def")
        assert got == [b"abcdef"]


# --- breaking ---------------------------------------------------------------------------------------------------------


async def test_a_reset_is_broken_for_every_receive(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), faults.resetting() as peer:
        for receive in RECEIVES.values():
            stream = await tcp_connect(peer.address.pair)
            with pytest.raises(trio.BrokenResourceError, match="broke") as caught:
                while True:
                    await receive(stream, -1)
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            await stream.aclose()
            del caught


async def test_a_reset_during_a_graceful_close_is_broken_not_closed(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_pair("tcp")
        async with trio.open_nursery() as nursery:

            async def closing() -> None:
                with pytest.raises(trio.BrokenResourceError, match="graceful close: connection with"):
                    await near.close_gracefully()

            nursery.start_soon(closing)
            await trio.testing.wait_all_tasks_blocked()
            far.abort()
        assert near.fileno() == -1


@pytest.mark.parametrize("size", [1, 65536, 300_000])
@pytest.mark.parametrize("wanted", [65_000, 1 << 20])
async def test_a_reset_after_data_is_no_clean_end(sockets: Sockets, size: int, wanted: int) -> None:
    # One read takes the data and another in the same call meets the reset, which the kernel tells once.
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        await far.send_all(bytes(size))
        far.abort()
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError) as caught:
                while True:
                    await near.receive_exactly(wanted)
            assert not isinstance(caught.value, EOFError)
            del caught


async def test_a_reset_told_to_the_sender_is_no_clean_end_for_the_receiver(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        far.abort()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await near.send_all(b"x")
        for name, receive in RECEIVES.items():
            with pytest.raises(trio.BrokenResourceError) as caught:
                await receive(near, -1)
            assert not isinstance(caught.value, EOFError), name
            del caught


async def test_abort_resets(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        await near.send_all(b"never read")
        near.abort()
        with pytest.raises(trio.BrokenResourceError) as caught:
            while True:
                await far.receive_exactly(11)
        assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, ConnectionResetError)
        del caught


# --- what was sent arrives --------------------------------------------------------------------------------------------


class Reader(threading.Thread):
    """A peer outside of the run: sends, half-closes, waits for a word and then reads until the end or an error."""

    def __init__(self, sock: socket.socket, unread: int) -> None:
        super().__init__(name="peer")
        self.sock, self.unread = sock, unread
        self.half_closed = threading.Event()
        self.go_on = threading.Event()
        self.received = 0
        self.error: OSError | None = None

    def run(self) -> None:
        self.sock.settimeout(20)
        with self.sock:
            try:
                if self.unread:
                    # When the room in the other end's buffer is used up, the rest waits in this end's kernel.
                    self.sock.setblocking(False)
                    left = self.unread
                    while left:
                        try:
                            left -= self.sock.send(bytes(min(left, 1 << 16)))
                        except BlockingIOError:
                            break
                    self.sock.settimeout(20)
                self.sock.shutdown(socket.SHUT_WR)
                self.half_closed.set()
                assert self.go_on.wait(20)
                while data := self.sock.recv(1 << 16):
                    self.received += len(data)
            except OSError as exc:
                self.error = exc


MIB = 1 << 20


@contextlib.contextmanager
def outsider(kind: Kind, near: Stream, sock: socket.socket, unread: int) -> Iterator[Reader]:
    reader = Reader(sock, unread)
    reader.start()
    try:
        yield reader
    finally:
        reader.go_on.set()
        reader.join()


@pytest.mark.parametrize("unread", [0, MIB // 2, MIB, 3 * MIB], ids=lambda size: f"{size / MIB:g} MiB unread")
@pytest.mark.parametrize(
    "close",
    [CLOSES["aclose"], forcefully, lambda stream: stream.close_gracefully(now() + 10_000)],
    ids=["aclose", "aclose_forcefully", "close_gracefully"],
)
async def test_a_peer_that_half_closed_first_receives_everything(sockets: Sockets, unread: int, close: Any) -> None:
    sent = os.urandom(MIB)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for buffer in (server,):
            buffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
            buffer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
        for _ in range(3):
            near = await tcp_connect(server.getsockname())
            sock, _ = server.accept()
            with outsider("tcp", near, sock, unread) as reader:
                await trio.to_thread.run_sync(reader.half_closed.wait)
                with trio.fail_after(10):
                    await near.send_all(sent)
                    if close.__name__ == "<lambda>" and unread == 0:
                        reader.go_on.set()
                    await close(near)
                reader.go_on.set()
                await trio.to_thread.run_sync(reader.join)
            assert (reader.received, reader.error) == (MIB, None)


@pytest.mark.parametrize("unread", [0, MIB // 2, 3 * MIB], ids=lambda size: f"{size / MIB:g} MiB unread")
async def test_the_end_of_a_handler_delivers_what_it_sent(sockets: Sockets, unread: int) -> None:
    served: list[TcpStream] = []
    sent = 0

    async def handler(stream: TcpStream) -> None:
        nonlocal sent
        await trio.to_thread.run_sync(reader.half_closed.wait)
        # socket(7): what the kernel says is twice what it was asked for. So much fits also while nobody reads.
        size = stream.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert isinstance(size, int)
        sent = size // 4
        await stream.send_all(bytes(sent))
        served.append(stream)

    async with no_leaks(counters=sockets.counters), trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0), options=SocketOptions(send_buffer=2 * MIB))
        await nursery.start(trio.serve_listeners, handler, [listener])
        sock = socket.create_connection(listener.endpoint.sockaddr[:2])
        with outsider("tcp", None, sock, unread) as reader:  # type: ignore[arg-type]
            with trio.fail_after(20):
                while not served or served[0].fileno() != -1:
                    await trio.lowlevel.checkpoint()
            # Only now: a peer that loses the processor inside recv() owns its socket, so that its kernel cannot send
            # the rest of what it has. That rest would come after the close, and be answered by RST.
            reader.go_on.set()
            await trio.to_thread.run_sync(reader.join)
        assert (reader.received, reader.error) == (sent, None)
        assert sent > 50_000
        nursery.cancel_scope.cancel()


async def test_what_the_kernel_delivers_too_late_for_one_pass_is_discarded_too(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine ksoftirqd brings what the peer's kernel held, and has to get the processor for that.
    turns = 0

    def deliver() -> float:
        nonlocal turns
        turns += 1
        if turns == 2:
            peer.send(b"late")
        if turns == 5:
            peer.shutdown(socket.SHUT_WR)
        return 0.0

    for module in (kernel_socket, factory_socket):
        monkeypatch.setattr(module, "yield_processor", deliver)
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = await tcp_connect(server.getsockname())
        peer, _ = server.accept()
        with peer:
            # More than half of the receive buffer: the peer's kernel may hold more that had no room.
            unread = 100_000
            peer.sendall(bytes(unread))
            while len(await near.socket.recv(unread, socket.MSG_PEEK)) < unread:
                await trio.lowlevel.checkpoint()
            await near.send_all(b"reply")
            await near.aclose()
            assert turns == 5
            peer.settimeout(5)
            assert peer.recv(100) == b"reply"
            assert peer.recv(100) == b""


@kinds
async def test_a_peer_that_trickles_does_not_hold_an_aclose(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_pair(kind)
        await far.send_all(b"unread")
        sent = 0
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                nonlocal sent
                with contextlib.suppress(trio.BrokenResourceError):
                    while True:
                        await far.send_all(b"x")
                        sent += 1

            nursery.start_soon(trickle)
            await near.aclose()
        assert sent < 5000
        await far.aclose()


async def test_a_unix_peer_receives_everything(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_pair("unix")
        await far.send_eof()
        await near.send_all(bytes(100_000))
        await near.aclose()
        assert await far.receive_exactly(100_000) == bytes(100_000)
        assert await far.receive_some() == b""
        await far.aclose()


@kinds
async def test_a_graceful_close_meets_the_peers(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_pair(kind)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.close_gracefully)
                nursery.start_soon(far.close_gracefully, now() + 4000)
        assert (near.fileno(), far.fileno()) == (-1, -1)


@kinds
async def test_a_cancelled_graceful_close_has_closed(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters):
        for ahead in (0.0, 0.02):
            near, far = await make_pair(kind)
            with trio.move_on_after(ahead) as scope:
                await near.close_gracefully()
            assert scope.cancelled_caught
            assert near.fileno() == -1
            assert await far.receive_some() == b""
            await far.aclose()


# --- giving away and taking over --------------------------------------------------------------------------------------


@kinds
async def test_detach_gives_the_socket_away(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        sock = near.detach()
        assert near.fileno() == -1
        await near.aclose()
        near.abort()
        with pytest.raises(trio.ClosedResourceError):
            near.detach()
        await sock.send(b"still open")
        assert await far.receive_exactly(10) == b"still open"
        again = type(near).from_socket(sock)
        await far.send_all(b"back")
        assert await again.receive_exactly(4) == b"back"
        assert again.report.attempts == ()
        await again.aclose()


@kinds
async def test_detach_refuses_what_would_lose_something(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abc")
        await near.fill()
        with pytest.raises(RuntimeError, match=r"3 bytes are buffered: take\(3\)"):
            near.detach()
        assert near.take(3) == b"abc"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                near.detach()
            await far.send_all(b"x")
        near.detach().close()


@kinds
async def test_from_socket_takes_both_kinds_of_socket(kind: Kind) -> None:
    async with no_leaks(), pair(kind) as (near, far):
        own = type(near)
        standard = socket.socket(fileno=near.detach().detach())
        standard.setblocking(True)
        stream = own.from_socket(standard)
        assert standard.gettimeout() == 0
        other = own.from_socket(far.detach())
        assert (stream.peer, stream.local) == (other.local, other.peer)
        await stream.send_all(b"x")
        assert await other.receive_some() == b"x"
        await stream.aclose()
        await other.aclose()


@pytest.mark.parametrize("wrap", [lambda sock: sock, trio.socket.from_stdlib_socket], ids=["standard", "trio"])
async def test_from_socket_refuses(wrap: Any) -> None:
    async with no_leaks(), pair("tcp") as (near, _):
        for value in (None, 3, near):
            with pytest.raises(TypeError, match=r"from_socket needs a trio\.socket or a plain socket\.socket"):
                TcpStream.from_socket(value)  # type: ignore[arg-type]
        left, right = socket.socketpair()
        with left, right, socket.socket(type=socket.SOCK_DGRAM) as datagram, socket.socket() as alone:
            for sock in (left, datagram):
                with pytest.raises(ValueError, match="TcpStream needs a stream socket of its family"):
                    TcpStream.from_socket(wrap(sock))
            with pytest.raises(OSError, match="not connected") as caught:
                TcpStream.from_socket(wrap(alone))
            assert caught.value.errno == errno.ENOTCONN


def test_a_stream_is_not_made_directly() -> None:
    with pytest.raises(TypeError, match="TcpStream is made by connecting, accepting or from_socket"):
        TcpStream(object(), None)  # type: ignore[arg-type]


async def test_a_second_connection_to_the_listener_of_another_stream(sockets: Sockets) -> None:
    async with listening("tcp") as listener, await connect_to(listener) as first, await connect_to(listener) as second:
        a, b = await listener.accept(), await listener.accept()
        assert {first.local, second.local} == {a.peer, b.peer}
        await a.aclose()
        await b.aclose()


async def test_clog_clogs() -> None:
    async with pair("unix") as (near, far):
        await clog(near, far)
        with pytest.raises(DeadlineExceeded) as caught:
            await near.send_all(b"x", 0)
        assert caught.value.transferred == 0


async def test_what_is_closed_or_busy_says_which_it_is(sockets: Sockets) -> None:
    """A program has many streams, and the traceback of a pool's names none of them."""
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        near = await tcp_connect(listener.endpoint)
        far = await listener.accept()
        name = f"the stream with {listener.endpoint}"
        async with trio.open_nursery() as nursery:
            closed = f"{name} was closed by another task"
            nursery.start_soon(expect, near.receive_some, trio.ClosedResourceError, closed)
            await trio.testing.wait_all_tasks_blocked()
            await expect(near.receive_some, trio.BusyResourceError, f"another task is receiving from {name}")
            await near.send_eof()
            await expect(lambda: near.send_all(b"x"), trio.ClosedResourceError, f"after send_eof() on {name}")
            await near.aclose()
        await expect(near.receive_some, trio.ClosedResourceError, f"{name} is closed")
        await far.aclose()
    await expect(listener.accept, trio.ClosedResourceError, f"the listener on {listener.endpoint} is closed")
    left, right = socket.socketpair()
    right.close()
    nameless = UnixStream.from_socket(left)
    await nameless.aclose()
    await expect(nameless.receive_some, trio.ClosedResourceError, "this stream is closed")


async def expect(call: Callable[[], Awaitable[object]], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        await call()
