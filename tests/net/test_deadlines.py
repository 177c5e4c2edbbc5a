"""Deadlines of every call that may wait: 0, past, to come, none, and beside the caller's own scopes."""

from __future__ import annotations

import contextlib
import errno
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

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
    connect_to,
    in_time,
    listening,
    make_pair,
    pair,
)
from trio_connect import IMMEDIATE, DeadlineExceeded, now, tcp_connect, unix_connect
from trio_connect._deadline import to_seconds

Call: TypeAlias = Callable[[int], Awaitable[Any]]

# More than the kernel takes on both sides together while nobody reads.
HUGE = bytes(faults.more_than_fits())

SENDS = {
    "send_all": lambda stream, deadline: stream.send_all(HUGE, deadline),
    "send_all, several": lambda stream, deadline: stream.send_all([HUGE, b"x"], deadline),
}
ENDS = {"close_gracefully": lambda stream, deadline: stream.close_gracefully(deadline)}

OPERATIONS = [
    pytest.param(kind, name, id=f"{kind} {name}")
    for kind in ANY_KINDS
    for name in (*RECEIVES, *SENDS, *(() if kind == "tls" else ("connect", "accept", *ENDS)))
]


def works_once(kind: AnyKind, name: str) -> bool:
    """Whether nothing more can be done with a stream on which this has timed out."""
    return name in ENDS or (kind == "tls" and name in SENDS)


@contextlib.asynccontextmanager
async def stuck(kind: AnyKind, name: str) -> AsyncIterator[Call]:
    """An operation that cannot get on, whatever its deadline."""
    async with contextlib.AsyncExitStack() as stack:
        if name == "connect" and kind == "tcp":
            hole = stack.enter_context(faults.black_hole())
            yield lambda deadline: tcp_connect(hole.pair, deadline)
        elif name == "connect":
            path = stack.enter_context(faults.full_unix_backlog())
            yield lambda deadline: unix_connect(path, deadline)
        elif name == "accept":
            assert kind != "tls"
            listener = await stack.enter_async_context(listening(kind))
            yield listener.accept
        else:
            near, far = await make_pair(kind)
            stack.callback(near.abort)
            stack.callback(far.abort)
            call = {**RECEIVES, **SENDS, **ENDS}[name]
            yield lambda deadline: call(near, deadline)


