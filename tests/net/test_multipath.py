"""MPTCP on loopback: what is asked for, what was got, and what says so. Paths that fail are tests/lab's business."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

import pytest
import trio

from tests.support import multipath
from tests.support.leaks import no_leaks
from tests.support.sockets import PassThroughFactory, PassThroughSocket, Sockets
from trio_connect import (
    ConnectFailed,
    Endpoint,
    Multipath,
    RacePolicy,
    SocketOptions,
    StaticResolver,
    TcpStream,
    connect,
    connectx,
    now,
    tcp_connect,
    tcp_listen,
)
from trio_connect._net.sockets.multipath import read_multipath
from trio_connect._net.sockets.open import adopt
from trio_connect.queues import open_queue_set

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not multipath.available(),
    reason="this kernel makes no MPTCP sockets (CONFIG_MPTCP, sysctl net.mptcp.enabled)",
)

PAGE = Path(__file__).parents[2] / "docs/how-to/multipath.md"
ASKED = SocketOptions(multipath=True)
PLAIN = SocketOptions()
REFUSED = SocketOptions(multipath=True, user_timeout=3.0)


async def exchange(near: TcpStream, far: TcpStream) -> None:
    await near.send_all(b"question")
    assert await far.receive_exactly(8) == b"question"
    await far.send_all(b"answer")
    assert await near.receive_exactly(6) == b"answer"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("listening", "connecting", "got"),
    [
        (ASKED, ASKED, Multipath(subflows=1)),
        (PLAIN, ASKED, None),  # a plain peer: the kernel falls back by itself
        (ASKED, PLAIN, None),  # a plain client arrives as a plain socket
        (PLAIN, PLAIN, None),
    ],
    ids=["both", "plain peer", "plain client", "neither"],
)
async def test_both_ends_say_what_they_got(
    sockets: Sockets, host: str, listening: SocketOptions, connecting: SocketOptions, got: Multipath | None
) -> None:
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen((host, 0), options=listening) as listener,
        await tcp_connect(listener.endpoint, options=connecting) as near,
        await listener.accept() as far,
    ):
        await exchange(near, far)
        assert near.multipath == far.multipath == near.report.multipath == got
        assert far.report.multipath is None  # nobody connected it from here


async def test_off_by_default() -> None:
    assert not SocketOptions().multipath
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        assert listener.socket.getsockopt(socket.SOL_SOCKET, 38) == socket.IPPROTO_TCP  # SO_PROTOCOL
        async with await tcp_connect(listener.endpoint) as near:
            assert near.getsockopt(socket.SOL_SOCKET, 38) == socket.IPPROTO_TCP


async def test_a_closed_stream_says_that_first() -> None:
    async with await tcp_listen(("127.0.0.1", 0), options=ASKED) as listener:
        near = await tcp_connect(listener.endpoint, options=ASKED)
        await near.aclose()
        with pytest.raises(trio.ClosedResourceError):
            _ = near.multipath
        assert near.report.multipath == Multipath(subflows=1)


async def test_a_socket_that_was_made_elsewhere_says_it_too() -> None:
    async with await tcp_listen(("127.0.0.1", 0), options=ASKED) as listener:
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM, multipath.IPPROTO_MPTCP)
        raw.connect(listener.endpoint.sockaddr)
        async with TcpStream.from_socket(raw) as near:
            assert near.multipath == Multipath(subflows=1)


async def test_before_the_peer_has_answered_nothing_was_got() -> None:
    # The kernel says of itself that it is MPTCP before anybody has answered: TCP_IS_MPTCP, 43 in linux/tcp.h.
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM, multipath.IPPROTO_MPTCP)
    with socket.create_server(("127.0.0.1", 0)) as plain:
        assert raw.getsockopt(socket.IPPROTO_TCP, 43) == 1
        info = adopt(raw).multipath_info()
        assert info is not None
        assert read_multipath(info) is None
        raw.setblocking(True)
        raw.connect(plain.getsockname())
        assert adopt(raw).multipath_info() is None
    raw.close()


async def test_an_option_that_an_mptcp_socket_refuses_is_named(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), open_queue_set() as qs:
        for call in (tcp_connect(("127.0.0.1", 9), options=REFUSED), tcp_listen(("127.0.0.1", 0), options=REFUSED)):
            with pytest.raises(
                OSError, match=r"local: socket for .* an MPTCP socket refuses TCP_USER_TIMEOUT"
            ) as caught:
                await call
            assert caught.value.errno == errno.ENOPROTOOPT
            del caught
        queue = qs.stream(options=REFUSED)
        result = await qs.wait(queue.connect(("127.0.0.1", 9)))
        assert "an MPTCP socket refuses TCP_USER_TIMEOUT" in str(result.error)
        await queue.aclose()


async def test_every_other_option_works(sockets: Sockets) -> None:
    options = SocketOptions(
        multipath=True, nodelay=True, keepalive_idle=7, keepalive_interval=3, keepalive_count=4, notsent_lowat=12345,
        send_buffer=50_000, receive_buffer=50_000, v6only=True, reuse_port=True, fast_open=True,
    )  # fmt: skip
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen(("::1", 0), options=options) as listener,
        await tcp_connect(listener.endpoint, options=options) as near,
    ):
        # Without a cookie it is an ordinary handshake.
        await near.send_all(b"x")
        async with await listener.accept() as far:
            assert near.multipath == far.multipath == Multipath(subflows=1)


@pytest.mark.parametrize("code", [errno.ENOPROTOOPT, errno.EPROTONOSUPPORT, errno.EINVAL])
async def test_a_system_without_it_makes_plain_tcp_and_says_so(code: int) -> None:
    class Without(PassThroughFactory):
        def socket(self, family: int = 2, type: int = 1, proto: int = 0) -> PassThroughSocket:
            if proto == multipath.IPPROTO_MPTCP:
                raise OSError(code, "")
            return super().socket(family, type, proto)

    factory = Without()
    trio.socket.set_custom_socket_factory(factory)
    async with no_leaks(counters=factory.counters), await tcp_listen(("127.0.0.1", 0), options=REFUSED) as listener:
        async with await tcp_connect(listener.endpoint, options=REFUSED) as near, await listener.accept() as far:
            await exchange(near, far)
            assert near.multipath is far.multipath is near.report.multipath is None
        # And a race has no plain attempt, for its first was one.
        async with await connectx([listener.endpoint], options=ASKED, observer=lambda _: None) as near:
            assert [row.plain for row in near.report.attempts] == [False]
    assert not factory.open


async def test_another_error_of_socket_is_none_of_these() -> None:
    class Full(PassThroughFactory):
        def socket(self, family: int = 2, type: int = 1, proto: int = 0) -> PassThroughSocket:
            raise OSError(errno.EMFILE, "")

    trio.socket.set_custom_socket_factory(Full())
    with pytest.raises(OSError, match="local: socket for") as caught:
        await tcp_connect(("127.0.0.1", 9), options=ASKED)
    assert caught.value.errno == errno.EMFILE
    del caught


async def test_abort_resets_the_peer(sockets: Sockets) -> None:
    async with await tcp_listen(("127.0.0.1", 0), options=ASKED) as listener:
        near, far = await tcp_connect(listener.endpoint, options=ASKED), await listener.accept()
        near.abort()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await far.receive_some(None, now() + 5000)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        del caught
        await far.aclose()


async def nothing(_: TcpStream) -> None:
    """Find any connection good."""


async def test_connectx_and_connect(sockets: Sockets) -> None:
    resolver = StaticResolver({"api.test": ["127.0.0.1"]})
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0), options=ASKED) as listener:
        for establish in (None, nothing):
            async with await connectx([listener.endpoint], options=ASKED, establish=establish) as near:
                assert near.multipath == near.report.multipath == Multipath(subflows=1)
                assert len(near.report.attempts) == 1
        async with await connect("api.test", listener.endpoint.port, resolver=resolver, options=ASKED) as near:
            assert near.multipath == near.report.multipath == Multipath(subflows=1)


async def test_queues() -> None:
    async with no_leaks(), open_queue_set() as qs:
        server, client = qs.stream(options=ASKED), qs.stream(options=ASKED)
        await server.bind(("127.0.0.1", 0))
        await server.listen(5)
        assert isinstance(server.local, Endpoint)
        accepting = server.accept()
        connected = (await qs.wait(client.connect(server.local))).unwrap()
        assert connected.report.multipath == Multipath(subflows=1)
        accepted = (await qs.wait(accepting)).unwrap()
        won = (await qs.wait(qs.connectx([server.local], options=ASKED))).unwrap()
        assert won.report.multipath == Multipath(subflows=1)
        bound = qs.stream(options=ASKED)
        await bound.bind(("127.0.0.1", 0))
        assert (await qs.wait(bound.connect(server.local))).unwrap().report.multipath == Multipath(subflows=1)
        for queue in (accepted.queue, client, bound, server):
            await queue.aclose()


async def test_a_race_that_a_plain_attempt_won_names_the_option_that_was_refused(sockets: Sockets) -> None:
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen(("127.0.0.1", 0), options=ASKED) as listener,
        await connectx([listener.endpoint], now() + 5000, options=REFUSED) as near,
    ):
        assert near.multipath is near.report.multipath is None
        refused, plain = near.report.attempts
        assert (refused.phase, refused.outcome, refused.plain) == ("socket", "failed", False)
        assert refused.reason is not None
        assert "an MPTCP socket refuses TCP_USER_TIMEOUT" in refused.reason
        assert (plain.endpoint, plain.outcome, plain.plain) == (listener.endpoint, "won", True)
        assert "an MPTCP socket refuses TCP_USER_TIMEOUT" in near.report.draw(width=140)
        # It is as its caller asked for otherwise.
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000


async def test_who_refuses_is_not_asked_again_over_plain_tcp(sockets: Sockets) -> None:
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        endpoint = listener.endpoint
    with pytest.raises(ConnectFailed) as caught:
        await connectx([endpoint], options=ASKED, policy=RacePolicy(attempt_delay=1.0))
    assert [(row.outcome, row.plain) for row in caught.value.attempts] == [("failed", False)]
    del caught


def test_what_older_kernels_say_is_read_too() -> None:
    key = (2).to_bytes(4, sys.byteorder)
    whole = bytes([1, *bytes(7)]) + key + bytes(68)
    assert read_multipath(whole + b"\2") == Multipath(subflows=2)
    assert read_multipath(whole + b"\1") == Multipath(subflows=1)  # the first one has gone
    assert read_multipath(whole) == Multipath(subflows=2)  # Linux before 6.5
    fallen_back = (3).to_bytes(4, sys.byteorder)
    assert read_multipath(bytes(8) + fallen_back) is None
    assert read_multipath(bytes(8)) is None
    assert read_multipath(None) is None


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (multipath.NO_USER_TIMEOUT, "`user_timeout` is refused"),
        (multipath.NO_RESET, "goes on sending after we closed learns of it after 60 seconds"),
        (multipath.NO_ZONE, "link-local connection has no zone"),
        (multipath.HEARD_LATE, "comes back inside connect(2) is heard a second later"),
    ],
)
def test_the_page_lists_every_difference(why: object, words: str) -> None:
    assert set(multipath.DIFFERENCES.values()) == {
        multipath.NO_USER_TIMEOUT,
        multipath.NO_RESET,
        multipath.NO_ZONE,
    }
    assert words in PAGE.read_text(encoding="utf-8"), why
