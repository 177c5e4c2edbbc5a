"""`nat64=`: IPv4 addresses from a network that has IPv6 only, by name and as literals, with DNS64 and without.

Two ways lead to such a network here. Sources that have IPv6 only leave IPv4 without a route on any network, the virtual
one included. Where the routes themselves matter a table stands in for the kernel's.

Lines are those of docs/evidence/conformance.md.
"""

from __future__ import annotations

import errno
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import IPv6Network
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any

import pytest
import trio
import trio.testing

from tests.net.racing import Recorder, Stopwatch, at, close, dead, good, rows, starts, virtual
from tests.support.sweep import share_of_modes, sweep
from trio_connect import (
    Answer,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    History,
    LookupFinished,
    LookupStarted,
    Nat64,
    NetworkFilter,
    RacePolicy,
    ResolveFailed,
    SocketOptions,
    Source,
    SrvRecord,
    StaticResolver,
    TcpStream,
    connect,
    connect_srv,
    connectx,
    now,
    resolve,
)
from trio_connect._engine.nat64 import synthesise
from trio_connect._net.names import ordering, route, through_nat64
from trio_connect.queues import open_queue_set

OWN = IPv6Network("2001:db8:64::/96")
V4, OTHER4, V6 = "192.0.2.1", "192.0.2.2", "2001:db8::1"
MADE, OTHER = synthesise(V4, OWN), synthesise(OTHER4, OWN)
KNOWN = [synthesise(ipv4, OWN) for ipv4 in ("192.0.0.170", "192.0.0.171")]
NAME = "ipv4only.arpa."
ONLY6 = [Source(ipv6="2001:db8::fe")]


def with_dns64(net: Any, *, delay: float = 0.0, aaaa: Sequence[str] = KNOWN, error: Any = None) -> None:
    """Give the network the name that tells its prefix."""
    known = ["192.0.0.170", "192.0.0.171"]
    net.dns("ipv4only.arpa", a=known, aaaa=aaaa, aaaa_delay=delay, aaaa_error=error)


def asked(report: Any) -> list[tuple[str, str]]:
    return [(lookup.kind, lookup.host) for lookup in report.lookups]


def labels(report: Any) -> dict[str, str | None]:
    return {attempt.endpoint.host: attempt.nat64 for attempt in report.attempts}


@pytest.fixture
def routed(monkeypatch) -> Callable[..., None]:
    """Make the kernel's table of routes: the families, or single addresses, to which there is one."""

    def make(*places: AddressFamily | str) -> None:
        def look_up_route(endpoint: Endpoint, _source: object = None) -> str | None:
            if endpoint.family not in places and endpoint.host not in places:
                return None
            return "192.0.2.254" if endpoint.family == AF_INET else "2001:db8::fe"

        monkeypatch.setattr(route, "look_up_route", look_up_route)
        for module in (ordering, through_nat64):
            monkeypatch.setattr(module, "kernel_knows", lambda **_: True)

    return make


class Prefixes:
    """A resolver of the prefix alone: answers after a delay, or raises."""

    def __init__(self, *found: Any, after: float = 0.0, ttl: float | None = None) -> None:
        self.answer: Any = Answer(found or KNOWN, ttl)
        self.after = after
        self.asked = 0

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        assert (host, family) == (NAME, AF_INET6)
        self.asked += 1
        await trio.sleep(self.after)
        if isinstance(self.answer, BaseException):
            raise self.answer
        assert isinstance(self.answer, Answer)
        return self.answer


# --- names ------------------------------------------------------------------------------------------------------------


@virtual
async def test_lines_3_68_and_70_a_name_with_ipv4_alone_is_reached_over_ipv6(net):
    good(net, MADE)
    net.dns("api.test", a=[V4])
    with_dns64(net)
    stream = await connect("api.test", 443, sources=ONLY6, nat64=Nat64())
    assert stream.peer.host == MADE
    assert asked(stream.report) == [("AAAA", "api.test"), ("A", "api.test"), ("AAAA", NAME)]
    assert rows(stream.report) == [(MADE, "first", 0, 20, "won")]
    assert labels(stream.report) == {MADE: V4}
    assert stream.report.attempts[0].to_dict()["nat64"] == V4
    assert f"\n{V4} b" in str(stream.report)
    assert list(net.trace.starts) == [MADE]
    stream.abort()


