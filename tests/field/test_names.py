"""Numbers 5 to 10, 32 and 35 of the field reports: names, answers, and what error texts say of them."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import AsyncIterator
from socket import AF_INET, AF_INET6, gaierror
from typing import Any

import pytest
import trio

from tests.net.racing import dead, good, starts
from tests.support.etc import Etc
from trio_connect import (
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    RacePolicy,
    Source,
    StaticResolver,
    connect,
    connectx,
    now,
    order_endpoints,
    resolve,
    tcp_listen,
    unix_connect,
)
from trio_connect._engine.order import Knowledge, interleave, order
from trio_connect._net.names import route
from trio_connect.testing import VirtualNetwork

V6, V4 = "2001:db8::1", "192.0.2.1"
MAPPED = "::ffff:192.0.2.7"


# ---------------------------------------------------------------------- 5


@pytest.mark.parametrize("first_family", [None, AF_INET, AF_INET6])
def test_field_05_an_ipv4_mapped_address_takes_a_turn_of_ipv4(first_family):
    """::ffff:192.0.2.7 is ordered as the IPv4 address that it is."""
    given = [Endpoint(host, 443) for host in (V6, MAPPED, "2001:db8::2", V4, "2001:db8::3")]
    hosts = [endpoint.host for endpoint in interleave(given, first_family=first_family)]
    v6_first = [V6, MAPPED, "2001:db8::2", V4, "2001:db8::3"]
    assert hosts == ([MAPPED, V6, V4, "2001:db8::2", "2001:db8::3"] if first_family == AF_INET else v6_first)


def test_field_05_the_longest_prefix_is_no_matter_for_mapped_addresses():
    """Rule 9 leaves mapped addresses in the order given, as it does IPv4 addresses."""
    near, far = Endpoint("::ffff:192.0.2.9", 443), Endpoint("::ffff:203.0.113.9", 443)
    source = "::ffff:192.0.2.8"
    assert order([far, near], Knowledge(sources={near: source, far: source})) == (far, near)


# ---------------------------------------------------------------------- first_family


async def test_field_06_the_caller_can_put_ipv4_first(vnet, autojump_clock):
    """With `first_family=AF_INET` the race begins with IPv4."""
    good(vnet, V6, V4)
    vnet.dns("api.test", aaaa=[V6], a=[V4])
    stream = await connect("api.test", 443, policy=RacePolicy(first_family=AF_INET))
    assert starts(stream.report) == {V4: 0.0, V6: None}
    await stream.aclose()


@pytest.mark.parametrize(
    ("first_family", "aaaa_delay", "a_delay", "began"),
    [
        (AF_INET, 0.0, 0.030, 30.0),  # IPv6 waits for IPv4
        (AF_INET, 0.0, 1.0, 50.0),  # but not for ever
        (AF_INET, 1.0, 0.010, 10.0),  # the first IPv4 address is enough
        (AF_INET6, 0.030, 0.0, 30.0),
        ("system", 0.030, 0.0, 30.0),
    ],
)
async def test_field_06_the_first_family_turns_the_gate(vnet, autojump_clock, first_family, aaaa_delay, a_delay, began):
    """Connecting begins with the first answer of the family that comes first."""
    good(vnet, V6, V4)
    vnet.dns("api.test", aaaa=[V6], a=[V4], aaaa_delay=aaaa_delay, a_delay=a_delay)
    stream = await connect("api.test", 443, policy=RacePolicy(first_family=first_family))
    winner = stream.report.winner
    assert winner is not None
    assert winner.started == pytest.approx(began / 1000)
    await stream.aclose()


async def test_field_06_order_endpoints_has_the_first_family_too():
    """`order_endpoints` puts the family first that the policy names."""
    both = [(V6, 443), ("192.0.2.1", 443)]
    for family in (AF_INET, AF_INET6):
        assert order_endpoints(both, policy=RacePolicy(first_family=family))[0].family == family
        assert order_endpoints(both[:1], policy=RacePolicy(first_family=family)) == (Endpoint(V6, 443),)


@pytest.mark.parametrize("bad", ["ipv4", 4, None, socket.AF_UNSPEC, True])
def test_field_06_another_first_family_is_refused(bad):
    """Anything else is a ValueError that names the three."""
    with pytest.raises(ValueError, match=r'first_family must be "system", socket.AF_INET or socket.AF_INET6, got'):
        RacePolicy(first_family=bad)


# ---------------------------------------------------------------------- 8


async def test_field_08_a_lookup_that_failed_is_named_beside_the_attempts(vnet, autojump_clock):
    """The text of a failed connect names the lookup that failed, and with what."""
    vnet.host(V4).refuse()
    vnet.dns("api.test", a=[V4], aaaa_error=socket.EAI_AGAIN)
    with pytest.raises(ConnectFailed) as caught:
        await connect("api.test", 443)
    text = str(caught.value)
    assert "(refused: 1)" in text
    assert f"; the AAAA lookup of api.test failed: [Errno {socket.EAI_AGAIN}] Temporary failure in name" in text
    assert "the A lookup" not in text


async def test_field_08_and_beside_attempts_that_the_deadline_ended(vnet, autojump_clock):
    """`DeadlineExceeded` names it likewise."""
    dead(vnet, V4)
    vnet.dns("api.test", a=[V4], aaaa_error=gaierror(socket.EAI_FAIL, "broken\nline"))
    with pytest.raises(DeadlineExceeded) as caught:
        await connect("api.test", 443, now() + 100)
    assert f"(the AAAA lookup of api.test failed: [Errno {socket.EAI_FAIL}] broken\\nline)" in str(caught.value)


# ---------------------------------------------------------------------- 10, 32


@pytest.mark.parametrize("host", ["a\x1b[31m.test", "a\x07.test", "a\x7f.test"])
async def test_field_10_a_host_with_control_characters_is_refused(host):
    """A host with a control character is a ValueError, whose text shows it escaped."""
    for call in (connect, resolve):
        with pytest.raises(ValueError, match="a host has no control characters") as caught:
            await call(host, 443)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("host", ["a" * 1_000_000, "ü" * 1_000_000, "1" * 1_000_000, ":" * 1_000_000])
async def test_field_10_a_huge_host_is_not_echoed(host):
    """The text shows both ends of it and its length."""
    calls = (lambda: connect(host, 443), lambda: resolve(host, 443))
    for call in calls:
        with pytest.raises(ValueError, match=r"\.\.\..*\(1000000 characters\)") as caught:
            await call()
        assert len(str(caught.value)) < 1000
    for refuse in (
        lambda: Endpoint(host, 443),
        lambda: Endpoint.parse(host),
        lambda: Source(host),
        lambda: Source(interface=host),
        lambda: Endpoint("fe80::1", 443, host),
        lambda: StaticResolver({host: V4}),
    ):
        with pytest.raises(ValueError, match="got") as refused:
            refuse()
        assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("zone", ["\x1b[31m", "e\x7f"])
def test_field_10_a_zone_has_no_control_characters(zone):
    """A zone or an interface that does not print is a ValueError."""
    for refuse in (lambda: Endpoint(f"fe80::1%{zone}", 443), lambda: Endpoint("fe80::1", 443, zone)):
        with pytest.raises(ValueError, match="interface") as caught:
            refuse()
        assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match="interface"):
        Source(interface=zone)


@pytest.mark.parametrize("path", ["/tmp/\x1b[31mred", "/tmp/" + "a" * 100_000])
async def test_field_10_a_path_is_shown_safely(path):
    """The path of a unix-domain socket is escaped and cut in error texts."""
    with pytest.raises(OSError, match="connect") as caught:
        await unix_connect(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


async def test_field_10_what_a_resolver_says_is_shown_safely(vnet, autojump_clock):
    """The text of a resolver's error is escaped and cut."""
    vnet.dns("api.test", a_error=gaierror(socket.EAI_FAIL, "\x1b[2J" + "x" * 100_000))
    with pytest.raises(ConnectFailed) as caught:
        await connect("api.test", 443)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


