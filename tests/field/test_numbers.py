"""Reports from the field, 26 to 29: deadlines, durations and sizes that look alike, and numbers that overflow."""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import KINDS, RECEIVES, Kind, connect_to, listening, pair
from trio_connect import (
    NO_DEADLINE,
    Answer,
    DeadlineExceeded,
    Endpoint,
    RaceFinished,
    RacePolicy,
    Source,
    TcpStream,
    UnixStream,
    connect,
    connectx,
    deadline_after,
    fail_at,
    libdill,
    move_on_at,
    now,
    queues,
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
    RacePolicy(**{name: 30})  # type: ignore[arg-type]
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


# --- 27: a call that begins at or after its deadline does nothing -----------------------------------------------------

LATE = "did not begin: its deadline came .* ms before the call"
AGO = pytest.mark.parametrize("ago", [0, 1, 1000])


@contextlib.asynccontextmanager
async def refused_as_late(sockets: Sockets) -> AsyncIterator[None]:
    """The block is a call that is late: a checkpoint, DeadlineExceeded, and no socket was made."""
    created = sockets.factory.created if sockets.factory else 0
    with trio.testing.assert_checkpoints(), pytest.raises(DeadlineExceeded, match=LATE) as caught:
        yield
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.transferred == 0
    assert (sockets.factory.created if sockets.factory else 0) == created


@AGO
async def test_field_27_a_late_connect_sends_nothing(sockets: Sockets, ago: int) -> None:
    """A connect that begins after its deadline opens no socket, and its report has the endpoints as not tried."""
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        endpoint = listener.endpoint
        source = Source(ipv4="127.0.0.1")
        async with refused_as_late(sockets):
            await tcp_connect(endpoint, now() - ago)
        async with refused_as_late(sockets):
            await connectx([endpoint, SILENT], now() - ago, sources=[source])
        async with refused_as_late(sockets):
            await connect("127.0.0.1", endpoint.port, now() - ago)
        async with refused_as_late(sockets):
            await unix_connect("/nowhere", now() - ago)
        with pytest.raises(DeadlineExceeded):
            await listener.accept(0)


async def test_field_27_the_report_of_a_late_connect(autojump_clock: trio.testing.MockClock) -> None:
    """The report has each endpoint as not tried and no lookup; an observer hears of the end, once."""
    await trio.sleep(1)
    resolver = Unasked()
    source = Source(ipv4="192.0.2.9")
    events: list[object] = []
    one, two = Endpoint(*SILENT), Endpoint("192.0.2.2", 443)
    calls: list[tuple[list[Endpoint], Callable[[], Awaitable[object]]]] = [
        ([one], lambda: tcp_connect(one, now() - 5)),
        ([one, two], lambda: connectx([one, two], now() - 5)),
        ([one, two], lambda: connectx([one, two], now() - 5, sources=[source])),
        ([one, two], lambda: connectx([one, two], now() - 5, establish=never)),
        ([one], lambda: connectx([one], now() - 5, observer=events.append)),
        ([], lambda: connectx(endless(), now() - 5, observer=events.append)),
        ([one], lambda: connect("192.0.2.1", 443, now() - 5)),
        ([], lambda: connect("name.test", 443, now() - 5, resolver=resolver, observer=events.append)),
        ([], lambda: resolve("name.test", 443, now() - 5, resolver=resolver)),
        ([], lambda: resolve("192.0.2.1", 443, now() - 5)),
    ]
    for endpoints, call in calls:
        with pytest.raises(
            DeadlineExceeded, match="did not begin: its deadline came 5.0 ms ".replace(".", r"\.")
        ) as caught:
            await call()
        report = caught.value.report
        assert report is not None
        assert [(attempt.endpoint, attempt.outcome) for attempt in report.attempts] == [
            (endpoint, "not tried") for endpoint in endpoints
        ]
        assert report.lookups == ()
        assert report.elapsed == 0
    assert [type(event) for event in events] == [RaceFinished] * 3


class Unasked:
    """A resolver that nobody may ask."""

    async def addresses(self, host: str, family: int, /) -> Answer:
        pytest.fail(f"asked for {host}, {family}")


async def never(stream: TcpStream) -> None:
    pytest.fail(f"established {stream}")


async def endless() -> AsyncIterator[Endpoint]:
    pytest.fail("iterated")
    yield Endpoint(*SILENT)


@AGO
@pytest.mark.parametrize("kind", KINDS)
async def test_field_27_a_late_receive_takes_nothing(sockets: Sockets, kind: Kind, ago: int) -> None:
    """A receive that begins after its deadline takes nothing, neither from the buffer nor from the kernel."""
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"ab\r\n")
        for name, receive in {**RECEIVES, "receive_exactly, 0": lambda s, d: s.receive_exactly(0, d)}.items():
            async with refused_as_late(sockets):
                await receive(near, now() - ago)
            assert near.buffered == 0, name
        assert await near.fill() == 4
        for receive in RECEIVES.values():
            async with refused_as_late(sockets):
                await receive(near, now() - ago)
        assert near.take(4) == b"ab\r\n"


