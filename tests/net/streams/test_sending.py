"""Sending: all of it, of one buffer or of many, by one task at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.faults import more_than_fits
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import KINDS, Kind, make_pair, narrow_pair, pair, random_bytes
from trio_connect import DeadlineExceeded

kinds = pytest.mark.parametrize("kind", KINDS)


async def sent_and_received(kind: Kind, data: Any, size: int) -> bytes:
    async with pair(kind) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, data)
        return await far.receive_exactly(size)


@kinds
@pytest.mark.parametrize("shape", ["list", "tuple", "large", "uneven", "empty ones", "words"])
async def test_several_buffers_arrive_as_one(sockets: Sockets, kind: Kind, shape: str) -> None:
    import array

    async with no_leaks(counters=sockets.counters):
        shapes: dict[str, Callable[[], Any]] = {
            "list": lambda: [b"a", bytearray(b"bc"), memoryview(b"def")],
            "tuple": lambda: (b"a", b"b"),
            "large": lambda: [random_bytes(7) for _ in range(3000)],  # more than IOV_MAX
            "uneven": lambda: [random_bytes(size) for size in (1, 2_000_000, 3, 500_000, 1)],
            "empty ones": lambda: [b"", b"a", b"", b"", b"b", b""],
            "words": lambda: [array.array("I", [1, 2]), b"x"],
        }
        parts = shapes[shape]()
        whole = b"".join(bytes(memoryview(part).cast("B")) for part in parts)
        assert await sent_and_received(kind, parts, len(whole)) == whole


@kinds
@pytest.mark.parametrize("data", [b"", [], (), [b"", b""]], ids=repr)
async def test_nothing_to_send_is_a_checkpoint(sockets: Sockets, kind: Kind, data: Any) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        with trio.testing.assert_checkpoints():
            await near.send_all(data)
        await near.send_all(b"x", 0)
        assert await far.receive_some() == b"x"


@kinds
@pytest.mark.parametrize("data", ["text", None, 1, ["text"], [1], {b"a"}, iter([b"a"]), memoryview(b"abcd")[::2]])
async def test_what_is_not_bytes(kind: Kind, data: Any) -> None:
    async with no_leaks(), pair(kind) as (near, far):
        with pytest.raises(TypeError):
            await near.send_all(data)
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"


@kinds
async def test_a_timed_out_send_can_go_on(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), narrow_pair(kind) as (near, far, too_much):
        for data in (random_bytes(too_much), [random_bytes(too_much // 3) for _ in range(4)]):
            whole = b"".join(data) if isinstance(data, list) else data
            with pytest.raises(DeadlineExceeded, match="send to") as caught:
                await near.send_all(data, 0)
            sent = caught.value.transferred
            assert 0 < sent < len(whole)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, whole[sent:])
                assert await far.receive_exactly(len(whole)) == whole
            del caught


@kinds
@pytest.mark.parametrize("several", [False, True])
async def test_a_failed_send_lets_go_of_the_buffer(sockets: Sockets, kind: Kind, several: bool) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, _):
        data = bytearray(more_than_fits())
        with pytest.raises(DeadlineExceeded) as caught:
            await near.send_all([data, b"x"] if several else data, 0)
        assert caught.value.__traceback__ is not None
        data.clear()  # BufferError while a view of it is left
        del caught


@kinds
async def test_a_second_sender_is_busy_and_harms_nothing(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), narrow_pair(kind) as (near, far, too_much):
        whole = random_bytes(too_much)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, whole)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for call in (lambda: near.send_all(b"x"), lambda: near.send_all([b"x", b"y"], 0), near.send_eof,
                         near.wait_send_all_might_not_block):  # fmt: skip
                with pytest.raises(trio.BusyResourceError):
                    await call()
            assert await far.receive_exactly(len(whole)) == whole
        with pytest.raises(DeadlineExceeded):
            await far.receive_some(None, 0)


@kinds
async def test_send_eof_half_closes(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        await near.send_all(b"x")
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await near.send_eof()
        with pytest.raises(trio.ClosedResourceError, match="after send_eof"):
            await near.send_all(b"y")
        assert await far.receive_some() == b"x"
        assert await far.receive_some() == b""
        await far.send_all(b"back")
        assert await near.receive_exactly(4) == b"back"


async def test_sending_to_who_has_gone_is_broken(sockets: Sockets) -> None:
    for kind in KINDS:
        async with no_leaks(counters=sockets.counters):
            near, far = await make_pair(kind)
            far.abort()
            with pytest.raises(trio.BrokenResourceError, match=r"send: connection with .* broke") as caught:
                while True:
                    await near.send_all(b"x")
            assert isinstance(caught.value.__cause__, OSError)
            await near.aclose()
            del caught


async def test_send_eof_to_who_has_gone_is_broken(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        far.abort()
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.BrokenResourceError):
            await near.send_eof()


@kinds
async def test_waiting_for_room(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), pair(kind) as (near, far):
        with trio.testing.assert_checkpoints():
            await near.wait_send_all_might_not_block()
        with pytest.raises(DeadlineExceeded) as caught:
            await near.send_all(bytes(more_than_fits()), 0)
        sent = caught.value.transferred
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.wait_send_all_might_not_block)
            await far.receive_exactly(sent)
        del caught
