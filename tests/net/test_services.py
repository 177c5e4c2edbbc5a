"""`connect` with service records: hints, targets, ports, aliases and groups, in virtual time."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, EAI_AGAIN, AddressFamily, gaierror
from typing import Any

import pytest
import trio

from tests.net.racing import Recorder, dead, good, ms, outcomes, starts, virtual, winner
from tests.support import tls
from tests.support.dnsserver import Server, VirtualDns, fault
from tests.support.sweep import sweep
from trio_connect import (
    Answer,
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    DnsResolver,
    Endpoint,
    LookupStarted,
    NetworkFilter,
    RacePolicy,
    ResolveFailed,
    ServiceRecord,
    ServiceResolver,
    Source,
    StaticResolver,
    TcpStream,
    connect,
    now,
    tcp_listen,
)
from trio_connect._net.names.resolve import as_service_resolver

V6, V4 = "2001:db8::1", "192.0.2.1"
ALT6, ALT4 = "2001:db8::a", "192.0.2.10"
AGAIN = gaierror(EAI_AGAIN, "Temporary failure in name resolution")
NS = "192.0.2.53"


def record(priority: int = 1, target: str = "alt.test", **kwargs: Any) -> ServiceRecord:
    return ServiceRecord(priority=priority, target=target, **kwargs)


class Zone:
    """Answers from a dict of "host KIND" to (delay, answer); what it does not have is empty at once."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {key.replace("_", ".").replace("..", " "): value for key, value in answers.items()}
        self.asked: list[str] = []
        self.ports: list[int] = []

    async def answer(self, host: str, kind: str) -> Any:
        self.asked.append(f"{host} {kind}")
        delay, found = self.answers.get(f"{host.removesuffix('.')} {kind}", (0.0, ()))
        await trio.sleep(delay)
        if isinstance(found, BaseException):
            raise found
        return found

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        return Answer(await self.answer(host, "AAAA" if family == AF_INET6 else "A"))

    async def services(self, host: str, port: int, /) -> Sequence[ServiceRecord]:
        self.ports.append(port)
        found: Sequence[ServiceRecord] = await self.answer(host, "HTTPS")
        return found


def zone(*, https: Any = (0.0, ()), aaaa: Any = (0.0, ()), a: Any = (0.0, ()), **more: Any) -> Zone:
    """Of api.test; others by keywords as in ``alt_test__AAAA``."""
    return Zone(api_test__HTTPS=https, api_test__AAAA=aaaa, api_test__A=a, **more)


def tried(report: ConnectReport) -> list[tuple[str, float | None]]:
    return [(str(a.endpoint), ms(a.started)) for a in report.attempts if a.outcome not in ("skipped", "not tried")]


async def reported(resolver: Any, **kwargs: Any) -> ConnectReport:
    """The report of a connect to api.test, port 443."""
    stream: TcpStream = await connect("api.test", 443, resolver=resolver, **kwargs)
    stream.abort()
    return stream.report


# --- the questions and the gate ---------------------------------------------------------------------------------------


@virtual
async def test_lines_4_and_5_services_are_asked_for_first_and_all_in_one_instant(net):
    good(net, V6)
    resolver = zone()
    for _ in range(10):  # the loop runs the tasks of one pass in any order
        resolver = zone(https=(0.1, ()), aaaa=(0.1, [V6]), a=(0.1, [V4]))
        recorder = Recorder()
        report = await reported(resolver, observer=recorder)
        assert resolver.asked == ["api.test HTTPS", "api.test AAAA", "api.test A"]
        assert [(lookup.kind, lookup.started) for lookup in report.lookups] == [("HTTPS", 0), ("AAAA", 0), ("A", 0)]
        told = [event.kind for event in recorder.events if isinstance(event, LookupStarted)]
        assert told == ["HTTPS", "AAAA", "A"]
    assert resolver.ports == [443]


