"""Numbers 11 to 17, 21 and 31 of the field reports: reading, ending, sockets given and taken, what is listened on."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import ssl
import stat
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import PassThroughSocket, Sockets
from tests.support.streams import KINDS, RECEIVES, Kind, arrival, connect_to, listening, pair
from trio_connect import (
    DeadlineExceeded,
    TcpListener,
    TcpStream,
    UnixListener,
    UnixStream,
    libdill,
    now,
    tcp_connect,
    tcp_listen,
    unix_connect,
    unix_listen,
)
from trio_connect._net.sockets import kernel_socket, stream_socket
from trio_connect._net.sockets.kernel_socket import KernelSocket
from trio_connect._net.streams.buffer import ReceiveBuffer

MIB = 1 << 20
GIB = 1 << 30

kinds = pytest.mark.parametrize("kind", KINDS)


@contextlib.contextmanager
def little_memory(limit: int = 4 * MIB) -> Iterator[None]:
    """Fail if Python asks for more than this at any one time inside."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.1f} MiB"


# --- 11: memory and time of a receive follow what has come ------------------------------------------------------------


@kinds
@pytest.mark.parametrize("n", [GIB, 1 << 36], ids=["1 GiB", "64 GiB"])
async def test_field_11_a_large_exact_read_costs_what_came(
    sockets: Sockets, kind: Kind, n: int, autojump_clock: trio.testing.MockClock
) -> None:
    """A size from the wire costs nothing: with 3 bytes there, memory stays small and the deadline holds."""
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abc")
        await arrival(near.socket)
        with little_memory():
            with pytest.raises(DeadlineExceeded) as caught:
                await near.receive_exactly(n, now() + 20)
            assert caught.value.transferred == 3
            with pytest.raises(DeadlineExceeded):
                await near.receive_until(b"\n", n, now() + 20)
            assert await near.receive_some(n) == b"abc"
            with pytest.raises(DeadlineExceeded):
                await near.receive_some(n, now() + 20)


async def test_field_11_a_buffer_of_the_callers_costs_no_other(sockets: Sockets) -> None:
    """`receive_into` needs no memory beside the caller's, also through a socket factory."""
    target = bytearray(64 * MIB)
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        await far.send_all(b"abc")
        await arrival(near.socket)
        with little_memory():
            for _ in range(3):
                with pytest.raises(DeadlineExceeded) as caught:
                    await near.receive_into(target, 0)
                assert caught.value.transferred == near.buffered == 3


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("pieces", ["skip", "list"])
async def test_field_11_brecv_costs_what_came(kind: Kind, pieces: str, autojump_clock: trio.testing.MockClock) -> None:
    """libdill's `brecv` and `brecvl` of 1 GiB cost what has come, and lose nothing."""
    async with no_leaks(), pair(kind) as (near, far):
        await far.send_all(b"abc")
        sock = near.detach()
        await arrival(sock)
        handle = (libdill.tcp_fromfd if kind == "tcp" else libdill.ipc_fromfd)(sock.detach())
        last = libdill.iolist(bytearray(1), 1)
        with little_memory():
            for _ in range(2):
                with pytest.raises(DeadlineExceeded) as caught:
                    if pieces == "skip":
                        await libdill.brecv(handle, None, GIB, now() + 20)
                    else:
                        await libdill.brecvl(handle, libdill.iolist(None, GIB, last), last, now() + 20)
                assert caught.value.transferred == 3
        target = bytearray(3)
        assert await libdill.brecv(handle, target, 3, 0) == 0
        assert target == b"abc"
        libdill.hclose(handle)


