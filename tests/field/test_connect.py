"""Field reports about connecting and racing."""

from __future__ import annotations

import errno
import itertools
import socket
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import PassThroughFactory, PassThroughSocket, Sockets
from trio_connect import (
    AttemptFinished,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    EstablishFailed,
    RaceFinished,
    RacePolicy,
    SocketOptions,
    Source,
    StaticResolver,
    TcpStream,
    TraceEvent,
    connect,
    connectx,
    now,
)
from trio_connect._net.race import driver as race_driver
from trio_connect._net.sockets import local_ports
from trio_connect.queues import open_queue_set
from trio_connect.testing import VirtualNetwork


def test_field_03_the_range_of_local_ports_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A change of ip_local_port_range in a running program is seen within a second, so no self-connect is missed."""
    file = tmp_path / "ip_local_port_range"
    time = 1000.0
    monkeypatch.setattr(local_ports, "_FILE", str(file))
    monkeypatch.setattr(local_ports, "monotonic", lambda: time)
    file.write_text("32768\t60999\n")
    local_ports.forget_local_ports()
    try:
        assert local_ports.local_ports() == range(32768, 61000)
        file.write_text("20000\t20001\n")
        time += 0.999
        assert local_ports.local_ports() == range(32768, 61000), "it is not read for every connect"
        time += 0.001
        assert local_ports.local_ports() == range(20000, 20002)
    finally:
        local_ports.forget_local_ports()


FAST = SocketOptions(fast_open=True)
MANY = [Endpoint("192.0.2.1", 443), Endpoint("192.0.2.2", 443)]


async def some(endpoints: list[Endpoint]) -> AsyncIterator[Endpoint]:
    for endpoint in endpoints:
        yield endpoint


@pytest.mark.parametrize(
    "call",
    [
        lambda: connectx(MANY, options=FAST),
        lambda: connectx(MANY[:1], sources=[Source(ipv4="127.0.0.1"), Source(ipv4="127.0.0.2")], options=FAST),
        lambda: connectx(some(MANY), options=FAST),
        lambda: connect("many.test", 443, resolver=StaticResolver({"many.test": ["192.0.2.1"]}), options=FAST),
    ],
    ids=["connectx", "several sources", "an async iterable", "a name"],
)
async def test_field_04_fast_open_is_not_raced(call: Any) -> None:
    """A race in which the first address would win before anybody has answered is refused."""
    async with no_leaks():
        with pytest.raises(ValueError, match="fast_open cannot be raced"):
            await call()


async def test_field_04_fast_open_is_not_raced_in_a_queue_set() -> None:
    """Neither is it when it is submitted."""
    async with open_queue_set() as qs:
        for arguments in ({"endpoints": MANY}, {"endpoints": some(MANY)}):
            with pytest.raises(ValueError, match="fast_open cannot be raced"):
                qs.connectx(**arguments, options=FAST)


async def test_field_04_fast_open_with_one_candidate_or_with_an_establish() -> None:
    """One endpoint, or an establish that needs an answer, may use fast open."""

    async def establish(stream: TcpStream) -> TcpStream:
        await stream.send_all(b"?")
        assert await stream.receive_exactly(1) == b"?"
        return stream

    async with faults.echoing() as peer, no_leaks():
        endpoint = Endpoint(*peer.address.pair)
        for stream in (
            await connectx([endpoint, endpoint], options=FAST),
            await connect(endpoint.host, endpoint.port, options=FAST),
            await connectx([endpoint, Endpoint("127.9.9.9", endpoint.port)], options=FAST, establish=establish),
        ):
            assert stream.peer == endpoint
            stream.abort()
        async with open_queue_set() as qs:
            result = await qs.wait(qs.connectx([endpoint], options=FAST))
            assert result.ok


ENDLESS = {
    "all different": lambda: (Endpoint(f"192.0.{n >> 8 & 255}.{n & 255}", 443) for n in itertools.count()),
    "all the same": lambda: itertools.repeat(("192.0.2.1", 443)),
    "none that a source can reach": lambda: (Endpoint(f"2001:db8::{n & 65535:x}", 443) for n in itertools.count()),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_field_09_an_endless_iterable_is_read_no_further_than_a_race_goes(
    vnet: VirtualNetwork, autojump_clock: Any, kind: str
) -> None:
    """An iterable without end keeps the deadline and takes no memory: what can be tried is read, and no more."""
    for n in range(256):
        for m in range(2):
            vnet.host(f"192.0.{m}.{n}").blackhole()
    vnet.host("192.0.2.1").blackhole()
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        for item in ENDLESS[kind]():
            read += 1
            yield item

    started = trio.current_time()
    tracemalloc.start()
    try:
        with pytest.raises((DeadlineExceeded, ConnectFailed)):
            await connectx(endless(), now() + 300, sources=[Source(ipv4="192.0.2.254")])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert trio.current_time() - started < 0.301
    assert read == 64 if kind == "all different" else read <= 4096


@pytest.mark.parametrize("kind", ENDLESS)
async def test_field_09_so_is_an_endless_async_iterable(vnet: VirtualNetwork, autojump_clock: Any, kind: str) -> None:
    """The same of an async iterable that never waits."""
    for n in range(256):
        vnet.host(f"192.0.0.{n}").blackhole()
    vnet.host("192.0.2.1").blackhole()
    read = 0

    async def endless() -> AsyncIterator[Any]:
        nonlocal read
        for item in ENDLESS[kind]():
            read += 1
            yield item

    with pytest.raises((DeadlineExceeded, ConnectFailed)):
        await connectx(endless(), now() + 300, sources=[Source(ipv4="192.0.2.254")])
    assert read == 64 if kind == "all different" else read <= 4096


async def test_field_09_a_list_is_reported_as_a_whole(vnet: VirtualNetwork, autojump_clock: Any) -> None:
    """Of a list every endpoint is in the report, those beyond the 64th as not tried."""
    for n in range(70):
        vnet.host(f"192.0.2.{n + 1}").refuse()
    endpoints = [Endpoint(f"192.0.2.{n + 1}", 443) for n in range(70)]
    with pytest.raises(ConnectFailed) as caught:
        await connectx(endpoints, policy=RacePolicy(max_in_flight=70))
    assert [row.outcome for row in caught.value.report.attempts] == ["failed"] * 64 + ["not tried"] * 6


async def test_field_02_nothing_of_a_race_is_built_before_the_first_wait(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A handshake that must be waited for costs connectx no more than tcp_connect, until the next start is due."""
    built: list[object] = []
    init = race_driver._Driver.__init__

    def counted(self: Any, *args: Any, **kwargs: Any) -> None:
        built.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(race_driver._Driver, "__init__", counted)
    async with no_leaks():
        with faults.black_hole() as hole, faults.black_hole() as other:
            with trio.move_on_after(0.05) as scope:
                await connectx([hole.pair, other.pair], policy=RacePolicy(attempt_delay=10.0))
            assert scope.cancelled_caught
            assert not built
            # The schedule is absolute all the same.
            before = trio.current_time()
            with pytest.raises(ConnectFailed) as caught:
                await connectx([hole.pair, other.pair], policy=RacePolicy(attempt_delay=0.05, attempt_timeout=0.2))
            first, second = caught.value.report.attempts
            assert (first.outcome, second.outcome) == ("timed out", "timed out")
            assert second.cause == "delay"
            assert second.started is not None
            assert second.started >= 0.05
            assert trio.current_time() - before >= 0.25
            with pytest.raises(DeadlineExceeded) as late:
                await connectx([hole.pair, other.pair], now() + 30, policy=RacePolicy(attempt_delay=10.0))
            assert late.value.report is not None
            assert [row.outcome for row in late.value.report.attempts] == ["cancelled", "not tried"]
            # An attempt whose time is up before the next start is due makes that start.
            policy = RacePolicy(attempt_delay=10.0, attempt_timeout=0.05)
            with pytest.raises(ConnectFailed) as caught:
                await connectx([hole.pair, other.pair], policy=policy)
            assert [row.cause for row in caught.value.report.attempts] == ["first", "failure"]
            del caught, late


