"""`connect_each`: one result for each endpoint, in the order of completion, bounded, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import math
import resource
import socket
import struct
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.paths import PATHS, over, without_reactor
from tests.support.scripted import IN_PROGRESS, script
from tests.support.sockets import PassThroughFactory, PassThroughSocket, Sockets
from tests.support.sweep import sweep
from trio_connect import (
    DeadlineExceeded,
    Endpoint,
    SocketOptions,
    Source,
    TcpStream,
    connect_each,
    now,
    tcp_connect,
)
from trio_connect._net.connect_each import EachAttempt
from trio_connect._net.reactor.reactor import Reactor

LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture(params=PATHS)
async def sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sockets]:
    with over(request.param, monkeypatch) as opened:
        yield opened


@contextlib.contextmanager
def listening(backlog: int = 4096) -> Iterator[Endpoint]:
    with socket.create_server(LOOPBACK, backlog=backlog) as server:
        yield Endpoint(*server.getsockname())


async def results(*arguments: Any, **options: Any) -> list[tuple[Endpoint, TcpStream | OSError]]:
    found: list[tuple[Endpoint, TcpStream | OSError]] = []
    async with connect_each(*arguments, **options) as each:
        async for endpoint, outcome in each:
            if isinstance(outcome, TcpStream):
                await outcome.aclose()
            found.append((endpoint, outcome))
    return found


# --- results ----------------------------------------------------------------------------------------------------------


async def test_each_endpoint_has_one_result(sockets: Sockets):
    with listening() as open_, faults.refusing() as closed:
        async with no_leaks(counters=sockets.counters):
            endpoints = [open_, closed.pair, (open_.host, open_.port), open_]
            found = await results(endpoints)
            assert len(found) == 4
            streams = [outcome for _, outcome in found if isinstance(outcome, TcpStream)]
            assert len(streams) == 3
            (error,) = [outcome for _, outcome in found if isinstance(outcome, OSError)]
            assert isinstance(error, ConnectionRefusedError)
            assert f"connect to {closed.host}:{closed.port}" in str(error)
            assert (error.__traceback__, error.__context__) == (None, None)
            assert all(isinstance(endpoint, Endpoint) for endpoint, _ in found)


async def test_a_stream_is_an_ordinary_one_and_outlives_the_block(sockets: Sockets):
    async with faults.echoing() as peer:
        async with connect_each([peer.address.pair]) as each:
            endpoint, stream = await anext(each)
            assert isinstance(stream, TcpStream)
            assert stream.peer == endpoint
            await stream.send_all(b"inside")
            assert await stream.receive_exactly(6) == b"inside"
        async with stream:
            await stream.send_all(b"outside")
            assert await stream.receive_exactly(7) == b"outside"
            with pytest.raises(DeadlineExceeded):
                await stream.receive_some(1, now() + 5)
            report = stream.report
            assert report.winner is not None
            assert report.winner.endpoint == Endpoint(*peer.address.pair)
            assert 0 < report.elapsed < 30
            assert stream.local.host == "127.0.0.1"


async def test_no_endpoints_no_results(sockets: Sockets):
    assert await results([]) == []
    assert await results(iter(())) == []

    async def none() -> AsyncIterator[Endpoint]:
        return
        yield

    assert await results(none()) == []


async def test_the_first_to_complete_comes_first(sockets: Sockets, loopback_clock):
    with listening() as open_, faults.black_hole() as nowhere:
        found = await results([nowhere.pair, open_], attempt_timeout=2.0)
        assert [endpoint for endpoint, _ in found] == [open_, Endpoint(*nowhere.pair)]


async def test_results_come_as_they_do_on_the_virtual_network(vnet, autojump_clock):
    async def quiet(stream: Any) -> None:
        await trio.sleep_forever()

    for number, rtt in enumerate((0.3, 0.1, 0.2)):
        vnet.host(f"192.0.2.{number + 1}").listen(443, quiet, rtt=rtt)
    vnet.host("192.0.2.9").blackhole()
    vnet.host("192.0.2.8").refuse(after=0.15)
    endpoints = [(f"192.0.2.{number}", 443) for number in (1, 2, 3, 8, 9)]
    started = trio.current_time()
    seen: list[tuple[str, str, float]] = []
    async with connect_each(endpoints, attempt_timeout=1.0) as each:
        async for endpoint, outcome in each:
            seen.append((endpoint.host, type(outcome).__name__, round(trio.current_time() - started, 3)))
            if isinstance(outcome, TcpStream):
                await outcome.aclose()
    assert seen == [
        ("192.0.2.2", "TcpStream", 0.1),
        ("192.0.2.8", "ConnectionRefusedError", 0.15),
        ("192.0.2.3", "TcpStream", 0.2),
        ("192.0.2.1", "TcpStream", 0.3),
        ("192.0.2.9", "TimeoutError", 1.0),
    ]


async def test_trouble_on_this_machine_is_an_outcome():
    with listening() as open_:
        with faults.descriptors_exhausted(spare=2):
            found = await results([open_] * 5)
        assert {getattr(outcome, "errno", 0) for _, outcome in found} <= {0, errno.EMFILE}
        assert len(found) == 5
        assert any(f"local: socket for {open_}" in str(outcome) for _, outcome in found)


async def test_without_descriptors_for_a_reactor_there_are_tasks():
    with listening() as open_, faults.descriptors_exhausted(spare=1):
        (found,) = await results([open_])
    assert isinstance(found[1], TcpStream)


async def test_sources_and_options_reach_the_socket(sockets: Sockets):
    with listening() as open_:
        source = Source(ipv4="127.0.0.9")
        async with connect_each([open_], source=source, options=SocketOptions(keepalive_idle=7)) as each:
            async for _, outcome in each:
                assert isinstance(outcome, TcpStream)
                assert outcome.local.host == "127.0.0.9"
                assert outcome.report.attempts[0].source == source
                assert outcome.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
                await outcome.aclose()


async def test_a_factory_that_comes_later_is_honoured():
    sockets = Sockets.to("factory")
    with listening() as open_:

        async def endpoints() -> AsyncIterator[Endpoint]:
            yield open_
            await trio.testing.wait_all_tasks_blocked()
            with sockets.installed():
                yield open_
                await trio.testing.wait_all_tasks_blocked()

        async with connect_each(endpoints()) as each:
            async for _, outcome in each:
                assert isinstance(outcome, TcpStream)
                await outcome.aclose()
    assert sockets.factory is not None
    assert sockets.factory.created == 1


# --- time -------------------------------------------------------------------------------------------------------------


async def test_an_attempt_takes_attempt_timeout_at_most(sockets: Sockets, autojump_clock):
    with faults.black_hole() as nowhere:
        started = trio.current_time()
        ((_, error),) = await results([nowhere.pair], attempt_timeout=3.0)
        assert trio.current_time() - started == pytest.approx(3.0, abs=0.01)
        assert type(error) is TimeoutError
        assert error.errno == errno.ETIMEDOUT
        assert "took longer than attempt_timeout" in str(error)
        assert f"{nowhere.host}:{nowhere.port}" in str(error)


async def test_the_deadline_is_everybodys(sockets: Sockets, autojump_clock):
    with faults.black_hole() as nowhere:
        deadline = now() + 1_000
        found = await results([nowhere.pair] * 3, deadline)
        assert now() == deadline
        for _, error in found:
            assert isinstance(error, DeadlineExceeded)
            assert error.report is not None


async def test_at_the_same_instant_the_deadline_counts_and_not_attempt_timeout(sockets: Sockets, autojump_clock):
    with faults.black_hole() as nowhere:
        async with connect_each([nowhere.pair], now() + 500, attempt_timeout=0.5) as each:
            ((_, outcome),) = [result async for result in each]
    assert isinstance(outcome, DeadlineExceeded)


async def test_what_begins_after_the_deadline_sends_nothing(sockets: Sockets):
    with listening() as open_:
        found = await results([open_] * 3, now() - 1)
        assert all(isinstance(error, DeadlineExceeded) and "did not begin" in str(error) for _, error in found)
        assert len(found) == 3
        found = await results([open_], 0)
        assert isinstance(found[0][1], TcpStream)
        with faults.black_hole() as nowhere:
            ((_, error),) = await results([nowhere.pair], 0)
            assert isinstance(error, DeadlineExceeded)


async def test_an_attempt_timeout_may_be_infinite(sockets: Sockets, autojump_clock):
    with faults.black_hole() as nowhere:
        deadline = now() + 100_000
        ((_, error),) = await results([nowhere.pair], deadline, attempt_timeout=math.inf)
        assert isinstance(error, DeadlineExceeded)
        assert now() == deadline


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_a_loop_that_is_slow_holds_up_the_connects(sockets: Sockets, limit):
    taken = 0
    with listening() as open_:

        def endless() -> Iterator[Endpoint]:
            nonlocal taken
            while True:
                taken += 1
                yield open_

        async with connect_each(endless(), limit=limit) as each:
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert taken == limit
            for done in range(1, 30):
                _, outcome = await anext(each)
                assert isinstance(outcome, TcpStream)
                await outcome.aclose()
                await trio.lowlevel.checkpoint()
                assert taken <= limit + done


async def test_an_async_iterable_is_read_when_there_is_room(sockets: Sockets):
    taken = 0
    closed = False
    with listening() as open_:

        async def endless() -> AsyncIterator[Endpoint]:
            nonlocal taken, closed
            try:
                while True:
                    await trio.lowlevel.checkpoint()
                    taken += 1
                    yield open_
            finally:
                closed = True

        async with connect_each(endless(), limit=4) as each:
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert taken == 4
            for _ in range(20):
                _, outcome = await anext(each)
                assert isinstance(outcome, TcpStream)
                await outcome.aclose()
        assert closed
        assert taken <= 24


async def test_places_come_free_also_with_a_small_limit(sockets: Sockets):
    with listening() as open_:
        assert len(await results(itertools.repeat(open_, 200), limit=2)) == 200
        assert len(await results(itertools.repeat(open_, 400), limit=100)) == 400


async def test_many_endpoints_leave_other_tasks_their_turns(sockets: Sockets):
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with faults.black_hole() as nowhere:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbour)
            async with connect_each(itertools.repeat(nowhere.pair, 640), limit=640):
                while turns < 10:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_leaving_closes_what_was_not_handed_out(sockets: Sockets):
    with listening() as open_, faults.black_hole() as nowhere:
        async with no_leaks(counters=sockets.counters):
            async with connect_each(itertools.cycle([open_, nowhere.pair]), limit=200) as each:
                _, outcome = await anext(each)
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert isinstance(outcome, TcpStream)
            assert outcome.fileno() != -1
            await outcome.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await anext(each)


async def test_what_is_pending_when_the_block_is_left_leaves_no_cycle():
    async def leave(nowhere: Any) -> None:
        async with connect_each([nowhere] * 2):
            await trio.testing.wait_all_tasks_blocked(0.01)

    with faults.black_hole() as hole:
        gc.collect()
        gc.disable()
        try:
            await leave(hole.pair)
            if sys.version_info >= (3, 12):
                # There a nursery that has cancelled its tasks leaves the frames of its end in a cycle.
                gc.collect()
            assert [each for each in gc.get_objects() if isinstance(each, EachAttempt | Reactor)] == []
        finally:
            gc.enable()


class StuckError(Exception):
    """What a socket of a factory's raises when it is closed."""