@virtual
async def test_line_4_a_resolver_that_offers_no_services_is_not_asked(net):
    good(net, V4)
    for resolver in (StaticResolver({"api.test": V4}), NoServices()):
        report = await reported(resolver)
        assert [lookup.kind for lookup in report.lookups] == ["AAAA", "A"]


class NoServices:
    """Python's sign for a method that is not offered."""

    services = None

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer([V4] if family == AF_INET else ())


def test_line_4_what_offers_services():
    assert isinstance(zone(), ServiceResolver)
    assert not isinstance(NoServices(), ServiceResolver)
    assert not isinstance(StaticResolver({}), ServiceResolver)
    assert as_service_resolver(DnsResolver([NS])) is None
    assert as_service_resolver(DnsResolver([NS], services="https")) is not None


@virtual
async def test_line_8_aaaa_and_services_start_at_once_while_a_is_pending(net):
    good(net, V6)
    report = await reported(zone(https=(0.01, ()), aaaa=(0.02, [V6]), a=(1.0, [V4])))
    assert tried(report) == [(f"[{V6}]:443", 20)]


@virtual
async def test_line_9_a_first_and_aaaa_at_10_ms(net):
    good(net, V6, V4)
    report = await reported(zone(aaaa=(0.01, [V6]), a=(0.0, [V4])))
    assert tried(report) == [(f"[{V6}]:443", 10)]


@virtual
async def test_line_10_a_first_and_aaaa_at_150_ms(net):
    dead(net, V4)
    good(net, V6)
    report = await reported(zone(aaaa=(0.15, [V6]), a=(0.0, [V4])))
    assert tried(report) == [(f"{V4}:443", 50), (f"[{V6}]:443", 300)]


@pytest.mark.parametrize("found", [(), AGAIN, [record(1, ".")]], ids=["none", "error", "own"])
@virtual
async def test_line_11_addresses_are_complete_and_https_comes_at_10_ms(net, found):
    good(net, V6)
    report = await reported(zone(https=(0.01, found), aaaa=(0.0, [V6]), a=(0.0, [V4])))
    assert tried(report) == [(f"[{V6}]:443", 10)]


@virtual
async def test_line_12_https_never_comes(net):
    good(net, V6)
    report = await reported(zone(https=(1e6, ()), aaaa=(0.0, [V6]), a=(0.0, [V4])))
    assert tried(report) == [(f"[{V6}]:443", 50)]
    assert (report.lookups[0].kind, report.lookups[0].records) == ("HTTPS", None)


@virtual
async def test_lines_13_and_14_hints_alone_start_at_once_and_the_addresses_are_still_asked_for(net):
    good(net, V6)
    https = [record(1, ".", ipv6hint=[V6], ipv4hint=[V4])]
    resolver = zone(https=(0.0, https), aaaa=(1.0, [V6]), a=(1.0, [V4]))
    report = await reported(resolver)
    assert tried(report) == [(f"[{V6}]:443", 0)]
    more: Any = {"alt_test__AAAA": (1.0, ()), "alt_test__A": (1.0, ())}
    resolver = zone(https=(0.0, [record(ipv6hint=[ALT6])]), aaaa=(1.0, ()), a=(1.0, ()), **more)
    good(net, ALT6)
    report = await reported(resolver)
    assert tried(report) == [(f"[{ALT6}]:443", 0)]
    assert {"alt.test AAAA", "alt.test A"} <= set(resolver.asked)
    assert winner(report).host == "api.test"


@virtual
async def test_line_13_a_hint_of_ipv4_alone_waits_for_aaaa(net):
    good(net, V4)
    report = await reported(zone(https=(0.0, [record(1, ".", ipv4hint=[V4])]), aaaa=(1.0, [V6]), a=(1.0, [V4])))
    assert tried(report) == [(f"{V4}:443", 50)]


