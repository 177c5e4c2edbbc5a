"""tcp_connect: what it refuses, what it reports, where it comes from, and what each errno becomes."""

from __future__ import annotations

import errno
import math
import os
import re
import select
import socket
import struct
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import trio
import trio.testing

from tests.net.racing import connects
from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.scripted import ALREADY, IN_PROGRESS, passes, script
from tests.support.sockets import PassThroughFactory, PassThroughSocket, Sockets
from tests.support.streams import connect_to, listening
from trio_connect import DeadlineExceeded, Endpoint, SocketOptions, Source, now, tcp_connect, tcp_listen
from trio_connect._engine.spinning import CREDIT, PROBE
from trio_connect._net import attempt, tcp
from trio_connect._net.sockets import address, kernel_socket, local_ports, raw_socket

V4, V6 = socket.AF_INET, socket.AF_INET6
families = pytest.mark.parametrize("family", [V4, V6], ids=["ipv4", "ipv6"])


# --- bad input --------------------------------------------------------------------------------------------------------

LOCAL = ("127.0.0.1", 9)
BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (("127.0.0.1", -1), {}, ValueError, "port must be between 0 and 65535, got -1"),
    (("127.0.0.1", 65536), {}, ValueError, "port must be between 0 and 65535, got 65536"),
    (("127.0.0.1", 0), {}, ValueError, "cannot connect to port 0 of 127.0.0.1: a port is 1 to 65535"),
    (("::1", 0, 0, 0), {}, ValueError, "cannot connect to port 0 of ::1"),
    (("127.0.0.1", "80"), {}, TypeError, "port must be an int, got '80'"),
    (("127.0.0.1", 80.0), {}, TypeError, "port must be an int, got 80.0"),
    (("127.0.0.1", True), {}, TypeError, "port must be an int, got True"),
    (("127.0.0.1", None), {}, TypeError, "port must be an int, got None"),
    (("", 80), {}, ValueError, "got ''"),
    (("a b", 80), {}, ValueError, "got 'a b'"),
    (("1.2.3", 80), {}, ValueError, "got '1.2.3'"),
    (("127.0.0.1\0", 80), {}, ValueError, r"got '127.0.0.1\x00'"),
    (("localhost", 80), {}, ValueError, "to connect to a name use trio_connect.connect()"),
    ((b"127.0.0.1", 80), {}, TypeError, "got b'127.0.0.1'"),
    ("127.0.0.1:80", {}, TypeError, "an endpoint is an Endpoint or a tuple"),
    (["127.0.0.1", 80], {}, TypeError, "an endpoint is an Endpoint or a tuple"),
    (("127.0.0.1",), {}, TypeError, "an endpoint tuple is (host, port)"),
    (None, {}, TypeError, "got None"),
    (LOCAL, {"source": "127.0.0.1"}, TypeError, "source must be a Source, got '127.0.0.1'"),
    (LOCAL, {"source": Source(ipv6="::1")}, ValueError, "source ::1 has no address of the family of 127.0.0.1:9"),
    (("::1", 9), {"source": Source(ipv4="127.0.0.1")}, ValueError, "has no address of the family of [::1]:9"),
    (LOCAL, {"options": None}, TypeError, "options must be a SocketOptions, got None"),
    (LOCAL, {"options": {}}, TypeError, "options must be a SocketOptions, got {}"),
    (LOCAL, {"deadline": math.nan}, TypeError, "got nan"),
    (LOCAL, {"deadline": True}, TypeError, "got True"),
    (LOCAL, {"deadline": 1.5}, TypeError, "got 1.5"),
    (LOCAL, {"deadline": None}, TypeError, "got None"),
    (LOCAL, {"deadline": -2}, ValueError, "got -2"),
]


@pytest.mark.parametrize(("endpoint", "keywords", "error", "text"), BAD, ids=[f"{b[0]} {b[1]}" for b in BAD])
async def test_bad_input_meets_no_socket(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch, endpoint: Any, keywords: Any, error: Any, text: str
) -> None:
    def made(*_: object) -> Any:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(attempt, "new_socket", made)
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(error, match=re.escape(text)):
            await tcp_connect(endpoint, **keywords)
        if endpoint != ("127.0.0.1", 0) and not keywords and "port 0" not in text:
            with pytest.raises(error, match=re.escape(text)):
                await tcp_listen(endpoint)
    assert sockets.factory is None or sockets.factory.created == 0