@virtual
async def test_line_3_without_a_nat64_a_family_that_no_source_has_is_not_asked_for(net):
    net.dns("api.test", a=[V4])
    with pytest.raises(ResolveFailed) as caught:
        await connect("api.test", 443, sources=ONLY6)
    assert asked(caught.value.report) == [("AAAA", "api.test")]


@virtual
async def test_line_3_nor_is_ipv6_where_the_sources_have_ipv4_alone(net):
    good(net, V4)
    net.dns("api.test", a=[V4], aaaa=[V6])
    stream = await connect("api.test", 443, sources=[Source(ipv4="192.0.2.254")], nat64=Nat64())
    assert asked(stream.report) == [("A", "api.test")]
    assert stream.peer.host == V4
    stream.abort()


@virtual
async def test_line_68_nobody_is_asked_where_ipv4_has_a_route(net, routed):
    routed(AF_INET, AF_INET6)
    good(net, V4)
    net.dns("api.test", a=[V4])
    stream = await connect("api.test", 443, nat64=Nat64())
    assert asked(stream.report) == [("AAAA", "api.test"), ("A", "api.test")]
    assert labels(stream.report) == {V4: None}
    stream.abort()


@virtual
async def test_line_68_nor_where_ipv6_has_none(net, routed):
    routed()
    good(net, V4)
    net.dns("api.test", a=[V4])
    stream = await connect("api.test", 443, nat64=Nat64())
    assert asked(stream.report) == [("AAAA", "api.test"), ("A", "api.test")]
    assert stream.peer.host == V4
    stream.abort()


@virtual
async def test_line_68_nor_where_there_is_no_ipv4_address(net, routed):
    routed(AF_INET6)
    good(net, V6)
    net.dns("api.test", aaaa=[V6])
    stream = await connect("api.test", 443, nat64=Nat64())
    assert asked(stream.report) == [("AAAA", "api.test"), ("A", "api.test")]
    stream.abort()


@virtual
async def test_line_68_nor_where_the_prefix_is_given(net, routed):
    routed(AF_INET6)
    good(net, MADE)
    net.dns("api.test", a=[V4])
    stream = await connect("api.test", 443, nat64=Nat64([str(OWN)]))
    assert asked(stream.report) == [("AAAA", "api.test"), ("A", "api.test")]
    assert (stream.peer.host, labels(stream.report)) == (MADE, {MADE: V4})
    stream.abort()


@virtual
async def test_line_70_the_route_of_each_address_decides(net, routed):
    routed(AF_INET6, OTHER4)
    dead(net, MADE, OTHER4)
    net.dns("api.test", a=[V4, OTHER4])
    with pytest.raises(DeadlineExceeded) as caught:
        await connect("api.test", 443, now() + 1000, nat64=Nat64([OWN]))
    assert caught.value.report is not None
    assert labels(caught.value.report) == {MADE: V4, OTHER4: None}


@virtual
async def test_line_68_what_needs_no_prefix_does_not_wait_for_it(net):
    dead(net, V6)
    good(net, MADE)
    net.dns("api.test", aaaa=[V6], a=[V4])
    with_dns64(net, delay=0.1)
    stream = await connect("api.test", 443, sources=ONLY6, nat64=Nat64())
    assert rows(stream.report) == [(V6, "first", 0, 270, "lost"), (MADE, "delay", 250, 270, "won")]
    stream.abort()


