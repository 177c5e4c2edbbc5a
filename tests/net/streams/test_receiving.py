"""Receiving: exact, bounded, and never a byte lost to a deadline, a cancel or another reader."""

from __future__ import annotations

import errno
import select
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples, faults
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import (
    ANY_KINDS,
    KINDS,
    RECEIVES,
    AnyKind,
    AnyStream,
    Kind,
    make_pair,
    pair,
    random_bytes,
    send_end,
)
from trio_connect import DeadlineExceeded, IncompleteRead, now, tcp_connect
from trio_connect._net.streams.buffer import EMPTY_BUFFER, ReceiveBuffer

kinds = pytest.mark.parametrize("kind", ANY_KINDS)
receives = pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)


# --- not a byte is lost -----------------------------------------------------------------------------------------------

# What to send, how to receive, and when to lose patience: all three in small pieces.
CHUNKS = st.lists(st.integers(1, 40), min_size=1, max_size=12)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["some", "exactly", "into", "until", "fill", "take", "look"]),
        st.integers(1, 50),
        st.sampled_from(["now", "cancelled before", "cancelled soon", "wait a little"]),
    ),
    max_size=25,
)


async def one_receive(stream: AnyStream, how: str, size: int, deadline: int) -> bytes:
    if how == "some":
        return await stream.receive_some(size, deadline)
    if how == "exactly":
        return await stream.receive_exactly(size, deadline)
    if how == "until":
        return await stream.receive_until(b"\n\n", size, deadline) + b"\n\n"
    if how == "fill":
        await stream.fill(deadline)
        return b""
    if how == "take":
        return stream.take(size) or b""
    if how == "look":
        stream.is_dead()
        return b""
    target = bytearray(size)
    await stream.receive_into(target, deadline)
    return bytes(target)


@kinds
@settings(max_examples=examples(25, 250))
@given(chunks=CHUNKS, steps=STEPS)
async def test_whatever_interrupts_the_bytes_come_in_order(kind: AnyKind, chunks: list[int], steps: Any) -> None:
    await interrupted_receives(kind, chunks, steps)


@kinds
@settings(max_examples=examples(12, 120))
@given(chunks=CHUNKS, steps=STEPS)
async def test_likewise_over_a_factorys_sockets(kind: AnyKind, chunks: list[int], steps: Any) -> None:
    with Sockets.to("factory").installed():
        await interrupted_receives(kind, chunks, steps)


async def interrupted_receives(kind: AnyKind, chunks: list[int], steps: list[tuple[str, int, str]]) -> None:
    near, far = await make_pair(kind)
    # Two newlines now and then, sometimes divided by a chunk's border.
    sent = bytes(10 if i % 7 in (3, 4) else i % 251 for i in range(sum(chunks)))
    got = b""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def sending() -> None:
                start = 0
                for size in chunks:
                    await near.send_all(sent[start : start + size])
                    start += size
                    await trio.lowlevel.checkpoint()
                await send_end(near)

            nursery.start_soon(sending)
            for how, size, patience in steps:
                scope = trio.CancelScope()
                deadline = {"now": 0, "wait a little": now() + 1}.get(patience, -1)
                if patience == "cancelled before":
                    scope.cancel()
                elif patience == "cancelled soon":
                    nursery.start_soon(cancel_after_some_passes, scope, size % 4)
                with scope:
                    try:
                        got += await one_receive(far, how, size, deadline)
                    except (DeadlineExceeded, IncompleteRead):
                        pass
                    except OSError as exc:
                        if exc.errno != errno.EMSGSIZE:
                            raise
            while data := await far.receive_some():
                got += data
    assert got == sent
    near.abort()
    far.abort()


async def cancel_after_some_passes(scope: trio.CancelScope, passes: int) -> None:
    for _ in range(passes):
        await trio.lowlevel.checkpoint()
    scope.cancel()


