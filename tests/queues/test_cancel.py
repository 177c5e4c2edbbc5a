"""A cancel at every step: no result is lost, every socket is closed, nothing stays behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio

from tests.queues.kit import LOOPBACK, Switch, listening, pair, where
from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.scripted import IN_PROGRESS, passes, script
from tests.support.sockets import Sockets
from tests.support.sweep import Step, sweep
from trio_connect import now
from trio_connect._net.reactor.reactor import Reactor
from trio_connect._net.sockets import kernel_socket as raw
from trio_connect.queues import QResult, QToken, QueueSet, open_queue_set
from trio_connect.queues._channel import Channel, ReactorLane
from trio_connect.queues._connecting import TcpConnect


@attrs.define
class Surroundings:
    """A set that outlives the waiter, with tokens some of which complete while it waits."""

    qs: QueueSet
    switch: Switch
    tokens: list[QToken[Any]]


@contextlib.asynccontextmanager
async def one_finishes() -> AsyncIterator[Surroundings]:
    async with open_queue_set() as qs, trio.open_nursery() as nursery:
        switch = Switch(qs)
        tokens = [await switch.token() for _ in range(3)]
        nursery.start_soon(switch.complete, tokens[1])
        yield Surroundings(qs, switch, tokens)
        nursery.cancel_scope.cancel()


async def wait(near: Surroundings) -> list[QResult[Any]]:
    return [await near.qs.wait(near.tokens[1])]


async def wait_any(near: Surroundings) -> list[QResult[Any]]:
    return [(await near.qs.wait_any(near.tokens))[1]]


async def wait_next(near: Surroundings) -> list[QResult[Any]]:
    return await near.qs.wait_next(1)


async def wait_for_a_batch(near: Surroundings) -> list[QResult[Any]]:
    # A batch that never comes. Each wait ends at its deadline, with nothing where the one result was too slow.
    while not (results := await near.qs.wait_next(3, now() + 30)):
        pass
    return results


async def completions(near: Surroundings) -> list[QResult[Any]]:
    async for result in near.qs.completions():
        return [result]
    raise AssertionError


@pytest.mark.parametrize("operation", [wait, wait_any, wait_next, wait_for_a_batch, completions])
async def test_a_waiter_cancelled_at_any_step_loses_no_result(operation):
    async def check(near: Surroundings, step: Step) -> None:
        with trio.fail_after(5):
            while not near.tokens[1].done:
                await trio.lowlevel.checkpoint()
        if step.ending == "cancelled":
            # Nobody holds anything any more, and the result is there for whoever asks.
            assert near.qs.in_flight == 3
            assert (await near.qs.wait(near.tokens[1], 0)).ok
        else:
            assert near.qs.in_flight == 2
        for token in (near.tokens[0], near.tokens[2]):
            assert not token.done

    async def keep(_: object) -> None:
        pass

    await sweep(operation, environment=one_finishes, check=check, dispose=keep, inside=False)


async def room(near: Surroundings) -> None:
    await near.qs.room(4094)


async def test_who_waits_for_room_leaves_no_trace():
    async def check(near: Surroundings, step: Step) -> None:
        with trio.fail_after(5):
            await near.qs.room(1)

    await sweep(room, environment=one_finishes, check=check, inside=False)


async def everything(peer: faults.Peer) -> None:
    """One operation of each kind, some of them pending for good, in a set that the sweep cancels."""
    with faults.black_hole() as nowhere, faults.refusing() as closed:
        async with open_queue_set() as qs:
            near, far = await pair(qs)
            qs.stream().connect(nowhere.pair)
            qs.stream().connect(closed.pair)
            qs.connectx([closed.pair, peer.address.pair])
            bound = qs.stream()
            await bound.bind(LOOPBACK)
            bound.connect(peer.address.pair)
            datagram = qs.datagram()
            datagram.push_to(b"x", ("127.0.0.1", 1))
            datagram.pop()
            listener = await listening(qs)
            listener.accept()
            listener.accept()
            connect = qs.stream().connect(where(listener))
            near.push(bytes(100_000))
            far.pop(10)
            await qs.wait(connect)
            near.close()
            await far.aclose()
            while not await qs.wait_next(5, now() + 30):
                pass
            async for _ in qs.completions():
                pass


async def test_a_set_cancelled_at_any_step_leaves_nothing(sockets: Sockets, modes):
    await sweep(everything, environment=faults.echoing, modes=modes, counters=sockets.counters)


async def closing(qs: QueueSet) -> None:
    near, far = await pair(qs)
    pops = [near.pop() for _ in range(2)]
    far.push(bytes(100_000))
    await trio.lowlevel.checkpoint()
    try:
        await near.aclose()
    finally:
        assert near.state == "closed"
        assert all(pop.done for pop in pops)


async def test_an_aclose_cancelled_at_any_step_closes_all_the_same(sockets: Sockets, modes):
    await sweep(closing, environment=open_queue_set, modes=modes, counters=sockets.counters, inside=False)


async def binding(qs: QueueSet) -> None:
    for queue in (qs.stream(), qs.datagram()):
        await queue.bind(LOOPBACK)
        if queue.local is not None:
            await queue.aclose()


async def test_a_bind_cancelled_at_any_step_leaves_nothing(sockets: Sockets):
    await sweep(binding, environment=open_queue_set, counters=sockets.counters)


async def test_a_success_that_comes_with_the_cancel_is_a_success_or_closed(sockets: Sockets):
    """In the step in which it is cancelled, an operation may have got what nobody else can get again."""
    for turn in range(30):
        async with open_queue_set() as qs:
            listener = await listening(qs)
            accept, connect = listener.accept(), qs.stream().connect(where(listener))
            for _ in range(turn % 5):
                await trio.lowlevel.checkpoint()
            accept.cancel()
            assert (await qs.wait(connect)).ok
            result = await qs.wait(accept)
            if result.ok:
                assert result.unwrap().queue.state == "connected"
            else:
                assert result.errno == errno.ECANCELED
                # It was not accepted: the next accept gets it.
                assert (await qs.wait(listener.accept())).ok


@pytest.mark.parametrize("heard", [0, errno.ECONNREFUSED], ids=["connected", "refused"])
@pytest.mark.parametrize("ending", ["cancel", "close"])
async def test_a_cancel_in_the_pass_of_a_connect_counts(monkeypatch, heard, ending):
    (sock,) = script(monkeypatch, [IN_PROGRESS, heard])
    async with no_leaks(), open_queue_set() as qs:
        queue = qs.stream()
        token = queue.connect(("127.0.0.1", 9))
        sock.on_connect = token.cancel if ending == "cancel" else queue.close
        result = await qs.wait(token, now() + 5_000)
        assert result.errno == errno.ECANCELED
        assert len(sock.asked_at) == 1


async def test_a_connect_takes_a_pass_before_its_look_and_then_waits_for_nothing(monkeypatch):
    (sock,) = script(monkeypatch, [IN_PROGRESS, 0])
    monkeypatch.delattr(raw, "wait_writable")
    async with open_queue_set() as qs:
        with passes():
            result = await qs.wait(qs.stream().connect(("127.0.0.1", 9)), now() + 5_000)
        assert result.ok
        began, looked = sock.asked_at
        assert looked == began + 1


@pytest.mark.parametrize("turns", range(5))
async def test_a_close_that_nothing_has_begun_when_the_set_is_cancelled_completes(turns):
    async with no_leaks():
        with trio.CancelScope() as scope:
            async with open_queue_set() as qs:
                near, far = await pair(qs)
                far.pop()
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
                with trio.CancelScope(shield=True), trio.fail_after(5):
                    assert (await qs.wait(near.close())).ok


@pytest.mark.parametrize("turns", range(5))
async def test_what_is_pending_when_its_set_ends_leaves_no_cycle(turns, sockets: Sockets):
    async def leave() -> list[QToken[Any]]:
        async with open_queue_set() as qs:
            listener = await listening(qs)
            near, far = await pair(qs)
            tokens: list[QToken[Any]] = [listener.accept(), listener.accept(), near.pop(), near.pop()]
            tokens += [far.push(bytes(1 << 24)), far.push(b"behind")]
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            return [*tokens, qs.stream().connect(("127.0.0.1", 9)), far.pop(), near.push(b"x")]

    gc.collect()
    gc.disable()
    try:
        tokens = await leave()
        if sys.version_info >= (3, 12):
            # There a nursery that has cancelled its tasks leaves the frames of its end in a cycle.
            gc.collect()
        held = [each for each in gc.get_objects() if isinstance(each, TcpConnect | Channel | ReactorLane | Reactor)]
        assert held == []
        assert all(token.done for token in tokens)
    finally:
        gc.enable()