async def test_a_result_that_cannot_be_closed_keeps_no_other_one_open():
    factory = PassThroughFactory()

    class Stubborn(PassThroughSocket):
        def close(self) -> None:
            was_open = self.fileno() != -1
            super().close()
            if was_open:
                raise StuckError

    def make(*kind: Any) -> PassThroughSocket:
        return Stubborn(factory, socket.socket(*kind))

    factory.socket = make  # type: ignore[method-assign, assignment]
    sockets = Sockets("factory", factory)
    async with faults.echoing() as peer, no_leaks(counters=sockets.counters):
        with sockets.installed(), pytest.raises(StuckError):
            async with connect_each([peer.address.pair] * 3):
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(factory.open) == 3


async def test_leaving_at_once(sockets: Sockets):
    with listening() as open_:
        async with no_leaks(counters=sockets.counters):
            async with connect_each([open_] * 10):
                pass
            async with connect_each([open_] * 10):
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("many", [ValueError("x")]), KeyboardInterrupt()])
async def test_an_exception_of_the_body_comes_out_as_it_is(sockets: Sockets, error):
    with faults.black_hole() as nowhere:
        async with no_leaks(counters=sockets.counters):
            with pytest.raises(type(error)) as caught:
                async with connect_each([nowhere.pair]):
                    await trio.testing.wait_all_tasks_blocked()
                    raise error
            assert caught.value is error
            assert caught.value.__context__ is None
            del caught


