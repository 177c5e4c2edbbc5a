"""The fourteen rules of queue sets. The id of each test carries its rule's number."""

from __future__ import annotations

import errno
import socket
import threading
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from tests.queues.kit import LOOPBACK, Switch, failed, listening, pair, passes, refused, where
from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from trio_connect import DeadlineExceeded, Endpoint, now
from trio_connect.queues import Closed, QResult, QToken, QueueSet, open_queue_set

# --- 1: submission ----------------------------------------------------------------------------------------------------


async def test_rule_01_submitting_is_synchronous_and_does_nothing_yet(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        with socket.socket() as listener:
            listener.bind(LOOPBACK)
            listener.listen()
            listener.setblocking(False)
            with trio.testing.assert_no_checkpoints():
                tokens: list[QToken[Any]] = [
                    near.push(b"x"),
                    far.pop(),
                    qs.stream().connect(listener.getsockname()),
                    qs.connectx([listener.getsockname()]),
                    qs.stream().close(),
                ]
            assert not any(token.done for token in tokens)
            with pytest.raises(BlockingIOError):
                listener.accept()
            for token in tokens:
                assert (await qs.wait(token)).ok


async def test_rule_01_errors_of_the_state_raise_and_errors_of_completion_are_data(sockets: Sockets):
    async with open_queue_set() as qs:
        with refused(errno.ENOTCONN):
            qs.stream().push(b"x")
        with pytest.raises(ValueError, match="numeric"):
            qs.stream().connect(("localhost", 80))
        assert qs.in_flight == 0
        with faults.refusing() as closed:
            assert failed(await qs.wait(qs.stream().connect(closed.pair)), errno.ECONNREFUSED)


# --- 2: waiting and cancelling ----------------------------------------------------------------------------------------


async def test_rule_02_waiting_is_a_checkpoint_also_for_what_has_finished():
    async with open_queue_set() as qs:
        for wait in (qs.wait, lambda token: qs.wait_any([token]), lambda _: qs.wait_next(1)):
            token = qs.stream().close()
            await passes()
            assert token.done
            with trio.testing.assert_checkpoints():
                await wait(token)
        with trio.testing.assert_checkpoints():
            assert [result async for result in qs.completions()] == []
        with trio.testing.assert_checkpoints():
            await qs.room()


@pytest.mark.parametrize("step", range(6))
async def test_rule_02_a_waiter_that_is_cancelled_loses_nothing(sockets: Sockets, step):
    async with open_queue_set() as qs:
        switch = Switch(qs)
        token = await switch.token()

        async def cancel_after(count: int, scope: trio.CancelScope) -> None:
            await passes(count)
            scope.cancel()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, step, scope)
                await qs.wait(token)
        assert scope.cancelled_caught
        assert not token.done  # the operation goes on
        await switch.complete(token)
        with trio.CancelScope() as scope:
            scope.cancel()
            await qs.wait(token)
        assert scope.cancelled_caught
        assert (await qs.wait(token)).unwrap().data == b"done"


# --- 3 and 4: deadlines -----------------------------------------------------------------------------------------------


async def test_rule_03_a_wait_that_is_too_late_keeps_every_token(sockets: Sockets, autojump_clock):
    async with open_queue_set() as qs:
        switch = Switch(qs)
        tokens = [await switch.token() for _ in range(3)]
        waits: list[Any] = [partial(qs.wait, tokens[0]), partial(qs.wait_any, tokens)]
        for wait in waits:
            with pytest.raises(DeadlineExceeded, match=r"^\[Errno 110\] the wait for ") as caught:
                await wait(now() + 10)
            assert caught.value.errno == errno.ETIMEDOUT
        await switch.complete(*tokens)
        for token in tokens:
            assert (await qs.wait(token)).ok


