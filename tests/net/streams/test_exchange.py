"""A request and its response in one call: what `send_all` and then `receive_exactly` would have done, and when."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import (
    ANY_KINDS,
    KINDS,
    AnyKind,
    AnyStream,
    Kind,
    Stream,
    arrival,
    make_pair,
    narrow_pair,
    pair,
    random_bytes,
    send_end,
)
from tests.support.sweep import Mode, Step, sweep
from trio_connect import DeadlineExceeded, IncompleteRead, TlsStream, now

any_kinds = pytest.mark.parametrize("kind", ANY_KINDS)
kinds = pytest.mark.parametrize("kind", KINDS)


async def answer(stream: AnyStream, size: int, *responses: bytes) -> None:
    """Read a request, then send a response in so many pieces, each on its own."""
    await stream.receive_exactly(size)
    for response in responses:
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(response)


@any_kinds
@pytest.mark.parametrize(
    "request_",
    [b"abc", bytearray(b"abc"), memoryview(b"abc"), [b"a", b"", b"bc"], (b"ab", b"c")],
    ids=["bytes", "bytearray", "memoryview", "list", "tuple"],
)
@pytest.mark.parametrize(
    ("buffered", "pieces", "n"),
    [
        (b"", [b"0123"], 4),
        (b"", [b"012345"], 4),
        (b"", [b"01", b"2345"], 4),
        (b"", [b"0123"], 0),
        (b"01", [b"23"], 4),
        (b"0123", [b"45"], 4),
        (b"", [bytes(range(256)) * 300], 70_000),
    ],
    ids=["exact", "more", "pieces", "none", "some buffered", "all buffered", "large"],
)
async def test_it_is_a_send_and_a_receive(
    sockets: Sockets, kind: AnyKind, request_: Any, buffered: bytes, pieces: list[bytes], n: int
) -> None:
    whole = buffered + b"".join(pieces)
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far), trio.open_nursery() as nursery:
        if buffered:
            await far.send_all(buffered)
            await near.fill()
        nursery.start_soon(answer, far, 3, *pieces)
        assert await near.exchange(request_, n) == whole[:n]
        if n < len(whole):
            assert await near.receive_exactly(len(whole) - n) == whole[n:]
        assert near.buffered == 0


@any_kinds
@pytest.mark.parametrize("request_", [b"", [], [b""]], ids=repr)
async def test_without_a_request_it_is_a_receive(sockets: Sockets, kind: AnyKind, request_: Any) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abc")
        assert await near.exchange(request_, 2) == b"ab"
        with trio.testing.assert_checkpoints():
            assert await near.exchange(request_, 0) == b""
        with pytest.raises(DeadlineExceeded):
            await far.receive_some(None, 0)


@kinds
@pytest.mark.parametrize("several", [False, True])
async def test_a_request_that_does_not_fit_at_once(sockets: Sockets, kind: Kind, several: bool) -> None:
    async with no_leaks(counters=sockets.counters), narrow_pair(kind) as (near, far, too_much):
        request = random_bytes(too_much)
        got: list[bytes] = []

        async def respond() -> None:
            got.append(await far.receive_exactly(len(request)))
            await far.send_all(b"done")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(respond)
            assert await near.exchange([request[:7], request[7:]] if several else request, 4) == b"done"
        assert got == [request]


# --- one checkpoint ---------------------------------------------------------------------------------------------------


class Steps(trio.abc.Instrument):
    """Counts the turns of one task."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self.task


@kinds
async def test_one_pass_of_the_loop_comes_between_the_two(kind: Kind) -> None:
    async with no_leaks(), pair(kind) as (near, far):
        await far.send_all(b"answered before it was asked")
        await arrival(near.socket)
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        try:
            assert await near.exchange(b"?", 28) == b"answered before it was asked"
            assert steps.count == 1
            assert await near.exchange([b"?"], 0) == b""
            assert steps.count == 2
        finally:
            trio.lowlevel.remove_instrument(steps)


async def test_that_pass_is_when_the_peer_answers() -> None:
    async def echo(stream: Stream) -> None:
        await stream.send_all(await stream.receive_exactly(1))

    async with no_leaks(), pair("unix") as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(echo, far)
        await trio.testing.wait_all_tasks_blocked()
        assert await near.exchange(b"x", 1, 0) == b"x"