@virtual
async def test_lines_15_and_65_real_records_replace_hints_that_have_not_been_tried(net):
    dead(net, V6)
    good(net, V4)
    https = [record(1, ".", ipv6hint=[V6, ALT6], ipv4hint=[ALT4])]
    report = await reported(zone(https=(0.0, https), aaaa=(0.1, [V6]), a=(0.1, [V4])))
    assert tried(report) == [(f"[{V6}]:443", 0), (f"{V4}:443", 250)]
    gone = {str(a.endpoint): a.reason for a in report.attempts if a.outcome == "skipped"}
    assert gone == dict.fromkeys([f"{ALT4}:443", f"[{ALT6}]:443"], "not in the answer that came later")


@virtual
async def test_line_64_a_hint_that_real_records_lack_goes_on_when_it_has_been_tried(net):
    good(net, V6, rtt=0.2)
    https = [record(1, ".", ipv6hint=[V6])]
    report = await reported(zone(https=(0.0, https), aaaa=(0.1, [ALT6]), a=(0.1, ())))
    assert winner(report).endpoint == Endpoint(V6, 443)


@virtual
async def test_an_address_that_was_taken_back_may_come_again_as_the_authoritys_own(net):
    dead(net, ALT6)
    good(net, V4)
    https = [record(1, ipv4hint=[V4], ipv6hint=[ALT6])]
    more: Any = {"alt_test__A": (0.05, ["192.0.2.11"]), "alt_test__AAAA": (0.05, [ALT6])}
    net.host("192.0.2.11").refuse()
    report = await reported(zone(https=(0.0, https), aaaa=(0.0, ()), a=(0.1, [V4]), **more))
    assert [endpoint for endpoint, _ in tried(report)] == [f"[{ALT6}]:443", "192.0.2.11:443", f"{V4}:443"]
    assert outcomes(report) == ["lost", "failed", "won"]


@virtual
async def test_line_16_the_race_begins_while_the_addresses_of_another_service_are_asked_for(net):
    dead(net, V6)
    good(net, ALT6)
    https = [record(1), record(2, ".")]
    more: Any = {"alt_test__AAAA": (0.1, [ALT6]), "alt_test__A": (0.1, ())}
    report = await reported(zone(https=(0.0, https), aaaa=(0.0, [V6]), a=(0.0, ()), **more))
    assert tried(report) == [(f"[{V6}]:443", 0), (f"[{ALT6}]:443", 250)]


@virtual
async def test_line_17_a_source_of_ipv4_only_asks_for_no_aaaa_of_anybody(net):
    good(net, ALT4)
    more: Any = {"alt_test__A": (1.0, [ALT4])}
    resolver = zone(https=(0.01, [record(ipv6hint=[ALT6], ipv4hint=[ALT4])]), a=(0.0, [V4]), **more)
    report = await reported(resolver, sources=[Source(ipv4="192.0.2.254")])
    assert tried(report) == [(f"{ALT4}:443", 10)]
    assert resolver.asked == ["api.test HTTPS", "api.test A", "alt.test A"]


@virtual
async def test_line_18_an_alias_is_followed_and_does_not_open_the_gate(net):
    good(net, ALT6, port=8443)
    more: Any = {
        "cdn_test__HTTPS": (0.01, [record(1, ".", port=8443)]),
        "cdn_test__AAAA": (0.01, [ALT6]),
        "cdn_test__A": (0.01, ()),
    }
    resolver = zone(https=(0.01, [record(0, "cdn.test.")]), aaaa=(0.0, [V6]), a=(0.0, [V4]), **more)
    report = await reported(resolver)
    assert tried(report) == [(f"[{ALT6}]:8443", 20)]
    assert resolver.asked[3:] == ["cdn.test. HTTPS", "cdn.test. AAAA", "cdn.test. A"]
    assert resolver.ports == [443, 0]


@virtual
async def test_line_18_aliases_end_after_eight_and_the_authority_is_tried(net):
    good(net, V6)
    more: Any = {f"c{i}_test__HTTPS": (0.0, [record(0, f"c{i + 1}.test")]) for i in range(20)}
    resolver = zone(https=(0.0, [record(0, "c0.test")]), aaaa=(0.0, [V6]), **more)
    report = await reported(resolver)
    assert tried(report) == [(f"[{V6}]:443", 0)]
    assert sum(question.endswith("HTTPS") for question in resolver.asked) == 9


