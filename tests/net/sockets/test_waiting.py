"""Waiting up to a point in time, on its own: what a call got is never lost, and nothing is wrapped in a group."""

from __future__ import annotations

import math
import socket
import sys
from typing import Any

import pytest
import trio
import trio.testing
from trio.lowlevel import checkpoint, wait_readable

from trio_connect._net.sockets.waiting import PASSES, Expired, is_readable, park, within


async def take_passes(count: int, seen: list[int] | None = None) -> str:
    for number in range(count):
        if seen is not None:
            seen.append(number)
        await checkpoint()
    return "done"


async def test_within_no_bound_is_the_call_itself(autojump_clock: trio.testing.MockClock) -> None:
    assert await within(math.inf, take_passes, 3) == "done"
    assert await within(trio.current_time() + 1, take_passes, 3) == "done"
    with pytest.raises(Expired):
        await within(trio.current_time() + 1, trio.sleep_forever)
    assert trio.current_time() == pytest.approx(1)


@pytest.mark.parametrize("past", [-math.inf, 0.0])
async def test_within_the_past_there_are_some_passes(mock_clock: trio.testing.MockClock, past: float) -> None:
    for count in range(PASSES - 1):
        assert await within(past, take_passes, count) == "done"
    seen: list[int] = []
    with pytest.raises(Expired):
        await within(past, take_passes, 100, seen)
    assert PASSES - 1 <= len(seen) <= PASSES + 1


@pytest.mark.parametrize("until", [-math.inf, math.inf])
@pytest.mark.parametrize("error", [OSError, ZeroDivisionError, KeyboardInterrupt, SystemExit, Expired])
async def test_what_a_call_raises_is_raised_as_it_is(until: float, error: type[BaseException]) -> None:
    async def fail() -> None:
        await checkpoint()
        raise error

    with pytest.raises(error) as caught:
        await within(until, fail)
    assert type(caught.value) is error


async def test_what_a_call_got_survives_a_cancel_in_the_same_pass() -> None:
    async def finish_while_cancelled(scope: trio.CancelScope) -> str:
        await checkpoint()
        scope.cancel()
        return "got"

    with trio.CancelScope() as scope:
        assert await within(-math.inf, finish_while_cancelled, scope) == "got"
    assert scope.cancel_called
    assert not scope.cancelled_caught


async def test_an_outer_cancel_is_no_group_and_beats_expiry() -> None:
    for count in range(PASSES + 2):
        caught: Any = None
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(count: int = count, scope: trio.CancelScope = scope) -> None:
                    await take_passes(count)
                    scope.cancel()

                nursery.start_soon(cancel)
                try:
                    await within(-math.inf, trio.sleep_forever)
                except BaseException as exc:
                    caught = type(exc)
                    if caught is not Expired:
                        raise
                nursery.cancel_scope.cancel()
        assert caught is trio.Cancelled or (caught is Expired and count >= PASSES - 1)


async def test_an_already_cancelled_caller_is_cancelled() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await within(-math.inf, trio.sleep_forever)
    assert scope.cancelled_caught


async def test_park_says_what_came_first() -> None:
    left, right = socket.socketpair()
    with left, right:
        for until in (-math.inf, 0.0, trio.current_time() - 1, trio.current_time() + 0.01):
            with trio.testing.assert_checkpoints():
                assert not await park(wait_readable, left.fileno(), until)
        right.send(b"x")
        for until in (math.inf, trio.current_time() + 10):
            assert await park(wait_readable, left.fileno(), until)
        with trio.CancelScope() as scope:
            scope.cancel()
            await park(wait_readable, left.fileno(), -math.inf)
        assert scope.cancelled_caught


@pytest.mark.skipif(sys.platform == "win32", reason="Windows numbers its sockets otherwise")
def test_a_descriptor_of_any_number_can_be_asked_whether_it_is_readable() -> None:
    import fcntl
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[0] != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(2048, before[0]), before[1]))
    near, far = socket.socketpair()
    try:
        with near, far, socket.socket(fileno=fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, 1500)) as high:
            assert not is_readable(high.fileno())
            far.send(b"x")
            assert is_readable(high.fileno())
            assert high.recv(1) == b"x"
            far.close()
            assert is_readable(high.fileno())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
