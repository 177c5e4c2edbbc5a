"""Listeners: what they take, what they skip, and what reaches whoever accepts."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import PassThroughFactory, PassThroughSocket, Sockets
from tests.support.streams import KINDS, Kind, connect_to, listening
from trio_connect import SocketOptions, TcpListener, TcpStream, UnixListener, tcp_connect, tcp_listen
from trio_connect._net.sockets import stream_socket

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
async def test_accept_gives_a_stream_with_an_empty_report(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), listening(kind) as listener, await connect_to(listener) as near:
        with trio.testing.assert_checkpoints():
            far = await listener.accept()
        assert far.report.attempts == ()
        assert far.local == near.peer
        assert type(far) is type(near)
        await far.send_all(b"x")
        assert await near.receive_some() == b"x"
        await far.aclose()


async def test_port_0_becomes_the_port_that_was_chosen(sockets: Sockets) -> None:
    for host in ("127.0.0.1", "::1", "0.0.0.0", "::"):
        async with no_leaks(counters=sockets.counters), await tcp_listen((host, 0)) as listener:
            assert listener.endpoint.host == host
            assert listener.endpoint.port == listener.socket.getsockname()[1] > 0
            assert repr(listener) == f"<TcpListener on {listener.endpoint}>"
            assert (listener.fileno() > 2) is (sockets.name == "kernel")


async def test_an_address_in_use_or_not_ours(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        with trio.testing.assert_checkpoints(), pytest.raises(OSError, match="local: bind for") as caught:
            await tcp_listen(listener.endpoint)
        assert caught.value.errno == errno.EADDRINUSE
        assert str(listener.endpoint) in str(caught.value)
        with pytest.raises(OSError, match=r"local: bind for 192\.0\.2\.1:0: cannot assign") as caught:
            await tcp_listen(("192.0.2.1", 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        with pytest.raises(OSError, match="local: socket for") as caught:
            await tcp_listen(("fe80::1%nosuch0", 0))
        assert caught.value.errno == errno.ENODEV
        del caught


async def test_an_address_can_be_bound_again_at_once(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        # Of the address of a fixture nobody else is given a port meanwhile.
        listener = await tcp_listen((faults.own_host(), 0))
        near = await tcp_connect(listener.endpoint)
        far = await listener.accept()
        # The listener's side closes first, so its address is the one left in TIME_WAIT.
        await far.aclose()
        await near.close_gracefully()
        await listener.aclose()
        again = await tcp_listen(listener.endpoint)
        await again.aclose()


@pytest.mark.parametrize(("v6only", "dual"), [(None, True), (False, True), (True, False)])
async def test_the_ipv6_wildcard_takes_ipv4_too(sockets: Sockets, v6only: bool | None, dual: bool) -> None:
    options = SocketOptions(v6only=v6only)
    async with no_leaks(counters=sockets.counters), await tcp_listen(("::", 0), options=options) as listener:
        assert listener.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == (not dual)
        await (await tcp_connect(("::1", listener.endpoint.port))).aclose()
        await (await listener.accept()).aclose()
        target = ("127.0.0.1", listener.endpoint.port)
        if dual:
            await (await tcp_connect(target)).aclose()
            accepted = await listener.accept()
            assert accepted.peer.host in ("::ffff:127.0.0.1", "::ffff:7f00:1")
            await accepted.aclose()
        else:
            with pytest.raises(ConnectionRefusedError):
                await tcp_connect(target)


@kinds
async def test_a_second_accept_is_busy(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), listening(kind) as listener, trio.open_nursery() as nursery:

        async def accepting() -> None:
            await (await listener.accept()).aclose()

        nursery.start_soon(accepting)
        await trio.testing.wait_all_tasks_blocked()
        for deadline in (-1, 0):
            with pytest.raises(trio.BusyResourceError, match="another task is accepting"):
                await listener.accept(deadline)
        await (await connect_to(listener)).aclose()


@kinds
async def test_the_backlog_is_the_kernels(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), listening(kind, backlog=3) as listener:
        streams = [await connect_to(listener, 0) for _ in range(4)]
        with pytest.raises(trio.TooSlowError):
            await connect_to(listener, 0)
        for stream in streams:
            await stream.aclose()
            await (await listener.accept()).aclose()
    async with listening(kind, backlog=1 << 40):
        pass  # more than an int of the kernel's


# --- errors of accept -------------------------------------------------------------------------------------------------


@kinds
async def test_no_descriptors_left_passes_unchanged(sockets: Sockets, kind: Kind) -> None:
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        near = await connect_to(listener)
        with faults.descriptors_exhausted():
            for _ in range(2):
                with pytest.raises(OSError, match="Too many open files") as caught:
                    await listener.accept()
                assert caught.value.errno == errno.EMFILE
                assert str(caught.value) == f"[Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}"
                del caught
        # Nothing was lost: the connection still waits.
        await (await listener.accept(0)).aclose()
        await near.aclose()


async def test_serve_listeners_survives_it(sockets: Sockets, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "trio.serve_listeners")
    served: list[bytes] = []

    async def handler(stream: TcpStream) -> None:
        served.append(await stream.receive_some())

    async with no_leaks(counters=sockets.counters), trio.open_nursery() as nursery:
        (listener,) = await nursery.start(trio.serve_listeners, handler, [await tcp_listen(("127.0.0.1", 0))])
        near = await tcp_connect(listener.endpoint)
        with faults.descriptors_exhausted():
            await trio.testing.wait_all_tasks_blocked(0.01)
        await near.send_all(b"x")
        assert await near.receive_some() == b""
        assert served == [b"x"]
        await near.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
async def test_who_died_in_the_queue_is_skipped(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [code] * 3
    accept = socket.socket.accept

    def dying(sock: socket.socket) -> Any:
        if codes:
            raise OSError(code, os.strerror(codes.pop()))
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", dying)
    async with no_leaks():
        listener = await tcp_listen(("127.0.0.1", 0))
        near = await tcp_connect(listener.endpoint)
        await (await listener.accept()).aclose()
        assert codes == []
        await near.aclose()
        await listener.aclose()


class DyingFake(PassThroughSocket):
    codes: list[int]

    async def accept(self) -> Any:
        if self.codes:
            await trio.lowlevel.checkpoint()
            code = self.codes.pop()
            raise OSError(code, os.strerror(code))
        return await super().accept()


async def test_who_died_in_the_queue_of_a_fake_is_skipped() -> None:
    factory = PassThroughFactory()
    made: list[DyingFake] = []

    def make(*kind: Any) -> DyingFake:
        sock = DyingFake(factory, socket.socket(*kind))
        sock.codes = []
        made.append(sock)
        return sock

    factory.socket = make  # type: ignore[method-assign, assignment]
    with Sockets("factory", factory).installed():
        listener = await tcp_listen(("127.0.0.1", 0))
        made[0].codes = [errno.ECONNABORTED] * 3
        near = await tcp_connect(listener.endpoint)
        await (await listener.accept()).aclose()
        made[0].codes = [errno.EMFILE]
        with pytest.raises(OSError, match="Too many"):
            await listener.accept()
        await near.aclose()
        await listener.aclose()


async def test_a_client_that_resets_before_the_accept(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        (await tcp_connect(listener.endpoint)).abort()
        # Linux hands it out all the same, and says so at the first use.
        accepted = await listener.accept()
        with pytest.raises(trio.BrokenResourceError):
            await accepted.receive_some()
        await accepted.aclose()


# --- taking over sockets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda sock: sock, trio.socket.from_stdlib_socket], ids=["standard", "trio"])
async def test_from_socket(wrap: Any) -> None:
    async with no_leaks():
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(True)
        async with TcpListener.from_socket(wrap(sock)) as listener:
            assert listener.endpoint.port == sock.getsockname()[1]
            near = await tcp_connect(listener.endpoint)
            await (await listener.accept()).aclose()
            await near.aclose()
        assert sock.fileno() == -1


@pytest.mark.parametrize("wrap", [lambda sock: sock, trio.socket.from_stdlib_socket], ids=["standard", "trio"])
async def test_from_socket_refuses(wrap: Any) -> None:
    async with no_leaks():
        for value in (None, 3):
            with pytest.raises(TypeError, match="from_socket needs"):
                TcpListener.from_socket(value)  # type: ignore[arg-type]
        with (
            socket.socket() as idle,
            socket.socket(type=socket.SOCK_DGRAM) as datagram,
            socket.create_server(("127.0.0.1", 0)) as server,
        ):
            for sock in (idle, datagram):
                with pytest.raises(ValueError, match="TcpListener needs a listening stream socket of its family"):
                    TcpListener.from_socket(wrap(sock))
            with pytest.raises(ValueError, match="UnixListener needs a listening"):
                UnixListener.from_socket(wrap(server))


def test_a_listener_is_not_made_directly() -> None:
    with pytest.raises(TypeError, match="TcpListener is made by listening"):
        TcpListener(object(), None)  # type: ignore[arg-type]


@kinds
async def test_a_connection_whose_stream_cannot_be_made_is_closed(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        near = await connect_to(listener)

        def fail(*_: object) -> Any:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(type(listener), "_stream", fail)
            with pytest.raises(ZeroDivisionError):
                await listener.accept()
        assert await near.receive_some() == b""
        await near.aclose()


def test_what_accept_skips_is_never_about_the_listener() -> None:
    for code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EBADF, errno.EINVAL, errno.EAGAIN):
        assert code not in stream_socket.CONNECTION_ERRORS