async def test_field_32_an_empty_host_is_no_host():
    """`connect("", 80)` says that there is no host."""
    for call in (connect, resolve):
        with pytest.raises(ValueError, match=r"^no host: "):
            await call("", 80)
    with pytest.raises(ValueError, match=r"^no host: "):
        Endpoint("", 80)
    with pytest.raises(ValueError, match=r"^no host: "):
        StaticResolver({"": V4})


# ---------------------------------------------------------------------- 35


@pytest.mark.parametrize("given", ["bücher.test", "BÜCHER.test.", "xn--bcher-kva.test"])
async def test_field_35_the_virtual_network_knows_names_beyond_ascii(vnet: VirtualNetwork, autojump_clock, given):
    """`net.dns("bücher.test", ...)` answers for that name, in either spelling."""
    vnet.dns(given, a=[V4])
    for asked in ("bücher.test", "xn--bcher-kva.test", "xn--bcher-kva.test."):
        assert await resolve(asked, 443) == (Endpoint(V4, 443),)


# ---------------------------------------------------------------------- 9


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
async def test_field_09_the_kernel_is_asked_for_no_more_routes_than_are_tried(
    monkeypatch, vnet, autojump_clock, family
):
    """Of an answer with 4,000 addresses 64 are read; the kernel is asked for the routes of these."""
    hosts = [f"192.0.{i // 256}.{i % 256}" if family == AF_INET else f"2001:db8::{i + 1:x}" for i in range(4000)]
    asked: list[Endpoint] = []

    def look_up_route(endpoint: Endpoint, _source: object = None) -> None:
        asked.append(endpoint)

    monkeypatch.setattr(route, "look_up_route", look_up_route)
    monkeypatch.setattr("trio_connect._net.names.ordering.kernel_knows", lambda **_: True)
    dead(vnet, *hosts[:64])
    resolver = StaticResolver({"hostile.test": hosts})
    assert len(await resolve("hostile.test", 443, resolver=resolver)) == 64
    assert [endpoint.host for endpoint in asked] == hosts[:64]
    asked.clear()
    with pytest.raises(DeadlineExceeded) as caught:
        await connect("hostile.test", 443, now() + 1000, resolver=resolver)
    assert len(asked) == 64
    report = caught.value.report
    assert report is not None
    assert len(report.attempts) == 64