@kinds
@pytest.mark.parametrize("how", ["deadline", "cancel"])
@pytest.mark.parametrize("size", [10, 100_000, 1_500_000])
async def test_an_interrupted_receive_goes_on(sockets: Sockets, kind: AnyKind, how: str, size: int) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        sent = random_bytes(size)
        target = bytearray(size)
        for receive in (lambda d: near.receive_exactly(size, d), lambda d: near.receive_into(target, d)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.send_all, sent[:-1])
                while near.buffered < size - 1:
                    if how == "deadline":
                        with pytest.raises(DeadlineExceeded) as caught:
                            await receive(now() + 2)
                        # A busy machine may come to the call only then.
                        begun = "did not begin" not in str(caught.value)
                        assert caught.value.transferred == (near.buffered if begun else 0)
                        del caught
                    else:
                        with trio.move_on_after(0.001) as scope:
                            await receive(-1)
                        assert scope.cancelled_caught
            await far.send_all(sent[-1:])
            data = await receive(-1)
            assert (data or bytes(target)) == sent
            assert near.buffered == 0


# --- each method ------------------------------------------------------------------------------------------------------


@kinds
async def test_receive_some_takes_the_buffered_first(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abcdef")
        assert await near.fill() == 6
        await far.send_all(b"ghi")
        assert await near.receive_some(2) == b"ab"
        assert (near.take(2), near.take(3), near.buffered) == (b"cd", None, 2)
        assert await near.receive_some() == b"ef"
        assert await near.receive_some(2) == b"gh"
        assert await near.receive_some() == b"i"
        await send_end(far)
        for _ in range(2):
            assert await near.receive_some() == b""
            assert await near.fill() == 0


@kinds
async def test_receive_until(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        # Delimiters of every length, divided at every place.
        for delimiter in (b"\n", b"\r\n", b"\r\n\r\n", b"aab"):
            whole = b"aaaa" + delimiter
            for cut in range(1, len(whole)):
                async with trio.open_nursery() as nursery:
                    lines: list[bytes] = []

                    async def receiving(delimiter: bytes = delimiter, lines: list[bytes] = lines) -> None:
                        lines.append(await near.receive_until(delimiter, 4))

                    nursery.start_soon(receiving)
                    await trio.testing.wait_all_tasks_blocked()
                    await far.send_all(whole[:cut])
                    await trio.testing.wait_all_tasks_blocked()
                    await far.send_all(whole[cut:] + b"!")
                assert lines == [b"aaaa"], (delimiter, cut)
                assert await near.receive_exactly(1) == b"!"
        await far.send_all(b"\n\nx\n")
        delimiters: list[Any] = [b"\n", bytearray(b"\n"), memoryview(b"\n")]
        lines = []
        for delimiter in delimiters:
            with trio.testing.assert_checkpoints():
                lines.append(await near.receive_until(delimiter, 10))
        assert lines == [b"", b"", b"x"]


@kinds
@pytest.mark.parametrize("buffered", [False, True])
async def test_a_delimiter_that_does_not_come(sockets: Sockets, kind: AnyKind, buffered: bool) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abcdef\n")
        if buffered:
            await near.fill()
        for limit in (0, 1, 5):
            with trio.testing.assert_checkpoints(), pytest.raises(OSError, match="within") as caught:
                await near.receive_until(b"\n", limit)
            assert caught.value.errno == errno.EMSGSIZE
            assert near.buffered == 7
        assert await near.receive_until(b"\n", 6) == b"abcdef"
        await far.send_all(b"abc")
        with pytest.raises(DeadlineExceeded):
            await near.receive_until(b"\n", 3, 0)  # the delimiter may yet follow
        await far.send_all(b"d")
        with pytest.raises(OSError, match="within 3 bytes"):
            await near.receive_until(b"\n", 3)
        await send_end(far)
        with pytest.raises(IncompleteRead, match=r"before b'\\n'; 4 bytes came and stay buffered") as incomplete:
            await near.receive_until(b"\n", 30)
        assert (incomplete.value.expected, incomplete.value.available) == (None, 4)
        assert near.take(4) == b"abcd"


@kinds
@pytest.mark.parametrize("size", [10, 100_000])
async def test_an_end_before_all_has_come(sockets: Sockets, kind: AnyKind, size: int) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await far.send_all(b"abc")
        await far.aclose()
        for call in (lambda: near.receive_exactly(size), lambda: near.receive_into(bytearray(size))):
            with pytest.raises(IncompleteRead, match="3 bytes came and stay buffered") as caught:
                await call()
            assert (caught.value.expected, caught.value.available, near.buffered) == (size, 3, 3)
            del caught
        assert await near.receive_some() == b"abc"
        assert await near.receive_some() == b""


@kinds
async def test_receive_into_takes_every_kind_of_buffer(sockets: Sockets, kind: AnyKind) -> None:
    import array

    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        words = array.array("I", [0, 0])
        await far.send_all(bytes(range(1, 9)))
        await near.receive_into(words)
        assert words.tobytes() == bytes(range(1, 9))
        target = bytearray(4)
        await far.send_all(b"abcdef")
        await near.receive_into(memoryview(target)[1:3])
        assert target == b"\0ab\0"
        await near.fill()
        with trio.testing.assert_checkpoints():
            await near.receive_into(target)
        assert target == b"cdef"
        with trio.testing.assert_checkpoints():
            await near.receive_into(bytearray())
        with pytest.raises(TypeError, match="receive_into needs a writable buffer"):
            await near.receive_into(b"read-only")
        with pytest.raises(TypeError):
            await near.receive_into("text")  # type: ignore[arg-type]
        with trio.testing.assert_checkpoints():
            assert await near.receive_exactly(0) == b""


@kinds
async def test_bad_sizes(sockets: Sockets, kind: AnyKind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, _):
        for value, error in ((True, TypeError), (1.0, TypeError), ("1", TypeError), (-1, ValueError)):
            for call in (
                lambda value=value: near.receive_some(value),
                lambda value=value: near.receive_exactly(value),
                lambda value=value: near.receive_until(b"\n", value),
            ):
                with pytest.raises(error, match=f"must be .*{value!r}"):
                    await call()
        with pytest.raises(ValueError, match="max_bytes must be at least 1, got 0"):
            await near.receive_some(0)
        with pytest.raises(ValueError, match="at least one byte"):
            await near.receive_until(b"", 1)
        with pytest.raises(TypeError, match="delimiter must be bytes"):
            await near.receive_until("\n", 1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="n must be at least 0, got -1"):
            near.take(-1)


# --- one at a time ----------------------------------------------------------------------------------------------------


@kinds
@receives
async def test_a_second_receiver_is_busy_and_harms_nothing(sockets: Sockets, kind: AnyKind, receive: Any) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        async with trio.open_nursery() as nursery:
            got: list[bytes] = []

            async def receiving() -> None:
                got.append(await near.receive_exactly(4))

            nursery.start_soon(receiving)
            await trio.testing.wait_all_tasks_blocked()
            await far.send_all(b"ab")
            await trio.testing.wait_all_tasks_blocked()
            for deadline in (-1, 0):
                with pytest.raises(trio.BusyResourceError):
                    await receive(near, deadline)
            with pytest.raises(trio.BusyResourceError):
                near.take(1)
            await far.send_all(b"cd")
        assert got == [b"abcd"]


@kinds
@receives
async def test_every_receive_is_a_checkpoint(sockets: Sockets, kind: AnyKind, receive: Any) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        for buffered in (0, 3, 100_003):
            received = trio.Event()

            async def send(received: trio.Event = received) -> None:
                await far.send_all(b"a\r\n" + bytes(100_000))
                await received.wait()
                await far.send_all(b"the end")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while near.buffered < buffered:
                    await near.fill()
                if receive is RECEIVES["fill"] and near.buffered == 100_003:
                    await far.send_all(b"more")
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await receive(near, -1)
                assert scope.cancelled_caught
                with trio.testing.assert_checkpoints():
                    await receive(near, -1)
                received.set()
                rest = near.take(near.buffered)
                while rest is not None and not rest.endswith(b"the end"):
                    await near.fill()
                    rest = rest[-7:] + (near.take(near.buffered) or b"")


async def test_a_refusal_of_the_kernel_is_broken(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), faults.resetting(b"hello") as peer:
        stream = await tcp_connect(peer.address.pair)
        with pytest.raises(trio.BrokenResourceError, match=rf"receive: connection with {peer.address.host}:.* broke: "):
            while True:
                await stream.receive_some()
        await stream.aclose()


# --- the buffer -------------------------------------------------------------------------------------------------------


# Few letters, so that delimiters are found; and pieces on both sides of what is kept as it came.
letters = st.binary(max_size=5).map(lambda data: bytes(b"ab"[value % 2] for value in data))
pieces = st.builds(lambda data, times: data * times, letters, st.sampled_from((1, 1, 1, 3000, 6000)))
delimiters = letters.filter(bool)


@given(st.lists(st.one_of(pieces, st.integers(0, 40_000), st.tuples(delimiters, st.integers(0, 60_000)))))
def test_the_buffer_is_a_queue_of_bytes(steps: list[Any]) -> None:
    buffer, model = ReceiveBuffer(), bytearray()
    for step in steps:
        if isinstance(step, bytes):
            buffer.add(step)
            model += step
        elif isinstance(step, int):
            expected = bytes(model[:step]) if step <= len(model) else None
            taken = buffer.take(step)
            assert taken == expected
            assert taken is None or type(taken) is bytes
            if expected is not None:
                del model[:step]
        else:
            delimiter, end = step
            assert buffer.find(delimiter, end) == model.find(delimiter, 0, end)
        assert len(buffer) == len(model)
    assert buffer.take_up_to(1 << 30) == bytes(model)


def test_a_search_ends_where_it_is_told_to() -> None:
    buffer = ReceiveBuffer()
    for letter in b"abcd":
        buffer.add(bytes([letter]) * 20_000)
    assert buffer.find(b"d", 25_000) == -1
    assert buffer.find(b"d", 45_000) == -1
    assert buffer.find(b"d", 60_000) == -1
    assert buffer.find(b"d", 60_001) == 60_000
    assert buffer.find(b"bc", 40_000) == -1
    assert buffer.find(b"bc", 40_001) == 39_999


async def test_the_buffer_that_streams_share_until_they_need_one_stays_empty() -> None:
    async with pair("tcp") as (one, other):
        await other.send_all(b"for one")
        assert one._buffer is other._buffer is EMPTY_BUFFER
        assert (one.take(0), one.take(1)) == (b"", None)
        assert await one.fill() == 7
        assert (one.buffered, other.buffered, len(EMPTY_BUFFER), EMPTY_BUFFER.take(1)) == (7, 0, 0, None)


async def test_an_error_behind_bytes_is_not_taken_for_the_end() -> None:
    """The kernel tells a reset once: here to the call that has just read what came before it."""
    async with no_leaks(), pair("tcp") as (near, far):
        await far.send_all(b"abc")
        far.abort()
        poll = select.poll()
        poll.register(near.fileno(), 0)
        while not poll.poll(0):  # POLLERR, POLLHUP: these take nothing away
            await trio.lowlevel.checkpoint()
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="connection reset by peer"):
                await near.receive_into(bytearray(5))
        assert near.take(3) == b"abc"


# --- an idle connection ----------------------------------------------------------------------------------------------

ENDINGS: dict[str, Callable[[Any], Awaitable[object] | None]] = {
    "ended": lambda far: far.send_eof(),
    "closed": lambda far: far.aclose(),
    "reset": lambda far: far.abort(),
    "unasked": lambda far: far.send_all(b"421 bye"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_idle_connection_is_dead_once_the_peer_has_ended_it(sockets: Sockets, kind: Kind, ending: str) -> None:
    async with pair(kind) as (near, far):
        await far.send_all(b"answer")
        assert await near.receive_exactly(6) == b"answer"
        assert not near.is_dead()
        if (ended := ENDINGS[ending](far)) is not None:
            await ended
        while not near.is_dead():
            await trio.lowlevel.checkpoint()
        # Nothing was taken by looking, neither bytes nor the error.
        if ending == "unasked":
            assert await near.fill() == 7
            assert near.is_dead()
            assert near.take(7) == b"421 bye"
            assert not near.is_dead()
        elif ending == "reset" and kind == "tcp":
            with pytest.raises(trio.BrokenResourceError, match="connection reset by peer"):
                await near.receive_some()
            assert near.is_dead()
        else:
            assert await near.receive_some() == b""
        await near.aclose()
        assert near.is_dead()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_is_received_from_is_not_idle(sockets: Sockets, kind: Kind) -> None:
    async with pair(kind) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(near.receive_exactly, 1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            near.is_dead()
        await far.send_all(b"x")
