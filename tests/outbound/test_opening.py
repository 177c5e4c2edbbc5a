"""Opening and probing. Numbers in ids are those of the invariants."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.outbound.kit import (
    BROKEN,
    NEAR,
    Census,
    at,
    connects,
    decision_of,
    fails,
    good,
    opened,
    refusing,
    rules,
    silent,
    starts,
    until_due,
    words,
)
from trio_connect import now
from trio_connect.outbound import (
    Backoff,
    Destination,
    DestinationDelayed,
    Outbound,
    OutboundEvent,
    OutboundPolicy,
    RequeueOne,
)
from trio_connect.testing import VirtualNetwork


async def an_open_one(
    out: Outbound, vnet: VirtualNetwork, *, name: str = "a", address: str = "192.0.2.1"
) -> Destination:
    """A destination whose circuit has just opened; what listens there is not there."""
    vnet.host(address).listen(25, None).refuse()
    dest = out.destination(name, candidates=at(address))
    while dest.snapshot().state == "closed":
        await fails(dest)
    return dest


async def test_15_while_open_no_socket_is_made(vnet, autojump_clock, monkeypatch):
    async with opened(rules(failures_to_delay=1)) as out:
        dest = await an_open_one(out, vnet)
        made = []
        real = trio.socket.socket

        def counted(*given: Any, **named: Any) -> trio.socket.SocketType:
            made.append(given)
            return real(*given, **named)

        monkeypatch.setattr(trio.socket, "socket", counted)
        before = len(vnet.trace.connections)
        for _ in range(10):
            decision = await fails(dest, now() + 500)
            assert isinstance(decision, DestinationDelayed)
            assert decision.misses_deadline
            assert isinstance(await fails(dest, 0), DestinationDelayed)
        with pytest.raises(DestinationDelayed):
            async with dest.try_connect():
                pass
        assert len(vnet.trace.connections) == before
        assert made == []


async def test_15_nothing_is_looked_up_while_open(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    vnet.dns("a.test", a=["192.0.2.1"])
    policy = rules(failures_to_delay=1, delay=Backoff(initial=300.0, maximum=300.0, jitter=0.0), max_dns_ttl=1.0)
    async with opened(policy) as out:
        dest = out.destination("a.test", port=25)
        await fails(dest)
        asked = len(vnet.trace.lookups)
        await trio.sleep(60)
        await fails(dest, now() + 1_000)
        assert len(vnet.trace.lookups) == asked


@pytest.mark.parametrize("seed", range(5))
async def test_16_until_is_later_than_now_and_within_the_cap_and_its_jitter(vnet, autojump_clock, seed):
    law = Backoff(initial=1.0, multiplier=3.0, maximum=20.0, jitter=0.2)
    async with opened(OutboundPolicy(failures_to_delay=1, delay=law), seed=seed) as out:
        dest = await an_open_one(out, vnet)
        for step in range(6):
            ahead = dest.snapshot().until - now()
            mean = min(20.0, 3.0**step)
            assert 0 < mean * 800 <= ahead <= mean * 1200 + 1
            await until_due(dest)
            await fails(dest)


@pytest.mark.parametrize("limit", [1, 2])
async def test_17_when_due_so_many_probe_however_many_wait(vnet, autojump_clock, limit):
    async with opened(rules(failures_to_delay=1, probe_limit=limit, max_connecting=9)) as out:
        dest = await an_open_one(out, vnet)
        silent(vnet, "192.0.2.1")
        before = len(starts(vnet))
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(_ignoring, dest)
            await until_due(dest)
            await trio.sleep(0.1)
            assert dest.snapshot().state == "probing"
            assert len(starts(vnet)) - before == limit
            await trio.sleep(9)
            assert len(starts(vnet)) - before == limit
            assert dest.snapshot().waiting == 50 - limit
            nursery.cancel_scope.cancel()
    assert vnet.trace.live_max == limit


async def _ignoring(dest: Destination, deadline: int = -1) -> None:
    await fails(dest, deadline)


async def test_17_a_known_delay_is_waited_for_only_within_the_deadline(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1)) as out:
        dest = await an_open_one(out, vnet)
        vnet.host("192.0.2.1").recover()
        good(vnet, "192.0.2.1")
        began = trio.current_time()
        assert isinstance(await fails(dest, now() + 999), DestinationDelayed)
        assert trio.current_time() == began
        with trio.move_on_after(0.5) as scope:
            assert isinstance(await fails(dest), DestinationDelayed)
        assert not scope.cancelled_caught, "a scope's deadline counts like one's own"
        await connects(dest, now() + 1_100)
        assert trio.current_time() == pytest.approx(began + 1.02, abs=0.01)


async def test_18_a_probe_that_succeeds_wakes_all_and_they_come_by_and_by(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1, max_connecting=2)) as out:
        dest = await an_open_one(out, vnet)
        vnet.host("192.0.2.1").recover()
        good(vnet, "192.0.2.1", rtt=0.100)
        done = []

        async def use() -> None:
            async with dest.connect(now() + 60_000):
                done.append(trio.current_time())
                await trio.sleep(5)

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(use)
        # One probe; then two at a time, each pair as soon as the one before is through.
        first = done[0]
        assert [round(at - first, 3) for at in done] == [0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]


async def test_18_permits_come_by_and_by_too(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1, max_connecting=2, max_connections=8)) as out:
        dest = out.destination("a")
        with pytest.raises(OSError, match="down"):
            async with dest.permit():
                raise OSError("down")
        held = []

        async def use() -> None:
            async with dest.permit():
                held.append(trio.current_time())
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for _ in range(14):
                nursery.start_soon(use)
        counts = [held.count(at) for at in sorted(set(held))]
        assert counts == [1, 2, 4, 7]


async def test_19_a_probe_that_fails_opens_at_once_with_the_next_delay(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=3)) as out:
        dest = await an_open_one(out, vnet)
        delays = [1000, 1600, 2560]
        for openings, delay in enumerate(delays, 1):
            snapshot = dest.snapshot()
            assert (snapshot.state, snapshot.openings) == ("open", openings)
            assert snapshot.until == pytest.approx(now() + delay, abs=1)
            await until_due(dest)
            assert isinstance(await fails(dest), DestinationDelayed)


async def test_20_a_cancelled_probe_frees_its_place_and_the_next_waiter_probes(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1)) as out:
        dest = await an_open_one(out, vnet)
        silent(vnet, "192.0.2.1")
        await until_due(dest)
        before = len(starts(vnet))
        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def probe() -> None:
                with first:
                    await connects(dest)

            nursery.start_soon(probe)
            await trio.sleep(0.1)
            nursery.start_soon(_ignoring, dest)
            await trio.sleep(0.1)
            assert len(starts(vnet)) - before == 1
            first.cancel()
            await trio.sleep(0.1)
            assert len(starts(vnet)) - before == 2
            assert dest.snapshot().openings == 1
            nursery.cancel_scope.cancel()


async def test_20_so_does_a_probe_whose_source_failed(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1), sources=[NEAR, BROKEN], seed=1) as out:
        dest = await an_open_one(out, vnet)
        vnet.host("192.0.2.1").recover()
        good(vnet, "192.0.2.1")
        dest.suspend(-1, NEAR)
        await until_due(dest)
        generation = dest.snapshot().generation
        await fails(dest, now() + 1)
        assert (dest.snapshot().state, dest.snapshot().openings) == ("probing", 1)
        assert dest.snapshot().generation == generation
        out.destination("a")._state.shared.suspensions.lift([(dest._state, s) for s in dest._state.shared.sources])
        await connects(dest, now() + 100)
        assert dest.snapshot().state == "closed"


async def test_21_a_probe_whose_owner_does_not_say_how_it_went_loses_its_place(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1, connect_timeout=5.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        good(vnet, "192.0.2.1")
        with pytest.raises(OSError, match="down"):
            async with dest.permit():
                raise OSError("down")
        await until_due(dest)
        async with dest.permit():
            # It is held for longer than a probe has its place.
            began = trio.current_time()
            await connects(dest, now() + 20_000)
            assert trio.current_time() == pytest.approx(began + 10.02)
        assert dest.snapshot().state == "closed"


@pytest.mark.parametrize("late", ["failure", "success"])
async def test_22_what_an_older_generation_reports_is_ignored(vnet, autojump_clock, late):
    refusing(vnet, "192.0.2.1")
    events: list[OutboundEvent] = []
    async with opened(rules(failures_to_delay=1), observer=events.append) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        before = dest._state.circuit.health
        try:
            async with dest.permit():
                await fails(dest)
                before = dest._state.circuit.health
                if late == "failure":
                    raise OSError("as late as this")
        except OSError:
            assert late == "failure"
        assert dest._state.circuit.health == before
        assert before.state == "open"
    assert words(events)[-1] == "late"


async def test_23_a_reset_closes_at_once_and_wakes_who_waits(vnet, autojump_clock):
    policy = rules(failures_to_delay=1, delay=Backoff(initial=600.0, maximum=600.0, jitter=0.0))
    async with opened(policy) as out:
        dest = await an_open_one(out, vnet)
        vnet.host("192.0.2.1").recover()
        good(vnet, "192.0.2.1")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(connects, dest)
            await trio.sleep(3)
            assert dest.snapshot().waiting == 5
            dest.reset()
            snapshot = dest.snapshot()
            assert (snapshot.state, snapshot.until, snapshot.failures, snapshot.openings) == ("closed", -1, 0, 0)
            assert snapshot.addresses == ()
        assert trio.current_time() < 3.1


async def test_23_a_reset_lifts_suspensions_and_wakes_others_too(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(sources=[NEAR]) as out:
        one = out.destination("one", candidates=at("192.0.2.1"), group="g")
        other = out.destination("other", candidates=at("192.0.2.1"), group="g")
        async with one.connect() as connection:
            connection.overloaded(600.0)
        one.suspend(-1)
        assert len(one.snapshot().suspensions) == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connects, other)
            await trio.sleep(1)
            assert other.snapshot().waiting == 1
            one.reset()
            assert one.snapshot().suspensions == ()
        assert trio.current_time() < 1.1


async def test_23_a_call_under_way_when_it_is_reset_counts_nothing(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=1, attempt_timeout=5.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ignoring, dest)
            await trio.sleep(2)
            dest.reset()
        assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", 0)


async def test_24_two_destinations_opened_together_come_back_apart(vnet, autojump_clock):
    async with opened(OutboundPolicy(failures_to_delay=1)) as out:
        untils = set()
        for number in range(1, 6):
            dest = await an_open_one(out, vnet, name=f"d{number}", address=f"192.0.2.{number}")
            untils.add(dest.snapshot().until - now())
        assert len(untils) == 5
    # The same seed gives the same times.
    async with opened(OutboundPolicy(failures_to_delay=1)) as out:
        again = set()
        for number in range(1, 6):
            dest = await an_open_one(out, vnet, name=f"d{number}", address=f"192.0.2.{number}")
            again.add(dest.snapshot().until - now())
    assert again == untils


async def test_one_candidate_only_opening_is_failing_fast(vnet, autojump_clock):
    """Where there is one address, nothing else can be chosen: who waits is told at once instead of each timing out."""
    silent(vnet, "192.0.2.1")
    async with opened(rules(attempt_timeout=10.0, failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        await fails(dest)
        assert trio.current_time() == pytest.approx(20.0)
        assert isinstance(await fails(dest, now() + 100), DestinationDelayed)
        assert trio.current_time() == pytest.approx(20.0)


async def test_one_candidate_only_and_switched_off(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    async with opened(rules(attempt_timeout=10.0, failures_to_delay=0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for number in range(1, 8):
            assert isinstance(await fails(dest), RequeueOne)
            assert trio.current_time() == pytest.approx(10.0 * number)


async def test_ends_of_probes_are_counted_once_under_many_tasks(vnet, autojump_clock):
    """Many tasks, a host that comes and goes: nobody hangs, and the caps hold at every instant."""
    host = vnet.host("192.0.2.1").listen(25, None, rtt=0.05)
    census = Census(4)
    async with opened(rules(failures_to_delay=2, max_connections=4, attempt_timeout=1.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        served = []

        async def use(number: int) -> None:
            while True:
                try:
                    async with dest.connect(now() + 30_000):
                        with census:
                            await trio.sleep(0.2)
                        served.append(number)
                        return
                except Exception as exc:  # noqa: BLE001 - decisions of any kind
                    await trio.sleep(decision_of(exc).seconds)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(use, number)
            for _ in range(3):
                await trio.sleep(0.3)
                host.blackhole()
                await trio.sleep(2.5)
                host.recover()
        assert sorted(served) == list(range(40))
