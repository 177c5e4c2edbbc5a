"""`DnsResolver`: against name servers in virtual time, and on the sockets of loopback."""

from __future__ import annotations

import errno
import socket
import sys
from socket import AF_INET, AF_INET6
from typing import Any

import dns.message
import pytest
import trio
import trio.testing

from tests.support import dnsserver
from tests.support.dnsserver import Server, VirtualDns, answer_over_tcp, fault, serving, virtual_dns
from tests.support.etc import Etc
from tests.support.sweep import sweep
from trio_connect import (
    Answer,
    DnsResolver,
    Endpoint,
    MailRecord,
    MailResolver,
    Resolver,
    SrvRecord,
    SrvResolver,
    connect,
    deadline_after,
    now,
    resolve,
)
from trio_connect._engine.dns_tries import LIFETIME

V6, V4 = "2001:db8::1", "192.0.2.1"
NS, NS2, NS3 = "192.0.2.53", "192.0.2.54", "2001:db8::53"
ZONE = {"web.test A": [V4], "web.test AAAA": [V6]}


async def timed(what: Any) -> tuple[Any, float]:
    started = trio.current_time()
    try:
        result = await what
    except OSError as exc:
        result = exc
    return result, round(trio.current_time() - started, 3)


def in_order(records):
    """Servers give records in any order."""
    return sorted(records, key=repr)


async def nothing(_):
    """There is nothing to close."""


async def side_by_side(count: int, function: Any) -> list[Any]:
    results: list[Any] = []

    async def one() -> None:
        results.append(await timed(function()))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return results


# --- what is asked and answered ---------------------------------------------------------------------------------------


async def test_each_family_is_one_question(autojump_clock):
    with virtual_dns(ZONE) as server:
        resolver = DnsResolver([NS])
        assert await resolver.addresses("Web.Test", AF_INET6) == Answer((V6,), 60.0)
        assert server.asked == ["web.test AAAA"]
        assert await resolver.addresses("web.test.", AF_INET) == Answer((V4,), 60.0)
        assert server.asked == ["web.test AAAA", "web.test A"]


async def test_no_data_and_no_name_are_negative_answers(autojump_clock):
    with virtual_dns({"web.test A": [V4]}):
        resolver = DnsResolver([NS])
        assert await resolver.addresses("web.test", AF_INET6) == Answer((), 60.0)
        assert await resolver.addresses("nope.test", AF_INET6) == Answer((), 60.0, name_exists=False)


async def test_an_alias_is_followed_by_the_server_and_the_shortest_ttl_counts(autojump_clock):
    zone = {"www.test CNAME": "web.test.", "web.test A": [V4]}
    with virtual_dns(zone):
        assert await DnsResolver([NS]).addresses("www.test", AF_INET) == Answer((V4,), 60.0)


async def test_mx_and_srv(autojump_clock):
    zone = {
        "test MX": ["10 mx1.test.", "20 mx2.test."],
        "null.test MX": ["0 ."],
        "_sip._tcp.test SRV": ["10 60 5060 sip1.test.", "20 0 5061 sip2.test."],
        "odd.test MX": [r"10 a\ b.test.", "20 mx2.test."],
    }
    with virtual_dns(zone):
        resolver = DnsResolver([NS])
        assert in_order(await resolver.mx("test")) == [
            MailRecord("mx1.test.", 10, 60.0),
            MailRecord("mx2.test.", 20, 60.0),
        ]
        assert await resolver.mx("null.test") == [MailRecord(".", 0, 60.0)]
        assert await resolver.mx("odd.test") == [MailRecord("mx2.test.", 20, 60.0)]
        assert await resolver.mx("nope.test") == []
        await trio.sleep(10)
        assert in_order(await resolver.srv("_sip._tcp.test")) == [
            SrvRecord("sip1.test.", 5060, 10, 60, 60.0), SrvRecord("sip2.test.", 5061, 20, 0, 60.0),
        ]  # fmt: skip
        await trio.sleep(10)
        assert [record.ttl for record in await resolver.srv("_sip._tcp.test")] == [50.0, 50.0]


async def test_it_is_each_of_the_protocols():
    resolver = DnsResolver([NS])
    assert isinstance(resolver, Resolver)
    assert isinstance(resolver, MailResolver)
    assert isinstance(resolver, SrvResolver)
    assert repr(resolver) == "DnsResolver(['192.0.2.53:53'])"
    assert repr(DnsResolver()) == "DnsResolver()"