async def test_field_11_nothing_is_read_past_a_list_of_pieces() -> None:
    """A descriptor that follows the pieces of `brecvl` on a unix-domain handle still arrives."""
    async with no_leaks():
        handles = [0, 0]
        libdill.ipc_pair(handles)
        assert await libdill.bsend(handles[0], b"abcdef", 6, -1) == 0
        with socket.socket() as passed:
            assert await libdill.ipc_sendfd(handles[0], passed.fileno(), -1) == 0
        one, two = bytearray(2), bytearray(3)
        last = libdill.iolist(two, 3)
        skip = libdill.iolist(None, 1, last)
        assert await libdill.brecvl(handles[1], libdill.iolist(one, 2, skip), last, now() + 1000) == 0
        assert one + two == b"abdef"
        os.close(await libdill.ipc_recvfd(handles[1], now() + 1000))
        for handle in handles:
            libdill.hclose(handle)


@pytest.mark.parametrize("how", ["receive_exactly", "receive_into", "receive_until"])
async def test_field_11_polling_does_not_pay_again(sockets: Sockets, how: str) -> None:
    """A read that is tried again and again leaves what has come where it is: 300 tries move nothing."""
    size = 32 * MIB
    target = bytearray(2 * size)

    async def poll(stream: Any) -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            if how == "receive_exactly":
                await stream.receive_exactly(2 * size, 0)
            elif how == "receive_into":
                await stream.receive_into(target, 0)
            else:
                await stream.receive_until(b"\r\n", 2 * size, 0)
        assert caught.value.transferred == stream.buffered

    async with pair("unix") as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, bytes(size))
        while near.buffered < size:
            await near.fill()
        began = time.thread_time()
        for _ in range(300):
            await poll(near)
        # Moving the 32 MiB once takes 5 ms or more.
        assert time.thread_time() - began < 0.75
        assert near.buffered == size


# --- 12: the buffer is linear -----------------------------------------------------------------------------------------


def cost(run: Callable[[int], object], size: int) -> float:
    """Return the processor time of the best of three."""
    best = 1e9
    for _ in range(3):
        began = time.thread_time()
        run(size)
        best = min(best, time.thread_time() - began)
    return best


