"""`tls=` of `connect` and `connectx`: the race is won when the handshake is done; a failure says why and where."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trustme

from tests.net.racing import Recorder, at, good, outcomes, rows, virtual
from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.sweep import repeated, sweep
from trio_connect import (
    AttemptFinished,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    EstablishFailed,
    RacePolicy,
    SocketOptions,
    StaticResolver,
    TcpStream,
    TlsStream,
    connect,
    connectx,
    now,
    tcp_listen,
)
from trio_connect.testing import VirtualNetwork

SEQUENTIAL = RacePolicy(attempt_delay=30.0)
V6, V4 = "2001:db8::1", "192.0.2.1"


async def serve_tls(context: ssl.SSLContext, stream: Any) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async with trio.SSLStream(stream, context, server_side=True) as secured:
            await secured.send_all(b"hello")


def secure(net: VirtualNetwork, *addresses: str, context: ssl.SSLContext | None = None, rtt: float = 0.020) -> None:
    """Serve TLS on each of these hosts."""
    for address in addresses:
        net.host(address).listen(443, partial(serve_tls, context or tls.contexts().server), rtt=rtt)


async def send_alert(stream: Any) -> None:
    """RFC 8446 section 6: fatal, 120 no_application_protocol."""
    await stream.receive_some()
    await stream.send_all(bytes([21, 3, 3, 0, 2, 2, 120]))
    await stream.aclose()


async def greet_in_plain_text(stream: Any) -> None:
    await stream.send_all(b"220 mail.test ESMTP\r\n")
    await stream.receive_some()
    await stream.aclose()


async def hang_up(stream: Any) -> None:
    await stream.receive_some()
    await stream.aclose()


BAD: dict[str, tuple[Callable[[], Callable[[Any], Awaitable[None]]], str]] = {
    "bad name": (lambda: partial(serve_tls, tls.server_context("other.test")), "Hostname mismatch"),
    "expired": (lambda: partial(serve_tls, tls.server_context(tls.NAME, expired=True)), "certificate has expired"),
    "untrusted": (lambda: partial(serve_tls, tls.server_context(tls.NAME, issuer=trustme.CA())), "local issuer"),
    "wrong ALPN": (lambda: send_alert, "no protocol in common (ALPN, alert 120)"),
    "plain text": (lambda: greet_in_plain_text, "the peer speaks plain text, not TLS: it sent b'220 mail.test"),
    "hangs up": (lambda: hang_up, "the peer ended the connection in the handshake"),
}
bad = pytest.mark.parametrize("kind", BAD)


# --- why it failed, and where -----------------------------------------------------------------------------------------


def check_failure(exc: ConnectFailed, recorder: Recorder, endpoint: str, words: str) -> None:
    assert words in str(exc)
    assert endpoint in str(exc)
    (attempt,) = exc.attempts
    assert (attempt.outcome, attempt.phase, str(attempt.endpoint)) == ("failed", "establish", endpoint)
    assert attempt.reason is not None
    assert words in attempt.reason
    assert "TLS handshake" not in attempt.reason
    (error,) = exc.errors
    assert isinstance(error, trio.BrokenResourceError)
    assert str(error).startswith(f"TLS handshake with {endpoint} failed: ")
    (event,) = (event for event in recorder.events if isinstance(event, AttemptFinished))
    assert event.reason == attempt.reason


@bad
@virtual
async def test_the_reason_in_text_report_and_events(net: VirtualNetwork, kind: str) -> None:
    behave, words = BAD[kind]
    net.host(V4).listen(443, behave())
    net.dns(tls.NAME, a=[V4])
    recorder = Recorder()
    with pytest.raises(ConnectFailed) as caught:
        await connect(tls.NAME, 443, tls=tls.contexts().client, observer=recorder)
    check_failure(caught.value, recorder, f"{V4}:443", words)


@bad
async def test_likewise_over_loopback(sockets: Sockets, kind: str) -> None:
    behave, words = BAD[kind]
    async with no_leaks(counters=sockets.counters), listening(behave()) as endpoint:
        recorder = Recorder()
        with pytest.raises(ConnectFailed) as caught:
            await connectx([endpoint], tls=tls.contexts().client, server_hostname=tls.NAME, observer=recorder)
        check_failure(caught.value, recorder, str(endpoint), words)
        del caught, recorder


@contextlib.asynccontextmanager
async def listening(behave: Callable[[Any], Awaitable[None]]) -> AsyncIterator[Endpoint]:
    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:

        async def serve(stream: TcpStream) -> None:
            with contextlib.suppress(trio.BrokenResourceError, OSError):
                await behave(stream)
            stream.abort()

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.endpoint
        nursery.cancel_scope.cancel()


# --- who wins ---------------------------------------------------------------------------------------------------------


@virtual
async def test_line_55_and_56_an_address_whose_tls_is_dead_loses_within_delay_and_handshake(
    net: VirtualNetwork,
) -> None:
    """A middlebox completes TCP and never TLS: the next start comes a TCP handshake after the delay."""
    net.host(V6).silent(443, rtt=0.010)
    secure(net, V4)
    net.dns(tls.NAME, aaaa=[V6], a=[V4])
    stream = await connect(tls.NAME, 443, tls=tls.contexts().client)
    assert round(trio.current_time() * 1000) == 250 + 10 + 20 + 20  # delay, postponed once; TCP, TLS 1.3
    assert rows(stream.report) == [(V6, "first", 0.0, 300.0, "lost"), (V4, "delay", 260.0, 300.0, "won")]
    assert (stream.peer, stream.report) == (Endpoint(V4, 443), stream.tcp.report)
    assert await stream.receive_exactly(5) == b"hello"
    await stream.aclose()


@bad
@virtual
async def test_a_bad_address_is_passed_over_at_once(net: VirtualNetwork, kind: str) -> None:
    behave, words = BAD[kind]
    net.host(V6).listen(443, behave(), rtt=0.010)
    secure(net, V4)
    stream = await connectx(at(V6, V4), tls=tls.contexts().client, server_hostname=tls.NAME, policy=SEQUENTIAL)
    failed, won = stream.report.attempts
    assert (failed.outcome, won.outcome, won.cause) == ("failed", "won", "failure")
    assert words in (failed.reason or "")
    assert trio.current_time() < 0.2
    await stream.aclose()


@virtual
async def test_all_bad_names_each_reason(net: VirtualNetwork) -> None:
    secure(net, V6, context=tls.server_context(tls.NAME, expired=True))
    net.host(V4).listen(443, greet_in_plain_text)
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(V6, V4), tls=tls.contexts().client, server_hostname=tls.NAME)
    for words in ("certificate has expired", "plain text", f"[{V6}]:443", f"{V4}:443"):
        assert words in str(caught.value)
    assert caught.value.errno is None


@virtual
async def test_the_deadline_counts_for_the_handshake(net: VirtualNetwork) -> None:
    net.host(V4).silent(443)
    for deadline in (now() + 100, 0):
        with pytest.raises(DeadlineExceeded) as caught:
            await connectx(at(V4), deadline, tls=tls.contexts().client)
        assert caught.value.report is not None
        assert outcomes(caught.value.report) == ["cancelled"]
    assert round(trio.current_time() * 1000) == 100


@virtual
async def test_the_attempt_timeout_counts_for_the_handshake(net: VirtualNetwork) -> None:
    net.host(V4).silent(443)
    with pytest.raises(ConnectFailed, match="timed out"):
        await connectx(at(V4), tls=tls.contexts().client, policy=RacePolicy(attempt_timeout=1.0))
    assert round(trio.current_time(), 3) == 1.0


# --- which name -------------------------------------------------------------------------------------------------------


@virtual
async def test_the_name_that_is_verified_is_the_callers(net: VirtualNetwork) -> None:
    client = tls.contexts().client
    secure(net, V4, V6)  # good for the name and for V4
    net.dns(tls.NAME, a=[V4])
    net.dns("alias.test", a=[V4])
    for host in (tls.NAME, f"{tls.NAME}.", V4):
        await (await connect(host, 443, tls=client, resolver=StaticResolver({tls.NAME: [V4]}))).aclose()
    await (await connectx(at(V4), tls=client)).aclose()
    await (await connect("alias.test", 443, tls=client, server_hostname=tls.NAME)).aclose()
    await (await connect(V6, 443, tls=client, server_hostname=tls.NAME)).aclose()
    with pytest.raises(ConnectFailed, match=r"Hostname mismatch, certificate is not valid for 'alias\.test'"):
        await connect("alias.test", 443, tls=client)
    for call in (connect(V6, 443, tls=client), connectx(at(V6), tls=client)):
        with pytest.raises(ConnectFailed, match="IP address mismatch, certificate is not valid for '2001:db8::1'"):
            await call


@virtual
async def test_true_trusts_what_the_system_trusts(net: VirtualNetwork) -> None:
    secure(net, V4)
    with pytest.raises(ConnectFailed, match="unable to get local issuer certificate"):
        await connectx(at(V4), tls=True)


# --- with an establish ------------------------------------------------------------------------------------------------


@virtual
async def test_an_establish_gets_the_stream_over_tls(net: VirtualNetwork) -> None:
    secure(net, V6, V4)
    peers: list[str] = []

    async def greeting(stream: TlsStream) -> bytes:
        peers.append(stream.peer.host)
        word = await stream.receive_exactly(5)
        if len(peers) == 1:
            raise EstablishFailed("421 too busy")
        await stream.aclose()
        return word

    async def check(stream: TlsStream) -> None:
        assert await stream.receive_exactly(5) == b"hello"

    options: dict[str, Any] = {"tls": tls.contexts().client, "server_hostname": tls.NAME}
    assert await connectx(at(V6, V4), establish=greeting, **options) == b"hello"
    assert peers == [V6, V4]
    stream = await connectx(at(V4), establish=check, **options)
    assert isinstance(stream, TlsStream)
    await stream.aclose()

    def not_async(_: TlsStream) -> Any:
        return None

    with pytest.raises(TypeError, match="establish must be an async function"):
        await connectx(at(V4), establish=not_async, **options)


async def test_fast_open_may_be_raced_over_tls(sockets: Sockets) -> None:
    """Somebody has to answer for a handshake."""
    service = partial(serve_tls, tls.contexts().server)
    async with no_leaks(counters=sockets.counters), listening(service) as one, listening(service) as other:
        stream = await connectx(
            [one, other], tls=tls.contexts().client, server_hostname=tls.NAME, options=SocketOptions(fast_open=True)
        )
        assert await stream.receive_exactly(5) == b"hello"
        await stream.aclose()


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"server_hostname": "x"},
            TypeError,
            "server_hostname is for TLS: pass tls=True or a context as well, got 'x'",
        ),
        ({"tls": "yes"}, TypeError, "tls must be True, an ssl.SSLContext or None, got 'yes'"),
        ({"tls": False}, TypeError, "tls must be True, an ssl.SSLContext or None, got False"),
        ({"tls": 1}, TypeError, "tls must be True"),
        ({"tls": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, ValueError, "tls must be a context for clients"),
        ({"tls": True, "server_hostname": b"x"}, TypeError, "server_hostname must be a str or None, got b'x'"),
        ({"tls": True, "server_hostname": ""}, ValueError, "server_hostname must be a host name or an address, got ''"),
        ({"tls": True, "server_hostname": ".x"}, ValueError, "server_hostname must be a host name"),
        ({"tls": True, "server_hostname": "x\0y"}, ValueError, "server_hostname must be a host name"),
        ({"tls": True, "establish": 3}, TypeError, "establish must be callable or None, got 3"),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_sent(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    recorder = Recorder()
    for call in (
        lambda: connect("api.test", 443, observer=recorder, **options),
        lambda: connect("192.0.2.1", 443, observer=recorder, **options),
        lambda: connectx([("192.0.2.1", 443)], observer=recorder, **options),
    ):
        with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
            await call()
    assert recorder.events == []


async def test_a_queues_race_has_no_tls() -> None:
    from trio_connect.queues import open_queue_set

    async with open_queue_set() as queues:
        with pytest.raises(TypeError, match="unexpected keyword arguments: tls"):
            queues.connectx([("192.0.2.1", 443)], tls=True)  # type: ignore[call-arg]


# --- nothing is left --------------------------------------------------------------------------------------------------


async def test_cancel_at_every_step_of_a_race_over_tls(sockets: Sockets) -> None:
    """Two addresses: one never answers the handshake, the other is good."""

    @contextlib.asynccontextmanager
    async def servers() -> AsyncIterator[list[Endpoint]]:
        async def silent(stream: TcpStream) -> None:
            while await stream.receive_some():
                pass

        async with (
            listening(silent) as middlebox,
            listening(partial(serve_tls, tls.contexts().server)) as service,
        ):
            yield [middlebox, service]

    async def race(endpoints: list[Endpoint]) -> TlsStream:
        return await connectx(
            endpoints, tls=tls.contexts().client, server_hostname=tls.NAME, policy=RacePolicy(attempt_delay=0.010)
        )

    summary = await sweep(race, environment=servers, counters=sockets.counters, inside=False)
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


async def test_a_plain_race_is_what_it_was() -> None:
    async with listening(greet_in_plain_text) as endpoint:
        stream = await connectx([endpoint], tls=None, server_hostname=None)
        assert isinstance(stream, TcpStream)
        stream.abort()


@virtual
async def test_tls_is_never_left_out(net: VirtualNetwork) -> None:
    """No plain connection stands in for one over TLS, whoever is fastest."""
    good(net, V6, rtt=0.001)
    secure(net, V4, rtt=0.2)
    stream = await connectx(at(V6, V4), tls=tls.contexts().client, server_hostname=tls.NAME)
    assert isinstance(stream, TlsStream)
    assert stream.peer.host == V4
    await stream.aclose()