@pytest.mark.parametrize(
    ("backlog", "error"), [(True, TypeError), (1.0, TypeError), ("1", TypeError), (-1, ValueError)]
)
async def test_bad_backlogs(sockets: Sockets, backlog: Any, error: Any) -> None:
    with pytest.raises(error, match="backlog must be"):
        await tcp_listen(("127.0.0.1", 0), backlog=backlog)
    assert sockets.factory is None or sockets.factory.created == 0


# --- success ----------------------------------------------------------------------------------------------------------


@families
async def test_a_stream_knows_who_and_how(sockets: Sockets, family: socket.AddressFamily) -> None:
    async with no_leaks(counters=sockets.counters), faults.echoing(family) as peer:
        endpoint = Endpoint(*peer.address.pair)
        before = trio.current_time()
        async with await tcp_connect(endpoint) as stream:
            assert stream.peer == endpoint
            assert stream.local.host == faults.LOOPBACK[family]
            assert stream.local.port == stream.socket.getsockname()[1]
            report = stream.report
            assert report is stream.report
            won = report.winner
            assert won is not None
            assert (won.endpoint, won.source, won.cause, won.phase, won.errno) == (
                endpoint, None, "first", "connect", None
            )  # fmt: skip
            assert won.started == 0.0
            assert won.ended == report.elapsed >= 0
            assert before <= report.started_at <= trio.current_time()
            assert repr(stream) == f"<TcpStream to {endpoint}>"
            if sockets.name == "kernel":
                assert stream.fileno() == stream.socket.fileno() > 2
                assert not os.get_blocking(stream.fileno())
                assert not os.get_inheritable(stream.fileno())
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "127.0.0.77", "::1", "::", "::ffff:127.0.0.1"])
async def test_loopback_under_each_of_its_names(sockets: Sockets, host: str) -> None:
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen(("::", 0)) as listener,
        await tcp_connect((host, listener.endpoint.port)) as stream,
    ):
        accepted = await listener.accept()
        assert accepted.peer.port == stream.local.port
        await accepted.aclose()


async def test_every_connect_is_a_checkpoint(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), faults.echoing() as peer:
        with trio.testing.assert_checkpoints():
            stream = await tcp_connect(peer.address.pair)
        await stream.aclose()
        with faults.refusing() as closed, trio.testing.assert_checkpoints(), pytest.raises(ConnectionRefusedError):
            await tcp_connect(closed.pair)


