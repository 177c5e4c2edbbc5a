"""What the driver of a race does with sockets, tasks and exceptions; the decisions are tested in tests/engine."""

from __future__ import annotations

import errno
import gc
import logging
import signal
import socket
import ssl
import sys
import weakref
from typing import Any, Self

import pytest
import trio
import trio.testing

from tests.net.racing import Recorder, Stopwatch, at, causes, dead, good, outcomes, rows, starts, virtual
from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import PassThroughFactory, Sockets
from trio_connect import (
    AttemptConnected,
    AttemptFinished,
    AttemptStarted,
    ConnectFailed,
    DeadlineExceeded,
    EstablishFailed,
    RacePolicy,
    ResolveFailed,
    StaticResolver,
    TcpStream,
    connect,
    connectx,
    now,
    tcp_listen,
)
from trio_connect._net.race import driver as race_driver

SOON = RacePolicy(attempt_delay=0.010)


# --- the caller's establish -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ECONNRESET, "x"), errno.ECONNRESET),
        (trio.BrokenResourceError("x"), None),
        (trio.TooSlowError("x"), None),
        (DeadlineExceeded("x"), errno.ETIMEDOUT),
        (EstablishFailed("x"), None),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), errno.ECONNREFUSED),
        # Their errno is a number of OpenSSL's or of the resolver's: 1 is EPERM in the kernel's counting.
        (ssl.SSLError(1, "x"), None),
        (ssl.SSLCertVerificationError(1, "x"), None),
        (socket.gaierror(socket.EAI_NONAME, "x"), None),
        (ResolveFailed(socket.EAI_NONAME, "x"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
@virtual
async def test_these_from_establish_fail_the_attempt_and_the_race_goes_on(net, error, code):
    good(net, "192.0.2.1", "192.0.2.2")

    async def establish(stream: TcpStream) -> TcpStream:
        if stream.peer.host == "192.0.2.1":
            await trio.lowlevel.checkpoint()
            raise error
        return stream

    stream = await connectx(at("192.0.2.1", "192.0.2.2"), establish=establish)
    failed, won = stream.report.attempts
    assert (failed.outcome, failed.phase, failed.errno) == ("failed", "establish", code)
    assert (won.outcome, won.cause) == ("won", "failure")
    assert "while establishing over 192.0.2.1:443" in error.__notes__
    stream.abort()

    with pytest.raises(ConnectFailed) as caught:
        await connectx(at("192.0.2.1"), establish=establish)
    assert caught.value.errno == code
    assert causes(caught.value) == (error,)


class Bug(Exception):
    pass


@pytest.mark.parametrize("error", [Bug(), KeyboardInterrupt(), SystemExit(3), trio.ClosedResourceError()], ids=repr)
@pytest.mark.parametrize("others", [0, 2])
async def test_anything_else_closes_every_socket_and_propagates_as_itself(error, others, sockets: Sockets):
    async def establish(stream: TcpStream) -> None:
        if (stream.peer.host, stream.peer.port) == last.address.pair:
            raise error
        await trio.sleep_forever()

    async with faults.echoing() as first, faults.echoing() as last:
        endpoints = [first.address.pair] * (others > 0) + [last.address.pair]
        recorder = Recorder()
        async with no_leaks(counters=sockets.counters):
            with pytest.raises(BaseException) as caught:
                await connectx(endpoints, establish=establish, policy=SOON, observer=recorder)
            assert caught.value is error
            del caught
        assert "won" not in outcomes(recorder.report)
        assert set(outcomes(recorder.report)) == {"cancelled"}


async def test_several_that_raise_in_one_pass_give_one_of_their_exceptions(sockets: Sockets):
    ready = trio.Event()

    async def establish(_stream: TcpStream) -> None:
        await ready.wait()
        raise Bug

    async with faults.echoing() as one, faults.echoing() as other, trio.open_nursery() as nursery:

        async def go() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            ready.set()

        nursery.start_soon(go)
        async with no_leaks(counters=sockets.counters):
            with pytest.raises(Bug):
                await connectx([one.address.pair, other.address.pair], establish=establish, policy=SOON)


@pytest.mark.parametrize(
    ("first", "then"), [(Bug(), Bug()), (KeyboardInterrupt(), Bug()), (Bug(), KeyboardInterrupt())]
)
async def test_what_was_raised_first_is_heard_and_an_interrupt_before_all(first, then, sockets: Sockets):
    async def establish(stream: TcpStream) -> None:
        if (stream.peer.host, stream.peer.port) == last.address.pair:
            raise first
        try:
            await trio.sleep_forever()
        finally:
            raise then

    async with faults.echoing() as one, faults.echoing() as last, no_leaks(counters=sockets.counters):
        with pytest.raises((Bug, KeyboardInterrupt)) as caught:
            await connectx([one.address.pair, last.address.pair], establish=establish, policy=SOON)
        assert caught.value is (then if isinstance(then, KeyboardInterrupt) else first)
        del caught


async def test_a_group_that_establish_raised_is_its_own_and_is_not_changed(sockets: Sockets):
    group = ExceptionGroup("mine", [Bug(), Bug()])

    async def establish(_stream: TcpStream) -> None:
        raise group

    async with faults.echoing() as peer:
        with pytest.raises(ExceptionGroup) as caught:
            await connectx([peer.address.pair], establish=establish)
        assert caught.value is group


async def receive(stream: TcpStream) -> None:
    await stream.receive_some()


async def receive_in_a_nursery(stream: TcpStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        nursery.start_soon(trio.sleep_forever)


async def receive_shielded(stream: TcpStream) -> None:
    with trio.CancelScope(shield=True):
        await stream.receive_some()


async def receive_through_a_library(stream: TcpStream) -> None:
    try:
        await stream.receive_some()
    except trio.ClosedResourceError as exc:
        raise RuntimeError("the library was told to read from what is closed") from exc


async def receive_through_a_library_in_a_nursery(stream: TcpStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_through_a_library, stream)
        nursery.start_soon(receive_shielded_write, stream)


async def receive_shielded_write(stream: TcpStream) -> None:
    with trio.CancelScope(shield=True):
        try:
            while True:
                await stream.send_all(bytes(65536))
        except trio.ClosedResourceError:
            raise trio.BrokenResourceError from None


async def return_something(stream: TcpStream) -> str:
    try:
        await stream.receive_some()
    except (trio.ClosedResourceError, trio.Cancelled):
        pass
    return "too late"


LOSERS = [
    receive, receive_in_a_nursery, receive_shielded, receive_through_a_library, receive_through_a_library_in_a_nursery,
    return_something,
]  # fmt: skip


@pytest.mark.parametrize("lose", LOSERS, ids=lambda lose: lose.__name__)
async def test_line_76_what_a_loser_makes_of_its_closed_socket_does_not_touch_the_winner(lose, sockets: Sockets):
    async def establish(stream: TcpStream) -> Any:
        if (stream.peer.host, stream.peer.port) == slow.address.pair:
            return await lose(stream)
        return stream

    # A peer that reads nothing and sends nothing: whoever writes or reads there waits.
    async with no_leaks(counters=sockets.counters), faults.echoing() as quick:
        listener = await tcp_listen(("127.0.0.1", 0))
        slow = faults.Peer(faults.Address("127.0.0.1", listener.endpoint.port, socket.AF_INET))
        with trio.fail_after(5):
            stream = await connectx([slow.address.pair, quick.address.pair], establish=establish, policy=SOON)
        assert outcomes(stream.report) == ["lost", "won"]
        assert stream.report.attempts[0].beaten_by == stream.peer
        await stream.send_all(b"alive")
        assert await stream.receive_exactly(5) == b"alive"
        await stream.aclose()
        await listener.aclose()


async def test_a_bug_in_a_loser_that_has_nothing_to_do_with_the_close_is_not_swallowed(sockets: Sockets):
    async def establish(stream: TcpStream) -> TcpStream:
        if (stream.peer.host, stream.peer.port) == slow.address.pair:
            try:
                await trio.sleep_forever()
            finally:
                raise Bug
        return stream

    async with faults.echoing() as slow, faults.echoing() as quick, no_leaks(counters=sockets.counters):
        with pytest.raises(Bug):
            await connectx([slow.address.pair, quick.address.pair], establish=establish, policy=SOON)


@virtual
async def test_a_loser_that_cleans_up_for_long_is_waited_for_with_its_socket_closed(net):
    good(net, "192.0.2.1", "192.0.2.2")
    closed_at = None

    async def establish(stream: TcpStream) -> TcpStream:
        nonlocal closed_at
        if stream.peer.host == "192.0.2.1":
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                closed_at = stream.fileno(), watch.ms
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                raise
        return stream

    watch = Stopwatch()
    stream = await connectx(at("192.0.2.1", "192.0.2.2"), establish=establish)
    assert closed_at == (-1, 290)  # the second start was put off by the 20 ms that the first handshake took
    assert watch.ms == 1290
    stream.abort()


async def test_establish_may_close_detach_or_keep_the_stream(sockets: Sockets):
    async def closes(stream: TcpStream) -> str:
        await stream.aclose()
        return "closed"

    async def detaches(stream: TcpStream) -> trio.socket.SocketType:
        return stream.detach()

    async def closes_and_refuses(stream: TcpStream) -> None:
        await stream.aclose()
        raise EstablishFailed

    async with no_leaks(counters=sockets.counters), faults.echoing() as peer:
        assert await connectx([peer.address.pair], establish=closes) == "closed"
        sock = await connectx([peer.address.pair], establish=detaches)
        assert sock.getpeername() == peer.address.pair
        sock.close()
        with pytest.raises(ConnectFailed):
            await connectx([peer.address.pair], establish=closes_and_refuses)


# --- cancellation, deadlines and the win in one instant ---------------------------------------------------------------


class CancelWhoSteers(trio.abc.Instrument):
    """Cancels a scope when the parent of the current task is about to run, and what wakes it is settled."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope = scope
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        self.parent = nursery.parent_task
        trio.lowlevel.add_instrument(self)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if task is self.parent:
            trio.lowlevel.remove_instrument(self)
            self.scope.cancel()


@pytest.mark.parametrize("attempt", range(5))
async def test_a_cancel_in_the_pass_of_the_win_does_not_take_the_winner(attempt, sockets: Sockets):
    # The winner's task tells of its success, and the call is cancelled before the driver's loop has run.
    async def establish(stream: TcpStream) -> TcpStream:
        CancelWhoSteers(scope)
        return stream

    recorder = Recorder()
    won = False
    with faults.black_hole() as hole:
        async with faults.echoing() as peer, no_leaks(counters=sockets.counters):
            with trio.CancelScope() as scope:
                endpoints = [hole.pair, peer.address.pair]
                stream = await connectx(endpoints, establish=establish, policy=SOON, observer=recorder)
                won = True
                stream.abort()
    assert won
    assert outcomes(recorder.report) == ["lost", "won"]


async def test_a_cancelled_race_raises_cancelled_and_not_a_group(sockets: Sockets):
    with faults.black_hole() as hole, faults.black_hole() as other:
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + 0.05
            try:
                await connectx([hole.pair, other.pair], policy=SOON)
            except trio.Cancelled:
                raise
            except BaseException as exc:
                raise AssertionError(repr(exc)) from exc
        assert scope.cancelled_caught


@pytest.mark.parametrize("holes", [1, 2])
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_from_the_keyboard_comes_as_itself(holes):
    recorder = Recorder()

    async def interrupt() -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        with faults.black_hole() as hole, faults.black_hole() as other:
            async with no_leaks():
                trio.lowlevel.spawn_system_task(interrupt)
                with pytest.raises(KeyboardInterrupt):
                    await connectx([hole.pair, other.pair][:holes], policy=SOON, observer=recorder)

    trio.run(main)
    assert outcomes(recorder.report) == ["cancelled"] * holes


@virtual
async def test_a_success_at_the_deadline_counts(net):
    good(net, "192.0.2.1", rtt=0.125)
    for _ in range(40):  # Trio shuffles who runs first
        stream = await connectx(at("192.0.2.1"), now() + 125)
        stream.abort()


@virtual
async def test_a_success_at_the_attempt_timeout_counts_whoever_else_ends_then(net):
    good(net, "192.0.2.1", rtt=0.125)
    net.host("192.0.2.2").refuse(0.0625)
    policy = RacePolicy(attempt_delay=0.0625, attempt_timeout=0.125)
    for _ in range(40):
        stream = await connectx(at("192.0.2.1", "192.0.2.2"), policy=policy)
        assert rows(stream.report)[0] == ("192.0.2.1", "first", 0, 125, "won")
        stream.abort()


@virtual
async def test_line_83_two_successes_in_one_instant_make_one_winner(net):
    good(net, "192.0.2.1", rtt=0.3)
    good(net, "192.0.2.2", rtt=0.05)
    for _ in range(20):
        stream = await connectx(at("192.0.2.1", "192.0.2.2"))
        assert sorted(outcomes(stream.report)) == ["lost", "won"]
        assert len(net.open_sockets) == 1
        stream.abort()


async def test_line_83_two_successes_in_one_pass_of_the_real_loop(sockets: Sockets):
    go = trio.Event()

    async def establish(stream: TcpStream) -> TcpStream:
        await go.wait()
        return stream

    async def later() -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        go.set()

    async with no_leaks(counters=sockets.counters), faults.echoing() as one, faults.echoing() as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            stream = await connectx([one.address.pair, other.address.pair], establish=establish, policy=SOON)
        assert sorted(outcomes(stream.report)) == ["lost", "won"]
        await stream.aclose()


# --- what is made, and when -------------------------------------------------------------------------------------------


class Census(trio.abc.Instrument):
    """Counts the tasks that are spawned, and the cancel scopes that the library opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks: list[str] = []
        self.scopes = 0
        scope = trio.CancelScope

        def counted(*args, **kwargs) -> trio.CancelScope:
            self.scopes += 1
            return scope(*args, **kwargs)

        monkeypatch.setattr("trio_connect._net.sockets.waiting.CancelScope", counted)
        monkeypatch.setattr("trio_connect._net.sockets.kernel_socket.CancelScope", counted)
        monkeypatch.setattr("trio.CancelScope", counted)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks.append(task.name)

    def __enter__(self) -> Self:
        self.tasks.clear()
        self.scopes = 0
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)


@pytest.mark.parametrize("observed", [False, True])
async def test_no_task_and_no_scope_while_the_first_endpoint_answers_inline(monkeypatch, observed):
    census = Census(monkeypatch)
    async with faults.echoing() as peer:
        with faults.refusing() as refused:
            for endpoints in ([peer.address.pair], [refused.pair, refused.pair, peer.address.pair]):
                with census:
                    stream = await connectx(endpoints, now() + 5000, observer=Recorder() if observed else None)
                    tasks, scopes = list(census.tasks), census.scopes
                # The peers of this test are tasks too.
                assert ([name for name in tasks if "connect" in name], scopes) == ([], 0)
                stream.abort()


async def test_one_scope_and_no_task_while_one_attempt_is_pending(monkeypatch, autojump_clock):
    census = Census(monkeypatch)
    with faults.black_hole() as hole:
        with census:
            with pytest.raises(DeadlineExceeded):
                await connectx([hole.pair], now() + 50)
            assert (census.tasks, census.scopes) == ([], 1)
        with census:
            with pytest.raises(ConnectFailed):
                await connectx([hole.pair], policy=RacePolicy(attempt_timeout=0.05))
            assert (census.tasks, census.scopes) == ([], 1)


async def test_a_task_for_each_attempt_from_the_second_pending_one_on(monkeypatch):
    census = Census(monkeypatch)
    with faults.black_hole() as hole, faults.black_hole() as other, census:
        with pytest.raises(DeadlineExceeded):
            await connectx([hole.pair, other.pair], now() + 500, policy=SOON)
        assert sorted(census.tasks) == sorted(f"connect to {address.host}:{address.port}" for address in (hole, other))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there a nursery that has cancelled its tasks leaves a cycle")
@pytest.mark.parametrize("by_name", [False, True], ids=["connectx", "connect"])
@pytest.mark.parametrize("end", ["a cancel", "a win"])
async def test_attempts_that_are_cancelled_leave_no_cycle(end, by_name):
    """The frames of one would keep the sockets, the stream and the report of the whole race until a collection."""
    async with faults.echoing() as peer:
        with faults.black_hole() as hole, faults.black_hole() as other:
            gc.collect()
            gc.disable()  # what is gone then was counted, and in no cycle
            try:
                with trio.move_on_after(5 if end == "a win" else 0.1) as scope:
                    if by_name:
                        names = StaticResolver({"api.test": hole.host})
                        hosts = [("api.test", hole.port), (peer.address.host, peer.address.port)]
                        hosts = hosts if end == "a win" else [hosts[0], ("api.test", other.port)]
                        stream = await connect(hosts, 1, policy=SOON, resolver=names)
                    else:
                        last = peer.address if end == "a win" else other
                        stream = await connectx([hole.pair, last.pair], policy=SOON)
                    stream.abort()
                await trio.lowlevel.checkpoint()  # until then Trio's loop holds what it has sent into this task
                left = [each for each in gc.get_objects() if isinstance(each, race_driver._Driver)]
            finally:
                gc.enable()
    assert scope.cancelled_caught == (end == "a cancel")
    assert left == []


async def test_without_an_observer_or_establish_a_race_that_was_not_run_makes_no_driver(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a driver was made")

    monkeypatch.setattr(race_driver._Driver, "__init__", refuse)
    async with faults.echoing() as peer:
        stream = await connectx([peer.address.pair, ("192.0.2.1", 1)])
        assert outcomes(stream.report) == ["won", "not tried"]
        stream.abort()


@pytest.mark.parametrize("established", [False, True], ids=["tcp", "establish"])
def test_of_two_that_connect_at_one_instant_the_first_wins(established):
    first, second = "192.0.2.1", "192.0.2.2"
    options: Any = {"establish": as_it_is} if established else {}

    @virtual
    async def race(net: Any) -> None:
        good(net, first, rtt=0.5)
        good(net, second, rtt=0.25)
        stream = await connectx(at(first, second), policy=RacePolicy(attempt_delay=0.25), **options)
        assert outcomes(stream.report) == ["won", "lost"]
        stream.abort()

    for _ in range(20):  # Trio runs the tasks of a pass in random order
        race()


async def as_it_is(stream: TcpStream) -> TcpStream:
    return stream


@pytest.mark.parametrize("establish", [None, as_it_is], ids=["tcp", "establish"])
async def test_what_a_race_leaves_is_freed_without_the_collector(establish):
    async def through(endpoints: list[Any]) -> None:
        stream = await connectx(endpoints, policy=SOON, establish=establish)
        gone.append(weakref.ref(stream))
        stream.abort()

    gone: list[weakref.ref[TcpStream]] = []
    collecting = gc.isenabled()
    with faults.refusing() as closed, faults.black_hole() as hole:
        async with faults.echoing() as peer:
            gc.disable()
            try:
                await through([closed.pair, peer.address.pair])
                await through([hole.pair, peer.address.pair])
            finally:
                if collecting:
                    gc.enable()
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.parametrize("resolver", [StaticResolver({"api.test": "127.0.0.1"}), None], ids=["static", "system"])
async def test_a_winner_that_an_observer_was_told_of_is_freed_without_the_collector(resolver):
    collecting = gc.isenabled()
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def through() -> weakref.ref[TcpStream]:
            port = server.getsockname()[1]
            stream = await connect(
                "api.test" if resolver else "localhost", port, resolver=resolver, observer=lambda _: None
            )
            stream.abort()
            return weakref.ref(stream)

        gc.disable()
        try:
            gone = await through()
        finally:
            if collecting:
                gc.enable()
    assert gone() is None


async def test_what_a_loser_raises_too_late_is_freed_without_the_collector():
    class CutShort(OSError):
        pass

    def remembered(error: CutShort) -> CutShort:
        gone.append(weakref.ref(error))
        return error

    async def greeting(stream: TcpStream) -> TcpStream:
        if stream.peer.port == silent.address.port:
            try:
                await stream.receive_some()
            except trio.ClosedResourceError:
                raise remembered(CutShort(errno.ECONNRESET, "the winner closed this")) from None
        return stream

    gone: list[weakref.ref[CutShort]] = []
    collecting = gc.isenabled()
    async with faults.echoing() as silent, faults.echoing() as peer:
        gc.disable()
        try:
            (await connectx([silent.address.pair, peer.address.pair], policy=SOON, establish=greeting)).abort()
        finally:
            if collecting:
                gc.enable()
    assert [ref() for ref in gone] == [None]


# --- through a factory ------------------------------------------------------------------------------------------------


@virtual
async def test_line_45_what_fails_inside_connect_through_a_factory_sets_no_floor(net):
    for n, code in enumerate((errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL), 1):
        net.host(f"192.0.2.{n}").unreachable(code)
    net.host("192.0.2.9").unreachable(errno.EHOSTUNREACH)
    good(net, "192.0.2.10")
    stream = await connectx(at(*(f"192.0.2.{n}" for n in (1, 2, 3, 4, 9, 10))))
    assert list(starts(stream.report).values()) == [0, 0, 0, 0, 0, 10]
    stream.abort()


@virtual
async def test_line_45_the_same_errors_from_the_network_do(net):
    net.host("192.0.2.1").unreachable(errno.ENETUNREACH, after=0.002)
    good(net, "192.0.2.2")
    stream = await connectx(at("192.0.2.1", "192.0.2.2"))
    assert list(starts(stream.report).values()) == [0, 10]
    stream.abort()


async def test_a_factory_that_makes_no_sockets_fails_locally():
    def prepare(_sock: socket.socket) -> None:
        raise OSError(errno.EMFILE, "none left")

    factory = PassThroughFactory(prepare)
    previous = trio.socket.set_custom_socket_factory(factory)
    try:
        with pytest.raises(ConnectFailed, match=r"local: ") as caught:
            await connectx([("127.0.0.1", 9), ("127.0.0.1", 10)])
    finally:
        trio.socket.set_custom_socket_factory(previous)
    assert caught.value.errno == errno.EMFILE
    assert [(a.phase, a.errno) for a in caught.value.attempts] == [("socket", errno.EMFILE)] * 2


async def test_a_factory_that_raises_what_is_no_oserror_is_heard():
    def prepare(_sock: socket.socket) -> None:
        raise Bug

    factory = PassThroughFactory(prepare)
    previous = trio.socket.set_custom_socket_factory(factory)
    try:
        with pytest.raises(Bug):
            await connectx([("127.0.0.1", 9)])
    finally:
        trio.socket.set_custom_socket_factory(previous)


# --- observers --------------------------------------------------------------------------------------------------------


@virtual
async def test_an_observer_hears_everything_in_order(net):
    dead(net, "192.0.2.1")
    net.host("192.0.2.2").refuse(0.1)
    good(net, "192.0.2.3", "192.0.2.4")

    async def establish(stream: TcpStream) -> TcpStream:
        if stream.peer.host == "192.0.2.3":
            await trio.sleep(1)
            raise EstablishFailed
        return stream

    recorder = Recorder()
    stream = await connectx(
        at("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"), observer=recorder, establish=establish
    )
    told: list[tuple[Any, ...]] = []
    for event in recorder.events:
        match event:
            case AttemptStarted(attempt, endpoint, source, cause):
                assert source is None
                told.append((round(event.at * 1000), "started", attempt, endpoint.host[-1], cause))
            case AttemptConnected(attempt, endpoint):
                told.append((round(event.at * 1000), "connected", attempt, endpoint.host[-1], None))
            case AttemptFinished(attempt, endpoint, outcome, phase, code):
                told.append((round(event.at * 1000), outcome, attempt, endpoint.host[-1], (phase, code)))
            case _:
                told.append((round(event.at * 1000), type(event).__name__))
    assert told == [
        (0, "started", 0, "1", "first"),
        (250, "started", 1, "2", "delay"),
        (350, "failed", 1, "2", ("connect", errno.ECONNREFUSED)),
        (350, "started", 2, "3", "failure"),
        (370, "connected", 2, "3", None),
        (620, "started", 3, "4", "delay"),
        (640, "connected", 3, "4", None),
        (640, "lost", 0, "1", ("connect", None)),
        (640, "lost", 2, "3", ("establish", None)),
        (640, "won", 3, "4", ("establish", None)),
        (640, "RaceFinished"),
    ]
    assert recorder.report is stream.report
    stream.abort()


@pytest.mark.parametrize("fails_at", range(4))
async def test_an_observer_that_raises_is_logged_and_dropped(fails_at, caplog, sockets: Sockets):
    heard = []

    def observer(event) -> None:
        heard.append(event)
        if len(heard) == fails_at + 1:
            raise Bug

    async with no_leaks(counters=sockets.counters), faults.echoing() as peer:
        with faults.refusing() as refused, caplog.at_level(logging.ERROR, "trio_connect"):
            stream = await connectx([refused.pair, peer.address.pair], observer=observer)
        assert len(heard) == fails_at + 1
        assert "an observer raised" in caplog.text
        assert "Bug" in caplog.text
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        await stream.aclose()


@virtual
async def test_events_and_report_agree_when_a_loser_had_just_connected(net):
    # Both handshakes end at 300 ms; the first one to establish at once wins, the other has not been heard of.
    good(net, "192.0.2.1", rtt=0.3)
    good(net, "192.0.2.2", rtt=0.05)

    async def establish(stream: TcpStream) -> TcpStream:
        return stream

    for _ in range(20):
        recorder = Recorder()
        stream = await connectx(at("192.0.2.1", "192.0.2.2"), establish=establish, observer=recorder)
        finished = [event for event in recorder.events if isinstance(event, AttemptFinished)]
        for event in finished:
            row = recorder.report.attempts[event.attempt]
            assert (event.outcome, event.phase, event.errno) == (row.outcome, row.phase, row.errno)
        stream.abort()
