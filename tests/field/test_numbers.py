"""Reports from the field, 26 to 29: deadlines, durations and sizes that look alike, and numbers that overflow."""

from __future__ import annotations

import errno
import math

import pytest
import trio
import trio.testing

from tests.support.streams import pair
from trio_connect import (
    NO_DEADLINE,
    DeadlineExceeded,
    RacePolicy,
    connect,
    connectx,
    deadline_after,
    fail_at,
    libdill,
    move_on_at,
    now,
    resolve,
    tcp_connect,
    tcp_listen,
    unix_connect,
)

SILENT = ("192.0.2.1", 443)


def test_field_26_now_counts_from_far_away() -> None:
    """now() counts from 2**40 + 2**32 under a fresh MockClock too, so that a moment ago is a deadline."""

    async def main() -> None:
        assert now() == 2**40 + 2**32 + 1
        await trio.sleep(1.5)
        assert now() == 2**40 + 2**32 + 1501

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    "call",
    [
        lambda deadline: tcp_connect(SILENT, deadline),
        lambda deadline: connectx([SILENT], deadline),
        lambda deadline: connect("192.0.2.1", 443, deadline),
        lambda deadline: connect("name.test", 443, deadline),
        lambda deadline: resolve("name.test", 443, deadline),
        lambda deadline: unix_connect("/nowhere", deadline),
    ],
    ids=["tcp_connect", "connectx", "connect literal", "connect", "resolve", "unix_connect"],
)
async def test_field_26_a_duration_is_no_deadline(call, autojump_clock) -> None:
    """A connect with 2000 for its deadline says that now() + 2000 was meant, in virtual time too."""
    for duration in (1, 2000, 2**40 - 1):
        with pytest.raises(ValueError, match=rf"a deadline is a point in time: now\(\) \+ {duration}, got {duration}"):
            await call(duration)


@pytest.mark.parametrize(
    "receive",
    [
        lambda stream, size: stream.receive_until(b"\n", size),
        lambda stream, size: stream.receive_some(size),
        lambda stream, size: stream.receive_exactly(size),
    ],
    ids=["receive_until", "receive_some", "receive_exactly"],
)
async def test_field_26_a_deadline_is_no_size(receive) -> None:
    """A deadline in the place of a size is refused at the call, instead of a receive that hangs for ever."""
    async with pair("tcp") as (near, _):
        for size in (now() + 50, 2**40):
            with (
                trio.fail_after(5),
                pytest.raises(ValueError, match=rf"must be below 2\*\*40, got {size}: a deadline\?"),
            ):
                await receive(near, size)
        with pytest.raises(ValueError, match=r"n must be below 2\*\*40, got \d+: a deadline\?"):
            near.take(now() + 50)


@pytest.mark.parametrize("name", ["attempt_delay", "resolution_delay"])
def test_field_26_a_delay_of_milliseconds_is_no_delay(name: str) -> None:
    """attempt_delay=250 says that it is in seconds and that milliseconds were probably meant."""
    RacePolicy(**{name: 30})
    text = f"{name} must be at most 30 seconds, got .*milliseconds were probably meant"
    for value in (30.001, 250, 10**300):
        with pytest.raises(ValueError, match=text):
            RacePolicy(**{name: value})  # type: ignore[arg-type]
    assert RacePolicy(attempt_delay=math.inf).attempt_delay == math.inf


async def test_field_26_libdill_asks_for_one_try() -> None:
    """In the libdill layer a small positive deadline is libdill's single try, as ever."""
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        address = libdill.ipaddr()
        libdill.ipaddr_local(address, "127.0.0.1", listener.endpoint.port, 0)
        for deadline in (1, 2000, now() - 1000):
            handle = await libdill.tcp_connect(address, deadline)
            with pytest.raises(TimeoutError) as caught:
                await libdill.brecv(handle, bytearray(1), 1, deadline)
            assert caught.value.errno == errno.ETIMEDOUT
            libdill.hclose(handle)


async def test_field_28_deadlines_and_scopes(autojump_clock) -> None:
    """fail_at, move_on_at and deadline_after lead from deadlines to cancel scopes and from seconds to deadlines."""
    deadline = deadline_after(0.25)
    assert deadline == now() + 250
    assert deadline_after(None) == deadline_after(math.inf) == NO_DEADLINE
    with move_on_at(deadline) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert now() == deadline
    with pytest.raises(DeadlineExceeded), fail_at(now() + 10):
        await trio.sleep_forever()
    with pytest.raises(TimeoutError), fail_at(0):
        await trio.lowlevel.checkpoint()
    for scoped in (move_on_at, fail_at):
        with scoped(NO_DEADLINE):
            await trio.sleep(10**6)
