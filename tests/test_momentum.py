"""Connections by callback: exactly one, exactly once, and nothing of it outlives its outbound."""

from __future__ import annotations

import errno
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.outbound.kit import BROKEN, FAR, NEAR, at, connects, good, opened, refusing, rules, silent, starts, until_due
from tests.support import faults
from tests.support.sweep import Step, sweep
from trio_connect import MailRecord, Source, StaticResolver
from trio_connect.momentum import ConnectionHandle, initiate_connection
from trio_connect.outbound import (
    Candidate,
    Destination,
    DestinationDelayed,
    DestinationFailed,
    DestinationRejected,
    NotAdmitted,
    Outbound,
    Rate,
    RequeueOne,
    RetryAt,
    SourceSuspended,
)
from trio_connect.testing import VirtualNetwork


@pytest.fixture(autouse=True)
def nothing_stays_open(request: pytest.FixtureRequest):
    network: VirtualNetwork | None = request.getfixturevalue("vnet") if "vnet" in request.fixturenames else None
    yield
    assert network is None or network.open_sockets == ()


@attrs.define(eq=False)
class Calls:
    """What was called back, in order."""

    seen: list[tuple[str, ConnectionHandle]] = attrs.field(factory=list)
    more: trio.Event = attrs.field(factory=trio.Event)

    def finish(self, handle: ConnectionHandle, user_data: Any) -> None:
        self._note("finish", handle, user_data)

    def timeout(self, handle: ConnectionHandle, user_data: Any) -> None:
        self._note("timeout", handle, user_data)

    def _note(self, which: str, handle: ConnectionHandle, user_data: Any) -> None:
        assert user_data is handle.user_data
        assert (handle.connection is None) != (handle.error is None)
        self.seen.append((which, handle))
        self.more.set()
        self.more = trio.Event()

    async def wait_for(self, count: int) -> None:
        while len(self.seen) < count:
            await self.more.wait()

    @property
    def words(self) -> list[str]:
        return [
            which if handle.error is None else f"{which} {type(getattr(handle.error, 'decision', None)).__name__}"
            for which, handle in self.seen
        ]

    def initiate(self, out: Outbound, dest: Destination, source: Source | None = None) -> ConnectionHandle:
        return initiate_connection(out, dest, source, self.finish, self.timeout, object())


async def known(dest: Destination) -> Destination:
    """Have the addresses of a destination looked up, so that what stands in the way is told at once."""
    await connects(dest)
    return dest