@virtual
async def test_line_69_a_host_that_has_ipv4_alone_is_tried_once_whoever_synthesised_it(net):
    dead(net, MADE)
    net.dns("api.test", aaaa=[MADE], a=[V4])
    with_dns64(net, delay=0.1)
    with pytest.raises(DeadlineExceeded) as caught:
        await connect("api.test", 443, now() + 1000, sources=ONLY6, nat64=Nat64())
    assert caught.value.report is not None
    assert starts(caught.value.report) == {MADE: 0}
    assert labels(caught.value.report) == {MADE: V4}


@virtual
async def test_line_69_what_a_dns64_has_made_takes_turns_as_ipv4(net):
    others = ["2001:db8::2", "2001:db8::3"]
    dead(net, V6, *others, MADE, OTHER)
    net.dns("api.test", aaaa=[MADE, OTHER, V6, *others], a=[V4, OTHER4])
    with pytest.raises(DeadlineExceeded) as caught:
        await connect("api.test", 443, now() + 2000, sources=ONLY6, nat64=Nat64([OWN]))
    assert caught.value.report is not None
    assert [attempt.endpoint.host for attempt in caught.value.report.attempts] == [
        V6,
        MADE,
        others[0],
        OTHER,
        others[1],
    ]


@virtual
async def test_line_69_with_a_route_to_ipv4_it_is_used_in_place_of_the_translator(net, routed):
    routed(AF_INET, AF_INET6)
    good(net, V4)
    dead(net, MADE)
    net.dns("api.test", aaaa=[MADE], a=[V4])
    stream = await connect("api.test", 443, nat64=Nat64([OWN]))
    assert rows(stream.report) == [(V4, "first", 0, 20, "won")]
    stream.abort()


@virtual
async def test_line_73_an_ipv6_address_that_is_broken_costs_one_delay_and_not_two_seconds(net):
    dead(net, V6)
    good(net, MADE)
    net.dns("api.test", aaaa=[V6], a=[V4])
    with_dns64(net)
    watch = Stopwatch()
    stream = await connect("api.test", 443, sources=ONLY6, nat64=Nat64())
    assert (watch.ms, stream.peer.host) == (270, MADE)
    stream.abort()


@virtual
async def test_no_prefix_leaves_ipv4_without_a_route(net):
    net.dns("api.test", a=[V4])
    with_dns64(net, aaaa=[])
    with pytest.raises(ConnectFailed, match="no source of its family") as of_literal:
        await connect(V4, 443, sources=ONLY6, nat64=Nat64())
    assert not isinstance(of_literal.value, ResolveFailed)
    with pytest.raises(ResolveFailed, match=r"no address to try for api\.test after") as caught:
        await connect("api.test", 443, sources=ONLY6, nat64=Nat64())
    assert asked(caught.value.report) == [("AAAA", "api.test"), ("A", "api.test"), ("AAAA", NAME)]
    assert [(each.outcome, each.reason) for each in caught.value.report.attempts] == [
        ("skipped", "no source of its family")
    ]


@virtual
async def test_an_error_of_its_lookup_is_in_the_report_and_in_the_text(net, routed):
    routed(AF_INET6)
    net.host(V4).unreachable(errno.ENETUNREACH)
    net.dns("api.test", a=[V4])
    with_dns64(net, error=socket.EAI_AGAIN)
    with pytest.raises(ConnectFailed) as caught:
        await connect("api.test", 443, nat64=Nat64())
    assert caught.value.errno == errno.ENETUNREACH
    assert caught.value.report.lookups[-1].error is not None
    assert NAME in str(caught.value)


@virtual
async def test_the_observer_is_told_of_the_lookup(net):
    good(net, MADE)
    net.dns("api.test", a=[V4])
    with_dns64(net, delay=0.1)
    recorder = Recorder()
    close(await connect("api.test", 443, sources=ONLY6, nat64=Nat64(), observer=recorder))
    assert [each.host for each in recorder.events if isinstance(each, LookupStarted)] == ["api.test", "api.test", NAME]
    finished = [each for each in recorder.events if isinstance(each, LookupFinished)]
    assert [each.lookup.host for each in finished] == ["api.test", "api.test", NAME]
    assert recorder.names[-3:] == ["AttemptStarted", "AttemptFinished", "RaceFinished"]