@pytest.mark.parametrize(
    ("host", "v6", "v4"),
    [
        ("localhost", ("::1",), ("127.0.0.1",)),
        ("db.Localhost.", ("::1",), ("127.0.0.1",)),
        (V4, (), (V4,)),
        (V6, (V6,), ()),
        ("0x7f.1", (), ("127.0.0.1",)),
    ],
)
async def test_no_server_is_asked_for_these(host, v6, v4, autojump_clock):
    with virtual_dns({}) as server:
        resolver = DnsResolver([NS])
        assert (await resolver.addresses(host, AF_INET6)).addresses == v6
        assert (await resolver.addresses(host, AF_INET)).addresses == v4
        assert server.asked == []


async def test_a_digit_at_the_start_is_still_a_name(autojump_clock):
    with virtual_dns({"4chan.test A": [V4]}):
        assert (await DnsResolver([NS]).addresses("4chan.test", AF_INET)).addresses == (V4,)


async def test_what_is_no_answer_to_the_question_is_not_read(autojump_clock, monkeypatch):
    with virtual_dns(ZONE) as server:
        real = server.answer

        async def spoofed(self, data):
            answer = real(bytes(data), "udp")
            assert answer is not None
            now = trio.current_time()
            other = Server({"evil.test A": ["192.0.2.66"]})
            wrong_id = bytes([data[0] ^ 1]) + answer[0][1:]
            question = dns.message.make_query("evil.test", "A", use_edns=False, id=int.from_bytes(data[:2]))
            wrong_name, _ = other.answer(question.to_wire(), "udp") or (b"", 0.0)
            its_own_echo = bytes(data)
            self._coming += [(now, b""), (now, b"\0"), (now, wrong_id), (now, wrong_name), (now, its_own_echo)]
            self._coming.append((now + 0.1, answer[0]))
            return len(data)

        monkeypatch.setattr(dnsserver._Datagrams, "send", spoofed)
        assert await timed(DnsResolver([NS]).addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 0.1)


# --- servers ----------------------------------------------------------------------------------------------------------


async def test_a_dead_first_server_costs_its_turn_once(autojump_clock):
    net = VirtualDns({NS: Server(ZONE, down=True), NS2: Server(ZONE)})
    with net.installed():
        resolver = DnsResolver([NS, NS2], max_ttl=0)
        assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 0.0), 1.0)
        for _ in range(3):
            assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 0.0), 0.0)
        assert len(net.servers[NS].asked) == 1
        # After half a minute it is tried again, beside the other: that costs no time, dead or alive.
        await trio.sleep(31)
        assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 0.0), 0.0)
        assert len(net.servers[NS].asked) == 2
        net.servers[NS].down = False
        await trio.sleep(31)
        net.servers[NS2].zone = {"web.test A": fault(V4, delay=0.5)}
        assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 0.0), 0.0)
        before = len(net.servers[NS2].asked)
        assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 0.0), 0.0)
        assert len(net.servers[NS2].asked) == before
        assert net.open == 0


@pytest.mark.parametrize("deadline", [0.5, 0.9])
async def test_callers_with_short_deadlines_learn_of_a_dead_server_too(deadline, autojump_clock):
    net = VirtualDns({NS: Server(ZONE, down=True), NS2: Server(ZONE)})
    with net.installed():
        resolver = DnsResolver([NS, NS2])
        with trio.move_on_after(deadline):
            await resolver.addresses("web.test", AF_INET)
        assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 0.0)
        assert net.open == 0


@pytest.mark.parametrize("wrong", [fault(rcode="SERVFAIL"), fault(rcode="REFUSED"), fault(V4, malformed=True)])
async def test_an_error_of_one_server_leads_to_the_next_at_once(wrong, autojump_clock):
    net = VirtualDns({NS: Server({"web.test A": wrong}), NS2: Server(ZONE)})
    with net.installed():
        assert await timed(DnsResolver([NS, NS2]).addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 0.0)


async def test_a_port_where_nobody_listens_and_a_network_without_a_route_too(autojump_clock):
    with VirtualDns({NS2: Server(ZONE, refused=True), NS3: Server(ZONE)}).installed():
        found = await timed(DnsResolver([NS, NS2, NS3]).addresses("web.test", AF_INET))
        assert found == (Answer((V4,), 60.0), 0.0)


async def test_a_slow_answer_of_the_first_server_still_counts(autojump_clock):
    net = VirtualDns({NS: Server({"web.test A": fault(V4, delay=1.5)}), NS2: Server(ZONE, down=True)})
    with net.installed():
        assert await timed(DnsResolver([NS, NS2]).addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 1.5)


