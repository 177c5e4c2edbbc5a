"""tcp_*: connecting, listening, the state machine and closing, against what libdill was measured to do."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import trio
import trio.testing

from tests.libdill.kit import (
    connect_in_time,
    connected,
    counters,
    fails,
    listen,
    loopback,
    receive,
    send,
    something_there,
    tcp_pair,
    tcp_socket,
)
from tests.support import faults
from tests.support.leaks import no_leaks
from trio_connect import DeadlineExceeded, Endpoint
from trio_connect import libdill as dill

# --- connecting and listening -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("deadline", [0, 1])
async def test_connect_is_tried_before_its_deadline_is_looked_at(sockets, deadline):
    listener, addr = await listen()
    client = await connect_in_time(addr, deadline)
    await something_there(listener)
    server = await dill.tcp_accept(listener, None, deadline)
    for handle in (client, server, listener):
        dill.hclose(handle)


@pytest.mark.parametrize("deadline", [0, 1, -1])
async def test_a_closed_port_refuses_whatever_the_deadline(sockets, deadline):
    with faults.refusing() as address, fails(errno.ECONNREFUSED) as caught:
        await connect_in_time(loopback(address.port, address.host), deadline)
    assert isinstance(caught.value, ConnectionRefusedError)


async def test_a_black_hole_times_out_and_leaves_nothing(sockets):
    with faults.black_hole() as address:
        async with no_leaks(counters=counters(sockets), ports=[address.port]):
            for deadline in (0, 1, dill.now() + 20):
                with fails(errno.ETIMEDOUT) as caught:
                    await dill.tcp_connect(loopback(address.port, address.host), deadline)
                assert isinstance(caught.value, DeadlineExceeded)
                assert dill.now() >= deadline


async def test_connect_refuses_what_is_no_address(sockets):
    with fails(errno.EINVAL):
        await dill.tcp_connect(None, -1)  # type: ignore[arg-type]
    with fails(errno.EAFNOSUPPORT):
        await dill.tcp_connect(dill.ipaddr(), -1)
    with fails(errno.EINVAL):
        await dill.tcp_connect(loopback(0), -1)
    with pytest.raises(TypeError):
        await dill.tcp_connect(("127.0.0.1", 1), -1)  # type: ignore[arg-type]


async def test_a_cancelled_connect_sends_no_syn(sockets):
    """libdill sends it and then aborts."""
    async with faults.echoing() as peer:
        with trio.CancelScope() as scope:
            scope.cancel()
            await dill.tcp_connect(loopback(peer.address.port, peer.address.host), -1)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert peer.accepted == 0


async def test_listen_writes_the_port_back(sockets):
    addr = loopback()
    listener = await dill.tcp_listen(addr, 10)
    assert dill.ipaddr_port(addr) > 0
    with fails(errno.EADDRINUSE):
        await dill.tcp_listen(addr, 10)
    client = await dill.tcp_connect(addr, -1)
    peer = dill.ipaddr()
    server = await dill.tcp_accept(listener, peer, -1)
    assert dill.ipaddr_str(peer) == "127.0.0.1"
    assert dill.ipaddr_port(peer) not in (0, dill.ipaddr_port(addr))
    # A listener can be bound again at once, though a connection of the last one lives.
    dill.hclose(listener)
    dill.hclose(await dill.tcp_listen(addr, 10))
    dill.hclose(client)
    dill.hclose(server)


@pytest.mark.parametrize("backlog", [-1, 0, 1 << 20])
async def test_any_backlog_will_do(sockets, backlog):
    listener, addr = await listen(backlog)
    for handle in (await dill.tcp_connect(addr, -1), listener):
        dill.hclose(handle)


async def test_listen_refuses_what_is_no_address(sockets):
    with fails(errno.EINVAL):
        await dill.tcp_listen(None, 10)  # type: ignore[arg-type]
    with fails(errno.EAFNOSUPPORT):
        await dill.tcp_listen(dill.ipaddr(), 10)
    with pytest.raises(TypeError):
        await dill.tcp_listen(loopback(), True)
    with fails(errno.EADDRNOTAVAIL):
        await dill.tcp_listen(loopback(0, "192.0.2.1"), 10)


async def test_accept_times_out_and_goes_on(sockets):
    listener, addr = await listen()
    for deadline in (0, 1, dill.now() + 20):
        with fails(errno.ETIMEDOUT):
            await dill.tcp_accept(listener, None, deadline)
    client = await dill.tcp_connect(addr, -1)
    await something_there(listener)
    for handle in (await dill.tcp_accept(listener, None, 0), client, listener):
        dill.hclose(handle)
    with pytest.raises(TypeError):
        await dill.tcp_accept(listener, "peer", 0)  # type: ignore[arg-type]


async def test_a_second_acceptor_is_busy(sockets):
    listener, addr = await listen()
    accepted: list[int] = []

    async def accept() -> None:
        accepted.append(await dill.tcp_accept(listener, None, -1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        with fails(errno.EBUSY):
            await dill.tcp_accept(listener, None, -1)
        client = await dill.tcp_connect(addr, -1)
    for handle in (client, listener, *accepted):
        dill.hclose(handle)


async def test_a_cancelled_accept_loses_no_connection(sockets):
    listener, addr = await listen()
    client = await dill.tcp_connect(addr, -1)
    await something_there(listener)
    with trio.CancelScope() as scope:
        scope.cancel()
        await dill.tcp_accept(listener, None, -1)
    server = await dill.tcp_accept(listener, None, 0)
    await send(client, b"still here")
    assert await receive(server, 10) == b"still here"
    for handle in (client, server, listener):
        dill.hclose(handle)


async def test_accept_without_descriptors_says_so():
    listener, addr = await listen()
    client = await dill.tcp_connect(addr, -1)
    with faults.descriptors_exhausted(), fails(errno.EMFILE):
        await dill.tcp_accept(listener, None, -1)
    for handle in (await dill.tcp_accept(listener, None, 0), client, listener):
        dill.hclose(handle)


# --- descriptors ------------------------------------------------------------------------------------------------------


async def test_a_connected_descriptor_is_taken_over():
    listener, addr = await listen()
    sock = tcp_socket()
    sock.connect(dill.ipaddr_sockaddr(addr))
    fd = sock.detach()
    client = dill.tcp_fromfd(fd)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
    server = await dill.tcp_accept(listener, None, -1)
    await send(client, b"hello")
    assert await receive(server, 5) == b"hello"
    for handle in (client, server, listener):
        dill.hclose(handle)


async def test_a_listening_descriptor_is_taken_over():
    sock = tcp_socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    addr = dill.ipaddr(Endpoint(*sock.getsockname()))
    listener = dill.tcp_listener_fromfd(sock.detach())
    client = await dill.tcp_connect(addr, -1)
    for handle in (await dill.tcp_accept(listener, None, -1), client, listener):
        dill.hclose(handle)


async def test_what_cannot_be_taken_over_stays_the_callers():
    async with no_leaks(counters=counters()):
        for call in (dill.tcp_fromfd, dill.tcp_listener_fromfd, dill.ipc_fromfd, dill.ipc_listener_fromfd):
            with fails(errno.EINVAL):
                call(-1)
            with fails(errno.EBADF):
                call(1 << 20)
            with pytest.raises(TypeError):
                call(True)
            reading, writing = os.pipe()
            with fails(errno.ENOTSOCK):
                call(reading)
            os.close(reading)
            os.close(writing)
        unix, other = socket.socketpair()
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        fresh, listening = tcp_socket(), tcp_socket()
        listening.listen()
        with unix, other, udp, fresh, listening:
            for call, sock, code in (
                (dill.tcp_fromfd, unix, errno.EINVAL),
                (dill.tcp_fromfd, udp, errno.EINVAL),
                (dill.tcp_fromfd, listening, errno.EINVAL),
                (dill.tcp_fromfd, fresh, errno.ENOTCONN),
                (dill.tcp_listener_fromfd, fresh, errno.EINVAL),
                (dill.ipc_fromfd, listening, errno.EINVAL),
                (dill.ipc_listener_fromfd, unix, errno.EINVAL),
            ):
                with fails(code):
                    call(sock.fileno())
                assert os.get_blocking(sock.fileno())


# --- the state machine ------------------------------------------------------------------------------------------------


async def test_half_close(sockets):
    async with connected() as (client, server):
        await send(client, b"question")
        assert await dill.tcp_done(client, -1) == 0
        with fails(errno.EPIPE):
            await send(client, b"x")
        with fails(errno.EPIPE):
            await dill.tcp_done(client, -1)
        assert await receive(server, 8) == b"question"
        for _ in range(2):
            with fails(errno.EPIPE):
                await receive(server, 1)
        await send(server, b"answer")
        assert await receive(client, 6) == b"answer"


@pytest.mark.parametrize("deadline", [0, 1, -1])
async def test_done_never_waits(sockets, deadline):
    async with connected() as (client, _):
        assert await dill.tcp_done(client, deadline) == 0


async def test_a_reset_is_told_now_and_econnreset_is_told_later(sockets):
    async with faults.resetting(b"hello") as peer:
        client = await dill.tcp_connect(loopback(peer.address.port, peer.address.host), -1)
        assert await receive(client, 5) == b"hello"
        for _ in range(2):
            with fails(errno.ECONNRESET):
                await receive(client, 1)
        for call in (lambda: send(client, b"x"), lambda: dill.tcp_done(client, -1)):
            with fails(errno.ECONNRESET):
                await call()
        with fails(errno.ECONNRESET):
            await dill.tcp_close(client, -1)
        with fails(errno.EBADF):
            dill.hclose(client)


async def test_a_broken_pipe_is_told_as_econnreset(sockets):
    """EPIPE means an end that somebody asked for."""
    async with connected() as (client, server):
        dill.hclose(server)
        for _ in range(2):
            with fails(errno.ECONNRESET):
                while True:
                    await send(client, b"x")


async def test_timeouts_and_cancellation_poison_nothing(sockets):
    """In libdill either one kills the direction, and a graceful close is then impossible."""
    async with connected() as (client, server):
        await send(server, b"hel")
        for deadline in (0, dill.now() + 20):
            with fails(errno.ETIMEDOUT):
                await receive(client, 5, deadline)
        with trio.move_on_after(0.01) as scope:
            await receive(client, 5)
        assert scope.cancelled_caught
        await send(server, b"lo")
        assert await receive(client, 5) == b"hello"
        size = faults.more_than_fits()
        with fails(errno.ETIMEDOUT) as caught:
            await send(client, bytes(size), dill.now() + 20)
        assert isinstance(caught.value, DeadlineExceeded)
        sent = caught.value.transferred
        assert 0 < sent < size
        assert await receive(server, sent) == bytes(sent)
        await send(client, b"goes on")
        assert await receive(server, 7) == b"goes on"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dill.tcp_close, client, -1)
            nursery.start_soon(dill.tcp_close, server, -1)


async def test_a_second_user_of_a_direction_is_busy(sockets):
    async with connected() as (client, server):
        got: list[bytes] = []

        async def wait() -> None:
            got.append(await receive(client, 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with fails(errno.EBUSY):
                await receive(client, 1)
            await send(client, b"the other direction is free")
            await send(server, b"hello")
        assert got == [b"hello"]


async def test_done_while_another_task_sends_is_busy(sockets):
    """libdill returns 0 and cuts that sender off."""
    async with connected() as (client, server):
        size = faults.more_than_fits()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client, bytes(size))
            await trio.testing.wait_all_tasks_blocked()
            with fails(errno.EBUSY):
                await dill.tcp_done(client, -1)
            assert await receive(server, size) == bytes(size)
        assert await dill.tcp_done(client, -1) == 0


async def test_busy_comes_before_done_and_done_before_broken(sockets):
    async with faults.resetting() as peer:
        client = await dill.tcp_connect(loopback(peer.address.port, peer.address.host), -1)
        await dill.tcp_done(client, -1)
        with fails(errno.ECONNRESET):
            await receive(client, 1)
        with fails(errno.EPIPE):
            await send(client, b"x")
        dill.hclose(client)


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_close_waits_for_the_peer_and_throws_its_data_away(sockets):
    async with no_leaks(counters=counters(sockets)):
        client, server = await tcp_pair()
        await send(client, b"read by nobody")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dill.tcp_close, server, -1)
            await trio.testing.wait_all_tasks_blocked()
            with fails(errno.EBADF):
                await send(server, b"x")
            with fails(errno.EPIPE):
                await receive(client, 1)
            assert await dill.tcp_close(client, -1) == 0


@pytest.mark.parametrize("patience", [0, 50])
async def test_close_with_a_silent_peer_times_out_and_the_peer_sees_a_clean_end(sockets, patience):
    client, server = await tcp_pair()
    await send(client, b"last words")
    with fails(errno.ETIMEDOUT):
        await dill.tcp_close(client, dill.now() + patience if patience else 0)
    with fails(errno.EBADF):
        await dill.tcp_close(client, -1)
    assert await receive(server, 10) == b"last words"
    with fails(errno.EPIPE):
        await receive(server, 1)
    assert await dill.tcp_close(server, -1) == 0


async def test_close_holds_its_deadline_against_a_flood(sockets):
    """libdill: `tcp_close(s, now() + 200)` returned after 6008 ms, with success."""
    async with faults.flooding() as peer:
        flood = 0
        for _ in range(50):  # on a busy machine 200 ms may be over before the flood has begun
            before = peer.sent
            client = await dill.tcp_connect(loopback(peer.address.port, peer.address.host), -1)
            started = dill.now()
            with fails(errno.ETIMEDOUT):
                await dill.tcp_close(client, started + 200)
            assert 200 <= dill.now() - started < 2000
            flood = max(flood, peer.sent - before)
            if flood > 1 << 20:
                break
        assert flood > 1 << 20


async def test_brecv_holds_its_deadline_against_a_flood(sockets):
    async with faults.flooding() as peer:
        client = await dill.tcp_connect(loopback(peer.address.port, peer.address.host), -1)
        with fails(errno.ETIMEDOUT):
            while True:
                await dill.brecv(client, None, 1 << 20, dill.now() + 1)
        dill.hclose(client)


async def test_close_loses_nothing_when_the_peer_half_closed_first(sockets):
    """libdill: of 1 MiB the client received 126,976 bytes and a reset, and tcp_close said success."""
    size = 1 << 20
    client, server = await tcp_pair()
    await dill.tcp_done(client, -1)
    with fails(errno.EPIPE):
        await receive(server, 1)

    async def answer() -> None:
        await send(server, bytes(size))
        assert await dill.tcp_close(server, -1) == 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        # The server can leave while the kernel still holds most of what it sent.
        await trio.testing.wait_all_tasks_blocked()
        assert await receive(client, size) == bytes(size)
    with fails(errno.EPIPE):
        await receive(client, 1)
    assert await dill.tcp_close(client, -1) == 0


async def test_close_while_another_task_receives_wakes_it_with_ebadf(sockets):
    """libdill aborts the process."""
    async with no_leaks(counters=counters(sockets)):
        client, server = await tcp_pair()

        async def wait() -> None:
            with fails(errno.EBADF):
                await receive(client, 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(dill.tcp_close, client, -1)
            with fails(errno.EPIPE):
                await receive(server, 1)
            await dill.tcp_close(server, -1)


async def test_close_while_another_task_sends_is_no_clean_end(sockets):
    async with no_leaks(counters=counters(sockets)):
        client, server = await tcp_pair()

        async def push() -> None:
            with fails(errno.EBADF):
                await send(client, bytes(faults.more_than_fits()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            await trio.testing.wait_all_tasks_blocked()
            with fails(errno.ECONNRESET):
                await dill.tcp_close(client, -1)
        with fails(errno.ECONNRESET):
            while True:
                await receive(server, 65536)
        dill.hclose(server)


async def test_close_of_a_listener(sockets):
    listener, addr = await listen()
    assert await dill.tcp_close(listener, -1) == 0
    with fails(errno.EBADF):
        await dill.tcp_close(listener, -1)
    with fails(errno.ECONNREFUSED):
        await dill.tcp_connect(addr, -1)


async def test_close_consumes_the_handle_also_when_cancelled(sockets):
    async with no_leaks(counters=counters(sockets)):
        client, server = await tcp_pair()
        await send(client, b"sent before")
        with trio.move_on_after(0.01) as scope:
            await dill.tcp_close(client, -1)
        assert scope.cancelled_caught
        with fails(errno.EBADF):
            dill.hclose(client)
        assert await receive(server, 11) == b"sent before"
        dill.hclose(server)


async def test_close_of_a_connection_that_breaks_meanwhile(sockets):
    client, server = await tcp_pair()
    async with trio.open_nursery() as nursery:

        async def close() -> None:
            with fails(errno.ECONNRESET):
                await dill.tcp_close(client, -1)

        nursery.start_soon(close)
        await trio.testing.wait_all_tasks_blocked()
        dill.hclose(server)


async def test_the_kernels_own_timeout_is_told_from_our_deadline():
    """In libdill both are ETIMEDOUT and nothing more."""
    raw, other = tcp_socket(), tcp_socket()
    with other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        raw.connect(other.getsockname())
        client = dill.tcp_fromfd(raw.detach())
        from trio_connect.libdill._handles import look_up
        from trio_connect.libdill._kinds import TcpConnection

        thing = look_up(client)
        assert isinstance(thing, TcpConnection)
        with pytest.raises(trio.BrokenResourceError) as broken:
            raise trio.BrokenResourceError("gone") from TimeoutError(errno.ETIMEDOUT, "kernel")
        with fails(errno.ETIMEDOUT) as caught, thing.incoming:
            raise broken.value
        assert type(caught.value) is TimeoutError
        with fails(errno.ECONNRESET):
            await receive(client, 1)
        dill.hclose(client)