async def test_a_generator_is_closed_and_a_channel_is_not(sockets: Sockets):
    closed = []

    with listening() as open_:

        async def endless() -> AsyncIterator[Endpoint]:
            try:
                while True:
                    yield open_
            finally:
                closed.append(open_)

        send, receive = trio.open_memory_channel[Endpoint](9)
        for _ in range(9):
            send.send_nowait(open_)
        for iterable in (endless(), receive):
            async with connect_each(iterable, limit=2) as each:
                async for _, outcome in each:
                    assert isinstance(outcome, TcpStream)
                    await outcome.aclose()
                    break
            assert closed == [open_]
        assert 6 <= receive.statistics().current_buffer_used <= 8
        assert receive.receive_nowait() == open_


async def test_an_exception_of_the_iterable_comes_out_of_the_loop(sockets: Sockets):
    class OddError(Exception):
        pass

    with listening() as open_:

        def endpoints() -> Iterator[Endpoint]:
            yield open_
            raise OddError

        async def later() -> AsyncIterator[Endpoint]:
            yield open_
            raise OddError

        for iterable in (endpoints(), later()):
            good = 0
            with pytest.raises(OddError):
                async with connect_each(iterable) as each:
                    async for _, outcome in each:
                        assert isinstance(outcome, TcpStream)
                        good += 1
                        await outcome.aclose()
            assert good <= 1


