"""Ctrl-C at any line of a connect: it is heard, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from socket import AF_INET, AddressFamily
from tempfile import TemporaryDirectory
from types import FrameType, FunctionType
from typing import Any

import pytest
import trio
import trio.testing

import trio_connect
from tests.net.racing import connects
from tests.support import dnsserver, faults, tls
from tests.support.leaks import LeakError, no_leaks
from tests.support.sockets import NAMES, Name, Sockets
from tests.support.streams import arrival, make_tls_pair
from trio_connect import (
    Answer,
    DnsResolver,
    Endpoint,
    RacePolicy,
    TcpStream,
    UnixStream,
    connect,
    connect_each,
    connectx,
    libdill,
    now,
    tcp_connect,
    tcp_listen,
    unix_listen,
)
from trio_connect._net.listeners.socket_listener import SocketListener
from trio_connect._net.names import dns_exchange, dns_questions
from trio_connect._net.names.lookup import __file__ as lookup_file
from trio_connect._net.race import attempts
from trio_connect._net.sockets import local_ports
from trio_connect.adapters.anyio import Connectable
from trio_connect.adapters.httpcore import Backend
from trio_connect.queues import open_queue_set

OURS = str(Path(trio_connect.__file__).parent)
pytestmark = pytest.mark.usefixtures("interruptible")
FEW = 20
"""Any connect has more lines than that; a sweep that finds fewer has not looked."""


@contextmanager
def interrupt_at(line: int, seen: list[int], files: str = OURS) -> Iterator[None]:
    """Raise SIGINT before the package executes its n-th line from here on; count them in `seen`.

    Only lines of files count whose path begins with `files`.
    """

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(files):
            return None
        if event == "line":
            seen[0] += 1
            if seen[0] == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    handler, tracer = signal.getsignal(signal.SIGINT), sys.gettrace()
    try:
        sys.settrace(trace)
        yield
    finally:
        sys.settrace(tracer)
        assert signal.getsignal(signal.SIGINT) is handler


@asynccontextmanager
async def held(fault: Any) -> Any:
    with fault() as address:
        yield address.pair


@asynccontextmanager
async def answering() -> Any:
    async with faults.echoing() as peer:
        yield peer.address.pair


def sweep(peer: Any, connect: Any, stride: int = 1, files: str = OURS) -> list[bool]:
    """Interrupt the connect at each of its lines in turn, or at every `stride`-th, and return whether it was heard.

    With `files`, only at lines of files whose path begins with that.
    """
    heard: list[bool] = []

    async def main(line: int) -> int:
        async with peer() as where, no_leaks():
            stream, seen = None, [0]
            try:
                with interrupt_at(line, seen, files), suppress(OSError):
                    stream = await connect(where)
                # What came too late for the call comes at the next checkpoint.
                await trio.lowlevel.checkpoint()
                heard.append(False)
            except KeyboardInterrupt:
                heard.append(True)
            finally:
                if isinstance(stream, int):
                    libdill.hclose(stream)
                elif isinstance(stream, SocketListener):
                    stream.close()
                elif stream is not None:
                    stream.abort()
            return seen[0]

    line = 0
    while True:
        line += stride
        if trio.run(main, line) < line:
            heard.pop()
            # A machine that was held up may have met the deadline before this line, so a second run has to agree.
            if trio.run(main, line) < line:
                heard.pop()
                return heard


PEERS = {"answering": answering, "refusing": partial(held, faults.refusing), "silent": partial(held, faults.black_hole)}


EVERY_LINE = pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])


@connects
@pytest.mark.parametrize("stride", [3, EVERY_LINE])
@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_an_interrupt_at_any_line_of_a_connect_is_heard_and_leaves_nothing(
    peer: Any, connect: Any, stride: int
) -> None:
    heard = sweep(peer, lambda pair: connect(pair, now() + 5), stride)
    assert len(heard) > FEW // stride
    assert all(heard)


@asynccontextmanager
async def somewhere() -> Any:
    with TemporaryDirectory() as folder:
        yield Path(folder)
        # No listener is left, so its path is not there either.
        assert not os.listdir(folder)


@asynccontextmanager
async def listening() -> Any:
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.endpoint.sockaddr[:2]):
            yield listener


def here(pair: tuple[str, int] = ("127.0.0.1", 0)) -> libdill.ipaddr:
    return libdill.ipaddr(Endpoint(*pair))


LISTENING: dict[str, tuple[Any, Any]] = {
    "tcp_listen": (somewhere, lambda _: tcp_listen(("127.0.0.1", 0))),
    "unix_listen": (somewhere, lambda folder: unix_listen(folder / "socket", mode=0o600)),
    "accept": (listening, lambda listener: listener.accept(now() + 5_000)),
    "libdill tcp_connect": (answering, lambda pair: libdill.tcp_connect(here(pair), now() + 5_000)),
    "libdill tcp_listen": (somewhere, lambda _: libdill.tcp_listen(here(), 1)),
}


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("peer", "call"), LISTENING.values(), ids=LISTENING)
def test_an_interrupt_at_any_line_of_listening_and_of_libdill_is_heard_and_leaves_nothing(
    peer: Any, call: Any, stride: int
) -> None:
    heard = sweep(peer, call, stride)
    assert len(heard) > FEW / stride
    assert all(heard)


@asynccontextmanager
async def folder_for_a_path() -> Any:
    with TemporaryDirectory() as folder:  # where libdill leaves the path
        yield f"{folder}/socket"


@asynccontextmanager
async def listening_handle() -> Any:
    number = await libdill.tcp_listen(address := here(), 1)
    with socket.create_connection(("127.0.0.1", libdill.ipaddr_port(address))):
        yield number
    libdill.hclose(number)


@asynccontextmanager
async def path_that_answers() -> Any:
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/socket")
        server.listen(1)
        yield f"{folder}/socket"


@asynccontextmanager
async def listening_handle_on_path() -> Any:
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as client:
        number = await libdill.ipc_listen(f"{folder}/socket", 1)
        client.connect(f"{folder}/socket")
        yield number
        libdill.hclose(number)


@asynccontextmanager
async def descriptor_sent() -> Any:
    ends = [0, 0]
    libdill.ipc_pair(ends)
    await libdill.ipc_sendfd(ends[0], 0, -1)
    yield ends[1]
    for number in ends:
        libdill.hclose(number)


@asynccontextmanager
async def tcp_descriptor() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield socket.create_connection(server.getsockname()).detach()


@asynccontextmanager
async def unix_descriptor() -> Any:
    near, far = socket.socketpair()
    with far:
        yield near.detach()


class Received:
    """A descriptor that has come."""

    def __init__(self, number: int) -> None:
        self.number = number

    def abort(self) -> None:
        os.close(self.number)


async def receive_descriptor(number: int) -> Received:
    return Received(await libdill.ipc_recvfd(number, now() + 5_000))


async def from_descriptor(take: Any, number: int) -> int:
    handle: int = take(number)
    return handle


HANDLES: dict[str, tuple[Any, Any]] = {
    "tcp_accept": (listening_handle, lambda number: libdill.tcp_accept(number, None, now() + 5_000)),
    "ipc_listen": (folder_for_a_path, lambda path: libdill.ipc_listen(path, 1)),
    "ipc_connect": (path_that_answers, lambda path: libdill.ipc_connect(path, now() + 5_000)),
    "ipc_accept": (listening_handle_on_path, lambda number: libdill.ipc_accept(number, now() + 5_000)),
    "ipc_recvfd": (descriptor_sent, receive_descriptor),
    "tcp_fromfd": (tcp_descriptor, partial(from_descriptor, libdill.tcp_fromfd)),
    "ipc_fromfd": (unix_descriptor, partial(from_descriptor, libdill.ipc_fromfd)),
}


@pytest.mark.parametrize(("peer", "call"), HANDLES.values(), ids=HANDLES)
def test_an_interrupt_at_any_line_of_what_makes_a_handle_leaves_none(peer: Any, call: Any) -> None:
    heard = sweep(peer, call)
    assert len(heard) > 5
    assert all(heard)


@asynccontextmanager
async def connected() -> Any:
    """A connection whose peer is no task, so that nothing but the close has lines."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await tcp_connect(server.getsockname())
        with server.accept()[0] as peer:
            peer.sendall(b"nobody reads this")
            yield stream