@virtual
async def test_a_lookup_that_is_not_needed_any_more_is_cancelled_in_the_report(net):
    good(net, V6)
    net.dns("api.test", aaaa=[V6], a=[V4])
    with_dns64(net, delay=math.inf)
    stream = await connect("api.test", 443, sources=ONLY6, nat64=Nat64())
    lookup = stream.report.lookups[-1]
    assert (lookup.host, lookup.answer, lookup.error) == (NAME, None, None)
    stream.abort()


@virtual
async def test_a_late_a_record_asks_for_the_prefix_when_it_comes(net):
    dead(net, V6)
    good(net, MADE)
    net.dns("api.test", aaaa=[V6], a=[V4], a_delay=0.4)
    with_dns64(net)
    stream = await connect("api.test", 443, sources=ONLY6, nat64=Nat64())
    assert rows(stream.report) == [(V6, "first", 0, 420, "lost"), (MADE, "arrival", 400, 420, "won")]
    stream.abort()


@virtual
async def test_several_names_and_literals_of_one_service(net):
    dead(net, MADE)
    good(net, OTHER)
    net.dns("api.test", a=[V4])
    with_dns64(net)
    stream = await connect(["api.test", OTHER4], 443, sources=ONLY6, nat64=Nat64())
    assert [(each.endpoint.host, each.host, each.nat64) for each in stream.report.attempts] == [
        (MADE, "api.test", V4), (OTHER, OTHER4, OTHER4),
    ]  # fmt: skip
    assert stream.peer.host == OTHER
    stream.abort()


@virtual
async def test_the_hosts_of_srv_records(net):
    good(net, MADE)
    resolver = StaticResolver({"a.test": [V4]}, srv={"_a._tcp.test": [SrvRecord("a.test", 443)]})
    stream = await connect_srv("_a._tcp", "test", sources=ONLY6, resolver=resolver, nat64=Nat64([OWN]))
    assert stream.peer.host == MADE
    stream.abort()


# --- literals ---------------------------------------------------------------------------------------------------------


@virtual
async def test_line_71_a_literal_is_synthesised(net, routed):
    routed(AF_INET6)
    good(net, MADE)
    with_dns64(net)
    stream = await connect(V4, 443, nat64=Nat64())
    assert asked(stream.report) == [("AAAA", NAME)]
    assert [(each.endpoint.host, each.host, each.nat64) for each in stream.report.attempts] == [(MADE, V4, V4)]
    stream.abort()


@virtual
async def test_line_71_an_endpoint_of_connectx_too_and_it_keeps_its_place(net):
    last = "2001:db8::99"
    dead(net, MADE, OTHER, V6, last)
    with_dns64(net)
    with pytest.raises(DeadlineExceeded) as caught:
        await connectx(at(V4, V6, OTHER4, last), now() + 1000, sources=ONLY6, nat64=Nat64())
    assert caught.value.report is not None
    # The first that needs no prefix is tried while that is looked up.
    assert starts(caught.value.report) == {V6: 0, MADE: 250, OTHER: 500, last: 750}
    assert labels(caught.value.report) == {V6: None, MADE: V4, OTHER: OTHER4, last: None}


@virtual
async def test_line_71_with_a_known_prefix_connectx_waits_for_nothing(net):
    dead(net, MADE)
    good(net, V6)
    stream = await connectx(at(V4, V6), sources=ONLY6, nat64=Nat64([OWN]))
    assert rows(stream.report) == [(MADE, "first", 0, 270, "lost"), (V6, "delay", 250, 270, "won")]
    assert labels(stream.report) == {MADE: V4, V6: None}
    assert stream.report.lookups == ()
    stream.abort()