async def test_a_connection_is_called_back_once_and_lives_until_it_is_closed(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    async with opened() as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        handle = calls.initiate(out, dest)
        assert calls.seen == []
        assert repr(handle) == "<trio_connect.momentum.ConnectionHandle to a, connecting>"
        await calls.wait_for(1)
        assert calls.words == ["finish"]
        assert handle.connection is not None
        assert handle.connection.stream.peer.host == "192.0.2.1"
        assert handle.connection.source is None
        assert repr(handle) == "<trio_connect.momentum.ConnectionHandle to a, connected>"
        await trio.sleep(1000)
        assert dest.snapshot().limits[-1].held == 1
        handle.cancel()
        await trio.sleep(1)
        assert dest.snapshot().limits[-1].held == 1
        handle.close()
        handle.close()
        await trio.sleep(1)
        assert [row.held for row in dest.snapshot().limits] == [0, 0]
        with pytest.raises(trio.ClosedResourceError):
            await handle.connection.stream.send_all(b"")
        assert calls.words == ["finish"]


async def test_a_failure_is_an_error_of_the_handle_with_the_decision(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        calls.initiate(out, dest)
        await calls.wait_for(1)
        handle = calls.initiate(out, dest)
        await calls.wait_for(2)
        assert calls.words == ["finish RequeueOne", "finish DestinationDelayed"]
        assert isinstance(handle.error, DestinationFailed)
        assert handle.error.errno == errno.ECONNREFUSED
        assert repr(handle) == "<trio_connect.momentum.ConnectionHandle to a, failed>"
        with pytest.raises(DestinationDelayed):
            calls.initiate(out, dest)
        await until_due(dest)
        calls.initiate(out, dest)
        await calls.wait_for(3)
        assert len(starts(vnet)) == 3


async def test_time_has_a_callback_of_its_own(vnet, autojump_clock):
    silent(vnet, "192.0.2.1", "192.0.2.2")
    calls = Calls()
    async with opened(rules(attempt_timeout=5.0)) as out:
        for n, addresses in enumerate([["192.0.2.1"], ["192.0.2.1", "192.0.2.2"]], 1):
            handle = calls.initiate(out, out.destination(f"{n}", candidates=at(*addresses)))
            await calls.wait_for(n)
            assert isinstance(handle.error, DestinationFailed)
            assert handle.error.errno == errno.ETIMEDOUT
        assert calls.words == ["timeout RequeueOne"] * 2


async def test_the_time_of_the_whole_plan_is_time_too(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(attempt_timeout=9.0, connect_timeout=2.0)) as out:
        calls.initiate(out, out.destination("a", candidates=at("192.0.2.1")))
        await calls.wait_for(1)
        assert trio.current_time() == pytest.approx(2.0, abs=0.1)
    assert calls.words == ["timeout RequeueOne"]


async def test_what_cannot_start_is_raised_and_nothing_is_called_back(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(max_connections=2, max_connecting=3, failures_to_delay=1)) as out:
        dest = await known(out.destination("a", candidates=at("192.0.2.1")))
        calls.initiate(out, dest)
        calls.initiate(out, dest)
        # Their places are taken at once, and not when their tasks have begun.
        with pytest.raises(RetryAt, match="2 of 2 connections from any source to a are held"):
            calls.initiate(out, dest)
        await calls.wait_for(2)
        with pytest.raises(RetryAt):
            calls.initiate(out, dest)
        calls.seen[0][1].close()
        await trio.sleep(1)
        dest.suspend(-1, reason="by hand")
        with pytest.raises(SourceSuspended, match="by hand"):
            calls.initiate(out, dest)
        dest.reset()
        vnet.host("192.0.2.1").refuse()
        calls.initiate(out, dest)
        await calls.wait_for(3)
        with pytest.raises(DestinationDelayed):
            calls.initiate(out, dest)
        await trio.sleep(1000)
    assert calls.words == ["finish", "finish", "finish DestinationDelayed"]


async def test_who_waits_goes_first(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(rate=Rate(1, 60.0))) as out, trio.open_nursery() as nursery:
        dest = await known(out.destination("a", candidates=at("192.0.2.1")))
        nursery.start_soon(connects, dest)
        await trio.sleep(1)
        assert dest.snapshot().waiting == 1
        with pytest.raises(RetryAt, match="1 calls wait already"):
            calls.initiate(out, dest)


async def test_what_needs_a_lookup_is_told_by_finish(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = StaticResolver(
        {"mx.test": "192.0.2.1"}, mx={"a.test": [MailRecord("mx.test", 10)], "no.test": [MailRecord(".", 0)]}
    )
    calls = Calls()
    async with opened(rules(max_connecting=1), resolver=resolver) as out:
        for n, (domain, word) in enumerate([("no.test", "finish DestinationRejected"), ("a.test", "finish")], 1):
            calls.initiate(out, out.mx(domain))
            await calls.wait_for(n)
            assert calls.words[-1] == word
        # Both wait for the answer, and then only one has room.
        fresh = out.mx("A.test")
        calls.initiate(out, fresh)
        calls.initiate(out, fresh)
        await calls.wait_for(4)
    assert sorted(calls.words[2:]) == ["finish", "finish RetryAt"]
    rejected = calls.seen[0][1].error
    assert isinstance(rejected, DestinationRejected)
    assert "null MX" in str(rejected)


async def test_a_lookup_that_fails_is_told_by_finish(vnet, autojump_clock):
    calls = Calls()

    async def broken() -> list[Candidate]:
        raise KeyError("a bug of the caller's")

    async def away() -> list[Candidate]:
        raise OSError("the database is away")

    async with opened() as out:
        calls.initiate(out, out.destination("a", candidates=away))
        calls.initiate(out, out.destination("b", candidates=broken))
        await calls.wait_for(2)
    errors = [handle.error for _, handle in sorted(calls.seen, key=lambda call: call[1].destination.name)]
    assert isinstance(errors[0], RetryAt)
    assert isinstance(errors[1], KeyError)


async def test_only_the_source_that_was_asked_for_is_used(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(max_connecting=9), sources=[NEAR, FAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(8):
            calls.initiate(out, dest, FAR)
        await calls.wait_for(8)
        assert {handle.connection.source for _, handle in calls.seen if handle.connection} == {FAR}
        assert [handle.source for _, handle in calls.seen] == [FAR] * 8
        assert {row.name: row.held for row in dest.snapshot().limits}["connections from far to a"] == 8


async def test_a_source_that_is_full_is_not_replaced(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(max_connections=1), sources=[NEAR, FAR]) as out:
        dest = await known(out.destination("a", candidates=at("192.0.2.1")))
        calls.initiate(out, dest, FAR)
        with pytest.raises(RetryAt, match="from far"):
            calls.initiate(out, dest, FAR)
        calls.initiate(out, dest, None)
        await calls.wait_for(2)
    assert {handle.connection.source for _, handle in calls.seen if handle.connection} == {NEAR, FAR}


async def test_a_source_that_cannot_be_bound_is_told_as_itself(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(failures_to_delay=1), sources=[NEAR, BROKEN]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        handle = calls.initiate(out, dest, BROKEN)
        await calls.wait_for(1)
        assert isinstance(handle.error, SourceSuspended)
        assert handle.error.source == BROKEN
        assert isinstance(handle.error.__cause__, OSError)
        assert handle.error.seconds == pytest.approx(60.0, abs=0.01)
        after = dest.snapshot()
        assert (after.failures, after.state, after.addresses) == (0, "closed", ())
        with pytest.raises(SourceSuspended):
            calls.initiate(out, dest, BROKEN)
        calls.initiate(out, dest, NEAR)
        await calls.wait_for(2)
    assert calls.words == ["finish SourceSuspended", "finish"]


async def test_one_source_without_a_route_proves_nothing(vnet, autojump_clock):
    vnet.host("192.0.2.1").unreachable(errno.ENETUNREACH)
    calls = Calls()
    async with opened(rules(failures_to_delay=1), sources=[NEAR, FAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        calls.initiate(out, dest, NEAR)
        await calls.wait_for(1)
        assert dest.snapshot().failures == 0
        # Asked for any, all agree.
        calls.initiate(out, dest, None)
        await calls.wait_for(2)
        assert dest.snapshot().failures == 1
    assert calls.words == ["finish RequeueOne", "finish DestinationDelayed"]


async def test_a_probe_is_one_also_from_one_source(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(failures_to_delay=1), sources=[NEAR, FAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        calls.initiate(out, dest, NEAR)
        await calls.wait_for(1)
        with pytest.raises(DestinationDelayed, match="has failed too often"):
            calls.initiate(out, dest, NEAR)
        await until_due(dest)
        calls.initiate(out, dest, NEAR)
        for source in (NEAR, FAR, None):
            with pytest.raises(DestinationDelayed, match="is being tried by another call"):
                calls.initiate(out, dest, source)
        await calls.wait_for(2)
        assert len(starts(vnet)) == 2


async def test_a_cancelled_probe_leaves_its_place_to_the_next(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        calls.initiate(out, dest)
        await calls.wait_for(1)
        await until_due(dest)
        probe = calls.initiate(out, dest)
        await trio.sleep(1)
        probe.cancel()
        await trio.sleep(1)
        assert dest.snapshot().state == "probing"
        calls.initiate(out, dest)
        await calls.wait_for(2)
        assert dest.snapshot().openings == 2
    assert calls.words == ["timeout DestinationDelayed"] * 2


@pytest.mark.parametrize("source", [NEAR, None])
@pytest.mark.parametrize("after", [None, 0.0, 0.005])
async def test_cancel_gives_no_callback_and_counts_nothing(vnet, autojump_clock, after, source):
    silent(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(failures_to_delay=1), sources=[NEAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        handle = calls.initiate(out, dest, source)
        if after is not None:
            await trio.sleep(after)
        handle.cancel()
        assert repr(handle) == "<trio_connect.momentum.ConnectionHandle to a, given up>"
        await trio.sleep(100)
        snapshot = dest.snapshot()
        assert (snapshot.failures, snapshot.state, snapshot.addresses) == (0, "closed", ())
        assert all(row.held == 0 for row in snapshot.limits)
    assert calls.seen == []


async def test_a_cancelled_start_gives_its_places_back(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    async with opened(rules(max_connections=1)) as out:
        dest = await known(out.destination("a", candidates=at("192.0.2.1")))
        calls.initiate(out, dest).close()
        await trio.sleep(1)
        calls.initiate(out, dest)
        await calls.wait_for(1)
    assert calls.words == ["finish"]


async def test_leaving_the_block_closes_everything_without_callbacks(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    silent(vnet, "192.0.2.2")
    calls = Calls()
    async with opened() as out:
        up, down = (out.destination(f"{n}", candidates=at(f"192.0.2.{n}")) for n in (1, 2))
        calls.initiate(out, up)
        calls.initiate(out, down)
        await calls.wait_for(1)
        calls.initiate(out, up)
        calls.initiate(out, up)
    assert calls.words == ["finish"]
    assert calls.seen[0][1].connection is not None
    with pytest.raises(trio.ClosedResourceError):
        await calls.seen[0][1].connection.stream.send_all(b"")
    with pytest.raises(RuntimeError):
        calls.initiate(out, up)
    assert all(row.held == 0 for row in up.snapshot().limits)
    await trio.sleep(1000)
    assert calls.words == ["finish"]


async def test_no_callback_when_the_connect_ends_in_the_step_of_the_cancel(vnet, autojump_clock):
    """What a task has woken up with is not taken back by a cancel, so the callback has to look."""
    good(vnet, "192.0.2.1", rtt=1.0)
    refusing(vnet, "192.0.2.2", after=1.0)
    for end in ("cancel", "close", "leave"):
        calls = Calls()
        async with opened() as out:
            handles = [calls.initiate(out, out.destination(f"{n}", candidates=at(f"192.0.2.{n}"))) for n in (1, 2)]
            await trio.sleep(1.0)
            if end != "leave":
                for handle in handles:
                    getattr(handle, end)()
                before = list(calls.seen)
                await trio.sleep(10)
                assert calls.seen == before
            else:
                before = list(calls.seen)
        assert calls.seen == before


async def test_the_callback_of_a_failure_may_initiate_the_next(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2")
    calls = Calls()
    tries: list[ConnectionHandle] = []
    async with opened(rules(max_connections=1, max_connecting=1, failures_to_delay=0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))

        def again(handle: ConnectionHandle, user_data: Any) -> None:
            tries.append(handle)
            if len(tries) < 5:
                initiate_connection(out, dest, None, again, again, user_data)
            else:
                calls.finish(handle, user_data)

        initiate_connection(out, dest, None, again, again, object())
        await calls.wait_for(1)
    assert len(set(tries)) == 5


async def test_an_error_of_a_callback_is_not_called_back(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    refusing(vnet, "192.0.2.2")
    for n in (1, 2):
        called: list[ConnectionHandle] = []

        def bad(handle: ConnectionHandle, _user_data: Any, called: list[ConnectionHandle] = called) -> None:
            called.append(handle)
            raise RetryAt("a", "from a callback", until=-1)

        with pytest.RaisesGroup(RetryAt):
            async with opened() as out:
                dest = out.destination("a", candidates=at(f"192.0.2.{n}"))
                initiate_connection(out, dest, None, bad, bad, None)
                await trio.sleep_forever()
        assert len(called) == 1
        assert all(row.held == 0 for row in dest.snapshot().limits)


async def test_a_connection_is_there_for_who_cleans_up_after_a_cancel_until_the_block_is_left(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    calls = Calls()
    with trio.CancelScope() as scope:
        async with opened() as out:
            handle = initiate_connection(
                out, out.destination("a", candidates=at("192.0.2.1")), None, calls.finish, calls.timeout, None
            )
            await calls.wait_for(1)
            assert handle.connection is not None
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                await handle.connection.stream.send_all(b"QUIT")
    assert handle.connection is not None
    with pytest.raises(trio.ClosedResourceError):
        await handle.connection.stream.send_all(b"QUIT")
    assert not out._until_left


async def unawaited(handle: ConnectionHandle, data: object) -> None:
    raise AssertionError("a callback is called, and not awaited")


async def test_bad_arguments_are_told_before_anything_happens(vnet, autojump_clock):
    calls = Calls()

    def call(*arguments: Any) -> Callable[[], ConnectionHandle]:
        return lambda: initiate_connection(*[*arguments, None])

    async with opened(sources=[NEAR]) as out, opened() as other:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        none = out.destination("none")
        for kind, text, wrong in [
            (TypeError, "out must be Outbound, got None", call(None, dest, None, calls.finish, calls.timeout)),
            (TypeError, "dest must be Destination, got 'a'", call(out, "a", None, calls.finish, calls.timeout)),
            (TypeError, "source must be a Source or None, got 1", call(out, dest, 1, calls.finish, calls.timeout)),
            (TypeError, "finish_connect must be callable, got None", call(out, dest, None, None, calls.timeout)),
            (TypeError, "timeout_func must be callable, got None", call(out, dest, None, calls.finish, None)),
            (TypeError, "finish_connect must not be async", call(out, dest, None, unawaited, calls.timeout)),
            (TypeError, "timeout_func must not be async", call(out, dest, None, calls.finish, unawaited)),
            (ValueError, "belongs to another outbound", call(other, dest, None, calls.finish, calls.timeout)),
            (ValueError, "is not a source of this outbound", call(out, dest, FAR, calls.finish, calls.timeout)),
            (ValueError, "it gives permits only", call(out, none, None, calls.finish, calls.timeout)),
        ]:
            with pytest.raises(kind, match=text):
                wrong()
        await trio.sleep(10)
    assert calls.seen == []


# --- at every step ----------------------------------------------------------------------------------------------------


async def _one_connection(
    peer: faults.Peer, calls: Calls, cancel: Callable[[ConnectionHandle], Awaitable[None]]
) -> None:
    resolver = StaticResolver({"a.test": peer.address.host})
    async with opened(resolver=resolver) as out:
        dest = out.destination("a.test", port=peer.address.port)
        handle = calls.initiate(out, dest)
        await cancel(handle)
        snapshot = dest.snapshot()
        assert (snapshot.state, snapshot.failures, snapshot.addresses) == ("closed", 0, ())


async def test_sweep_leaving_the_block_at_every_step():
    every: list[Calls] = []

    async def use(peer: faults.Peer) -> None:
        every.append(calls := Calls())

        async def talk(handle: ConnectionHandle) -> None:
            await calls.wait_for(1)
            assert handle.connection is not None
            await handle.connection.stream.send_all(b"hello")
            await handle.connection.stream.receive_exactly(5)
            handle.close()

        await _one_connection(peer, calls, talk)

    async def check(_peer: faults.Peer, step: Step) -> None:
        assert len(every[-1].seen) <= 1, step

    summary = await sweep(use, environment=faults.echoing, check=check)
    assert sum(endings["cancelled"] for endings in summary.endings().values()) > 10
    counts = Counter(len(calls.seen) for calls in every)
    assert counts[0]
    assert counts[1]


async def test_sweep_cancel_of_the_handle_after_every_number_of_passes():
    async with faults.echoing() as peer:
        called: list[int] = []
        # How many passes a connect takes differs from run to run: on until it was faster than the cancel.
        for passes in range(200):
            calls = Calls()

            async def cancel(handle: ConnectionHandle, passes: int = passes, calls: Calls = calls) -> None:
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                before = len(calls.seen)
                handle.cancel()
                await trio.testing.wait_all_tasks_blocked(0.005)
                assert len(calls.seen) == before
                assert (handle.connection is not None) == bool(before)
                assert handle.error is None

            await _one_connection(peer, calls, cancel)
            called.append(len(calls.seen))
            if called[-1] and passes >= 12:
                break
        # Both are seen: cancelled before the callback, and after it.
        assert set(called) == {0, 1}


# --- the page ---------------------------------------------------------------------------------------------------------

CODES = (
    "MX_LOOKUP_PENDING", "MX_LOOKUP_FAILED", "SMTP_NULL_MX", "NO_MXS_REACHABLE", "PROHIBITED_IP", "HOST_MAX_REACHED",
    "SOCKET", "IOCTL", "BIND", "CONNECT", "CONNECT_NETWORK", "CONNECT_TIMEOUT",
)  # fmt: skip


def test_the_page_has_every_parameter_and_every_code():
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "momentum.md").read_text(encoding="utf-8")
    first_cells = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| "))
    for parameter in ("dr", "binding", "now", "finish_connect_func", "timeout_func", "user_data", "error"):
        assert f"`{parameter}`" in first_cells
    for parameter in inspect.signature(initiate_connection).parameters:
        assert f"`{parameter}" in page
    for code in ("CONN_ACTION_REQUEUE1", "CONN_ACTION_PURGE_DOMAIN", *(f"CONN_ERR_{code}" for code in CODES)):
        assert f"`{code}`" in first_cells


# --- a program from the reference page --------------------------------------------------------------------------------

# /* What stands on Momentum's reference page, as a program: one connection for a (domain, binding) pair. */
#
# static int finish_connect(Event *ev, int type, void *closure, struct timeval *now) {
#   connection *c = closure;
#   if (connected(c)) start_delivery(c); else { note_failure(c); requeue_one(c->domain, c->binding); }
#   return 0;
# }
#
# static int connect_timeout(Event *ev, int type, void *closure, struct timeval *now) {
#   connection *c = closure;
#   note_timeout(c); requeue_one(c->domain, c->binding);
#   return 0;
# }
#
# void maintain(domain_record *dr, int binding, struct timeval *now) {
#   int error = 0;
#   connection_handle *h = initiate_connection(dr, binding, now, finish_connect, connect_timeout, queue_of(dr), &error);
#   if (h) return;
#   if (error & CONN_ACTION_REQUEUE1) requeue_one(dr, binding);
#   if (error & CONN_ACTION_PURGE_DOMAIN) purge_domain(dr);
#   if (failures_of(dr) >= mx_failures_to_delay(dr)) delay_domain(dr, now);
#   if (error == CONN_ERR_BIND) suspend_binding(binding);
#   if (error == CONN_ERR_HOST_MAX_REACHED || error == CONN_ERR_MX_LOOKUP_PENDING) try_later(dr, binding);
# }


@attrs.define
class Queue:
    """What a mail program keeps for a domain."""

    active: int
    delivered: int = 0
    timeouts: int = 0
    delayed_until: int | None = None
    requeued: int = 0
    purged: bool = False
    log: list[str] = attrs.field(factory=list)


class Program:
    """The program above, line by line."""

    def __init__(self, out: Outbound) -> None:
        self.out = out

    def finish_connect(self, handle: ConnectionHandle, queue: Queue) -> None:
        if handle.connection is not None:  # if (connected(c))
            queue.active -= 1
            queue.delivered += 1
            handle.close()
        else:
            self.obey(handle.error, queue)

    def connect_timeout(self, handle: ConnectionHandle, queue: Queue) -> None:
        queue.timeouts += 1
        self.obey(handle.error, queue)

    def maintain(self, dr: Destination, binding: Source | None, queue: Queue) -> None:
        try:
            initiate_connection(self.out, dr, binding, self.finish_connect, self.connect_timeout, queue)
        except NotAdmitted as error:  # h == NULL
            self.obey(error, queue)

    def obey(self, error: Any, queue: Queue) -> None:
        decision = error.decision
        queue.log.append(type(decision).__name__)
        if isinstance(decision, RequeueOne):  # error & CONN_ACTION_REQUEUE1
            queue.requeued += 1
        elif isinstance(decision, DestinationRejected):  # error & CONN_ACTION_PURGE_DOMAIN
            queue.active, queue.purged = 0, True
        elif isinstance(decision, DestinationDelayed):  # failures_of(dr) >= mx_failures_to_delay(dr)
            queue.delayed_until = decision.until
        else:  # SourceSuspended is CONN_ERR_BIND; RetryAt is CONN_ERR_HOST_MAX_REACHED
            assert isinstance(decision, SourceSuspended | RetryAt)


async def test_a_program_from_the_reference_page_transliterates_line_by_line(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    refusing(vnet, "192.0.2.2")
    silent(vnet, "192.0.2.3")
    resolver = StaticResolver(
        {f"mx.{name}": f"192.0.2.{n}" for n, name in enumerate(["up.test", "refusing.test", "silent.test"], 1)},
        mx={
            **{name: [MailRecord(f"mx.{name}", 10)] for name in ("up.test", "refusing.test", "silent.test")},
            "null.test": [MailRecord(".", 0)],
        },
    )
    async with opened(rules(failures_to_delay=3, max_connecting=1), resolver=resolver, sources=[NEAR, BROKEN]) as out:
        program = Program(out)
        queues: dict[str, Queue] = {}
        for name, binding in [
            ("up.test", NEAR),
            ("refusing.test", NEAR),
            ("silent.test", None),
            ("null.test", None),
        ]:
            queue = queues[name] = Queue(active=4)
            dr = out.mx(name)
            for _ in range(4):
                program.maintain(dr, binding, queue)
                await trio.sleep(60 if name != "refusing.test" else 0.5)
        busy = queues["busy"] = Queue(active=2)
        program.maintain(out.mx("up.test"), BROKEN, busy)
        await trio.sleep(1)
        program.maintain(out.mx("up.test"), BROKEN, busy)
        program.maintain(out.mx("up.test"), NEAR, busy)
        program.maintain(out.mx("up.test"), NEAR, busy)
        await trio.sleep(1)
    assert (queues["up.test"].delivered, queues["up.test"].log) == (4, [])
    refused = queues["refusing.test"]
    assert (refused.requeued, refused.log) == (2, ["RequeueOne"] * 2 + ["DestinationDelayed"] * 2)
    assert refused.delayed_until is not None
    timed_out = queues["silent.test"]
    assert (timed_out.timeouts, timed_out.log) == (4, ["RequeueOne"] * 2 + ["DestinationDelayed"] * 2)
    assert (queues["null.test"].purged, queues["null.test"].log) == (True, ["DestinationRejected"] * 4)
    assert busy.log == ["SourceSuspended", "SourceSuspended", "RetryAt"]
    assert busy.delivered == 1
