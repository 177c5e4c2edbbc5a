"""Descriptors that ride on a unix-domain stream, and closing a listener without awaiting."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from trio_connect import DeadlineExceeded, IncompleteRead, UnixStream, now, tcp_listen, unix_connect, unix_listen


async def pair(sockets: Sockets, path: os.PathLike[str]) -> tuple[UnixStream, UnixStream]:
    async with await unix_listen(path) as listener:
        return await unix_connect(path), await listener.accept()


async def test_a_descriptor_arrives_where_it_was_put(sockets, tmp_path):
    async with no_leaks(counters=sockets.counters):
        one, other = await pair(sockets, tmp_path / "s")
        async with one, other:
            reading, writing = os.pipe()
            await one.send_all(b"before")
            await one.send_fd(writing)
            os.close(writing)
            await one.send_all(b"after")
            head = bytearray(6)
            await other.receive_into(head)
            received = await other.receive_fd()
            assert (bytes(head), await other.receive_exactly(5)) == (b"before", b"after")
            assert not os.get_inheritable(received)
            os.write(received, b"through the pipe")
            os.close(received)
            assert os.read(reading, 100) == b"through the pipe"
            os.close(reading)


async def test_what_is_no_descriptor_stays_readable(sockets, tmp_path):
    one, other = await pair(sockets, tmp_path / "s")
    async with one, other:
        await one.send_all(b"\xccx")
        for _ in range(2):  # from the socket, then from the buffer
            with pytest.raises(OSError, match="not a descriptor") as caught:
                await other.receive_fd()
            assert caught.value.errno == errno.EPROTO
        assert await other.receive_exactly(2) == b"\xccx"
        await one.send_eof()
        with pytest.raises(IncompleteRead):
            await other.receive_fd()


async def test_deadlines_and_refusals_poison_nothing(sockets, tmp_path):
    one, other = await pair(sockets, tmp_path / "s")
    async with one, other:
        for deadline in (0, now() + 20):
            with pytest.raises(DeadlineExceeded):
                await other.receive_fd(deadline)
        with (
            trio.testing.assert_checkpoints(),
            pytest.raises(OSError, match=f"descriptor {1 << 20} cannot be sent: {os.strerror(errno.EBADF)}"),
        ):
            await one.send_fd(1 << 20)
        with pytest.raises(TypeError):
            await one.send_fd(True)
        with pytest.raises(DeadlineExceeded):
            while True:  # until the kernel's buffers are full
                await one.send_all(bytes(65536), 0)
        with pytest.raises(DeadlineExceeded):
            await one.send_fd(0, 0)
        await one.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_fd(0)


async def test_a_second_user_is_refused_and_closing_wakes_the_first(sockets, tmp_path):
    async with no_leaks(counters=sockets.counters):
        one, other = await pair(sockets, tmp_path / "s")

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await other.receive_fd()

        async with one, other, trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await other.receive_fd()
            other.abort()


async def test_no_room_for_a_descriptor_is_told(tmp_path):
    ends = [UnixStream.from_socket(end) for end in socket.socketpair()]
    async with ends[0], ends[1]:
        await ends[0].send_fd(0)
        with faults.descriptors_exhausted(), pytest.raises(OSError, match="no room") as caught:
            await ends[1].receive_fd()
        assert caught.value.errno == errno.EMFILE
        await ends[0].send_all(b"on")
        assert await ends[1].receive_exactly(2) == b"on"


async def test_a_listener_can_be_closed_without_awaiting(sockets, tmp_path):
    async with no_leaks(counters=sockets.counters):
        for listener in (await tcp_listen(("127.0.0.1", 0)), await unix_listen(tmp_path / "s")):

            async def wait(listener=listener) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await listener.accept()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                listener.close()
                listener.close()
        assert not (tmp_path / "s").exists()