@virtual
async def test_line_71_endpoints_that_come_while_the_race_runs(net):
    async def endpoints() -> AsyncIterator[tuple[str, int]]:
        yield V6, 443
        yield V4, 443
        await trio.sleep(0.3)
        yield OTHER4, 443

    dead(net, V6, MADE)
    good(net, OTHER)
    with_dns64(net, delay=0.1)
    stream = await connectx(endpoints(), sources=ONLY6, nat64=Nat64())
    assert starts(stream.report) == {V6: 0, MADE: 250, OTHER: 500}
    assert asked(stream.report) == [("AAAA", NAME)]
    stream.abort()


@pytest.mark.parametrize("ipv4", ["0.0.0.1", "127.0.0.1", "169.254.169.254", "255.255.255.255"])
@virtual
async def test_line_72_the_four_blocks_are_never_synthesised(net, routed, ipv4):
    routed(AF_INET6)
    asking = Prefixes()
    made = synthesise(ipv4, OWN)
    good(net, made)
    if ipv4 != "127.0.0.1":
        net.host(ipv4).unreachable(errno.ENETUNREACH)
    with pytest.raises(ConnectFailed):
        await connect(ipv4, 443, nat64=Nat64(resolver=asking))
    with pytest.raises(ConnectFailed):
        await connect(ipv4, 443, nat64=Nat64([OWN]))
    assert asking.asked == 0
    assert made not in net.trace.starts


@virtual
async def test_endpoints_of_a_queue(net):
    good(net, MADE)
    async with open_queue_set() as qs:
        token = qs.connectx(at(V4), sources=ONLY6, nat64=Nat64([OWN]))
        assert (await qs.wait(token)).unwrap().peer == Endpoint(MADE, 443)


# --- resolve ----------------------------------------------------------------------------------------------------------


@virtual
async def test_line_70_resolve_returns_what_connect_would_connect_to(net, routed):
    routed(AF_INET6)
    net.dns("api.test", aaaa=[V6, MADE], a=[V4, OTHER4])
    with_dns64(net)
    found = await resolve("api.test", 443, nat64=Nat64())
    assert [endpoint.host for endpoint in found] == [V6, MADE, OTHER]
    assert [endpoint.host for endpoint in await resolve(V4, 443, nat64=Nat64())] == [MADE]
    assert await resolve(V6, 443, nat64=Nat64()) == (Endpoint(V6, 443),)
    assert await resolve(V4, 443) == (Endpoint(V4, 443),)


@virtual
async def test_resolve_leaves_what_it_cannot_synthesise(net, routed):
    routed(AF_INET6)
    net.dns("api.test", a=[V4])
    with_dns64(net, aaaa=[])
    # Nothing is tried here, and a caller may know of a route.
    assert await resolve("api.test", 443, nat64=Nat64()) == (Endpoint(V4, 443),)


@virtual
async def test_resolve_reports_both_lookups_at_its_deadline(net, routed):
    routed(AF_INET6)
    net.dns("api.test", a=[V4])
    with_dns64(net, delay=math.inf)
    with pytest.raises(DeadlineExceeded) as caught:
        await resolve("api.test", 443, now() + 1000, nat64=Nat64())
    assert caught.value.report is not None
    assert asked(caught.value.report) == [("AAAA", "api.test"), ("A", "api.test"), ("AAAA", NAME)]


@virtual
async def test_an_error_that_is_none_of_a_lookup_is_raised_as_it_is(net, routed):
    routed(AF_INET6)
    net.dns("api.test", a=[V4])
    asking = Prefixes()
    asking.answer = ZeroDivisionError("of a resolver")
    nat64 = Nat64(resolver=asking)
    calls = [connect(host, 443, nat64=nat64) for host in (V4, "api.test")]
    for call in (*calls, connectx(at(V4), nat64=nat64), resolve("api.test", 443, nat64=nat64)):
        with pytest.raises(ZeroDivisionError, match="of a resolver"):
            await call


