"""What used to go wrong in the same tick, at the end of a block, or by what a caller gave us."""

from __future__ import annotations

import gc
import socket
import weakref
from contextlib import suppress
from socket import AF_INET, AddressFamily

import pytest
import trio
import trio.testing

from tests.outbound.kit import BROKEN, NEAR, at, connects, decision_of, fails, good, opened, rules
from trio_connect import Answer, DeadlineExceeded, Endpoint, now
from trio_connect._deadline import to_seconds
from trio_connect.outbound import (
    Backoff,
    Candidate,
    Destination,
    DestinationDelayed,
    NotAdmitted,
    Outbound,
    OutboundEvent,
    Overloaded,
    Rate,
    RetryAt,
    SourceSuspended,
)


class Gated:
    """A resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.broken = False
        self.asked = 0

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        self.asked += 1
        await self.gate.wait()
        if self.broken:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return Answer(("192.0.2.1",) if family == AF_INET else (), ttl=60.0)


async def test_an_answer_in_the_tick_of_the_last_callers_cancel_ends_nothing_else(vnet, autojump_clock):
    good(vnet, "192.0.2.1")

    async def caller(destination: Destination, scope: trio.CancelScope) -> None:
        with scope:
            await connects(destination)

    for _ in range(20):  # Trio shuffles who runs first
        resolver, scope = Gated(), trio.CancelScope()
        async with opened(resolver=resolver) as out, trio.open_nursery() as nursery:
            destination = out.destination("a.test", port=25)
            nursery.start_soon(caller, destination, scope)
            await trio.testing.wait_all_tasks_blocked()
            resolver.gate.set()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            await connects(destination)


async def test_a_cancel_from_outside_takes_no_error_from_the_body(vnet, autojump_clock):
    """It reaches a lookup that is under way too, of which the nursery of the block then raises."""
    error = ValueError("not closed as it should")

    async def call(out: Outbound) -> None:
        await connects(out.destination("a.test", port=25))

    with trio.CancelScope() as scope, pytest.raises(ValueError, match="not closed") as caught:
        async with opened(resolver=Gated()) as out:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, out)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            finally:
                raise error
    assert caught.value is error


async def test_what_a_lookup_raises_that_ends_the_block_and_an_error_of_the_body_are_both_told(vnet, autojump_clock):
    class Interrupted(Gated):
        async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
            await super().addresses(host, family)
            raise KeyboardInterrupt

    resolver = Interrupted()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with opened(resolver=resolver) as out:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connects, out.destination("a.test", port=25))
                    await trio.testing.wait_all_tasks_blocked()
                    resolver.gate.set()
            finally:
                raise ValueError("not closed as it should")
    leaves = caught.value.split(KeyboardInterrupt)
    assert leaves[0] is not None
    assert leaves[1] is not None
    assert leaves[1].split(ValueError)[1] is None


async def test_who_cleans_up_behind_a_shield_after_a_cancel_can_look_up(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Gated()
    with trio.CancelScope() as scope:
        async with opened(resolver=resolver) as out, trio.open_nursery() as nursery:
            nursery.start_soon(connects, out.destination("a.test", port=25))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.lowlevel.cancel_shielded_checkpoint()
            with trio.CancelScope(shield=True):
                resolver.gate.set()
                await connects(out.destination("a.test", port=25))
                await connects(out.destination("b.test", port=25))
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught


@pytest.mark.parametrize("when", ["before", "while"])
async def test_who_looks_up_when_the_block_ends_hears_of_it(vnet, autojump_clock, when):
    good(vnet, "192.0.2.1")
    resolver = Gated()
    seen: list[BaseException] = []

    async def caller() -> None:
        try:
            await connects(destination)
        except RuntimeError as exc:
            seen.append(exc)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            async with opened(resolver=resolver) as out:
                destination = out.destination("a.test", port=25)
                if when == "while":
                    nursery.start_soon(caller)
                    await trio.testing.wait_all_tasks_blocked()
            if when == "before":
                await caller()
            await caller()
    assert len(seen) == 2
    for each in seen:
        assert "block" in str(each)


async def test_a_lookup_that_fails_for_many_callers_has_failed_once(vnet, autojump_clock):
    resolver = Gated()
    resolver.broken = True
    decisions: list[NotAdmitted] = []
    async with opened(resolver=resolver) as out, trio.open_nursery() as nursery:
        destination = out.destination("a.test", port=25)

        async def caller() -> None:
            decisions.append(await fails(destination))

        for _ in range(10):
            nursery.start_soon(caller)
        await trio.testing.wait_all_tasks_blocked()
        resolver.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert len(decisions) == 10
        assert {round(each.seconds, 3) for each in decisions} == {1.0}


async def test_the_callers_own_function_is_asked_once_for_all_who_wait(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    asked = 0

    async def find() -> list[tuple[str, int]]:
        nonlocal asked
        asked += 1
        await trio.sleep(1)
        return at("192.0.2.1")

    async with opened() as out, trio.open_nursery() as nursery:
        destination = out.destination("a", candidates=find)
        for _ in range(5):
            nursery.start_soon(connects, destination)
    assert asked == 1


@pytest.mark.parametrize("kind", ["function", "object", "returns"])
def test_an_async_address_filter_is_a_type_error(kind):
    async def allows(_endpoint: Endpoint) -> bool:
        return False

    class Filter:
        async def __call__(self, _endpoint: Endpoint) -> bool:
            return False

    def returns(endpoint: Endpoint) -> object:
        return allows(endpoint)

    given = {"function": allows, "object": Filter(), "returns": returns}[kind]

    async def main() -> None:
        with pytest.raises(TypeError, match="address_filter must not be async"):
            async with opened(address_filter=given) as out:
                await connects(out.destination("a", candidates=at("192.0.2.1")))

    trio.run(main)


@pytest.mark.parametrize("deadline", [0, -1])
async def test_25_no_deadline_opens_more_at_a_candidate_than_its_own_limit(vnet, autojump_clock, deadline):
    good(vnet, "192.0.2.2", rtt=0.0)
    vnet.host("192.0.2.1").refuse()
    candidates = [Candidate(("192.0.2.1", 25)), Candidate(("192.0.2.2", 25), priority=1, max_connections=1)]
    async with opened() as out:
        destination = out.destination("a", candidates=candidates)
        async with destination.connect():
            other = await fails(destination, deadline)
            assert "192.0.2.2" not in str(other)
            snapshot = destination.snapshot()
            limit = next(each for each in snapshot.limits if "192.0.2.2" in each.name)
            assert (limit.held, limit.cap) == (1, 1)


async def test_a_place_at_any_candidate_is_found_however_many_are_full(vnet, autojump_clock):
    hosts = [f"192.0.2.{n}" for n in range(1, 13)]
    good(vnet, *hosts)
    candidates = [Candidate((host, 25), max_connections=1) for host in hosts]
    async with opened(rules(max_connections=100)) as out:
        destination = out.destination("a", candidates=candidates)
        async with trio.open_nursery() as nursery:

            async def holder() -> None:
                async with destination.try_connect():
                    await trio.sleep(1000)

            for _ in hosts:
                nursery.start_soon(holder)
                await trio.sleep(1)
            await trio.sleep(1)
            with pytest.raises(RetryAt):
                async with destination.try_connect():
                    pass
            assert destination.snapshot().binding
            nursery.cancel_scope.cancel()


async def test_what_was_suspended_by_hand_is_not_forgotten(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(state_expiry=10.0)) as out:
        out.destination("a", candidates=at("192.0.2.1")).suspend(now() + 100_000)
        await trio.sleep(50)
        for name in "bcd":
            out.destination(name, candidates=at("192.0.2.1"))
        decision = await fails(out.destination("a", candidates=at("192.0.2.1")), now() + 1000)
        assert isinstance(decision, SourceSuspended)


async def test_a_loop_of_refusals_lets_others_run(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(max_connections=1)) as out:
        destination = out.destination("a", candidates=at("192.0.2.1"))
        async with destination.permit(), trio.open_nursery() as nursery:
            ran = 0

            async def other() -> None:
                nonlocal ran
                while True:
                    ran += 1
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(other)
            for _ in range(10):
                with pytest.raises(RetryAt):
                    async with destination.try_connect():
                        pass
                with pytest.raises(DeadlineExceeded):
                    async with destination.connect(0):
                        pass
                with pytest.raises(DeadlineExceeded):
                    async with destination.permit(0):
                        pass
            nursery.cancel_scope.cancel()
            assert ran >= 20


async def test_overloaded_in_a_group_leaves_a_permit_as_itself(vnet, autojump_clock):
    async with opened() as out:
        destination = out.destination("a")
        with pytest.raises(ExceptionGroup):
            async with destination.permit(), trio.open_nursery():
                raise Overloaded(5)
        assert destination.snapshot().suspensions


async def test_a_destination_that_was_kept_leaves_the_share_when_it_is_idle_again(vnet, autojump_clock):
    policy = rules(total_connections=10, reserve=1, state_expiry=10.0)
    async with opened(policy) as out:
        kept = out.destination("kept")
        await trio.sleep(20)
        for name in "bc":
            out.destination(name)
        async with kept.permit():
            pass
        state = weakref.ref(kept._state)
        del kept
        await trio.sleep(20)
        for name in "def":
            out.destination(name)
        gc.collect()
        assert state() is None


async def test_the_binding_limit_may_be_a_candidates_own(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened() as out:
        destination = out.destination("a", candidates=[Candidate(("192.0.2.1", 25), max_connections=1)])
        async with destination.connect():
            assert destination.snapshot().binding


async def test_a_place_that_was_taken_between_two_sources_is_no_error_of_the_call(vnet, autojump_clock):
    good(vnet, "192.0.2.1", rtt=1.0)
    candidates = [Candidate(("192.0.2.1", 25), max_connections=1)]
    async with opened(sources=[BROKEN, NEAR], seed=1) as out:
        destination = out.destination("a", candidates=candidates)
        results: list[object] = []

        async def caller() -> None:
            try:
                results.append(await connects(destination))
            except Exception as exc:  # noqa: BLE001 - a decision, or raised again
                results.append(decision_of(exc))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(caller)
        assert len(results) == 6


async def test_suspending_tells_those_who_cannot_wait_that_long(vnet, autojump_clock):
    async with opened(rules(max_connections=1)) as out:
        destination = out.destination("a")
        seen: list[tuple[type[BaseException], float]] = []

        async def waiter() -> None:
            try:
                async with destination.permit(now() + 5000):
                    pass
            except (SourceSuspended, DeadlineExceeded) as exc:
                seen.append((type(exc), trio.current_time() - began))

        async with destination.permit(), trio.open_nursery() as nursery:
            began = trio.current_time()
            for _ in range(3):
                nursery.start_soon(waiter)
            await trio.sleep(1)
            destination.suspend(now() + 60_000)
        assert seen == [(SourceSuspended, 1.0)] * 3


async def test_an_opening_tells_all_who_cannot_wait_that_long(vnet, autojump_clock):
    async with opened(rules(max_connections=1, failures_to_delay=1, delay=Backoff(initial=60, jitter=0))) as out:
        destination = out.destination("a")
        seen: list[tuple[type[BaseException], float]] = []

        async def waiter(deadline: int) -> None:
            try:
                async with destination.permit(deadline):
                    pass
            except (DestinationDelayed, DeadlineExceeded) as exc:
                seen.append((type(exc), trio.current_time() - began))

        async with trio.open_nursery() as nursery:
            async with destination.permit() as permit:
                began = trio.current_time()
                nursery.start_soon(waiter, -1)
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(3):
                    nursery.start_soon(waiter, now() + 5000)
                await trio.sleep(1)
                permit.failed()
            await trio.sleep(0.5)
            assert seen == [(DestinationDelayed, 1.0)] * 3
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("what", ["admitted", "succeeded", "failed", "released", "refused"])
async def test_whatever_an_observer_raises_leaks_nothing(vnet, autojump_clock, raised, what):
    good(vnet, "192.0.2.1")
    vnet.host("192.0.2.2").refuse()

    def observer(event: OutboundEvent) -> None:
        if event.what == what:
            raise raised("from an observer")

    async with opened(rules(max_connections=1), observer=observer) as out:
        for name, address in (("a", "192.0.2.1"), ("b", "192.0.2.2")):
            destination = out.destination(name, candidates=at(address))
            for _ in range(2):
                with suppress(Exception, raised):
                    with trio.move_on_after(0.001):
                        await connects(destination)
                    async with destination.connect(), destination.try_connect():
                        pass
                assert vnet.open_sockets == ()
                assert [each.held for each in destination.snapshot().limits] == [0, 0], name


@pytest.mark.parametrize(
    "limits",
    [{"group_max_connections": 1}, {"total_connections": 1}, {"group_rate": Rate(1, 60.0)}],
    ids=["group", "program", "rate"],
)
async def test_9_a_call_that_changes_its_source_is_not_in_its_own_way(vnet, autojump_clock, limits):
    good(vnet, "192.0.2.1")
    for seed in range(8):  # which source is drawn first
        async with opened(rules(**limits), sources=[BROKEN, NEAR], seed=seed) as out:
            destination = out.destination("a", candidates=at("192.0.2.1"))
            async with destination.connect(now() + 1000) as connection:
                assert connection.source == NEAR
                held = {each.name: each.held for each in destination.snapshot().limits if each.held}
                assert sorted(held.values()) == [1] * len(held)
            assert not any(each.held for each in destination.snapshot().limits)


async def test_a_place_that_comes_free_in_the_step_of_the_deadline_is_had_or_given_on(vnet, autojump_clock):
    had: list[bool] = []
    async with opened(rules(max_connections=1)) as out:
        destination = out.destination("a")

        async def hold(until: int, task_status: trio.TaskStatus[None]) -> None:
            async with destination.permit():
                task_status.started()
                await trio.sleep_until(to_seconds(until))

        async def wait(until: int) -> None:
            try:
                async with destination.permit(until):
                    had.append(True)
            except DeadlineExceeded:
                had.append(False)

        for _ in range(40):  # Trio takes the tasks of a pass in any order
            async with trio.open_nursery() as nursery:
                until = now() + 100
                await nursery.start(hold, until)
                nursery.start_soon(wait, until)
            async with destination.permit(0):
                pass
    assert set(had) == {True, False}
