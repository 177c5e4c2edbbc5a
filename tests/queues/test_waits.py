"""Waiting: what is refused, how long it takes, who gets what, and that it scales."""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest
import trio
import trio.testing

from tests.queues.kit import LOOPBACK, Switch, pair, passes, refused
from tests.support import faults
from tests.support.sockets import Sockets
from trio_connect import DeadlineExceeded, now
from trio_connect.queues import QResult, QToken, open_queue_set

# --- what is refused --------------------------------------------------------------------------------------------------


async def test_the_same_token_twice_in_one_list():
    async with open_queue_set() as qs:
        token = qs.stream().close()
        with pytest.raises(OSError, match="named twice") as caught:
            await qs.wait_any([token, token])
        assert caught.value.errno == errno.EINVAL


async def test_an_empty_list_is_refused_and_no_hang():
    async with open_queue_set() as qs:
        with refused(errno.EINVAL), trio.testing.assert_checkpoints():
            await qs.wait_any([])
        with refused(errno.EINVAL):
            await qs.wait_any(iter(()), now() + 1000)


@pytest.mark.parametrize("wrong", [None, 5, "token", object()])
async def test_what_is_no_token(wrong):
    async with open_queue_set() as qs:
        token = qs.stream().close()
        with pytest.raises(TypeError, match="QToken"):
            await qs.wait(wrong)
        with pytest.raises(TypeError, match="QToken"):
            await qs.wait_any(wrong)
        with pytest.raises(TypeError, match="QToken"):
            await qs.wait_any([token, wrong])
        with pytest.raises(TypeError, match="QToken"):
            await qs.wait_any(token)  # type: ignore[arg-type]
        assert (await qs.wait(token)).ok


@pytest.mark.parametrize(("n", "error"), [(True, TypeError), (1.0, TypeError), (None, TypeError)])
async def test_a_count_is_an_int(n, error):
    async with open_queue_set() as qs:
        with pytest.raises(error, match="n must be an int"):
            await qs.wait_next(n)


@pytest.mark.parametrize("n", [0, -1])
async def test_a_count_is_at_least_1(n):
    async with open_queue_set() as qs:
        with refused(errno.EINVAL):
            await qs.wait_next(n)


@pytest.mark.parametrize(
    ("deadline", "error"), [(True, TypeError), (1.0, TypeError), (None, TypeError), (-2, ValueError)]
)
async def test_a_bad_deadline(deadline, error):
    async with open_queue_set() as qs:
        token = qs.stream().close()
        with pytest.raises(error):
            await qs.wait(token, deadline)
        with pytest.raises(error):
            await qs.wait_any([token], deadline)
        with pytest.raises(error):
            await qs.wait_next(1, deadline)
        assert (await qs.wait(token)).ok


async def test_a_deadline_that_was_meant_as_a_duration_is_explained():
    async with open_queue_set() as qs:
        token = await Switch(qs).token()
        for wait in (qs.wait(token, 500), qs.wait_any([token], 500), qs.wait_next(1, 500)):
            with pytest.raises(ValueError, match=r"a deadline is a point in time: now\(\) \+ 500, got 500"):
                await wait


async def test_a_result_is_not_given_to_another_token():
    """Finishing B while A is waited for must not make A's token yield B's result."""
    async with open_queue_set() as qs:
        switch = Switch(qs)
        a, b = await switch.token(), await switch.token()
        await switch.complete(b)
        with pytest.raises(DeadlineExceeded):
            await qs.wait(a, now() + 5)
        assert (await qs.wait(b)).token is b
        await switch.complete(a)
        assert (await qs.wait(a)).token is a


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("milliseconds", [1, 7, 250, 86_400_000])
async def test_a_deadline_is_kept_to_the_millisecond(autojump_clock, milliseconds):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            token = qs.stream().connect(nowhere.pair)
            for wait in (lambda d: qs.wait(token, d), lambda d: qs.wait_any([token], d)):
                deadline = now() + milliseconds
                with pytest.raises(DeadlineExceeded):
                    await wait(deadline)
                assert now() == deadline
            deadline = now() + milliseconds
            assert await qs.wait_next(3, deadline) == []
            assert now() == deadline