# --- the filter, TLS, history -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("denied", [V4, MADE])
@virtual
async def test_the_filter_judges_the_ipv4_address_and_what_it_becomes(net, denied):
    good(net, MADE, OTHER)
    net.dns("api.test", a=[V4, OTHER4])
    judged: list[str] = []

    def judge(endpoint: Endpoint) -> bool:
        judged.append(endpoint.host)
        return bool(endpoint.host != denied)

    stream = await connect("api.test", 443, sources=ONLY6, nat64=Nat64([OWN]), address_filter=judge)
    assert stream.peer.host == OTHER
    assert [(each.endpoint.host, each.outcome) for each in stream.report.attempts] == [
        (OTHER, "won"),
        (denied, "skipped"),
    ]
    assert len(judged) == len(set(judged))
    assert set(judged) >= {V4, OTHER4, OTHER}
    stream.abort()
    stream = await connectx(at(V4, OTHER4), sources=ONLY6, nat64=Nat64([OWN]), address_filter=judge)
    assert stream.peer.host == OTHER
    stream.abort()


@virtual
async def test_a_filter_that_knows_the_prefix_allows_it(net):
    good(net, MADE)
    allowed = NetworkFilter(allow=[V4], nat64_prefixes=[OWN])
    close(await connect(V4, 443, sources=ONLY6, nat64=Nat64([OWN]), address_filter=allowed))
    with pytest.raises(ConnectFailed) as caught:
        await connect(V4, 443, sources=ONLY6, nat64=Nat64([OWN]), address_filter=NetworkFilter(allow=[V4]))
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("host", [V4, [V4, OTHER4], "endpoints"])
@virtual
async def test_tls_verifies_the_address_that_the_caller_gave(net, monkeypatch, host):
    good(net, MADE, OTHER)
    verified: list[str | None] = []

    async def start_tls(
        _stream: TcpStream, _context: object, *, server_hostname: str | None = None, **_: object
    ) -> Any:
        verified.append(server_hostname)
        raise ssl.SSLError("no handshake here")

    monkeypatch.setattr(TcpStream, "start_tls", start_tls)
    with pytest.raises(ConnectFailed):
        if host == "endpoints":
            await connectx(at(V4), sources=ONLY6, nat64=Nat64([OWN]), tls=True)
        else:
            await connect(host, 443, sources=ONLY6, nat64=Nat64([OWN]), tls=True)
    assert verified == ([V4, OTHER4] if isinstance(host, list) else [V4])


@virtual
async def test_a_history_remembers_the_address_that_was_connected_to(net):
    net.host(MADE).refuse()
    good(net, OTHER)
    net.dns("api.test", a=[V4, OTHER4])
    history, nat64 = History(), Nat64([OWN])
    close(await connect("api.test", 443, sources=ONLY6, nat64=nat64, history=history))
    stream = await connect("api.test", 443, sources=ONLY6, nat64=nat64, history=history)
    assert [each.endpoint.host for each in stream.report.attempts] == [OTHER, MADE]
    stream.abort()


@pytest.mark.parametrize("asks_the_kernel", [False, True])
@virtual
async def test_a_proxy_needs_no_nat64(net, routed, asks_the_kernel):
    # Its packets are sent to the proxy, which may have IPv4.
    if asks_the_kernel:
        routed(AF_INET6)
    net.host("2001:db8::7").refuse()
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(V4), sources=[Source(proxy="http://[2001:db8::7]:3128")], nat64=Nat64([OWN]))
    assert labels(caught.value.report) == {V4: None}


@virtual
async def test_fast_open_to_several_literals_is_refused(net):
    with pytest.raises(ValueError, match="fast_open cannot be raced"):
        await connect([V4, OTHER4], 443, sources=ONLY6, nat64=Nat64([OWN]), options=SocketOptions(fast_open=True))
    with pytest.raises(ValueError, match="fast_open cannot be raced"):
        await connectx(at(V4, OTHER4), sources=ONLY6, nat64=Nat64([OWN]), options=SocketOptions(fast_open=True))


