"""Bugs of other systems, each as a test: ids name where it was seen."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import trio

from tests.outbound.kit import FAR, NEAR, at, connects, fails, good, opened, refusing, rules, silent, starts, until_due
from trio_connect import EstablishFailed, MailRecord, StaticResolver, TcpStream, now
from trio_connect.outbound import Candidate, DestinationDelayed, Rate, RequeueOne, RetryAt


async def test_momentum_sd1453_a_caller_that_ignores_every_decision_cannot_undo_the_count(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=3)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(500):
            with contextlib.suppress(Exception):
                async with dest.try_connect():
                    pass
        assert len(vnet.trace.connections) == 3
        assert dest.snapshot().state == "open"


async def test_momentum_3541_a_slow_session_is_not_a_slow_connect(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=1, connect_timeout=2.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for error in (OSError("broken in the middle"), trio.TooSlowError()):
            with pytest.raises(type(error)):
                async with dest.connect():
                    await trio.sleep(900)
                    raise error
        assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", 0)


async def test_momentum_4498_the_second_mx_is_tried_when_the_first_fails_in_its_banner(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    resolver = StaticResolver(
        {"mx1.test": "192.0.2.1", "mx2.test": "192.0.2.2"},
        mx={"a.test": [MailRecord("mx1.test", 10), MailRecord("mx2.test", 20)]},
    )

    async def banner(stream: TcpStream) -> None:
        if stream.peer.host == "192.0.2.1":
            raise EstablishFailed("554 no")

    async with opened(resolver=resolver) as out:
        dest = out.mx("a.test")
        assert (await connects(dest, establish=banner)).candidate.priority == 20
        assert dest.snapshot().failures == 0


async def test_momentum_5052_a_throttle_is_nobody_elses(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(rate=Rate(1, 3600.0)), sources=[NEAR, FAR]) as out:
        first, second = (out.destination(name, candidates=at("192.0.2.1")) for name in ("first", "second"))
        used = {(await connects(dest, now() + 100)).source for dest in (first, first)}
        assert used == {NEAR, FAR}
        assert isinstance(await fails(first, now() + 100), RetryAt)
        await connects(second, now() + 100)


async def test_momentum_mo6744_two_throttles_are_not_charged_for_a_call_that_one_refuses(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(rate=Rate(1, 10.0), group_rate=Rate(2, 10.0, burst=2))) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await connects(dest)
        for _ in range(50):
            assert isinstance(await fails(dest, now() + 1), RetryAt)
        # The group's burst has one left, for the refused calls cost it nothing.
        begun = trio.current_time()
        await connects(dest)
        assert trio.current_time() - begun < 10.1


async def test_momentum_4645_nobody_is_delayed_beyond_a_deadline_without_being_told(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        decision = await fails(dest, now() + 500)
        assert decision.until > now() + 500
        assert decision.misses_deadline


async def test_momentum_reserve_a_queue_for_one_does_not_wedge_the_others(vnet, autojump_clock):
    good(vnet, *(f"192.0.2.{n}" for n in range(1, 6)))
    async with opened(rules(total_connections=8, max_connecting=9)) as out:
        dests = [out.destination(f"d{n}", candidates=at(f"192.0.2.{n}")) for n in range(1, 6)]

        async def for_ever(dest) -> None:
            async with dest.connect():
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(for_ever, dests[0])
            await trio.sleep(10)
            for dest in dests[1:]:
                await connects(dest, now() + 100)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("n", [1, 2, 10])
async def test_kumomta_the_threshold_is_not_n_plus_2(vnet, autojump_clock, n):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=n)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(n):
            await fails(dest)
        assert dest.snapshot().state == "open"
        assert len(vnet.trace.connections) == n


async def test_kumomta_ten_sources_do_not_cost_ten_thresholds(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    from trio_connect import Source

    sources = [Source("192.0.2.254", name=f"s{n}") for n in range(10)]
    async with opened(rules(failures_to_delay=5), sources=sources) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        while not isinstance(await fails(dest), DestinationDelayed):
            pass
        assert len(vnet.trace.connections) == 5


async def test_kumomta_after_the_delay_one_goes_and_not_all(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=1, max_connecting=32)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        before = len(starts(vnet))
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(fails, dest)
            await trio.sleep(5)
            assert len(starts(vnet)) == before + 1
            nursery.cancel_scope.cancel()


async def test_ats_13169_a_failure_is_dated_when_it_happens_and_not_when_the_call_began(vnet, autojump_clock):
    silent(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=1, attempt_timeout=9.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        # Had it been dated from its beginning, the delay of 1 s would be over before it was told.
        assert dest.snapshot().until == pytest.approx(now() + 1000, abs=1)
        assert dest.snapshot().addresses[0].until == pytest.approx(now() + 1000, abs=1)


async def test_ats_13169_every_attempt_of_a_plan_counts_for_its_address(vnet, autojump_clock):
    addresses = [f"192.0.2.{n}" for n in range(1, 6)]
    refusing(vnet, *addresses)
    async with opened() as out:
        dest = out.destination("a", candidates=at(*addresses))
        for failures in (1, 2, 3):
            await fails(dest)
            assert [row.failures for row in dest.snapshot().addresses] == [failures] * 5
            assert dest.snapshot().failures == failures


async def test_ats_13169_only_success_resets(vnet, autojump_clock):
    host = vnet.host("192.0.2.1").listen(25, None).refuse()
    async with opened(rules(failures_to_delay=3)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        await trio.sleep(1000)
        await fails(dest)
        with trio.move_on_after(0):
            await connects(dest)
        dest.suspend(now() + 10)
        await trio.sleep(1000)
        assert dest.snapshot().failures == 2
        assert isinstance(await fails(dest), DestinationDelayed)
        await until_due(dest)
        await fails(dest)
        assert dest.snapshot().openings == 2
        host.recover()
        await until_due(dest)
        await connects(dest)
        assert (dest.snapshot().failures, dest.snapshot().openings) == (0, 0)


async def test_ats_13169_a_threshold_is_one_number_for_one_thing(vnet, autojump_clock):
    """How many addresses a plan has, how many attempts failed, and how often an address failed do not open it."""
    addresses = [f"192.0.2.{n}" for n in range(1, 9)]
    refusing(vnet, *addresses)
    async with opened(rules(failures_to_delay=4)) as out:
        dest = out.destination("a", candidates=at(*addresses))
        for _ in range(3):
            assert isinstance(await fails(dest), RequeueOne)
        assert isinstance(await fails(dest), DestinationDelayed)


async def test_ats_13169_zero_means_what_the_page_says(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(100):
            assert isinstance(await fails(dest), RequeueOne)


async def test_litellm_one_key_that_fails_does_not_take_the_others_along(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2", "192.0.2.3")
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=[Candidate((f"192.0.2.{n}", 25)) for n in (1, 2, 3)])
        for _ in range(40):
            await connects(dest)
        assert dest.snapshot().state == "closed"
        # While it is in cooldown it is not among the first.
        assert len(starts(vnet, "192.0.2.1")) < 5


async def test_litellm_when_all_are_in_cooldown_somebody_is_still_tried(vnet, autojump_clock):
    hosts = [vnet.host(f"192.0.2.{n}").listen(25, None, rtt=0.02).refuse() for n in (1, 2)]
    async with opened(rules(failures_to_delay=0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1", "192.0.2.2"))
        for _ in range(10):
            await fails(dest)
        for host in hosts:
            host.recover()
        await connects(dest, now() + 100)


# More of the same systems, by the number of the report.


async def test_ats_13169_a_single_address_is_delayed_too(vnet, autojump_clock):
    """12846, 12880: the test for "down" was inverted, and a host with one address was never down."""
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(2):
            await fails(dest)
        made = len(starts(vnet))
        for _ in range(20):
            assert isinstance(await fails(dest, now() + 100), DestinationDelayed)
        assert len(starts(vnet)) == made


@pytest.mark.parametrize("silence", ["no answer at all", "connects, and then nothing"])
async def test_ats_11907_a_timeout_counts_like_a_refusal(vnet, autojump_clock, silence):
    if silence == "no answer at all":
        silent(vnet, "192.0.2.1")
    else:
        good(vnet, "192.0.2.1")

    async def greeting(stream: TcpStream) -> None:
        await stream.receive_until(b"\r\n", 100)

    async with opened(rules(failures_to_delay=2, attempt_timeout=3.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        assert isinstance(await fails(dest, establish=greeting), RequeueOne)
        assert isinstance(await fails(dest, establish=greeting), DestinationDelayed)


async def test_ats_13474_a_probe_that_connects_and_hears_nothing_restores_nothing(vnet, autojump_clock):
    good(vnet, "192.0.2.1")

    async def greeting(stream: TcpStream) -> None:
        await stream.receive_until(b"\r\n", 100)

    async with opened(rules(failures_to_delay=3, attempt_timeout=3.0)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for _ in range(3):
            await fails(dest, establish=greeting)
        for openings in (1, 2, 3, 4):
            assert (dest.snapshot().state, dest.snapshot().openings) == ("open", openings)
            await until_due(dest)
            await fails(dest, establish=greeting)


async def test_ats_5914_the_one_address_that_works_is_always_found(vnet, autojump_clock):
    addresses = [f"192.0.2.{n}" for n in range(1, 5)]
    refusing(vnet, *addresses[:3])
    good(vnet, addresses[3])
    for seed in range(10):
        async with opened(seed=seed) as out:
            dest = out.destination("a", candidates=at(*addresses))
            for _ in range(10):
                assert (await connects(dest)).candidate.endpoint.host == addresses[3]


@pytest.mark.parametrize("seconds", [(1.0, 60.0), (60.0, 1.0)])
async def test_litellm_40130_of_two_times_to_stay_away_the_later_one_counts(vnet, autojump_clock, seconds):
    good(vnet, "192.0.2.1")
    async with opened() as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        async with dest.connect() as one, dest.connect() as other:
            for connection, each in zip((one, other), seconds, strict=True):
                connection.overloaded(each)
        asked = now()
        decision = await fails(dest, now() + 100)
        assert decision.until == pytest.approx(asked + 60_000, abs=1)


async def test_litellm_12037_the_time_that_the_peer_says_comes_before_the_policys(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    for seconds in (0.25, 3600.0):
        async with opened(rules(source_suspension=60.0)) as out:
            dest = out.destination("a", candidates=at("192.0.2.1"))
            async with dest.permit() as permit:
                permit.overloaded(seconds)
            decision = await fails(dest, now() + 100)
            assert decision.until == pytest.approx(now() + seconds * 1000, abs=1)


async def test_litellm_3646_who_may_wait_is_served_when_the_first_is_back_and_hears_no_error(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(sources=[NEAR, FAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for source, seconds in ((NEAR, 30), (FAR, 20)):
            dest.suspend(now() + seconds * 1000, source)
        begun = trio.current_time()
        assert (await connects(dest, now() + 60_000)).source == FAR
        assert trio.current_time() - begun == pytest.approx(20, abs=0.1)


async def test_kumomta_593_what_is_told_is_when_it_will_be_let_in(vnet, autojump_clock):
    """There the time of a throttle was dropped, and everything checked again within a minute."""
    good(vnet, "192.0.2.1")
    async with opened(rules(rate=Rate(1, 3600.0))) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await connects(dest)
        decision = await fails(dest, now() + 100)
        assert decision.until == pytest.approx(now() + 3_600_000, abs=100)
        await trio.sleep(decision.seconds - 0.002)
        assert isinstance(await fails(dest, now() + 1), RetryAt)
        await trio.sleep(0.003)
        await connects(dest, now() + 100)


async def test_kumomta_116_a_place_that_is_free_is_used_at_once(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        began: list[float] = []

        async def deliver() -> None:
            async with dest.connect():
                began.append(trio.current_time())
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(deliver)
        gaps = [later - earlier for earlier, later in itertools.pairwise(began)]
        assert gaps == pytest.approx([1.02] * 4, abs=0.001)


async def test_kumomta_a_throttle_of_a_long_period_is_not_exceeded(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(rate=Rate(500, per=86_400))) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        with trio.move_on_after(86_400):
            while True:
                await connects(dest)
        # One burst of one, and then one every 172.8 s.
        assert len(starts(vnet)) in (500, 501)