async def test_rule_03_a_connect_that_is_too_late_is_data_and_another_thing(sockets: Sockets, autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            token = qs.stream().connect(nowhere.pair, now() + 40)
            with pytest.raises(DeadlineExceeded):
                await qs.wait(token, now() + 5)
            assert failed(await qs.wait(token), errno.ETIMEDOUT)


async def test_rule_04_deadline_0_looks_once_after_one_checkpoint():
    async with open_queue_set() as qs:
        token = await Switch(qs).token()
        for wait in (partial(qs.wait, token), partial(qs.wait_any, [token])):
            with pytest.raises(DeadlineExceeded), trio.testing.assert_checkpoints():
                await wait(0)
        with trio.testing.assert_checkpoints():
            assert await qs.wait_next(1, 0) == []


async def test_rule_04_finished_beats_the_deadline():
    async with open_queue_set() as qs:
        # A close of nothing finishes in the one pass that there is.
        token = qs.stream().close()
        assert (await qs.wait(token, 0)).ok
        token = qs.stream().close()
        assert (await qs.wait_any([token], 0))[1].ok
        qs.stream().close()
        assert len(await qs.wait_next(9, 0)) == 1


async def test_rule_04_finished_beats_a_deadline_at_the_same_instant(autojump_clock):
    """Whichever task the loop runs first in that pass. It shuffles, so: many times."""
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            for _ in range(40):
                deadline = now() + 100
                token = qs.stream().connect(nowhere.pair, deadline)
                assert failed(await qs.wait(token, deadline), errno.ETIMEDOUT)
                deadline = now() + 100
                first, second = (qs.stream().connect(nowhere.pair, deadline) for _ in range(2))
                _, result = await qs.wait_any([first, second], deadline)
                assert failed(result, errno.ETIMEDOUT)
                assert len(await qs.wait_next(2, 0)) == 1


# --- 5: claiming ------------------------------------------------------------------------------------------------------


async def test_rule_05_a_token_is_claimed_once():
    async with open_queue_set() as qs:
        token = qs.stream().close()
        await qs.wait(token)
        for wait in (partial(qs.wait, token), partial(qs.wait_any, [token])):
            with pytest.raises(OSError, match="was claimed already") as caught:
                await wait()
            assert caught.value.errno == errno.EINVAL
        token = qs.stream().close()
        (result,) = await qs.wait_next(1)
        assert result.token is token
        with refused(errno.EINVAL):
            await qs.wait(token)


async def test_rule_05_a_foreign_token_is_not_ours():
    async with open_queue_set() as ours, open_queue_set() as theirs:
        token = theirs.stream().close()
        for wait in (partial(ours.wait, token), partial(ours.wait_any, [ours.stream().close(), token])):
            with pytest.raises(OSError, match="not ours") as caught:
                await wait()
            assert caught.value.errno == errno.EINVAL
        assert (await theirs.wait(token)).ok


async def test_rule_05_the_second_waiter_is_one_too_many():
    async with open_queue_set() as qs:
        switch = Switch(qs)
        token, other = await switch.token(), await switch.token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(qs.wait, token)
            await passes()
            for wait in (partial(qs.wait, token), partial(qs.wait_any, [other, token])):
                with pytest.raises(trio.BusyResourceError):
                    await wait()
            await switch.complete(other, token)
        assert (await qs.wait(other)).ok


# --- 6: waiting for any -----------------------------------------------------------------------------------------------


async def test_rule_06_every_token_is_looked_at_before_anything_else():
    """A finished token does not hide a bad one, wherever they stand."""
    async with open_queue_set() as qs:
        finished, claimed = qs.stream().close(), qs.stream().close()
        await qs.wait(claimed)
        assert finished.done
        for bad in ([finished, claimed], [claimed, finished], [finished, finished], []):
            with refused(errno.EINVAL):
                await qs.wait_any(bad)
        assert (await qs.wait(finished)).ok


async def test_rule_06_the_oldest_completion_comes_first(sockets: Sockets):
    async with open_queue_set() as qs:
        switch = Switch(qs)
        tokens = [await switch.token() for _ in range(5)]
        order = [3, 0, 4, 1, 2]
        await switch.complete(*(tokens[i] for i in order))
        left = list(range(5))
        seen = []
        while left:
            index, result = await qs.wait_any([tokens[i] for i in left])
            seen.append(left.pop(index))
            assert result.token is tokens[seen[-1]]
        assert seen == order


# --- 7: by name and otherwise -----------------------------------------------------------------------------------------


async def test_rule_07_what_somebody_waits_for_is_left_to_him(sockets: Sockets):
    async with open_queue_set() as qs:
        switch = Switch(qs)
        named, other = await switch.token(), await switch.token()
        seen: list[QResult[Any]] = []

        async def reap() -> None:
            seen.extend([result async for result in qs.completions()])

        async def by_name() -> None:
            assert (await qs.wait(named)).token is named

        async with trio.open_nursery() as nursery:
            nursery.start_soon(by_name)
            await passes()
            nursery.start_soon(reap)
            await passes()
            await switch.complete(named, other)
        assert [result.token for result in seen] == [other]


async def test_rule_07_what_is_let_go_is_there_for_all_again():
    async with open_queue_set() as qs:
        switch = Switch(qs)
        named = await switch.token()
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(qs.wait, named)
                await passes()
                assert await qs.wait_next(1, 0) == []
                nursery.cancel_scope.cancel()
                await passes()
            assert not scope.cancelled_caught
        await switch.complete(named)
        assert [result.token for result in await qs.wait_next(5)] == [named]


# --- 8: closing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["close", "aclose"])
async def test_rule_08_a_close_cancels_what_is_pending_first(sockets: Sockets, by):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        tokens = [far.pop() for _ in range(3)]
        huge = far.push(bytes(faults.more_than_fits()))
        behind = far.push(b"behind")
        listener = await listening(qs)
        accept = listener.accept()
        await passes()
        for queue in (far, listener):
            if by == "close":
                assert (await qs.wait(queue.close())).unwrap() == Closed()
            else:
                await queue.aclose()
            with refused(errno.EBADF):
                queue.accept()
            with refused(errno.EBADF):
                queue.pop()
            with refused(errno.EBADF):
                queue.close()
            await queue.aclose()  # twice is once
        # All of them done before the close was: their results are there, though their queue is gone.
        for token in (*tokens, huge, behind, accept):
            assert token.done
        order = [(await qs.wait_next(1))[0] for _ in range(6)]
        assert {result.token for result in order} == {*tokens, huge, behind, accept}
        assert [result.token for result in order if result.op == "pop"] == tokens
        for result in order:
            assert failed(result, errno.ECANCELED)
        assert near.state == "connected"


async def test_rule_08_a_close_ends_a_connect_and_a_race(sockets: Sockets):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            queue = qs.stream()
            bound = qs.stream()
            await bound.bind(LOOPBACK)
            for token in (queue.connect(nowhere.pair), bound.connect(nowhere.pair), qs.connectx([nowhere.pair])):
                await passes()
                await qs.wait(token.queue.close())
                assert failed(await qs.wait(token), errno.ECANCELED)
                assert token.queue.state == "closed"


async def test_rule_08_a_close_ends_what_has_not_begun(sockets: Sockets):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            queue = qs.stream()
            connect, close = queue.connect(nowhere.pair), queue.close()
            await qs.wait(close)
            assert failed(await qs.wait(connect), errno.ECANCELED)


async def test_rule_08_a_cancel_around_the_set_is_told_to_a_clean_up_under_a_shield(sockets: Sockets):
    """What is pending completes, what follows is refused, a close closes: nothing waits for what has ended."""
    with faults.black_hole() as nowhere:
        async with no_leaks():
            with trio.CancelScope() as scope:
                async with open_queue_set(max_in_flight=11) as qs:
                    near, far = await pair(qs)
                    listener = await listening(qs)
                    pops = [far.pop() for _ in range(3)]
                    pushes = [far.push(bytes(faults.more_than_fits())), far.push(b"behind")]
                    connects = [qs.stream().connect(nowhere.pair), qs.connectx([nowhere.pair])]
                    tokens = [*pops, *pushes, *connects, listener.accept(), qs.stream().connect(nowhere.pair)]
                    await passes()
                    scope.cancel()
                    with trio.CancelScope(shield=True), trio.fail_after(5):
                        late = far.pop()  # submitted before anybody knows
                        await passes()
                        with trio.testing.assert_checkpoints(), refused(errno.EBADF):
                            await qs.room(2)  # for which there is none
                        results = [result async for result in qs.completions()]
                        assert {result.token for result in results} == {*tokens, late}
                        assert all(failed(result, errno.ECANCELED) for result in results)
                        assert [result.token for result in results if result.op == "pop"] == [*pops, late]
                        assert [result.token for result in results if result.op == "push"] == pushes
                        for submit in (far.pop, lambda: near.push(b"x"), listener.accept, qs.stream, qs.datagram):
                            with refused(errno.EBADF):
                                submit()
                        for call in (lambda: connects[0].queue.bind(LOOPBACK), qs.room):
                            with refused(errno.EBADF):
                                await call()
                        with refused(errno.EBADF):
                            connects[0].queue.connect(nowhere.pair)
                        with refused(errno.EBADF):
                            qs.connectx([nowhere.pair])
                        assert (await qs.wait(near.close())).ok
                        await far.aclose()
                        assert await qs.wait_next(1, 0) == []
            assert scope.cancelled_caught


@pytest.mark.parametrize("pops", [0, 2])
async def test_rule_08_who_waits_for_any_result_under_a_shield_hears_that_none_can_come(sockets: Sockets, pops):
    """The wait may have begun before the cancel, and there may be something to claim first."""
    with trio.CancelScope() as scope:
        async with open_queue_set() as qs:
            near, _ = await pair(qs)
            tokens = [near.pop() for _ in range(pops)]
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.deadline = trio.current_time() + 5

                async def cancel() -> None:
                    await passes()
                    scope.cancel()

                nursery.start_soon(cancel)
                if pops:
                    assert [result.token for result in await qs.wait_next(4)] == tokens
                for deadline in (-1, now() + 60_000):
                    with refused(errno.EBADF):
                        await qs.wait_next(1, deadline)
                assert await qs.wait_next(1, 0) == []
                assert [result async for result in qs.completions()] == []
            assert not nursery.cancel_scope.cancelled_caught
    assert scope.cancelled_caught


async def test_rule_08_who_waits_for_room_under_a_shield_hears_that_there_is_no_use_for_any(sockets: Sockets):
    with trio.CancelScope() as scope:
        async with open_queue_set(max_in_flight=1) as qs:
            await Switch(qs).token()
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.deadline = trio.current_time() + 5

                async def cancel() -> None:
                    await passes()
                    scope.cancel()

                nursery.start_soon(cancel)
                with refused(errno.EBADF):
                    await qs.room(1)
            assert not nursery.cancel_scope.cancelled_caught
    assert scope.cancelled_caught


async def test_rule_08_a_bug_in_an_operation_is_told_to_a_clean_up_under_a_shield(sockets: Sockets):
    async def broken():
        yield Endpoint("192.0.2.1", 443)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with open_queue_set() as qs:
            token, other = qs.connectx(broken()), await Switch(qs).token()
            with trio.CancelScope(shield=True), trio.fail_after(5):
                for pending in (token, other):
                    assert failed(await qs.wait(pending), errno.ECANCELED)


async def test_rule_08_the_peers_close_is_no_cancel(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        pop = far.pop()
        await near.aclose()
        assert (await qs.wait(pop)).unwrap().eof


async def test_rule_08_aclose_waits_for_a_close_under_way(sockets: Sockets):
    async with open_queue_set() as qs:
        near, _ = await pair(qs)
        pop, close = near.pop(), near.close()
        await near.aclose()
        assert pop.done
        assert near.state == "closed"
        assert (await qs.wait(close)).ok


# --- 9: the end of a set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["normally", "cancelled", "by an exception"])
async def test_rule_09_leaving_closes_everything(sockets: Sockets, how):
    class LeavingError(Exception):
        pass

    async def body(qs: QueueSet, nowhere: faults.Address, closed: faults.Address) -> None:
        near, far = await pair(qs)
        listener = await listening(qs)
        listener.accept()
        qs.stream().connect(where(listener))
        qs.connectx([where(listener)])
        await passes()  # an accept, a connect and a race have succeeded, and nobody claims them
        assert qs.in_flight == 3
        qs.stream().connect(nowhere.pair)
        qs.stream().connect(closed.pair)  # an error that nobody claims is dropped
        qs.connectx([nowhere.pair])
        far.pop()
        near.push(bytes(faults.more_than_fits()))
        bound, datagram = qs.stream(), qs.datagram()
        await bound.bind(LOOPBACK)
        datagram.push_to(b"x", ("127.0.0.1", 1))
        await passes()
        near.close()
        if how == "cancelled":
            scope.cancel()
            await trio.sleep_forever()
        if how == "by an exception":
            raise LeavingError

    with faults.black_hole() as nowhere, faults.refusing() as closed:
        async with no_leaks(counters=sockets.counters):
            with trio.CancelScope() as scope:
                try:
                    async with open_queue_set() as qs:
                        await body(qs, nowhere, closed)
                except LeavingError:
                    assert how == "by an exception"
            assert scope.cancelled_caught == (how == "cancelled")


async def test_rule_09_claimed_queues_belong_to_the_set_until_it_ends(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        assert (near.state, far.state) == ("connected", "connected")
    assert (near.state, far.state) == ("closed", "closed")


async def test_rule_09_one_that_cannot_be_closed_does_not_keep_the_others_open(sockets: Sockets, monkeypatch):
    class StuckError(Exception):
        pass

    with pytest.raises(StuckError):
        async with open_queue_set() as qs:
            queues = [qs.stream() for _ in range(5)]
            for queue in queues:
                await queue.bind(LOOPBACK)

            stuck: Any = queues[2]._transport  # type: ignore[attr-defined]
            real = type(stuck).aclose

            async def aclose(transport: object) -> None:
                await real(transport)
                if transport is stuck:
                    raise StuckError

            monkeypatch.setattr(type(stuck), "aclose", aclose)
    assert [queue.state for queue in queues].count("closed") == 5


async def test_rule_09_what_was_pushed_is_delivered_after_the_end():
    async with open_queue_set() as outer:
        listener = await listening(outer)
        accept = outer.wait
        async with open_queue_set() as inner:
            queue = (await inner.wait(inner.stream().connect(where(listener)))).queue
            await inner.wait(queue.push(b"last words"))
        far = (await accept(listener.accept())).unwrap().queue
        assert (await outer.wait(far.pop())).unwrap().data == b"last words"
        assert (await outer.wait(far.pop())).unwrap().eof


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("many", [ValueError("x")]), KeyboardInterrupt()])
async def test_rule_09_an_exception_of_the_body_comes_out_as_it_is(error):
    with faults.black_hole() as nowhere:
        with pytest.raises(type(error)) as caught:
            async with open_queue_set() as qs:
                qs.stream().connect(nowhere.pair)
                await passes()
                raise error
        assert caught.value is error
        assert caught.value.__context__ is None


async def test_rule_09_nothing_can_be_done_with_a_set_that_has_ended():
    async with open_queue_set() as qs:
        queue, done, pending = qs.stream(), qs.stream().close(), await Switch(qs).token()
        await passes()
    for make in (qs.stream, qs.datagram, qs.unix, lambda: qs.connectx([("127.0.0.1", 1)])):
        with refused(errno.EBADF):
            make()
    with refused(errno.EBADF):
        queue.connect(("127.0.0.1", 1))
    with refused(errno.EBADF):
        queue.close()
    await queue.aclose()
    waits: list[Any] = [
        partial(qs.wait, done), partial(qs.wait_any, [pending]), partial(qs.wait_next, 1), qs.room,
        qs.completions().__anext__,
    ]  # fmt: skip
    for wait in waits:
        with refused(errno.EBADF):
            await wait()
    pending.cancel()
    assert qs.in_flight == 0


async def test_rule_09_who_still_waits_when_a_set_ends_is_told():
    async def told(wait: Any) -> None:
        with refused(errno.EBADF):
            await wait()

    async with trio.open_nursery() as nursery, open_queue_set(4) as qs:
        switch = Switch(qs)
        token, other, third, _ = [await switch.token() for _ in range(4)]
        waits = [
            partial(qs.wait, token), partial(qs.wait_any, [other, third]), partial(qs.wait_next, 3, now() + 60_000),
            partial(qs.room, 2), partial(qs.room, 1), qs.completions().__anext__,
        ]  # fmt: skip
        for wait in waits:
            nursery.start_soon(told, wait)
        await passes()


# --- 10: bugs and cancellation ----------------------------------------------------------------------------------------


async def test_rule_10_a_bug_in_an_operation_ends_the_set():
    class BugError(Exception):
        pass

    async def endpoints():
        raise BugError
        yield

    with pytest.raises(BugError) as caught:
        async with open_queue_set() as qs:
            token = qs.connectx(endpoints())
            await qs.wait(token)
    assert type(caught.value) is BugError


async def test_rule_10_several_exceptions_come_as_a_group():
    class BugError(Exception):
        pass

    async def endpoints():
        raise BugError
        yield

    with pytest.raises(ExceptionGroup) as caught:
        async with open_queue_set() as qs:
            qs.connectx(endpoints())
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError
    assert {type(error) for error in caught.value.exceptions} == {BugError, ValueError}


async def test_rule_10_only_a_token_or_a_close_gives_ecanceled(sockets: Sockets):
    """Cancelling whoever submitted does not."""
    async with open_queue_set() as qs:
        switch = Switch(qs)
        with trio.CancelScope() as scope:
            token = await switch.token()
            scope.cancel()
            await trio.sleep_forever()
        await passes()
        assert not token.done
        token.cancel()
        assert failed(await qs.wait(token), errno.ECANCELED)
        token.cancel()  # over: nothing happens


async def test_rule_10_a_token_is_cancelled_alone(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        pops = [far.pop() for _ in range(4)]
        await passes()
        pops[0].cancel()  # under way
        pops[2].cancel()  # behind others: it does not wait for them
        assert pops[2].done
        for pop in (pops[2], pops[0]):
            result = await qs.wait(pop)
            assert failed(result, errno.ECANCELED)
            assert "was cancelled" in str(result.error)
        await qs.wait(near.push(b"x"))
        assert (await qs.wait(pops[1])).unwrap().data == b"x"
        await qs.wait(near.push(b"y"))
        assert (await qs.wait(pops[3])).unwrap().data == b"y"


async def test_rule_10_what_is_cancelled_before_it_began(sockets: Sockets):
    async with open_queue_set() as qs, faults.echoing() as peer:
        queue = qs.stream()
        token = queue.connect(peer.address.pair)
        token.cancel()
        assert failed(await qs.wait(token), errno.ECANCELED)
        assert queue.state == "unbound"
        race = qs.connectx([peer.address.pair])
        race.cancel()
        assert failed(await qs.wait(race), errno.ECANCELED)
        near, _ = await pair(qs)
        push = near.push(b"x")
        push.cancel()
        assert failed(await qs.wait(push), errno.ECANCELED)
        assert (await qs.wait(queue.connect(peer.address.pair))).ok


async def test_rule_10_a_close_is_not_cancelled(sockets: Sockets):
    async with open_queue_set() as qs:
        token = (await pair(qs))[0].close()
        token.cancel()
        assert (await qs.wait(token)).ok


# --- 11: what is in flight is bounded ---------------------------------------------------------------------------------


async def test_rule_11_more_than_max_in_flight_is_eagain():
    async with open_queue_set(2) as qs:
        tokens = [qs.stream().close() for _ in range(2)]
        for submit in (
            lambda: qs.stream().connect(("127.0.0.1", 1)),
            lambda: qs.connectx([("127.0.0.1", 1)]),
            lambda: qs.datagram().push_to(b"x", ("127.0.0.1", 1)),
        ):
            with refused(errno.EAGAIN):
                submit()
        await passes()
        assert all(token.done for token in tokens)
        with refused(errno.EAGAIN):  # done is not claimed
            qs.stream().connect(("127.0.0.1", 1))
        await qs.wait(tokens[0])
        qs.stream().connect(("127.0.0.1", 1))
        assert (qs.in_flight, qs.max_in_flight) == (2, 2)


async def test_rule_11_a_refused_submission_leaves_the_queue_as_it_was():
    async with open_queue_set(1) as qs:
        token = qs.stream().close()
        queue, datagram = qs.stream(), qs.datagram()
        with refused(errno.EAGAIN):
            queue.connect(("127.0.0.1", 1))
        with refused(errno.EAGAIN):
            datagram.push_to(b"x", ("127.0.0.1", 1))
        assert (queue.state, datagram.state, datagram.local) == ("unbound", "unbound", None)
        await qs.wait(token)
        queue.connect(("127.0.0.1", 1))


async def test_rule_11_room_waits_until_so_many_fit():
    async with open_queue_set(3) as qs:
        with trio.testing.assert_checkpoints():
            await qs.room(3)
        tokens = [qs.stream().close() for _ in range(3)]
        order: list[str] = []

        async def submit(name: str, count: int) -> None:
            await qs.room(count)
            order.append(name)
            tokens.extend(qs.stream().close() for _ in range(count))

        async with trio.open_nursery() as nursery:
            for name, count in (("two", 2), ("one", 1), ("three", 3)):
                nursery.start_soon(submit, name, count)
                await passes(3)
            # One claim is not enough for the first, and nobody overtakes him.
            for got in (0, 1, 2, 2, 2, 3):
                await qs.wait(tokens.pop(0))
                await passes(3)
                assert order == ["two", "one", "three"][:got]


async def test_rule_11_who_stops_waiting_for_room_does_not_hold_up_the_next():
    async with open_queue_set(2) as qs:
        token, _ = await Switch(qs).token(), await Switch(qs).token()
        got = trio.Event()

        async def one() -> None:
            await qs.room(1)
            got.set()

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(qs.room, 2)
                    await passes(3)
                    nursery.start_soon(one)
                    await passes(3)
                    token.cancel()
                    await qs.wait(token)
                    await passes(3)
                    assert not got.is_set()
                    scope.cancel()
            with trio.fail_after(5):
                await got.wait()


@pytest.mark.parametrize(("n", "error"), [(True, TypeError), (1.0, TypeError), (0, ValueError), (3, ValueError)])
async def test_rule_11_room_for_what_never_fits(n, error):
    async with open_queue_set(2) as qs:
        with pytest.raises(error):
            await qs.room(n)


# --- 12: threads ------------------------------------------------------------------------------------------------------


async def test_rule_12_another_thread_is_told_what_to_do():
    async with open_queue_set() as qs:
        queue, token = qs.stream(), await Switch(qs).token()
        calls = [
            lambda: queue.connect(("127.0.0.1", 1)),
            queue.close,
            token.cancel,
            lambda: qs.connectx([("127.0.0.1", 1)]),
            lambda: trio.run(qs.wait, token),
            lambda: trio.run(qs.wait_any, [token]),
            lambda: trio.run(qs.wait_next, 1),
            lambda: trio.run(qs.room),
            lambda: trio.run(qs.completions().__anext__),
            lambda: trio.run(queue.aclose),
            lambda: trio.run(queue.bind, LOOPBACK),
        ]
        seen: list[BaseException] = []

        def elsewhere() -> None:
            for call in calls:
                try:
                    call()
                except BaseException as exc:  # noqa: BLE001
                    seen.append(exc)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert [type(exc) for exc in seen] == [RuntimeError] * len(calls)
        assert all("trio.from_thread.run" in str(exc) for exc in seen)
        assert (queue.state, qs.in_flight, token.done) == ("unbound", 1, False)


async def test_rule_12_the_fix_that_is_named_works():
    async with open_queue_set() as qs, faults.echoing() as peer:
        queue = qs.stream()

        def in_a_worker() -> None:
            token = trio.from_thread.run_sync(queue.connect, peer.address.pair)
            assert trio.from_thread.run(qs.wait, token).ok

        await trio.to_thread.run_sync(in_a_worker)


# --- 13: order --------------------------------------------------------------------------------------------------------


async def test_rule_13_results_come_in_the_order_of_completion(sockets: Sockets):
    async with open_queue_set() as qs:
        switch = Switch(qs)
        tokens = [await switch.token() for _ in range(6)]
        order = [tokens[i] for i in (5, 1, 3, 0, 4, 2)]
        await switch.complete(*order)
        batch = await qs.wait_next(2)
        rest = [result async for result in qs.completions()]
        assert [result.token for result in (*batch, *rest)] == order


async def test_rule_13_a_token_that_was_waited_for_in_vain_keeps_its_place():
    async with open_queue_set() as qs:
        switch = Switch(qs)
        tokens = [await switch.token() for _ in range(3)]
        await switch.complete(*tokens)
        with trio.CancelScope() as scope:
            scope.cancel()
            await qs.wait(tokens[0])
        assert [result.token for result in await qs.wait_next(3)] == tokens


# --- 14: after a connect that failed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "too late", "cancelled"])
async def test_rule_14_the_queue_may_connect_again(sockets: Sockets, how):
    with faults.refusing() as closed, faults.black_hole() as nowhere:
        async with open_queue_set() as qs, faults.echoing() as peer:
            queue = qs.stream()
            if how == "refused":
                token = queue.connect(closed.pair)
            elif how == "too late":
                token = queue.connect(nowhere.pair, now() + 10)
            else:
                token = queue.connect(nowhere.pair)
                await passes()
                token.cancel()
            code = {"refused": errno.ECONNREFUSED, "too late": errno.ETIMEDOUT, "cancelled": errno.ECANCELED}[how]
            assert failed(await qs.wait(token), code)
            assert (queue.state, queue.local, queue.peer) == ("unbound", None, None)
            with refused(errno.ENOTCONN):
                queue.push(b"x")
            assert (await qs.wait(queue.connect(peer.address.pair))).ok
            assert (await qs.wait(queue.push(b"echo"))).ok
            assert (await qs.wait(queue.pop())).unwrap().data == b"echo"


async def test_rule_14_the_failure_closes_the_descriptor_at_once(sockets: Sockets):
    with faults.refusing() as closed:
        async with open_queue_set() as qs, no_leaks(counters=sockets.counters):
            for bound in (False, True):
                queue = qs.stream()
                if bound:
                    await queue.bind(LOOPBACK)
                result = await qs.wait(queue.connect(closed.pair))
                assert failed(result, errno.ECONNREFUSED)
                del queue, result


def test_every_rule_has_a_test():
    numbers = {name.split("_")[2] for name in globals() if name.startswith("test_rule_")}
    assert numbers == {f"{number:02d}" for number in range(1, 15)}