@pytest.mark.parametrize(("kind", "name"), OPERATIONS)
async def test_a_deadline_that_comes_too_early(
    sockets: Sockets, kind: AnyKind, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with no_leaks(counters=sockets.counters), stuck(kind, name) as call:
        # Closing happens once: the last case is what is left for it.
        cases = [lambda: 0, now, lambda: now() - 5, lambda: now() + 30]
        for deadline in cases[-1:] if works_once(kind, name) else cases:
            until = deadline()
            started = trio.current_time()
            late = 0 < until <= now()
            text = "did not begin: its deadline came " if late else "had no result by its deadline, after "
            with pytest.raises(DeadlineExceeded, match=text) as caught:
                await call(until)
            elapsed = trio.current_time() - started
            assert caught.value.errno == errno.ETIMEDOUT
            assert trio.current_time() >= to_seconds(until), "before its time"
            assert elapsed < 10, "held past its deadline"
            del caught


@pytest.mark.parametrize(("kind", "name"), OPERATIONS)
async def test_at_the_same_instant_the_outer_scope_wins(
    sockets: Sockets, kind: AnyKind, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with no_leaks(counters=sockets.counters), stuck(kind, name) as call:
        for ahead in (0.02,) if works_once(kind, name) else (-1, 0, 0.02):
            until = now() + int(ahead * 1000)
            with trio.CancelScope(deadline=to_seconds(until)) as scope:
                await call(until)
            assert scope.cancelled_caught


@pytest.mark.parametrize(("kind", "name"), OPERATIONS)
async def test_a_scope_moved_later_leaves_ours_holding(
    sockets: Sockets, kind: AnyKind, name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with no_leaks(counters=sockets.counters), stuck(kind, name) as call:
        until = now() + 200
        ended = []
        with trio.CancelScope(deadline=to_seconds(until) - 0.01) as scope:
            async with trio.open_nursery() as nursery:

                async def operation() -> None:
                    with pytest.raises(DeadlineExceeded):
                        await call(until)
                    ended.append(trio.current_time())

                nursery.start_soon(operation)
                await trio.testing.wait_all_tasks_blocked()
                scope.deadline = math.inf
        assert not scope.cancelled_caught
        assert ended[0] >= to_seconds(until)


@pytest.mark.parametrize(("kind", "name"), OPERATIONS)
async def test_bad_deadlines(sockets: Sockets, kind: AnyKind, name: str) -> None:
    async with pair(kind) as (near, _), listening("tcp" if kind == "tls" else kind) as listener:
        created = sockets.factory.created if sockets.factory else 0
        calls: dict[str, Callable[[Any], Any]] = {
            "connect": lambda value: connect_to(listener, value),
            "accept": listener.accept,
        }
        operations = {**RECEIVES, **SENDS, **ENDS}
        call = calls.get(name) or (lambda value: operations[name](near, value))
        for deadline in (True, 1.5, None, math.nan, "1", -2, 1, 2000):
            error = ValueError if type(deadline) is int else TypeError
            with pytest.raises(error, match="a deadline is") as caught:
                await call(deadline)
            assert repr(deadline) in str(caught.value)
            assert near.fileno() != -1, f"{deadline!r}: a bad deadline closed the stream"
            assert (sockets.factory.created if sockets.factory else 0) == created, repr(deadline)


# --- ready beats expired ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
async def test_connect_now_or_never(sockets: Sockets, family: socket.AddressFamily) -> None:
    async with no_leaks(counters=sockets.counters), faults.echoing(family) as peer:
        with faults.refusing(family) as closed, faults.black_hole(family) as hole:
            for _ in range(20):
                async with await in_time(lambda: tcp_connect(peer.address.pair, IMMEDIATE)) as stream:
                    await stream.send_all(b"x", IMMEDIATE)
                    assert await stream.receive_some() == b"x"
                with pytest.raises(ConnectionRefusedError):
                    await in_time(lambda: tcp_connect(closed.pair, IMMEDIATE))
                with pytest.raises(DeadlineExceeded) as caught:
                    await tcp_connect(hole.pair, IMMEDIATE)
                assert caught.value.report is not None
                (attempt,) = caught.value.report.attempts
                assert (attempt.endpoint.port, attempt.outcome) == (hole.port, "cancelled")
                assert f"{hole.host}" in str(caught.value)
                del caught, attempt


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_ready_is_given_at_deadline_0(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        for name, receive in RECEIVES.items():
            near = await connect_to(listener, 0)
            far = await listener.accept(0)
            sent = bytes(100_000) if "large" in name else b"a\r\n"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, sent)
                while far.buffered < len(sent):
                    await far.fill()
            # Through the kernel again, not only from the buffer.
            assert far.take(len(sent)) == sent
            await near.send_all(b"b\r\n")
            with contextlib.suppress(DeadlineExceeded):
                assert await receive(far, 0)
            assert far.buffered == (3 if name in ("fill", "receive_exactly, large") else 0)
            await near.aclose()
            if name == "receive_exactly, large":
                assert far.take(3) == b"b\r\n"
            await far.close_gracefully(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_floods_cannot_hold_a_call_past_its_deadline(sockets: Sockets, kind: Kind) -> None:
    near, far = await make_pair(kind)

    async def flood() -> None:
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            while True:
                await far.send_all(bytes(1 << 20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        for call in (
            lambda d: near.receive_until(b"\r\n", (1 << 40) - 1, d),
            near.close_gracefully,
        ):
            until = now() + 50
            with trio.fail_after(20), pytest.raises(DeadlineExceeded):
                await call(until)
            assert trio.current_time() >= to_seconds(until)
            assert now() - until < 2000
        assert near.fileno() == -1
        far.abort()


async def test_a_send_that_times_out_says_how_much_went(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), pair("unix") as (near, far):
        data = bytes(range(256)) * 20_000
        with pytest.raises(DeadlineExceeded) as caught:
            await near.send_all(data, 0)
        sent = caught.value.transferred
        assert 0 < sent < len(data)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, data[sent:])
            assert await far.receive_exactly(len(data)) == data


async def test_a_receive_that_times_out_says_how_much_came(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        await near.send_all(b"ab")
        for name in ("receive_exactly", "receive_into", "receive_exactly, large", "receive_until"):
            with pytest.raises(DeadlineExceeded) as caught:
                await RECEIVES[name](far, 0)
            assert caught.value.transferred == 2
            assert far.buffered == 2
        await near.send_all(b"\r\n")
        assert await far.receive_until(b"\r\n", 2) == b"ab"