@asynccontextmanager
async def over_tls() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await tcp_connect(server.getsockname())
        sock, _ = server.accept()
        contexts = tls.contexts()
        async with TcpStream.from_socket(sock) as peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(peer.start_tls, contexts.server, server_side=True))
                secured = await stream.start_tls(contexts.client, server_hostname=tls.NAME)
            yield secured


@asynccontextmanager
async def listener_on_path() -> Any:
    async with somewhere() as folder:
        yield await unix_listen(folder / "socket")


@asynccontextmanager
async def handle() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield await libdill.tcp_connect(here(server.getsockname()), now() + 5_000)


@asynccontextmanager
async def handle_on_path() -> Any:
    with TemporaryDirectory() as folder:  # where the path stays
        yield await libdill.ipc_listen(f"{folder}/socket", 1)


async def hclose(number: int) -> None:
    libdill.hclose(number)


async def close_handle(number: int) -> None:
    with suppress(OSError):  # of the deadline
        await libdill.tcp_close(number, 0)


async def abort(stream: Any) -> None:
    stream.abort()


async def aclose(thing: Any) -> None:
    await thing.aclose()


async def close_gracefully(stream: TcpStream) -> None:
    with suppress(OSError):  # likewise
        await stream.close_gracefully(0)


async def close(listener: Any) -> None:
    listener.close()