@virtual
async def test_the_last_alias_stands_for_the_authority_at_its_port(net):
    dead(net, V6)
    good(net, ALT6)
    more: Any = {"cdn_test__AAAA": (0.0, [ALT6])}
    report = await reported(zone(https=(0.0, [record(0, "cdn.test")]), aaaa=(0.0, [V6]), **more))
    assert tried(report) == [(f"[{ALT6}]:443", 0)]
    assert str(report.attempts[1].endpoint) == f"[{V6}]:443"


# --- groups -----------------------------------------------------------------------------------------------------------


@virtual
async def test_lines_28_30_and_54_groups_go_by_priority_and_the_authority_is_last(net):
    dead(net, "2001:db8::b1", "192.0.2.21", "2001:db8::c1", V4)
    good(net, V6)
    https = [record(20, "c.test"), record(10, "b.test", port=8443)]
    more: Any = {
        "b_test__AAAA": (0.0, ["2001:db8::b1"]),
        "b_test__A": (0.0, ["192.0.2.21"]),
        "c_test__AAAA": (0.0, ["2001:db8::c1"]),
    }
    report = await reported(zone(https=(0.0, https), aaaa=(0.0, [V6]), a=(0.0, [V4]), **more))
    assert tried(report) == [
        ("[2001:db8::b1]:8443", 0), ("192.0.2.21:8443", 250), ("[2001:db8::c1]:443", 500), (f"[{V6}]:443", 750),
    ]  # fmt: skip


@virtual
async def test_two_records_with_two_ports_are_two_endpoints_of_one_host(net):
    good(net, V6, port=8443)
    net.host(V6).listen(9443, lambda stream: stream.aclose(), rtt=0.02)
    https = [record(1, ".", port=9443), record(2, ".", port=8443)]

    async def of_8443(stream: TcpStream) -> None:
        if stream.peer.port != 8443:
            raise OSError(errno.EPROTO, "not this one")

    resolver = zone(https=(0.0, https), aaaa=(0.0, [V6]))
    report = await reported(resolver, establish=of_8443)
    assert [a.endpoint.port for a in report.attempts] == [9443, 8443, 443]
    assert outcomes(report) == ["failed", "won", "not tried"]
    assert resolver.asked == ["api.test HTTPS", "api.test AAAA", "api.test A"]


@virtual
async def test_when_every_service_fails_the_authority_is_tried_at_its_own_port(net):
    net.host(ALT6).refuse()
    good(net, V4)
    https = [record(1, port=8443, ipv6hint=[ALT6]), record(2, "nowhere.test")]
    more: Any = {"alt_test__AAAA": (0.0, [ALT6]), "nowhere_test__AAAA": (0.0, AGAIN)}
    report = await reported(zone(https=(0.0, https), a=(0.0, [V4]), **more))
    assert [endpoint for endpoint, _ in tried(report)] == [f"[{ALT6}]:8443", f"{V4}:443"]


@virtual
async def test_line_61_records_that_demand_more_than_is_understood_lead_nowhere(net):
    good(net, V6)
    https = [record(1, mandatory=["key667"], ipv6hint=[ALT6]), record(2, "not a name", ipv6hint=[ALT6])]
    resolver = zone(https=(0.0, https), aaaa=(0.0, [V6]))
    report = await reported(resolver)
    assert [str(a.endpoint) for a in report.attempts] == [f"[{V6}]:443"]
    assert len(resolver.asked) == 3


