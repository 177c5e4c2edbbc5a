"""`connect_srv`: from SRV records to a connection, in virtual time; TLS on loopback."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from random import Random
from socket import AF_INET6, AddressFamily
from typing import Any

import pytest
import trio

from tests.net.racing import Recorder, dead, good, ms, outcomes, virtual, winner
from tests.support import tls
from tests.support.dnsserver import Server, VirtualDns, fault
from tests.support.sweep import sweep
from trio_connect import (
    Answer,
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    DnsResolver,
    LookupFinished,
    LookupStarted,
    NetworkFilter,
    ResolveFailed,
    Source,
    SrvRecord,
    StaticResolver,
    TcpStream,
    connect_srv,
    now,
    tcp_listen,
)
from trio_connect._net.names.resolve import encoded

XMPP = "_xmpp-client._tcp"
QUESTION = f"{XMPP}.example.test"
ONE, ONE4, TWO = "2001:db8::1", "192.0.2.1", "2001:db8::2"
HOSTS = {"one.test": [ONE, ONE4], "two.test": [TWO], "example.test": [TWO]}
RECORDS = [SrvRecord("two.test", 5222, 20), SrvRecord("one.test.", 5223, 10)]


def static(*records: SrvRecord, hosts: Any = HOSTS) -> StaticResolver:
    return StaticResolver(hosts, srv={QUESTION: records})


async def reported(resolver: Any, **kwargs: Any) -> ConnectReport:
    stream: TcpStream = await connect_srv(XMPP, "example.test", resolver=resolver, **kwargs)
    stream.abort()
    return stream.report


@virtual
async def test_hosts_are_tried_by_priority_and_the_report_has_every_lookup(net):
    dead(net, ONE, ONE4)
    good(net, TWO, port=5222)
    report = await reported(static(*RECORDS))
    assert [(a.host, str(a.endpoint), ms(a.started)) for a in report.attempts] == [
        ("one.test.", f"[{ONE}]:5223", 0), ("one.test.", f"{ONE4}:5223", 250), ("two.test.", f"[{TWO}]:5222", 500),
    ]  # fmt: skip
    assert [(lookup.host, lookup.kind) for lookup in report.lookups] == [
        (QUESTION, "SRV"), ("one.test.", "AAAA"), ("one.test.", "A"), ("two.test.", "AAAA"), ("two.test.", "A"),
    ]  # fmt: skip
    assert report.lookups[0].records == tuple(RECORDS)
    assert report.lookups[0].to_dict()["records"][0] == {
        "target": "two.test", "port": 5222, "priority": 20, "weight": 0, "ttl": None,
    }  # fmt: skip


class FromNursery:
    """Asks several servers from a nursery, which wraps what they say in a group; ``seconds`` is how long they take."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def srv(self, _name: str, /) -> Sequence[SrvRecord]:
        async def ask() -> None:
            try:
                await trio.sleep(self.seconds)
            finally:
                raise OSError(errno.EIO, "no server")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(trio.sleep_forever)
        return []

    async def addresses(self, _host: str, _family: AddressFamily, /) -> Answer:
        raise AssertionError


@virtual
async def test_a_group_of_what_servers_say_is_the_failure_of_the_lookup(net):
    with pytest.raises(ResolveFailed, match="no server") as caught:
        await connect_srv(XMPP, "example.test", resolver=FromNursery(0.01))
    assert caught.value.errno == errno.EIO
    with pytest.raises(DeadlineExceeded):
        await connect_srv(XMPP, "example.test", now() + 20, resolver=FromNursery(1.0))
    with trio.move_on_after(0.020) as scope:
        await connect_srv(XMPP, "example.test", resolver=FromNursery(1.0))
    assert scope.cancelled_caught


@virtual
async def test_the_callers_generator_draws_among_equal_priorities(net):
    good(net, ONE, TWO, port=5222)
    records = [SrvRecord("one.test", 5222, 0, 1), SrvRecord("two.test", 5222, 0, 3)]

    async def first(seed: int) -> str:
        report = await reported(static(*records), random=Random(seed))
        return str(winner(report).endpoint.host)

    drawn = [await first(seed) for seed in range(60)]
    assert 30 < drawn.count(TWO) < 57
    assert drawn == [await first(seed) for seed in range(60)]


