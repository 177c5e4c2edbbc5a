"""Admission without a connection, for those who bring their own client."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing

from tests.outbound.kit import FAR, NEAR, at, fails, opened, refusing, rules, words
from trio_connect import DeadlineExceeded, EstablishFailed, now
from trio_connect.outbound import (
    Candidate,
    DestinationDelayed,
    OutboundEvent,
    Overloaded,
    Rate,
    RetryAt,
    SourceSuspended,
)

FAILURES = [OSError("x"), ssl.SSLError("x"), trio.BrokenResourceError(), trio.TooSlowError(), EstablishFailed("x")]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
async def test_an_exception_of_a_failed_attempt_is_a_failure(vnet, autojump_clock, error):
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a")
        for failures in (1, 2):
            with pytest.raises(type(error)):
                async with dest.permit():
                    raise error
            assert dest.snapshot().failures == failures
        assert dest.snapshot().state == "open"
        with pytest.raises(DestinationDelayed):
            async with dest.permit(now() + 10):
                pass
        assert len(dest.snapshot().errors) == 2


async def test_a_group_of_such_exceptions_is_one_too(vnet, autojump_clock):
    async with opened() as out:
        dest = out.destination("a")
        with pytest.raises(ExceptionGroup):
            async with dest.permit():
                raise ExceptionGroup("a nursery's", [OSError("x"), EstablishFailed("y")])
        assert dest.snapshot().failures == 1


async def test_any_other_exception_and_a_cancel_count_nothing(vnet, autojump_clock):
    events: list[OutboundEvent] = []
    async with opened(rules(failures_to_delay=1), observer=events.append) as out:
        dest = out.destination("a")
        with pytest.raises(KeyError):
            async with dest.permit():
                raise KeyError
        with trio.move_on_after(1):
            async with dest.permit():
                await trio.sleep_forever()
        assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", 0)
        assert all(row.held == 0 for row in dest.snapshot().limits)
    assert words(events) == ["admitted", "released"] * 2
    assert [event.cause for event in events if event.what == "released"] == ["KeyError", "Cancelled"]


async def test_leaving_normally_is_a_success(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=3)) as out:
        dest = out.destination("a")
        for _ in range(10):
            async with dest.permit() as permit:
                permit.failed("503")
            async with dest.permit() as permit:
                permit.failed()
            assert dest.snapshot().failures == 2
            async with dest.permit():
                pass
            assert dest.snapshot().failures == 0


async def test_a_failure_counts_when_it_is_said_and_once(vnet, autojump_clock):
    async with opened(rules(failures_to_delay=1)) as out:
        dest = out.destination("a")
        with pytest.raises(OSError, match="later"):
            async with dest.permit() as permit:
                await trio.sleep(5)
                permit.failed("503")
                assert dest.snapshot().until == now() + 1000
                for again in (permit.failed, lambda permit=permit: permit.overloaded(1)):
                    with pytest.raises(RuntimeError, match="has been reported already"):
                        again()
                await trio.sleep(50)
                raise OSError("later")
        assert (dest.snapshot().failures, dest.snapshot().openings) == (1, 1)
        assert dest.snapshot().errors == ("503",)


@pytest.mark.parametrize("how", ["method", "exception"])
async def test_overloaded_suspends_and_is_nobodys_failure(vnet, autojump_clock, how):
    async with opened(rules(failures_to_delay=1), sources=[NEAR]) as out:
        dest = out.destination("a")
        if how == "method":
            async with dest.permit() as permit:
                permit.overloaded(30, "429")
        else:
            with pytest.raises(Overloaded):
                async with dest.permit():
                    raise Overloaded(30, "429")
        assert (dest.snapshot().state, dest.snapshot().failures) == ("closed", 0)
        with pytest.raises(SourceSuspended, match="429") as caught:
            async with dest.permit(now() + 1000):
                pass
        assert (caught.value.source, caught.value.until) == (NEAR, now() + 30_000)
        # Who can wait for it does.
        async with dest.permit():
            assert trio.current_time() == pytest.approx(30.0)


async def test_a_permit_is_under_the_caps_but_not_under_that_of_connecting(vnet, autojump_clock):
    async with opened(rules(max_connections=3, max_connecting=1), sources=[NEAR, FAR]) as out:
        dest = out.destination("a")
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                async with dest.permit():
                    await trio.sleep(10)

            for _ in range(6):
                nursery.start_soon(hold)
            await trio.sleep(1)
            assert [(row.name, row.held) for row in dest.snapshot().limits] == [
                ("connects to a under way", 0),
                ("connections from near to a", 3),
                ("connections from far to a", 3),
            ]
            with pytest.raises(DeadlineExceeded):
                async with dest.permit(now() + 500):
                    pass


async def test_requests_per_host_and_minute(vnet, autojump_clock):
    """What most people look for."""
    async with opened(rules(rate=Rate(60, per=60.0, burst=5))) as out:
        dest = out.destination("api.test")
        begun = []
        async with trio.open_nursery() as nursery:

            async def request() -> None:
                async with dest.permit():
                    begun.append(trio.current_time())

            for _ in range(20):
                nursery.start_soon(request)
        assert begun == [0.0] * 5 + [pytest.approx(float(second)) for second in range(1, 16)]
        with pytest.raises(RetryAt) as caught:
            async with dest.permit(0):
                pass
        assert caught.value.seconds == pytest.approx(1.0)


async def test_a_permit_with_candidates_is_under_the_limits_of_one(vnet, autojump_clock):
    """Three keys of one provider, each with a limit of its own."""
    async with opened() as out:
        keys = [Candidate((f"192.0.2.{n}", 443), n, max_connections=2) for n in (1, 2, 3)]
        dest = out.destination("api.test", candidates=keys)
        seen = []
        async with trio.open_nursery() as nursery:

            async def request() -> None:
                async with dest.permit() as permit:
                    assert permit.candidate is not None
                    seen.append(permit.candidate.priority)
                    await trio.sleep(1)

            for _ in range(12):
                nursery.start_soon(request)
        assert sorted(seen[:6]) == sorted(seen[6:]) == [1, 1, 2, 2, 3, 3]
        # One that fails goes last.
        async with dest.permit() as permit:
            permit.failed()
        async with dest.permit() as permit:
            assert permit.candidate == keys[1]
        await trio.sleep(2)
        async with dest.permit() as permit:
            assert permit.candidate == keys[0]
        assert dest.snapshot().addresses == ()


async def test_a_permit_is_a_checkpoint(vnet, autojump_clock):
    async with opened() as out:
        dest = out.destination("a")
        with trio.testing.assert_checkpoints():
            async with dest.permit():
                pass
        with trio.CancelScope() as scope:
            scope.cancel()
            async with dest.permit():
                raise AssertionError("it was cancelled before")
        assert all(row.held == 0 for row in dest.snapshot().limits)


async def test_connect_and_permit_share_one_circuit(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await fails(dest)
        async with dest.permit() as permit:
            permit.failed()
        assert dest.snapshot().state == "open"
