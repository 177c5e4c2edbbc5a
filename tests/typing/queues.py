"""What a type checker knows of queue sets."""

from __future__ import annotations

from typing import Any, assert_type

from trio_connect import Endpoint, RacePolicy, now
from trio_connect.queues import (
    Accepted,
    Address,
    Closed,
    Completion,
    Connected,
    Failed,
    IOQueue,
    Op,
    Popped,
    Pushed,
    QResult,
    QToken,
    Succeeded,
    open_queue_set,
)


async def tokens_know_what_they_bring() -> None:
    async with open_queue_set(max_in_flight=10) as qs:
        queue = qs.stream()
        assert_type(queue, IOQueue)
        assert_type(await queue.bind(("127.0.0.1", 0)), Address)
        assert_type(queue.accept(), QToken[Accepted])
        assert_type(queue.connect(("127.0.0.1", 1), -1), QToken[Connected])
        assert_type(qs.unix().connect("path"), QToken[Connected])
        assert_type(qs.connectx([("127.0.0.1", 1)]), QToken[Connected])
        assert_type(queue.push(b"x"), QToken[Pushed])
        assert_type(qs.datagram().push_to(b"x", ("127.0.0.1", 1)), QToken[Pushed])
        assert_type(queue.pop(), QToken[Popped])
        assert_type(queue.close(), QToken[Closed])
        queue.push("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        queue.connect(80)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def results_know_it_too() -> None:
    async with open_queue_set() as qs:
        queue = qs.stream()
        result = await qs.wait(queue.pop())
        assert_type(result, QResult[Popped])
        assert_type(result.value, Popped | None)
        assert_type(result.error, OSError | None)
        assert_type(result.target, Address | tuple[Endpoint, ...] | None)
        assert_type(result.errno, int | None)
        assert_type(result.queue, IOQueue)
        assert_type(result.unwrap().data, bytes)
        index, any_result = await qs.wait_any([queue.pop(), queue.pop()])
        assert_type(index, int)
        assert_type(any_result, QResult[Popped])
        mixed: list[QToken[Completion]] = [queue.pop(), queue.close()]
        assert_type((await qs.wait_any(mixed))[1], QResult[Completion])
        assert_type(await qs.wait_next(5), list[QResult[Any]])
        async for each in qs.completions():
            assert_type(each, QResult[Any])


async def what_was_submitted_comes_back(peers: list[Endpoint]) -> None:
    async with open_queue_set() as qs:
        for peer in peers:
            qs.stream().connect(peer, now() + 1_000, data=peer.host)
        for each in await qs.wait_next(100, now() + 1_000):
            assert_type(each.data, Any)
            assert_type(each.op, Op)
            if each.error is None:
                match each.value:
                    case Connected(local, remote, report):
                        print(local, remote, report)
                    case Accepted(queue=accepted):
                        assert_type(accepted, IOQueue)
                    case _:
                        pass
        raced = await qs.wait(qs.connectx(peers, policy=RacePolicy(max_in_flight=2)))
        assert_type(raced.unwrap(), Connected)
        assert_type(await qs.room(2), None)
        qs.connectx(peers, tls=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def test_field_34_error_is_none_narrows_value_and_errno() -> None:
    async with open_queue_set() as qs:
        result = await qs.wait(qs.stream().pop())
        if result.error is None:
            assert_type(result, Succeeded[Popped])
            assert_type(result.value, Popped)
            assert_type(result.errno, None)
        else:
            assert_type(result, Failed[Popped])
            assert_type(result.value, None)
            assert_type(result.error, OSError)
            assert_type(result.errno, int)
        if result.value is not None:
            assert_type(result.value.data, bytes)
        if isinstance(result, Failed):
            assert_type(result.error, OSError)
        async for each in qs.completions():
            if each.error is not None:
                assert_type(each.errno, int)