@virtual
async def test_a_dot_says_that_the_service_is_not_there(net):
    with pytest.raises(ResolveFailed) as caught:
        await reported(static(SrvRecord(".", 0)), port=5222)
    assert f"{QUESTION}" in str(caught.value)
    assert "not offered there (target '.', RFC 2782)" in str(caught.value)


@virtual
async def test_without_records_the_domain_itself_is_tried_only_where_a_port_is_given(net):
    good(net, TWO, port=5222)
    report = await reported(static(), port=5222)
    assert [str(a.endpoint) for a in report.attempts] == [f"[{TWO}]:5222"]
    with pytest.raises(ResolveFailed, match="SRV: no record"):
        await reported(static())


@virtual
async def test_an_error_is_no_reason_to_try_the_domain_itself(net):
    good(net, TWO, port=5222)
    zone = {f"{QUESTION} SRV": fault(rcode="SERVFAIL"), "example.test AAAA": [TWO]}
    dns = VirtualDns({"192.0.2.53": Server(zone)})
    with dns.installed(), pytest.raises(ResolveFailed, match="SERVFAIL") as caught:
        await reported(DnsResolver(["192.0.2.53"]), port=5222)
    assert caught.value.errno == socket.EAI_AGAIN


@virtual
async def test_records_that_lead_nowhere_are_left_out(net):
    good(net, TWO, port=5222)
    odd = [SrvRecord("not a name", 5222), SrvRecord("192.0.2.9", 5222), SrvRecord("one.test", 0)]
    report = await reported(static(*odd, SrvRecord("two.test", 5222)))
    assert [str(a.endpoint) for a in report.attempts] == [f"[{TWO}]:5222"]
    with pytest.raises(ResolveFailed):
        await reported(static(*odd))


@virtual
async def test_by_dns_with_every_option_of_a_race(net):
    good(net, TWO, port=5222)
    zone = {
        f"{QUESTION} SRV": ["10 0 5222 one.test.", "20 0 5222 two.test."],
        "one.test AAAA": [ONE], "two.test AAAA": [TWO],
    }  # fmt: skip
    recorder = Recorder()
    with VirtualDns({"192.0.2.53": Server(zone)}).installed():
        report = await reported(
            DnsResolver(["192.0.2.53"]),
            address_filter=NetworkFilter(deny=[ONE]),
            observer=recorder,
            sources=[Source(ipv6="2001:db8::fe")],
            establish=establish,
        )
    assert outcomes(report) == ["won", "skipped"]
    started = [event.kind for event in recorder.events if isinstance(event, LookupStarted)]
    assert started == ["SRV", "AAAA", "AAAA"]
    assert sum(isinstance(event, LookupFinished) for event in recorder.events) == 3


async def establish(stream: TcpStream) -> None:
    await trio.lowlevel.checkpoint()


class Slow:
    """Takes a second for the records."""

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer([ONE] if family == AF_INET6 else [])

    async def srv(self, name: str, /) -> Sequence[SrvRecord]:
        await trio.sleep(1)
        return [SrvRecord("one.test", 5222)]


@virtual
async def test_the_deadline_is_for_lookups_and_race_together(net):
    good(net, ONE, port=5222)
    with pytest.raises(DeadlineExceeded) as caught:
        await connect_srv(XMPP, "example.test", now() + 500, resolver=Slow())
    report = caught.value.report
    assert report is not None
    assert [(lookup.kind, lookup.records, ms(lookup.ended)) for lookup in report.lookups] == [("SRV", None, 500)]
    stream = await connect_srv(XMPP, "example.test", now() + 1100, resolver=Slow())
    assert (ms(winner(stream.report).started), ms(stream.report.elapsed)) == (1000, 1020)
    stream.abort()


@virtual
async def test_a_resolver_that_breaks_its_word_ends_the_connect(net):
    class Wrong(Slow):
        async def srv(self, name, /):
            await trio.lowlevel.checkpoint()
            return [3]

    with pytest.raises(TypeError, match="returns a sequence of SrvRecord, got 3 in it"):
        await reported(Wrong())