async def test_a_lost_datagram_is_sent_again(autojump_clock, monkeypatch):
    with virtual_dns(ZONE) as server:
        server.down = True

        async def repair():
            await trio.sleep(0.5)
            server.down = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(repair)
            assert await timed(DnsResolver([NS]).addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 1.0)
        assert server.asked == ["web.test A"] * 2


async def test_a_failure_says_what_each_server_did(autojump_clock):
    zone = {"web.test A": fault(rcode="SERVFAIL")}
    net = VirtualDns({NS: Server(zone), NS2: Server(ZONE, refused=True), NS3: Server(ZONE, down=True)})
    with net.installed():
        error, took = await timed(DnsResolver([NS, NS2, NS3]).addresses("web.test", AF_INET))
        assert took == LIFETIME
        assert isinstance(error, socket.gaierror)
        assert error.errno == socket.EAI_AGAIN
        assert error.strerror == (
            "A of web.test: no name server has answered in 10 s (192.0.2.53:53: SERVFAIL, "
            "192.0.2.54:53: connection refused, [2001:db8::53]:53: no answer)"
        )
        net.servers[NS3].refused = True
        resolver = DnsResolver([NS, NS2, NS3])
        error, took = await timed(resolver.addresses("web.test", AF_INET))
        assert took == 0
        assert str(error).endswith("has answered (192.0.2.53:53: SERVFAIL, 192.0.2.54:53: connection refused, "
                                   "[2001:db8::53]:53: connection refused)")  # fmt: skip
        # It is remembered for a second (RFC 9520), and not a moment longer.
        assert str((await timed(resolver.addresses("web.test", AF_INET)))[0]) == str(error)
        assert net.servers[NS].count("web.test A") == 2
        await trio.sleep(1)
        await timed(resolver.addresses("web.test", AF_INET))
        assert net.servers[NS].count("web.test A") == 3


async def test_trouble_of_this_machine_is_not_the_servers(autojump_clock, monkeypatch):
    net = VirtualDns({NS: Server(ZONE), NS2: Server(ZONE)})
    with net.installed():
        resolver = DnsResolver([NS, NS2])
        with monkeypatch.context() as patch:
            real = VirtualDns.socket

            def none_left(self, *args):
                raise OSError(errno.EMFILE, "Too many open files")

            patch.setattr(VirtualDns, "socket", none_left)
            error, _ = await timed(resolver.addresses("web.test", AF_INET))
            assert error.errno == errno.EMFILE
            assert str(error).startswith("[Errno 24] local: lookup of web.test")
            assert real is not none_left
        assert (await resolver.addresses("web.test", AF_INET)).addresses == (V4,)
        assert net.servers[NS2].asked == []


# --- TCP --------------------------------------------------------------------------------------------------------------


async def test_what_is_cut_off_is_asked_for_over_tcp(vnet, autojump_clock):
    many = [f"192.0.2.{i}" for i in range(1, 61)]
    server = Server({"web.test A": fault(*many, truncated=True)})
    vnet.host(NS).listen(53, lambda stream: answer_over_tcp(server, stream), rtt=0.010)
    with VirtualDns({NS: server}).installed():
        found, took = await timed(DnsResolver([NS]).addresses("web.test", AF_INET))
    assert sorted(found.addresses) == sorted(many)
    assert took == 0.020
    assert server.transports == ["udp", "tcp"]


async def test_what_is_cut_off_over_tcp_too_is_no_negative_answer(vnet, autojump_clock):
    one = Server({"web.test A": fault(V4, truncated=True)})
    two = Server({"web.test A": fault(V4)})

    async def cut_off(stream):
        wire = await stream.receive_some()
        reply, _ = one.answer(wire[2:], "udp") or (b"", 0.0)
        await stream.send_all(len(reply).to_bytes(2, "big") + reply)

    vnet.host(NS).listen(53, cut_off)
    with VirtualDns({NS: one, NS2: two}).installed():
        assert (await DnsResolver([NS, NS2]).addresses("web.test", AF_INET)).addresses == (V4,)
        error, _ = await timed(DnsResolver([NS]).addresses("web.test", AF_INET))
    assert "192.0.2.53:53: an answer that is cut off over TCP too" in str(error)


async def test_a_server_that_does_not_speak_tcp_has_failed(vnet, autojump_clock):
    one, two, three = (Server({"web.test A": fault(V4, truncated=True)}) for _ in range(3))

    async def hang_up(stream):
        await stream.receive_some()
        await stream.aclose()

    vnet.host(NS).refuse()
    vnet.host(NS2).listen(53, hang_up)
    vnet.host(NS3).listen(53, lambda stream: answer_over_tcp(three, stream))
    with VirtualDns({NS: one, NS2: two, NS3: three}).installed():
        resolver = DnsResolver([NS, NS2, NS3])
        assert (await resolver.addresses("web.test", AF_INET)).addresses == (V4,)
        error, _ = await timed(DnsResolver([NS, NS2]).addresses("web.test", AF_INET))
    assert "192.0.2.53:53: connection refused" in str(error)
    assert "192.0.2.54:53: connection reset" in str(error)