@AGO
@pytest.mark.parametrize("kind", KINDS)
async def test_field_27_a_late_send_sends_nothing(sockets: Sockets, kind: Kind, ago: int) -> None:
    """A send that begins after its deadline gives the kernel nothing, and the stream stays usable."""
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        data = bytearray(b"late")
        async with refused_as_late(sockets):
            await near.send_all(data, now() - ago)
        data.append(0)  # no view of it is left
        async with refused_as_late(sockets):
            await near.send_all([], now() - ago)
        if isinstance(near, UnixStream):
            async with refused_as_late(sockets):
                await near.send_fd(0, now() - ago)
            async with refused_as_late(sockets):
                await near.receive_fd(now() - ago)
        await near.send_all(b"in time")
        assert await far.receive_some() == b"in time"


@AGO
@pytest.mark.parametrize("kind", KINDS)
async def test_field_27_a_late_accept_takes_no_connection(sockets: Sockets, kind: Kind, ago: int) -> None:
    """An accept that begins after its deadline leaves a connection that waits for the next one."""
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        near = await connect_to(listener)
        async with refused_as_late(sockets):
            await listener.accept(now() - ago)
        far = await listener.accept(0)
        near.abort()
        far.abort()


@pytest.mark.parametrize("kind", KINDS)
async def test_field_27_a_late_graceful_close_still_closes(sockets: Sockets, kind: Kind) -> None:
    """close_gracefully after its deadline closes, what was sent arrives, and the error says that it was late."""
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await near.send_all(b"last words")
        async with refused_as_late(sockets):
            await near.close_gracefully(now() - 5)
        assert near.fileno() == -1
        assert await far.receive_exactly(10) == b"last words"
        assert await far.receive_some() == b""
        await near.close_gracefully(now() - 5)  # closed already: nothing is late any more


@pytest.mark.parametrize("kind", KINDS)
async def test_field_27_closed_and_busy_are_said_first(sockets: Sockets, kind: Kind) -> None:
    """A closed or busy stream says that, rather than that the call is late."""
    late = now() - 5
    calls = {**RECEIVES, "send": lambda stream, deadline: stream.send_all(b"x", deadline)}
    async with pair(kind) as (near, _), listening(kind) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(near.receive_some)
        nursery.start_soon(listener.accept)
        await trio.testing.wait_all_tasks_blocked()
        for receive in RECEIVES.values():
            with pytest.raises(trio.BusyResourceError):
                await receive(near, late)
        with pytest.raises(trio.BusyResourceError):
            await listener.accept(late)
        nursery.cancel_scope.cancel()
        await listener.aclose()
        near.abort()
        for call in calls.values():
            with pytest.raises(trio.ClosedResourceError):
                await call(near, late)
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept(late)