async def test_a_cancelled_caller_sends_no_syn(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(10):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await tcp_connect(server.getsockname())
                assert scope.cancelled_caught
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
    assert sockets.factory is None or sockets.factory.created == 0


# --- the errno contract -----------------------------------------------------------------------------------------------


def check_text(error: OSError, target: str, words: str, *, local: bool = False) -> None:
    """One shape for all: errno, endpoint, source, words, time."""
    shape = (
        rf"\[Errno {error.errno}\] local: \w+ for {re.escape(target)}: {words} \(from .+, after \d+\.\d ms\)"
        if local
        else rf"\[Errno {error.errno}\] connect to {re.escape(target)} from .+ {words} after \d+\.\d ms"
    )
    assert re.fullmatch(shape, str(error)), str(error)
    assert error.errno is not None
    assert type(error) is type(OSError(error.errno, ""))


@families
async def test_refused(sockets: Sockets, family: socket.AddressFamily) -> None:
    async with no_leaks(counters=sockets.counters):
        with faults.refusing(family) as closed, pytest.raises(ConnectionRefusedError) as caught:
            await tcp_connect(closed.pair)
        check_text(caught.value, str(Endpoint(*closed.pair)), "refused")
        del caught


async def test_no_free_descriptor(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        with faults.descriptors_exhausted(), pytest.raises(OSError, match="too many open files") as caught:
            await tcp_connect(LOCAL)
        assert caught.value.errno == errno.EMFILE
        check_text(caught.value, "127.0.0.1:9", "too many open files", local=True)
        assert "local: socket for" in str(caught.value)
        assert "ulimit -n" in caught.value.__notes__[0]
        with faults.descriptors_exhausted(), pytest.raises(OSError, match=r"local: socket for 127.0.0.1:0"):
            await tcp_listen(("127.0.0.1", 0))
        del caught


@pytest.mark.parametrize(
    ("endpoint", "source", "code", "phase"),
    [
        (LOCAL, Source(ipv4="192.0.2.1"), errno.EADDRNOTAVAIL, "bind"),
        (("::1", 9), Source(ipv6="2001:db8::1"), errno.EADDRNOTAVAIL, "bind"),
        (LOCAL, Source(interface="nosuch0"), errno.ENODEV, "bind"),
        (("::1", 9), Source(ipv6="fe80::1%nosuch0"), errno.ENODEV, "socket"),
        (Endpoint("fe80::1", 9, "nosuch0"), None, errno.ENODEV, "socket"),
        (Endpoint("fe80::1", 9, "nosuch0"), Source(ipv6="::1"), errno.ENODEV, "socket"),
    ],
    ids=str,
)
async def test_local_trouble(sockets: Sockets, endpoint: Any, source: Source | None, code: int, phase: str) -> None:
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(OSError, match="local: ") as caught:
            await tcp_connect(endpoint, source=source)
        assert caught.value.errno == code
        target = str(endpoint if isinstance(endpoint, Endpoint) else Endpoint(*endpoint))
        words = {
            errno.EADDRNOTAVAIL: "cannot assign requested address",
            errno.ENODEV: "no such device(: no interface 'nosuch0')?",
        }[code]
        check_text(caught.value, target, words, local=True)
        assert f"local: {phase} for " in str(caught.value)
        for blame in ("refused", "reset", "unreachable"):
            assert blame not in str(caught.value)
        del caught


async def test_a_source_port_in_use(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), faults.echoing() as peer:
        with socket.create_server(("127.0.0.1", 0)) as owner:
            port = owner.getsockname()[1]
            with pytest.raises(OSError, match="local: bind for") as caught:
                await tcp_connect(peer.address.pair, source=Source(ipv4="127.0.0.1", port=port))
            assert caught.value.errno == errno.EADDRINUSE
            del caught


async def test_the_same_four_tuple_twice(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), faults.echoing() as peer:
        first = await tcp_connect(peer.address.pair)
        source = Source(ipv4="127.0.0.1", port=first.local.port)
        with pytest.raises(OSError, match="local: ") as caught:
            await tcp_connect(peer.address.pair, source=source)
        assert caught.value.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE)
        await first.aclose()
        del caught


async def test_a_link_local_address_without_its_zone(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(OSError, match="local: connect for") as caught:
            await tcp_connect(("fe80::1", 9))
        assert caught.value.errno == errno.EINVAL
        check_text(caught.value, "[fe80::1]:9", "invalid argument", local=True)
        del caught


async def test_an_address_that_tcp_cannot_reach(sockets: Sockets) -> None:
    # TCP to a multicast address: refused by the routing code of this machine, nothing is contacted.
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(OSError, match=r"connect to 224.0.0.1:9 from .* failed .network is unreachable.") as caught:
            await tcp_connect(("224.0.0.1", 9))
        assert caught.value.errno == errno.ENETUNREACH
        del caught


async def test_reset_before_anybody_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    # The peer accepts and resets between the SYN and our look at the result: what comes is a usable error.
    with socket.create_server(("127.0.0.1", 0)) as server:
        reset = struct.pack("ii", 1, 0)

        class Slow(raw_socket.CSocket):  # type: ignore[misc, valid-type]
            def connect_ex(self, address: Any) -> int:
                code = super().connect_ex(address)
                if code == errno.EINPROGRESS:
                    accepted, _ = server.accept()
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    accepted.close()
                    # On a busy machine the kernel may be in no hurry to deliver the reset.
                    came = select.poll()
                    came.register(self, select.POLLHUP)
                    assert came.poll(20_000)
                assert isinstance(code, int)
                return code

        def slow(family: int) -> Any:
            return Slow(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

        monkeypatch.setattr(attempt, "new_socket", slow)
        async with no_leaks():
            with pytest.raises(ConnectionResetError) as caught:
                await tcp_connect(server.getsockname())
            check_text(caught.value, str(Endpoint(*server.getsockname())), "reset")
            del caught


class FailingSocket(PassThroughSocket):
    code: int
    where: str

    async def bind(self, address: Any) -> None:
        if self.where == "bind":
            raise OSError(self.code, "no")
        await super().bind(address)

    async def connect(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.where == "connect":
            raise OSError(self.code, "no")
        await super().connect(address)


class FailingFactory(PassThroughFactory):
    def __init__(self, code: int | None, where: str = "connect") -> None:
        super().__init__()
        self.code, self.where = code, where

    def socket(self, family: Any = V4, type: Any = socket.SOCK_STREAM, proto: int = 0) -> FailingSocket:
        if self.where == "socket":
            assert self.code is not None
            raise OSError(self.code, "no")
        sock = FailingSocket(self, socket.socket(family, type, proto))
        sock.code, sock.where = self.code, self.where  # type: ignore[assignment]
        return sock


CODES = [
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH,
    errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOPROTOOPT, errno.EADDRNOTAVAIL, errno.EADDRINUSE,
    errno.EAFNOSUPPORT, errno.ENETDOWN, errno.EHOSTDOWN, errno.ENOBUFS, errno.ENOMEM, errno.EMSGSIZE, errno.ENOTSOCK,
    errno.EBADF, errno.EPROTOTYPE, errno.EAGAIN,
]  # fmt: skip
codes = pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])


WAITS = {
    "immediate": [],
    "within a pass": [IN_PROGRESS],
    "asynchronous": [IN_PROGRESS, ALREADY],
    "after spurious wakeups": [IN_PROGRESS, ALREADY, ALREADY, ALREADY],
}
whens = pytest.mark.parametrize("when", WAITS)


@whens
@pytest.mark.parametrize("bounded", [True, False], ids=["with a deadline", "without"])
@connects
@pytest.mark.parametrize("spins", [True, False], ids=["spins", "looks at once"])
async def test_a_success_of_a_kernel_socket(
    monkeypatch: pytest.MonkeyPatch, when: str, bounded: bool, connect: Any, spins: bool
) -> None:
    (sock,) = script(monkeypatch, [*WAITS[when], 0], spins=spins)
    async with no_leaks():
        stream = await connect(LOCAL, now() + 5000 if bounded else -1)
        assert sock.codes == [0]
        assert stream.fileno() == sock.fileno()
        stream.abort()


@connects
@pytest.mark.parametrize("spins", [True, False], ids=["spins", "looks at once"])
async def test_a_handshake_that_is_over_in_time_needs_neither_epoll_nor_a_scope(
    monkeypatch: pytest.MonkeyPatch, connect: Any, spins: bool
) -> None:
    (sock,) = script(monkeypatch, [IN_PROGRESS, 0, ALREADY], spins=spins)
    for waits in (tcp, kernel_socket):
        monkeypatch.delattr(waits, "wait_writable")
    with passes() as count:
        stream = await connect(LOCAL)
    assert sock.asked_at == [0, int(spins)]
    assert count() == 1
    stream.abort()


@pytest.mark.parametrize("bounded", [True, False], ids=["with a deadline", "without"])
async def test_a_pending_connect_has_one_frame_of_ours(bounded: bool) -> None:
    """Ten thousand connects may be pending, and each frame is a quarter of a KiB."""
    with faults.black_hole() as hole:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(tcp_connect, (hole.host, hole.port), now() + 60_000 if bounded else -1))
            await trio.testing.wait_all_tasks_blocked()
            (task,) = nursery.child_tasks
            names = [frame.f_code.co_name for frame, _ in task.iter_await_frames() if is_ours(frame)]
            nursery.cancel_scope.cancel()
    assert names == ["tcp_connect"]


def is_ours(frame: FrameType) -> bool:
    """Say whether a frame is of this package."""
    name: str = frame.f_globals["__name__"]
    return name.startswith("trio_connect.")


@connects
async def test_passes_in_vain_end_the_spinning_and_one_that_is_enough_begins_it(
    monkeypatch: pytest.MonkeyPatch, connect: Any
) -> None:
    slow = [[IN_PROGRESS, ALREADY, 0] for _ in range(CREDIT + 1)]
    near = [[IN_PROGRESS, 0] for _ in range(PROBE)]
    scripts = script(monkeypatch, *slow, *near)
    for _ in scripts:
        with passes():
            (await connect(LOCAL)).abort()
    looked_at = [each.asked_at[1] for each in scripts]
    assert looked_at == [1] * CREDIT + [0] * (PROBE - 1) + [1, 1]


@connects
async def test_spinning_learns_nothing_from_a_failure_of_connect_itself(
    monkeypatch: pytest.MonkeyPatch, connect: Any
) -> None:
    script(monkeypatch, [errno.ENETUNREACH])
    with pytest.raises(OSError, match="unreachable"):
        await connect(LOCAL)
    assert attempt.spinning.credit == CREDIT


@connects
async def test_deadline_0_grants_one_pass_for_everybody(monkeypatch: pytest.MonkeyPatch, connect: Any) -> None:
    # Two for Trio, which shuffles a batch: after the first perhaps nobody but this task has run.
    (sock,) = script(monkeypatch, [IN_PROGRESS, ALREADY])
    with passes() as count, pytest.raises(DeadlineExceeded) as caught:
        await connect(LOCAL, 0)
    assert count() == 2
    assert sock.asked_at[-1] == 2
    del caught


@codes
@whens
async def test_an_injected_errno_of_a_kernel_socket(monkeypatch: pytest.MonkeyPatch, code: int, when: str) -> None:
    script(monkeypatch, [*WAITS[when], code])
    async with no_leaks():
        with pytest.raises(OSError, match=r"127.0.0.1:9") as caught:
            await tcp_connect(LOCAL, now() + 5000)
        check_injected(caught.value, code)
        del caught


def check_injected(error: OSError, code: int) -> None:
    assert error.errno == code
    assert not isinstance(error, DeadlineExceeded)
    local = code in (errno.EADDRNOTAVAIL, errno.EINVAL)
    check_text(error, "127.0.0.1:9", ".+", local=local)


@codes
async def test_an_injected_errno_of_a_factorys_socket(code: int) -> None:
    factory = FailingFactory(code)
    with Sockets("factory", factory).installed():
        for deadline in (-1, 0):
            with pytest.raises(OSError, match=r"127.0.0.1:9") as caught:
                await tcp_connect(LOCAL, deadline)
            check_injected(caught.value, code)


@pytest.mark.parametrize("where", ["socket", "bind", "connect"])
async def test_an_error_without_errno_gets_one(where: str) -> None:
    factory = FailingFactory(None, where)

    def raise_without(*_: Any) -> Any:
        raise OSError("a fake that knows no numbers")

    if where == "socket":
        factory.socket = raise_without  # type: ignore[method-assign, assignment]
    with Sockets("factory", factory).installed():
        with pytest.raises(OSError, match=r"127.0.0.1:9") as caught:
            await tcp_connect(LOCAL, source=Source(ipv4="127.0.0.1"))
        assert caught.value.errno == errno.EIO
        assert ("local: " in str(caught.value)) is (where != "connect")


async def test_what_is_no_oserror_passes_and_leaves_nothing() -> None:
    factory = FailingFactory(None)

    async def explode(*_: Any) -> None:
        raise ZeroDivisionError

    with Sockets("factory", factory).installed():
        for deadline in (-1, 0, now() + 5000):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(FailingSocket, "connect", explode)
                with pytest.raises(ZeroDivisionError):
                    await tcp_connect(LOCAL, deadline)
        assert not factory.open


async def test_a_fakes_cancelled_connect_is_cancelled_as_such() -> None:
    with faults.black_hole() as hole, Sockets.to("factory").installed():
        for deadline in (0, now() + 5000, -1):
            caught = None
            with trio.move_on_after(0.01) as scope:
                scope.cancel()
                with trio.CancelScope(shield=True) as shield:
                    await trio.lowlevel.checkpoint()
                    shield.shield = False
                    try:
                        await tcp_connect(hole.pair, deadline)
                    except BaseException as exc:
                        caught = type(exc)
                        raise
            assert caught is trio.Cancelled


async def test_a_cancel_during_the_passes_of_deadline_0_is_no_group() -> None:
    with faults.black_hole() as hole, Sockets.to("factory").installed():
        caught: list[type[BaseException]] = []
        for passes in range(7):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def connecting() -> None:
                        try:
                            await tcp_connect(hole.pair, 0)
                        except BaseException as exc:
                            caught.append(type(exc))
                            raise

                    async def cancelling(passes: int = passes, scope: trio.CancelScope = scope) -> None:
                        for _ in range(passes):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(connecting)
                    nursery.start_soon(cancelling)
            assert scope.cancelled_caught
        assert set(caught) == {trio.Cancelled}


# --- where it comes from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "source", "local"),
    [
        ("127.0.0.1", Source(ipv4="127.0.0.9"), "127.0.0.9"),
        ("127.0.0.1", Source(ipv4="127.0.0.9", ipv6="::1"), "127.0.0.9"),
        ("::1", Source(ipv6="::1"), "::1"),
        ("127.0.0.1", Source(interface="lo"), "127.0.0.1"),
        ("127.0.0.1", Source(), "127.0.0.1"),
        ("::1", Source(interface="lo", ipv6="::1"), "::1"),
    ],
    ids=str,
)
async def test_a_connection_comes_from_its_source(sockets: Sockets, host: str, source: Source, local: str) -> None:
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen((host, 0)) as listener,
        await tcp_connect(listener.endpoint, source=source) as stream,
    ):
        accepted = await listener.accept()
        assert accepted.peer == stream.local
        assert stream.local.host == local
        assert stream.report.attempts[0].source == source
        if source.interface:
            assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"
        if sockets.name == "kernel" and source.address(listener.endpoint.family):
            assert stream.getsockopt(socket.IPPROTO_IP, address._IP_BIND_ADDRESS_NO_PORT) == 1
        await accepted.aclose()


