"""The test kit detects what it is there to detect."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.faults import Peer
from tests.support.leaks import Census, Kind, LeakError, leaks_since, no_leaks
from tests.support.sockets import PassThroughFactory, PassThroughSocket, Sockets, through_both_kinds
from tests.support.sweep import CANCELLING, Mode, Step, SweepFailure, VacuousSweep, repeated, sweep

FAMILIES = [
    pytest.param(socket.AF_INET, id="ipv4"),
    pytest.param(socket.AF_INET6, id="ipv6"),
]


def kinds(error: LeakError) -> set[tuple[Kind, bool]]:
    return {(leak.kind, leak.until_gc) for leak in error.leaks}


def open_descriptor(stack: contextlib.ExitStack) -> int:
    number = os.open(os.devnull, os.O_RDONLY)
    stack.callback(os.close, number)
    return number


# The census: each detector detects.


async def test_a_clean_body_passes() -> None:
    async with no_leaks():
        left, right = trio.socket.socketpair()
        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.recv, 1)
                await right.send(b"x")
        await trio.to_thread.run_sync(lambda: None)


async def test_a_clean_body_passes_under_a_mock_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with no_leaks():
        await trio.sleep(1000)
    assert trio.current_time() == pytest.approx(1000)


async def test_the_check_takes_no_time(mock_clock: trio.testing.MockClock) -> None:
    with contextlib.ExitStack() as stack:
        before = Census.take()
        open_descriptor(stack)
        assert await leaks_since(before)
    assert trio.current_time() == 0


async def test_an_exception_is_not_hidden_by_what_it_left() -> None:
    with contextlib.ExitStack() as stack, pytest.raises(ZeroDivisionError):
        async with no_leaks():
            open_descriptor(stack)
            raise ZeroDivisionError


async def test_a_descriptor_is_detected() -> None:
    with contextlib.ExitStack() as stack, pytest.raises(LeakError, match="leaked: descriptor /dev/null") as caught:
        async with no_leaks():
            open_descriptor(stack)
    assert kinds(caught.value) == {("descriptor", False)}


async def test_a_descriptor_balanced_by_a_close_is_detected() -> None:
    with contextlib.ExitStack() as stack:
        other, _ = pair = socket.socketpair()
        stack.enter_context(pair[0])
        stack.enter_context(pair[1])
        with pytest.raises(LeakError, match="socket:") as caught:
            async with no_leaks():
                count = len(os.listdir("/proc/self/fd"))
                number = other.fileno()
                other.close()
                new = stack.enter_context(socket.socket())
                assert new.fileno() == number
                assert len(os.listdir("/proc/self/fd")) == count
    assert kinds(caught.value) == {("descriptor", False)}


async def test_a_duplicate_of_a_descriptor_is_detected() -> None:
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        with pytest.raises(LeakError):
            async with no_leaks():
                stack.enter_context(sock.dup())


async def test_a_task_is_detected() -> None:
    scope = trio.CancelScope()

    async def stay() -> None:
        with scope:
            await trio.sleep_forever()

    with pytest.raises(LeakError, match=r"leaked: task .*stay") as caught:
        async with no_leaks():
            trio.lowlevel.spawn_system_task(stay)
    scope.cancel()
    assert kinds(caught.value) == {("task", False)}


async def test_a_task_that_never_parks_is_detected() -> None:
    stop = False

    async def spin() -> None:
        while not stop:
            await trio.lowlevel.checkpoint()

    with pytest.raises(LeakError, match="spin"):
        async with no_leaks():
            trio.lowlevel.spawn_system_task(spin)
    stop = True


async def test_a_thread_is_detected() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="left behind")
    with pytest.raises(LeakError, match="leaked: thread left behind") as caught:
        async with no_leaks():
            thread.start()
    done.set()
    thread.join()
    assert kinds(caught.value) == {("thread", False)}


async def test_an_abandoned_worker_is_detected_unless_allowed() -> None:
    done = threading.Event()

    async def abandon() -> None:
        def work() -> None:
            trio.from_thread.run_sync(scope.cancel)
            done.wait()

        with trio.CancelScope() as scope:
            await trio.to_thread.run_sync(work, abandon_on_cancel=True)

    try:
        # A worker that was idle before, and has a job now, is seen as well as a new one.
        await trio.to_thread.run_sync(lambda: None)
        with pytest.raises(LeakError, match=r"leaked: thread .*work from") as caught:
            async with no_leaks():
                await abandon()
        assert kinds(caught.value) == {("thread", False)}
        async with no_leaks(ignore_threads=r"work from "):
            await abandon()
    finally:
        done.set()


async def test_a_worker_that_has_not_started_is_detected() -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    with pytest.raises(LeakError, match="worker slots: 0 became 1"):
        async with no_leaks():
            limiter.acquire_on_behalf_of_nowait(limiter)
    limiter.release_on_behalf_of(limiter)


async def test_a_dropped_socket_is_detected() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever filters the test runs under
        with pytest.raises(LeakError, match="unraisable ResourceWarning") as caught:
            async with no_leaks():
                trio.socket.socket()
    # Counting found it closed by then; it is what the finaliser said that gives it away.
    assert kinds(caught.value) == {("unraisable", False)}


async def test_a_coroutine_never_awaited_is_detected() -> None:
    with pytest.raises(LeakError, match="never awaited"):
        async with no_leaks():
            trio.lowlevel.checkpoint()  # type: ignore[unused-coroutine]  # noqa: ASYNC105


async def test_an_exception_in_a_finaliser_is_detected() -> None:
    class Bad:
        def __del__(self) -> None:
            raise RuntimeError("from the finaliser")

    with pytest.raises(LeakError, match="from the finaliser") as caught:
        async with no_leaks():
            Bad()
    assert kinds(caught.value) == {("unraisable", False)}


async def test_what_only_the_collector_frees_is_reported_as_such() -> None:
    with pytest.raises(LeakError, match="leaked until GC: descriptor socket") as caught:
        async with no_leaks():
            cycle: list[object] = [socket.socket()]
            cycle.append(cycle)
            del cycle
    assert kinds(caught.value) == {("descriptor", True), ("unraisable", True)}


async def test_the_hooks_are_put_back() -> None:
    hook = sys.unraisablehook
    async with no_leaks():
        assert sys.unraisablehook is not hook
        assert not gc.isenabled()
    assert sys.unraisablehook is hook
    assert gc.isenabled()


async def test_a_waiter_is_detected() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with trio.open_nursery() as nursery:
            with pytest.raises(LeakError, match=r"tasks_waiting_read: [0-9]+ became") as caught:
                async with no_leaks():
                    nursery.start_soon(trio.lowlevel.wait_readable, left)
                    await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert kinds(caught.value) == {("waiter", False), ("task", False)}


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_socket_in_syn_sent_is_detected(family: socket.AddressFamily) -> None:
    with faults.black_hole(family) as hole, socket.socket(family) as sock:
        sock.setblocking(False)
        # The socket was there before, so that only its state can give it away.
        with pytest.raises(LeakError, match=r"connecting socket:.* in SYN_SENT") as caught:
            async with no_leaks():
                assert sock.connect_ex(hole.pair) == errno.EINPROGRESS
        assert kinds(caught.value) == {("connecting", False)}


@pytest.mark.parametrize("family", FAMILIES)
async def test_syn_sent_that_nobody_here_holds_is_detected_by_port(
    family: socket.AddressFamily,
) -> None:
    with faults.black_hole(family) as hole, contextlib.ExitStack() as stack:
        with pytest.raises(LeakError, match="held by none") as caught:
            async with no_leaks(ports=[hole.port]):
                sock = socket.socket(family)
                sock.setblocking(False)
                sock.connect_ex(hole.pair)
                # A descriptor in flight between two sockets is in nobody's table.
                left, _ = map(stack.enter_context, socket.socketpair())
                socket.send_fds(left, [b"x"], [sock.fileno()])
                sock.close()
        assert ("connecting", False) in kinds(caught.value)


async def test_a_table_that_grew_is_detected() -> None:
    table: list[int] = []
    with pytest.raises(LeakError, match="counter tokens: 0 became 1") as caught:
        async with no_leaks(counters={"tokens": lambda: len(table)}):
            table.append(1)
    assert kinds(caught.value) == {("counter", False)}


# The sweep, on connects that are right and wrong.

Connect = Callable[[Peer], Awaitable[trio.SocketStream]]


async def good_connect(peer: Peer) -> trio.SocketStream:
    sock = trio.socket.socket(peer.address.family)
    try:
        await sock.connect(peer.address.pair)
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


held: list[trio.socket.SocketType] = []
"""What the faulty ones leak, kept so that no finaliser tidies up."""


async def connect_leaking_at_its_second_step(peer: Peer) -> trio.SocketStream:
    sock = trio.socket.socket(peer.address.family)
    held.append(sock)
    try:
        await trio.lowlevel.checkpoint()
    except trio.Cancelled:
        sock.close()
        raise
    await trio.lowlevel.checkpoint()
    await sock.connect(peer.address.pair)
    return trio.SocketStream(sock)


async def connect_losing_its_winner(peer: Peer) -> trio.SocketStream:
    stream = await good_connect(peer)
    held.append(stream.socket)
    await trio.lowlevel.checkpoint()
    return stream


@pytest.fixture
async def release_held() -> AsyncIterator[None]:
    yield
    while held:
        held.pop().close()


async def test_a_right_connect_passes_over_either_kind_of_socket(sockets: Sockets) -> None:
    checked: list[Step] = []

    async def check(peer: Peer, step: Step) -> None:
        checked.append(step)
        assert peer.ended == peer.accepted

    rounds = repeated(5)
    summary = await sweep(
        good_connect, environment=faults.echoing, rounds=rounds, counters=sockets.counters, check=check
    )
    assert tuple(checked) == summary.runs
    assert summary.steps >= 2
    for mode in CANCELLING:
        endings = summary.endings(mode)
        assert endings[1]["cancelled"] or mode == "neighbour"
    # Two decided outcomes: cancelled while parked, and up when the cancel came too late.
    assert summary.endings("after")[1]["cancelled"] == rounds
    undisturbed = [run for run in summary.runs if not run.disturbed]
    assert len(undisturbed) == rounds * len(CANCELLING)
    assert all(run.ending == "returned" for run in undisturbed)


async def test_both_kinds_by_hand() -> None:
    async def one(sockets: Sockets) -> int:
        summary = await sweep(good_connect, environment=faults.echoing, rounds=2)
        return summary.steps

    steps = await through_both_kinds(one)
    assert list(steps) == ["kernel", "factory"]
    assert all(count >= 2 for count in steps.values())


async def test_trios_own_connect_passes() -> None:
    async def connect(peer: Peer) -> trio.SocketStream:
        return await trio.open_tcp_stream(*peer.address.pair)

    summary = await sweep(connect, environment=faults.echoing, rounds=3)
    assert summary.steps >= 4


@pytest.mark.parametrize("mode", CANCELLING)
async def test_a_leak_only_when_cancelled_at_one_step_is_found(mode: Mode, release_held: None) -> None:
    with pytest.raises(LeakError, match=f"by mode {mode}.*: cancelled") as caught:
        await sweep(connect_leaking_at_its_second_step, environment=faults.echoing, modes=[mode], rounds=20)
    assert {leak.kind for leak in caught.value.leaks} == {"descriptor"}
    # Parked at the second checkpoint it leaks: once step 2 has ended, until step 3 begins.
    if mode in ("before", "after"):
        assert f"round 1, step {3 if mode == 'before' else 2}:" in str(caught.value)


async def test_a_lost_winner_is_found(release_held: None) -> None:
    with pytest.raises(LeakError, match="cancelled"):
        await sweep(connect_losing_its_winner, environment=faults.echoing, rounds=20)


async def test_a_connect_that_trusts_cancel_to_close_fails_over_a_factory() -> None:
    async def connect(peer: Peer) -> trio.SocketStream:
        sock = trio.socket.socket(peer.address.family)
        await sock.connect(peer.address.pair)
        return trio.SocketStream(sock)

    factory = PassThroughFactory()
    with Sockets("factory", factory).installed():
        with pytest.raises(LeakError, match="sockets of the custom factory: 0 became 1"):
            await sweep(connect, environment=faults.echoing, modes=["after"], counters=factory.counters)
        factory.close_all()


async def test_an_operation_that_cannot_be_cancelled_is_vacuous() -> None:
    async def deaf(peer: Peer) -> None:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(await good_connect(peer))

    with pytest.raises(VacuousSweep, match="no run was ever cancelled"):
        await sweep(deaf, environment=faults.echoing, rounds=1)


async def test_an_operation_that_never_parks_is_not_vacuous() -> None:
    async def inline(peer: Peer) -> socket.socket:
        await trio.lowlevel.checkpoint_if_cancelled()
        sock = socket.socket(peer.address.family)
        sock.connect(peer.address.pair)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return sock

    summary = await sweep(inline, environment=faults.echoing, rounds=3)
    assert summary.endings("before") == {1: {"cancelled": 3}, 2: {"returned": 3}}
    assert summary.endings("after") == {1: {"returned": 3}}


async def test_an_unexpected_exception_is_a_failure() -> None:
    async def connect() -> None:
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise OSError("dressed up") from None

    with pytest.raises(SweepFailure, match=r"unexpected exception: .*dressed up"):
        await sweep(connect)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_refusal_is_expected_when_said_so(family: socket.AddressFamily) -> None:
    with faults.refusing(family) as address:

        async def connect() -> trio.SocketStream:
            return await good_connect(Peer(address))

        summary = await sweep(connect, raises=ConnectionRefusedError, rounds=3)
        assert any(run.ending == "raised" for run in summary.runs)
        with pytest.raises(SweepFailure, match="ConnectionRefusedError"):
            await sweep(connect, rounds=1)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_connect_that_waits_for_good_is_cancelled_where_it_parks(
    family: socket.AddressFamily,
) -> None:
    with faults.black_hole(family) as hole:

        async def connect() -> trio.SocketStream:
            return await good_connect(Peer(hole))

        with trio.fail_after(60):
            summary = await sweep(connect, rounds=2, ports=[hole.port])
    assert not any(run.ending == "returned" for run in summary.runs)
    for mode in CANCELLING:
        assert any(run.parked for run in summary.runs if run.mode == mode)


async def test_steps_of_child_tasks_count() -> None:
    async def family() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.lowlevel.checkpoint)

    alone = await sweep(trio.lowlevel.checkpoint, rounds=1)
    together = await sweep(family, rounds=1)
    assert alone.steps <= 3
    # Two steps for each child, and the parent's own.
    assert max(together.endings("before")) == 8
    assert max(together.endings("after")) >= 7


async def test_a_child_that_outlives_the_operation_is_found() -> None:
    @contextlib.asynccontextmanager
    async def nursery() -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()

    async def leave(nursery: trio.Nursery) -> None:
        await trio.lowlevel.checkpoint()
        nursery.start_soon(trio.sleep_forever)

    with pytest.raises(LeakError, match=r"task trio\.sleep_forever"):
        await sweep(leave, environment=nursery, modes=["before"])
    # Its surroundings took it away, and that may be what was wanted.
    await sweep(leave, environment=nursery, modes=["before"], rounds=1, inside=False)


async def test_deadlines_of_the_operation_fall_at_each_step(
    mock_clock: trio.testing.MockClock,
) -> None:
    async def connect(peer: Peer) -> trio.SocketStream:
        with trio.fail_after(10):
            return await good_connect(peer)

    with faults.black_hole() as hole:
        summary = await sweep(
            lambda: connect(Peer(hole)),
            modes=["clock"],
            rounds=20,
            clock=mock_clock,
            jump=10,
            raises=trio.TooSlowError,
        )
    assert {run.ending for run in summary.runs} == {"raised"}
    with pytest.raises(VacuousSweep, match="never made a run raise"):
        await sweep(connect, environment=faults.echoing, modes=["clock"], clock=mock_clock, jump=1, rounds=1)


async def test_time_passes_for_the_operation_under_an_autojump_clock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def wait() -> None:
        await trio.sleep(0.25)
        await trio.sleep(0.25)

    summary = await sweep(wait, modes=["before", "after", "deadline"], rounds=2)
    assert not any(run.parked for run in summary.runs)
    assert summary.steps >= 2


async def test_a_check_may_fail_the_sweep() -> None:
    async def check(peer: Peer, step: Step) -> None:
        assert peer.accepted == -1

    with pytest.raises(AssertionError, match="-1"):
        await sweep(good_connect, environment=faults.echoing, check=check)


# The two kinds of socket.


async def test_streams_and_listeners_work_over_either_kind(sockets: Sockets) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        # What a socket accepts is of its own kind.
        assert isinstance(stream.socket, PassThroughSocket) == (sockets.name == "factory")
        async for data in stream:
            await stream.send_all(data)

    async with no_leaks(counters=sockets.counters), trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, echo, 0)
        port = listeners[0].socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert isinstance(stream, trio.SocketStream)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            await stream.send_eof()
            assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()
    if sockets.factory is not None:
        assert sockets.factory.connects == 1


async def test_the_factory_counts_its_open_sockets() -> None:
    factory = PassThroughFactory()
    with Sockets("factory", factory).installed():
        sock = trio.socket.socket()
        assert len(factory.open) == 1
        twin = sock.dup()
        assert len(factory.open) == 2
        with pytest.raises(LeakError, match="counter"):
            async with no_leaks(counters=factory.counters):
                trio.socket.socket()
        sock.close()
        sock.close()
        twin.close()
        assert len(factory.open) == 1
        factory.close_all()
        assert not factory.open


async def test_a_factorys_socket_left_open_is_a_failure() -> None:
    sockets = Sockets.to("factory")
    with pytest.raises(AssertionError, match="left open"), sockets.installed():
        trio.socket.socket()
    assert sockets.factory is not None
    assert not sockets.factory.open
    with trio.socket.socket() as sock:
        assert sock.fileno() >= 0


async def test_a_kind_that_nobody_used_is_a_failure() -> None:
    async def nothing(sockets: Sockets) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="nobody asked"):
        await through_both_kinds(nothing)


async def test_a_factorys_descriptor_is_of_no_use() -> None:
    with Sockets.to("factory").installed():
        with trio.socket.socket() as sock:
            assert sock.fileno() == -2
            with pytest.raises((OSError, ValueError)):
                await trio.lowlevel.wait_writable(sock.fileno())
            with pytest.raises((OSError, ValueError)):
                socket.socket(fileno=sock.fileno())
            with pytest.raises(NotImplementedError):
                sock.detach()
        assert sock.fileno() == -1


async def test_a_cancelled_connect_leaves_the_factorys_socket_open() -> None:
    with faults.black_hole() as hole, Sockets.to("factory").installed(), trio.socket.socket() as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sock.connect, hole.pair)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert sock.fileno() == -2


# The faults.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_black_hole_does_not_answer(family: socket.AddressFamily) -> None:
    with faults.black_hole(family) as hole:
        for _ in range(3):
            with socket.socket(family) as sock:
                sock.setblocking(False)
                assert sock.connect_ex(hole.pair) == errno.EINPROGRESS
                assert sock.connect_ex(hole.pair) == errno.EALREADY


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refusing_port_refuses(family: socket.AddressFamily) -> None:
    with faults.refusing(family) as address, socket.socket(family) as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(address.pair)


def test_a_full_unix_backlog_says_eagain() -> None:
    with faults.full_unix_backlog() as path, socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(os.fspath(path)) == errno.EAGAIN
    assert not path.exists()


async def test_a_flood_does_not_end() -> None:
    async with no_leaks():
        async with faults.flooding() as peer, await good_connect(peer) as stream:
            total = 0
            while total < 20_000_000:
                total += len(await stream.receive_some())
        assert peer.sent >= total


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_peer_resets(family: socket.AddressFamily) -> None:
    async with no_leaks(), faults.resetting(after=3, family=family) as peer, await good_connect(peer) as stream:
        await stream.send_all(b"abc")
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_peer_greets_before_it_resets() -> None:
    async with faults.resetting(greeting=b"220 hello", after=1) as peer, await good_connect(peer) as stream:
        assert await stream.receive_some() == b"220 hello"


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_socket_connects_to_itself(family: socket.AddressFamily, sockets: Sockets) -> None:
    async with no_leaks():
        with faults.self_connecting(family) as address, trio.socket.socket(family) as sock:
            await sock.connect(address.pair)
            assert sock.getsockname() == sock.getpeername()
        assert "connect" not in vars(socket.socket)
        assert "connect_ex" not in vars(socket.socket)
        if sockets.name == "kernel":
            with (
                faults.refusing(family) as elsewhere,
                trio.socket.socket(family) as sock,
                pytest.raises(ConnectionRefusedError),
            ):
                await sock.connect(elsewhere.pair)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_ephemeral_port_makes_a_socket_connect_to_itself(family: socket.AddressFamily) -> None:
    for _ in range(10):
        # The kernel's own choice of source, so not an address of the fixture's own.
        with socket.socket(family) as sock:
            sock.bind((faults.LOOPBACK[family], 0))
            where = sock.getsockname()
        with socket.socket(family) as sock:
            try:
                faults.narrow_ports(sock, where[1])
            except OSError as exc:
                pytest.skip(f"no IP_LOCAL_PORT_RANGE here: {exc}")
            try:
                sock.connect(where)
            except OSError as exc:
                if exc.errno not in (errno.EADDRNOTAVAIL, errno.ECONNREFUSED):
                    raise
                continue  # between the two, another worker was given the port
            assert sock.getsockname() == sock.getpeername()
            return
    pytest.fail("ten ports in a row were taken by somebody else")


@pytest.mark.parametrize("spare", [0, 1, 3])
def test_descriptors_run_out_after_the_spare_ones(spare: int) -> None:
    with contextlib.ExitStack() as stack:
        with faults.descriptors_exhausted(spare):
            for _ in range(spare):
                stack.enter_context(socket.socket())
            with pytest.raises(OSError) as caught:
                stack.enter_context(socket.socket())
        assert caught.value.errno == errno.EMFILE
        stack.enter_context(socket.socket())
