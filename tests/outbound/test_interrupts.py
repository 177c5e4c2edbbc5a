"""Ctrl-C at any line of an outbound: it is heard, and no place, task or socket is lost."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from socket import AF_INET, AddressFamily
from typing import Any

import pytest
import trio

from tests.net.test_interrupts import interrupt_at
from tests.outbound.kit import rules
from tests.support import faults
from tests.support.leaks import no_leaks
from trio_connect import Answer, TcpStream
from trio_connect.momentum import initiate_connection
from trio_connect.outbound import Candidate, Destination, FileStore, Outbound, Rate, open_outbound

FEW = 20
"""Any of these has more lines than that; a sweep that finds fewer has not looked."""


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def connecting(_out: Outbound, destination: Destination) -> None:
    async with destination.connect():
        pass


async def establishing(_out: Outbound, destination: Destination) -> None:
    async def establish(_stream: TcpStream) -> int:
        await trio.lowlevel.checkpoint()
        return 3

    async with destination.try_connect(establish=establish) as connection:
        connection.overloaded(0.001)


async def permitted(_out: Outbound, destination: Destination) -> None:
    async with destination.permit():
        pass
    with suppress(OSError):
        async with destination.permit():
            raise OSError("it failed")
    async with destination.permit() as permit:
        permit.overloaded(0.001)
    destination.reset()


async def waiting(_out: Outbound, destination: Destination) -> None:
    async def hold() -> None:
        async with destination.permit():
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hold)


async def refused(_out: Outbound, destination: Destination) -> None:
    async with destination.permit():
        with suppress(Exception):
            async with destination.try_connect():
                pass
        destination.snapshot()


async def by_callback(out: Outbound, destination: Destination) -> None:
    done = trio.Event()

    def finish(_handle: Any, _user_data: Any) -> None:
        done.set()

    handle = initiate_connection(out, destination, None, finish, finish, None)
    await done.wait()
    handle.close()
    await trio.lowlevel.checkpoint()


USES: list[Callable[[Outbound, Destination], Awaitable[None]]] = [
    connecting,
    establishing,
    permitted,
    waiting,
    refused,
    by_callback,
]


EVERY_LINE = pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])


@pytest.mark.parametrize("stride", [37, EVERY_LINE])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_an_interrupt_at_any_line_is_heard_and_loses_no_place(use: Any, stride: int) -> None:
    heard: list[bool] = []

    async def main(line: int) -> int:
        seen = [0]
        async with faults.echoing() as peer, no_leaks():
            candidates = [Candidate(peer.address.pair, max_connections=2, rate=Rate(1000, burst=1000))]
            destination = None
            try:
                async with open_outbound(policy=rules(max_connections=1, total_connections=1)) as out:
                    destination = out.destination("a", candidates=candidates)
                    with interrupt_at(line, seen):
                        await use(out, destination)
                    await trio.lowlevel.checkpoint()
                heard.append(False)
            except KeyboardInterrupt:
                heard.append(True)
            except BaseExceptionGroup as group:  # a nursery has wrapped it
                if group.split(KeyboardInterrupt)[1] is not None:
                    raise
                heard.append(True)
            assert destination is not None
            snapshot = destination.snapshot()
            assert snapshot.waiting == 0
            assert {limit.name: limit.held for limit in snapshot.limits if limit.held} == {}
            assert destination._state.busy == 0
        return seen[0]

    line = stride
    while trio.run(main, line) >= line:
        line += stride
    assert line > FEW
    assert len(heard) > 1
    assert all(heard[:-1])


def test_an_interrupt_at_any_line_of_leaving_an_outbound_closes_its_store(tmp_path: Path) -> None:
    async def main(line: int) -> int:
        seen = [0]
        store = FileStore(tmp_path / "store")
        async with no_leaks():
            with suppress(KeyboardInterrupt):
                async with AsyncExitStack() as stack:
                    out = await stack.enter_async_context(open_outbound(policy=rules(max_connections=1), store=store))
                    async with out.destination("a").permit():
                        pass
                    leaving = stack.pop_all()
                with interrupt_at(line, seen):
                    await leaving.aclose()
                await trio.lowlevel.checkpoint()
        return seen[0]

    line = 1
    while trio.run(main, line) >= line:
        line += 1
    assert line > 5


def test_an_interrupt_in_an_observer_is_heard_and_loses_no_place() -> None:
    for turn in range(1, 4):
        told = 0

        def observer(_event: Any) -> None:
            nonlocal told
            told += 1
            if told == turn:  # noqa: B023
                signal.raise_signal(signal.SIGINT)

        async def main() -> None:
            async with faults.echoing() as peer, no_leaks(), open_outbound(observer=observer) as out:
                destination = out.destination("a", candidates=[peer.address.pair])
                with pytest.raises(KeyboardInterrupt):
                    async with destination.connect() as connection:
                        connection.overloaded(1)
                assert {limit.held for limit in destination.snapshot().limits} == {0}

        trio.run(main)


def test_an_interrupt_in_a_lookup_of_an_outbound_comes_as_itself() -> None:
    """The lookup runs in a task of the block, whose nursery raises a group."""

    class Interrupted:
        async def addresses(self, _host: str, family: AddressFamily, /) -> Answer:
            if family == AF_INET:
                signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
            raise AssertionError("it goes on")

    async def main() -> None:
        async with no_leaks():
            with pytest.raises(KeyboardInterrupt):
                async with (
                    open_outbound(resolver=Interrupted()) as out,
                    out.destination("api.test", port=443).connect(),
                ):
                    raise AssertionError("connected")

    trio.run(main)
