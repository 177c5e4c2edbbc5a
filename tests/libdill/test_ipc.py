"""ipc_*."""

from __future__ import annotations

import array
import errno
import os
import socket

import pytest
import trio
import trio.testing

from tests.libdill.kit import counters, fails, ipc_pair, receive, send
from tests.support import faults
from tests.support.leaks import no_leaks
from trio_connect import DeadlineExceeded
from trio_connect import libdill as dill


async def connected(path) -> tuple[int, int]:
    listener = await dill.ipc_listen(path, 10)
    client = await dill.ipc_connect(path, -1)
    server = await dill.ipc_accept(listener, -1)
    dill.hclose(listener)
    path.unlink()
    return client, server


def close(*handles: int) -> None:
    for handle in handles:
        dill.hclose(handle)


async def test_a_conversation(sockets, tmp_path):
    async with no_leaks(counters=counters(sockets)):
        client, server = await connected(tmp_path / "s")
        await send(client, b"question")
        assert await dill.ipc_done(client, -1) == 0
        with fails(errno.EPIPE):
            await dill.ipc_done(client, -1)
        with fails(errno.EPIPE):
            await send(client, b"x")
        with fails(errno.EPIPE):
            await dill.ipc_sendfd(client, 0, -1)
        assert await receive(server, 8) == b"question"
        with fails(errno.EPIPE):
            await receive(server, 1)
        with fails(errno.EPIPE):
            await dill.ipc_recvfd(server, -1)
        await send(server, b"answer")
        assert await receive(client, 6) == b"answer"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dill.ipc_close, client, -1)
            nursery.start_soon(dill.ipc_close, server, -1)


@pytest.mark.parametrize("patience", [0, 30])
async def test_close_with_a_silent_peer_times_out(sockets, tmp_path, patience):
    client, server = await connected(tmp_path / "s")
    with fails(errno.ETIMEDOUT):
        await dill.ipc_close(client, dill.now() + patience if patience else 0)
    with fails(errno.EPIPE):
        await receive(server, 1)
    assert await dill.ipc_close(server, -1) == 0