@virtual
async def test_the_filter_is_asked_for_hints_and_targets(net):
    good(net, V6)
    https = [record(1, ipv6hint=["2001:db8::bad"])]
    more: Any = {"alt_test__AAAA": (0.0, ["2001:db8::bad:1"])}
    asked: list[str] = []

    def judge(endpoint: Endpoint) -> bool:
        asked.append(endpoint.host)
        return ":bad" not in endpoint.host

    report = await reported(zone(https=(0.0, https), aaaa=(0.0, [V6]), **more), address_filter=judge)
    assert tried(report) == [(f"[{V6}]:443", 0)]
    assert sorted(asked) == ["2001:db8::1", "2001:db8::bad:1"] or sorted(asked) == [
        "2001:db8::1", "2001:db8::bad", "2001:db8::bad:1",
    ]  # fmt: skip
    resolver = zone(https=(0.0, [record(1, ".", ipv6hint=[V6])]), aaaa=(1.0, [V6]))
    with pytest.raises(ConnectFailed) as caught:
        await reported(resolver, address_filter=NetworkFilter(deny=["2001:db8::/32"]))
    assert caught.value.errno == errno.EACCES


BAD6, BAD4 = "2001:db8:bad::1", "192.0.2.200"
# The names of these lead to an internal address by one way each; what comes late is there for who waits for it.
DETOURS: dict[str, dict[str, Any]] = {
    "hint": {"https": (0.0, [record(1, ipv6hint=[BAD6])]), "alt_test__AAAA": (0.5, [BAD6])},
    "IPv4 hint": {"https": (0.0, [record(1, ipv4hint=[BAD4])]), "alt_test__A": (0.5, [BAD4])},
    "hint alone": {"https": (0.0, [record(1, ipv6hint=[BAD6])]), "alt_test__AAAA": (5.0, ())},
    "hint of the authority": {"https": (0.0, [record(1, ".", ipv6hint=[BAD6])]), "aaaa": (0.5, [BAD6])},
    "target": {"https": (0.0, [record(1)]), "alt_test__AAAA": (0.0, [BAD6])},
    "late target": {"https": (0.0, [record(1)]), "alt_test__AAAA": (0.5, [BAD6]), "alt_test__A": (0.0, [BAD4])},
    "alias": {"https": (0.0, [record(0)]), "alt_test__AAAA": (0.0, [BAD6])},
    "target of an alias": {
        "https": (0.0, [record(0)]), "alt_test__HTTPS": (0.0, [record(1, "far.test")]), "far_test__A": (0.0, [BAD4]),
    },
    "mapped hint": {"https": (0.0, [record(1, ipv6hint=[f"::ffff:{BAD4}"])]), "alt_test__AAAA": (0.5, ())},
}  # fmt: skip


@pytest.mark.parametrize("detour", DETOURS)
@virtual
async def test_no_detour_by_service_records_gets_past_the_filter(net, detour: str):
    good(net, BAD6, BAD4)
    internal = NetworkFilter(deny=["2001:db8:bad::/48", "192.0.2.128/25"])
    with pytest.raises((ConnectFailed, DeadlineExceeded)) as caught:
        await connect("api.test", 443, now() + 2_000, resolver=zone(**DETOURS[detour]), address_filter=internal)
    report: Any = getattr(caught.value, "report", None)
    assert report.tried == ()
    assert net.trace.connections == ()
    refused = [a.endpoint.host.removeprefix("::ffff:") for a in report.attempts if a.outcome == "skipped"]
    assert refused
    assert set(refused) <= {BAD6, BAD4}
    # Without a filter that is where it leads.
    report = await reported(zone(**DETOURS[detour]))
    assert winner(report).endpoint.host.removeprefix("::ffff:") in (BAD6, BAD4)


# --- what goes wrong --------------------------------------------------------------------------------------------------


@virtual
async def test_line_20_all_negative_names_each_question(net):
    with pytest.raises(ResolveFailed) as caught:
        await reported(zone(https=(0.0, AGAIN)))
    assert "HTTPS: [Errno -3] Temporary failure in name resolution" in str(caught.value)
    with pytest.raises(ResolveFailed) as caught:
        await reported(zone())
    assert "HTTPS: no record, AAAA: no address, A: no address" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [([3], TypeError), (3, TypeError), ([record(ipv4hint=["no"])], ValueError), (KeyError("bug"), KeyError)],
)
@virtual
async def test_a_resolver_that_breaks_its_word_ends_the_connect(net, answer, error):
    resolver = zone(https=(0.0, answer), aaaa=(0.1, [V6]))
    with pytest.raises(error):
        await reported(resolver)