@pytest.mark.parametrize(
    ("endpoint", "error"), [(("localhost", 1), ValueError), (("127.0.0.1", 0), ValueError), ("x", TypeError)]
)
async def test_a_bad_endpoint_comes_out_of_the_loop(sockets: Sockets, endpoint, error):
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(error):
            await results([endpoint])


async def test_a_source_that_cannot_reach_an_endpoint_is_a_mistake():
    with pytest.raises(ValueError, match="has no address of the family"):
        await results([("::1", 1)], source=Source(ipv4="127.0.0.1"))


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((None,), {}, TypeError),
        (("127.0.0.1:1",), {}, TypeError),
        ((Endpoint("127.0.0.1", 1),), {}, TypeError),
        (([], 1.5), {}, TypeError),
        (([], 500), {}, ValueError),
        (([],), {"limit": 0}, ValueError),
        (([],), {"limit": True}, TypeError),
        (([],), {"attempt_timeout": 0}, ValueError),
        (([],), {"attempt_timeout": "1"}, TypeError),
        (([],), {"attempt_timeout": math.nan}, ValueError),
        (([],), {"source": "127.0.0.1"}, TypeError),
        (([],), {"options": None}, TypeError),
    ],
)
async def test_bad_arguments_are_refused_at_the_call(arguments, options, error):
    with pytest.raises(error):
        connect_each(*arguments, **options)


async def test_one_task_at_a_time_waits(sockets: Sockets):
    told = trio.Event()

    async def wait(each: AsyncIterator[Any]) -> None:
        with pytest.raises(trio.ClosedResourceError, match="has been left"):
            await anext(each)
        told.set()

    with faults.black_hole() as nowhere:
        async with trio.open_nursery() as nursery:
            async with connect_each([nowhere.pair]) as each:
                nursery.start_soon(wait, each)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await anext(each)
            with trio.fail_after(5):
                await told.wait()


async def test_a_second_reader_is_refused_also_while_there_are_results(sockets: Sockets):
    refused = 0

    async def read(each: AsyncIterator[Any]) -> None:
        nonlocal refused
        try:
            async for _, outcome in each:
                await outcome.aclose()
        except trio.BusyResourceError:
            refused += 1

    with listening() as open_:
        async with connect_each([open_] * 2) as each:
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, each)
                    nursery.start_soon(read, each)
    assert refused == 1


async def test_every_result_is_a_checkpoint(sockets: Sockets):
    with listening() as open_:
        async with connect_each([open_] * 2) as each:
            await trio.testing.wait_all_tasks_blocked(0.01)
            for _ in range(2):
                with trio.testing.assert_checkpoints():
                    _, outcome = await anext(each)
                assert isinstance(outcome, TcpStream)
                await outcome.aclose()
            with trio.testing.assert_checkpoints(), pytest.raises(StopAsyncIteration):
                await anext(each)


async def test_a_block_that_is_cancelled_holds_no_loop_up_that_goes_on_under_a_shield(sockets: Sockets):
    with faults.black_hole() as nowhere:
        async with no_leaks():
            with trio.CancelScope() as scope:
                async with connect_each([nowhere.pair]) as each:
                    scope.cancel()
                    closed = pytest.raises(trio.ClosedResourceError, match="cancelled")
                    with trio.CancelScope(shield=True), trio.fail_after(5), closed:
                        await anext(each)
            assert scope.cancelled_caught


async def test_a_loop_that_is_cancelled_loses_no_result(sockets: Sockets):
    with listening() as open_:
        async with connect_each([open_] * 5) as each:
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(each)
            assert scope.cancelled_caught
            count = 0
            async for _, outcome in each:
                assert isinstance(outcome, TcpStream)
                await outcome.aclose()
                count += 1
            assert count == 5