class Interrupt(BaseException):
    """What an observer may raise: as KeyboardInterrupt, SystemExit, or a test's own."""


async def as_it_is(stream: TcpStream) -> TcpStream:
    return stream


@pytest.mark.parametrize("establish", [None, as_it_is], ids=["tcp", "establish"])
@pytest.mark.parametrize("good", [True, False], ids=["won", "failed"])
async def test_field_18_whatever_an_observer_raises_no_socket_stays_open(
    sockets: Sockets, establish: Any, *, good: bool
) -> None:
    """An interrupt in an observer, at any event, closes the losers and the winner, and comes out as it is."""
    policy = RacePolicy(attempt_delay=0.01, attempt_timeout=10.0 if good else 0.05)
    with faults.black_hole() as hole, faults.black_hole() as other, faults.refusing() as closed:
        async with faults.echoing() as peer:
            targets = [closed.pair, hole.pair, other.pair, peer.address.pair if good else closed.pair]
            seen = 0
            while True:
                told: list[TraceEvent] = []

                def observer(event: TraceEvent, told: list[TraceEvent] = told, at: int = seen) -> None:
                    told.append(event)
                    if len(told) == at + 1:
                        raise Interrupt

                async with no_leaks(counters=sockets.counters):
                    try:
                        (await connectx(targets, policy=policy, observer=observer, establish=establish)).abort()
                    except Interrupt:
                        pass
                    except ConnectFailed:
                        assert not good
                        assert len(told) <= seen
                    assert [type(event) for event in told].count(RaceFinished) == 1
                    assert isinstance(told[-1], RaceFinished)
                if len(told) <= seen:
                    break
                seen += 1
            assert seen >= 7