@virtual
async def test_several_names_have_their_own_services_by_port(net):
    net.host(V6).refuse()
    good(net, ALT6, port=9443)
    https = [record(1, ".")]
    resolver = zone(
        https=(0.0, https), aaaa=(0.0, [V6]), b_test__HTTPS=(0.0, [record(1, port=9443)]), alt_test__AAAA=(0.0, [ALT6])
    )
    stream = await connect(["api.test", ("api.test", 444), ("b.test", 445)], 443, resolver=resolver)
    stream.abort()
    assert winner(stream.report).host == "b.test"
    assert [(a.host, str(a.endpoint)) for a in stream.report.attempts] == [
        ("api.test", f"[{V6}]:443"), ("api.test", f"[{V6}]:444"), ("b.test", f"[{ALT6}]:9443"),
    ]  # fmt: skip
    assert sorted(resolver.ports) == [443, 444, 445]


async def test_tls_verifies_the_authority_whatever_the_target_is_called():
    contexts = tls.contexts()

    async def greet(stream: TcpStream) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            async with await stream.start_tls(contexts.server, server_side=True):
                pass

    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, greet, [listener])
        to_alt = [record(1, "alt.test", port=listener.endpoint.port)]
        more: Any = {
            "service_test__HTTPS": (0.0, to_alt),
            "other_test__HTTPS": (0.0, to_alt),
            "alt_test__A": (0.0, ["127.0.0.1"]),
        }
        resolver = zone(**more)
        async with await connect(tls.NAME, 9, now() + 20_000, resolver=resolver, tls=contexts.client) as stream:
            assert stream.report.winner is not None
        with pytest.raises(ConnectFailed, match="Hostname mismatch"):
            await connect("other.test", 9, now() + 20_000, resolver=resolver, tls=contexts.client)
        nursery.cancel_scope.cancel()


async def test_line_77_a_cancel_at_any_step_leaves_nothing():
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with listener:
        resolver = zone(
            https=(0.0, [record(0, "cdn.test")]),
            cdn_test__HTTPS=(0.0, [record(1, "alt.test", port=port)]),
            alt_test__A=(0.0, ["127.0.0.1"]),
        )
        summary = await sweep(lambda: connect("api.test", 443, resolver=resolver), inside=False)
    assert summary.steps >= 3


# --- expired answers --------------------------------------------------------------------------------------------------


class Stale(Zone):
    """Has an expired answer of each family, to begin with."""

    def __init__(self, old: dict[AddressFamily, list[str]], **answers: Any) -> None:
        super().__init__(**answers)
        self.old = old

    services = None  # type: ignore[assignment]

    def stale(self, host: str, family: AddressFamily, /) -> Answer | None:
        return Answer(self.old[family]) if family in self.old else None


@virtual
async def test_line_25_an_expired_answer_starts_the_race_and_the_fresh_one_is_merged(net):
    dead(net, ALT6)
    good(net, V6)
    resolver = Stale({AF_INET6: [ALT6], AF_INET: [ALT4]}, api_test__AAAA=(0.1, [V6]), api_test__A=(0.1, []))
    report = await reported(resolver)
    assert tried(report) == [(f"[{ALT6}]:443", 0), (f"[{V6}]:443", 250)]
    assert [(str(a.endpoint), a.outcome) for a in report.attempts[2:]] == [(f"{ALT4}:443", "skipped")]


@virtual
async def test_line_25_an_expired_answer_for_ipv4_alone_waits_as_a_fresh_one_does(net):
    good(net, V4)
    report = await reported(Stale({AF_INET: [V4]}, api_test__AAAA=(0.1, ()), api_test__A=(1.0, [V4])))
    assert tried(report) == [(f"{V4}:443", 50)]


