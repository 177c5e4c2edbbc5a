"""now, msleep, fdin, fdout, fdclean."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import trio
import trio.testing

from tests.libdill.kit import fails
from tests.support.leaks import no_leaks
from trio_connect import DeadlineExceeded
from trio_connect import libdill as dill


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


async def test_msleep_succeeds_when_the_deadline_comes(autojump_clock):
    deadline = dill.now() + 1000
    assert await dill.msleep(deadline) == 0
    assert dill.now() == deadline


@pytest.mark.parametrize("deadline", [0, 1])
async def test_msleep_until_the_past_gives_others_a_turn(mock_clock, deadline):
    mock_clock.jump(10)
    before = dill.now()
    with trio.testing.assert_checkpoints():
        assert await dill.msleep(deadline) == 0
    assert dill.now() == before


async def test_msleep_without_a_deadline_sleeps_until_cancelled(autojump_clock):
    with trio.move_on_after(1000) as scope:
        await dill.msleep(-1)
    assert scope.cancelled_caught


async def test_a_deadline_holds_while_another_task_spins():
    """libdill polls only once a second then: `msleep(+20)` took 1004 ms."""

    async def spin() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(spin)
        started = dill.now()
        await dill.msleep(started + 20)
        assert 20 <= dill.now() - started < 900
        nursery.cancel_scope.cancel()


async def test_fd_that_is_ready_beats_its_deadline(pair):
    one, other = pair
    other.send(b"x")
    for deadline in (0, 1, -1):
        for call in (dill.fdin, dill.fdout):
            with trio.testing.assert_checkpoints():
                assert await call(one.fileno(), deadline) == 0


async def test_fd_that_is_not_ready(pair):
    one, other = pair
    with pytest.raises(BlockingIOError):
        while True:
            one.send(bytes(65536))
    for deadline in (0, 1, dill.now() + 20):
        for call in (dill.fdin, dill.fdout):
            with fails(errno.ETIMEDOUT) as caught:
                await call(one.fileno(), deadline)
            assert isinstance(caught.value, DeadlineExceeded)
    assert dill.fdclean(one.fileno()) == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dill.fdin, one.fileno(), -1)
        nursery.start_soon(dill.fdout, one.fileno(), dill.now() + 10_000)
        await trio.testing.wait_all_tasks_blocked()
        other.send(b"x")
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.recv(65536)


async def test_past_deadline_lets_others_run_and_looks_again(pair):
    one, other = pair

    async def write() -> None:
        other.send(b"x")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        assert await dill.fdin(one.fileno(), 0) == 0


async def test_the_end_counts_as_ready(pair):
    one, other = pair
    other.close()
    assert await dill.fdin(one.fileno(), 0) == 0
    assert await dill.fdout(one.fileno(), 0) == 0


@pytest.mark.parametrize(("call", "other_call"), [(dill.fdin, dill.fdout), (dill.fdout, dill.fdin)])
async def test_one_waiter_per_direction(pair, call, other_call):
    one, _ = pair
    with pytest.raises(BlockingIOError):
        while True:
            one.send(bytes(65536))
    fd = one.fileno()
    async with no_leaks(), trio.open_nursery() as nursery:
        nursery.start_soon(call, fd, -1)
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints(), fails(errno.EBUSY):
            await call(fd, -1)
        with fails(errno.EBUSY):
            dill.fdclean(fd)
        with fails(errno.ETIMEDOUT):
            await other_call(fd, 0)
        nursery.cancel_scope.cancel()
    assert dill.fdclean(fd) == 0


async def test_a_waiter_of_trios_own_counts_too(pair):
    one, _ = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.wait_readable, one)
        await trio.testing.wait_all_tasks_blocked()
        with fails(errno.EBUSY):
            await dill.fdin(one.fileno(), -1)
        nursery.cancel_scope.cancel()


async def test_closing_wakes_the_waiter_with_ebadf(pair):
    one, _ = pair

    async def wait() -> None:
        with fails(errno.EBADF):
            await dill.fdin(one.fileno(), -1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(one)


async def test_what_cannot_be_waited_for(tmp_path):
    numbers = [os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)]
    numbers.append(os.open(os.devnull, os.O_RDWR))
    for fd in numbers:
        for call in (dill.fdin, dill.fdout):
            with trio.testing.assert_checkpoints(), fails(errno.ENOTSUP):
                await call(fd, -1)
        os.close(fd)
    for fd in (*numbers, -1, 1 << 40):
        for call in (dill.fdin, dill.fdout):
            with trio.testing.assert_checkpoints(), fails(errno.EBADF):
                await call(fd, -1)
        with fails(errno.EBADF):
            dill.fdclean(fd)
    for wrong in (True, None, "0"):
        for call in (dill.fdin, dill.fdout):
            with pytest.raises(TypeError):
                await call(wrong, -1)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            dill.fdclean(wrong)  # type: ignore[arg-type]


async def test_pipes_and_event_descriptors_can_be_waited_for():
    reading, writing = os.pipe()
    assert await dill.fdout(writing, 0) == 0
    os.close(writing)
    assert await dill.fdin(reading, 0) == 0
    os.close(reading)
    fd = os.eventfd(1)
    assert await dill.fdin(fd, 0) == 0
    os.close(fd)