@pytest.mark.parametrize("kind", ["the same again", "always another"])
async def test_field_09_an_endless_async_iterable_does_not_hold_the_loop(autojump_clock, vnet, kind):
    """An async iterable that never waits is read to the cap; one that repeats itself leaves the loop to others."""
    dead(vnet, *(f"2001:db8::{i + 1:x}" for i in range(64)))
    count = 0

    async def endpoints() -> AsyncIterator[Endpoint]:
        nonlocal count
        while True:
            yield Endpoint(f"2001:db8::{count + 1:x}" if kind == "always another" else V6, 443)
            count += 1

    with pytest.raises(DeadlineExceeded):
        await connectx(endpoints(), now() + 1000)
    assert count < 100_000


# ---------------------------------------------------------------------- 6: what this machine is short of


async def test_field_06_no_thread_to_be_had_is_local(monkeypatch, tmp_path):
    """A lookup that gets no thread is EAGAIN, "local: ...", and no RuntimeError."""
    Etc(tmp_path, monkeypatch)

    async def run_sync(*_args: object, **_options: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    for call in (connect, resolve):
        with pytest.raises(ConnectFailed, match=r"local: lookup of api\.test: no thread can be started") as caught:
            await call("api.test", 443)
        assert caught.value.errno == errno.EAGAIN


async def test_field_06_no_descriptor_for_a_lookup_is_local(monkeypatch, tmp_path):
    """EMFILE in a lookup is called local, and a name that the hosts file blocks is not asked of DNS meanwhile."""
    Etc(tmp_path, monkeypatch).write(hosts="0.0.0.0 api.test\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(ConnectFailed, match=r"local: lookup of api\.test: too many open files") as caught:
            await connect("api.test", 443)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.errno == errno.EMFILE


async def test_field_06_a_pin_in_the_hosts_file_holds(monkeypatch, tmp_path):
    """`connect` goes to the address in the hosts file, and getaddrinfo is not called."""
    Etc(tmp_path, monkeypatch).write(hosts="127.0.0.1 api.test\n")
    monkeypatch.setattr(socket, "getaddrinfo", None)
    listener = await tcp_listen(("127.0.0.1", 0))
    async with listener, await connect("api.test", listener.endpoint.port) as stream:
        assert stream.peer.host == "127.0.0.1"


async def test_field_07_a_relative_name_goes_to_one_host(monkeypatch, tmp_path):
    """With two hosts behind one relative name, the first candidate of the search list has both families."""
    Etc(tmp_path, monkeypatch).write(resolv="search dev.example prod.example\n")

    asked: list[bytes] = []

    def getaddrinfo(host: bytes, _port: int, family: int, kind: int) -> list[Any]:
        asked.append(host)
        if (host, family) == (b"db.dev.example.", AF_INET):
            return [(AF_INET, kind, 6, "", ("192.0.2.1", 0))]
        if (host, family) == (b"db.prod.example.", AF_INET6):
            return [(AF_INET6, kind, 6, "", ("2001:db8::9", 0, 0, 0))]
        raise gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert await resolve("db", 5432) == (Endpoint("192.0.2.1", 5432),)
    assert asked == [b"db.dev.example."] * 2


async def test_field_06_the_policy_table_of_the_system_orders(monkeypatch, tmp_path):
    """A line in /etc/gai.conf puts IPv4 first."""
    etc = Etc(tmp_path, monkeypatch)
    monkeypatch.setattr(route, "look_up_route", lambda endpoint, _source=None: endpoint.host)
    both = [(V4, 443), (V6, 443)]
    assert [endpoint.host for endpoint in order_endpoints(both)] == [V6, V4]
    etc.write(gai="precedence ::ffff:0:0/96 100\n")
    assert [endpoint.host for endpoint in order_endpoints(both)] == [V4, V6]