# --- equal questions at one time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_block", [False, True])
async def test_equal_questions_are_one(in_block, autojump_clock):
    with virtual_dns({"web.test A": fault(V4, delay=0.1, ttl=0)}) as server:
        resolver = DnsResolver([NS])
        if in_block:
            async with resolver:
                results = await side_by_side(100, lambda: resolver.addresses("web.test", AF_INET))
        else:
            results = await side_by_side(100, lambda: resolver.addresses("web.test", AF_INET))
        assert results == [(Answer((V4,), 0.0), 0.1)] * 100
        assert server.asked == ["web.test A"]


@pytest.mark.parametrize("in_block", [False, True])
async def test_a_cancel_leaves_the_others_their_answer_and_asks_nothing_again(in_block, autojump_clock):
    with virtual_dns({"web.test A": fault(V4, delay=0.5)}) as server:
        resolver = DnsResolver([NS])
        results = []

        async def one(cancelled_at):
            with trio.move_on_after(cancelled_at):
                results.append(await timed(resolver.addresses("web.test", AF_INET)))

        async def all_of_them():
            async with trio.open_nursery() as nursery:
                for moment in (0.1, 0.2, 0.3, 0.4, 9, 9):
                    nursery.start_soon(one, moment)

        if in_block:
            async with resolver:
                await all_of_them()
        else:
            await all_of_them()
        assert results == [(Answer((V4,), 60.0), 0.5)] * 2
        assert server.asked == ["web.test A"]


@pytest.mark.parametrize("passes", range(8))
async def test_a_cancel_before_the_question_has_left_costs_nobody_else_the_answer(passes, autojump_clock):
    """Trio runs the tasks of a pass in any order, so each moment is tried several times."""
    net = VirtualDns({NS: Server(ZONE)})
    with net.installed():
        for _ in range(10):
            resolver = DnsResolver([NS])
            scope = trio.CancelScope()
            results: list[Any] = []

            async def first(resolver=resolver, scope=scope):
                with scope:
                    await resolver.addresses("web.test", AF_INET)

            async def second(resolver=resolver, results=results):
                results.append((await timed(resolver.addresses("web.test", AF_INET)))[0])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                for _ in range(passes // 2):
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(second)
                for _ in range(passes - passes // 2):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
            assert results == [Answer((V4,), 60.0)]
    assert net.open == 0


async def test_the_last_one_that_is_cancelled_drops_the_question(autojump_clock):
    net = VirtualDns({NS: Server({"web.test A": fault(V4, delay=0.5)})})
    with net.installed():
        resolver = DnsResolver([NS])
        with trio.move_on_after(0.1):
            await resolver.addresses("web.test", AF_INET)
        assert net.open == 0
        assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 0.5)


# --- the cache --------------------------------------------------------------------------------------------------------


async def test_answers_are_kept_for_their_ttl_on_trios_clock(autojump_clock):
    with virtual_dns({"web.test A": fault(V4, ttl=20)}) as server:
        resolver = DnsResolver([NS])
        await resolver.addresses("web.test", AF_INET)
        await trio.sleep(19)
        assert await resolver.addresses("web.test", AF_INET) == Answer((V4,), 1.0)
        assert len(server.asked) == 1
        await trio.sleep(1)
        assert await resolver.addresses("web.test", AF_INET) == Answer((V4,), 20.0)
        assert len(server.asked) == 2


async def test_ttls_are_clamped(autojump_clock):
    with virtual_dns({"web.test A": fault(V4, ttl=1), "long.test A": fault(V4, ttl=10_000_000)}) as server:
        resolver = DnsResolver([NS], min_ttl=5, max_ttl=100)
        assert (await resolver.addresses("web.test", AF_INET)).ttl == 5
        assert (await resolver.addresses("long.test", AF_INET)).ttl == 100
        await trio.sleep(4.9)
        await resolver.addresses("web.test", AF_INET)
        assert len(server.asked) == 2


async def test_negative_answers_are_kept_as_long_as_their_soa_says(autojump_clock):
    zone = {"web.test MX": ["0 ."], "web.test AAAA": fault(minimum=7), "web.test A": fault(minimum=5000, ttl=5000)}
    with virtual_dns(zone) as server:
        resolver = DnsResolver([NS])
        assert (await resolver.addresses("web.test", AF_INET6)).ttl == 7
        assert (await resolver.addresses("web.test", AF_INET)).ttl == 900
        await trio.sleep(6.9)
        await resolver.addresses("web.test", AF_INET6)
        assert len(server.asked) == 2
        await trio.sleep(0.1)
        await resolver.addresses("web.test", AF_INET6)
        assert len(server.asked) == 3


async def test_a_stale_answer_stands_in_when_no_server_has_one(autojump_clock):
    server = Server({"web.test A": fault(V4, ttl=20)})
    with VirtualDns({NS: server}).installed():
        resolver = DnsResolver([NS], max_stale=1000)
        await resolver.addresses("web.test", AF_INET)
        server.zone = {"web.test A": fault(rcode="SERVFAIL")}
        await trio.sleep(100)
        assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 30.0), 0.0)
        assert len(server.asked) == 2
        # RFC 8767: no refresh more often than every 30 seconds.
        await trio.sleep(29)
        assert (await resolver.addresses("web.test", AF_INET)).addresses == (V4,)
        assert len(server.asked) == 2
        await trio.sleep(1)
        assert (await resolver.addresses("web.test", AF_INET)).addresses == (V4,)
        assert len(server.asked) == 3
        await trio.sleep(1000)
        assert isinstance((await timed(resolver.addresses("web.test", AF_INET)))[0], socket.gaierror)


