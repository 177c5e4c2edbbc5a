"""What a virtual socket does beyond what the fidelity table compares: cancellation, checkpoints, small print."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
import trio.testing

from trio_connect.testing import VirtualNetwork, discard, echo, run

A = "192.0.2.1"


async def connected(rtt: float = 0.0) -> trio.socket.SocketType:
    sock = trio.socket.socket()
    await sock.connect((A, 7))
    return sock


def serve(net: VirtualNetwork, rtt: float = 0.0) -> None:
    net.host(A).listen(7, echo, rtt=rtt)


def test_names_of_both_ends() -> None:
    async def main(net: VirtualNetwork) -> None:
        seen: list[object] = []

        async def look(stream: trio.SocketStream) -> None:
            seen.extend([stream.socket.getsockname(), stream.socket.getpeername()])

        net.host("2001:db8::1").listen(7, look)
        sock = trio.socket.socket(socket.AF_INET6)
        assert sock.getsockname() == ("::", 0, 0, 0)
        await sock.connect(("2001:db8::1", 7))
        host, port, *_ = sock.getsockname()
        assert host == "2001:db8::fe"
        assert sock.getpeername() == ("2001:db8::1", 7, 0, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [("2001:db8::1", 7, 0, 0), ("2001:db8::fe", port, 0, 0)]
        assert "2001:db8::1" in repr(sock)
        sock.close()
        assert "closed" in repr(sock)

    run(main)


def test_an_explicit_source() -> None:
    async def main(net: VirtualNetwork) -> None:
        serve(net)
        sock = trio.socket.socket()
        await sock.bind(("192.0.2.254", 4321))
        await sock.connect((A, 7))
        assert sock.getsockname() == ("192.0.2.254", 4321)
        sock.close()
        for source, number in ((A, errno.EADDRNOTAVAIL), ("127.0.0.1", errno.EINVAL)):
            sock = trio.socket.socket()
            with pytest.raises(OSError) as caught:
                await sock.bind((source, 0))
                await sock.connect((A, 7))
            assert caught.value.errno == number
            sock.close()

    run(main)


def test_a_host_without_a_family_has_no_route() -> None:
    async def main() -> None:
        with VirtualNetwork(local=["192.0.2.254"]) as net:
            net.host("2001:db8::1").listen(7, echo)
            with trio.socket.socket(socket.AF_INET6) as sock, pytest.raises(OSError) as caught:
                await sock.connect(("2001:db8::1", 7))
            assert caught.value.errno == errno.ENETUNREACH

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("flags", [0, getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)])
def test_type_flags_do_not_show(flags: int) -> None:
    async def main(net: VirtualNetwork) -> None:
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags, socket.IPPROTO_TCP)
        assert (sock.family, sock.type, sock.proto) == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        assert sock.get_inheritable() is False
        sock.close()

    run(main)


def operations(sock: trio.socket.SocketType) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "connect": lambda: sock.connect((A, 7)),
        "bind": lambda: sock.bind(("127.0.0.1", 0)),
        "accept": lambda: sock.accept(),  # noqa: PLW0108
        "recv": lambda: sock.recv(1),
        "recv_into": lambda: sock.recv_into(bytearray(1)),
        "recvmsg_into": lambda: sock.recvmsg_into([bytearray(1)]),
        "send": lambda: sock.send(b"x"),
        "sendto": lambda: sock.sendto(b"x", (A, 7)),
        "sendmsg": lambda: sock.sendmsg([b"x"]),
        "wait_writable": lambda: sock.wait_writable(),  # noqa: PLW0108
    }


@pytest.mark.parametrize("name", ["connect", "bind", "recv", "recv_into", "recvmsg_into", "send", "sendto", "sendmsg"])
def test_every_async_method_is_a_checkpoint(name: str) -> None:
    async def main(net: VirtualNetwork) -> None:
        serve(net)
        fresh = name in ("connect", "bind")
        sock = trio.socket.socket() if fresh else await connected()
        if "recv" in name:
            await sock.send(b"x")
            await trio.sleep(1)
        with trio.testing.assert_checkpoints():
            await operations(sock)[name]()
        sock.close()

    run(main)


@pytest.mark.parametrize("name", operations(cast("trio.socket.SocketType", None)))
def test_cancellation_comes_first_and_changes_nothing_but_connect(name: str) -> None:
    async def main(net: VirtualNetwork) -> None:
        serve(net)
        fresh = name in ("connect", "bind", "accept")
        sock = trio.socket.socket() if fresh else await connected()
        if name == "accept":
            sock.listen()
        with trio.CancelScope() as scope:
            scope.cancel()
            await operations(sock)[name]()
        assert scope.cancelled_caught
        assert (sock.fileno() == -1) == (name == "connect")
        if name == "connect":
            assert net.trace.connections == ()
        elif not fresh:
            await sock.send(b"y")
            assert await sock.recv(10) == b"y"
        sock.close()

    run(main)


@pytest.mark.parametrize("when", [0.005, 0.010, 0.015, 0.02, 0.025])
def test_a_connect_cancelled_at_any_moment_leaves_nothing(when: float) -> None:
    async def main(net: VirtualNetwork) -> None:
        net.host(A).listen(7, None, backlog=0, rtt=0.020)
        sock = trio.socket.socket()
        with trio.CancelScope(deadline=when) as scope:
            await sock.connect((A, 7))
            await trio.sleep_forever()
        assert scope.cancelled_caught
        (connection,) = net.trace.connections
        if when > 0.02:
            assert connection.outcome == "connected"
            sock.close()
        elif when < 0.02:
            assert (connection.outcome, connection.ended) == ("abandoned", when)
        assert sock.fileno() == -1 or when == 0.02  # at the same instant either may come first
        sock.close()
        await trio.sleep(1)
        # The place in the backlog is free again, unless the connection was made.
        if when < 0.02:
            await trio.socket.socket().connect((A, 7))

    run(main)


def test_a_cancelled_receive_loses_nothing() -> None:
    async def main(net: VirtualNetwork) -> None:
        serve(net, rtt=0.1)
        sock = await connected()
        await sock.send(b"hello")
        with trio.move_on_after(0.05):
            await sock.recv(10)
        assert await sock.recv(10) == b"hello"
        sock.close()

    run(main)


def test_a_send_that_waits_goes_on_when_the_peer_reads() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.host(A).listen(7, discard, rtt=0.1)
        sock = await connected()
        sent = 0
        with trio.move_on_after(0.001):
            while True:
                sent += await sock.send(b"x" * 10_000)
        assert sent == 64 * 1024
        await sock.wait_writable()
        assert trio.current_time() == pytest.approx(0.2)  # from 0.1 on: data there, acknowledgement back
        sock.close()

    run(main)


def test_buffer_sizes_bound_what_is_under_way() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.host(A).silent(7, receive_buffer=5000)
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8000)
        await sock.connect((A, 7))
        sent = 0
        with trio.move_on_after(1):
            while True:
                sent += await sock.send(b"x" * 1000)
        assert sent == 13_000
        sock.close()

    run(main)


def test_a_receive_buffer_may_change_while_connected() -> None:
    async def main(net: VirtualNetwork) -> None:
        listener = trio.socket.socket()
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = trio.socket.socket()
        await client.connect(listener.getsockname())
        server, _ = await listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2000)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4000)
        payload = b"0123456789" * 50_000

        async def send() -> None:
            await trio.SocketStream(client).send_all(payload)
            client.close()

        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while chunk := await server.recv(3000):
                received += chunk
        assert received == payload

    run(main)


def test_options_are_stored_and_checked() -> None:
    async def main(net: VirtualNetwork) -> None:
        sock = trio.socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, struct.pack("i", 30))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) == b"cubic\0"
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) == b"reno"
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_LINGER, 1),
            (socket.SOL_SOCKET, socket.SO_LINGER, b"x"),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, b"x"),
        ):
            with pytest.raises(OSError) as caught:
                sock.setsockopt(level, option, value)
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(TypeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, None)  # type: ignore[call-overload]
        await sock.bind(("::1", 0))
        with pytest.raises(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.close()
        with pytest.raises(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    run(main)


@pytest.mark.parametrize("address", ["localhost", ("127.0.0.1",), ("127.0.0.1", 1, 2), None])
def test_an_address_of_the_wrong_shape(address: object) -> None:
    async def main(net: VirtualNetwork) -> None:
        with trio.socket.socket() as sock, pytest.raises(ValueError, match="tuple"):
            await sock.connect(address)
        with trio.socket.socket() as sock, pytest.raises(OverflowError):
            await sock.connect(("127.0.0.1", 65536))

    run(main)


def test_wildcards_and_loopback_belong_to_the_program() -> None:
    async def main(net: VirtualNetwork) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_tcp, echo, 8000)
            await trio.testing.wait_all_tasks_blocked()
            for host in ("127.0.0.1", "::1", "0.0.0.0", "::", "localhost", "192.0.2.254", "2001:db8::fe", "127.9.9.9"):
                async with await trio.open_tcp_stream(host, 8000) as stream:
                    await stream.send_all(b"x")
                    assert await stream.receive_some() == b"x"
            nursery.cancel_scope.cancel()

    run(main)


def test_two_listeners_share_a_port_only_when_they_may() -> None:
    async def main(net: VirtualNetwork) -> None:
        first, second, third = (trio.socket.socket() for _ in range(3))
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await sock.bind(("127.0.0.1", 5000))
        first.listen()
        with pytest.raises(OSError) as caught:
            second.listen()
        assert caught.value.errno == errno.EADDRINUSE
        third.listen()  # binds by itself
        assert third.getsockname()[1] > 0
        third.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError):
            await third.accept()

    run(main)


def test_bad_arguments() -> None:
    async def main(net: VirtualNetwork) -> None:
        serve(net)
        sock = await connected()
        with pytest.raises(ValueError, match="negative"):
            await sock.recv(-1)
        with pytest.raises(ValueError, match="negative"):
            await sock.recv_into(bytearray(1), -1)
        with pytest.raises(ValueError, match="too small"):
            await sock.recv_into(bytearray(1), 2)
        with pytest.raises(TypeError):
            await sock.sendto(b"x")  # type: ignore[call-overload]
        number = [
            lambda: sock.recv(1, socket.MSG_OOB),
            lambda: sock.sendmsg([b"x"], [(1, 2, b"3")]),
        ]
        for call in number:
            with pytest.raises(OSError) as caught:
                await call()
            assert caught.value.errno == errno.EINVAL
        for sync in (lambda: sock.shutdown(7), sock.listen):
            with pytest.raises(OSError) as caught:
                sync()
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(NotImplementedError):
            sock.share(1)  # type: ignore[attr-defined]
        assert await sock.sendto(b"x", 0, (A, 7)) == 1
        buffer = bytearray(1)
        assert await sock.recvfrom_into(buffer) == (1, None)
        assert buffer == b"x"
        assert sock.getsockopt(socket.SOL_SOCKET, getattr(socket, "SO_PROTOCOL", 38)) == socket.IPPROTO_TCP
        sock.close()

    with pytest.raises(NotImplementedError):
        run(main)


def test_a_shared_port_and_a_source_of_the_other_family() -> None:
    async def main(net: VirtualNetwork) -> None:
        serve(net)
        net.host("2001:db8::1").listen(7, echo)
        first, second = trio.socket.socket(), trio.socket.socket()
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            await sock.bind(("127.0.0.1", 5000))
            sock.listen()
        assert not first.is_readable()
        client = trio.socket.socket()
        await client.connect(("127.0.0.1", 5000))
        assert first.is_readable()
        dressed = trio.socket.socket(socket.AF_INET6)
        await dressed.bind(("::ffff:192.0.2.254", 0))
        with pytest.raises(OSError) as caught:
            await dressed.connect(("2001:db8::1", 7))
        assert caught.value.errno == errno.EAFNOSUPPORT
        await dressed.connect(("::ffff:192.0.2.1", 7))
        assert dressed.getpeername()[0] == "::ffff:192.0.2.1"

    run(main)


def test_a_connection_that_was_reset() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.host(A).reset(after=0.1)
        sock = await connected()
        await trio.sleep(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2000)
        with pytest.raises(OSError) as caught:
            sock.shutdown(socket.SHUT_WR)
        assert caught.value.errno == errno.ENOTCONN
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.close()

    run(main)


def test_a_port_that_is_bound_but_does_not_listen_refuses() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("here.test", ["127.0.0.1"])
        quiet, client = trio.socket.socket(), trio.socket.socket(socket.AF_INET6)
        await quiet.bind(("127.0.0.1", 5000))
        with pytest.raises(ConnectionRefusedError):
            await client.connect(("here.test", 5000))
        quiet.listen()
        await client.connect(("here.test", 5000))
        assert client.getpeername()[0] == "::ffff:127.0.0.1"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        quiet.close()  # with a connection in its queue that is no longer one

    run(main)


def test_a_socket_whose_connect_had_to_wait_and_failed_connects_again_only_after_one_error_more() -> None:
    # As Linux has it (inet_stream_connect): the second connect asks what became of the first, whose error was taken.
    async def main(net: VirtualNetwork) -> None:
        net.host(A).refuse(after=0.1, port=7)
        sock = trio.socket.socket()
        seen: list[int | None] = []
        for _ in range(3):
            with pytest.raises(OSError) as caught:
                await sock.connect((A, 7))
            seen.append(caught.value.errno)
        assert seen == [errno.ECONNREFUSED, errno.ECONNABORTED, errno.ECONNREFUSED]
        sock.close()

    run(main)


def test_the_second_connect_says_once_that_the_first_has_succeeded() -> None:
    async def main(net: VirtualNetwork) -> None:
        serve(net, rtt=0.1)
        sock = await connected()
        await sock.connect((A, 7))
        with pytest.raises(OSError) as caught:
            await sock.connect((A, 7))
        assert caught.value.errno == errno.EISCONN
        sock.close()

    run(main)
