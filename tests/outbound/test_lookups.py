"""Where candidates come from. Numbers in ids are those of the invariants."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, AddressFamily

import pytest
import trio

from tests.outbound.kit import at, connects, fails, good, opened, refusing, rules
from tests.support.dnsserver import Server, VirtualDns
from trio_connect import Answer, DeadlineExceeded, DnsResolver, MailRecord, SrvRecord, StaticResolver, now
from trio_connect.outbound import Candidate, DestinationFailed, DestinationRejected, RetryAt


class Scripted:
    """A resolver that counts what it is asked, and answers after a while."""

    def __init__(self, seconds: float = 0.3, ttl: float | None = 60.0) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.under_way: set[tuple[str, str]] = set()
        self.side_by_side = 0
        self.seconds = seconds
        self.ttl = ttl
        self.hosts: dict[str, tuple[str, ...]] = {"a.test": ("192.0.2.1",), "mx1.test": ("192.0.2.1",)}
        self.mail: dict[str, list[MailRecord]] = {}
        self.services: dict[str, list[SrvRecord]] = {}
        self.broken = False

    async def _answer(self, kind: str, name: str) -> None:
        name = name.removesuffix(".")
        self.asked[kind, name] += 1
        self.under_way.add((kind, name))
        self.side_by_side = max(self.side_by_side, len(self.under_way))
        try:
            await trio.sleep(self.seconds)
        finally:
            self.under_way.discard((kind, name))
        if self.broken:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        await self._answer("A" if family == AF_INET else "AAAA", host)
        host = host.removesuffix(".")
        if host not in self.hosts:
            return Answer(name_exists=False)
        return Answer(self.hosts[host] if family == AF_INET else (), ttl=self.ttl)

    async def mx(self, domain: str, /) -> Sequence[MailRecord]:
        await self._answer("MX", domain)
        return self.mail.get(domain, [])

    async def srv(self, name: str, /) -> Sequence[SrvRecord]:
        await self._answer("SRV", name)
        return self.services.get(name, [])


async def test_41_equal_lookups_at_one_time_are_one_query(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted()
    resolver.mail = {"one.test": [MailRecord("mx1.test", 10)], "two.test": [MailRecord("MX1.test.", 10)]}
    async with opened(rules(max_connecting=99), resolver=resolver) as out:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(connects, out.destination("a.test", port=25))
                nursery.start_soon(connects, out.mx("one.test"))
                nursery.start_soon(connects, out.mx("two.test"))
        assert set(resolver.asked.values()) == {1}
        assert len(resolver.asked) == 6


class FromNursery:
    """Asks several servers from a nursery, which wraps what they say in a group."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def _answer(self) -> None:
        async def ask() -> None:
            try:
                await trio.sleep(self.seconds)
            finally:
                raise OSError(errno.EIO, "no server")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(trio.sleep_forever)

    async def addresses(self, _host: str, _family: AddressFamily, /) -> Answer:
        await self._answer()
        raise AssertionError

    async def mx(self, _domain: str, /) -> Sequence[MailRecord]:
        await self._answer()
        raise AssertionError


async def test_a_group_of_what_servers_say_is_the_failure_of_the_lookup_also_when_nobody_waits(vnet, autojump_clock):
    resolver = FromNursery(0.1)
    async with opened(resolver=resolver) as out:
        for destination in (out.destination("a.test", port=25), out.mx("b.test")):
            with pytest.raises(RetryAt, match="no server"):
                await connects(destination)
        resolver.seconds = 10.0
        for destination in (out.destination("c.test", port=25), out.mx("d.test")):
            with pytest.raises(DeadlineExceeded):
                await connects(destination, now() + 100)
            with trio.move_on_after(0.1) as scope:
                await connects(destination)
            assert scope.cancelled_caught
        await trio.sleep(1)  # the outbound goes on


