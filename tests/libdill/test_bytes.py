"""bsend, brecv, bsendl, brecvl."""

from __future__ import annotations

import array
import errno
import itertools

import pytest
import trio
import trio.testing

from tests.libdill.kit import connected, fails, receive, send, something_there
from trio_connect import DeadlineExceeded, IncompleteRead
from trio_connect import libdill as dill


async def test_exactly_so_many_bytes(sockets):
    async with connected() as (client, server):
        buffer = bytearray(b"..........")
        assert await dill.bsend(client, b"hello, world", 5, -1) == 0
        await send(client, b"WORLD")
        assert await dill.brecv(server, buffer, 8, -1) == 0
        assert buffer == b"helloWOR.."
        buffer.extend(b"a view of it would forbid this")
        assert await dill.brecv(server, memoryview(bytearray(2)), 2, -1) == 0


@pytest.mark.parametrize("size", [1, 1984, 1985, 65536, 65537, 1 << 20])
async def test_every_size_arrives_whole(sockets, size):
    data = bytes(i * 7 % 256 for i in range(256)) * (size // 256 + 1)
    data = data[:size]
    async with connected() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(send, client, data)
        assert await receive(server, size) == data


async def test_nothing_is_always_there(sockets):
    async with connected() as (client, server):
        for deadline in (0, 1, -1):
            with trio.testing.assert_checkpoints():
                assert await dill.bsend(client, None, 0, deadline) == 0
            with trio.testing.assert_checkpoints():
                assert await dill.brecv(server, None, 0, deadline) == 0
            assert await dill.brecv(server, bytearray(), 0, deadline) == 0
            assert await dill.bsend(client, b"", 0, deadline) == 0


async def test_data_that_is_there_beats_a_deadline_that_has_passed(sockets):
    async with connected() as (client, server):
        await send(client, b"xy")
        await something_there(server)
        for deadline in (0, 1):
            assert await receive(server, 1, deadline) in (b"x", b"y")


@pytest.mark.parametrize("size", [3, 100_000])
async def test_none_skips(sockets, size):
    async with connected() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(send, client, bytes(size) + b"end")
        assert await dill.brecv(server, None, size, -1) == 0
        assert await receive(server, 3) == b"end"


async def test_a_skip_that_times_out_has_skipped_nothing(sockets):
    async with connected() as (client, server):
        await send(client, b"abc")
        with fails(errno.ETIMEDOUT) as caught:
            await dill.brecv(server, None, 4, dill.now() + 20)
        assert isinstance(caught.value, DeadlineExceeded)
        assert caught.value.transferred == 3
        assert await receive(server, 3) == b"abc"


@pytest.mark.parametrize("size", [5, 100_000])
async def test_what_came_before_the_end_can_still_be_had(sockets, size):
    """In libdill it is lost, and nobody says how much it was."""
    async with connected() as (client, server):
        await send(client, b"abc")
        await dill.tcp_done(client, -1)
        with fails(errno.EPIPE) as caught:
            await receive(server, size)
        assert isinstance(caught.value.__cause__, IncompleteRead)
        assert caught.value.__cause__.available == 3
        assert await receive(server, 2) == b"ab"
        with fails(errno.EPIPE):
            await receive(server, 2)
        assert await receive(server, 1) == b"c"
        for wanted in (0, 1):
            with fails(errno.EPIPE):
                await receive(server, wanted)


async def test_what_came_before_a_reset_can_still_be_had(sockets):
    async with connected() as (client, server):
        await send(client, b"abc")
        with fails(errno.ETIMEDOUT):
            await receive(server, 5, dill.now() + 20)  # now it is buffered here
        dill.hclose(client)
        with fails(errno.ECONNRESET):
            await receive(server, 5)
        assert await receive(server, 3) == b"abc"
        with fails(errno.ECONNRESET):
            await receive(server, 1)


async def test_the_end_is_told_after_a_receive_of_everything(sockets):
    async with connected() as (client, server):
        await send(client, b"abc")
        await dill.tcp_done(client, -1)
        assert await receive(server, 3) == b"abc"
        with fails(errno.EPIPE):
            await receive(server, 1)


async def test_wrong_arguments():
    async with connected() as (client, server):
        for call in (lambda n: dill.bsend(client, b"abc", n, 0), lambda n: dill.brecv(server, bytearray(3), n, 0)):
            for size in (-1, 4):
                with fails(errno.EINVAL):
                    await call(size)
            for wrong in (True, None, 1.0):
                with pytest.raises(TypeError):
                    await call(wrong)
        with fails(errno.EINVAL):
            await dill.bsend(client, None, 1, -1)
        with pytest.raises(TypeError):
            await dill.brecv(server, b"read only", 1, -1)
        with pytest.raises(TypeError):
            await dill.bsend(client, "text", 1, -1)  # type: ignore[arg-type]
        # Nothing of that has left a mark.
        await dill.bsend(client, array.array("I", [0x01010101]), 4, -1)
        numbers = array.array("I", [0])
        await dill.brecv(server, numbers, 4, -1)
        assert numbers[0] == 0x01010101


def chain(*pieces: dill.iolist) -> tuple[dill.iolist, dill.iolist]:
    for piece, following in itertools.pairwise(pieces):
        piece.iol_next = following
    return pieces[0], pieces[-1]


@pytest.mark.parametrize("filler", [3, 70_000])
async def test_scatter_and_gather(sockets, filler):
    async with connected() as (client, server), trio.open_nursery() as nursery:
        first, last = chain(dill.iolist(b"abc", 2), dill.iolist(None, 0), dill.iolist(bytes(filler), filler),
                            dill.iolist(b"end", 3))  # fmt: skip
        nursery.start_soon(dill.bsendl, client, first, last, -1)
        head, tail = bytearray(2), bytearray(4)
        first, last = chain(dill.iolist(head, 1), dill.iolist(None, 1 + filler), dill.iolist(tail, 3))
        assert await dill.brecvl(server, first, last, -1) == 0
        assert (bytes(head), bytes(tail)) == (b"a\0", b"end\0")
        head.extend(b"not held")


async def test_a_scattered_receive_that_times_out_loses_nothing(sockets):
    async with connected() as (client, server):
        await send(client, b"abc")
        first, last = chain(dill.iolist(bytearray(2), 2), dill.iolist(bytearray(2), 2))
        with fails(errno.ETIMEDOUT):
            await dill.brecvl(server, first, last, 0)
        assert await receive(server, 3) == b"abc"


@pytest.mark.parametrize("call", [dill.bsendl, dill.brecvl])
async def test_a_list_must_be_one(call):
    async with connected() as (client, _):
        one, two = dill.iolist(bytearray(1), 1), dill.iolist(bytearray(1), 1)
        loop = dill.iolist(bytearray(1), 1)
        loop.iol_next = loop
        for first, last in (
            (None, None),  # libdill: brecvl(NULL, NULL) crashes
            (one, None),
            (None, one),
            (one, two),
            (loop, loop),
            (loop, one),
            (chain(dill.iolist(), dill.iolist())[0], one),
            (dill.iolist(bytearray(1), 1, None, 1),) * 2,
            (dill.iolist(bytearray(1), 2),) * 2,
            (dill.iolist(bytearray(1), -1),) * 2,
        ):
            with fails(errno.EINVAL):
                await call(client, first, last, 0)
        first, last = chain(dill.iolist(), dill.iolist())
        with fails(errno.EINVAL):
            await call(client, first, first, 0)
        with pytest.raises(TypeError):
            await call(client, "first", "last", 0)
