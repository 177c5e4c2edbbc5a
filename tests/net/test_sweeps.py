"""Cancel at every step: whatever was under way, nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, overload

import pytest
import trio

from tests.support import faults
from tests.support.faults import Peer
from tests.support.sockets import Sockets
from tests.support.streams import (
    ANY_KINDS,
    KINDS,
    AnyKind,
    AnyStream,
    Kind,
    Listener,
    Stream,
    connect_to,
    listening,
    make_pair,
)
from tests.support.sweep import CANCELLING, Mode, Step, Summary, repeated, sweep
from trio_connect import (
    DeadlineExceeded,
    IncompleteRead,
    Source,
    TcpStream,
    TlsStream,
    UnixStream,
    now,
    tcp_connect,
    tcp_listen,
    unix_connect,
    unix_listen,
)

kinds = pytest.mark.parametrize("kind", KINDS)

# "soon": what parks ends by itself, after the sweep has had its turns.
DEADLINES: dict[str, Callable[[], int]] = {"none": lambda: -1, "0": lambda: 0, "soon": lambda: now() + 30}
deadlines = pytest.mark.parametrize(
    "deadline",
    [
        pytest.param(deadline, id=name, marks=[pytest.mark.slow] if name == "soon" else [])
        for name, deadline in DEADLINES.items()
    ],
)

Operation: TypeAlias = Callable[[Stream], Awaitable[object]]


def cancelled(summary: Summary) -> int:
    return sum(endings["cancelled"] for endings in summary.endings().values())


# --- connecting and listening -----------------------------------------------------------------------------------------


@deadlines
async def test_connect(sockets: Sockets, deadline: Callable[[], int]) -> None:
    async def connect(peer: Peer) -> TcpStream:
        return await tcp_connect(peer.address.pair, deadline(), source=Source(ipv4="127.0.0.9"))

    async def peer_saw_the_end(peer: Peer, _: Step) -> None:
        # Whatever reached the peer has an end there too.
        with trio.fail_after(1):
            while peer.ended < peer.accepted:
                await trio.lowlevel.checkpoint()

    summary = await sweep(connect, environment=faults.echoing, counters=sockets.counters, check=peer_saw_the_end)
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


@deadlines
@pytest.mark.parametrize("fault", [faults.refusing, faults.black_hole])
async def test_connect_that_fails(
    sockets: Sockets, fault: Any, deadline: Callable[[], int], modes: tuple[Mode, ...]
) -> None:
    with fault() as address:
        await sweep(
            lambda: tcp_connect(address.pair, deadline()),
            modes=modes,
            ports=[address.port] if fault is faults.black_hole else [],
            counters=sockets.counters,
            raises=(ConnectionRefusedError, DeadlineExceeded),
        )


async def test_connect_that_fails_before_a_packet(sockets: Sockets) -> None:
    for source in (Source(ipv4="192.0.2.1"), Source(interface="nosuch0")):
        await sweep(
            lambda source=source: tcp_connect(("127.0.0.1", 9), source=source),  # type: ignore[misc]
            counters=sockets.counters,
            raises=OSError,
        )


@deadlines
async def test_unix_connect_to_a_full_backlog(sockets: Sockets, deadline: Callable[[], int]) -> None:
    with faults.full_unix_backlog() as path:
        await sweep(
            lambda: unix_connect(path, deadline()),
            counters=sockets.counters,
            raises=DeadlineExceeded,
            # Without a deadline it goes on for ever, and parks never for long.
            modes=("neighbour",) if deadline() == -1 else CANCELLING,
        )


@kinds
async def test_connect_and_accept(sockets: Sockets, kind: Kind, modes: tuple[Mode, ...]) -> None:
    async def connect_and_accept(listener: Listener) -> None:
        near = await connect_to(listener)
        async with near, await listener.accept():
            await near.send_all(b"x")

    await sweep(
        connect_and_accept,
        environment=lambda: listening(kind),
        modes=modes,
        counters=sockets.counters,
        inside=False,
    )


@kinds
@deadlines
async def test_accept(sockets: Sockets, kind: Kind, deadline: Callable[[], int], modes: tuple[Mode, ...]) -> None:
    @contextlib.asynccontextmanager
    async def somebody_waits() -> AsyncIterator[Listener]:
        async with listening(kind) as listener, await connect_to(listener):
            yield listener

    await sweep(
        lambda listener: listener.accept(deadline()),
        environment=somebody_waits, modes=modes, counters=sockets.counters, raises=DeadlineExceeded,
    )  # fmt: skip
    async with listening(kind) as listener:
        await sweep(
            lambda: listener.accept(deadline()),
            modes=modes,
            counters=sockets.counters,
            raises=DeadlineExceeded,
        )


async def test_listen(sockets: Sockets) -> None:
    await sweep(lambda: tcp_listen(("127.0.0.1", 0)), counters=sockets.counters)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "socket")

        async def no_path(_: object, step: Step) -> None:
            assert os.listdir(folder) == [], step

        async def dispose(listener: Any) -> None:
            await listener.aclose()

        for mode in (None, 0o600):
            listen = partial(unix_listen, path, mode=mode)
            summary = await sweep(listen, counters=sockets.counters, check=no_path, dispose=dispose)
            assert cancelled(summary)


@kinds
async def test_closing_a_listener(sockets: Sockets, kind: Kind) -> None:
    async def is_closed(listener: Listener, step: Step) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    await sweep(
        lambda listener: listener.aclose(),
        environment=lambda: listening(kind), counters=sockets.counters, check=is_closed,
    )  # fmt: skip


# --- on a stream ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def with_bytes(kind: AnyKind) -> AsyncIterator[AnyStream]:
    """A stream with some bytes in its buffer and some in the kernel, none of which may get lost."""
    near, far = await make_pair(kind)
    await far.send_all(b"ab")
    await near.fill()
    await far.send_all(b"c\r\nd")
    try:
        yield near
    finally:
        near.abort()
        far.abort()


RECEIVES: dict[str, Callable[[AnyStream], Awaitable[Any]]] = {
    "receive_some": lambda stream: stream.receive_some(),
    "receive_exactly": lambda stream: stream.receive_exactly(4),
    "receive_exactly, more than there is": lambda stream: stream.receive_exactly(100),
    "receive_exactly, large": lambda stream: stream.receive_exactly(70_000),
    "receive_into": lambda stream: stream.receive_into(bytearray(5)),
    "receive_into, buffered": lambda stream: stream.receive_into(bytearray(2)),
    "receive_into, more than there is": lambda stream: stream.receive_into(bytearray(100)),
    "receive_until": lambda stream: stream.receive_until(b"\r\n", 10),
    "receive_until, absent": lambda stream: stream.receive_until(b"\n\n", 10),
    "receive_until, too far": lambda stream: stream.receive_until(b"d", 2),
    "fill": lambda stream: stream.fill(),
}


@pytest.mark.parametrize("kind", ANY_KINDS)
@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
async def test_receiving(
    sockets: Sockets, kind: AnyKind, receive: Callable[[AnyStream], Awaitable[object]], modes: tuple[Mode, ...]
) -> None:
    async def nothing_lost(stream: AnyStream, step: Step) -> None:
        if step.ending == "returned":
            return
        left = b""
        with contextlib.suppress(DeadlineExceeded):
            while len(left) < 6:
                left += await stream.receive_some(None, 0)
        assert left == b"abc\r\nd", step

    await sweep(
        receive,
        environment=lambda: with_bytes(kind),
        modes=modes,
        counters=sockets.counters,
        check=nothing_lost,
        raises=OSError,
    )


@overload
def connected(kind: Kind) -> AbstractAsyncContextManager[Stream]: ...


@overload
def connected(kind: Literal["tls"]) -> AbstractAsyncContextManager[TlsStream]: ...


def connected(kind: AnyKind) -> AbstractAsyncContextManager[Any]:
    """A stream that has bytes to receive."""
    return _connected(kind)


@contextlib.asynccontextmanager
async def _connected(kind: AnyKind) -> AsyncIterator[AnyStream]:
    near, far = await make_pair(kind)
    await far.send_all(b"unread")
    try:
        yield near
    finally:
        near.abort()
        far.abort()


SENDS: dict[str, Operation] = {
    "send_all": lambda stream: stream.send_all(b"x"),
    "send_all, more than fits": lambda stream: stream.send_all(bytes(faults.more_than_fits())),
    "send_all, several": lambda stream: stream.send_all([b"x", b"y"]),
    "send_eof": lambda stream: stream.send_eof(),
    "wait_send_all_might_not_block": lambda stream: stream.wait_send_all_might_not_block(),
}


@kinds
@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
async def test_sending(sockets: Sockets, kind: Kind, send: Operation, modes: tuple[Mode, ...]) -> None:
    async def still_usable(stream: Stream, step: Step) -> None:
        assert await stream.receive_exactly(6, 0) == b"unread", step

    await sweep(
        send,
        environment=lambda: connected(kind),
        modes=modes,
        counters=sockets.counters,
        check=still_usable,
    )


@pytest.mark.parametrize("send", ["send_all", "send_all, several", "wait_send_all_might_not_block"])
async def test_sending_over_tls(sockets: Sockets, send: str, modes: tuple[Mode, ...]) -> None:
    """A send that was interrupted has broken the stream, and says so, or it has done nothing."""

    async def still_usable(stream: TlsStream, step: Step) -> None:
        try:
            assert await stream.receive_exactly(6, 0) == b"unread", step
        except trio.BrokenResourceError as exc:
            why = str(exc)
        else:
            return
        assert step.ending != "returned"
        assert "a send was cut short" in why, step

    await sweep(
        cast("Callable[[TlsStream], Awaitable[object]]", SENDS[send]),
        environment=lambda: connected("tls"),
        modes=modes,
        rounds=repeated(1),
        counters=sockets.counters,
        check=still_usable,
    )


async def test_passing_descriptors(sockets: Sockets) -> None:
    async def keep(stream: Any) -> None:
        await stream.send_fd(0)

    async def take(stream: Any) -> None:
        os.close(await stream.receive_fd())

    @contextlib.asynccontextmanager
    async def sent() -> AsyncIterator[Stream]:
        near, far = await make_pair("unix")
        async with near, far:
            await cast("UnixStream", far).send_fd(0)
            yield near

    async def is_still_there(stream: Any, step: Step) -> None:
        if step.ending == "cancelled":
            os.close(await stream.receive_fd(0))

    await sweep(keep, environment=lambda: connected("unix"), counters=sockets.counters)
    await sweep(take, environment=sent, counters=sockets.counters, check=is_still_there)


ENDS: dict[str, Operation] = {
    "aclose": lambda stream: stream.aclose(),
    "close_gracefully": lambda stream: stream.close_gracefully(),
    "close_gracefully, now": lambda stream: stream.close_gracefully(0),
    "aclose_forcefully": trio.aclose_forcefully,
}


@kinds
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_ending(sockets: Sockets, kind: Kind, end: Operation, modes: tuple[Mode, ...]) -> None:
    async def closed(stream: Stream, step: Step) -> None:
        assert stream.fileno() == -1, step
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    try:
        await sweep(
            end,
            environment=lambda: connected(kind),
            modes=modes,
            counters=sockets.counters,
            check=closed,
            raises=DeadlineExceeded,
        )
    except AssertionError as exc:
        # aclose_forcefully is cancelled by itself, and swallows that.
        if end is not trio.aclose_forcefully or "no run was ever cancelled" not in str(exc):
            raise


@pytest.mark.parametrize("end", ["aclose", "aclose_forcefully"])
async def test_ending_over_tls(sockets: Sockets, end: str, modes: tuple[Mode, ...]) -> None:
    async def closed(stream: TlsStream, step: Step) -> None:
        assert stream.fileno() == stream.tcp.fileno() == -1, step
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    try:
        await sweep(
            cast("Callable[[TlsStream], Awaitable[object]]", ENDS[end]),
            environment=lambda: connected("tls"),
            modes=modes,
            rounds=repeated(1),
            counters=sockets.counters,
            check=closed,
        )
    except AssertionError as exc:
        # aclose_forcefully is cancelled by itself, and swallows that.
        if end != "aclose_forcefully" or "no run was ever cancelled" not in str(exc):
            raise


@kinds
async def test_an_echo_from_its_connect_to_its_end(sockets: Sockets, kind: Kind, modes: tuple[Mode, ...]) -> None:
    async def whole(listener: Listener) -> None:
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                async with await listener.accept() as far:
                    await far.send_all(await far.receive_exactly(3))
                    await far.close_gracefully(now() + 5000)

            nursery.start_soon(serve)
            async with await connect_to(listener) as near:
                await near.send_all(b"abc")
                await near.receive_until(b"c", 5)
                with contextlib.suppress(IncompleteRead):
                    await near.receive_exactly(1)

    await sweep(
        whole, environment=lambda: listening(kind), modes=modes, counters=sockets.counters,
        inside=False, raises=(trio.BrokenResourceError, BaseExceptionGroup),  # type: ignore[arg-type]
    )  # fmt: skip