@any_kinds
async def test_every_call_is_a_checkpoint_and_a_cancelled_one_has_sent_nothing(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abcdef")
        for n in (0, 2, 2):
            with trio.CancelScope() as scope:
                scope.cancel()
                await near.exchange(b"lost", n)
            assert scope.cancelled_caught
            with trio.testing.assert_checkpoints():
                await near.exchange(b"kept", n)
        assert await far.receive_exactly(12) == b"keptkeptkept"
        with pytest.raises(DeadlineExceeded):
            await far.receive_some(None, 0)


# --- what stops it ----------------------------------------------------------------------------------------------------


@any_kinds
async def test_wrong_arguments_send_nothing(kind: AnyKind) -> None:
    async with no_leaks(), pair(kind) as (near, far):
        wrong: list[tuple[Any, Any, Any, type[Exception]]] = [
            ("text", 1, -1, TypeError),
            (["text"], 1, -1, TypeError),
            (b"x", 1.0, -1, TypeError),
            (b"x", True, -1, TypeError),
            (b"x", -1, -1, ValueError),
            (b"x", now(), -1, ValueError),
            (b"x", 1, 2000, ValueError),
            (b"x", 1, -1.0, TypeError),
        ]
        for data, n, deadline, error in wrong:
            with pytest.raises(error):
                await near.exchange(data, n, deadline)
        with pytest.raises(DeadlineExceeded):
            await far.receive_some(None, 0)
        await near.send_all(b"still usable")


@any_kinds
async def test_no_response_in_time(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        for deadline in (0, now() + 30):
            with pytest.raises(DeadlineExceeded, match="receive from") as caught:
                await near.exchange(b"?", 4, deadline)
            assert caught.value.transferred == 0
        await far.send_all(b"ab")
        await near.fill()
        for request in (b"?", [b"?"]):
            with pytest.raises(DeadlineExceeded, match="receive from") as caught:
                await near.exchange(request, 4, 0)
            assert (caught.value.transferred, near.buffered) == (2, 2)
        near.take(2)
        await far.send_all(b"cd")
        with pytest.raises(DeadlineExceeded, match="receive from") as caught:
            while True:  # a busy kernel may bring them late
                await near.exchange(b"?", 4, now() + 20)
        assert (caught.value.transferred, near.take(2)) == (near.buffered + 2, b"cd")
        del caught
        assert set(await far.receive_some()) == set(b"?")


@any_kinds
async def test_a_call_that_begins_late_has_sent_nothing(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abc")
        late = now() - 5
        for request in (b"?", bytearray(b"?")):
            with trio.testing.assert_checkpoints(), pytest.raises(DeadlineExceeded, match="exchange with") as caught:
                await near.exchange(request, 1, late)
            assert caught.value.transferred == 0
            if isinstance(request, bytearray):
                request.clear()  # BufferError while a view of it is left
            del caught
        with pytest.raises(DeadlineExceeded):
            await far.receive_some(None, 0)
        assert await near.receive_exactly(3) == b"abc"


@kinds
@pytest.mark.parametrize("several", [False, True])
async def test_a_request_that_is_not_taken_in_time(sockets: Sockets, kind: Kind, several: bool) -> None:
    async with no_leaks(counters=sockets.counters), narrow_pair(kind) as (near, far, too_much):
        request = bytearray(random_bytes(too_much))
        whole = bytes(request)
        with pytest.raises(DeadlineExceeded, match="send to") as caught:
            await near.exchange([request] if several else whole, 1, 0)
        sent = caught.value.transferred
        assert 0 < sent < len(whole)
        request.clear()
        with pytest.raises(DeadlineExceeded, match="send to") as caught:
            while True:
                await near.exchange(whole[sent:], 1, 0)
        assert caught.value.transferred == 0 or sent + caught.value.transferred < len(whole)
        sent += caught.value.transferred
        assert await far.receive_exactly(sent) == whole[:sent]
        del caught


@any_kinds
async def test_an_end_before_the_response(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await far.receive_exactly(1)
                await far.send_all(b"ab")
                await send_end(far)

            nursery.start_soon(give_up)
            with pytest.raises(IncompleteRead, match="2 bytes came and stay buffered") as caught:
                await near.exchange(b"x", 4)
        assert (caught.value.expected, caught.value.available, near.take(2)) == (4, 2, b"ab")
        del caught
        if not isinstance(far, TlsStream):
            with pytest.raises(IncompleteRead, match="before 4 bytes; 0 bytes came"):
                await near.exchange(b"x", 4)


@kinds
async def test_a_connection_that_breaks(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await far.receive_exactly(1)
                far.abort()

            nursery.start_soon(give_up)
            with pytest.raises((trio.BrokenResourceError, IncompleteRead)) as caught:
                await near.exchange(b"x", 4)
        assert kind == "unix" or not isinstance(caught.value, IncompleteRead)
        with trio.testing.assert_checkpoints(), pytest.raises(trio.BrokenResourceError):
            await near.exchange(b"x", 4)
        del caught


@any_kinds
async def test_both_directions_belong_to_it(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        calls: list[Callable[[], Any]] = [
            lambda: near.exchange(b"x", 1),
            lambda: near.send_all(b"x"),
            lambda: near.send_all([b"x"], 0),
            near.receive_some,
            lambda: near.receive_exactly(1),
            lambda: near.fill(0),
        ]
        for request in (b"?", [b"?"]):
            got: list[bytes] = []

            async def asking(request: Any = request, got: list[bytes] = got) -> None:
                got.append(await near.exchange(request, 4))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(asking)
                await trio.testing.wait_all_tasks_blocked()
                for piece in (b"ab", b"cd"):
                    for call in calls:
                        with pytest.raises(trio.BusyResourceError):
                            await call()
                    with pytest.raises(trio.BusyResourceError):
                        near.take(1)
                    await far.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked(0.01)
            assert got == [b"abcd"]
            assert await far.receive_exactly(1) == b"?"
        with pytest.raises(DeadlineExceeded):
            await far.receive_some(None, 0)


@any_kinds
async def test_it_waits_for_nobody(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(near.receive_exactly, 1)
        await trio.testing.wait_all_tasks_blocked()
        for deadline in (-1, 0):
            with pytest.raises(trio.BusyResourceError, match="receiving"):
                await near.exchange(b"x", 1, deadline)
        with pytest.raises(DeadlineExceeded):
            await far.receive_some(None, 0)
        await far.send_all(b"y")


@kinds
async def test_while_both_directions_are_full_it_holds_them(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), narrow_pair(kind) as (near, far, too_much):
        whole = random_bytes(too_much)
        for request in (whole, [whole]):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.exchange, request, 1)
                await trio.testing.wait_all_tasks_blocked(0.01)
                for call in (near.receive_some, lambda: near.send_all(b"x"), near.send_eof):
                    with pytest.raises(trio.BusyResourceError):
                        await call()
                assert await far.receive_exactly(too_much) == whole
                await far.send_all(b"y")


@any_kinds
async def test_a_stream_that_is_closed(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(closing, near)
            with pytest.raises(trio.ClosedResourceError, match="closed"):
                await near.exchange(b"x", 4)
        with pytest.raises(trio.ClosedResourceError, match=r"(this stream|the stream with .+) is closed"):
            await near.exchange(b"x", 4)


async def closing(stream: AnyStream) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    await stream.aclose()


@kinds
async def test_who_closes_gracefully_gets_what_comes(sockets: Sockets, kind: Kind) -> None:
    """Between the request and the response another task begins to close: nobody receives from a closed stream."""
    refused = 0
    async with no_leaks(counters=sockets.counters):
        for _ in range(20):  # which of the two tasks has its turn first is Trio's to choose
            async with pair(kind) as (near, far):
                await far.send_all(b"abcd")
                await far.send_eof()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(near.close_gracefully)
                    try:
                        assert await near.exchange(b"x", 4) == b"abcd"
                        assert near.fileno() != -1
                    except trio.ClosedResourceError:
                        refused += 1
    assert refused > 0


@kinds
async def test_an_end_after_a_reset_that_was_told_already(kind: Kind) -> None:
    async with no_leaks(), pair(kind) as (near, far):
        await far.send_eof()
        near._sock.lost = errno.ECONNRESET
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await near.exchange(b"x", 4)


@kinds
async def test_after_send_eof_nothing_is_asked(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await near.send_eof()
        await far.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError, match="after send_eof"):
            await near.exchange(b"x", 1)
        assert await near.receive_exactly(1) == b"x"


# --- beside the two calls that it stands for --------------------------------------------------------------------------

ROUNDS = st.lists(
    st.tuples(
        st.binary(max_size=5),  # the request
        st.lists(st.integers(1, 9), max_size=3),  # the pieces of the response
        st.integers(0, 9),  # what is asked for
        st.booleans(),  # one bytes object or several
        st.sampled_from([-1, 0]),
    ),
    max_size=6,
)


async def outcome_of(call: Any) -> Any:
    try:
        return await call()
    except (DeadlineExceeded, IncompleteRead) as exc:
        return type(exc), getattr(exc, "transferred", None), getattr(exc, "available", None)


@pytest.mark.parametrize("kind", ["unix"])  # where what was sent is there at once
@settings(max_examples=examples(25, 250))
@given(rounds=ROUNDS)
async def test_it_leaves_what_the_two_calls_leave(kind: Kind, rounds: list[Any]) -> None:
    near, far = await make_pair(kind)
    one, other = await make_pair(kind)
    for request, sizes, n, several, deadline in rounds:
        data: Any = [request[:2], request[2:]] if several else request
        for size in sizes:
            await far.send_all(bytes(range(size)))
            await other.send_all(bytes(range(size)))

        async def both(data: Any = data, n: int = n) -> bytes:
            await one.send_all(data, 0)
            return await one.receive_exactly(n, 0)

        patience = deadline if near.buffered + sum(sizes) >= n else 0

        async def single(data: Any = data, n: int = n, patience: int = patience) -> bytes:
            return await near.exchange(data, n, patience)

        assert await outcome_of(single) == await outcome_of(both)
        assert near.take(near.buffered) == one.take(one.buffered)
    sent = b"".join(request for request, *_ in rounds)
    for stream in (far, other):
        if sent:
            assert await stream.receive_exactly(len(sent)) == sent
        stream.abort()
    for stream in (near, one):
        stream.abort()


# --- cancelled at every step ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def with_an_answer_on_its_way(kind: AnyKind) -> AsyncIterator[tuple[AnyStream, AnyStream]]:
    near, far = await make_pair(kind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, far, 3, b"ab", b"cd")
        try:
            yield near, far
        finally:
            nursery.cancel_scope.cancel()
            near.abort()
            far.abort()


@any_kinds
@pytest.mark.parametrize("n", [4, 100], ids=["enough", "more than comes"])
@pytest.mark.parametrize("request_", [b"get", [b"g", b"et"]], ids=["bytes", "several"])
async def test_cancelled_at_every_step(
    sockets: Sockets, kind: AnyKind, n: int, request_: Any, modes: tuple[Mode, ...]
) -> None:
    async def asking(ends: tuple[AnyStream, AnyStream]) -> None:
        near, _ = ends
        assert await near.exchange(request_, n) == b"abcd"

    async def all_or_nothing(ends: tuple[AnyStream, AnyStream], step: Step) -> None:
        near, _ = ends
        if step.ending == "returned":
            return
        # Either nothing was sent, or all of it was and every byte of the response is still to be had.
        left = b""
        with contextlib.suppress(DeadlineExceeded, trio.BrokenResourceError):
            for _ in range(4):
                await trio.testing.wait_all_tasks_blocked(0.002)
                left += await near.receive_some(None, 0)
        if not left and not isinstance(near, TlsStream):
            left = await near.exchange(b"get", 4)
        assert left == b"abcd" or isinstance(near, TlsStream), step

    await sweep(
        asking,
        environment=lambda: with_an_answer_on_its_way(kind),
        modes=modes,
        counters=sockets.counters,
        check=all_or_nothing,
        inside=False,
    )
