"""Every field of SocketOptions, asked of the kernel: on who connects, who listens and who was accepted."""

from __future__ import annotations

import errno
import socket
from typing import Any

import attrs
import pytest

from tests.support.leaks import no_leaks
from tests.support.multipath import IPPROTO_MPTCP, available
from tests.support.sockets import Sockets
from trio_connect import SocketOptions, tcp_connect, tcp_listen
from trio_connect._net.sockets import options as sockopts
from trio_connect._options import DEFAULT_OPTIONS

TCP, SOL, V6 = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IPV6
NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
FAST_OPEN_CONNECT = 30  # linux/tcp.h
SO_PROTOCOL = getattr(socket, "SO_PROTOCOL", 38)
PROTOCOL = IPPROTO_MPTCP if available() else TCP

# field, value, level, option, what the kernel says of the connecting end and of the accepted one (None: do not ask)
CASES: list[tuple[str, Any, int, int, int | None, int | None]] = [
    ("nodelay", True, TCP, socket.TCP_NODELAY, 1, 1),
    ("nodelay", False, TCP, socket.TCP_NODELAY, 0, 0),
    ("keepalive_idle", 7, TCP, socket.TCP_KEEPIDLE, 7, 7),
    ("keepalive_idle", 6.2, TCP, socket.TCP_KEEPIDLE, 7, 7),
    ("keepalive_idle", 7, SOL, socket.SO_KEEPALIVE, 1, 1),
    ("keepalive_interval", 3.0, TCP, socket.TCP_KEEPINTVL, 3, 3),
    ("keepalive_interval", 3, SOL, socket.SO_KEEPALIVE, 1, 1),
    ("keepalive_count", 4, TCP, socket.TCP_KEEPCNT, 4, 4),
    ("keepalive_count", 4, SOL, socket.SO_KEEPALIVE, 1, 1),
    ("nodelay", True, SOL, socket.SO_KEEPALIVE, 0, 0),
    ("user_timeout", 1.2345, TCP, socket.TCP_USER_TIMEOUT, 1235, 1235),
    ("notsent_lowat", 12345, TCP, NOTSENT_LOWAT, 12345, 12345),
    ("send_buffer", 50_000, SOL, socket.SO_SNDBUF, 100_000, 100_000),
    ("receive_buffer", 50_000, SOL, socket.SO_RCVBUF, 100_000, 100_000),
    ("v6only", True, V6, socket.IPV6_V6ONLY, 1, 1),
    ("v6only", False, V6, socket.IPV6_V6ONLY, 0, None),  # a listener on ::1 is IPv6 only whatever it asked for
    ("reuse_port", True, SOL, socket.SO_REUSEPORT, 1, 1),
    ("fast_open", True, TCP, FAST_OPEN_CONNECT, 1, None),
    ("multipath", True, SOL, SO_PROTOCOL, PROTOCOL, PROTOCOL),
]


def test_every_field_is_verified() -> None:
    assert {field.name for field in attrs.fields(SocketOptions)} == {case[0] for case in CASES}


@pytest.mark.parametrize(("field", "value", "level", "option", "connecting", "accepted"), CASES)
async def test_the_kernel_has_what_was_asked_for(
    sockets: Sockets, field: str, value: Any, level: int, option: int, connecting: int | None, accepted: int | None
) -> None:
    options = SocketOptions(**{field: value})
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen(("::1", 0), options=options) as listener,
        await tcp_connect(listener.endpoint, options=options) as near,
        await listener.accept() as far,
    ):
        assert near.getsockopt(level, option) == connecting
        assert near.socket.getsockopt(level, option) == connecting
        if accepted is not None:
            assert far.getsockopt(level, option) == accepted
        if field == "fast_open":
            assert listener.socket.getsockopt(TCP, socket.TCP_FASTOPEN) == 1024


async def test_by_default_small_segments_go_at_once_on_both_ends(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        assert listener.socket.getsockopt(SOL, socket.SO_REUSEADDR) == 1
        async with await tcp_connect(listener.endpoint) as near, await listener.accept() as far:
            for stream in (near, far):
                assert stream.getsockopt(TCP, socket.TCP_NODELAY) == 1
                stream.setsockopt(TCP, socket.TCP_NODELAY, 0)
                assert stream.getsockopt(TCP, socket.TCP_NODELAY, 4) == bytes(4)
                with pytest.raises(OSError, match="not available") as caught:
                    stream.setsockopt(TCP, 9999, 1)
                assert caught.value.errno == errno.ENOPROTOOPT
                del caught


async def test_two_listeners_share_a_port_when_asked(sockets: Sockets) -> None:
    options = SocketOptions(reuse_port=True)
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen(("127.0.0.1", 0), options=options) as first,
        await tcp_listen(first.endpoint, options=options) as second,
    ):
        assert first.endpoint == second.endpoint


async def test_ipv4_ignores_v6only(sockets: Sockets) -> None:
    options = SocketOptions(v6only=True)
    async with await tcp_listen(("127.0.0.1", 0), options=options) as listener:
        await (await tcp_connect(listener.endpoint, options=options)).aclose()


async def test_an_option_that_the_platform_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch, sockets: Sockets) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    sockopts._cached_connecting.cache_clear()
    options = SocketOptions(user_timeout=5)
    async with no_leaks(counters=sockets.counters):
        for call in (tcp_connect(("127.0.0.1", 9), options=options), tcp_listen(("127.0.0.1", 0), options=options)):
            with pytest.raises(OSError, match="local: socket for") as caught:
                await call
            assert caught.value.errno == errno.ENOPROTOOPT
            del caught


async def test_an_option_that_the_kernel_refuses_leaves_nothing(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockopts, "_cached_connecting", lambda *_: ((TCP, 9999, 1),))
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(OSError, match="local: socket for") as caught:
            await tcp_connect(("127.0.0.1", 9), options=SocketOptions(nodelay=False))
        assert caught.value.errno == errno.ENOPROTOOPT
        del caught


def test_accepted_sockets_get_what_they_do_not_inherit() -> None:
    options = attrs.evolve(DEFAULT_OPTIONS, reuse_port=True, send_buffer=5)
    assert sockopts.accepted(options) == ((TCP, socket.TCP_NODELAY, 1), (SOL, socket.SO_SNDBUF, 5))