async def test_the_earlier_of_deadline_and_scope_ends_a_wait(autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            token = qs.stream().connect(nowhere.pair)
            with trio.move_on_after(1) as scope:
                await qs.wait(token, now() + 2000)
            assert scope.cancelled_caught
            with trio.move_on_after(2) as scope, pytest.raises(DeadlineExceeded):
                await qs.wait(token, now() + 1000)
            with trio.move_on_after(1) as scope:
                await qs.wait_next(2, now() + 2000)
            assert scope.cancelled_caught


async def test_a_batch_is_returned_short_at_its_deadline(autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            started = now()
            tokens = [qs.stream().connect(nowhere.pair, started + after) for after in (100, 200, 300, 9_000)]
            batch = await qs.wait_next(64, started + 250)
            assert now() == started + 250
            assert [result.token for result in batch] == tokens[:2]
            assert [result.token for result in await qs.wait_next(64, started + 400)] == tokens[2:3]
            assert await qs.wait_next(64, started + 500) == []


async def test_a_batch_is_returned_when_it_is_full(autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            started = now()
            for after in (100, 200, 300):
                qs.stream().connect(nowhere.pair, started + after)
            assert len(await qs.wait_next(2, started + 5_000)) == 2
            assert now() == started + 200


async def test_a_batch_is_returned_when_there_is_no_more_to_come(autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            started = now()
            for after in (100, 200):
                qs.stream().connect(nowhere.pair, started + after)
            assert len(await qs.wait_next(64, started + 5_000)) == 2
            assert now() == started + 200


async def test_a_batch_ends_also_when_the_last_one_belongs_to_somebody_else(autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs, trio.open_nursery() as nursery:
            started = now()
            first, named = (qs.stream().connect(nowhere.pair, started + after) for after in (100, 200))
            nursery.start_soon(qs.wait, named)
            await passes()
            assert [result.token for result in await qs.wait_next(64, started + 5_000)] == [first]
            assert now() == started + 200


async def test_without_a_deadline_a_batch_is_what_there_is(autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            started = now()
            for after in (100, 100, 200):
                qs.stream().connect(nowhere.pair, started + after)
            seen: list[QResult[Any]] = []
            while len(seen) < 3:
                batch = await qs.wait_next(64)
                assert batch
                seen += batch
            assert now() == started + 200


async def test_without_a_deadline_a_batch_waits_for_what_others_submit(autojump_clock):
    async with open_queue_set() as qs, trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(1)
            qs.stream().close()

        nursery.start_soon(later)
        assert len(await qs.wait_next(5)) == 1


# --- who gets what ----------------------------------------------------------------------------------------------------


async def test_completions_end_when_nothing_is_in_flight(sockets: Sockets):
    async with open_queue_set() as qs:
        assert [result async for result in qs.completions()] == []
        near, far = await pair(qs)
        near.push(b"x")
        seen = []
        async for result in qs.completions():
            seen.append(result.op)
            if len(seen) < 4:  # what the body submits is reaped too
                far.pop() if result.op == "push" else near.push(b"x")
        assert seen == ["push", "pop", "push", "pop"]


async def test_completions_end_when_somebody_claims_the_last_by_name():
    async with open_queue_set() as qs, trio.open_nursery() as nursery:
        switch = Switch(qs)
        token = await switch.token()
        nursery.start_soon(qs.wait, token)
        await passes()
        ended = trio.Event()

        async def iterate() -> None:
            assert [result async for result in qs.completions()] == []
            ended.set()

        nursery.start_soon(iterate)
        await passes()
        assert not ended.is_set()  # the waiter may give up yet
        await switch.complete(token)
        with trio.fail_after(5):
            await ended.wait()


async def test_completions_get_what_a_waiter_gives_up():
    async with open_queue_set() as qs, trio.open_nursery() as nursery:
        switch = Switch(qs)
        token = await switch.token()
        seen: list[QResult[Any]] = []

        async def iterate() -> None:
            seen.extend([result async for result in qs.completions()])

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(qs.wait_any, [token, qs.stream().close()])
                await passes(1)
                nursery.start_soon(iterate)
                await passes()
                scope.cancel()
        await switch.complete(token)
        await passes()
        assert [result.token for result in seen] == [token]


async def test_leaving_completions_half_way_loses_nothing():
    async with open_queue_set() as qs:
        tokens = [qs.stream().close() for _ in range(3)]
        async for _ in qs.completions():
            break
        assert len([result async for result in qs.completions()]) == len(tokens) - 1


async def test_several_reapers_share_without_overlap():
    async with open_queue_set() as qs:
        switch = Switch(qs)
        tokens = [await switch.token() for _ in range(12)]
        seen: list[QToken[Any]] = []

        async def one_by_one() -> None:
            seen.extend([result.token async for result in qs.completions()])

        async def in_batches() -> None:
            while qs.in_flight:
                seen.extend(result.token for result in await qs.wait_next(3, now() + 20))

        async with trio.open_nursery() as nursery:
            for reaper in (one_by_one, in_batches, one_by_one):
                nursery.start_soon(reaper)
            await passes()
            for token in tokens:
                await switch.complete(token)
        assert sorted(token.id for token in seen) == [token.id for token in tokens]


async def test_a_reaper_is_woken_once_for_one_completion():
    """The second reaper sleeps on: what there is was promised to the first."""
    async with open_queue_set() as qs:
        switch = Switch(qs)
        token, _ = await switch.token(), await switch.token()
        steps: list[str] = []

        class Watch(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if "wait_next" in task.name:
                    steps.append(task.name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(qs.wait_next, 1)
            nursery.start_soon(qs.wait_next, 1)
            await passes()
            trio.lowlevel.add_instrument(watch := Watch())
            await switch.complete(token)
            await passes()
            trio.lowlevel.remove_instrument(watch)
            nursery.cancel_scope.cancel()
        assert len(steps) == 1


async def test_a_reaper_whose_result_was_taken_waits_on():
    async with open_queue_set() as qs:
        switch = Switch(qs)
        first = await switch.token()
        second = first.queue.pop()
        seen: list[QResult[Any]] = []

        async def reap() -> None:
            seen.extend(await qs.wait_next(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reap)
            await passes()
            second.cancel()  # behind another one: done at once, and the reaper is woken
            await qs.wait(second)  # held before the reaper has run
            await passes()
            assert not seen
            await switch.complete(first)
        assert [result.token for result in seen] == [first]


async def test_a_reaper_cancelled_in_the_pass_of_a_completion_leaves_it_to_the_next():
    async with open_queue_set() as qs, trio.open_nursery() as nursery:
        queue = qs.datagram()
        await queue.bind(LOOPBACK)
        queue.pop()
        queued = queue.pop()
        await passes()
        scope = trio.CancelScope()
        got: list[QResult[Any]] = []

        async def first():
            with scope:
                await qs.wait_next(1)

        async def second():
            got.extend(await qs.wait_next(1))

        for reaper in (first, second):
            nursery.start_soon(reaper)
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        queued.cancel()  # it has not begun, so it completes here and now
        await passes()
        assert [result.token for result in got] == [queued]
        nursery.cancel_scope.cancel()


async def test_no_index_starves_another():
    """The first of the list is always ready again; the last still has its turn."""
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        slow = await Switch(qs).token()
        fast: QToken[Any] = far.pop(1)
        await qs.wait(near.push(bytes(100)))
        await Switch(qs).complete(slow)
        for _ in range(3):
            index, _ = await qs.wait_any([fast, slow])
            if index == 1:
                break
            fast = far.pop(1)
            await passes()
        else:
            pytest.fail("the token that completed long ago was never returned")


# --- many -------------------------------------------------------------------------------------------------------------


async def test_10_000_tokens():
    count = 10_000
    async with open_queue_set(count) as qs:
        tokens = [qs.stream().close() for _ in range(count)]
        with refused(errno.EAGAIN):
            qs.stream().connect(("127.0.0.1", 1))
        index, result = await qs.wait_any(tokens)
        assert result.token is tokens[index]
        assert (await qs.wait(tokens[(index + 1) % count])).ok
        batch = await qs.wait_next(5_000, now() + 60_000)
        assert len(batch) == 5_000
        rest = [result async for result in qs.completions()]
        assert len(rest) == count - 2 - 5_000
        assert qs.in_flight == 0


async def test_1_000_pending_operations_cost_nothing_to_wait_for(sockets: Sockets):
    """The CPU time of one second: below 5 %."""
    async with open_queue_set() as qs:
        for _ in range(250):
            queue = qs.datagram()
            await queue.bind(LOOPBACK)
            for _ in range(4):
                queue.pop()
        await trio.testing.wait_all_tasks_blocked()
        cpu, wall = time.process_time(), time.perf_counter()
        assert await qs.wait_next(64, now() + 1000) == []
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert wall >= 0.99
        assert cpu / wall < 0.05