async def test_close_loses_nothing_when_the_peer_half_closed_first(sockets, tmp_path):
    client, server = await connected(tmp_path / "s")
    await dill.ipc_done(client, -1)
    with fails(errno.EPIPE):
        await receive(server, 1)
    size = 1 << 20

    async def answer() -> None:
        await send(server, bytes(size))
        await dill.ipc_close(server, -1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await receive(client, size) == bytes(size)
    with fails(errno.EPIPE):
        await receive(client, 1)
    dill.hclose(client)


async def test_paths(sockets, tmp_path):
    path = tmp_path / "s"
    listener = await dill.ipc_listen(os.fspath(path), 10)
    with fails(errno.EADDRINUSE):
        await dill.ipc_listen(path, 10)
    assert await dill.ipc_close(listener, -1) == 0
    assert path.exists()  # nothing is unlinked, as in libdill
    with fails(errno.EADDRINUSE):
        await dill.ipc_listen(path, 10)
    with fails(errno.ECONNREFUSED):
        await dill.ipc_connect(path, -1)
    with fails(errno.ENOENT):
        await dill.ipc_connect(tmp_path / "missing", -1)
    for call in (lambda path: dill.ipc_connect(path, -1), lambda path: dill.ipc_listen(path, 10)):
        with fails(errno.ENAMETOOLONG):
            await call("x" * 108)
        for wrong in (None, "", "a\0b"):
            with fails(errno.EINVAL):
                await call(wrong)
        with pytest.raises(TypeError):
            await call(5)
    with pytest.raises(TypeError):
        await dill.ipc_listen(tmp_path / "t", None)  # type: ignore[arg-type]


async def test_accept_times_out_and_goes_on(sockets, tmp_path):
    listener = await dill.ipc_listen(tmp_path / "s", -1)
    for deadline in (0, 1, dill.now() + 20):
        with fails(errno.ETIMEDOUT):
            await dill.ipc_accept(listener, deadline)
    client = await dill.ipc_connect(tmp_path / "s", 0)
    close(await dill.ipc_accept(listener, 0), client, listener)


async def test_a_full_backlog_is_waited_for_until_the_deadline(sockets):
    """libdill: EAGAIN at once."""
    with faults.full_unix_backlog() as path:
        deadline = dill.now() + 50
        with fails(errno.ETIMEDOUT) as caught:
            await dill.ipc_connect(path, deadline)
        assert isinstance(caught.value, DeadlineExceeded)
        assert dill.now() >= deadline
        with fails(errno.ETIMEDOUT):
            await dill.ipc_connect(path, 0)


async def test_a_place_in_the_backlog_is_taken_when_there_is_one(sockets, tmp_path):
    listener = await dill.ipc_listen(tmp_path / "s", 0)
    clients = [await dill.ipc_connect(tmp_path / "s", -1)]

    async def connect() -> None:
        clients.append(await dill.ipc_connect(tmp_path / "s", -1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        servers = [await dill.ipc_accept(listener, -1), await dill.ipc_accept(listener, -1)]
    close(listener, *clients, *servers)


async def test_pair_writes_its_result():
    for target in ([0, 0], [], [7, 8, 9]):
        rest = target[2:]
        assert dill.ipc_pair(target) == 0
        assert target[2:] == rest
        one, other = target[:2]
        await send(one, b"x")
        assert await receive(other, 1) == b"x"
        close(one, other)
    with fails(errno.EINVAL):
        dill.ipc_pair(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        dill.ipc_pair((0, 0))  # type: ignore[arg-type]
    with faults.descriptors_exhausted(spare=1), fails(errno.EMFILE):
        dill.ipc_pair([])


async def test_fromfd(tmp_path):
    one, other = socket.socketpair()
    handle = dill.ipc_fromfd(one.detach())
    await send(handle, b"x")
    assert other.recv(1) == b"x"
    other.close()
    dill.hclose(handle)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(tmp_path / "s"))
        sock.listen()
        listener = dill.ipc_listener_fromfd(sock.detach())
    client = await dill.ipc_connect(tmp_path / "s", -1)
    close(await dill.ipc_accept(listener, -1), client, listener)


# --- passing descriptors ----------------------------------------------------------------------------------------------


async def test_a_descriptor_arrives_and_the_senders_stays_open(sockets, tmp_path):
    async with no_leaks(counters=counters(sockets)):
        client, server = await connected(tmp_path / "s")
        reading, writing = os.pipe()
        await send(client, b"before")
        assert await dill.ipc_sendfd(client, writing, -1) == 0
        await send(client, b"after")
        os.close(writing)  # our own, still ours
        assert await receive(server, 6) == b"before"  # and not one byte more
        received = await dill.ipc_recvfd(server, -1)
        assert await receive(server, 5) == b"after"
        os.write(received, b"x")
        assert os.read(reading, 1) == b"x"
        os.close(received)
        os.close(reading)
        close(client, server)


@pytest.mark.parametrize("skipped", [False, True])
async def test_no_receive_reaches_for_the_descriptor_behind_it(skipped):
    one, other = ipc_pair()
    await send(one, b"abcd")
    await dill.ipc_sendfd(one, 0, -1)
    first, last = dill.iolist(bytearray(1), 1), dill.iolist(None if skipped else bytearray(3), 3)
    first.iol_next = last
    await dill.brecvl(other, first, last, -1)
    os.close(await dill.ipc_recvfd(other, -1))
    close(one, other)


async def test_the_byte_it_rides_on_is_libdills():
    one, other = socket.socketpair()
    handle = dill.ipc_fromfd(one.detach())
    with other:
        await dill.ipc_sendfd(handle, 0, -1)
        data, ancillary, _, _ = other.recvmsg(10, 100)
        assert data == b"\xcc"
        for _, _, content in ancillary:
            os.close(array.array("i", content)[0])
        other.sendmsg([b"\xcc"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        os.close(await dill.ipc_recvfd(handle, 0))
        # Of several at once the first arrives; one on another byte is not one of them. None is leaked.
        async with no_leaks():
            for byte, fds in ((b"\xcc", [0, 0]), (b"x", [0])):
                other.sendmsg([byte], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
                if len(fds) > 1:  # the kernel closes what there was no room for
                    os.close(await dill.ipc_recvfd(handle, 0))
                    continue
                with fails(errno.EPROTO):
                    await dill.ipc_recvfd(handle, 0)
                assert await receive(handle, 1, 0) == byte
    dill.hclose(handle)


async def test_a_plain_byte_is_eproto_and_can_still_be_received(sockets, tmp_path):
    client, server = await connected(tmp_path / "s")
    await send(client, b"ab")
    for _ in range(2):
        with fails(errno.EPROTO):
            await dill.ipc_recvfd(server, -1)
    assert await receive(server, 2) == b"ab"
    close(client, server)


async def test_refusals_of_passing(sockets, tmp_path):
    client, server = await connected(tmp_path / "s")
    with fails(errno.EINVAL):
        await dill.ipc_sendfd(client, -1, -1)
    with fails(errno.EBADF):
        await dill.ipc_sendfd(client, 1 << 20, -1)
    with pytest.raises(TypeError):
        await dill.ipc_sendfd(client, None, -1)  # type: ignore[arg-type]
    for deadline in (0, dill.now() + 20):
        with fails(errno.ETIMEDOUT):
            await dill.ipc_recvfd(server, deadline)
    dill.hclose(server)
    for _ in range(2):
        with fails(errno.ECONNRESET):
            await dill.ipc_sendfd(client, 0, -1)
    dill.hclose(client)


async def test_a_receiver_of_a_descriptor_keeps_others_out(sockets, tmp_path):
    """libdill does not set its flag there."""
    client, server = await connected(tmp_path / "s")
    got: list[int] = []

    async def wait() -> None:
        got.append(await dill.ipc_recvfd(server, -1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with fails(errno.EBUSY):
            await receive(server, 1)
        await dill.ipc_sendfd(client, 0, -1)
    os.close(got[0])
    close(client, server)
