"""In which order addresses are tried. Numbers in ids are those of the invariants."""

from __future__ import annotations

from collections import Counter
from socket import AF_INET6

import pytest
import trio

from tests.outbound.kit import at, connects, fails, good, opened, refusing, rules, silent, until_due
from trio_connect import Answer, ConnectReport, TcpStream
from trio_connect.outbound import Candidate, DestinationDelayed, DestinationFailed


async def report_of(destination, **arguments) -> ConnectReport:
    with pytest.raises(DestinationFailed) as caught:
        await connects(destination, **arguments)
    return caught.value.report


async def test_35_lower_priorities_first_and_within_one_by_weight(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2", "192.0.2.3", rtt=0.0)
    weights = {"192.0.2.1": 1, "192.0.2.2": 4, "192.0.2.3": 9}
    async with opened() as out:
        candidates = [
            Candidate((host, 25), 10 if host != "192.0.2.3" else 20, weight) for host, weight in weights.items()
        ]
        dest = out.destination("a", candidates=candidates)
        seen = Counter([(await connects(dest)).candidate.endpoint.host for _ in range(500)])
    assert seen["192.0.2.3"] == 0
    # Chi-square with one degree of freedom, its 99.9 % point.
    assert sum((seen[host] - 100 * weights[host]) ** 2 / (100 * weights[host]) for host in list(weights)[:2]) < 10.9


async def test_36_families_alternate_and_both_are_there_before_the_limit(vnet, autojump_clock):
    hosts = [*(f"192.0.2.{n}" for n in range(1, 10)), *(f"2001:db8::{n}" for n in range(1, 4))]
    refusing(vnet, *hosts)
    async with opened(rules(max_addresses_per_plan=4)) as out:
        report = await report_of(out.destination("a", candidates=at(*hosts)))
        families = [row.endpoint.family for row in report.attempts]
        assert len(families) == 4
        assert families[0] != families[1] != families[2] != families[3]


async def test_36_every_priority_has_a_place(vnet, autojump_clock):
    hosts = [f"192.0.2.{n}" for n in range(1, 20)]
    refusing(vnet, *hosts)
    async with opened() as out:
        candidates = [Candidate((host, 25), 10 if n < 18 else 20) for n, host in enumerate(hosts)]
        report = await report_of(out.destination("a", candidates=candidates))
        assert len(report.attempts) == 8
        assert report.attempts[-1].endpoint.host == "192.0.2.19"


async def test_37_starts_are_a_stagger_apart_or_at_once_after_a_failure(vnet, autojump_clock):
    silent(vnet, "192.0.2.1", "192.0.2.2")
    vnet.host("192.0.2.3").refuse(0.050)
    good(vnet, "192.0.2.4", rtt=0.5)
    async with opened(rules(stagger=0.2)) as out:
        candidates = [Candidate((f"192.0.2.{n}", 25), n) for n in (1, 2, 3, 4)]
        async with out.destination("a", candidates=candidates).connect() as connection:
            assert connection.candidate.priority == 4
            assert vnet.trace.starts == {
                "192.0.2.1": 0.0,
                "192.0.2.2": 0.2,
                "192.0.2.3": 0.4,
                "192.0.2.4": pytest.approx(0.45),
            }
            losers = [row for row in vnet.trace.connections if row.host != "192.0.2.4"]
            assert [row.outcome for row in losers] == ["abandoned", "abandoned", "ECONNREFUSED"]
            assert [row.outcome for row in connection.stream.report.attempts].count("won") == 1
            # What is still open is the winner and its other end.
            assert len(vnet.open_sockets) <= 3


async def test_38_addresses_in_cooldown_go_last_and_are_not_removed(vnet, autojump_clock):
    vnet.host("192.0.2.1").listen(25, None).refuse()
    good(vnet, "192.0.2.2")
    async with opened() as out:
        dest = out.destination("a", candidates=[Candidate((f"192.0.2.{n}", 25), n) for n in (1, 2)])
        await connects(dest)
        assert vnet.trace.connections[0].host == "192.0.2.1"
        await connects(dest)
        assert [row.host for row in vnet.trace.connections] == ["192.0.2.1", "192.0.2.2", "192.0.2.2"]
        vnet.host("192.0.2.2").refuse()
        assert [row.endpoint.host for row in (await report_of(dest)).attempts] == ["192.0.2.2", "192.0.2.1"]


async def test_38_when_all_are_in_cooldown_the_soonest_is_tried_first(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1", "192.0.2.2")
    async with opened(rules(failures_to_delay=0)) as out:
        one = out.destination("one", candidates=at("192.0.2.1"))
        both = out.destination("both", candidates=[Candidate((f"192.0.2.{n}", 25), n) for n in (1, 2)])
        await fails(one)
        await fails(one)
        await fails(both)
        assert [row.endpoint.host for row in (await report_of(both)).attempts] == ["192.0.2.2", "192.0.2.1"]


async def test_38_only_the_circuit_locks_out_and_that_for_a_time(vnet, autojump_clock):
    """The worked example of the page: all addresses dead for an hour, then back."""
    host = vnet.host("192.0.2.1").listen(25, None, rtt=0.02).refuse()
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        while trio.current_time() < 3600:
            if isinstance(await fails(dest), DestinationDelayed):
                await until_due(dest)
        tried = len(vnet.trace.connections)
        assert tried < 60, "a dead host is asked once in two minutes, not all the time"
        host.recover()
        await connects(dest)
        assert trio.current_time() < 3600 + 121


async def test_39_a_loser_that_failed_keeps_its_cooldown(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2")
    async with opened() as out:
        dest = out.destination("a", candidates=[Candidate((f"192.0.2.{n}", 25), n) for n in (1, 2)])
        for failures in (1, 2, 3):
            await trio.sleep(200)
            await connects(dest)
            (row,) = dest.snapshot().addresses
            assert row.failures == failures


async def test_40_a_new_resolution_keeps_what_is_known_of_addresses_that_stay(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2", "192.0.2.3")

    class Changing:
        hosts: tuple[str, ...] = ("192.0.2.1", "192.0.2.2")

        async def addresses(self, host, family, /):
            return Answer(() if family == AF_INET6 else self.hosts, ttl=5.0)

    resolver = Changing()
    async with opened(rules(state_expiry=600.0), resolver=resolver) as out:
        dest = out.destination("a.test", port=25)
        while not dest.snapshot().addresses:
            await connects(dest)
        resolver.hosts = ("192.0.2.1", "192.0.2.3")
        await trio.sleep(10)
        await connects(dest)
        assert [str(row.endpoint) for row in dest.snapshot().addresses] == ["192.0.2.1:25"]
        resolver.hosts = ("192.0.2.3",)
        await trio.sleep(10)
        await connects(dest)
        assert dest.snapshot().addresses == ()
        resolver.hosts = ("192.0.2.1", "192.0.2.3")
        await trio.sleep(10)
        await connects(dest)
        assert [str(row.endpoint) for row in dest.snapshot().addresses] == ["192.0.2.1:25"], "not forgotten at once"


async def test_the_plan_goes_on_with_another_address_when_the_first_does_not_greet(vnet, autojump_clock):
    good(vnet, "192.0.2.1", "192.0.2.2")

    async def hangs_on_the_first(stream: TcpStream) -> None:
        if stream.peer.host == "192.0.2.1":
            await trio.sleep_forever()

    async with opened(rules(attempt_timeout=3.0)) as out:
        dest = out.destination("a", candidates=[Candidate((f"192.0.2.{n}", 25), n) for n in (1, 2)])
        connection = await connects(dest, establish=hangs_on_the_first)
        assert connection.candidate.priority == 2
        assert trio.current_time() < 1.0
