"""`Source(proxy=...)`: connecting through SOCKS5 and HTTP proxies, by python-socks."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from tests.net.racing import Recorder, Stopwatch, at, close, dead, good, ms, virtual
from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.proxies import ProxyServer, relay, serving
from tests.support.sockets import Sockets
from tests.support.sweep import Mode, repeated, sweep
from trio_connect import (
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    Endpoint,
    LookupStarted,
    NetworkFilter,
    RacePolicy,
    ResolveFailed,
    SocketOptions,
    Source,
    StaticResolver,
    TcpStream,
    connect,
    connectx,
    now,
    tcp_connect,
)
from trio_connect._unresolved import UnresolvedEndpoint
from trio_connect.outbound import open_outbound
from trio_connect.queues import open_queue_set
from trio_connect.testing import VirtualNetwork, echo

V6, V4 = "2001:db8::1", "192.0.2.1"
PROXY = "192.0.2.80"
SECRET = "hunter2"
LOGIN = ("user", SECRET)
SCHEMES = ("socks5", "socks5h", "http")
schemes = pytest.mark.parametrize("scheme", SCHEMES)


def via(scheme: str, host: object = "proxy.test", port: int = 1080, *, login: bool = False, **more: Any) -> Source:
    return Source(proxy=f"{scheme}://{f'user:{SECRET}@' if login else ''}{host}:{port}", **more)


def proxied(net: VirtualNetwork, scheme: str, server: ProxyServer | None = None, host: str = PROXY) -> ProxyServer:
    """Run a proxy 20 ms away, and call it proxy.test."""
    server = server or ProxyServer()
    net.host(host).listen(1080, server.http if scheme == "http" else server.socks5, rtt=0.020)
    net.dns("proxy.test", a=[PROXY])
    return server


async def answered(stream: Any, text: bytes = b"ping") -> bytes:
    await stream.send_all(text)
    return bytes(await stream.receive_exactly(len(text)))


def texts_of(exc: BaseException) -> str:
    """Everything that an exception and its report show."""
    report: ConnectReport | None = getattr(exc, "report", None)
    told = [*traceback.format_exception(exc), repr(exc), str(exc)]
    if report is not None:
        told += [repr(report), str(report), report.draw(200), json.dumps(report.to_dict())]
    return "\n".join(told)


# --- what a proxy is asked, and what comes through it -----------------------------------------------------------------


@pytest.mark.parametrize("login", [False, True], ids=["open", "login"])
@schemes
@virtual
async def test_by_name(net: VirtualNetwork, scheme: str, login: bool) -> None:
    """Socks5 and http are sent the address that was found here, socks5h the name; then nothing is looked up for it."""
    server = proxied(net, scheme, ProxyServer(credentials=LOGIN if login else None))
    net.dns("service.test", a=[V4])
    recorder = Recorder()
    source = via(scheme, login=login)
    stream = await connect("service.test", 443, sources=[source], observer=recorder)
    assert await answered(stream) == b"ping"
    resolves = scheme == "socks5h"
    assert server.asked == [("service.test" if resolves else V4, 443)]
    asked = {event.host for event in recorder.events if isinstance(event, LookupStarted)}
    assert asked == (set() if resolves else {"service.test"})
    assert {lookup.host for lookup in stream.report.lookups} == asked
    assert str(stream.peer) == ("service.test:443" if resolves else f"{V4}:443")
    (row,) = stream.report.attempts
    assert (row.endpoint, row.source, row.outcome, row.phase) == (stream.peer, source, "won", "connect")
    assert isinstance(row.endpoint, UnresolvedEndpoint) == resolves
    trips = 2 if scheme == "http" else 3 + login
    assert ms(stream.report.elapsed) == 20 * trips
    shown = repr(recorder.events) + texts_of(ConnectFailed(1, "", report=stream.report, errors=())) + repr(stream)
    assert SECRET not in shown
    assert "proxy.test:1080" in shown
    assert net.open_sockets != ()
    close(stream)


@pytest.mark.parametrize("target", [V4, V6, "::ffff:192.0.2.1"])
@schemes
@virtual
async def test_numeric_targets(net: VirtualNetwork, scheme: str, target: str) -> None:
    server = proxied(net, scheme)
    source = via(scheme)
    calls: list[Callable[[], Awaitable[TcpStream]]] = [
        lambda: tcp_connect((target, 443), source=source),
        lambda: connectx([(target, 443)], sources=[source]),
        lambda: connect(target, 443, sources=[source]),
    ]
    for call in calls:
        stream = await call()
        assert await answered(stream) == b"ping"
        assert stream.peer == Endpoint(target, 443)
        assert stream.report.attempts[0].source == source
        close(stream)
    assert [(Endpoint(host, 1).host, port) for host, port in server.asked] == [(Endpoint(target, 1).host, 443)] * 3


@virtual
async def test_an_http_proxy_that_is_to_look_names_up_is_sent_them(net: VirtualNetwork) -> None:
    server = proxied(net, "http")
    stream = await connect("nowhere-else.test", 443, sources=[via("http", proxy_resolves=True)])
    assert server.asked == [("nowhere-else.test", 443)]
    assert stream.report.lookups == ()
    close(stream)


@pytest.mark.parametrize("scheme", ["socks5h", "http"])
@virtual
async def test_a_name_beyond_ascii_goes_out_by_idna_2008(net: VirtualNetwork, scheme: str) -> None:
    server = proxied(net, scheme)
    source = via(scheme, proxy_resolves=True)
    for host, sent in (("faß.test", "xn--fa-hia.test"), ("service.test.", "service.test.")):
        stream = await connect(host, 443, sources=[source])
        assert server.asked.pop() == (sent, 443)
        close(stream)


GREETING = b"220 mail.test ESMTP\r\n"


@pytest.mark.parametrize("trickle", [False, True], ids=["one write", "byte by byte"])
@schemes
@virtual
async def test_a_server_that_speaks_first_is_heard_from_its_first_byte(
    net: VirtualNetwork, scheme: str, trickle: bool
) -> None:
    """Its greeting comes glued to the answer of the proxy. Nothing of it is read with that, nor lost."""
    proxied(net, scheme, ProxyServer(glued=GREETING, trickle=trickle))
    stream = await tcp_connect((V4, 25), source=via(scheme))
    assert stream.buffered == 0
    assert await stream.receive_until(b"\r\n", 100) == GREETING[:-2]
    assert await answered(stream) == b"ping"
    close(stream)


@pytest.mark.parametrize("bound", [b"\x01" + bytes(4), b"\x04" + bytes(16), b"\x03\x05proxy"], ids=["v4", "v6", "name"])
@virtual
async def test_the_address_in_an_answer_of_socks5_is_read_to_its_end(net: VirtualNetwork, bound: bytes) -> None:
    proxied(net, "socks5", ProxyServer(glued=GREETING, bound=bound))
    stream = await tcp_connect((V4, 25), source=via("socks5"))
    assert await stream.receive_exactly(len(GREETING)) == GREETING
    close(stream)


# --- over real sockets ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def loopback(scheme: str, server: ProxyServer | None = None) -> AsyncGenerator[tuple[Endpoint, Source], None]:
    """An echo server and a proxy that relays, both on loopback."""
    server = server or ProxyServer(credentials=LOGIN, behind=relay)
    async with serving(echo) as target, serving(server.http if scheme == "http" else server.socks5) as place:
        yield target, via(scheme, place.host, place.port, login=server.credentials is not None)


@schemes
async def test_likewise_over_loopback(sockets: Sockets, scheme: str) -> None:
    async with no_leaks(counters=sockets.counters), loopback(scheme) as (target, source):
        for call in (
            partial(tcp_connect, target, source=source),
            partial(connectx, [target], sources=[source], deadline=now() + 5000),
            partial(
                connect,
                "service.test",
                target.port,
                sources=[source],
                resolver=StaticResolver({"service.test": [target.host]}),
            )
            if scheme != "socks5h"
            else partial(connect, target.host, target.port, sources=[source]),
        ):
            stream = await call()
            assert await answered(stream) == b"ping"
            await stream.close_gracefully()
            del stream, call


async def test_the_addresses_of_a_source_are_for_the_connection_to_its_proxy(sockets: Sockets) -> None:
    async with loopback("socks5") as (target, source):
        assert source.proxy is not None
        bound = Source(ipv4="127.0.0.9", proxy=f"socks5://user:{SECRET}@{source.proxy.host}:{source.proxy.port}")
        async with await tcp_connect(target, source=bound) as stream:
            assert stream.local.host == "127.0.0.9"
            assert str(bound) == f"127.0.0.9, proxy socks5://***@{source.proxy.host}:{source.proxy.port}"


# --- reaching the proxy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [False, True])
@virtual
async def test_the_addresses_of_a_proxy_are_raced(net: VirtualNetwork, factory: bool) -> None:
    """Its first address is a black hole: the second is tried 250 ms later, as everywhere."""
    server = proxied(net, "socks5")
    dead(net, "2001:db8::80")
    net.dns("proxy.test", aaaa=["2001:db8::80"], a=[PROXY])
    clock = Stopwatch()
    source = via("socks5")
    stream = await (tcp_connect((V4, 443), source=source) if factory else connectx(at(V4), sources=[source]))
    assert clock.ms == 250 + 3 * 20
    assert server.asked == [(V4, 443)]
    close(stream)


@virtual
async def test_a_family_that_only_the_proxy_has_is_used(net: VirtualNetwork) -> None:
    """The source has an IPv4 address only: that is for the proxy, and no reason not to look up or ask for IPv6."""
    server = proxied(net, "socks5")
    net.dns("service.test", aaaa=[V6])
    stream = await connect("service.test", 443, sources=[via("socks5", ipv4="192.0.2.254")])
    assert server.asked == [(V6, 443)]
    close(stream)


# --- failures ---------------------------------------------------------------------------------------------------------


async def hang_up(stream: Any) -> None:
    await stream.receive_some(4096)
    await stream.aclose()


async def speak_http(stream: Any) -> None:
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await hang_up(stream)


async def greet_for_ever(stream: Any) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(b"x" * 10_000)


async def hang_up_when_asked(stream: Any) -> None:
    """As sshd does when a target cannot be reached."""
    await stream.receive_some()
    await stream.send_all(b"\x05\x00")
    await hang_up(stream)


def answering(scheme: str, **how: Any) -> Callable[[Any], Awaitable[None]]:
    server = ProxyServer(**how)
    return server.http if scheme == "http" else server.socks5


EARLY = "100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 "


async def early_for_ever(stream: Any) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


FAILURES: dict[str, tuple[str, Callable[[Any], Awaitable[None]], int, str, str]] = {
    "not allowed": ("socks5", answering("socks5", code=2), errno.EACCES, "connect", "not allowed by ruleset"),
    "no network": ("socks5", answering("socks5", code=3), errno.ENETUNREACH, "connect", "Network unreachable"),
    "no host": ("socks5", answering("socks5", code=4), errno.EHOSTUNREACH, "connect", "Host unreachable"),
    "refused": ("socks5", answering("socks5", code=5), errno.ECONNREFUSED, "connect", "Connection refused"),
    "expired": ("socks5", answering("socks5", code=6), errno.EHOSTUNREACH, "connect", "TTL expired"),
    "no command": ("socks5", answering("socks5", code=7), errno.EOPNOTSUPP, "connect", "not supported"),
    "no family": ("socks5", answering("socks5", code=8), errno.EAFNOSUPPORT, "connect", "not supported"),
    "general": ("socks5", answering("socks5", code=1), errno.ECONNABORTED, "connect", "General SOCKS server failure"),
    "no such code": ("socks5", answering("socks5", code=99), errno.EPROTO, "bind", "Invalid reply code"),
    "no text": ("socks5", answering("socks5", bound=b"\x03\x02\xff\xff"), errno.EPROTO, "bind", "is no text"),
    "password": ("socks5", answering("socks5", credentials=("user", "x")), errno.EACCES, "bind", "authentication"),
    "no method": ("socks5", lambda s: s.send_all(b"\x05\xff"), errno.EACCES, "bind", "No acceptable"),
    "is http": ("socks5", speak_http, errno.EPROTO, "bind", "does not speak its protocol"),
    "hangs up": ("socks5", hang_up, errno.ECONNRESET, "bind", "ended the connection before its answer"),
    "hangs up later": ("socks5", hang_up_when_asked, errno.ECONNRESET, "connect", "ended the connection before"),
    "403": ("http", answering("http", status="403 Forbidden"), errno.EACCES, "connect", "403 Forbidden"),
    "404": ("http", answering("http", status="404 What?"), errno.ECONNABORTED, "connect", "404 What?"),
    "500": ("http", answering("http", status="500 Unable"), errno.EHOSTUNREACH, "connect", "said: 500 Unable"),
    "502": ("http", answering("http", status="502 Bad Gateway"), errno.EHOSTUNREACH, "connect", "502 Bad Gateway"),
    "503": ("http", answering("http", status="503 Busy"), errno.EHOSTUNREACH, "connect", "503 Busy"),
    "504": ("http", answering("http", status="504 Gateway Timeout"), errno.ETIMEDOUT, "connect", "504 Gateway"),
    "407": ("http", answering("http", credentials=("user", "x")), errno.EACCES, "bind", "407 Proxy Auth"),
    "echoes": ("http", answering("http", status=f"403 not for {SECRET}"), errno.EACCES, "connect", "403 not for ***"),
    "early and 403": ("http", answering("http", status=f"{EARLY}403 No"), errno.EACCES, "connect", "said: 403 No"),
    "101": ("http", answering("http", status="101 Switching"), errno.ECONNABORTED, "connect", "said: 101 Switching"),
    "early for ever": ("http", early_for_ever, errno.EMSGSIZE, "bind", "longer than 16384 bytes"),
    "is socks": ("http", lambda s: s.send_all(b"\x05\xff\r\n\r\n"), errno.EPROTO, "bind", "does not speak"),
    "no end": ("http", greet_for_ever, errno.EMSGSIZE, "bind", "longer than 16384 bytes"),
    "ends": ("http", hang_up, errno.ECONNRESET, "connect", "ended the connection before its answer"),
}  # fmt: skip
failures = pytest.mark.parametrize("kind", FAILURES)


@pytest.mark.parametrize("status", ["204 No Content", "200", "299 Strange", f"{EARLY}201 Created"])
@virtual
async def test_every_2xx_opens_the_tunnel(net: VirtualNetwork, status: str) -> None:
    """RFC 9110 section 9.3.6; what the server behind it says first is whole."""
    proxied(net, "http", ProxyServer(status=status, glued=b"220 hello\r\n"))
    stream = await tcp_connect((V4, 443), source=via("http"))
    assert await stream.receive_until(b"\r\n", 100) == b"220 hello"
    assert await answered(stream) == b"ping"
    close(stream)


def check_failure(exc: OSError, source: Source, kind: str, target: str) -> None:
    _, _, code, _phase, words = FAILURES[kind]
    assert exc.errno == code
    shown = texts_of(exc)
    assert SECRET not in shown
    assert words in str(exc)
    assert target in str(exc)
    assert str(source.proxy) in str(exc)


@failures
@virtual
async def test_a_failure_names_the_proxy_the_target_and_the_reason_and_never_the_password(
    net: VirtualNetwork, kind: str
) -> None:
    scheme, serve, code, phase, words = FAILURES[kind]
    net.host(PROXY).listen(1080, serve, rtt=0.020)
    net.dns("proxy.test", a=[PROXY])
    source = via(scheme, login=True)
    with pytest.raises(OSError, match=r"\[Errno") as alone:
        await tcp_connect((V4, 443), source=source)
    assert not isinstance(alone.value, ConnectFailed)
    assert type(alone.value) is type(OSError(code, ""))
    assert str(alone.value).startswith(f"[Errno {code}] {'proxy: ' if phase == 'bind' else ''}connect to {V4}:443 ")
    check_failure(alone.value, source, kind, f"{V4}:443")
    recorder = Recorder()
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(V4), sources=[source], observer=recorder)
    check_failure(caught.value, source, kind, f"{V4}:443")
    (row,) = caught.value.report.attempts
    assert (row.outcome, row.phase, row.errno, row.source) == ("failed", phase, code, source)
    assert row.reason is not None
    assert words in row.reason
    assert "proxy.test:1080" in row.reason
    assert SECRET not in repr(recorder.events)
    assert [type(error) for error in caught.value.errors] == [type(alone.value)]
    assert "kernel" not in str(caught.value), "nobody's kernel gave up: the proxy says so"


@failures
async def test_likewise_over_loopback_and_nothing_stays(sockets: Sockets, kind: str) -> None:
    scheme, serve, *_ = FAILURES[kind]
    async with no_leaks(counters=sockets.counters), serving(serve) as place:
        source = via(scheme, place.host, place.port, login=True)
        with pytest.raises(OSError, match=r"\[Errno") as alone:
            await tcp_connect((V4, 443), source=source)
        check_failure(alone.value, source, kind, f"{V4}:443")
        del alone


@virtual
async def test_a_proxy_that_cannot_be_reached_is_blamed_and_not_the_target(net: VirtualNetwork) -> None:
    net.host(PROXY).refuse(after=0.010)
    net.dns("proxy.test", a=[PROXY])
    with pytest.raises(ConnectionRefusedError, match=r"proxy: connect to 192.*the proxy cannot be reached.*refused: 1"):
        await tcp_connect((V4, 443), source=via("socks5"))
    net.host(V4).unreachable(errno.EHOSTUNREACH)
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(V4), sources=[Source(), via("socks5")])
    # Its errno is that of the attempt that the target is to blame for.
    assert caught.value.errno == errno.EHOSTUNREACH
    assert "proxy: connection refused: 1" in str(caught.value)
    assert [(row.phase, row.errno) for row in caught.value.attempts] == [
        ("connect", errno.EHOSTUNREACH),
        ("bind", errno.ECONNREFUSED),
    ]
    assert "the proxy cannot be reached" in caught.value.report.draw(120)


@virtual
async def test_a_proxy_whose_name_is_unknown(net: VirtualNetwork) -> None:
    net.dns("proxy.test")
    with pytest.raises(OSError, match=r"the proxy cannot be reached: no address to try for proxy\.test") as alone:
        await tcp_connect((V4, 443), source=via("socks5"))
    assert alone.value.errno == errno.EHOSTUNREACH
    with pytest.raises(ConnectFailed) as caught:
        await connect("service.test", 443, sources=[via("socks5h")])
    assert not isinstance(caught.value, ResolveFailed)
    assert str(caught.value).startswith("[Errno 113] the only attempt to service.test:443 (service.test:443) failed")


async def test_a_lack_of_descriptors_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("trio_connect._net.attempt.open_stream_socket", no_socket)
    with pytest.raises(OSError, match=r"\[Errno 24\] local: connect to 192.*too many open files"):
        await tcp_connect((V4, 443), source=via("socks5", "127.0.0.1"))
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(V4), sources=[via("socks5", "127.0.0.1")])
    (row,) = caught.value.attempts
    assert (row.phase, row.errno) == ("socket", errno.EMFILE)
    assert "local: too many open files: 1" in str(caught.value)


# --- time -------------------------------------------------------------------------------------------------------------


async def silent(stream: Any) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async for _ in stream:
            pass


async def silent_when_asked(stream: Any) -> None:
    await stream.receive_some()
    await stream.send_all(b"\x05\x00")
    await silent(stream)


async def silent_behind(stream: Any, _host: str, _port: int) -> None:
    await silent(stream)


STALLS: dict[str, tuple[str, Callable[[Any], Awaitable[None]] | None, str]] = {
    "black hole": ("socks5", None, "bind"),
    "silent": ("socks5", silent, "bind"),
    "silent when asked": ("socks5", silent_when_asked, "connect"),
    "silent http": ("http", silent, "connect"),
}
stalls = pytest.mark.parametrize("kind", STALLS)


def stalling(net: VirtualNetwork, kind: str) -> Source:
    scheme, serve, _ = STALLS[kind]
    if serve is None:
        net.host(PROXY).blackhole()
    else:
        net.host(PROXY).listen(1080, serve, rtt=0.020)
    return via(scheme, PROXY)


@stalls
@virtual
async def test_a_deadline_ends_it_wherever_it_is(net: VirtualNetwork, kind: str) -> None:
    source = stalling(net, kind)
    for call in (partial(tcp_connect, (V4, 443), source=source), partial(connectx, at(V4), sources=[source])):
        clock = Stopwatch()
        with pytest.raises(DeadlineExceeded, match=r"192\.0\.2\.1:443") as caught:
            await call(now() + 1500)
        assert str(source.proxy) in str(caught.value)
        assert clock.ms == 1500
        assert caught.value.report is not None
        (row,) = caught.value.report.attempts
        assert (row.outcome, row.source, row.endpoint.host) == ("cancelled", source, V4)
        assert net.open_sockets == ()


@stalls
@virtual
async def test_attempt_timeout_ends_it_and_the_phase_says_whom_to_blame(net: VirtualNetwork, kind: str) -> None:
    source = stalling(net, kind)
    recorder = Recorder()
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(V4), sources=[source], policy=RacePolicy(attempt_timeout=2.0), observer=recorder)
    (row,) = caught.value.attempts
    assert (row.outcome, row.errno, row.phase, ms(row.ended)) == ("timed out", errno.ETIMEDOUT, STALLS[kind][2], 2000)
    assert f"from proxy {source.proxy} took longer than attempt_timeout" in str(caught.value.errors[0])
    waited = "waiting for proxy" if STALLS[kind][2] == "bind" else "waiting for the answer of proxy"
    assert f"(timed out while {waited} {source.proxy}: 1)" in str(caught.value)


@virtual
async def test_a_target_that_stalls_behind_a_proxy_is_not_the_proxys_fault(net: VirtualNetwork) -> None:
    async def never(stream: TcpStream) -> None:
        await stream.receive_some()

    net.host(PROXY).listen(1080, ProxyServer(behind=silent_behind).http)
    with pytest.raises(ConnectFailed, match=r"\(timed out: 1\)$"):
        await connectx(at(V4), sources=[via("http", PROXY)], establish=never, policy=RacePolicy(attempt_timeout=2.0))


@schemes
@virtual
async def test_a_deadline_of_zero_is_one_try(net: VirtualNetwork, scheme: str) -> None:
    """Which does not reach behind a proxy that is 20 ms away; nothing stays of it."""
    proxied(net, scheme)
    source = via(scheme)
    for call in (partial(tcp_connect, (V4, 443), source=source), partial(connectx, at(V4), sources=[source])):
        with pytest.raises(DeadlineExceeded):
            await call(0)
        assert net.open_sockets == ()
        with pytest.raises(DeadlineExceeded, match="did not begin"):
            await call(now() - 1)
    assert net.open_sockets == ()


# --- among other sources ----------------------------------------------------------------------------------------------


@virtual
async def test_as_the_fallback_it_is_tried_when_the_direct_way_is_dead(net: VirtualNetwork) -> None:
    server = proxied(net, "http")
    dead(net, V4)
    net.dns("service.test", a=[V4])
    stream = await connect("service.test", 443, sources=[Source(), via("http")])
    assert [(row.source, row.outcome, ms(row.started)) for row in stream.report.attempts] == [
        (Source(), "lost", 0),
        (via("http"), "won", 250),
    ]
    assert ms(stream.report.elapsed) == 250 + 2 * 20
    assert server.asked == [(V4, 443)]
    close(stream)


@virtual
async def test_as_the_fallback_it_is_not_asked_when_the_direct_way_is_good(net: VirtualNetwork) -> None:
    server = proxied(net, "http")
    good(net, V4)
    net.dns("service.test", a=[V4])
    for source in (via("http"), via("http", proxy_resolves=True)):
        stream = await connect("service.test", 443, sources=[Source(), source])
        assert stream.local.host == "192.0.2.254"
        assert [row.outcome for row in stream.report.attempts] == ["won", "not tried"]
        close(stream)
    assert server.asked == []


@virtual
async def test_raced_the_proxy_first(net: VirtualNetwork) -> None:
    proxied(net, "socks5", ProxyServer(code=5))
    good(net, V4)
    stream = await connectx(at(V4), sources=[via("socks5", PROXY), Source()])
    assert [(row.outcome, ms(row.started)) for row in stream.report.attempts] == [("failed", 0), ("won", 60)]
    close(stream)


@virtual
async def test_a_loser_in_the_middle_of_its_tunnel_is_closed(net: VirtualNetwork) -> None:
    net.host(PROXY).listen(1080, silent_when_asked, rtt=0.020)
    good(net, V4)
    stream = await connectx(at(V4), sources=[via("socks5", PROXY), Source()])
    assert [(row.outcome, row.phase) for row in stream.report.attempts] == [("lost", "connect"), ("won", "connect")]
    assert len(net.open_sockets) == 1
    close(stream)


@virtual
async def test_a_name_for_a_proxy_in_front_waits_for_no_lookup(net: VirtualNetwork) -> None:
    proxied(net, "socks5")
    net.dns("service.test", a=[V4], a_delay=9.0, aaaa_delay=9.0)
    clock = Stopwatch()
    stream = await connect("service.test", 443, sources=[via("socks5h"), Source()])
    assert clock.ms == 60
    assert [str(row.endpoint) for row in stream.report.attempts] == ["service.test:443"]
    close(stream)


@virtual
async def test_a_name_for_a_proxy_behind_waits_for_the_addresses_and_stands_behind_all_of_them(
    net: VirtualNetwork,
) -> None:
    server = proxied(net, "socks5")
    dead(net, V4, V6)
    net.dns("service.test", aaaa=[V6], a=[V4], aaaa_delay=0.1, a_delay=0.3)
    source = via("socks5h")
    stream = await connect("service.test", 443, sources=[Source(), source])
    assert [(row.endpoint.host, row.source, ms(row.started)) for row in stream.report.attempts] == [
        (V6, Source(), 100),
        (V4, Source(), 350),
        ("service.test", source, 600),
    ]
    assert server.asked == [("service.test", 443)]
    close(stream)


@virtual
async def test_a_name_behind_waits_for_no_address_that_the_filter_refuses(net: VirtualNetwork) -> None:
    """The answer that comes first has nothing that may be tried here; so the name waits for the other one."""
    proxied(net, "socks5")
    dead(net, "93.184.216.34")
    net.dns("service.test", aaaa=["fd00::1"], a=["93.184.216.34"], a_delay=0.1)
    stream = await connect(
        "service.test", 443, sources=[Source(), via("socks5h", proxy_resolves=True)],
        address_filter=NetworkFilter.public_only(),
    )  # fmt: skip
    assert [(row.endpoint.host, row.outcome, ms(row.started)) for row in stream.report.attempts] == [
        ("93.184.216.34", "lost", 100),
        ("service.test", "won", 350),
        ("fd00::1", "skipped", None),
    ]
    close(stream)


@pytest.mark.parametrize(
    "answer", [{}, {"a_error": OSError("down"), "aaaa_error": OSError("down")}], ids=["no", "error"]
)
@virtual
async def test_a_name_that_cannot_be_looked_up_here_goes_to_the_proxy(net: VirtualNetwork, answer: Any) -> None:
    proxied(net, "socks5")
    net.dns("service.test", **answer)
    stream = await connect("service.test", 443, sources=[Source(), via("socks5h")])
    assert [row.endpoint.host for row in stream.report.attempts] == ["service.test"]
    assert len(stream.report.lookups) == 2
    close(stream)


@virtual
async def test_names_before_and_behind_addresses(net: VirtualNetwork) -> None:
    """Three sources, of which the outer two send names; all fail, and each was tried once, in this order."""
    proxied(net, "socks5", ProxyServer(code=5))
    net.host(V4).refuse(after=0.010)
    net.dns("service.test", a=[V4])
    before, behind = via("socks5h"), via("socks5h", PROXY)
    with pytest.raises(ConnectFailed) as caught:
        await connect("service.test", 443, sources=[before, Source(), behind])
    assert {(row.endpoint.host, row.source) for row in caught.value.attempts} == {
        ("service.test", before), (V4, Source()), ("service.test", behind),
    }  # fmt: skip
    assert caught.value.attempts[0].source == before
    assert caught.value.attempts[-1].source == behind


@virtual
async def test_several_names_go_to_the_proxy_in_their_order(net: VirtualNetwork) -> None:
    """And a numeric host among them is judged here, as the filter sees it."""
    proxied(net, "socks5", ProxyServer(code=5))
    source = via("socks5h", proxy_resolves=True)
    with pytest.raises(ConnectFailed) as caught:
        await connect(
            ["db1.test", ("db2.test", 5433), "10.0.0.1", "93.184.216.34"], 5432, sources=[source],
            address_filter=NetworkFilter.public_only(),
        )  # fmt: skip
    assert [(str(row.endpoint), row.host, row.outcome) for row in caught.value.report.attempts] == [
        ("db1.test:5432", "db1.test", "failed"),
        ("db2.test:5433", "db2.test", "failed"),
        ("93.184.216.34:5432", None, "failed"),
        ("10.0.0.1:5432", None, "skipped"),
    ]
    assert caught.value.report.lookups == ()


@virtual
async def test_of_several_names_tls_verifies_the_one_that_was_sent(net: VirtualNetwork) -> None:
    async def only_the_second(stream: Any, host: str, port: int) -> None:
        if host == tls.NAME:
            await over_tls(tls.contexts().server)(stream, host, port)

    proxied(net, "socks5", ProxyServer(behind=only_the_second))
    stream = await connect(["other.test", tls.NAME], 443, sources=[via("socks5h")], tls=tls.contexts().client)
    assert stream.host == tls.NAME
    assert [(row.host, row.outcome) for row in stream.report.attempts] == [("other.test", "failed"), (tls.NAME, "won")]
    close(stream.tcp)


# --- TLS --------------------------------------------------------------------------------------------------------------


def over_tls(context: Any) -> Callable[[Any, str, int], Awaitable[None]]:
    async def behind(stream: Any, _host: str, _port: int) -> None:
        async with trio.SSLStream(stream, context, server_side=True) as secured:
            await echo(secured)

    return behind


@schemes
@virtual
async def test_tls_goes_through_the_tunnel_and_the_name_of_the_target_is_verified(
    net: VirtualNetwork, scheme: str
) -> None:
    proxied(net, scheme, ProxyServer(behind=over_tls(tls.contexts().server)))
    net.dns(tls.NAME, a=[V4])
    net.dns("other.test", a=[V4])
    source = via(scheme)
    stream = await connect(tls.NAME, 443, sources=[source], tls=tls.contexts().client)
    assert await answered(stream) == b"ping"
    close(stream.tcp)
    with pytest.raises(ConnectFailed, match=r"Hostname mismatch.*other\.test") as caught:
        await connect("other.test", 443, sources=[source], tls=tls.contexts().client)
    (row,) = caught.value.attempts
    assert (row.phase, row.source) == ("establish", source)


@virtual
async def test_a_proxy_that_says_something_before_the_handshake_fails_it(net: VirtualNetwork) -> None:
    """Which is a failed attempt like any other, and does not end the race."""
    proxied(net, "http", ProxyServer(glued=b"hello from the proxy\r\n", behind=over_tls(tls.contexts().server)))
    net.host(V4).listen(443, lambda s: over_tls(tls.contexts().server)(s, "", 0), rtt=0.020)
    net.dns(tls.NAME, a=[V4])
    stream = await connect(tls.NAME, 443, sources=[via("http"), Source()], tls=tls.contexts().client)
    first, second = stream.report.attempts
    assert (first.outcome, second.outcome) == ("failed", "won")
    assert "plain text" in str(first.reason)
    close(stream.tcp)


# --- the filter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["socks5", "http"])
@virtual
async def test_the_filter_judges_the_target_and_not_the_proxy(net: VirtualNetwork, scheme: str) -> None:
    server = proxied(net, scheme, host="10.0.0.80")
    net.dns("proxy.test", a=["10.0.0.80"])
    net.dns("public.test", a=["93.184.216.34"])
    net.dns("internal.test", a=["10.0.0.1"])
    public = NetworkFilter.public_only()
    stream = await connect("public.test", 443, sources=[via(scheme)], address_filter=public)
    close(stream)
    server.asked.clear()
    for host in ("internal.test", "10.0.0.1"):
        with pytest.raises(ConnectFailed, match="not allowed by the address filter") as caught:
            await connect(host, 443, sources=[via(scheme)], address_filter=public)
        assert caught.value.errno == errno.EACCES
    assert server.asked == []


@virtual
async def test_a_proxy_that_looks_names_up_and_a_filter_are_refused_by_every_call(net: VirtualNetwork) -> None:
    source = via("socks5h", login=True)
    keep = NetworkFilter.public_only()

    async def enter_outbound() -> None:
        async with open_outbound(sources=[source], address_filter=keep):
            raise AssertionError("it was entered")

    async with open_queue_set() as qs:
        calls: list[Callable[[], Any]] = [
            lambda: connect("service.test", 443, sources=[source], address_filter=keep),
            lambda: connect(V4, 443, sources=[Source(), source], address_filter=keep),
            lambda: connectx(at(V4), sources=[source], address_filter=keep),
            lambda: qs.connectx(at(V4), sources=[source], address_filter=keep),
            enter_outbound,
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"looks names up itself.*proxy_resolves=True") as caught:
                await call()
            assert SECRET not in texts_of(caught.value)


@virtual
async def test_unless_the_source_says_so_and_then_the_other_sources_are_judged_still(net: VirtualNetwork) -> None:
    server = proxied(net, "socks5")
    good(net, "10.0.0.1")
    net.dns("internal.test", a=["10.0.0.1"])
    trusted = via("socks5h", proxy_resolves=True)
    stream = await connect(
        "internal.test", 443, sources=[Source(), trusted], address_filter=NetworkFilter.public_only()
    )
    assert server.asked == [("internal.test", 443)]
    assert {(row.endpoint.host, row.outcome) for row in stream.report.attempts} == {
        ("10.0.0.1", "skipped"), ("internal.test", "won"),
    }  # fmt: skip
    close(stream)


@virtual
async def test_any_spelling_of_an_address_is_judged_before_a_proxy_that_looks_names_up(net: VirtualNetwork) -> None:
    server = proxied(net, "http")
    trusted = via("http", proxy_resolves=True)
    for host in ("127.0.0.1", "127.1", "0x7f.1", "2130706433", "\uff11\uff12\uff17.0.0.1"):
        with pytest.raises(ConnectFailed, match="not allowed by the address filter"):
            await connect(host, 443, sources=[trusted], address_filter=NetworkFilter.public_only())
    assert server.asked == []


# --- other calls, and what cannot be ----------------------------------------------------------------------------------


async def test_a_queue_set_races_through_proxies_too() -> None:
    async with loopback("socks5") as (target, source), open_queue_set() as qs:
        result = await qs.wait(qs.connectx([target], sources=[source]), now() + 5000)
        assert result.ok
        queue = result.queue
        assert (await qs.wait(queue.push(b"ping"))).ok
        assert (await qs.wait(queue.pop())).unwrap().data == b"ping"
        await queue.aclose()


@virtual
async def test_a_zone_means_nothing_to_a_proxy(net: VirtualNetwork) -> None:
    zoned = Endpoint("fe80::1%eth0", 443)
    server = proxied(net, "socks5")
    with pytest.raises(ValueError, match="a proxy knows nothing of this machine's zones"):
        await tcp_connect(zoned, source=via("socks5"))
    stream = await connectx([zoned, *at(V4)], sources=[via("socks5")])
    assert server.asked == [(V4, 443)]
    (skipped,) = (row for row in stream.report.attempts if row.outcome == "skipped")
    assert skipped.reason == "a proxy knows nothing of this machine's zones"
    close(stream)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test"])
async def test_an_impossible_name_of_a_proxy_is_refused_before_anything_is_sent(host: str) -> None:
    for call in (
        lambda: tcp_connect((V4, 443), source=via("socks5", host)),
        lambda: connectx(at(V4), sources=[via("socks5", host)]),
        lambda: connect("service.test", 443, sources=[via("socks5h", host)]),
    ):
        with pytest.raises(ValueError, match="host"):
            await call()


async def test_without_python_socks_an_import_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("python_socks")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "python_socks", None)
    for call in (
        lambda: tcp_connect((V4, 443), source=via("socks5")),
        lambda: connectx(at(V4), sources=[via("socks5")]),
        lambda: connect("service.test", 443, sources=[via("socks5h")]),
    ):
        with pytest.raises(ImportError, match=r"pip install 'trio-connect\[socks\]'"):
            await call()


async def test_fast_open_reaches_no_race_for_the_proxy() -> None:
    """With a cookie its first address would always win, unanswered. One tunnel after another has one."""
    async with loopback("http") as (target, source):
        for _ in range(2):
            async with await tcp_connect(target, source=source, options=SocketOptions(fast_open=True)) as stream:
                assert await answered(stream) == b"ping"


# --- cancellation -----------------------------------------------------------------------------------------------------


OPERATIONS: dict[str, Callable[[tuple[Endpoint, Source]], Awaitable[TcpStream]]] = {
    "tcp_connect": lambda place: tcp_connect(place[0], source=place[1]),
    "tcp_connect, deadline": lambda place: tcp_connect(place[0], now() + 5000, source=place[1]),
    "connectx": lambda place: connectx([place[0]], sources=[place[1]]),
    "connect": lambda place: connect("service.test", place[0].port, sources=[place[1]]),
}


@pytest.mark.parametrize(
    ("scheme", "call"),
    [
        ("http", "connectx"),
        pytest.param("socks5", "tcp_connect", marks=pytest.mark.slow),
        pytest.param("http", "tcp_connect, deadline", marks=pytest.mark.slow),
        pytest.param("socks5h", "connect", marks=pytest.mark.slow),
    ],
)
async def test_cancelled_at_any_step_nothing_of_it_stays(sockets: Sockets, scheme: str, call: str) -> None:
    summary = await sweep(
        OPERATIONS[call],
        environment=partial(loopback, scheme, ProxyServer(credentials=LOGIN)),
        counters=sockets.counters,
    )
    assert summary.endings("before")[1]["cancelled"] == repeated(1)
    assert summary.steps > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["password", "hangs up later", "407"])
async def test_cancelled_at_any_step_of_a_failure_likewise(sockets: Sockets, kind: str) -> None:
    scheme, serve, *_ = FAILURES[kind]
    summary = await sweep(
        lambda place: tcp_connect((V4, 443), source=via(scheme, place.host, place.port, login=True)),
        environment=partial(serving, serve),
        counters=sockets.counters,
        raises=OSError,
    )
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


@stalls
async def test_cancelled_where_a_proxy_is_silent_likewise(sockets: Sockets, kind: str, modes: tuple[Mode, ...]) -> None:
    scheme, serve, _ = STALLS[kind]
    if serve is None:
        serve = silent
    summary = await sweep(
        lambda place: tcp_connect((V4, 443), source=via(scheme, place.host, place.port)),
        environment=partial(serving, serve),
        modes=modes,
        counters=sockets.counters,
    )
    assert any(run.parked for run in summary.runs)