@pytest.mark.parametrize("in_block", [False, True])
async def test_a_stale_answer_stands_in_after_1800_ms_of_silence(in_block, autojump_clock):
    server = Server({"web.test A": fault(V4, ttl=20)})
    with VirtualDns({NS: server}).installed():
        resolver = DnsResolver([NS])

        async def scene():
            await resolver.addresses("web.test", AF_INET)
            await trio.sleep(100)
            server.zone = {"web.test A": fault("192.0.2.9", delay=2.5)}
            assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 30.0), 1.8)
            await trio.sleep(1.5)
            # Only in a block has somebody read the late answer.
            found, took = await timed(resolver.addresses("web.test", AF_INET))
            assert (found.addresses, took) == (("192.0.2.9",) if in_block else (V4,), 0.0)

        if in_block:
            async with resolver:
                await scene()
        else:
            await scene()


async def test_the_cache_belongs_to_one_run():
    server = Server(ZONE)
    resolver = DnsResolver([NS])

    async def once():
        with VirtualDns({NS: server}).installed():
            await resolver.addresses("web.test", AF_INET)

    for _ in range(2):
        await trio.to_thread.run_sync(lambda: trio.run(once, clock=trio.testing.MockClock(autojump_threshold=0)))
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("kind", "records", "kept"),
    [
        ("A", [f"10.0.{n // 200}.{n % 200}" for n in range(300)], 64),
        ("AAAA", [f"2001:db8::{n:x}" for n in range(300)], 64),
        ("MX", [f"{n} mx.test." for n in range(300)], 64),
        ("SRV", [f"{n} 0 25 mx.test." for n in range(300)], 64),
        ("HTTPS", [f"{n} h.test. ipv4hint=192.0.2.1,192.0.2.2" for n in range(1, 301)], 16),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_of_a_hostile_answer_what_can_be_used_is_kept(kind, records, kept, autojump_clock):
    with virtual_dns({f"web.test {kind}": records}) as server:
        resolver = DnsResolver([NS], services="https")
        ask: Any = {
            "A": lambda: resolver.addresses("web.test", AF_INET),
            "AAAA": lambda: resolver.addresses("web.test", AF_INET6),
            "MX": lambda: resolver.mx("web.test"),
            "SRV": lambda: resolver.srv("web.test"),
            "HTTPS": lambda: resolver.services("web.test", 443),
        }[kind]
        found: Any = await ask()
        assert found == await ask()
        assert len(server.asked) == 1
    assert len(found.addresses if isinstance(found, Answer) else found) == kept
    # The best ones.
    if kind in ("MX", "SRV"):
        assert [each.preference if kind == "MX" else each.priority for each in found] == [*range(64)]
    elif kind == "HTTPS":
        assert [each.priority for each in found] == [*range(1, 17)]


async def test_the_cache_is_bounded(autojump_clock):
    with virtual_dns({f"h{i}.test A": [V4] for i in range(3)}) as server:
        resolver = DnsResolver([NS], cache_size=2)
        for i in (0, 1, 0, 2, 0, 1):
            await resolver.addresses(f"h{i}.test", AF_INET)
        assert server.asked == ["h0.test A", "h1.test A", "h2.test A", "h1.test A"]


# --- the block --------------------------------------------------------------------------------------------------------


async def test_line_24_late_answers_are_read_for_a_second_and_fill_the_cache(vnet, autojump_clock):
    vnet.host(V6).listen(443, nothing)
    net = VirtualDns({NS: Server({"web.test AAAA": [V6], "web.test A": fault(V4, delay=0.9)})})
    with net.installed():
        async with DnsResolver([NS]) as resolver:
            stream, took = await timed(connect("web.test", 443, resolver=resolver))
            stream.abort()
            assert took < 0.9
            await trio.sleep(0.9)
            found, took = await timed(resolver.addresses("web.test", AF_INET))
            assert (found.addresses, took) == ((V4,), 0.0)
            assert net.servers[NS].count("web.test A") == 1
            # What takes longer is dropped a second after the last caller has left.
            net.servers[NS].zone = {"slow.test A": fault(V4, delay=5)}
            with trio.move_on_after(0.1):
                await resolver.addresses("slow.test", AF_INET)
            await trio.sleep(0.99)
            assert net.open == 1
            await trio.sleep(0.02)
            assert net.open == 0


async def test_a_caller_that_comes_while_the_block_lingers_joins(autojump_clock):
    with virtual_dns({"web.test A": fault(V4, delay=0.95)}) as server:
        async with DnsResolver([NS]) as resolver:
            with trio.move_on_after(0.2):
                await resolver.addresses("web.test", AF_INET)
            await trio.sleep(0.5)
            assert await timed(resolver.addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 0.25)
        assert len(server.asked) == 1


async def test_leaving_the_block_costs_nobody_his_answer(autojump_clock):
    with virtual_dns({"web.test A": fault(V4, delay=0.9)}) as server:
        resolver = DnsResolver([NS])
        results = []

        async def outside():
            results.append(await timed(resolver.addresses("web.test", AF_INET)))

        async with trio.open_nursery() as nursery, resolver:
            nursery.start_soon(outside)
            nursery.start_soon(outside)
            await trio.sleep(0.5)
        assert results == [(Answer((V4,), 60.0), 0.9)] * 2
        assert len(server.asked) == 1


async def test_a_cancel_from_outside_takes_no_error_from_the_body_of_the_block(autojump_clock):
    error = ValueError("not closed as it should")
    with virtual_dns({"web.test A": fault(V4, delay=0.9)}):
        with trio.CancelScope() as scope, pytest.raises(ValueError, match="not closed") as caught:
            async with DnsResolver([NS]) as resolver:
                with trio.move_on_after(0.1):
                    await resolver.addresses("web.test", AF_INET)
                scope.cancel()
                raise error
        assert caught.value is error


async def test_who_asks_behind_a_shield_in_a_block_that_was_cancelled_asks_by_himself(autojump_clock):
    with virtual_dns({"web.test A": fault(V4, delay=0.1), "more.test A": fault(V4, delay=0.1)}) as server:
        with trio.CancelScope() as scope:
            async with DnsResolver([NS]) as resolver:
                scope.cancel()
                with trio.fail_after(1, shield=True):
                    for name in ("web.test", "more.test"):
                        assert (await resolver.addresses(name, AF_INET)).addresses == (V4,)
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert server.asked == ["web.test A", "more.test A"]


async def test_the_block_raises_what_its_body_raises_and_is_entered_once_at_a_time(autojump_clock):
    resolver = DnsResolver([NS])
    for _ in range(2):
        with pytest.raises(KeyError):
            async with resolver:
                raise KeyError
    async with resolver:
        with pytest.raises(RuntimeError, match="entered already"):
            async with resolver:
                pass


# --- as the system ----------------------------------------------------------------------------------------------------


@pytest.fixture
def etc(tmp_path, monkeypatch):
    etc = Etc(tmp_path, monkeypatch)
    etc.write(resolv=f"nameserver {NS}\n")
    return etc


async def test_the_servers_are_those_of_resolv_conf_and_follow_it(etc, autojump_clock):
    net = VirtualDns({NS: Server(ZONE), NS2: Server({"web.test A": ["192.0.2.2"]}), NS3: Server({})})
    with net.installed():
        resolver = DnsResolver(max_ttl=0)
        assert (await resolver.addresses("web.test", AF_INET)).addresses == (V4,)
        etc.write(resolv=f"nameserver {NS2}\n# another network\n")
        assert (await resolver.addresses("web.test", AF_INET)).addresses == ("192.0.2.2",)


async def test_line_23_there_is_no_limit_on_the_number_of_servers(etc, autojump_clock):
    dead = [f"198.51.100.{i}" for i in range(1, 7)]
    etc.write(resolv="".join(f"nameserver {server}\n" for server in (*dead, NS)))
    servers = {**{server: Server({}, refused=True) for server in dead}, NS: Server(ZONE)}
    with VirtualDns(servers).installed():
        assert await timed(DnsResolver().addresses("web.test", AF_INET)) == (Answer((V4,), 60.0), 0.0)


async def test_the_hosts_file_answers_for_both_families(etc, autojump_clock):
    etc.write(hosts=f"{V4} db.test\n127.0.0.2 localhost\n")
    with virtual_dns({"db.test AAAA": [V6]}) as server:
        resolver = DnsResolver()
        assert (await resolver.addresses("db.test", AF_INET6)) == Answer()
        assert (await resolver.addresses("db.test", AF_INET)).addresses == (V4,)
        assert (await resolver.addresses("localhost", AF_INET)).addresses == ("127.0.0.2",)
        assert server.asked == []
        # It belongs to the system's servers.
        assert (await DnsResolver([NS]).addresses("db.test", AF_INET6)).addresses == (V6,)
        etc.write(nsswitch="hosts: dns files\n")
        assert (await resolver.addresses("db.test", AF_INET6)).addresses == (V6,)


async def test_both_families_come_from_one_candidate_of_the_search_list(etc, autojump_clock):
    etc.write(resolv=f"nameserver {NS}\nsearch dev.test prod.test\n")
    with virtual_dns({"db.dev.test A": [V4], "db.prod.test AAAA": [V6]}) as server:
        resolver = DnsResolver()
        assert (await resolver.addresses("db", AF_INET6)).addresses == ()
        assert (await resolver.addresses("db", AF_INET)).addresses == (V4,)
        assert server.asked == ["db.dev.test AAAA", "db.dev.test A"]
        assert not (await resolver.addresses("nope", AF_INET)).name_exists
        assert server.asked[2:] == [
            f"nope{domain} {kind}" for domain in (".dev.test", ".prod.test") for kind in ("A", "AAAA")
        ] + ["nope A"]
        assert not (await DnsResolver([NS]).addresses("db", AF_INET)).name_exists


@pytest.mark.parametrize("host", ["db", "six", "web.test", "nope", "localhost", "pinned.test", "127.1", "sick.test"])
async def test_what_is_known_without_a_server_is_known_at_once(etc, host, autojump_clock):
    etc.write(resolv=f"nameserver {NS}\nsearch dev.test prod.test\n", hosts=f"{V4} pinned.test\n")
    zone = {**ZONE, "db.dev.test A": [V4], "six.prod.test AAAA": [V6], "sick.test A": fault(rcode="SERVFAIL")}
    by_a_server = host not in ("localhost", "pinned.test", "127.1")
    with virtual_dns(zone) as server:
        resolver = DnsResolver()
        assert (resolver._answers_now(host) is None) == by_a_server
        assert server.asked == []
        answers = {family: (await timed(resolver.addresses(host, family)))[0] for family in (AF_INET6, AF_INET)}
        asked = [*server.asked]
        assert resolver._answers_now(host) == (None if host == "sick.test" else answers)
        await trio.sleep(60)
        assert (resolver._answers_now(host) is None) == by_a_server
        assert server.asked == asked


async def test_an_answer_of_one_family_alone_is_not_enough(autojump_clock):
    with virtual_dns(ZONE) as server:
        resolver = DnsResolver([NS])
        await resolver.addresses("web.test", AF_INET)
        assert len(server.asked) == 1
        assert resolver._answers_now("web.test") is None


async def test_out_of_descriptors_the_systems_files_are_not_taken_for_empty(etc, autojump_clock, monkeypatch):
    etc.write(hosts=f"{V4} db.test\n")

    def no_open(path, mode):
        raise OSError(errno.EMFILE, "Too many open files")

    with virtual_dns({}):
        monkeypatch.setattr("builtins.open", no_open)
        error, _ = await timed(DnsResolver().addresses("db.test", AF_INET))
        assert str(error).startswith("[Errno 24] local: lookup of db.test")
        assert DnsResolver()._answers_now("db.test") is None


async def test_windows_keeps_its_servers_elsewhere(autojump_clock, monkeypatch):
    resolver = DnsResolver()
    monkeypatch.setattr("dns.resolver.Resolver", lambda: type("R", (), {"nameservers": [NS]}))
    assert resolver._wire.system_servers() == [NS]


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"servers": NS}, TypeError, "servers must be a sequence"),
        ({"servers": 3}, TypeError, "servers must be a sequence"),
        ({"servers": []}, ValueError, "servers must not be empty"),
        ({"servers": ["ns.test"]}, ValueError, "ns.test"),
        ({"servers": [(NS, 0)]}, ValueError, "port 0"),
        ({"min_ttl": -1}, ValueError, "min_ttl must be at least 0"),
        ({"max_ttl": float("inf")}, ValueError, "max_ttl must be at least 0 seconds and finite"),
        ({"max_stale": "1"}, TypeError, "max_stale must be a number of seconds"),
        ({"max_negative_ttl": float("nan")}, ValueError, "max_negative_ttl"),
        ({"min_ttl": 2, "max_ttl": 1}, ValueError, "min_ttl must not be above max_ttl, got 2 and 1"),
        ({"cache_size": 0}, ValueError, "cache_size must be at least 1"),
    ],
)
def test_bad_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        DnsResolver(**kwargs)