@virtual
async def test_line_25_and_67_the_dns_resolver_begins_with_what_has_expired_and_asks_again(net):
    good(net, V6, rtt=0.05)
    server = Server({"api.test AAAA": fault(V6, ttl=20)})
    with VirtualDns({NS: server}).installed():
        resolver = DnsResolver([NS], optimistic=True)
        await reported(resolver)
        await trio.sleep(100)
        server.zone = {"api.test AAAA": fault(V6, ttl=20, delay=1.0)}
        # The old one goes at once, the new one is asked for, and the attempt lives on when it comes.
        report = await reported(resolver)
        assert tried(report) == [(f"[{V6}]:443", 0)]
        assert ms(report.elapsed) == 50
        assert server.count("api.test AAAA") == 2
        # By default nothing expired is used while a server answers.
        cautious = DnsResolver([NS])
        await reported(cautious)
        await trio.sleep(100)
        assert tried(await reported(cautious)) == [(f"[{V6}]:443", 1000)]
        assert resolver.stale("localhost", AF_INET) is None


@virtual
async def test_line_67_a_ttl_that_ends_during_a_race_ends_no_attempt(net):
    dead(net, ALT6)
    good(net, V6, rtt=3.0)
    server = Server({"api.test AAAA": fault(V6, ttl=1)})
    with VirtualDns({NS: server}).installed():
        resolver = DnsResolver([NS])
        reports: list[ConnectReport] = []

        async def one() -> None:
            reports.append(await reported(resolver))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await trio.sleep(2)
            server.zone = {"api.test AAAA": fault(ALT6, ttl=1)}
            with trio.move_on_after(0.5):
                await reported(resolver)
        assert starts(reports[0]) == {V6: 0}
        assert server.count("api.test AAAA") == 2


# --- the resolver of our own ------------------------------------------------------------------------------------------


@virtual
async def test_line_61_the_dns_resolver_leads_to_hosts_and_ports_of_protocols_that_are_spoken(net):
    good(net, ALT6, port=8443)
    names = {
        "api.test HTTPS": ["1 h3.test. alpn=h3 no-default-alpn", "2 alt.test. alpn=h2,h3 port=8443 ipv6hint=" + ALT6],
        "api.test AAAA": [V6],
        "alt.test AAAA": [ALT6],
    }
    server = Server(names)
    with VirtualDns({NS: server}).installed():
        report = await reported(DnsResolver([NS], services="https", alpn=("h2", "http/1.1")))
    assert tried(report) == [(f"[{ALT6}]:8443", 0)]
    assert report.lookups[0].records == (
        ServiceRecord(priority=2, target="alt.test.", port=8443, alpn=("h2", "http/1.1"), ipv6hint=(ALT6,)),
    )
    assert "h3.test AAAA" not in server.asked


@virtual
async def test_a_malformed_record_is_negative_at_once(net):
    good(net, V6)
    server = Server({"api.test HTTPS": fault("1 . alpn=h2", malformed=True), "api.test AAAA": [V6]})
    with VirtualDns({NS: server, "192.0.2.54": server}).installed():
        resolver = DnsResolver([NS, "192.0.2.54"], services="https")
        for _ in range(2):
            report = await reported(resolver)
            assert tried(report) == [(f"[{V6}]:443", 0)]
            assert "has a malformed HTTPS record" in str(report.lookups[0].error)
    assert server.count("api.test HTTPS") == 1


@virtual
async def test_a_policy_for_ipv4_first_holds_for_services_too(net):
    good(net, V4)
    https = [record(1, ".", ipv4hint=[V4], ipv6hint=[V6])]
    policy = RacePolicy(first_family=AF_INET)
    report = await reported(zone(https=(0.0, https), aaaa=(1.0, [V6]), a=(1.0, [V4])), policy=policy)
    assert tried(report) == [(f"{V4}:443", 0)]
