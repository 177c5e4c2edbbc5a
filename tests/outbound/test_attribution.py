"""Whom a failure is charged to. Numbers in ids are those of the invariants."""

from __future__ import annotations

import errno

import pytest
import trio

from tests.outbound.kit import BOTH, BROKEN, FAR, LOCAL6, NEAR, at, connects, fails, good, opened, refusing, rules
from tests.support import faults
from trio_connect import ConnectFailed, EstablishFailed, Source, TcpStream, now
from trio_connect.outbound import (
    Candidate,
    DestinationDelayed,
    DestinationRejected,
    NotAdmitted,
    RequeueOne,
    RetryAt,
    SourceSuspended,
)
from trio_connect.testing._factory import Factory


@pytest.fixture
def no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Factory, "socket", refuse)


THREE = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
BROKEN_TOO = Source("192.0.2.78", name="broken, too")


async def test_9_a_source_that_cannot_be_bound_is_suspended_and_another_goes_on(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(sources=[BROKEN, NEAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(20):
            connection = await connects(dest)
            assert connection.source == NEAR
        (suspension,) = dest.snapshot().suspensions
        assert suspension.source == BROKEN
        assert now() < suspension.until <= now() + 60_000
        assert dest.snapshot().failures == 0
        # Its time over, it is tried again, in one call with the other.
        await trio.sleep(61)
        for _ in range(20):
            assert (await connects(dest)).source == NEAR
        assert dest.snapshot().suspensions[0].until > now() + 50_000


async def test_10_a_failure_of_the_source_leaves_the_destination_bit_for_bit_unchanged(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(sources=[BROKEN]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        before = dest._state.circuit.health
        await fails(dest)
        assert dest._state.circuit.health == before
        snapshot = dest.snapshot()
        assert snapshot.addresses == ()
        assert all(row.held == 0 for row in snapshot.limits)


async def test_10_ports_used_up_towards_one_address_are_the_paths(vnet, autojump_clock):
    vnet.host("192.0.2.1").unreachable(errno.EADDRNOTAVAIL)
    async with opened(rules(failures_to_delay=1), sources=[NEAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        before = dest._state.circuit.health
        decision = await fails(dest)
        assert isinstance(decision, RequeueOne)
        assert "no local port is left" in decision.cause
        assert decision.until == now() + 1000
        assert dest._state.circuit.health == before
        assert dest.snapshot().suspensions == ()


async def test_11_with_all_sources_suspended_the_earliest_end_is_told(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(sources=[BROKEN, BROKEN_TOO]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        dest.suspend(now() + 5_000, BROKEN_TOO, reason="maintenance")
        decision = await fails(dest)
        assert isinstance(decision, SourceSuspended)
        assert (decision.source, decision.until) == (BROKEN_TOO, now() + 5_000)
        assert "maintenance" in decision.cause
        # And so is one who asks later, and would not wait so long.
        await trio.sleep(1)
        again = await fails(dest, now() + 1_000)
        assert isinstance(again, SourceSuspended)
        assert (again.until, again.source, again.misses_deadline) == (decision.until, BROKEN_TOO, True)


async def test_11_connect_waits_for_a_source_when_its_time_comes_before_the_deadline(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(sources=[NEAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        dest.suspend(now() + 5_000)
        await connects(dest, now() + 6_000)
        assert trio.current_time() == pytest.approx(5.02)


@pytest.mark.usefixtures("no_descriptors")
async def test_12_out_of_descriptors_opens_no_circuit(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1", "192.0.2.2"))
        before = dest._state.circuit.health
        for _ in range(10):
            decision = await fails(dest)
            assert isinstance(decision, RetryAt)
            assert decision.until == now() + 1000
            assert "descriptors" in decision.cause
        assert dest._state.circuit.health == before
        assert dest.snapshot().addresses == ()


@pytest.mark.parametrize("prohibited", ["skip", "reject"])
async def test_13_a_prohibited_address_is_never_dialled(vnet, autojump_clock, prohibited):
    good(vnet, "192.0.2.1", "192.0.2.2")
    policy = rules(prohibited=prohibited)
    async with opened(policy, address_filter=lambda endpoint: endpoint.host != "192.0.2.1") as out:
        dest = out.destination("a", candidates=at("192.0.2.1", "192.0.2.2"))
        if prohibited == "skip":
            for _ in range(10):
                await connects(dest)
        else:
            decision = await fails(dest)
            assert isinstance(decision, DestinationRejected)
            assert decision.until == -1
            assert "192.0.2.1:25" in decision.cause
        assert "192.0.2.1" not in vnet.trace.starts


async def test_13_nothing_but_prohibited_addresses_is_rejected(vnet, autojump_clock):
    async with opened(address_filter=lambda _: False) as out:
        decision = await fails(out.destination("a", candidates=at("192.0.2.1")))
        assert isinstance(decision, DestinationRejected)
    assert vnet.trace.connections == ()


async def test_14_a_source_never_reaches_the_other_family_and_that_is_no_failure(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "2001:db8::1")
    only6 = Source(ipv6=LOCAL6, name="only 6")
    async with opened(sources=[NEAR, only6]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1", "2001:db8::1"))
        seen = set()
        for _ in range(20):
            connection = await connects(dest)
            seen.add((connection.source, connection.stream.peer.host))
        assert seen == {(NEAR, "192.0.2.1"), (only6, "2001:db8::1")}
        assert dest.snapshot().addresses == ()


async def test_14_no_source_of_the_family_is_told_at_once_and_counts_nothing(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1), sources=[NEAR]) as out:
        dest = out.destination("a", candidates=at("2001:db8::1"))
        decision = await fails(dest)
        assert isinstance(decision, RequeueOne)
        assert "no address of the family" in decision.cause
        assert dest.snapshot().failures == 0
        assert trio.current_time() == 0
    assert vnet.trace.connections == ()


async def test_14_also_for_one_who_waits_when_it_becomes_so(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "2001:db8::1")
    hosts = at("192.0.2.1")

    async def discover() -> list[tuple[str, int]]:
        return hosts

    async with opened(rules(max_connections=1), sources=[NEAR]) as out:
        dest = out.destination("a", candidates=discover)
        decisions: list[NotAdmitted] = []

        async def wait() -> None:
            decisions.append(await fails(dest))

        async with dest.connect(), trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(31)
            hosts[:] = at("2001:db8::1")
            nursery.start_soon(wait)
            await trio.sleep(1)
            assert [type(decision) for decision in decisions] == [RequeueOne, RequeueOne]
        assert dest.snapshot().failures == 0


async def test_33_a_failed_call_says_whether_its_time_is_too_late(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened() as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        assert (await fails(dest, now() + 500)).misses_deadline
        assert not (await fails(dest, now() + 5_000)).misses_deadline


async def test_no_route_from_one_source_leaves_the_rest_to_another(vnet, autojump_clock):
    vnet.host("2001:db8::1").unreachable(errno.ENETUNREACH)
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=1), sources=[BOTH, NEAR]) as out:
        dest = out.destination("a", candidates=at("2001:db8::1", "192.0.2.1"))
        assert isinstance(await fails(dest), DestinationDelayed)


@pytest.mark.parametrize("full", [False, True], ids=["all_agree", "one_could_not_be_asked"])
async def test_no_route_counts_when_every_usable_source_agrees(vnet, autojump_clock, full):
    vnet.host("192.0.2.1").unreachable(errno.EHOSTUNREACH, 0.010)
    good(vnet, "192.0.2.2")
    async with opened(rules(max_connections=1), sources=[NEAR, FAR], seed=3) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"), group="g")
        other = out.destination("b", candidates=at("192.0.2.2"), group="g")
        if full:
            async with other.connect():
                decision = await fails(dest)
        else:
            decision = await fails(dest)
        assert isinstance(decision, RequeueOne)
        assert dest.snapshot().failures == (0 if full else 1)
    assert len(starts_of(vnet)) == (1 if full else 2)


def starts_of(net) -> list[float]:
    return [row.started for row in net.trace.connections if row.host == "192.0.2.1"]


# On the kernel's own sockets


async def test_9_a_source_that_the_kernel_cannot_bind():
    async with faults.echoing() as peer, opened(sources=[BROKEN, Source("127.0.0.9", name="here")]) as out:
        dest = out.destination("a", candidates=[peer.address.pair])
        for _ in range(10):
            connection = await connects(dest)
            assert connection.source == Source("127.0.0.9", name="here")
        (suspension,) = dest.snapshot().suspensions
        assert suspension.source == BROKEN
        assert "assign requested address" in suspension.reason
        assert dest.snapshot().failures == 0


async def test_12_out_of_the_kernels_descriptors():
    async with faults.echoing() as peer, opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a", candidates=[peer.address.pair])
        await connects(dest)
        # The peer needs a descriptor to accept.
        while peer.ended < 1:
            await trio.lowlevel.checkpoint()
        with faults.descriptors_exhausted():
            decision = await fails(dest)
        assert isinstance(decision, RetryAt)
        assert isinstance(decision.__cause__, ConnectFailed)
        assert decision.__cause__.errno == errno.EMFILE
        assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", 0)
        await connects(dest)


async def test_6_a_refusal_by_the_kernel():
    with faults.refusing() as address:
        async with opened(rules(failures_to_delay=1)) as out:
            dest = out.destination("a", candidates=[address.pair])
            assert isinstance(await fails(dest), DestinationDelayed)


async def test_a_decision_says_that_there_are_more_reasons_than_it_names(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2", "192.0.2.3")

    async def busy(stream: TcpStream) -> None:
        raise EstablishFailed(f"{stream.peer.host} is busy")

    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=[Candidate(endpoint, n) for n, endpoint in enumerate(at(*THREE))])
        decision = await fails(dest, establish=busy)
        assert decision.cause == "every address failed (connection refused, 192.0.2.2 is busy and 1 more)"
        decision = await fails(dest, establish=busy)
        assert type(decision) is DestinationDelayed
        assert decision.cause.endswith(" and 1 more)")
