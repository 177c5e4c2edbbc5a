"""Limits, rates and waiting. Numbers in ids are those of the invariants."""

from __future__ import annotations

from math import ceil
from random import Random

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.outbound.kit import (
    FAR,
    NEAR,
    Census,
    at,
    connects,
    decision_of,
    fails,
    good,
    opened,
    rules,
    silent,
    starts,
    until_due,
)
from tests.support import faults
from tests.support.sweep import Step, sweep
from trio_connect import DeadlineExceeded, Source, now
from trio_connect.outbound import Candidate, Destination, OutboundEvent, Overloaded, Rate, RetryAt, SourceSuspended


async def hold(dest: Destination, seconds: float, done: list[float] | None = None) -> None:
    async with dest.connect():
        if done is not None:
            done.append(trio.current_time())
        await trio.sleep(seconds)


@pytest.mark.parametrize("seed", range(4))
async def test_25_no_cap_is_exceeded_at_any_instant_in_any_interleaving(vnet, autojump_clock, seed):
    """Three destinations, two of them one group, two sources, a total: each cap has a census that fails when it is."""
    for number in (1, 2, 3):
        good(vnet, f"192.0.2.{number}", rtt=0.03 * number)
    policy = rules(max_connections=3, group_max_connections=5, total_connections=7, max_connecting=2)
    random = Random(seed)
    async with opened(policy, sources=[NEAR, FAR], seed=seed) as out:
        dests = [
            out.destination(f"d{n}", candidates=at(f"192.0.2.{n}"), group=group)
            for n, group in ((1, "g"), (2, "g"), (3, "h"))
        ]
        total, groups = Census(7), {"g": Census(5), "h": Census(5)}
        pairs: dict[tuple[Source | None, str], Census] = {(s, group): Census(3) for s in (NEAR, FAR) for group in "gh"}
        served = 0

        async def use(dest: Destination, delay: float, seconds: float, permit: bool, give_up: float) -> None:
            nonlocal served
            await trio.sleep(delay)
            with trio.move_on_after(give_up):
                async with dest.permit() if permit else dest.connect() as held:
                    group = dest.snapshot().group
                    with total, groups[group], pairs[held.source, group]:
                        await trio.sleep(seconds)
                    served += 1

        async with trio.open_nursery() as nursery:
            for _ in range(150):
                give_up = random.choice((0.05, 0.4, 100.0, 100.0))
                args = random.random() * 5, random.random(), random.random() < 0.4, give_up
                nursery.start_soon(use, random.choice(dests), *args)
        assert served > 50
        assert total.highest == 7
        assert max(census.highest for census in pairs.values()) == 3
        for dest in dests:
            assert all(row.held == 0 for row in dest.snapshot().limits)
            assert dest.snapshot().waiting == 0
    # At most two connects at a time to each, so six in all.
    assert vnet.trace.live_max <= 6


async def test_25_the_place_is_held_for_the_life_of_the_connection(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, dest, 100.0)
            await trio.sleep(1)
            done: list[float] = []
            nursery.start_soon(hold, dest, 0.0, done)
        assert done == [pytest.approx(100.04)]