def test_servers_may_have_ports_and_stand_there_twice():
    resolver = DnsResolver([NS, (NS, 53), Endpoint(NS2, 5353)])
    assert repr(resolver) == "DnsResolver(['192.0.2.53:53', '192.0.2.54:5353'])"


@pytest.mark.parametrize("host", ["", "a b", "x" * 64])
@pytest.mark.parametrize("call", ["mx", "srv", "addresses"])
async def test_a_name_that_is_no_name(host, call):
    resolver = DnsResolver([NS])
    with pytest.raises(ValueError, match="host"):
        await (resolver.addresses(host, AF_INET) if call == "addresses" else getattr(resolver, call)(host))


@pytest.mark.parametrize("why", ["missing", "old"])
def test_without_dnspython_the_error_names_the_extra(why, monkeypatch):
    if why == "missing":
        monkeypatch.setitem(sys.modules, "dns", None)
    else:
        monkeypatch.setattr("dns.version.MINOR", 8)
    with pytest.raises(ImportError, match=r"trio-connect\[dns\]") as caught:
        DnsResolver()
    assert caught.value.name == "dns"


# --- real sockets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_real_sockets_udp_and_tcp(host):
    many = [f"192.0.2.{i}" for i in range(1, 61)]
    zone = {**ZONE, "many.test A": fault(*many, truncated=True), "test MX": ["10 mx.test."]}
    async with serving(zone, host=host) as (server, address):
        resolver = DnsResolver([address])
        with trio.fail_after(20):
            assert (await resolver.addresses("web.test", AF_INET6)).addresses == (V6,)
            assert len((await resolver.addresses("many.test", AF_INET)).addresses) == 60
            assert await resolver.mx("test") == [MailRecord("mx.test.", 10, 60.0)]
        assert server.transports == ["udp", "udp", "tcp", "udp"]