CLOSING: dict[str, tuple[Any, Any]] = {
    "TcpStream.aclose": (connected, aclose),
    "TcpStream.abort": (connected, abort),
    "TcpStream.close_gracefully": (connected, close_gracefully),
    "TlsStream.aclose": (over_tls, aclose),
    "TlsStream.abort": (over_tls, abort),
    "UnixListener.aclose": (listener_on_path, aclose),
    "UnixListener.close": (listener_on_path, close),
    "hclose": (handle, hclose),
    "tcp_close": (handle, close_handle),
    "hclose of a listener": (handle_on_path, hclose),
    "ipc_close": (handle_on_path, lambda number: libdill.ipc_close(number, 0)),
}


@pytest.mark.parametrize(("made", "end"), CLOSING.values(), ids=CLOSING)
def test_an_interrupt_at_any_line_of_a_close_leaves_nothing_open(made: Any, end: Any) -> None:
    heard: list[bool] = []

    async def main(line: int) -> int:
        seen = [0]
        async with no_leaks(), made() as thing:
            try:
                with interrupt_at(line, seen):
                    await end(thing)
                await trio.lowlevel.checkpoint()
                heard.append(False)
            except KeyboardInterrupt:
                heard.append(True)
        return seen[0]

    line = 1
    while trio.run(main, line) >= line:
        line += 1
    assert line > 3
    assert all(heard[:-1])


def test_an_interrupt_at_any_line_of_a_look_at_an_idle_connection_loses_nothing_of_what_has_come() -> None:
    """OpenSSL has to read it to tell it from a session ticket."""

    async def main(line: int) -> int:
        heard, seen = False, [0]
        near, far = await make_tls_pair()
        await far.send_all(b"unasked")
        await arrival(near.tcp.socket)
        try:
            with interrupt_at(line, seen):
                near.is_dead()
            await trio.lowlevel.checkpoint()
        except KeyboardInterrupt:
            heard = True
        assert heard == (seen[0] >= line)
        assert await near.receive_exactly(7, now() + 5_000) == b"unasked"
        near.abort()
        far.abort()
        return seen[0]

    line = 1
    while trio.run(main, line) >= line:
        line += 1
    assert line > FEW


@asynccontextmanager
async def two_silent_and_one_answering() -> Any:
    # With two that are pending, each has a task.
    with faults.black_hole() as hole, faults.black_hole() as other:
        async with faults.echoing() as peer:
            yield [hole.pair, other.pair, peer.address.pair]


async def take_turns(stream: TcpStream) -> TcpStream:
    # Nothing of ours: an establish is the caller's code, and not protected.
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    return stream


