"""What counts as a failure of a destination, and what does not. Numbers in ids are those of the invariants."""

from __future__ import annotations

import errno

import pytest
import trio

from tests.outbound.kit import FAR, NEAR, at, connects, fails, good, opened, refusing, rules, silent, until_due, words
from tests.support import faults
from tests.support.sweep import Step, sweep
from trio_connect import ConnectFailed, DeadlineExceeded, EstablishFailed, TcpStream, now
from trio_connect.outbound import (
    Candidate,
    Destination,
    DestinationDelayed,
    DestinationFailed,
    OutboundEvent,
    RequeueOne,
)


@pytest.mark.parametrize("n", [1, 2, 5])
async def test_1_it_opens_on_exactly_the_nth_exhausted_plan(vnet, autojump_clock, n):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=n)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for count in range(1, n):
            assert isinstance(await fails(dest), RequeueOne)
            assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", count)
        decision = await fails(dest)
        assert isinstance(decision, DestinationDelayed)
        assert (dest.snapshot().state, dest.snapshot().failures) == ("open", n)
        assert decision.until == dest.snapshot().until == now() + 1000
    assert len(vnet.trace.connections) == n


async def test_1_zero_never_opens(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(30):
            assert isinstance(await fails(dest), RequeueOne)
        assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", 30)


async def test_2_failures_are_counted_over_all_sources_together(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    events: list[OutboundEvent] = []
    async with opened(rules(failures_to_delay=6), sources=[NEAR, FAR], observer=events.append) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(5):
            assert isinstance(await fails(dest), RequeueOne)
        assert isinstance(await fails(dest), DestinationDelayed)
    assert {event.source for event in events if event.what == "failed"} == {NEAR, FAR}


async def test_3_a_plan_with_several_failed_addresses_counts_once(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1", "192.0.2.2", "2001:db8::1")
    async with opened() as out:
        dest = out.destination("a", candidates=at("192.0.2.1", "192.0.2.2", "2001:db8::1"))
        with pytest.raises(ConnectFailed) as caught:
            await connects(dest)
        assert len(caught.value.attempts) == len(caught.value.errors) == 3
        assert dest.snapshot().failures == 1


async def test_4_a_failed_address_beside_a_good_one_counts_0_and_is_in_cooldown(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2")
    async with opened() as out:
        dest = out.destination("a", candidates=[*_in_order("192.0.2.1", "192.0.2.2")])
        connection = await connects(dest)
        assert connection.candidate.endpoint.host == "192.0.2.2"
        snapshot = dest.snapshot()
        assert (snapshot.failures, snapshot.state) == (0, "closed")
        (row,) = snapshot.addresses
        assert (str(row.endpoint), row.failures) == ("192.0.2.1:25", 1)
        # Dated from when it failed, and not from when the call was over.
        refused = next(each for each in connection.stream.report.attempts if each.outcome == "failed")
        assert refused.ended is not None
        assert row.until == now() - round(1000 * (trio.current_time() - refused.ended)) + 1000


def _in_order(*addresses: str) -> list[Candidate]:
    return [Candidate((address, 25), priority) for priority, address in enumerate(addresses)]


async def test_5_success_sets_failures_and_openings_to_0(vnet, autojump_clock):
    host = vnet.host("192.0.2.1").listen(25, None).refuse()
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        await fails(dest)
        await until_due(dest)
        await fails(dest)
        assert (dest.snapshot().failures, dest.snapshot().openings) == (3, 2)
        host.recover()
        await until_due(dest)
        await connects(dest)
        assert (dest.snapshot().failures, dest.snapshot().openings, dest.snapshot().until) == (0, 0, -1)
        host.refuse()
        await fails(dest)
        assert dest.snapshot().state == "closed"


async def test_6_tcp_without_handshake_resets_nothing_and_the_plan_goes_on(vnet, autojump_clock):
    refusing(vnet, "192.0.2.9")
    good(vnet, "192.0.2.1", "192.0.2.2")

    async def nobody_greets(stream: TcpStream) -> None:
        raise EstablishFailed("no greeting")

    async def second_greets(stream: TcpStream) -> str:
        if stream.peer.host == "192.0.2.1":
            raise EstablishFailed("421")
        return "hello"

    async with opened() as out:
        dest = out.destination("a", candidates=_in_order("192.0.2.1", "192.0.2.2"))
        await fails(dest, establish=nobody_greets)
        assert dest.snapshot().failures == 1
        assert len(vnet.trace.connections) == 2
        await fails(dest, establish=nobody_greets)
        assert dest.snapshot().failures == 2
        connection = await connects(dest, establish=second_greets)
        assert (connection.result, connection.stream.peer.host) == ("hello", "192.0.2.2")
        assert dest.snapshot().failures == 0
        assert [row.outcome for row in connection.stream.report.attempts] == ["failed", "won"]


async def test_7_a_cancel_at_any_step_changes_nothing():
    used: list[Destination] = []
    connected: list[Destination] = []
    async with opened() as out:

        async def greeting(stream: TcpStream) -> None:
            await stream.send_all(b"hello")
            await stream.receive_exactly(5)

        async def use(peer: faults.Peer) -> None:
            candidates = [Candidate((peer.address.host, 9), 0), Candidate(peer.address.pair, 1)]
            dest = out.destination(peer.address.host, candidates=candidates)
            used.append(dest)
            async with dest.connect(establish=greeting):
                connected.append(dest)

        async def check(_peer: faults.Peer, step: Step) -> None:
            for dest in used:
                after = dest.snapshot()
                assert (after.state, after.failures, after.waiting) == ("closed", 0, 0)
                assert all(row.held == 0 for row in after.limits)
                # That of the first address is known from a connect that was won, and from no other.
                assert bool(after.addresses) == bool(connected), step
                dest.reset()
            used.clear()
            connected.clear()

        summary = await sweep(use, environment=faults.echoing, check=check)
        assert sum(endings["cancelled"] for endings in summary.endings().values()) > 10


async def test_7_cancelled_or_too_late_is_nobodys_failure(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        before = dest.snapshot()
        with trio.move_on_after(1):
            await connects(dest)
        with pytest.raises(DeadlineExceeded) as caught:
            await connects(dest, now() + 500)
        assert caught.value.report is not None
        assert [row.outcome for row in caught.value.report.attempts] == ["cancelled"]
        with pytest.raises(DeadlineExceeded):
            await connects(dest, 0)
        with trio.CancelScope() as scope:
            scope.cancel()
            await connects(dest)
        assert dest.snapshot() == before


async def test_7_our_own_timeouts_count(vnet, autojump_clock):
    silent(vnet, "192.0.2.1", "192.0.2.2")
    async with opened(rules(attempt_timeout=2.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        with pytest.raises(DestinationFailed) as caught:
            await connects(dest, now() + 60_000)
        assert caught.value.errno == errno.ETIMEDOUT
        assert trio.current_time() == pytest.approx(2.0)
        assert dest.snapshot().failures == 1
    async with opened(rules(attempt_timeout=50.0, connect_timeout=3.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1", "192.0.2.2"))
        began = trio.current_time()
        with pytest.raises(DestinationFailed, match=r"all 2 attempts .* \(timed out: 2\)") as caught:
            await connects(dest, now() + 60_000)
        assert trio.current_time() - began == pytest.approx(3.0)
        assert isinstance(caught.value.decision, RequeueOne)
        assert caught.value.errno == errno.ETIMEDOUT
        assert caught.value.report is not None
        assert {(row.outcome, row.reason) for row in caught.value.report.attempts} == {
            ("timed out", "took longer than connect_timeout")
        }
        assert (dest.snapshot().failures, len(dest.snapshot().addresses)) == (1, 2)


async def test_8_time_on_an_established_connection_is_not_connect_time(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(connect_timeout=3.0, attempt_timeout=2.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        async with dest.connect(now() + 4_000) as connection:
            await trio.sleep(1000)
            await connection.stream.send_all(b"still here")
        snapshot = dest.snapshot()
        assert (snapshot.failures, snapshot.addresses, snapshot.state) == (0, (), "closed")


async def test_a_failure_is_dated_when_it_happens(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    events: list[OutboundEvent] = []
    async with opened(rules(failures_to_delay=1, attempt_timeout=7.0), observer=events.append) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        assert trio.current_time() == pytest.approx(7.0)
        assert dest.snapshot().until == pytest.approx(now() + 1000, abs=1)
        assert dest.snapshot().addresses[0].until == pytest.approx(now() + 1000, abs=1)
    assert words(events) == ["admitted", "failed"]