@pytest.mark.parametrize("source", [Source(ipv4="127.0.0.1"), Source(), Source(ipv4="127.0.0.9")], ids=str)
async def test_a_source_port_is_used_again_and_again(sockets: Sockets, source: Source) -> None:
    # Bound by another socket too all the while: it takes SO_REUSEADDR, and no stranger is given this port meanwhile.
    with faults.reserved_port(source.ipv4 or "0.0.0.0") as port:
        async with no_leaks(counters=sockets.counters), faults.echoing() as peer:
            for _ in range(3):
                stream = await tcp_connect(peer.address.pair, source=Source(ipv4=source.ipv4, port=port))
                assert stream.local.port == port
                stream.abort()


async def test_an_error_says_where_it_came_from(sockets: Sockets) -> None:
    with faults.refusing() as closed:
        source = Source(ipv4="127.0.0.9", interface="lo")
        with pytest.raises(ConnectionRefusedError, match=r"from 127\.0\.0\.9, interface lo refused"):
            await tcp_connect(closed.pair, source=source)


# --- what both kinds of socket owe -----------------------------------------------------------------------------------


async def test_the_factory_is_still_installed_after_each_call() -> None:
    with Sockets.to("factory").installed() as sockets, faults.refusing() as closed:
        factory = sockets.factory
        with pytest.raises(ConnectionRefusedError):
            await tcp_connect(closed.pair)
        async with listening("tcp") as listener:
            await (await connect_to(listener)).aclose()
        assert trio.socket.set_custom_socket_factory(factory) is factory