async def test_41_one_who_is_cancelled_leaves_the_answer_to_the_others(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted(seconds=1.0)
    async with opened(resolver=resolver) as out:
        dest = out.destination("a.test", port=25)

        async def impatient() -> None:
            with trio.move_on_after(0.5):
                await connects(dest)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(impatient)
            await trio.sleep(0.1)
            nursery.start_soon(connects, dest)
        assert set(resolver.asked.values()) == {1}
        assert trio.current_time() == pytest.approx(1.02)


async def test_41_a_question_that_nobody_waits_for_any_more_is_ended(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted(seconds=1.0)
    async with opened(resolver=resolver) as out:
        dest = out.destination("a.test", port=25)
        with pytest.raises(DeadlineExceeded, match=r"lookup of a\.test") as caught:
            await connects(dest, now() + 500)
        assert caught.value.report is not None
        await trio.testing.wait_all_tasks_blocked()
        assert resolver.under_way == set()
        await connects(dest)
        assert set(resolver.asked.values()) == {2}
        assert dest.snapshot().failures == 0


async def test_41_answers_are_kept_for_their_ttl_within_bounds(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    for ttl, kept in ((60.0, 60), (0.0, 2), (10_000.0, 100), (None, 30)):
        resolver = Scripted(seconds=0.0, ttl=ttl)
        async with opened(rules(min_dns_ttl=2.0, max_dns_ttl=100.0), resolver=resolver) as out:
            dest = out.destination("a.test", port=25)
            began = trio.current_time()
            while resolver.asked["A", "a.test"] < 2:
                await connects(dest)
                await trio.sleep(0.5)
            assert kept <= trio.current_time() - began <= kept + 1.2


@pytest.mark.parametrize(
    "records", [[MailRecord(".", 0)], [SrvRecord(".", 0)], []], ids=["null_mx", "null_srv", "no_srv"]
)
async def test_42_null_records_reject_and_no_address_is_asked_for(vnet, autojump_clock, records):
    resolver = Scripted()
    async with opened(resolver=resolver) as out:
        if records and isinstance(records[0], MailRecord):
            resolver.mail["a.test"] = records
            dest = out.mx("a.test")
        else:
            resolver.services["_x._tcp.a.test"] = records
            dest = out.srv("_x._tcp.a.test")
        decision = await fails(dest)
        assert isinstance(decision, DestinationRejected)
        assert decision.until == -1
        assert {kind for kind, _ in resolver.asked} <= {"MX", "SRV"}
        assert dest.snapshot().failures == 0


async def test_42_without_mx_records_the_domain_is_its_own_mail_host(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted()
    async with opened(resolver=resolver) as out:
        connection = await connects(out.mx("a.test"))
        assert connection.candidate == Candidate(("192.0.2.1", 25), 0)
        decision = await fails(out.mx("nowhere.test"))
        assert isinstance(decision, DestinationRejected)
        assert "no such name" in decision.cause


async def test_hosts_without_an_address_are_told_beside_those_that_failed(vnet, autojump_clock):
    """They may be the ones that would have worked. A zone may name a great many, so only the first are told."""
    refusing(vnet, "192.0.2.1")
    resolver = Scripted()
    resolver.hosts["empty.test"] = ()
    resolver.mail["a.test"] = [MailRecord("mx1.test", 10), MailRecord("gone.test.", 20), MailRecord("empty.test", 30)]
    resolver.services["_x._tcp.a.test"] = [SrvRecord("mx1.test", 25)]
    resolver.services["_x._tcp.a.test"] += [SrvRecord(f"gone{n}.test", 25, 1) for n in range(1, 7)]
    many = "; ".join(f"nothing was found for gone{number}.test (no such name)" for number in range(1, 5))
    async with opened(resolver=resolver) as out:
        for destination, told in [
            (
                out.mx("a.test"),
                "nothing was found for gone.test (no such name); nothing was found for empty.test (no address)",
            ),
            (out.srv("_x._tcp.a.test"), f"{many}; nor for 2 more hosts"),
        ]:
            with pytest.raises(DestinationFailed) as caught:
                await connects(destination)
            assert f"(refused: 1); {told}; again" in str(caught.value)
            assert destination.snapshot().errors[-1].endswith(f"(refused: 1); {told}")


async def test_a_mail_host_that_does_not_exist_is_named_without_the_dot_of_its_record(vnet, autojump_clock):
    resolver = Scripted()
    resolver.mail["a.test"] = [MailRecord("gone.test.", 10)]
    async with opened(resolver=resolver) as out:
        decision = await fails(out.mx("a.test"))
    assert isinstance(decision, DestinationRejected)
    assert decision.cause == "there is no such name: gone.test"


async def test_42_a_name_that_does_not_exist_is_rejected(vnet, autojump_clock):
    async with opened(resolver=Scripted()) as out:
        assert isinstance(await fails(out.destination("nowhere.test", port=25)), DestinationRejected)


async def test_42_a_name_without_addresses_is_looked_up_again_later(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted(seconds=0.0)
    resolver.hosts["empty.test"] = ()
    async with opened(resolver=resolver) as out:
        dest = out.destination("empty.test", port=25)
        decision = await fails(dest)
        assert isinstance(decision, RetryAt)
        assert decision.until == pytest.approx(now() + 1000, abs=1)
        resolver.hosts["empty.test"] = ("192.0.2.1",)
        assert isinstance(await fails(dest), RetryAt), "it is not asked for again before its time"
        assert resolver.asked["A", "empty.test"] == 1
        await trio.sleep(61)
        await connects(dest)


async def test_43_a_resolver_that_cannot_find_out_is_helped_by_the_last_answer(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted(seconds=0.0, ttl=10.0)
    async with opened(rules(stale_dns=1000.0), resolver=resolver) as out:
        dest = out.destination("a.test", port=25)
        await connects(dest)
        resolver.broken = True
        await trio.sleep(500)
        await connects(dest)
        await trio.sleep(600)
        before = dest.snapshot().failures
        delays = []
        for _ in range(3):
            decision = await fails(dest)
            assert isinstance(decision, RetryAt)
            delays.append(decision.seconds)
            await trio.sleep(decision.seconds)
        assert delays == [pytest.approx(1.0, abs=0.002), pytest.approx(1.6, abs=0.002), pytest.approx(2.56, abs=0.002)]
        assert dest.snapshot().failures == before == 0
        resolver.broken = False
        await connects(dest)


async def test_43_a_lookup_that_has_succeeded_or_a_reset_ends_what_its_failures_have_made_of_it(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted(seconds=0.0, ttl=2.0)
    async with opened(rules(stale_dns=0.001), resolver=resolver) as out:
        dest = out.destination("a.test", port=25)

        async def failures() -> list[float]:
            """Fail twice more, each time when the decision says, and return how long it was to wait."""
            waits = []
            resolver.broken = True
            for _ in range(2):
                decision = await fails(dest)
                waits.append(round(decision.seconds, 1))
                await trio.sleep(decision.seconds)
            resolver.broken = False
            return waits

        assert await failures() == [1.0, 1.6]
        await connects(dest)
        await trio.sleep(60)
        assert await failures() == [1.0, 1.6]
        resolver.broken = True
        await fails(dest)
        resolver.broken = False
        dest.reset()
        await connects(dest)  # at once, though 2.56 s had to pass
        await trio.sleep(60)
        assert await failures() == [1.0, 1.6]
        dest.reset()
        assert await failures() == [1.0, 1.6]


async def test_44_both_families_are_asked_for_side_by_side(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted(seconds=0.3)
    async with opened(resolver=resolver) as out:
        await connects(out.destination("a.test", port=25))
        assert trio.current_time() == pytest.approx(0.32)
        assert resolver.side_by_side == 2


@pytest.mark.parametrize("name", ["a b.test", "a..b.test", "x" * 64 + ".test"])
async def test_a_record_that_leads_to_no_host_spoils_no_other(vnet, autojump_clock, name):
    """The owner of the zone has written it, so it is no mistake of the program's."""
    good(vnet, "192.0.2.1")
    resolver = Scripted()
    resolver.mail |= {"a.test": [MailRecord(name, 1), MailRecord("mx1.test", 2)], "b.test": [MailRecord(name)]}
    resolver.services["a.test"] = [SrvRecord(name, 25, 1), SrvRecord("mx1.test", 0, 2), SrvRecord("mx1.test", 25, 3)]
    resolver.services |= {"b.test": [SrvRecord(name, 25)], "c.test": [SrvRecord("mx1.test", 0)]}
    async with opened(resolver=resolver) as out:
        for dest in (out.mx("a.test"), out.srv("a.test")):
            assert (await connects(dest)).stream.host == "mx1.test"
        for dest in (out.mx("b.test"), out.srv("b.test"), out.srv("c.test")):
            assert isinstance(await fails(dest), DestinationRejected)


async def test_the_owner_of_a_zone_does_not_choose_how_much_is_asked(vnet, autojump_clock):
    resolver = Scripted()
    resolver.mail["a.test"] = [MailRecord(f"mx{n}.x.test", n) for n in range(100, 0, -1)]
    resolver.services["s.test"] = [SrvRecord(f"srv{n}.x.test", 25, n) for n in range(100, 0, -1)]
    async with opened(resolver=resolver) as out:
        await fails(out.mx("a.test"))
        await fails(out.srv("s.test"))
    asked = {name for kind, name in resolver.asked if kind == "A"}
    assert asked == {f"{what}{n}.x.test" for what in ("mx", "srv") for n in range(1, 65)}


async def test_44_and_all_hosts_of_a_domain(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    resolver = Scripted(seconds=0.3)
    resolver.hosts["mx2.test"] = ("192.0.2.2",)
    resolver.mail["a.test"] = [MailRecord("mx2.test", 20), MailRecord("mx1.test", 10), MailRecord("gone.test", 5)]
    async with opened(resolver=resolver) as out:
        dest = out.mx("a.test")
        connection = await connects(dest)
        assert trio.current_time() == pytest.approx(0.62)
        assert connection.candidate == Candidate(("192.0.2.1", 25), 10)
        assert dest.snapshot().group == "mx gone.test mx1.test mx2.test"


async def test_an_address_of_two_hosts_is_tried_once(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    hosts = {"mx1.test": "192.0.2.1", "mx2.test": "192.0.2.1"}
    resolver = StaticResolver(hosts, mx={"a.test": [MailRecord("mx2.test", 20), MailRecord("mx1.test", 10)]})
    async with opened(resolver=resolver) as out:
        await fails(out.mx("a.test"))
    assert len(vnet.trace.connections) == 1


async def test_a_domain_that_moves_takes_those_who_wait_along(vnet, autojump_clock):
    """Its new hosts are another group, with other limits than those that the line waits for."""
    good(vnet, "192.0.2.1", "192.0.2.2")
    resolver = Scripted(seconds=0.0, ttl=5.0)
    resolver.hosts["mx2.test"] = ("192.0.2.2",)
    resolver.mail["a.test"] = [MailRecord("mx1.test", ttl=5.0)]
    async with opened(rules(max_connections=1), resolver=resolver) as out:
        dest = out.mx("a.test")
        async with dest.connect(), trio.open_nursery() as nursery:
            nursery.start_soon(connects, dest)
            await trio.sleep(10)
            assert dest.snapshot().waiting == 1
            resolver.mail["a.test"] = [MailRecord("mx2.test", ttl=5.0)]
            with pytest.raises(RetryAt):
                async with dest.try_connect():
                    pass
            await trio.sleep(1)
            assert dest.snapshot().waiting == 0
            assert dest.snapshot().group == "mx mx2.test"


async def test_old_answers_are_forgotten(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    resolver = Scripted(seconds=0.0, ttl=5.0)
    resolver.hosts = {f"h{n}.test": ("192.0.2.1",) for n in range(100)}
    async with opened(rules(stale_dns=10.0), resolver=resolver) as out:
        for name in resolver.hosts:
            await connects(out.destination(name, port=25))
            await trio.sleep(1)
        assert len(out._lookups._answers) < 50


async def test_domains_at_one_provider_are_one_group(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    hosts = {"mx.provider.test": "192.0.2.1"}
    domains = {f"d{n}.test": [MailRecord("mx.provider.test", 10)] for n in range(5)}
    async with (
        opened(rules(max_connections=2), resolver=StaticResolver(hosts, mx=domains)) as out,
        out.mx("d0.test").connect(),
        out.mx("d1.test").connect(),
    ):
        with pytest.raises(RetryAt):
            async with out.mx("d2.test").try_connect():
                pass
        async with out.mx("d3.test", group="mine").connect():
            pass


async def test_services_have_ports_priorities_and_weights(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2", port=5269)
    resolver = StaticResolver(
        {"x1.test": "192.0.2.1", "x2.test": "192.0.2.2"},
        srv={"_xmpp._tcp.a.test": [SrvRecord("x2.test", 5269, 20, 5), SrvRecord("x1.test", 5222, 10, 5)]},
    )
    async with opened(resolver=resolver) as out:
        connection = await connects(out.srv("_xmpp._tcp.a.test"))
        assert connection.candidate == Candidate(("192.0.2.2", 5269), 20)
        assert [str(row.endpoint) for row in connection.stream.report.attempts] == ["192.0.2.1:5222", "192.0.2.2:5269"]


async def test_candidates_of_a_function_of_ones_own(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")
    found: list[object] = []
    calls = 0

    async def discover():
        nonlocal calls
        calls += 1
        await trio.sleep(0.1)
        return found

    async with opened() as out:
        dest = out.destination("a", candidates=discover)
        decision = await fails(dest)
        assert isinstance(decision, RetryAt)
        assert "found none" in decision.cause
        found[:] = at("192.0.2.1")
        await trio.sleep(2)
        await connects(dest)
        await connects(dest)
        assert calls == 2
        found[:] = [Candidate(("192.0.2.2", 25))]
        await trio.sleep(31)
        assert (await connects(dest)).candidate.endpoint.host == "192.0.2.2"


async def test_what_a_function_or_resolver_raises_by_mistake_is_raised_as_it_is(vnet, autojump_clock):
    async def discover():
        raise LookupError("a bug")

    class Mistaken(Scripted):
        async def addresses(self, host, family, /):
            raise LookupError("a bug")

    resolver = Mistaken()
    resolver.mail["a.test"] = [MailRecord("mx1.test")]
    async with opened(resolver=resolver) as out:
        for dest in (
            out.destination("a", candidates=discover),
            out.destination("a.test", port=25),
            out.mx("a.test"),
        ):
            with pytest.raises(LookupError, match="a bug"):
                await connects(dest)
            assert dest.snapshot().failures == 0


async def test_the_virtual_dns_is_the_default(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "2001:db8::1")
    vnet.dns("a.test", a=["192.0.2.1"], aaaa=["2001:db8::1"])
    async with opened() as out:
        connection = await connects(out.destination("a.test", port=25))
        assert connection.candidate.endpoint.family in (AF_INET, AF_INET6)


async def test_a_resolver_that_has_no_mx_or_srv_is_told_at_once(vnet, autojump_clock):
    async with opened() as out:
        with pytest.raises(TypeError, match="MX records need a resolver with an async method mx"):
            out.mx("a.test")
        with pytest.raises(TypeError, match="SRV records need a resolver with an async method srv"):
            out.srv("_x._tcp.a.test")


# ---------------------------------------------------------------------- by the resolver of our own

NS = "192.0.2.53"


async def test_mx_and_srv_by_dns_ask_each_name_once(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    good(vnet, "192.0.2.1", port=5222)
    zone = {
        "one.test MX": ["10 mx1.test."], "two.test MX": ["10 mx1.test.", "20 mx2.test."], "null.test MX": ["0 ."],
        "_x._tcp.one.test SRV": ["0 0 5222 mx1.test."],
        "mx1.test A": ["192.0.2.1"],
    }  # fmt: skip
    server = Server(zone)
    with VirtualDns({NS: server}).installed():
        async with opened(rules(max_connecting=99), resolver=DnsResolver([NS])) as out:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(connects, out.mx("one.test"))
                    nursery.start_soon(connects, out.mx("two.test"))
                    nursery.start_soon(connects, out.srv("_x._tcp.one.test"))
            with pytest.raises(DestinationRejected, match="null MX"):
                await connects(out.mx("null.test"))
            with pytest.raises(DestinationRejected, match="no such name"):
                await connects(out.mx("nowhere.test"))
    assert {question for question in server.asked if server.count(question) > 1} == set()


async def test_a_resolver_without_mx_is_told_which_has_it():
    async with opened() as out:
        for call, kind in ((out.mx, "MX"), (out.srv, "SRV")):
            with pytest.raises(TypeError, match=rf"{kind} records need a resolver .* such as DnsResolver\(\)"):
                call("one.test")