async def test_26_a_refusal_by_one_limit_costs_the_others_nothing(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    policy = rules(max_connections=1, group_max_connections=9, total_connections=9, rate=Rate(1, 10.0, burst=2))
    async with opened(policy) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        async with dest.connect():
            before = dest.snapshot()
            for _ in range(20):
                with pytest.raises(RetryAt):
                    async with dest.try_connect():
                        pass
            assert dest.snapshot() == before
        # The burst has one start left.
        await connects(dest, now() + 100)
        decision = await fails(dest, now() + 100)
        assert isinstance(decision, RetryAt)
        assert decision.until == now() + round(1000 * (10.0 - trio.current_time()))


async def test_27_the_smallest_cap_binds_first(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=3, group_max_connections=2, total_connections=2, max_connecting=9)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        names = [row.cap for row in dest.snapshot().limits]
        assert names == sorted(names)
        async with dest.connect(), dest.connect():
            with pytest.raises(RetryAt, match="2 of 2 connections to a are held"):
                async with dest.try_connect():
                    pass
            assert dest.snapshot().binding == "connections to a"


async def test_28_a_waiter_that_is_cancelled_holds_nothing_and_loses_no_wakeup():
    """At every step: somebody who waits gives up just when the place becomes free, or is about to have it."""
    async with opened(rules(max_connections=1)) as out:
        number = 0

        async def use(peer: faults.Peer) -> None:
            async with out.destination(f"a{number}", candidates=[peer.address.pair]).connect():
                pass

        async def race(peer: faults.Peer) -> None:
            """The operation: it waits for a place that another task gives back a few steps later."""
            dest = out.destination(f"a{number}", candidates=[peer.address.pair])
            async with trio.open_nursery() as nursery:
                await nursery.start(holder, dest)
                await use(peer)

        async def holder(dest: Destination, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with dest.permit():
                task_status.started()
                for _ in range(3):
                    await trio.lowlevel.checkpoint()

        async def check(peer: faults.Peer, _step: Step) -> None:
            nonlocal number
            snapshot = out.destination(f"a{number}").snapshot()
            assert all(row.held == 0 for row in snapshot.limits)
            assert snapshot.waiting == 0
            with trio.fail_after(5):
                await use(peer)
            number += 1

        summary = await sweep(race, environment=faults.echoing, check=check)
        assert sum(endings["cancelled"] for endings in summary.endings().values()) > 10


async def test_28_a_place_given_to_a_waiter_that_is_already_cancelled_is_given_back(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a", candidates=[Candidate(("192.0.2.1", 25), max_connections=1, rate=Rate(1000))])
        scope = trio.CancelScope()

        async def wait() -> None:
            with scope:
                async with dest.permit():
                    raise AssertionError("it was cancelled before")

        async with trio.open_nursery() as nursery, dest.permit():
            await trio.sleep(1)
            nursery.start_soon(wait)
            await trio.sleep(1)
            # The waiter is taken out of its sleep and has not run yet when the place is free.
            scope.cancel()
        assert scope.cancelled_caught
        assert all(row.held == 0 for row in dest.snapshot().limits)
        assert (dest.snapshot().failures, dest.snapshot().waiting) == (0, 0)


async def test_28_places_pass_to_the_next_when_the_first_gives_up(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        done: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, dest, 10.0)
            await trio.sleep(1)

            async def impatient() -> None:
                with trio.move_on_after(5):
                    await connects(dest)

            for _ in range(3):
                nursery.start_soon(impatient)
            await trio.sleep(1)
            nursery.start_soon(hold, dest, 0.0, done)
        assert done == [pytest.approx(10.04)]


async def test_29_first_come_first_served(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        order: list[int] = []

        async def use(number: int) -> None:
            async with dest.connect():
                order.append(number)
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(use, number)
                await trio.testing.wait_all_tasks_blocked()
        assert order == list(range(12))


async def test_29_who_does_not_wait_does_not_overtake(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(rate=Rate(1, 10.0))) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await connects(dest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connects, dest)
            await trio.sleep(1)
            with pytest.raises(RetryAt, match="1 calls wait already"):
                async with dest.try_connect():
                    pass


async def test_29_one_backlog_does_not_block_another_under_a_total(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    async with opened(rules(total_connections=6, max_connecting=9)) as out:
        big, small, late = (out.destination(f"d{n}", candidates=at(f"192.0.2.{n}")) for n in (1, 2, 3))
        done: dict[str, list[float]] = {"big": [], "small": [], "late": []}
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(hold, big, 10.0, done["big"])
            await trio.sleep(1)
            # One place is kept back for each of the two that hold none.
            assert len(done["big"]) == 4
            nursery.start_soon(hold, small, 100.0, done["small"])
            nursery.start_soon(hold, late, 100.0, done["late"])
            await trio.sleep(1)
            assert (len(done["small"]), len(done["late"])) == (1, 1)


async def test_29_lines_take_turns_under_a_total(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    async with opened(rules(total_connections=1, reserve=0)) as out:
        one, two = (out.destination(f"d{n}", candidates=at(f"192.0.2.{n}")) for n in (1, 2))
        order: list[str] = []

        async def use(dest: Destination) -> None:
            async with dest.connect():
                order.append(dest.name)
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(use, one)
            await trio.sleep(0.5)
            for _ in range(3):
                nursery.start_soon(use, two)
        assert order == ["d1", "d1", "d2", "d1", "d2", "d1", "d2", "d1"]


@pytest.mark.parametrize("scope", ["rate", "group_rate"])
async def test_30_in_any_window_no_more_starts_than_burst_and_rate(vnet, autojump_clock, scope):
    good(vnet, "192.0.2.1")
    rate = Rate(3, 2.0, burst=4)
    random = Random(5)
    async with opened(rules(**{scope: rate}, max_connections=99)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))

        async def use(delay: float, permit: bool) -> None:
            await trio.sleep(delay)
            async with dest.permit() if permit else dest.connect():
                begun.append(trio.current_time())

        begun: list[float] = []
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(use, random.random() * 20, random.random() < 0.5)
        assert len(begun) == 60
    admitted = sorted(begun)
    for i, first in enumerate(admitted):
        for j in range(i, len(admitted)):
            # A connect takes 20 ms after its admission, a permit nothing.
            assert j - i + 1 <= rate.burst + ceil((admitted[j] - first + 0.02) * rate.count / rate.per)


async def test_31_when_all_are_throttled_the_soonest_is_told_and_nothing_counts(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    async with opened() as out:
        rates = [Rate(1, 30.0), Rate(1, 20.0), Rate(1, 40.0)]
        candidates = [Candidate((f"192.0.2.{n}", 25), n, rate=rate) for n, rate in enumerate(rates, 1)]
        dest = out.destination("a", candidates=candidates)
        for _ in range(3):
            await connects(dest)
            await trio.sleep(1)
        with pytest.raises(RetryAt) as caught:
            async with dest.try_connect():
                pass
        begun = starts(vnet, "192.0.2.2")[0]
        assert caught.value.until == now() + round(1000 * (begun + 20 - trio.current_time()))
        assert dest.snapshot().failures == 0
        # Who waits has it at that moment, from that candidate.
        connection = await connects(dest)
        assert connection.candidate.priority == 2
        assert starts(vnet, "192.0.2.2")[1] == pytest.approx(begun + 20)


async def test_31_over_sources_too(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(rate=Rate(1, 10.0)), sources=[NEAR, FAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        first = await connects(dest)
        await trio.sleep(3)
        second = await connects(dest)
        assert {first.source, second.source} == {NEAR, FAR}
        decision = await fails(dest, now() + 1)
        assert isinstance(decision, RetryAt)
        assert decision.until == now() + round(1000 * (10.0 - trio.current_time()))


async def test_32_a_throttled_level_spills_to_the_next_in_the_same_call(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    async with opened() as out:
        candidates = [Candidate(("192.0.2.1", 25), 10, rate=Rate(1, 60.0)), Candidate(("192.0.2.2", 25), 20)]
        dest = out.destination("a", candidates=candidates)
        assert [(await connects(dest)).candidate.priority for _ in range(4)] == [10, 20, 20, 20]
        await trio.sleep(60)
        assert (await connects(dest)).candidate.priority == 10


async def test_32_so_does_a_full_one(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    async with opened() as out:
        candidates = [Candidate(("192.0.2.1", 25), 10, max_connections=1), Candidate(("192.0.2.2", 25), 20)]
        dest = out.destination("a", candidates=candidates)
        async with dest.connect() as first, dest.connect() as second:
            assert (first.candidate.priority, second.candidate.priority) == (10, 20)
        async with dest.connect() as again:
            assert again.candidate.priority == 10


async def test_32_the_limits_of_an_address_that_was_not_needed_are_not_used_up(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    async with opened() as out:
        candidates = [Candidate((f"192.0.2.{n}", 25), n, max_connections=1, rate=Rate(1, 60.0)) for n in (1, 2)]
        dest = out.destination("a", candidates=candidates)
        async with dest.connect() as first, dest.connect() as second:
            assert (first.candidate.priority, second.candidate.priority) == (1, 2)


async def test_32_addresses_with_limits_are_raced_too(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    vnet.host("192.0.2.2").refuse(0.010)
    good(vnet, "192.0.2.3", "192.0.2.4")
    async with opened() as out:
        candidates = [Candidate((f"192.0.2.{n}", 25), n, max_connections=1) for n in (1, 2, 3, 4)]
        dest = out.destination("a", candidates=candidates)
        async with dest.connect() as connection:
            assert connection.candidate.priority == 3
            held = {row.name: row.held for row in dest.snapshot().limits}
            assert [held[f"connections to 192.0.2.{n}:25"] for n in (1, 2, 3, 4)] == [0, 0, 1, 0]
        assert vnet.trace.starts == {"192.0.2.1": 0.0, "192.0.2.2": 0.25, "192.0.2.3": 0.26}


async def test_32_one_that_is_full_when_its_turn_comes_is_left_out(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2", "192.0.2.3")
    async with opened() as out:
        first, second, third = (Candidate((f"192.0.2.{n}", 25), n, max_connections=1) for n in (1, 2, 3))
        dest = out.destination("a", candidates=[first, second, third], group="g")
        other = out.destination("b", candidates=[second], group="g")
        async with other.connect(), dest.connect() as connection:
            assert connection.candidate == third
        assert starts(vnet, "192.0.2.3") == [pytest.approx(0.27)]


async def test_33_a_time_beyond_the_deadline_is_said_to_be_one(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(rate=Rate(1, 10.0))) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await connects(dest)
        late = await fails(dest, now() + 5_000)
        assert late.misses_deadline
        assert "after the deadline" in str(late)
        with trio.move_on_after(5) as scope:
            assert (await fails(dest)).misses_deadline
        assert not scope.cancelled_caught
        with pytest.raises(RetryAt) as caught:
            async with dest.try_connect():
                pass
        assert not caught.value.misses_deadline
        assert caught.value.seconds == pytest.approx(10.0 - trio.current_time(), abs=0.001)


async def test_34_destinations_share_a_limit_only_by_naming_one_group(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1, rate=Rate(1, 100.0))) as out:
        alone, other = (out.destination(name, candidates=at("192.0.2.1")) for name in ("alone", "other"))
        one, two = (out.destination(name, candidates=at("192.0.2.1"), group="g") for name in ("one", "two"))
        async with alone.connect(now() + 100), other.connect(now() + 100), one.connect(now() + 100):
            with pytest.raises(RetryAt):
                async with two.try_connect():
                    pass


async def test_34_the_limit_of_an_address_is_its_groups(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened() as out:
        candidate = Candidate(("192.0.2.1", 25), max_connections=1)
        one, two = (out.destination(name, candidates=[candidate]) for name in ("one", "two"))
        async with one.connect(now() + 100), two.connect(now() + 100):
            pass


async def test_whoever_waits_behind_others_hears_at_its_deadline_what_they_wait_for(vnet, autojump_clock):
    async with opened(rules(max_connections=1)) as out, out.destination("a").permit(), trio.open_nursery() as nursery:

        async def wait(milliseconds: int) -> None:
            with pytest.raises(DeadlineExceeded, match=r"1 of 1 connections from any source to a are held"):
                async with out.destination("a").permit(now() + milliseconds):
                    pass

        for milliseconds in (1000, 500, 500, 1000):
            nursery.start_soon(wait, milliseconds)
            await trio.testing.wait_all_tasks_blocked()


async def test_a_slot_of_unknown_length_ends_in_deadline_exceeded(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        async with dest.connect():
            with pytest.raises(
                DeadlineExceeded, match=r"admission to a .*\(1 of 1 connections from any source to a are held\)"
            ) as caught:
                await connects(dest, now() + 500)
            assert caught.value.report is not None
            assert caught.value.report.elapsed == pytest.approx(0.5, abs=0.002)
            with pytest.raises(DeadlineExceeded) as caught:
                await connects(dest, 0)
            assert caught.value.report is not None
        assert dest.snapshot().waiting == 0
        assert dest.snapshot().failures == 0


async def test_a_full_source_means_another_one_in_the_same_call(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1), sources=[NEAR, FAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        async with dest.connect() as one, dest.connect() as two:
            assert {one.source, two.source} == {NEAR, FAR}


async def test_sources_are_drawn_by_weight(vnet, autojump_clock):
    good(vnet, "192.0.2.1", rtt=0.0)
    heavy, light = Source("192.0.2.254", name="heavy", weight=3), Source("192.0.2.254", name="light")
    never = Source("192.0.2.254", name="never", weight=0)
    async with opened(sources=[light, never, heavy]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        drawn = [(await connects(dest)).source for _ in range(400)]
    assert 270 < drawn.count(heavy) < 330
    assert never not in drawn


async def test_overloaded_in_establish_goes_on_from_another_source(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    told: list[object] = []

    async with opened(rules(failures_to_delay=1), sources=[NEAR, FAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1", "192.0.2.2"))

        async def throttles_the_first(_stream: object) -> None:
            told.append(None)
            if len(told) == 1:
                raise Overloaded(300, "421 too many connections")

        connection = await connects(dest, establish=throttles_the_first)
        (suspension,) = dest.snapshot().suspensions
        assert suspension.source != connection.source
        assert "421" in suspension.reason
        assert suspension.until == pytest.approx(now() + 300_000, abs=1000)
        assert (dest.snapshot().failures, dest.snapshot().addresses) == (0, ())

        async def throttles(_stream: object) -> None:
            raise Overloaded(60)

        decision = await fails(dest, establish=throttles)
        assert isinstance(decision, SourceSuspended)
        assert decision.source == connection.source
        assert decision.until == now() + 60_000
        assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", 0)


async def test_what_an_overloaded_peer_has_said_is_in_the_event_and_the_snapshot(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    events: list[OutboundEvent] = []

    async def throttles(_stream: object) -> None:
        raise Overloaded(60, "421 too many connections")

    async with opened(observer=events.append) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest, establish=throttles)
        (released,) = (event for event in events if event.what == "released")
        assert released.cause.endswith("; the peer said: 421 too many connections (in 60 s)")
        assert dest.snapshot().errors == (released.cause,)


async def test_overloaded_suspends_the_whole_group(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened() as out:
        one, two = (out.destination(name, candidates=at("192.0.2.1"), group="g") for name in ("one", "two"))
        other = out.destination("other", candidates=at("192.0.2.1"))
        async with one.connect() as connection:
            connection.overloaded(30, "429")
        decision = await fails(two, now() + 1)
        assert isinstance(decision, SourceSuspended)
        assert (decision.source, decision.until) == (None, now() + 30_000)
        await connects(other, now() + 1000)


async def test_overloaded_out_of_the_nursery_of_an_establish(vnet, autojump_clock):
    good(vnet, "192.0.2.1")

    async def with_a_nursery(_stream: object) -> None:
        async with trio.open_nursery():
            raise Overloaded(30, "429")

    async with opened() as out:
        decision = await fails(out.destination("a", candidates=at("192.0.2.1")), establish=with_a_nursery)
        assert isinstance(decision, SourceSuspended)
        assert "429" in decision.cause


async def test_a_decisions_time_is_complete(vnet, autojump_clock):
    """Whoever comes back at `until`, and not before, gets in: no backoff of the caller's is needed on top."""
    good(vnet, "192.0.2.1")
    host = vnet.host("192.0.2.2").listen(25, None).refuse()
    async with opened(rules(rate=Rate(1, 10.0), failures_to_delay=1)) as out:
        for address in ("192.0.2.1", "192.0.2.2"):
            dest = out.destination(address, candidates=at(address))
            tries = 0
            while True:
                tries += 1
                try:
                    async with dest.try_connect():
                        break
                except Exception as exc:  # noqa: BLE001 - a decision of any kind
                    host.recover()
                    await trio.sleep(decision_of(exc).seconds)
            assert tries <= 3
    await trio.lowlevel.checkpoint()


async def test_a_reset_after_everything(vnet, autojump_clock):
    vnet.host("192.0.2.1").refuse()
    async with opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        await until_due(dest)
        dest.reset()
        assert dest.snapshot().state == "closed"