def search(piece: bytes, delimiter: bytes) -> Callable[[int], object]:
    def run(size: int) -> None:
        buffer = ReceiveBuffer()
        for _ in range(size // len(piece)):
            buffer.add(piece)
            assert buffer.find(delimiter, size * 2) == -1
        buffer.add(delimiter)
        assert buffer.find(delimiter, size * 2) == size

    return run


def fill_then_take(size: int) -> None:
    buffer = ReceiveBuffer()
    for _ in range(size // 65536):
        buffer.add(bytes(65536))
        assert buffer.take(64) is not None
    while buffer.take(1000) is not None:
        pass


@pytest.mark.alone
@pytest.mark.parametrize(
    ("run", "small"),
    [
        pytest.param(search(bytes(65536), b"\n"), 8 * MIB, id="long line"),
        pytest.param(search(bytes(256), b"\r\n"), MIB, id="pieces of 256 B"),
        pytest.param(search(bytes(4), b"\r\n\r\n"), MIB // 16, id="pieces of 4 B"),
        pytest.param(fill_then_take, 4 * MIB, id="fill and take"),
    ],
)
def test_field_12_eight_times_as_much_costs_eight_times_as_much(run: Callable[[int], object], small: int) -> None:
    """A line of 64 MiB costs eight times one of 8 MiB, however it comes, and not sixty-four times."""
    run(small)
    assert cost(run, 8 * small) < 24 * cost(run, small)


def test_field_12_the_longest_stall_is_short() -> None:
    """A small `take` out of 64 MiB moves 64 KiB, not all of it."""
    buffer = ReceiveBuffer()
    for _ in range(1024):
        buffer.add(bytes(65536))
    moved = 0
    for _ in range(2000):
        before = buffer._head
        assert buffer.take(100) == bytes(100)
        moved = max(moved, len(buffer._head) if buffer._head is not before else 0)
    assert moved <= 65536


def test_field_12_small_pieces_do_not_multiply() -> None:
    """Many bytes that come two at a time take little more memory than they are."""
    buffer = ReceiveBuffer()
    with little_memory(MIB // 4):
        for _ in range(MIB // 16):
            buffer.add(bytes((1, 2)))
    assert buffer.take(MIB // 8) == b"\1\2" * (MIB // 16)


@kinds
async def test_field_12_a_line_of_many_pieces_arrives(sockets: Sockets, kind: Kind) -> None:
    """`receive_until` finds a delimiter wherever the pieces end, and leaves what follows."""
    rng = random.Random(12)
    lines = [rng.randbytes(rng.choice((0, 1, 255, 256, 300_000))).replace(b"\r", b"-") for _ in range(20)]
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):

        async def send() -> None:
            data = b"\r\n\r\n".join([*lines, b""])
            while data:
                size = rng.choice((1, 2, 3, 4, 5, 70_000))
                await far.send_all(data[:size])
                data = data[size:]
            await far.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for line in lines:
                assert await near.receive_until(b"\r\n\r\n", MIB, now() + 20_000) == line
            assert await near.receive_some() == b""


# --- 13: discarding ---------------------------------------------------------------------------------------------------


class Flooded:
    """What the kernel's socket is to `KernelSocket`, with a peer that always has more; notes what each pass takes."""

    def __init__(self, passes: Passes, size: int) -> None:
        self._passes = passes
        self._size = size
        self._real, self.peer = socket.socketpair()
        self.taken = self.reads = 0

    def recv_into(self, buffer: bytearray) -> int:
        count = min(self._size, len(buffer))
        self.taken += count
        self.reads += 1
        self._passes.add(count)
        return count

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF)
        return 6 * MIB

    def fileno(self) -> int:
        return self._real.fileno()

    def close(self) -> None:
        self._real.close()
        self.peer.close()


class Passes(trio.abc.Instrument):
    """The most bytes that were taken between two looks of Trio's loop at what else there is."""

    def __init__(self) -> None:
        self.most = self._now = 0

    def before_io_wait(self, timeout: float) -> None:
        self._now = 0

    def add(self, count: int) -> None:
        self._now += count
        self.most = max(self.most, self._now)


async def test_field_13_twenty_floods_take_fair_shares() -> None:
    """Closing twenty connections whose peers flood reads 128 KiB of each in a pass of the loop, and ends."""
    passes = Passes()
    floods = [Flooded(passes, 1 << 20) for _ in range(20)]
    trio.lowlevel.add_instrument(passes)
    try:
        async with trio.open_nursery() as nursery:
            for flood in floods:
                nursery.start_soon(KernelSocket(cast("socket.socket", flood)).discard)
    finally:
        trio.lowlevel.remove_instrument(passes)
        for flood in floods:
            flood.close()
    assert passes.most <= 20 * (1 << 17)
    # What the peers' kernels may have held when it began, and not what they have sent since.
    assert all(16 * MIB < flood.taken < 32 * MIB for flood in floods)


async def test_field_13_what_is_unread_is_added_to_the_bound() -> None:
    """What stands unread in the socket does not use up what may still be on its way."""
    taken = []
    for unread in (0, 100_000):
        flood = Flooded(Passes(), 1 << 20)
        flood.peer.setblocking(False)
        flood.peer.send(bytes(unread))
        await KernelSocket(cast("socket.socket", flood)).discard()
        taken.append(flood.reads)
        flood.close()
    assert taken[1] - taken[0] == 1


class Drained(Flooded):
    """A buffer that was full, and a peer that sends no more."""

    def recv_into(self, buffer: bytearray) -> int:
        if self.reads:
            self.reads += 1
            raise BlockingIOError
        return super().recv_into(buffer)

    def getsockopt(self, level: int, option: int) -> int:
        return 1 << 16


@pytest.mark.parametrize(("turn", "looks"), [(0.0, 33), (0.004, 4)])
async def test_field_13_a_busy_machine_is_not_waited_for(turn, looks, monkeypatch) -> None:
    """The processor is given to others, to the kernel's threads among them, for 10 ms in all and no longer."""
    monkeypatch.setattr(kernel_socket, "yield_processor", lambda: turn)
    peer = Drained(Passes(), 1 << 16)
    await KernelSocket(cast("socket.socket", peer)).discard()
    assert peer.reads == 1 + looks
    peer.close()


async def test_field_13_a_trickle_is_not_followed() -> None:
    """A peer that sends a byte for each read is read from 256 times."""
    flood = Flooded(Passes(), 1)
    await KernelSocket(cast("socket.socket", flood)).discard()
    assert flood.reads == 256
    flood.close()


async def test_field_13_closing_twenty_floods_ends(sockets: Sockets) -> None:
    """Twenty real connections whose peers flood are closed, and do not wait for the end of the floods."""
    async with no_leaks(counters=sockets.counters), faults.flooding() as peer, trio.open_nursery() as nursery:
        streams = [await tcp_connect(peer.address.pair) for _ in range(20)]
        with trio.fail_after(20):
            for stream in streams:
                await stream.fill()
                nursery.start_soon(stream.aclose)


# --- 14: who waits on what we gave out is woken -----------------------------------------------------------------------


async def close_gracefully(stream: Any) -> None:
    with contextlib.suppress(DeadlineExceeded):
        await stream.close_gracefully(now() + 50)


async def abort(stream: Any) -> None:
    stream.abort()


CLOSES: dict[str, Callable[[Any], Awaitable[None]]] = {
    "aclose": lambda stream: stream.aclose(),
    "aclose_forcefully": trio.aclose_forcefully,
    "close_gracefully": close_gracefully,
    "abort": abort,
}


async def wait_on(thing: Any, what: str) -> None:
    if what == "fileno":
        await trio.lowlevel.wait_readable(thing.fileno())
    elif what == "socket":
        await trio.lowlevel.wait_readable(thing.socket)
    elif isinstance(thing, TcpListener | UnixListener):
        await thing.socket.accept()
    else:
        await thing.socket.recv(1)


WAITS = ("fileno", "socket", "its method")


@contextlib.asynccontextmanager
async def woken(thing: Any, what: str) -> AsyncIterator[None]:
    """Have a task wait on what was given out; it must be woken inside, and with ClosedResourceError."""
    async with trio.open_nursery() as nursery:
        over = trio.Event()

        async def waiting() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await wait_on(thing, what)
            over.set()

        nursery.start_soon(waiting)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            yield
            await over.wait()


@kinds
@pytest.mark.parametrize("close", CLOSES.values(), ids=CLOSES)
@pytest.mark.parametrize("what", WAITS)
async def test_field_14_a_task_on_a_streams_socket_is_woken(kind: Kind, close: Any, what: str) -> None:
    """Who waits on `stream.socket` or its descriptor gets ClosedResourceError when the stream is closed."""
    async with no_leaks(), pair(kind) as (near, _), woken(near, what):
        await close(near)


@kinds
@pytest.mark.parametrize("what", WAITS)
async def test_field_14_a_task_on_a_listeners_socket_is_woken(kind: Kind, what: str) -> None:
    """Who waits on `listener.socket` or its descriptor gets ClosedResourceError when the listener is closed."""
    async with no_leaks(), listening(kind) as listener, woken(listener, what):
        await listener.aclose()


@pytest.mark.parametrize("close", CLOSES.values(), ids=CLOSES)
async def test_field_14_a_socket_that_was_given_to_us_too(close: Any) -> None:
    """Who waits on a socket that a stream was made of is woken as well."""
    async with no_leaks():
        left, right = socket.socketpair()
        with left, right:
            stream = UnixStream.from_socket(left)
            async with woken(left, "fileno"):
                await close(stream)


@kinds
async def test_field_14_nothing_is_said_where_nothing_was_given_out(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing what nobody else has costs no system call for waking."""
    told: list[int] = []
    monkeypatch.setattr(kernel_socket, "notify_closing", told.append)
    async with no_leaks(), listening(kind) as listener:
        for close in CLOSES.values():
            near = await connect_to(listener)
            far = await listener.accept()
            await near.send_all(b"x")
            assert await far.receive_exactly(1) == b"x"
            await far.aclose()
            await close(near)
        await listener.aclose()
    assert told == []


async def test_field_14_a_stream_can_be_closed_after_its_run() -> None:
    """A stream whose descriptor was given out can still be aborted when Trio has ended."""

    async def main() -> TcpStream:
        async with await tcp_listen(("127.0.0.1", 0)) as listener:
            stream = await tcp_connect(listener.endpoint)
            assert stream.fileno() > 0
            return stream

    def elsewhere() -> int:
        stream = trio.run(main)
        stream.abort()
        return stream.fileno()

    assert await trio.to_thread.run_sync(elsewhere) == -1


# --- 15: what accept skips --------------------------------------------------------------------------------------------

SKIPPED = (
    "EPERM", "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP",
    "ENETUNREACH", "ENOSR", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT", "ECONNRESET",
)  # fmt: skip
RAISED = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EINVAL")


@contextlib.contextmanager
def failing_accept(monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> Iterator[None]:
    """Have accept(2) fail with each of these codes in turn, through both kinds of socket."""
    plain, fake = socket.socket.accept, PassThroughSocket.accept

    def accept(sock: socket.socket) -> Any:
        if codes:
            raise OSError(code := codes.pop(), os.strerror(code))
        return plain(sock)

    async def fake_accept(sock: PassThroughSocket) -> Any:
        await trio.lowlevel.checkpoint()
        if codes:
            raise OSError(code := codes.pop(), os.strerror(code))
        return await fake(sock)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "accept", accept)
        patch.setattr(PassThroughSocket, "accept", fake_accept)
        yield


@pytest.mark.parametrize("name", [name for name in SKIPPED if hasattr(errno, name)])
async def test_field_15_accept_skips_errors_of_the_connection(
    sockets: Sockets, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accept` skips the codes that Trio's listener skips, through a factory's sockets too."""
    codes = [getattr(errno, name)] * 3
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        near = await tcp_connect(listener.endpoint)
        with failing_accept(monkeypatch, codes):
            stream = await listener.accept(now() + 5000)
        assert codes == []
        await stream.aclose()
        await near.aclose()


@pytest.mark.parametrize("name", RAISED)
async def test_field_15_accept_raises_what_concerns_the_listener(
    sockets: Sockets, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of descriptors or memory is the caller's to know, and a connection waits on."""
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        near = await tcp_connect(listener.endpoint)
        with failing_accept(monkeypatch, [getattr(errno, name)]), pytest.raises(OSError, match="Errno") as caught:
            await listener.accept()
        assert caught.value.errno == getattr(errno, name)
        await (await listener.accept()).aclose()
        await near.aclose()
        del caught


@pytest.mark.parametrize("deadline", [0, 30])
async def test_field_15_an_error_without_end_is_no_busy_loop(
    sockets: Sockets, deadline: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A code that comes for ever, such as a rule for this process, lets others run and keeps the deadline."""
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        with failing_accept(monkeypatch, [errno.EPERM] * 10_000_000), trio.fail_after(10):
            with pytest.raises(DeadlineExceeded):
                await listener.accept(now() + deadline if deadline else 0)
            with trio.move_on_after(0.02) as scope:
                await listener.accept()
            assert scope.cancelled_caught


def test_field_15_the_list_is_trios() -> None:
    """The list that both kinds of socket share is the one of `trio.SocketListener`."""
    assert {getattr(errno, name) for name in SKIPPED if hasattr(errno, name)} == stream_socket.CONNECTION_ERRORS


# --- 16: a success with deadline 0 is a checkpoint --------------------------------------------------------------------


@kinds
async def test_field_16_success_at_once_is_a_checkpoint(sockets: Sockets, kind: Kind) -> None:
    """Each call with deadline 0 is a checkpoint when it succeeds, through a factory too."""
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        near = await connect_to(listener)
        with trio.testing.assert_checkpoints():
            far = await listener.accept(0)
        with trio.testing.assert_checkpoints():
            await near.send_all(b"x", 0)
        with trio.testing.assert_checkpoints():
            await near.send_all([b"x", b"y"], 0)
        assert await far.receive_exactly(3) == b"xxy"
        for receive in RECEIVES.values():
            await near.send_all(bytes(100_000) + b"\r\n" if "large" in repr(receive) else b"ab\r\n")
            with trio.testing.assert_checkpoints():
                try:
                    await receive(far, 0)
                except DeadlineExceeded:
                    assert far.buffered
            far.take(far.buffered)
        await near.aclose()
        await far.aclose()


@kinds
async def test_field_16_a_cancelled_call_does_nothing(sockets: Sockets, kind: Kind) -> None:
    """A call with deadline 0 in a cancelled scope is cancelled, and takes or sends nothing."""
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        near = await connect_to(listener)
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.accept(0)
        assert scope.cancelled_caught
        far = await listener.accept(0)
        await near.send_all(b"ab\r\n")
        for receive in RECEIVES.values():
            with trio.CancelScope() as scope:
                scope.cancel()
                await receive(far, 0)
            assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await far.send_all(b"x", 0)
        assert scope.cancelled_caught
        assert await far.receive_some() == b"ab\r\n"
        await far.send_eof()
        assert await near.receive_some() == b""
        await near.aclose()
        await far.aclose()


# --- 17: what from_socket refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [TcpStream, TcpListener, UnixListener])
async def test_field_17_an_ssl_socket_is_a_type_error(cls: Any) -> None:
    """`from_socket` of an `ssl.SSLSocket` is a TypeError that says what to do."""
    context = ssl.create_default_context()
    context.check_hostname = False
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as plain,
        context.wrap_socket(plain, do_handshake_on_connect=False) as wrapped,
    ):
        with pytest.raises(TypeError, match=r"plain socket\.socket.*SSLStream"):
            cls.from_socket(wrapped)
        assert wrapped.getblocking()
        assert wrapped.fileno() != -1


@pytest.mark.parametrize("cls", [TcpStream, TcpListener])
async def test_field_17_what_is_refused_is_left_alone(cls: Any) -> None:
    """A socket that `from_socket` refuses is as blocking as before, and open."""
    left, right = socket.socketpair()
    with left, right, socket.socket(type=socket.SOCK_DGRAM) as datagram, socket.socket() as alone:
        for sock in (left, datagram, alone):
            with pytest.raises((ValueError, OSError)):
                cls.from_socket(sock)
            assert sock.getblocking()
            assert os.get_blocking(sock.fileno())


# --- 21: unix_listen --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.skipif(sys.platform != "linux", reason="the mode before bind is Linux's")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0o000])
async def test_field_21_the_mode_from_the_first_moment_on(
    tmp_path: Path, mode: int, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of `unix_listen(path, mode=)` never has a right more than asked for, and in the end all of them."""
    path = tmp_path / "socket"
    seen: list[int] = []
    bind = socket.socket.bind

    def watched(sock: socket.socket, address: Any) -> None:
        bind(sock, address)
        seen.append(stat.S_IMODE(os.stat(path).st_mode))

    monkeypatch.setattr(socket.socket, "bind", watched)
    with umask(mask):
        monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask belongs to every thread"))
        async with no_leaks(), await unix_listen(path, mode=mode):
            assert stat.S_IMODE(os.stat(path).st_mode) == mode
        monkeypatch.undo()
    assert seen == [mode & ~mask]
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere chmod itself does not follow links")
async def test_field_21_a_mode_is_never_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write to the folder cannot have the mode set on another file by a link in the path's place."""
    path, victim = tmp_path / "socket", tmp_path / "victim"
    victim.write_text("secret")
    victim.chmod(0o600)
    bind = socket.socket.bind

    def replaced(sock: socket.socket, address: Any) -> None:
        bind(sock, address)
        path.unlink()
        path.symlink_to(victim)

    monkeypatch.setattr(socket.socket, "bind", replaced)
    async with no_leaks():
        with umask(0o077), pytest.raises(OSError, match="local: "):
            await unix_listen(path, mode=0o666)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


async def test_field_21_a_mode_through_a_factory(sockets: Sockets, tmp_path: Path) -> None:
    """The mode holds for a factory's sockets too, from before anybody can connect."""
    path = tmp_path / "socket"
    async with no_leaks(counters=sockets.counters), await unix_listen(path, mode=0o622):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o622
        await (await unix_connect(path)).aclose()


@pytest.mark.parametrize(
    ("mode", "error", "text"),
    [
        (-1, ValueError, "permission bits"),
        (0o1000, ValueError, "permission bits"),
        (True, TypeError, "mode must be an int"),
        ("rw", TypeError, "mode must be an int"),
    ],
)
async def test_field_21_a_mode_that_is_not_one(tmp_path: Path, mode: Any, error: type[Exception], text: str) -> None:
    """A mode is permission bits, and an abstract name has none."""
    with pytest.raises(error, match=text):
        await unix_listen(tmp_path / "socket", mode=mode)
    with pytest.raises(ValueError, match="abstract"):
        await unix_listen("\0trio-connect-field-21", mode=0o600)
    assert not (tmp_path / "socket").exists()


async def test_field_21_a_relative_path_is_removed_after_a_chdir(
    sockets: Sockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing removes a relative path also when the program has changed its directory, and no namesake there."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    async with no_leaks(counters=sockets.counters):
        listener = await unix_listen("socket")
        monkeypatch.chdir(tmp_path / "elsewhere")
        other = await unix_listen("socket")
        await listener.aclose()
        assert not (tmp_path / "socket").exists()
        assert (tmp_path / "elsewhere" / "socket").exists()
        await other.aclose()
        assert not (tmp_path / "elsewhere" / "socket").exists()


async def test_field_21_a_listener_that_fails_leaves_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When listening fails after the path was made, the path is removed."""

    def fail(sock: socket.socket, backlog: int) -> None:
        raise OSError(errno.EADDRINUSE, "no")

    monkeypatch.setattr(socket.socket, "listen", fail)
    async with no_leaks():
        with pytest.raises(OSError, match="local: "):
            await unix_listen(tmp_path / "socket", mode=0o600)
    assert not (tmp_path / "socket").exists()


# --- 31: the report of a deadline -------------------------------------------------------------------------------------


@kinds
async def test_field_31_only_a_connect_has_a_report(sockets: Sockets, kind: Kind) -> None:
    """`DeadlineExceeded.report` is None where nothing was connected, and there for a connect."""
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        with pytest.raises(DeadlineExceeded) as caught:
            await listener.accept(0)
        assert caught.value.report is None
        near = await connect_to(listener)
        for receive in RECEIVES.values():
            with pytest.raises(DeadlineExceeded) as caught:
                await receive(near, 0)
            assert caught.value.report is None
        near.abort()
        del caught


async def test_field_31_a_connect_has_one() -> None:
    """`DeadlineExceeded.report` of a connect has the attempt; a path has no attempt to tell of."""
    with faults.black_hole() as hole:
        with pytest.raises(DeadlineExceeded) as caught:
            await tcp_connect(hole.pair, now() + 20)
        assert caught.value.report is not None
        assert len(caught.value.report.attempts) == 1
    with faults.full_unix_backlog() as path:
        with pytest.raises(DeadlineExceeded) as caught:
            await unix_connect(path, now() + 20)
        assert caught.value.report is not None
        assert caught.value.report.attempts == ()