async def test_tls_verifies_the_domain_and_not_the_host_of_the_record():
    contexts = tls.contexts()

    async def greet(stream: TcpStream) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            async with await stream.start_tls(contexts.server, server_side=True):
                pass

    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, greet, [listener])
        to_here = [SrvRecord(tls.NAME, listener.endpoint.port)]
        resolver = StaticResolver(
            {tls.NAME: "127.0.0.1"}, srv={f"{XMPP}.{tls.NAME}": to_here, f"{XMPP}.other.test": to_here}
        )
        async with await connect_srv(XMPP, tls.NAME, now() + 20_000, resolver=resolver, tls=contexts.client) as stream:
            assert stream.version is not None
        with pytest.raises(ConnectFailed, match="Hostname mismatch"):
            await connect_srv(XMPP, "other.test", now() + 20_000, resolver=resolver, tls=contexts.client)
        async with await connect_srv(
            XMPP, "other.test", now() + 20_000, resolver=resolver, tls=contexts.client, server_hostname=tls.NAME
        ):
            pass
        nursery.cancel_scope.cancel()


@virtual
async def test_a_domain_beyond_ascii(net):
    """Underscores are no part of what IDNA encodes; the rest of the question is."""
    good(net, ONE)
    asked: list[str] = []

    class Noting:
        srv_of = StaticResolver({}, srv={f"{XMPP}.b\u00fccher.test": [SrvRecord("one.test", 443)]})

        async def srv(self, name: str) -> Any:
            asked.append(name)
            return await self.srv_of.srv(name)

        async def addresses(self, host: str, family: AddressFamily) -> Answer:
            return await StaticResolver(HOSTS).addresses(host, family)

    (await connect_srv(XMPP, "b\u00fccher.test", resolver=Noting())).abort()
    assert asked == [f"{XMPP}.b\u00fccher.test"]
    assert encoded(asked[0]) == b"_xmpp-client._tcp.xn--bcher-kva.test"
    with pytest.raises(ValueError, match="IDNA 2008"):
        await connect_srv(XMPP, "b_\u00fccher.test", resolver=Noting())


@pytest.mark.parametrize(
    ("arguments", "kwargs", "error", "match"),
    [
        ((3, "a.test"), {}, TypeError, "service and name are str, got 3"),
        ((XMPP, None), {}, TypeError, "service and name are str, got None"),
        (("xmpp", "a.test"), {}, ValueError, "its name and its protocol"),
        (("_xmpp", "a.test"), {}, ValueError, "its name and its protocol"),
        (("_xmpp._", "a.test"), {}, ValueError, "its name and its protocol"),
        ((XMPP, "192.0.2.1"), {}, ValueError, "an address has no SRV records"),
        ((XMPP, ""), {}, ValueError, "no host"),
        ((XMPP, "a" * 63 + ".test" * 40), {}, ValueError, "at most 253 bytes"),
        ((XMPP, "a.test"), {"port": 0}, ValueError, "port 0"),
        ((XMPP, "a.test"), {"resolver": object()}, TypeError, r"async method srv\(name\)"),
        ((XMPP, "a.test"), {"random": 3}, TypeError, "random must be"),
        ((XMPP, "a.test"), {"server_hostname": "b.test"}, TypeError, "server_hostname is for TLS"),
        ((XMPP, "a.test"), {"sources": [Source(proxy="http://192.0.2.9:1")]}, ValueError, "through no proxy"),
        ((XMPP, "a.test", -2), {}, ValueError, "deadline"),
    ],
)
async def test_bad_arguments(arguments, kwargs, error, match):
    with pytest.raises(error, match=match):
        await connect_srv(*arguments, **{"resolver": static(), **kwargs})


async def test_without_a_resolver_such_calls_share_one(monkeypatch):
    from trio_connect._net.names.dns import default_dns_resolver

    assert default_dns_resolver() is default_dns_resolver()
    asked = []

    async def srv(self, name, /):
        asked.append((self, name))
        await trio.lowlevel.checkpoint()
        return []

    monkeypatch.setattr(DnsResolver, "srv", srv)
    with pytest.raises(ResolveFailed):
        await connect_srv(XMPP, "example.test")
    assert asked == [(default_dns_resolver(), QUESTION)]


async def test_line_77_a_cancel_at_any_step_leaves_nothing():
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        resolver = StaticResolver(
            {"one.test": "127.0.0.1"}, srv={QUESTION: [SrvRecord("one.test", listener.endpoint.port)]}
        )
        summary = await sweep(lambda: connect_srv(XMPP, "example.test", resolver=resolver), inside=False)
    assert summary.steps >= 3