async def test_field_27_an_enclosing_scope_is_heard_first(sockets: Sockets) -> None:
    """At the same instant the scope around a late call ends it, without DeadlineExceeded."""
    async with pair("tcp") as (near, _), await tcp_listen(("127.0.0.1", 0)) as listener:
        calls: list[Callable[[int], Awaitable[object]]] = [
            lambda deadline: tcp_connect(listener.endpoint, deadline),
            lambda deadline: connectx([listener.endpoint], deadline),
            lambda deadline: connect("127.0.0.1", listener.endpoint.port, deadline),
            lambda deadline: resolve("127.0.0.1", 1, deadline),
            lambda deadline: unix_connect("/nowhere", deadline),
            listener.accept,
            lambda deadline: near.send_all(b"x", deadline),
            *(lambda deadline, receive=receive: receive(near, deadline) for receive in RECEIVES.values()),
            near.close_gracefully,
        ]
        for call in calls:
            with trio.move_on_after(0) as scope:
                await call(now())
            assert scope.cancelled_caught


@pytest.mark.parametrize("kind", KINDS)
async def test_field_27_one_deadline_bounds_a_conversation(sockets: Sockets, kind: Kind) -> None:
    """A loop of receives with one deadline ends also while the peer floods."""
    async with pair(kind) as (near, far), trio.open_nursery() as nursery:

        async def flood() -> None:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                while True:
                    await far.send_all(bytes(1 << 16))

        nursery.start_soon(flood)
        for receive in (
            lambda deadline: near.receive_some(1000, deadline),
            lambda deadline: near.receive_exactly(1000, deadline),
            near.fill,
        ):
            deadline = now() + 50
            with trio.fail_after(10), pytest.raises(DeadlineExceeded):
                while True:
                    await receive(deadline)
                    near.take(near.buffered)
            assert 0 <= now() - deadline < 2000
        near.abort()
        far.abort()


async def test_field_27_queues(sockets: Sockets) -> None:
    """A late wait keeps its token and a late wait_next gives []; a late submission does nothing and says so."""
    async with await tcp_listen(("127.0.0.1", 0)) as listener, queues.open_queue_set() as qs:
        done = qs.stream().close()
        await trio.testing.wait_all_tasks_blocked()
        assert done.done
        for wait in (lambda: qs.wait(done, now()), lambda: qs.wait_any([done], now() - 5)):
            with trio.testing.assert_checkpoints(), pytest.raises(DeadlineExceeded, match=LATE):
                await wait()
        with trio.testing.assert_checkpoints():
            assert await qs.wait_next(1, now() - 5) == []
        assert (await qs.wait(done, 0)).ok
        with pytest.raises(OSError, match="claimed already"):
            await qs.wait(done, now() - 5)
        created = sockets.factory.created if sockets.factory else 0
        endpoint = listener.endpoint
        for token in (
            qs.stream().connect(endpoint, now() - 5),
            qs.connectx([endpoint], now() - 5),
            qs.datagram().connect(endpoint, now() - 5),
            qs.unix().connect("/nowhere", now() - 5),
        ):
            error = (await qs.wait(token)).error
            assert isinstance(error, DeadlineExceeded)
            assert "did not begin" in str(error)
        assert (sockets.factory.created if sockets.factory else 0) == created


async def test_field_27_libdill_has_its_single_try(sockets: Sockets) -> None:
    """The libdill layer tries once after a deadline, as libdill does."""
    async with no_leaks(counters=sockets.counters):
        address = libdill.ipaddr()
        libdill.ipaddr_local(address, "127.0.0.1", 0, 0)
        listener = await libdill.tcp_listen(address, 10)
        near = await libdill.tcp_connect(address, now() - 5)
        far = await libdill.tcp_accept(listener, None, now() - 5)
        await libdill.bsend(near, b"there", 5, now() - 5)
        data = bytearray(5)
        await libdill.brecv(far, data, 5, now() - 5)
        assert data == b"there"
        assert await libdill.msleep(now() - 5) == 0
        await libdill.ipaddr_remote(address, "127.0.0.1", 1, 0, now() - 5)
        for handle in (near, far, listener):
            libdill.hclose(handle)


# --- 28: between deadlines and scopes ---------------------------------------------------------------------------------


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
