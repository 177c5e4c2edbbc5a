"""One script, run on real loopback and on the virtual network: what the program sees must be the same.

What is compared is what a program can tell: results, errno and class of errors, the order of events, bytes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
import trio.testing

from trio_connect.testing import VirtualNetwork, run

Log: TypeAlias = list[object]
Script: TypeAlias = Callable[[Log], Awaitable[None]]
scripts: dict[str, Script] = {}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the virtual network is modelled on Linux")

RST = struct.pack("ii", 1, 0)


def script(function: Script) -> Script:
    scripts[function.__name__] = function
    return function


async def note(log: Log, what: str, operation: Awaitable[object]) -> None:
    """Log what became of an operation."""
    try:
        with trio.fail_after(5):
            result = await operation
    except trio.TooSlowError:
        raise
    except OSError as error:
        log.append((what, type(error).__name__, errno.errorcode.get(error.errno or 0)))
    except (trio.ClosedResourceError, trio.BusyResourceError, trio.BrokenResourceError) as error:
        log.append((what, type(error).__name__))
    else:
        log.append((what, result))


async def listening(backlog: int = 5) -> trio.socket.SocketType:
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    return sock


async def pair() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """A connected pair: client, server."""
    listener = await listening()
    client = trio.socket.socket()
    await client.connect(listener.getsockname())
    server, _ = await listener.accept()
    listener.close()
    return client, server


async def settle() -> None:
    """Give packets time to arrive: real loopback needs a moment, virtual time passes at once."""
    await trio.sleep(0.02)


@script
async def refused(log: Log) -> None:
    # Bound and not listening: a port that is free again may be a listener's of another worker by then.
    owner = trio.socket.socket()
    await owner.bind(("127.0.0.1", 0))
    client = trio.socket.socket()
    await note(log, "connect", client.connect(owner.getsockname()))
    await note(log, "send", client.send(b"x"))
    await note(log, "recv", client.recv(1))
    log.append(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    client.close()
    owner.close()


@script
async def reset_before_accept(log: Log) -> None:
    listener = await listening()
    client = trio.socket.socket()
    await client.connect(listener.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    client.close()
    await settle()
    server, _ = await listener.accept()
    await note(log, "recv", server.recv(10))
    await note(log, "recv again", server.recv(10))
    await note(log, "send", server.send(b"x"))
    server.close()
    listener.close()


@script
async def reset_after_accept(log: Log) -> None:
    client, server = await pair()
    await server.send(b"last words")
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    server.close()
    await settle()
    log.append(client.is_readable())
    await note(log, "recv", client.recv(100))
    await note(log, "recv", client.recv(100))
    await note(log, "recv", client.recv(100))
    await note(log, "send", client.send(b"x"))
    client.close()


@script
async def reset_is_told_to_the_sender(log: Log) -> None:
    client, server = await pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    server.close()
    await settle()
    await note(log, "send", client.send(b"x"))
    await note(log, "send again", client.send(b"x"))
    await note(log, "recv", client.recv(1))
    client.close()


@script
async def what_comes_after_a_shutdown_of_both_directions_is_reset(log: Log) -> None:
    for directions in ([socket.SHUT_RDWR], [socket.SHUT_RD, socket.SHUT_WR]):
        client, server = await pair()
        for direction in directions:
            client.shutdown(direction)
        await settle()
        await note(log, "send", server.send(b"nobody reads this"))
        await settle()
        for sock in (client, server):
            log.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            await note(log, "recv", sock.recv(100))
            await note(log, "send", sock.send(b"x"))
            sock.close()


@script
async def a_read_that_is_shut_down_alone_still_takes_what_comes(log: Log) -> None:
    client, server = await pair()
    client.shutdown(socket.SHUT_RD)
    await note(log, "send", server.send(b"read all the same"))
    await settle()
    await note(log, "recv", client.recv(100))
    client.shutdown(socket.SHUT_WR)
    await note(log, "send", server.send(b"too late"))
    await settle()
    await note(log, "recv", server.recv(100))
    await note(log, "send", server.send(b"x"))
    client.close()
    server.close()


@script
async def both_ends_have_ended(log: Log) -> None:
    client, server = await pair()
    client.shutdown(socket.SHUT_WR)
    await settle()
    for sock in (client, server):
        log.append(len(sock.getpeername()))
    server.shutdown(socket.SHUT_WR)
    await settle()
    for sock in (client, server):
        for ask in (sock.getpeername, lambda sock=sock: sock.shutdown(socket.SHUT_WR)):
            try:
                log.append(ask())
            except OSError as error:
                log.append(errno.errorcode[error.errno or 0])
        await note(log, "recv", sock.recv(100))
        await note(log, "send", sock.send(b"x"))
        sock.close()


@script
async def listener_closes_with_a_queue(log: Log) -> None:
    listener = await listening()
    client = trio.socket.socket()
    await client.connect(listener.getsockname())
    await settle()
    listener.close()
    await settle()
    await note(log, "recv", client.recv(1))
    client.close()


@script
async def close_with_unread_input(log: Log) -> None:
    client, server = await pair()
    await client.send(b"never read")
    await settle()
    server.close()
    await settle()
    await note(log, "recv", client.recv(1))
    await note(log, "recv", client.recv(1))
    await note(log, "send", client.send(b"x"))
    client.close()


@script
async def send_after_the_peer_closed(log: Log) -> None:
    client, server = await pair()
    server.close()
    await settle()
    await note(log, "recv", client.recv(1))
    await note(log, "send", client.send(b"x"))
    await settle()
    await note(log, "send after RST", client.send(b"x"))
    await note(log, "and again", client.send(b"x"))
    await note(log, "recv", client.recv(1))
    log.append(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    client.close()


@script
async def half_close(log: Log) -> None:
    client, server = await pair()
    await client.send(b"question")
    client.shutdown(socket.SHUT_WR)
    log.append(client.did_shutdown_SHUT_WR)
    await note(log, "send after shutdown", client.send(b"x"))
    await note(log, "server", server.recv(100))
    await note(log, "server", server.recv(100))
    await server.send(b"answer")
    server.close()
    await note(log, "client", client.recv(100))
    await note(log, "client", client.recv(100))
    client.close()


@script
async def shutdown_for_reading(log: Log) -> None:
    client, _server = await pair()
    client.shutdown(socket.SHUT_RD)
    await note(log, "recv", client.recv(1))
    client.close()
    _server.close()


@script
async def shutdown_wakes_a_reader(log: Log) -> None:
    client, server = await pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, log, "recv", client.recv(1))
        await trio.testing.wait_all_tasks_blocked()
        client.shutdown(socket.SHUT_RDWR)
    await note(log, "server", server.recv(1))
    client.close()
    server.close()


@script
async def a_listener_shut_down_for_writing_listens_on(log: Log) -> None:
    listener = await listening()
    listener.shutdown(socket.SHUT_WR)
    listener.shutdown(socket.SHUT_WR)
    log.append(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    log.append((listener.did_shutdown_SHUT_WR, listener.is_readable()))
    client = trio.socket.socket()
    await note(log, "connect", client.connect(listener.getsockname()))
    server, _ = await listener.accept()
    await client.send(b"as ever")
    await note(log, "recv", server.recv(100))
    await note(log, "out of band, on a listener", listener.recv(1, socket.MSG_OOB))
    for sock in (client, server, listener):
        sock.close()


@script
async def shutdown_ends_a_connect(log: Log) -> None:
    for direction in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
        listener = await listening(0)
        first, client, owner = trio.socket.socket(), trio.socket.socket(), trio.socket.socket()
        await first.connect(listener.getsockname())
        await owner.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, log, "pending", client.connect(listener.getsockname()))
            await trio.testing.wait_all_tasks_blocked()
            client.shutdown(direction)
        log.append(client.did_shutdown_SHUT_WR)
        await note(log, "recv", client.recv(1))
        await note(log, "send", client.send(b"x"))
        await note(log, "connect again", client.connect(owner.getsockname()))
        for sock in (first, client, owner, listener):
            sock.close()


@script
async def a_shutdown_without_a_connection_is_an_error_and_remembered(log: Log) -> None:
    sock, other = trio.socket.socket(), trio.socket.socket()
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError as error:
        log.append(errno.errorcode[error.errno or 0])
    await note(log, "recv", sock.recv(1))
    await note(log, "recv of the other", other.recv(1))
    listener = await listening()
    await note(log, "connect", sock.connect(listener.getsockname()))
    await note(log, "recv", sock.recv(1))
    for opened in (sock, other, listener):
        opened.close()


@script
async def an_accepted_socket_never_connects(log: Log) -> None:
    client, server = await pair()
    listener = await listening()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    client.close()
    await settle()
    await note(log, "recv", server.recv(1))
    await note(log, "connect", server.connect(listener.getsockname()))
    await note(log, "connect", server.connect(listener.getsockname()))
    server.close()
    listener.close()


@script
async def nothing_is_received_from_any_socket(log: Log) -> None:
    sock, listener = trio.socket.socket(), await listening()
    await note(log, "unconnected", sock.recv(0))
    await note(log, "listening", listener.recv(0))
    sock.close()
    await note(log, "closed", sock.recv(0))
    try:
        log.append(sock.is_readable())
    except (OSError, ValueError) as error:
        log.append(type(error).__name__)
    listener.close()


@script
async def full_backlog(log: Log) -> None:
    listener = await listening(1)
    clients = [trio.socket.socket() for _ in range(3)]
    for number, client in enumerate(clients):
        with trio.move_on_after(0.3) as scope:
            await client.connect(listener.getsockname())
        log.append((number, "hangs" if scope.cancelled_caught else "connected", client.fileno() == -1))
    for sock in (*clients, listener):
        sock.close()


@script
async def room_in_the_backlog_comes_back(log: Log) -> None:
    listener = await listening(0)
    first, second = trio.socket.socket(), trio.socket.socket()
    await first.connect(listener.getsockname())
    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, log, "second", second.connect(listener.getsockname()))
        await settle()
        server, _ = await listener.accept()
        log.append("accepted one")
    # The first SYN was dropped, the next one comes a second later, and one after that would come after three.
    log.append(0.9 < trio.current_time() - before < 2.9)
    for sock in (first, second, server, listener):
        sock.close()


@script
async def big_transfer(log: Log) -> None:
    client, server = await pair()
    for sock in (client, server):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    payload = bytes(range(256)) * 4096
    received = bytearray()
    blocked = False

    async def send() -> None:
        await trio.SocketStream(client).send_all(payload)
        await trio.SocketStream(client).send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with trio.move_on_after(0.05) as scope:
            await trio.sleep_forever()
        blocked = scope.cancelled_caught and not client.did_shutdown_SHUT_WR
        while chunk := await server.recv(65536):
            received += chunk
    log.append(("sender waited for the reader", blocked))
    log.append(received == payload)
    client.close()
    server.close()


@script
async def connect_cancelled(log: Log) -> None:
    listener = await listening(0)
    first, second = trio.socket.socket(), trio.socket.socket()
    await first.connect(listener.getsockname())
    with trio.move_on_after(0.05) as scope:
        await second.connect(listener.getsockname())
    log.append((scope.cancelled_caught, second.fileno()))
    await note(log, "recv", second.recv(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await first.connect(("127.0.0.1", 1))
    log.append((scope.cancelled_caught, first.fileno()))
    listener.close()


@script
async def connecting_twice(log: Log) -> None:
    listener = await listening(0)
    first, second = trio.socket.socket(), trio.socket.socket()
    await note(log, "connect", first.connect(listener.getsockname()))
    # Where the handshake was asynchronous, Linux lets the second connect succeed once; the third is EISCONN everywhere.
    await note([], "confirmed", first.connect(listener.getsockname()))
    await note(log, "connected already", first.connect(listener.getsockname()))
    with trio.move_on_after(0.05):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, log, "pending", second.connect(listener.getsockname()))
            await trio.testing.wait_all_tasks_blocked()
            await note(log, "at once", second.connect(listener.getsockname()))
    await note(log, "on a listener", listener.connect(listener.getsockname()))
    for sock in (first, second, listener):
        sock.close()


@script
async def without_a_connection(log: Log) -> None:
    sock = trio.socket.socket()
    await note(log, "recv", sock.recv(1))
    await note(log, "send", sock.send(b"x"))
    await note(log, "accept", sock.accept())
    await note(log, "writable", sock.wait_writable())
    log.append(sock.is_readable())
    log.append(sock.getsockname())
    for name in ("getpeername", "shutdown"):
        try:
            getattr(sock, name)(*(() if name == "getpeername" else (socket.SHUT_WR,)))
        except OSError as error:
            log.append((name, errno.errorcode[error.errno or 0]))
    sock.close()
    await note(log, "closed recv", sock.recv(1))
    await note(log, "closed send", sock.send(b"x"))
    await note(log, "closed connect", sock.connect(("127.0.0.1", 9)))
    await note(log, "closed accept", sock.accept())
    for name in ("shutdown", "getpeername"):
        try:
            getattr(sock, name)(*((socket.SHUT_WR,) if name == "shutdown" else ()))
        except OSError as error:
            log.append((name, errno.errorcode[error.errno or 0]))
    try:
        sock.getsockname()
    except OSError as error:
        log.append(errno.errorcode[error.errno or 0])


@script
async def closing_wakes(log: Log) -> None:
    client, server = await pair()
    listener = await listening()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, log, "recv", client.recv(1))
        await trio.testing.wait_all_tasks_blocked()
        client.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(note, log, "accept", listener.accept())
        await trio.testing.wait_all_tasks_blocked()
        listener.close()
    await note(log, "peer", server.recv(1))
    server.close()


@script
async def two_readers(log: Log) -> None:
    client, server = await pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, log, "first", client.recv(1))
        await trio.testing.wait_all_tasks_blocked()
        await note(log, "second", client.recv(1))
        await server.send(b"1")
    client.close()
    server.close()


def quiet_port() -> int:
    """Return a port that the kernel gives to nobody by itself, and that nobody has at any address, nor in TIME_WAIT.

    The other workers leave connections in TIME_WAIT at their own loopback addresses. A port of theirs is free at
    127.0.0.1, and taken at 0.0.0.0.
    """
    first_local_port = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in range(1024 + os.getpid() % 4096, first_local_port):
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port has an owner")


@script
async def binding(log: Log) -> None:
    first, second, third = (trio.socket.socket() for _ in range(3))
    await first.bind(("127.0.0.1", quiet_port()))
    await note(log, "twice", first.bind(("127.0.0.1", 0)))
    first.listen(1)
    await note(log, "in use", second.bind(first.getsockname()))
    await note(log, "foreign", third.bind(("198.51.100.77", 0)))
    for sock in (second, third):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await note(log, "in use, reuse", second.bind(first.getsockname()))
    port = first.getsockname()[1]
    first.close()
    await note(log, "free again", second.bind(("127.0.0.1", port)))
    await note(log, "shared", third.bind(("0.0.0.0", port)))
    second.close()
    third.close()


@script
async def dual_stack(log: Log) -> None:
    listener = trio.socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    await listener.bind(("::", 0))
    listener.listen(5)
    port = listener.getsockname()[1]
    log.append(listener.getsockname()[0])
    for family, host in (
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1"),
    ):
        client = trio.socket.socket(family)
        await client.connect((host, port))
        server, peer = await listener.accept()
        log.append((peer[0], server.getsockname()[0], client.getpeername()[0], client.getsockname()[0], len(peer)))
        client.close()
        server.close()
    listener.close()


@script
async def options(log: Log) -> None:
    client, server = await pair()
    for sock in (client, server):
        for option in (socket.SO_TYPE, socket.SO_ERROR, socket.SO_ACCEPTCONN, socket.SO_DOMAIN, socket.SO_KEEPALIVE):
            log.append(sock.getsockopt(socket.SOL_SOCKET, option))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
    log.append(client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))
    log.append(bool(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
    log.append(client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    log.append(client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE, 4))
    for level, option in ((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), (socket.IPPROTO_TCP, 9999)):
        try:
            log.append(client.getsockopt(level, option))
        except OSError as error:
            log.append(errno.errorcode[error.errno or 0])
    try:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except OSError as error:
        log.append(errno.errorcode[error.errno or 0])
    log.append((client.family, client.type))
    client.close()
    server.close()


@script
async def options_out_of_range(log: Log) -> None:
    sock = trio.socket.socket()
    for level, option, value in (
        *((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, value) for value in (0, 32767, 32768)),
        *((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, value) for value in (0, 32767, 32768)),
        *((socket.IPPROTO_TCP, socket.TCP_KEEPCNT, value) for value in (0, 127, 128)),
        *((socket.IPPROTO_TCP, socket.TCP_SYNCNT, value) for value in (0, 127, 128)),
        *((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, value) for value in (-1, 0, 1)),
        *((socket.IPPROTO_IP, socket.IP_TTL, value) for value in (0, 1, 255, 256)),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 5),
        (socket.SOL_SOCKET, socket.SO_REUSEADDR, -1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 2),
    ):
        try:
            sock.setsockopt(level, option, value)
        except OSError as error:
            log.append(errno.errorcode[error.errno or 0])
        log.append((level, option, value, sock.getsockopt(level, option)))
    sock.close()


@script
async def addresses_of_the_other_family(log: Log) -> None:
    listener = await listening()
    port = listener.getsockname()[1]
    only = trio.socket.socket(socket.AF_INET6)
    only.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    await note(log, "an IPv6 socket only, to IPv4", only.connect(("::ffff:127.0.0.1", port)))
    await note(log, "the same, from IPv4", only.bind(("::ffff:127.0.0.1", 0)))
    four, six = trio.socket.socket(socket.AF_INET6), trio.socket.socket(socket.AF_INET6)
    await four.bind(("::ffff:127.0.0.1", 0))
    await six.bind(("::1", 0))
    await note(log, "from IPv4 to IPv6", four.connect(("::1", port)))
    await note(log, "from IPv6 to IPv4", six.connect(("::ffff:127.0.0.1", port)))
    for sock in (only, four, six, listener):
        sock.close()


@script
async def all_of_loopback_is_reached_from_its_first_address(log: Log) -> None:
    listener, client = trio.socket.socket(), trio.socket.socket()
    await listener.bind(("127.0.0.2", 0))
    listener.listen()
    await client.connect(listener.getsockname())
    log.append((client.getsockname()[0], client.getpeername()[0]))
    server, peer = await listener.accept()
    log.append((server.getsockname()[0], peer[0]))
    for sock in (server, client, listener):
        sock.close()


@script
async def peeking_and_scattering(log: Log) -> None:
    client, server = await pair()
    await client.sendmsg([b"abc", b"", b"defgh"])
    await settle()
    await note(log, "peek", server.recv(4, socket.MSG_PEEK))
    buffer = bytearray(3)
    await note(log, "into", server.recv_into(buffer))
    log.append(bytes(buffer))
    await note(log, "from", server.recvfrom(2))
    await note(log, "msg", server.recvmsg(100))
    await note(log, "zero", server.recv(0))
    client.close()
    await note(log, "end", server.recv_into(buffer))
    server.close()


async def play(function: Script) -> Log:
    log: Log = []
    await function(log)
    return log


async def virtually(net: VirtualNetwork, function: Script) -> Log:
    return await play(function)


@pytest.mark.parametrize("name", scripts)
def test_a_program_sees_the_same_on_real_loopback_and_on_the_virtual_network(name: str) -> None:
    virtual = run(virtually, scripts[name])
    real = trio.run(play, scripts[name])
    assert virtual == real
    assert virtual