class Optionless(PassThroughSocket):
    def setsockopt(self, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOPROTOOPT, "a fake knows no options")


class OptionlessFactory(PassThroughFactory):
    def socket(self, family: Any = V4, type: Any = socket.SOCK_STREAM, proto: int = 0) -> PassThroughSocket:
        return Optionless(self, socket.socket(family, type, proto))


async def test_a_fake_may_lack_our_defaults_but_not_what_was_asked_for() -> None:
    async with faults.echoing() as peer:
        with Sockets("factory", OptionlessFactory()).installed():
            await (await tcp_connect(peer.address.pair)).aclose()
            await (await tcp_listen(("127.0.0.1", 0))).aclose()
            asked = SocketOptions(nodelay=True, keepalive_idle=5)
            with pytest.raises(OSError, match="local: socket for"):
                await tcp_connect(peer.address.pair, options=asked)
            with pytest.raises(OSError, match="local: socket for"):
                await tcp_listen(("127.0.0.1", 0), options=asked)


class Nameless(PassThroughSocket):
    def getsockname(self) -> Any:
        raise NotImplementedError

    def getpeername(self) -> Any:
        raise NotImplementedError


async def test_a_fake_may_have_no_names() -> None:
    factory = PassThroughFactory()
    factory.socket = lambda *kind: Nameless(factory, socket.socket(*kind))  # type: ignore[method-assign]
    async with faults.echoing() as peer:
        with Sockets("factory", factory).installed(), faults.refusing() as closed:
            stream = await tcp_connect(peer.address.pair)
            assert stream.peer == Endpoint(*peer.address.pair)
            await stream.aclose()
            with pytest.raises(ConnectionRefusedError, match="from any address refused"):
                await tcp_connect(closed.pair)


def test_the_range_of_local_ports_is_read_or_assumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    read = local_ports._read
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = read()
    assert [port for port in (low - 1, low, high, high + 1) if port in ports] == [low, high]
    monkeypatch.setattr(local_ports, "_FILE", str(tmp_path / "missing"))
    assert read() == range(1, 65536)
    (tmp_path / "garbage").write_text("x")
    monkeypatch.setattr(local_ports, "_FILE", str(tmp_path / "garbage"))
    assert read() == range(1, 65536)
