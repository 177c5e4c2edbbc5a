"""`connect` to several names of one service: looked up side by side, the earlier ones first, one report."""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any

import pytest
import trio

from tests.net.racing import Recorder, Stopwatch, dead, good, ms, outcomes, starts, virtual, winner
from tests.support import faults, tls
from tests.support.sockets import Sockets
from tests.support.sweep import Step, sweep
from trio_connect import (
    Answer,
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    Endpoint,
    LookupFinished,
    LookupStarted,
    NetworkFilter,
    RacePolicy,
    ResolveFailed,
    SocketOptions,
    Source,
    StaticResolver,
    TcpStream,
    TlsStream,
    connect,
    connectx,
    now,
    tcp_connect,
    tcp_listen,
)
from trio_connect._net.names.resolve import AnswersNow
from trio_connect.testing import VirtualNetwork

HOSTS: list[str | tuple[str, int]] = ["db1.test", ("db2.test", 5433)]
ONE, ONE4 = "2001:db8::1", "192.0.2.1"
TWO, TWO4 = "2001:db8::2", "192.0.2.2"


def looked_up(report: ConnectReport) -> list[tuple[str, str, float | None]]:
    """Host, kind and end of each lookup."""
    return [(lookup.host, lookup.kind, ms(lookup.ended)) for lookup in report.lookups]


def tried(report: ConnectReport) -> list[tuple[str | None, str, float | None]]:
    """Name, endpoint and start of each attempt."""
    return [(a.host, str(a.endpoint), ms(a.started)) for a in report.attempts]


# --- the order --------------------------------------------------------------------------------------------------------


@virtual
async def test_all_addresses_of_the_first_name_go_before_any_of_the_second_families_interleaved(net):
    dead(net, ONE, ONE4, "2001:db8::11", TWO)
    good(net, TWO4, port=5433)
    net.dns("db1.test", aaaa=[ONE, "2001:db8::11"], a=[ONE4])
    net.dns("db2.test", aaaa=[TWO], a=[TWO4])
    stream = await connect(HOSTS, 5432)
    assert tried(stream.report) == [
        ("db1.test", f"[{ONE}]:5432", 0),
        ("db1.test", f"{ONE4}:5432", 250),
        ("db1.test", "[2001:db8::11]:5432", 500),
        ("db2.test", f"[{TWO}]:5433", 750),
        ("db2.test", f"{TWO4}:5433", 1000),
    ]
    assert looked_up(stream.report) == [
        ("db1.test", "AAAA", 0), ("db1.test", "A", 0), ("db2.test", "AAAA", 0), ("db2.test", "A", 0),
    ]  # fmt: skip
    assert winner(stream.report).host == "db2.test"
    stream.abort()


@virtual
async def test_an_unknown_first_host_fails_alone_and_costs_nothing(net):
    good(net, TWO, port=5433)
    net.dns("db1.test")
    net.dns("db2.test", aaaa=[TWO])
    watch = Stopwatch()
    stream = await connect(HOSTS, 5432)
    assert watch.ms == 20
    assert [(lookup.host, lookup.answer) for lookup in stream.report.lookups if lookup.kind == "AAAA"] == [
        ("db1.test", Answer(name_exists=False)),
        ("db2.test", Answer((TWO,))),
    ]
    stream.abort()


