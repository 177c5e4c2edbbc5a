"""`tls=` of a destination: a failed handshake is its address's failure, with its reason."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.net.racing import Stopwatch, virtual
from tests.outbound.kit import connects, fails, opened, rules
from tests.support import tls
from tests.support.proxies import serving
from tests.support.sweep import repeated, sweep
from trio_connect import (
    DeadlineExceeded,
    Endpoint,
    MailRecord,
    SrvRecord,
    StaticResolver,
    TcpStream,
    TlsStream,
    now,
)
from trio_connect.outbound import (
    Candidate,
    Connection,
    DestinationDelayed,
    DestinationFailed,
    Overloaded,
    Rate,
    RequeueOne,
    SourceSuspended,
    TlsConnection,
    open_outbound,
)
from trio_connect.testing import VirtualNetwork, discard

GOOD, OTHER = "192.0.2.1", "192.0.2.2"


async def serve_tls(context: ssl.SSLContext, stream: Any) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async with trio.SSLStream(stream, context, server_side=True) as secured:
            await secured.send_all(b"220 hello\r\n")


def secure(net: VirtualNetwork, *addresses: str, context: ssl.SSLContext | None = None) -> None:
    for address in addresses:
        net.host(address).listen(443, partial(serve_tls, context or tls.contexts().server), rtt=0.020)


def expired() -> ssl.SSLContext:
    return tls.server_context(tls.NAME, GOOD, OTHER, expired=True)


async def greeting(stream: TlsStream) -> bytes:
    return await stream.receive_until(b"\r\n", 100)


@pytest.mark.parametrize("method", ["connect", "try_connect"])
@virtual
async def test_a_destination_by_name_verifies_its_name(net: VirtualNetwork, method: str) -> None:
    secure(net, GOOD)
    net.dns(tls.NAME, a=[GOOD])
    net.dns("other.test", a=[GOOD])
    client = tls.contexts().client
    async with opened() as out:
        dest = out.destination(tls.NAME, port=443)
        connect: Callable[..., Any] = getattr(dest, method)
        clock = Stopwatch()
        async with connect(tls=client) as connection:
            assert type(connection) is TlsConnection
            assert isinstance(connection.stream, TlsStream)
            assert clock.ms == 40
            assert await greeting(connection.stream) == b"220 hello"
            assert connection.candidate.endpoint == connection.stream.peer == Endpoint(GOOD, 443)
            assert connection.stream.report.attempts[0].phase == "establish"
        async with connect(tls=client, establish=greeting) as connection:
            assert connection.result == b"220 hello"
        async with connect() as connection:
            assert type(connection) is Connection
            assert isinstance(connection.stream, TcpStream)
        decision = await fails(out.destination("other.test", port=443), tls=client)
        assert "Hostname mismatch" in decision.cause
        await connects(out.destination("other.test", port=443), tls=client, server_hostname=tls.NAME)


@virtual
async def test_a_failed_handshake_is_charged_to_its_address_and_the_next_is_tried(net: VirtualNetwork) -> None:
    secure(net, OTHER)
    secure(net, GOOD, context=expired())
    async with opened() as out:
        candidates = [Candidate((GOOD, 443)), Candidate((OTHER, 443), priority=1)]
        dest = out.destination("service", candidates=candidates)
        connection = await connects(dest, tls=tls.contexts().client, server_hostname=tls.NAME)
        assert connection.candidate == candidates[1]
        first, second = connection.stream.report.attempts
        assert (first.outcome, first.phase, first.reason) == ("failed", "establish", "certificate has expired")
        assert second.outcome == "won"
        snapshot = dest.snapshot()
        assert snapshot.failures == 0
        cooling = {str(each.endpoint): each.failures for each in snapshot.addresses}
        assert cooling == {f"{GOOD}:443": 1}


@virtual
async def test_decisions_carry_the_reason_and_tcp_that_comes_up_resets_nothing(net: VirtualNetwork) -> None:
    """Invariant 6, over TLS: a handshake that fails is a failure of the call, though TCP was up each time."""
    secure(net, GOOD, context=expired())
    async with opened(rules(failures_to_delay=3)) as out:
        dest = out.destination("service", candidates=[(GOOD, 443)])
        for _ in range(2):
            with pytest.raises(DestinationFailed, match='not established: 1: "certificate has expired"') as caught:
                await connects(dest, tls=tls.contexts().client)
            assert type(caught.value.decision) is RequeueOne
            assert caught.value.decision.cause == "every address failed (certificate has expired)"
            assert caught.value.report.attempts[0].phase == "establish"
        assert dest.snapshot().failures == 2
        for patience in (None, 1):  # by the handshake, and by the open circuit
            deadline = -1 if patience is None else now() + patience
            decision = await fails(dest, deadline, tls=tls.contexts().client)
            assert type(decision) is DestinationDelayed
            assert decision.cause == "has failed too often (certificate has expired)"
        assert "certificate has expired" in dest.snapshot().errors[-1]
        # It is the handshakes that fail: over plain TCP there is nothing wrong.
        dest.reset()
        await connects(dest)


@virtual
async def test_what_is_verified_without_a_name(net: VirtualNetwork) -> None:
    """Of candidates each address, of a service its domain; MX records do not say whom to trust."""
    secure(net, GOOD, OTHER)
    resolver = StaticResolver(
        {"host.test": [GOOD]},
        srv={f"_x._tcp.{tls.NAME}": [SrvRecord("host.test", 443)], "_x._tcp.other.test": [SrvRecord("host.test", 443)]},
        mx={tls.NAME: [MailRecord("host.test", 10)]},
    )
    client = tls.contexts().client
    async with opened(resolver=resolver) as out:
        await connects(out.destination("anything", candidates=[(GOOD, 443)]), tls=client)
        decision = await fails(out.destination("another", candidates=[(OTHER, 443)]), tls=client)
        assert "IP address mismatch" in decision.cause
        await connects(out.srv(f"_x._tcp.{tls.NAME}"), tls=client)
        assert "Hostname mismatch" in (await fails(out.srv("_x._tcp.other.test"), tls=client)).cause
        mail = out.mx(tls.NAME, port=443)
        with pytest.raises(ValueError, match=r"say server_hostname=: MX records do not say.*STARTTLS"):
            mail.connect(tls=client)
        await connects(mail, tls=client, server_hostname=tls.NAME)


@virtual
async def test_wrong_arguments_are_refused_by_the_call_itself(net: VirtualNetwork) -> None:
    async with opened() as out:
        dest = out.destination("service", candidates=[(GOOD, 443)])
        untyped: Any = dest
        for method in (untyped.connect, untyped.try_connect):
            with pytest.raises(TypeError, match="server_hostname is for TLS"):
                method(server_hostname=tls.NAME)
            with pytest.raises(TypeError, match="tls"):
                method(tls="yes")
            with pytest.raises(ValueError, match="server"):
                method(tls=tls.contexts().server)
            with pytest.raises(ValueError, match="server_hostname must be a host name"):
                method(tls=True, server_hostname="")
    assert net.trace.connections == ()


@virtual
async def test_limits_of_candidates_and_the_word_not_now_work_over_tls(net: VirtualNetwork) -> None:
    secure(net, GOOD, OTHER)

    async def busy(stream: TlsStream) -> None:
        raise Overloaded(30.0, str(await greeting(stream), "ascii"))

    client = tls.contexts().client
    async with opened() as out:
        limited = [Candidate((GOOD, 443), rate=Rate(1, per=60.0)), Candidate((OTHER, 443), max_connections=1)]
        dest = out.destination("limited", candidates=limited)
        ends: set[str] = set()
        for _ in range(2):
            ends.add((await connects(dest, tls=client, server_hostname=tls.NAME)).candidate.endpoint.host)
        assert ends == {GOOD, OTHER}
        suspended = await fails(out.destination("busy", candidates=[(GOOD, 443)]), tls=client, establish=busy)
        assert type(suspended) is SourceSuspended
        assert "220 hello" in suspended.cause


@virtual
async def test_starttls_stays_an_establish(net: VirtualNetwork) -> None:
    async def serve(stream: Any) -> None:
        await stream.receive_some(100)
        await stream.send_all(b"220 go\r\n")
        await serve_tls(tls.contexts().server, stream)

    async def upgrade(stream: TcpStream) -> TlsStream:
        await stream.send_all(b"STARTTLS\r\n")
        await stream.receive_until(b"\r\n", 100)
        return await stream.start_tls(tls.contexts().client, server_hostname=stream.host)

    for address in (GOOD, OTHER):
        net.host(address).listen(25, serve, rtt=0.020)
    resolver = StaticResolver(
        {tls.NAME: [GOOD], "mx.test": [OTHER]},
        mx={"example.test": [MailRecord(f"{tls.NAME.upper()}.", 20), MailRecord("mx.test", 10)]},
    )
    async with opened(resolver=resolver) as out, out.mx("example.test").connect(establish=upgrade) as connection:
        assert await greeting(connection.result) == b"220 hello"
        assert connection.stream.host == connection.result.host == tls.NAME
        first, second = connection.stream.report.attempts
        assert (first.host, first.outcome, second.host, second.outcome) == ("mx.test", "failed", tls.NAME, "won")
        assert first.reason == "Hostname mismatch, certificate is not valid for 'mx.test'."


@virtual
async def test_streams_and_reports_say_for_which_host_they_are(net: VirtualNetwork) -> None:
    secure(net, GOOD)
    net.host(OTHER).refuse()
    service = f"_x._tcp.{tls.NAME}"
    resolver = StaticResolver(
        {tls.NAME: [GOOD], "a.test": [OTHER], "b.test": [OTHER, GOOD]},
        srv={service: [SrvRecord("a.test", 443, priority=1), SrvRecord("b.test", 443, priority=2)]},
        mx={tls.NAME: [MailRecord("a.test", 10)]},
    )
    client = tls.contexts().client
    seen: list[str | None] = []

    async def note(stream: TlsStream) -> None:
        seen.append(stream.host)

    async with opened(resolver=resolver) as out:
        for establish in (None, note):
            stream = (await connects(out.destination(tls.NAME, port=443), tls=client, establish=establish)).stream
            assert (stream.host, [each.host for each in stream.report.attempts]) == (tls.NAME, [tls.NAME])
            stream = (await connects(out.srv(service), tls=client, establish=establish)).stream
            # An address of two hosts is tried for the first of them.
            assert (stream.host, {each.host for each in stream.report.attempts}) == ("b.test", {"a.test", "b.test"})
            # Neither is a name.
            for address in (out.destination("listed", candidates=[(GOOD, 443)]), out.destination(GOOD, port=443)):
                stream = (await connects(address, tls=client, establish=establish)).stream
                assert (stream.host, [each.host for each in stream.report.attempts]) == (None, [None])
        assert seen == [tls.NAME, "b.test", None, None]
        with pytest.raises(DestinationFailed) as caught:
            await connects(out.mx(tls.NAME, port=443))
        assert [each.host for each in caught.value.report.attempts] == ["a.test"]
        net.host(OTHER).blackhole()
        out.mx(tls.NAME, port=443).reset()
        with pytest.raises(DeadlineExceeded) as late:
            await connects(out.mx(tls.NAME, port=443), now() + 100)
        assert late.value.report is not None
        assert [each.host for each in late.value.report.attempts] == ["a.test"]


@pytest.mark.parametrize("after", [0.010, 0.030])
@virtual
async def test_a_cancel_and_a_deadline_in_a_handshake_count_against_nobody(net: VirtualNetwork, after: float) -> None:
    net.host(GOOD).listen(443, discard, rtt=0.020)
    client = tls.contexts().client
    async with opened() as out:
        dest = out.destination("service", candidates=[(GOOD, 443)])
        before = dest.snapshot()
        with trio.move_on_after(after):
            await connects(dest, tls=client)
        assert net.open_sockets == ()
        with pytest.raises(DeadlineExceeded):
            await connects(dest, now() + round(after * 1000), tls=client)
        after_all = dest.snapshot()
        assert (after_all.failures, after_all.addresses) == (before.failures, before.addresses)
        decision = await fails(dest, tls=client)
        assert "took longer than attempt_timeout" in decision.cause or "connect_timeout" in decision.cause


@asynccontextmanager
async def tls_echo() -> AsyncGenerator[Endpoint, None]:
    async def serve(stream: TcpStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, OSError):
            secured = await stream.start_tls(tls.contexts().server, server_side=True)
            await secured.send_all(b"220 hello\r\n")
            await secured.receive_some()

    async with serving(serve) as endpoint:
        yield endpoint


async def test_cancelled_at_any_step_nothing_of_it_stays_and_nothing_is_counted() -> None:
    """Invariants 7 and 45, over TLS."""

    async def use(endpoint: Endpoint) -> None:
        async with open_outbound() as out:
            dest = out.destination("service", candidates=[endpoint])
            try:
                async with dest.connect(
                    tls=tls.contexts().client, server_hostname=tls.NAME, establish=greeting
                ) as connection:
                    assert connection.result == b"220 hello"
            finally:
                snapshot = dest.snapshot()
                assert (snapshot.state, snapshot.failures, snapshot.errors) == ("closed", 0, ())
                assert all(address.failures == 0 for address in snapshot.addresses)

    summary = await sweep(use, environment=tls_echo, modes=("before", "after"))
    assert summary.endings("before")[1]["cancelled"] == repeated(1)
    assert summary.steps > 10