async def everything(peer: faults.Peer) -> None:
    """Results of each kind, in a block that the sweep cancels; what is handed out is closed."""
    with faults.black_hole() as nowhere, faults.refusing() as closed:
        endpoints = [peer.address.pair, closed.pair, nowhere.pair] * 3
        handed = 0
        async with connect_each(endpoints, limit=4) as each:
            async for _, outcome in each:
                if isinstance(outcome, TcpStream):
                    outcome.abort()
                handed += 1
                if handed == 4:
                    break


async def test_a_block_that_is_cancelled_at_any_step_leaves_nothing(sockets: Sockets, modes):
    await sweep(everything, environment=faults.echoing, counters=sockets.counters, modes=modes)


# --- what it costs ----------------------------------------------------------------------------------------------------


async def test_over_the_reactor_a_descriptor_that_is_handed_out_is_not_watched(monkeypatch):
    watched: set[int] = set()
    reactors: set[Reactor] = set()
    real_watch, real_unwatch = Reactor.watch, Reactor.unwatch

    def watch(itself: Reactor, fd: int, *rest: Any) -> None:
        reactors.add(itself)
        watched.add(fd)
        real_watch(itself, fd, *rest)

    def unwatch(itself: Reactor, fd: int) -> None:
        watched.remove(fd)
        real_unwatch(itself, fd)

    monkeypatch.setattr(Reactor, "watch", watch)
    monkeypatch.setattr(Reactor, "unwatch", unwatch)
    script(monkeypatch, *[[IN_PROGRESS, errno.EALREADY, 0]] * 3, spins=False)
    async with connect_each([("127.0.0.1", 9)] * 3) as each:
        async for _, outcome in each:
            assert isinstance(outcome, TcpStream)
            assert outcome.fileno() not in watched
            outcome.abort()
        (reactor,) = reactors
        assert reactor.handlers == {}  # it would keep the attempt until another descriptor gets the number


@pytest.mark.alone
@pytest.mark.parametrize("path", ["reactor", "tasks"])
async def test_a_pending_connect_takes_less_than_1_kib_over_the_reactor(monkeypatch, path):
    if path == "tasks":
        without_reactor(monkeypatch)
    count = 2_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * count), hard))
    try:
        with faults.black_hole() as nowhere:
            endpoint = Endpoint(*nowhere.pair)
            async with connect_each([endpoint] * 10, now() + 600_000):
                await trio.testing.wait_all_tasks_blocked(0.01)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            async with connect_each(itertools.repeat(endpoint, count), now() + 600_000, limit=count):
                await trio.testing.wait_all_tasks_blocked(0.05)
                each = (tracemalloc.get_traced_memory()[0] - before) / count
            tracemalloc.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert each < (1024 if path == "reactor" else 8192)


async def test_a_peer_that_resets_at_once_is_the_callers_business(sockets: Sockets):
    with socket.create_server(LOOPBACK) as server:
        async with connect_each([server.getsockname()]) as each:
            async for _, outcome in each:
                assert isinstance(outcome, TcpStream)
                peer, _ = server.accept()
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                with pytest.raises(trio.BrokenResourceError):
                    await outcome.receive_some()
                await outcome.aclose()


async def test_the_same_outcome_as_tcp_connect(sockets: Sockets):
    with faults.refusing() as closed:
        ((_, error),) = await results([closed.pair])
        with pytest.raises(ConnectionRefusedError) as caught:
            await tcp_connect(closed.pair)
        assert type(error) is type(caught.value)
        assert str(error).partition(" after ")[0] == str(caught.value).partition(" after ")[0]


async def test_the_object_shows_no_internals():
    async with connect_each([]) as each:
        assert [name for name in dir(each) if not name.startswith("_")] == []


async def test_an_error_of_a_task_does_not_hang_whoever_reads_on(monkeypatch: pytest.MonkeyPatch):
    async def fail(*_: Any, **__: Any) -> TcpStream:
        raise ImportError("not installed")

    monkeypatch.setattr("trio_connect._net.connect_each.tcp_connect", fail)
    without_reactor(monkeypatch)
    errors = 0
    with trio.fail_after(5):
        async with connect_each([("127.0.0.1", 9)] * 3, limit=1) as each:
            while True:
                try:
                    await anext(each)
                except ImportError:
                    errors += 1
                except StopAsyncIteration:
                    break
    assert errors == 3