# --- what is remembered -----------------------------------------------------------------------------------------------


async def needs_prefix(nat64: Nat64) -> TcpStream:
    return await connect(V4, 443, sources=ONLY6, nat64=nat64)


@pytest.mark.parametrize(("ttl", "lasts"), [(None, 600), (60, 60), (1e9, 86400)])
@virtual
async def test_what_was_found_is_remembered_for_its_ttl(net, ttl, lasts):
    good(net, MADE)
    asking = Prefixes(ttl=ttl)
    nat64 = Nat64(resolver=asking)
    assert not nat64.prefixes
    close(await needs_prefix(nat64))
    found = trio.current_time() - 0.020
    assert nat64.prefixes == (OWN,)
    await trio.sleep_until(found + lasts - 0.001)
    close(await needs_prefix(nat64))
    assert asking.asked == 1
    await trio.sleep_until(found + lasts)
    assert not nat64.prefixes
    close(await needs_prefix(nat64))
    assert asking.asked == 2


@pytest.mark.parametrize(
    ("answer", "lasts"),
    [
        (Answer(), 10),
        (Answer(("2001:db8::1",), 3600), 10),
        (Answer((), 5), 5),
        (socket.gaierror(socket.EAI_AGAIN, "no"), 1),
        (ExceptionGroup("of a nursery", [OSError(errno.EIO, "no"), OSError(errno.EIO, "neither")]), 1),
    ],
)
@virtual
async def test_that_there_is_none_is_remembered_for_a_moment(net, answer, lasts):
    asking = Prefixes()
    asking.answer = answer
    nat64 = Nat64(resolver=asking)
    for _ in range(2):
        with pytest.raises(ConnectFailed):
            await needs_prefix(nat64)
    assert asking.asked == 1
    await trio.sleep(lasts)
    with pytest.raises(ConnectFailed):
        await needs_prefix(nat64)
    assert asking.asked == 2


@virtual
async def test_calls_at_one_time_share_one_question_whatever_its_ttl(net):
    good(net, MADE)
    asking = Prefixes(after=0.1, ttl=0)
    nat64 = Nat64(resolver=asking)
    streams: list[TcpStream] = []

    async def one() -> None:
        streams.append(await needs_prefix(nat64))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert (asking.asked, len(streams)) == (1, 5)
    assert all(stream.report.lookups[0].ended == 0.1 for stream in streams)
    close(*streams)
    close(await needs_prefix(nat64))
    assert asking.asked == 2


@virtual
async def test_when_the_one_who_asks_is_cancelled_another_asks_anew(net):
    good(net, MADE)
    asking = Prefixes(after=0.1, ttl=60)
    nat64 = Nat64(resolver=asking)
    close(await needs_prefix(nat64))
    await trio.sleep(60)  # that answer has expired, and counts no more
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def first() -> None:
            with scope:
                await needs_prefix(nat64)

        async def end_the_first() -> None:
            await trio.sleep(0.05)
            scope.cancel()

        nursery.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(end_the_first)
        stream = await needs_prefix(nat64)
    assert asking.asked == 3
    stream.abort()


@virtual
async def test_clear_forgets_what_was_found_and_what_is_being_asked(net):
    good(net, MADE)
    asking = Prefixes(after=0.1)
    nat64 = Nat64(resolver=asking)
    close(await needs_prefix(nat64))
    nat64.clear()
    assert not nat64.prefixes
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nat64_then_close, nat64)
        await trio.sleep(0.05)
        nat64.clear()
        await trio.sleep(0.1)
        assert not nat64.prefixes  # that answer was one of the network before
    assert asking.asked == 2


async def nat64_then_close(nat64: Nat64) -> None:
    close(await needs_prefix(nat64))


def test_what_was_found_belongs_to_one_run():
    nat64 = Nat64(resolver=Prefixes())

    @virtual
    async def one(net: Any) -> None:
        good(net, MADE)
        assert not nat64.prefixes
        close(await needs_prefix(nat64))
        assert nat64.prefixes == (OWN,)

    one()
    assert not nat64.prefixes
    nat64.clear()
    one()