class KnowsOne(AnswersNow):
    """Has the answers about one host, as the system has those about localhost, and asks about others."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.asked: list[str] = []

    def _answers_now(self, host: str) -> dict[AddressFamily, Answer] | None:
        return {AF_INET6: Answer((ONE,)), AF_INET: Answer((ONE4,))} if host == self.host else None

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        self.asked.append(host)
        await trio.sleep(0.010)
        return Answer((TWO,) if family == AF_INET6 else (TWO4,))


@pytest.mark.parametrize("known", [0, 1])
@virtual
async def test_a_host_whose_answers_are_there_already_is_not_asked_for_beside_one_that_is(net, known):
    good(net, ONE, port=(5432, 5433)[known])
    dead(net, ONE4, TWO, TWO4)
    names = ["db1.test", "db2.test"]
    resolver = KnowsOne(names[known])
    stream = await connect(HOSTS, 5432, resolver=resolver)
    assert resolver.asked == [names[1 - known]] * 2
    assert winner(stream.report).host == names[known]
    assert [(lookup.host, lookup.kind) for lookup in stream.report.lookups] == [
        ("db1.test", "AAAA"), ("db1.test", "A"), ("db2.test", "AAAA"), ("db2.test", "A"),
    ]  # fmt: skip
    stream.abort()


@pytest.mark.parametrize("delay", [5.0, math.inf])
@virtual
async def test_a_slow_second_host_holds_nobody_up(net, delay):
    good(net, ONE, port=5432)
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO], a=[TWO4], aaaa_delay=delay, a_delay=delay)
    watch = Stopwatch()
    stream = await connect(HOSTS, 5432)
    assert watch.ms == 20
    assert [(lookup.host, lookup.answer, lookup.error) for lookup in stream.report.lookups[2:]] == [
        ("db2.test", None, None),
        ("db2.test", None, None),
    ]
    stream.abort()


@virtual
async def test_a_slow_second_host_joins_when_it_answers(net):
    net.host(ONE).refuse(0.010)
    good(net, TWO, port=5433)
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO], aaaa_delay=0.6)
    stream = await connect(HOSTS, 5432)
    assert [(a.host, a.cause, ms(a.started)) for a in stream.report.attempts] == [
        ("db1.test", "first", 0),
        ("db2.test", "arrival", 600),
    ]
    stream.abort()


@pytest.mark.parametrize("delay", [0.051, 5.0, math.inf])
@virtual
async def test_a_slow_first_host_holds_the_second_up_for_the_resolution_delay(net, delay):
    good(net, TWO, port=5433)
    net.dns("db1.test", aaaa=[ONE], a=[ONE4], aaaa_delay=delay, a_delay=delay)
    net.dns("db2.test", aaaa=[TWO], a=[TWO4])
    watch = Stopwatch()
    stream = await connect(HOSTS, 5432, policy=RacePolicy(attempt_delay=30))
    assert starts(stream.report)[TWO] == 50
    assert watch.ms == 70
    stream.abort()


@virtual
async def test_a_first_host_that_answers_within_the_resolution_delay_goes_first(net):
    good(net, ONE, port=5432)
    net.dns("db1.test", aaaa=[ONE], aaaa_delay=0.049)
    net.dns("db2.test", aaaa=[TWO], a=[TWO4])
    stream = await connect(HOSTS, 5432)
    assert [start for _, _, start in tried(stream.report)] == [49, None, None]
    assert stream.peer.host == ONE
    stream.abort()


@virtual
async def test_no_resolution_delay_waits_for_nobody_and_a_long_one_for_the_answer(net):
    good(net, ONE, port=5432)
    good(net, TWO, port=5433)
    net.dns("db1.test", aaaa=[ONE], aaaa_delay=9.0)
    net.dns("db2.test", aaaa=[TWO])
    for delay, peer, took in ((0.0, TWO, 20), (30.0, ONE, 9020)):
        watch = Stopwatch()
        stream = await connect(HOSTS, 5432, policy=RacePolicy(resolution_delay=delay))
        assert (stream.peer.host, watch.ms) == (peer, took)
        stream.abort()


@virtual
async def test_late_addresses_of_the_first_go_before_what_has_not_started(net):
    dead(net, TWO, TWO4, ONE4)
    good(net, ONE, port=5432)
    net.dns("db1.test", aaaa=[ONE], a=[ONE4], aaaa_delay=0.2, a_delay=0.1)
    net.dns("db2.test", aaaa=[TWO], a=[TWO4])
    stream = await connect(HOSTS, 5432)
    assert tried(stream.report) == [
        ("db2.test", f"[{TWO}]:5433", 50),
        ("db1.test", f"[{ONE}]:5432", 300),
        ("db1.test", f"{ONE4}:5432", None),
        ("db2.test", f"{TWO4}:5433", None),
    ]
    stream.abort()


@virtual
async def test_the_other_family_of_the_first_waits_no_longer_than_the_second(net):
    # The first has only its IPv4 address when the second's time has come: what is known of the first then goes first.
    dead(net, ONE4)
    good(net, TWO, port=5433)
    net.dns("db1.test", aaaa=[ONE], a=[ONE4], aaaa_delay=math.inf, a_delay=0.030)
    net.dns("db2.test", aaaa=[TWO])
    stream = await connect(HOSTS, 5432)
    assert tried(stream.report) == [("db1.test", f"{ONE4}:5432", 50), ("db2.test", f"[{TWO}]:5433", 300)]
    stream.abort()


@virtual
async def test_all_dead(net):
    net.host(ONE).refuse(0.1)
    net.host(TWO4).unreachable()
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", a=[TWO4])
    net.dns("db3.test")
    with pytest.raises(ConnectFailed) as caught:
        await connect([*HOSTS, "db3.test"], 5432)
    text = str(caught.value)
    assert f"attempts to db1.test:5432, db2.test:5433, db3.test:5432 ([{ONE}]:5432, {TWO4}:5433) failed" in text
    assert text.endswith("; nothing was found for db3.test (no such name)")
    assert outcomes(caught.value.report) == ["failed", "failed"]
    assert [a.host for a in caught.value.attempts] == ["db1.test", "db2.test"]
    assert len(caught.value.report.lookups) == 6


@virtual
async def test_all_dead_at_the_deadline(net):
    dead(net, ONE)
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test")
    net.dns("db3.test", aaaa_delay=math.inf, a_delay=math.inf)
    watch = Stopwatch()
    with pytest.raises(DeadlineExceeded) as caught:
        await connect([*HOSTS, "db3.test"], 5432, now() + 500)
    assert watch.ms == 500
    text = str(caught.value)
    assert "nothing was found for db2.test (no such name); the lookup of db3.test did not end" in text
    assert caught.value.report is not None
    assert tried(caught.value.report) == [("db1.test", f"[{ONE}]:5432", 0)]
    with pytest.raises(DeadlineExceeded, match=r"connect to db3\.test:1, db2\.test:5433, whose lookup did not end"):
        await connect(["db3.test", ("db2.test", 5433)], 1, now() + 500)


@virtual
async def test_all_unknown(net):
    net.dns("db1.test")
    net.dns("db2.test", aaaa=[TWO], aaaa_error=socket.EAI_AGAIN)
    recorder = Recorder()
    with pytest.raises(ResolveFailed) as caught:
        await connect(HOSTS, 5432, observer=recorder)
    text = str(caught.value)
    assert (
        "no address to try for db1.test, db2.test after 0.0 ms (db1.test: no such name; db2.test: AAAA: "
        in text.replace("no such name, db2.test", "no such name; db2.test")
    )
    assert "Temporary failure" in text
    assert caught.value.report is recorder.report
    assert {lookup.host for lookup in recorder.report.lookups} == {"db1.test", "db2.test"}


# --- which hosts ------------------------------------------------------------------------------------------------------


@virtual
async def test_an_endpoint_of_two_names_is_tried_once_for_the_first_of_them(net):
    dead(net, ONE)
    good(net, TWO, port=5432)
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[ONE, TWO])
    stream = await connect(["db1.test", "db2.test"], 5432)
    assert tried(stream.report) == [("db1.test", f"[{ONE}]:5432", 0), ("db2.test", f"[{TWO}]:5432", 250)]
    stream.abort()
    net.host(ONE).refuse()
    net.dns("db2.test", aaaa=[ONE])
    with pytest.raises(ConnectFailed, match=r"; every address of db2\.test was taken for one of db1\.test$"):
        await connect(["db1.test", "db2.test"], 5432)


@pytest.mark.parametrize(("delay", "owner"), [(0.15, "db1.test"), (0.46, "db2.test")])
@virtual
async def test_it_is_the_first_ones_also_when_that_answers_later_but_not_after_it_began(net, delay, owner):
    dead(net, ONE)
    good(net, TWO, port=5432)
    net.dns("db1.test", aaaa=[TWO], aaaa_delay=delay)
    net.dns("db2.test", aaaa=[ONE, TWO])
    stream = await connect(["db1.test", "db2.test"], 5432, policy=RacePolicy(attempt_delay=0.4))
    assert tried(stream.report) == [("db2.test", f"[{ONE}]:5432", 50), (owner, f"[{TWO}]:5432", 450)]
    stream.abort()


@virtual
async def test_one_name_with_two_ports_is_asked_for_once(net):
    dead(net, ONE)
    net.host(ONE4).refuse(0)
    good(net, ONE, port=5433)
    net.dns("db.test", aaaa=[ONE], a=[ONE4])
    stream = await connect(["db.test", ("db.test", 5433), "db.test"], 5432)
    assert len(net.trace.lookups) == 2
    assert [endpoint for _, endpoint, _ in tried(stream.report)] == [
        f"[{ONE}]:5432", f"{ONE4}:5432", f"[{ONE}]:5433", f"{ONE4}:5433",
    ]  # fmt: skip
    assert len(stream.report.lookups) == 2
    stream.abort()


@virtual
async def test_literals_are_allowed_and_not_looked_up(net):
    dead(net, TWO4)
    good(net, TWO, port=5433)
    net.dns("db2.test", aaaa=[TWO])
    stream = await connect([TWO4, ("db2.test", 5433), ("2001:DB8::9", 7)], 5432)
    assert tried(stream.report) == [
        (None, f"{TWO4}:5432", 0),
        ("db2.test", f"[{TWO}]:5433", 250),
        (None, "[2001:db8::9]:7", None),
    ]
    assert [lookup.host for lookup in stream.report.lookups] == ["db2.test", "db2.test"]
    stream.abort()
    net.dns("gone.test")
    with pytest.raises(ResolveFailed, match=rf"no address to try for gone\.test .*{TWO4}:5432 skipped"):
        await connect(["gone.test", TWO4], 5432, sources=[Source(ipv6="2001:db8::fe")])


@virtual
async def test_a_literal_behind_a_pending_name_is_held_up_too(net):
    good(net, TWO, port=5432)
    net.dns("db1.test", aaaa=[ONE], aaaa_delay=3.0, a_delay=3.0)
    stream = await connect(["db1.test", TWO], 5432)
    assert tried(stream.report) == [(None, f"[{TWO}]:5432", 50)]
    stream.abort()


@virtual
async def test_nothing_but_literals_is_a_race_of_endpoints_in_their_order(net):
    dead(net, ONE4)
    good(net, TWO, port=5433)

    class Never:
        async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
            raise AssertionError

    stream = await connect((ONE4, (TWO, 5433)), 5432, resolver=Never())
    assert tried(stream.report) == [(None, f"{ONE4}:5432", 0), (None, f"[{TWO}]:5433", 250)]
    stream.abort()


async def test_fast_open_to_one_literal_alone(sockets: Sockets):
    fast = SocketOptions(fast_open=True)
    async with faults.echoing() as peer:
        host, port = peer.address.pair
        stream = await connect([host], port, options=fast)
        stream.abort()
        for hosts in (["db1.test"], [host, "127.0.0.2"]):
            with pytest.raises(ValueError, match="fast_open"):
                await connect(hosts, port, options=fast)


@virtual
async def test_of_very_many_hosts_64_are_looked_up(net):
    good(net, ONE)

    def endless() -> Any:
        yield "db.test"
        number = 0
        while True:
            number += 1
            yield f"db{number}.test"

    asked: set[str] = set()

    class Counting:
        async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
            asked.add(host)
            await trio.sleep(0.01)
            return Answer((ONE,) if host == "db.test" and family == AF_INET6 else ())

    stream = await connect(endless(), 443, resolver=Counting())
    assert len(asked) == 64
    assert len(stream.report.lookups) == 128
    stream.abort()


@pytest.mark.parametrize(
    ("hosts", "port", "error", "words"),
    [
        ([], 5432, ValueError, "at least one host"),
        ((), 5432, ValueError, "at least one host"),
        ({}, 5432, TypeError, r"items\(\)"),
        ({"db1.test": 5433}, 5432, TypeError, r"got a mapping: pass its items\(\)"),
        ([["db1.test"]], 5432, TypeError, "each of several hosts is a name or a pair"),
        ([("db1.test", 1), ["db2.test", 1]], 5432, TypeError, "each of several hosts is a name or a pair"),
        ([("db1.test",)], 5432, TypeError, "each of several hosts is a name or a pair"),
        ([(("db1.test", 1), 1)], 5432, TypeError, "a host is a str"),
        (("db1.test", 5433), 5432, TypeError, "each of several hosts is a name or a pair"),
        ([b"db1.test"], 5432, TypeError, "each of several hosts is a name or a pair"),
        ([Endpoint(ONE4, 1)], 5432, TypeError, "each of several hosts is a name or a pair"),
        (["db1.test", ("db2.test", 0)], 5432, ValueError, "port 0 of db2.test"),
        (["db1.test", ("db2.test", 65536)], 5432, ValueError, "65536"),
        (["db1.test", ("db2.test", "5432")], 5432, TypeError, "port"),
        (["db1.test", ("db2.test", True)], 5432, TypeError, "port"),
        ([("db1.test", 1)], 0, ValueError, "port 0 of the hosts"),
        (["db1.test", ""], 5432, ValueError, "no host"),
        (["db1.test", "db2.test:5433"], 5432, ValueError, "the port is an argument of its own"),
        (["db1.test", "a b"], 5432, ValueError, "white space"),
    ],
    ids=repr,
)
async def test_bad_hosts_are_refused_before_any_lookup(hosts: Any, port: int, error: type[Exception], words: str):
    recorder = Recorder()
    with pytest.raises(error, match=words):
        await connect(hosts, port, observer=recorder)
    assert recorder.events == []


# --- what holds for one name holds for several ------------------------------------------------------------------------


@virtual
async def test_the_filter_is_asked_once_for_each_address_of_all_names(net):
    good(net, TWO4, port=5432)
    net.dns("db1.test", aaaa=["::1"], a=["10.0.0.1"])
    net.dns("db2.test", aaaa=["::1"], a=["192.0.2.2"])
    asked: list[str] = []
    guard = NetworkFilter(deny=["::1/128", "10.0.0.0/8"])

    def allowed(endpoint: Endpoint) -> bool:
        asked.append(str(endpoint))
        return guard(endpoint)

    stream = await connect(["db1.test", "db2.test", "::1"], 5432, address_filter=allowed)
    assert sorted(asked) == ["10.0.0.1:5432", "192.0.2.2:5432", "[::1]:5432"]
    assert [(a.host, str(a.endpoint), a.outcome) for a in stream.report.attempts] == [
        ("db2.test", "192.0.2.2:5432", "won"),
        ("db1.test", "[::1]:5432", "skipped"),
        ("db1.test", "10.0.0.1:5432", "skipped"),
    ]
    stream.abort()
    with pytest.raises(
        ConnectFailed, match=r"no attempt could be made to db1\.test:1, \[::1\]:7: not allowed"
    ) as caught:
        await connect(["db1.test", ("::1", 7)], 1, address_filter=guard)
    assert {(a.host, str(a.endpoint)) for a in caught.value.attempts} == {
        ("db1.test", "[::1]:1"), ("db1.test", "10.0.0.1:1"), (None, "[::1]:7"),
    }  # fmt: skip


@virtual
async def test_sources_of_one_family_ask_one_question_of_each_name(net):
    good(net, TWO4, port=5433)
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO], a=[TWO4])
    stream = await connect([*HOSTS, ONE], 5432, sources=[Source(ipv4="192.0.2.254")])
    assert [(lookup.host, lookup.kind) for lookup in stream.report.lookups] == [("db1.test", "A"), ("db2.test", "A")]
    assert [(a.host, a.endpoint.host, a.outcome) for a in stream.report.attempts] == [
        ("db2.test", TWO4, "won"),
        (None, ONE, "skipped"),
    ]
    stream.abort()


@virtual
async def test_the_observer_is_told_of_each_lookup_with_its_host(net):
    good(net, TWO, port=5433)
    net.dns("db1.test")
    net.dns("db2.test", aaaa=[TWO])
    recorder = Recorder()
    stream = await connect(HOSTS, 5432, observer=recorder)
    asked = [(event.host, event.kind) for event in recorder.events if isinstance(event, LookupStarted)]
    assert sorted(asked) == sorted((host, kind) for host in ("db1.test", "db2.test") for kind in ("AAAA", "A"))
    ended = [event.lookup for event in recorder.events if isinstance(event, LookupFinished)]
    assert sorted(ended, key=str) == sorted(stream.report.lookups, key=str)
    assert recorder.report is stream.report
    stream.abort()


@virtual
async def test_an_establish_chooses_among_the_names(net):
    good(net, ONE, port=5432)
    good(net, TWO, port=5433)
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO])

    async def primary(stream: TcpStream) -> TcpStream:
        if stream.peer.host == ONE:
            raise OSError("a standby")
        return stream

    stream = await connect(HOSTS, 5432, establish=primary)
    assert [(a.host, a.outcome) for a in stream.report.attempts] == [("db1.test", "failed"), ("db2.test", "won")]
    stream.abort()


@virtual
async def test_an_establish_is_told_for_which_name_its_connection_is(net):
    good(net, ONE, ONE4, port=5432)
    good(net, TWO, port=5433)
    good(net, TWO4, port=5434)
    net.dns("db1.test", aaaa=[ONE], a=[ONE4])
    net.dns("db2.test", aaaa=[TWO])
    seen: list[tuple[str, str | None]] = []

    async def refuse(stream: TcpStream) -> None:
        seen.append((stream.peer.host, stream.host))
        raise OSError("a standby")

    with pytest.raises(ConnectFailed):
        await connect([*HOSTS, (TWO4, 5434)], 5432, establish=refuse)
    assert seen == [(ONE, "db1.test"), (ONE4, "db1.test"), (TWO, "db2.test"), (TWO4, None)]


@virtual
async def test_an_establish_on_the_endpoint_of_two_names_is_told_the_one_that_it_is_tried_for(net):
    good(net, TWO)
    dead(net, ONE)
    net.dns("db1.test", aaaa=[TWO], aaaa_delay=0.15)
    net.dns("db2.test", aaaa=[ONE, TWO])
    seen: list[str | None] = []

    async def note(stream: TcpStream) -> None:
        seen.append(stream.host)

    stream = await connect(["db1.test", "db2.test"], 443, establish=note)
    assert [*seen, stream.host, winner(stream.report).host] == ["db1.test"] * 3
    stream.abort()


@pytest.mark.parametrize("establish", [None, trio.lowlevel.checkpoint])
@virtual
async def test_a_stream_says_for_which_name_it_was_connected(net, establish):
    good(net, ONE)
    net.dns("db1.test")
    net.dns("db2.test", aaaa=[ONE])
    test = None if establish is None else lambda _stream: establish()
    calls: list[tuple[Any, str | None]] = [
        (connect(["db1.test", "db2.test"], 443, establish=test), "db2.test"),
        (connect("db2.test", 443, establish=test), "db2.test"),
        (connect("db2.test.", 443, establish=test), "db2.test."),
        (connect(ONE, 443, establish=test), None),
        (connectx([(ONE, 443)], establish=test), None),
        (tcp_connect((ONE, 443)), None),
    ]
    for call, host in calls:
        stream = await call
        assert stream.host == host
        stream.abort()
        assert stream.host == host


async def test_an_accepted_connection_was_for_no_name():
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        port = listener.endpoint.port
        near = await connect("db1.test", port, resolver=StaticResolver({"db1.test": ["127.0.0.1"]}))
        far = await listener.accept()
        assert (near.host, far.host) == ("db1.test", None)
        near.abort()
        far.abort()


@virtual
async def test_what_a_resolver_raises_for_one_name_ends_the_whole_call_as_itself(net):
    dead(net, ONE)

    class Bug(Exception):
        pass

    class Odd:
        async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
            await trio.sleep(0.1 if host == "db2.test" else 0.0)
            if host == "db2.test":
                raise Bug
            return Answer((ONE,) if family == AF_INET6 else ())

    with pytest.raises(Bug):
        await connect(HOSTS, 5432, resolver=Odd())


@virtual
async def test_now_or_never_and_a_deadline_that_has_passed(net):
    good(net, TWO, rtt=0, port=5433)
    resolver = StaticResolver({"db1.test": (), "db2.test": TWO})
    stream = await connect(HOSTS, 5432, 0, resolver=resolver)
    stream.abort()
    with pytest.raises(DeadlineExceeded, match=r"connect to db1\.test:5432, db2\.test:5433") as caught:
        await connect(HOSTS, 5432, now() - 5, resolver=resolver)
    assert caught.value.report is not None
    assert caught.value.report.lookups == ()
    with pytest.raises(DeadlineExceeded, match=r"a1\.test:1, .*a4\.test:1 and 6 more"):
        await connect([f"a{n}.test" for n in range(1, 11)], 1, now() - 5)


# --- TLS --------------------------------------------------------------------------------------------------------------


async def serve_tls(context: ssl.SSLContext, stream: Any) -> None:
    with suppress(trio.BrokenResourceError):
        async with trio.SSLStream(stream, context, server_side=True) as secured:
            await secured.send_all(b"hello")


def secure(net: VirtualNetwork, address: str, name: str) -> None:
    net.host(address).listen(443, partial(serve_tls, tls.server_context(name)), rtt=0.020)


@virtual
async def test_tls_verifies_the_name_whose_address_won(net):
    secure(net, ONE, "other.test")
    secure(net, TWO, "db2.test")
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO])
    stream = await connect(["db1.test", "db2.test"], 443, tls=tls.contexts().client)
    first, second = stream.report.attempts
    assert (first.host, first.outcome) == ("db1.test", "failed")
    assert first.reason is not None
    assert "certificate is not valid for 'db1.test'" in first.reason
    assert (second.host, second.outcome) == ("db2.test", "won")
    assert stream.ssl.server_hostname == "db2.test"
    await trio.aclose_forcefully(stream)


@virtual
async def test_no_name_is_proven_by_the_certificate_of_another(net):
    secure(net, ONE, "db2.test")
    secure(net, TWO, "db1.test")
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO])
    with pytest.raises(ConnectFailed, match="all 2 attempts"):
        await connect(["db1.test", "db2.test"], 443, tls=tls.contexts().client)


@virtual
async def test_a_server_hostname_is_for_all(net):
    secure(net, ONE, "db1.test")
    secure(net, TWO, "cluster.test")
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO])
    stream = await connect(["db1.test", "db2.test"], 443, tls=tls.contexts().client, server_hostname="cluster.test")
    assert winner(stream.report).host == "db2.test"
    await trio.aclose_forcefully(stream)


@virtual
async def test_a_literal_among_names_proves_its_address(net):
    secure(net, TWO4, TWO4)
    net.dns("db1.test")
    stream = await connect(["db1.test", TWO4], 443, tls=tls.contexts().client)
    assert stream.peer.host == TWO4
    await trio.aclose_forcefully(stream)


@virtual
async def test_the_endpoint_of_two_names_proves_the_one_that_it_is_tried_for(net):
    secure(net, TWO, "db1.test")
    dead(net, ONE)
    net.dns("db1.test", aaaa=[TWO], aaaa_delay=0.15)
    net.dns("db2.test", aaaa=[ONE, TWO])
    stream = await connect(["db1.test", "db2.test"], 443, tls=tls.contexts().client)
    assert winner(stream.report).host == "db1.test"
    await trio.aclose_forcefully(stream)


@virtual
async def test_starttls_verifies_the_name_whose_address_it_is(net):
    """The stream over TLS says it too, whatever name TLS was told to verify."""

    async def serve(name: str, stream: Any) -> None:
        assert await stream.receive_some(100) == b"STARTTLS"
        await stream.send_all(b"go")
        await serve_tls(tls.server_context(name), stream)

    async def upgrade(stream: TcpStream) -> TlsStream:
        await stream.send_all(b"STARTTLS")
        assert await stream.receive_exactly(2) == b"go"
        return await stream.start_tls(tls.contexts().client, server_hostname=stream.host)

    net.host(ONE).listen(25, partial(serve, "other.test"), rtt=0.020)
    net.host(TWO).listen(25, partial(serve, "db2.test"), rtt=0.020)
    net.dns("db1.test", aaaa=[ONE])
    net.dns("db2.test", aaaa=[TWO])
    stream = await connect(["db1.test", "db2.test"], 25, establish=upgrade)
    first, _ = stream.report.attempts
    assert "certificate is not valid for 'db1.test'" in (first.reason or "")
    assert (stream.host, stream.ssl.server_hostname) == ("db2.test", "db2.test")
    await trio.aclose_forcefully(stream)


async def test_every_name_is_checked_before_any_lookup():
    recorder = Recorder()
    with pytest.raises(TypeError, match="server_hostname is for TLS"):
        await connect(HOSTS, 443, server_hostname="db.test", observer=recorder)
    with pytest.raises(ValueError, match="each label"):
        await connect(["db1.test", ".test"], 443, tls=True, observer=recorder)
    assert recorder.events == []


# --- cancelled at any step --------------------------------------------------------------------------------------------


class Delayed:
    """Answers each name after its delay, IPv4 only."""

    def __init__(self, **hosts: tuple[Sequence[str], float]) -> None:
        self.hosts = hosts

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        addresses, after = self.hosts[host.removesuffix(".test")]
        await trio.sleep(after)
        return Answer(() if family == AF_INET6 else tuple(addresses))


# Nobody else's: at a port of 127.0.0.1 that is free for us another worker may listen, and would be connected to.
SILENT, LISTENING, OTHER = (faults.own_host() for _ in range(3))
SWEPT: dict[str, dict[str, tuple[Sequence[str], float]]] = {
    "both at once": {"one": ([SILENT], 0.0), "two": ([LISTENING], 0.0)},
    "the first late": {"one": ([SILENT], 0.1), "two": ([LISTENING], 0.0)},
    "the second never": {"one": ([OTHER, LISTENING], 0.0), "two": ([], math.inf)},
    "unknown": {"one": ([], 0.0), "two": ([], 0.01)},
}


@asynccontextmanager
async def one_port() -> AsyncIterator[int]:
    """A port with a listener at one address, and a refusal at the two others."""
    with socket.socket() as sock:
        sock.bind((LISTENING, 0))
        sock.listen(16)
        yield sock.getsockname()[1]


@pytest.mark.parametrize("kind", SWEPT)
async def test_line_77_a_cancel_at_any_step_leaves_nothing(kind: str, sockets: Sockets, modes, autojump_clock):
    recorders: list[Recorder] = []

    async def operation(port: int) -> TcpStream:
        recorder = Recorder()
        recorders.append(recorder)
        return await connect(
            ["one.test", ("two.test", port), (OTHER, port)],
            port,
            resolver=Delayed(**SWEPT[kind]),
            policy=RacePolicy(attempt_delay=0.010, attempt_timeout=math.inf),
            observer=recorder,
        )

    async def check(_port: object, step: Step) -> None:
        report = recorders.pop().report
        assert (report.winner is not None) == (step.ending == "returned"), f"{step}\n{report}"

    await sweep(
        operation,
        environment=one_port,
        modes=modes,
        raises=ConnectFailed,
        counters=sockets.counters,
        check=check,
        quiet=0.015,
    )