@pytest.mark.parametrize("error", [OSError("a fake"), RuntimeError("a fake"), Interrupt()], ids=repr)
async def test_field_18_nor_whatever_closing_a_loser_raises(error: BaseException) -> None:
    """A factory's socket whose close raises keeps no other socket open; the winner is handed over."""
    factory = PassThroughFactory()
    sockets = Sockets("factory", factory)

    class Stubborn(PassThroughSocket):
        def close(self) -> None:
            losing = self.fileno() != -1 and self not in winners
            super().close()
            if losing:
                raise error

    winners: list[object] = []

    def make(*kind: Any) -> PassThroughSocket:
        return Stubborn(factory, socket.socket(*kind))

    factory.socket = make  # type: ignore[method-assign, assignment]
    with faults.black_hole() as hole, faults.black_hole() as other:
        async with faults.echoing() as peer, no_leaks(counters=sockets.counters):
            with sockets.installed():
                policy = RacePolicy(attempt_delay=0.01)
                targets = [hole.pair, other.pair, peer.address.pair]
                if isinstance(error, Exception):
                    stream = await connectx(targets, policy=policy)
                    assert [row.outcome for row in stream.report.attempts] == ["lost", "lost", "won"]
                    winners.append(stream.socket)
                    stream.abort()
                else:
                    with pytest.raises(Interrupt):
                        await connectx(targets, policy=policy)


async def test_field_19_a_black_hole_that_holds_the_last_descriptor(loopback_clock: trio.testing.MockClock) -> None:
    """Out of descriptors, an endpoint is tried again when an attempt gives its own back."""
    events: list[TraceEvent] = []
    policy = RacePolicy(attempt_delay=0.05, attempt_timeout=0.3)
    with faults.black_hole() as hole, socket.create_server(("127.0.0.1", 0)) as listener:
        targets = [hole.pair, listener.getsockname(), listener.getsockname()[:2]]
        (await connectx(targets[1:], observer=events.append)).abort()  # what loads late is loaded now
        events.clear()
        with faults.descriptors_exhausted(spare=1):
            stream = await connectx(targets, observer=events.append, policy=policy)
            stream.abort()
        assert [(row.outcome, row.errno) for row in stream.report.attempts] == [
            ("timed out", errno.ETIMEDOUT),
            ("won", None),
        ]
        assert stream.report.attempts[1].cause in ("failure", "delay")
        assert stream.report.attempts[1].started is not None
        assert stream.report.attempts[1].started >= 0.3
        tries = [event.errno for event in events if isinstance(event, AttemptFinished) and event.attempt == 1]
        assert tries[0] == errno.EMFILE
        assert tries[-1] is None