@pytest.mark.parametrize("stride", [17, EVERY_LINE])
@pytest.mark.parametrize("establish", [None, take_turns], ids=["tcp", "establish"])
def test_an_interrupt_in_any_task_of_a_race_is_heard_and_leaves_nothing(
    establish: Any, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = RacePolicy(attempt_delay=0.010)

    async def connect(endpoints: list[tuple[str, int]]) -> TcpStream:
        if establish is None:
            return await connectx(endpoints, policy=policy)
        stream: TcpStream = await connectx(endpoints, policy=policy, establish=establish)
        return stream

    followed: list[str] = []

    run_attempt = attempts.run_attempt

    async def noted(running: attempts.RunningAttempt, *rest: Any) -> None:
        followed.append(str(running.endpoint))
        await run_attempt(running, *rest)

    monkeypatch.setattr(attempts, "run_attempt", noted)
    heard = sweep(two_silent_and_one_answering, connect, stride)
    assert len(heard) > 10 * FEW / stride
    assert all(heard)
    assert len(set(followed)) >= 2


def test_an_interrupt_at_any_line_around_an_establish_leaves_no_coroutine_that_was_never_awaited() -> None:
    async def connect(pair: tuple[str, int]) -> TcpStream:
        return await connectx([pair], establish=take_turns)

    heard = sweep(answering, connect, files=attempts.__file__)
    assert len(heard) > FEW
    assert all(heard)


def test_an_interrupt_at_any_line_of_a_lookup_is_heard_and_leaves_nothing() -> None:
    class Own:
        async def addresses(self, _host: str, family: AddressFamily, /) -> Answer:
            await trio.lowlevel.checkpoint()
            return Answer(("127.0.0.1",) if family == AF_INET else ())

    heard = sweep(answering, lambda pair: connect("api.test", pair[1], now() + 5_000, resolver=Own()), 5, lookup_file)
    assert len(heard) > FEW
    assert all(heard)


@asynccontextmanager
async def name_server() -> Any:
    async with dnsserver.serving({"api.test A": ["127.0.0.1"]}) as (_, where):
        yield Endpoint(*where)


@pytest.mark.parametrize("file", [dns_questions.__file__, dns_exchange.__file__], ids=["questions", "exchange"])
def test_an_interrupt_in_a_task_of_a_dns_resolver_comes_as_itself_and_leaves_no_socket(file: str) -> None:
    async def ask(server: Endpoint) -> None:
        async with DnsResolver([server]) as resolver:
            await resolver.addresses("api.test", AF_INET)

    heard = sweep(name_server, ask, 1, file)
    assert len(heard) > 10
    assert all(heard)


def test_an_iterable_and_an_observer_that_never_return_can_be_interrupted() -> None:
    def endless() -> Iterator[tuple[str, int]]:
        signal.raise_signal(signal.SIGINT)
        yield "127.0.0.1", 9
        raise AssertionError("not interrupted")

    def stuck(_event: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not interrupted")

    async def main() -> None:
        async with no_leaks():
            with pytest.raises(KeyboardInterrupt):
                await connectx(endless())
        async with answering() as pair, no_leaks():
            with pytest.raises(KeyboardInterrupt):
                await connectx([pair], observer=stuck)

    trio.run(main)


def test_the_sweep_notices_a_connect_that_is_not_protected() -> None:
    # The same function in a copy of its code that Trio knows nothing of.
    copy: Any = FunctionType(tcp_connect.__code__.replace(co_name="copy"), tcp_connect.__globals__)
    copy.__kwdefaults__ = tcp_connect.__kwdefaults__

    with pytest.RaisesGroup(LeakError):
        sweep(answering, lambda pair: copy(pair, now() + 20_000))


async def over_httpcore(pair: tuple[str, int]) -> TcpStream:
    stream = await Backend().connect_tcp(
        *pair, timeout=5.0, socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    )
    return stream._connection  # type: ignore[return-value]


async def over_anyio(pair: tuple[str, int]) -> TcpStream:
    stream = await Connectable(*pair).connect()
    assert isinstance(stream.stream, TcpStream)
    return stream.stream


@pytest.mark.parametrize("connect", [over_httpcore, over_anyio])
def test_an_interrupt_at_any_line_of_an_adapter_is_heard_and_leaves_nothing(connect: Any) -> None:
    heard = sweep(answering, connect, 2)
    assert len(heard) > FEW
    assert all(heard)


async def use_a_queue_set(_: Any) -> None:
    async with open_queue_set() as qs:
        listener = qs.stream()
        where: Any = await listener.bind(("127.0.0.1", 0))
        await listener.listen(3)
        accepting = listener.accept()
        won = (await qs.wait(qs.connectx([where]))).queue
        accepted = (await qs.wait(accepting)).unwrap().queue
        await qs.wait(won.push(b"x"))
        await qs.wait(accepted.pop())
        await accepted.aclose()


async def use_a_connect_each(where: Any) -> None:
    async with connect_each([where] * 2) as each:
        async for _, outcome in each:
            assert isinstance(outcome, TcpStream)
            outcome.abort()


@pytest.mark.parametrize("stride", [23, EVERY_LINE])
@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("use", [use_a_queue_set, use_a_connect_each])
def test_an_interrupt_at_any_line_of_what_hands_sockets_on_leaves_nothing(use: Any, kind: Name, stride: int) -> None:
    async def main(line: int) -> int:
        seen = [0]
        with Sockets.to(kind).installed() as sockets:
            async with answering() as where, no_leaks(counters=sockets.counters):
                try:
                    with interrupt_at(line, seen):
                        await use(where)
                    await trio.lowlevel.checkpoint()
                except KeyboardInterrupt:
                    pass
                except BaseExceptionGroup as group:  # from a task of the library's that was not protected
                    if group.split(KeyboardInterrupt)[1] is not None:
                        raise
        return seen[0]

    line = 0
    while True:
        line += stride
        if trio.run(main, line) < line:
            break
    assert line > 2 * FEW


def test_an_interrupt_at_any_line_of_passing_a_descriptor_leaves_no_copy() -> None:
    async def main(line: int) -> int:
        seen, fds = [0], []
        async with no_leaks():
            one, other = (UnixStream.from_socket(sock) for sock in socket.socketpair())
            with suppress(KeyboardInterrupt):
                with interrupt_at(line, seen):
                    await one.send_fd(0)
                    fds.append(await other.receive_fd())
                await trio.lowlevel.checkpoint()
            for fd in fds:
                os.close(fd)
            one.abort()
            other.abort()
        return seen[0]

    line = 1
    while trio.run(main, line) >= line:
        line += 1
    assert line > FEW


def test_an_interrupt_while_the_range_of_local_ports_is_read_leaves_no_descriptor() -> None:
    async def main(line: int) -> int:
        seen = [0]
        async with no_leaks():
            with suppress(KeyboardInterrupt):
                with interrupt_at(line, seen, local_ports.__file__):
                    local_ports.forget_local_ports()
                    local_ports.local_ports()
                await trio.lowlevel.checkpoint()
        return seen[0]

    assert sum(trio.run(main, line) >= line for line in range(1, 20)) > 5


async def leave_a_connect_each(where: Any, stack: AsyncExitStack) -> None:
    await stack.enter_async_context(connect_each([where] * 3))
    await trio.testing.wait_all_tasks_blocked(0.01)


async def leave_a_queue_set(where: Any, stack: AsyncExitStack) -> None:
    qs = await stack.enter_async_context(open_queue_set())
    queues = [qs.stream() for _ in range(3)]
    for queue in queues:
        await qs.wait(queue.connect(where))
        await qs.wait(queue.push(b"echoed, and not read"))
    await trio.testing.wait_all_tasks_blocked(0.01)
    stack.push_async_callback(queues[0].aclose)
    await qs.stream().bind(("127.0.0.1", 0))


@pytest.mark.parametrize("stride", [11, EVERY_LINE])
@pytest.mark.parametrize("enter", [leave_a_connect_each, leave_a_queue_set])
def test_an_interrupt_at_any_line_of_leaving_a_block_leaves_nothing(enter: Any, stride: int) -> None:
    async def main(line: int) -> int:
        seen = [0]
        async with answering() as where, no_leaks():
            with suppress(KeyboardInterrupt):
                async with AsyncExitStack() as stack:
                    await enter(where, stack)
                    tracing = stack.pop_all()
                with interrupt_at(line, seen):
                    await tracing.aclose()
                await trio.lowlevel.checkpoint()
        return seen[0]

    line = 0
    while True:
        line += stride
        if trio.run(main, line) < line:
            break
    assert line > 3 * FEW