# --- arguments --------------------------------------------------------------------------------------------------------


def test_what_is_given_stays():
    nat64 = Nat64(["64:ff9b::/96", OWN])
    nat64.clear()
    assert nat64.prefixes == (IPv6Network("64:ff9b::/96"), OWN)
    assert repr(nat64) == "Nat64(['64:ff9b::/96', '2001:db8:64::/96'])"
    assert repr(Nat64()) == "Nat64()"
    assert Nat64() != Nat64()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"prefixes": []}, ValueError, "prefixes has at least one"),
        ({"prefixes": ["2001:db8::/33"]}, ValueError, "a NAT64 prefix is an IPv6 network of 32, 40, 48, 56, 64 or 96"),
        ({"prefixes": ["192.0.2.0/24"]}, ValueError, "a NAT64 prefix is an IPv6 network"),
        ({"prefixes": "64:ff9b::/96"}, TypeError, "prefixes must be an iterable of networks"),
        ({"prefixes": IPv6Network("64:ff9b::/112")}, TypeError, "prefixes must be an iterable of networks"),
        ({"prefixes": [1.5]}, TypeError, "prefixes takes networks"),
        ({"prefixes": ["64:ff9b::/96"], "resolver": Prefixes()}, ValueError, "nobody is asked"),
        ({"resolver": 1}, TypeError, "resolver must have an async method"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        Nat64(**arguments)


@virtual
async def test_a_nat64_that_is_none_is_refused_before_anything_is_asked(net):
    bad: Any = "64:ff9b::/96"
    for call in (connect("api.test", 443, nat64=bad), connectx(at(V4), nat64=bad), resolve("api.test", 443, nat64=bad)):
        with pytest.raises(TypeError, match="nat64 must be a Nat64 or None, got '64:ff9b::/96'"):
            await call
    with pytest.raises(ValueError, match="at least one endpoint"):
        await connectx([], nat64=Nat64())
    async with open_queue_set() as qs:
        with pytest.raises(TypeError, match="nat64 must be a Nat64 or None"):
            qs.connectx(at(V4), nat64=bad)


# --- cancellation -----------------------------------------------------------------------------------------------------


PATHS = ["name", "literal", "endpoints", "resolve"]
ANSWERS = ["at once", "late", "none"]


@pytest.mark.parametrize("what", PATHS)
@pytest.mark.parametrize("asking", ANSWERS)
async def test_line_77_a_cancel_at_any_step_leaves_nothing(what, asking, routed, autojump_clock, monkeypatch):
    routed(AF_INET6)
    # What is synthesised has to lead somewhere here: the loopback of IPv6.
    monkeypatch.setattr("trio_connect._engine.nat64.synthesise", lambda _address, _prefix: "::1")
    resolver = StaticResolver({"api.test": [V4]})

    def prefixes() -> Nat64:
        answers = {"at once": Prefixes(), "late": Prefixes(after=0.01), "none": Prefixes("2001:db8::1")}
        return Nat64(resolver=answers[asking])

    async def operation(port: int) -> TcpStream | None:
        policy = RacePolicy(attempt_delay=0.010)
        if what == "resolve":
            await resolve("api.test", port, resolver=resolver, nat64=prefixes())
            return None
        if what == "endpoints":
            return await connectx(at(V4, port=port), nat64=prefixes(), policy=policy)
        return await connect(
            "api.test" if what == "name" else V4, port, resolver=resolver, nat64=prefixes(), policy=policy
        )

    with socket.create_server(("::1", 0), family=AF_INET6) as listener:
        port = listener.getsockname()[1]

        async def bound() -> TcpStream | None:
            return await operation(port)

        modes = share_of_modes(PATHS.index(what), ANSWERS.index(asking))
        await sweep(bound, modes=modes, raises=(ConnectFailed,), quiet=0.015)