async def test_field_19_when_nothing_is_under_way_it_has_failed() -> None:
    """Without any descriptor a race fails locally, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = listener.getsockname()
        (await connectx([target])).abort()
        with faults.descriptors_exhausted():
            with pytest.raises(ConnectFailed, match="local") as caught:
                await connectx([target, ("127.0.0.2", 9)], now() + 5000)
            code, rows = caught.value.errno, caught.value.report.attempts
            del caught
        assert code == errno.EMFILE
        assert [row.outcome for row in rows] == ["failed", "failed"]


WAYS = ["lost", "attempt_timeout", "deadline", "cancelled", "crash", "establish fails", "an observer's interrupt"]


@pytest.mark.parametrize("by", ["socket", "fileno"])
@pytest.mark.parametrize("way", WAYS)
async def test_field_14_tasks_that_wait_on_a_socket_of_a_connect_that_ends(
    way: str, by: str, loopback_clock: trio.testing.MockClock
) -> None:
    """However a connect ends, a task that waits on a socket which its establish gave out is woken."""
    woken: list[str] = []

    async def wait(stream: TcpStream) -> None:
        try:
            if by == "socket":
                await stream.socket.recv(1)
            else:
                await trio.lowlevel.wait_readable(stream.fileno())
        except trio.ClosedResourceError:
            woken.append("closed")

    async with faults.echoing() as peer, faults.echoing() as other, trio.open_nursery() as nursery, no_leaks():
        nursery.cancel_scope.deadline = trio.current_time() + 5

        async def establish(stream: TcpStream) -> TcpStream:
            if way == "lost" and stream.peer.port == other.address.pair[1]:
                return stream
            nursery.start_soon(wait, stream)
            await trio.testing.wait_all_tasks_blocked()
            if way == "crash":
                raise ZeroDivisionError
            if way == "establish fails":
                raise EstablishFailed
            if way != "an observer's interrupt":
                await trio.sleep_forever()
            return stream

        def observer(event: TraceEvent) -> None:
            if way == "an observer's interrupt" and isinstance(event, RaceFinished):
                raise Interrupt

        targets = [peer.address.pair, other.address.pair] if way == "lost" else [peer.address.pair]
        policy = RacePolicy(attempt_delay=0.01, attempt_timeout=0.1 if way == "attempt_timeout" else 10.0)
        deadline = now() + (100 if way == "deadline" else 5000)
        with trio.move_on_after(0.1 if way == "cancelled" else inf):
            try:
                stream = await connectx(targets, deadline, policy=policy, establish=establish, observer=observer)
                stream.abort()
            except (ConnectFailed, DeadlineExceeded, ZeroDivisionError, Interrupt):
                pass
        await trio.testing.wait_all_tasks_blocked()
        assert woken == ["closed"]


async def test_field_02_a_numeric_host_that_is_remembered_is_checked_all_the_same() -> None:
    """`connect` with an address costs little more than connectx, and looks at its arguments in every call."""
    async with faults.echoing() as peer, no_leaks():
        host, port = peer.address.pair
        for _ in range(2):
            stream = await connect(host, port)
            assert stream.peer == Endpoint(host, port)
            stream.abort()
            for wrong in (float(port), True, str(port)):
                with pytest.raises(TypeError, match="port"):
                    await connect(host, wrong)  # type: ignore[arg-type]
            for number in (0, 65536, -1):
                with pytest.raises(ValueError, match="port"):
                    await connect(host, number)
            with pytest.raises(ValueError, match="no host"):
                await connect("", port)