async def test_a_real_port_where_nobody_listens_costs_no_time():
    with socket.socket(AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()
    async with serving(ZONE) as (_, address):
        with trio.fail_after(20):
            found, took = await timed(DnsResolver([nobody, address]).addresses("web.test", AF_INET))
    assert found.addresses == (V4,)
    assert took < 0.9


async def test_resolve_and_connect_by_it():
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener[0].socket.getsockname()[1]
    async with serving({"web.test A": ["127.0.0.1"]}) as (_, address), listener[0]:
        resolver = DnsResolver([address])
        assert await resolve("web.test", port, deadline_after(20), resolver=resolver) == (Endpoint("127.0.0.1", port),)
        async with await connect("web.test", port, now() + 20_000, resolver=resolver) as stream:
            assert [lookup.kind for lookup in stream.report.lookups] == ["AAAA", "A"]
            # Both were in the cache, so nobody had to wait for either.
            assert len({time for each in stream.report.lookups for time in (each.started, each.ended)}) == 1


# --- cancel at every step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["udp", "tcp", "two servers", "block", "mx", "srv", "services"])
async def test_line_77_a_cancel_at_any_step_leaves_nothing(how, modes):
    zone = {"web.test A": fault(V4, truncated=how == "tcp")}
    async with serving(zone) as (_, address), serving({"web.test A": fault(rcode="SERVFAIL")}) as (_, broken):

        async def operation():
            resolver = DnsResolver([broken, address] if how == "two servers" else [address])
            if how in ("mx", "srv"):
                return await getattr(resolver, how)("web.test")
            if how == "services":
                return await DnsResolver([address], services="https").services("web.test", 443)
            if how == "block":
                async with resolver:
                    return await resolver.addresses("web.test", AF_INET)
            return await resolver.addresses("web.test", AF_INET)

        summary = await sweep(operation, dispose=nothing, modes=modes)
    assert summary.steps >= 3
