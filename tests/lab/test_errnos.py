"""Every errno that this kernel's TCP gives to connect(2), made by routes, packet filters and links."""

from __future__ import annotations

import errno
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.testing

from tests.lab.netlab import Host, cable
from tests.support import multipath
from tests.support.leaks import no_leaks
from trio_connect import DeadlineExceeded, Endpoint, SocketOptions, Source, now, tcp_connect, tcp_listen
from trio_connect._options import DEFAULT_OPTIONS

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's"),
]

Network: TypeAlias = tuple[Host, Host]
SERVER = "10.9.0.2"
SERVER6 = "fd00:0::2"


@attrs.frozen
class Cost:
    """What a failure took, in seconds."""

    wall: float
    cpu: float


async def failing(target: tuple[str, int], source: Source | None, options: SocketOptions) -> tuple[OSError, Cost]:
    """Connect in vain, and leave nothing."""
    async with no_leaks(ports=[target[1]]):
        wall, cpu = time.perf_counter(), time.thread_time()
        with pytest.raises(OSError, match="after") as caught:
            await tcp_connect(target, now() + 30_000, source=source, options=options)
        cost = Cost(time.perf_counter() - wall, time.thread_time() - cpu)
        error = caught.value.with_traceback(None)
        del caught
    return error, cost


@attrs.frozen
class Case:
    name: str
    code: int
    words: str
    fault: Callable[[Host, Host], object]
    targets: tuple[str, ...] = (SERVER,)
    source: Source | None = None
    options: SocketOptions = DEFAULT_OPTIONS
    local: bool = False
    takes: float = 0.0
    """How long the kernel waits before it gives up, in seconds: 0 where an answer comes or it says no at once."""


def route(kind: str) -> Callable[[Host, Host], object]:
    return lambda client, _: client.ip(f"route add {kind} 192.0.2.0/24", f"route add {kind} 2001:db8::/64")


def reject(how: str) -> Callable[[Host, Host], object]:
    return lambda _, server: server.filter("input", f"tcp dport 80 reject with {how}")


def drop(_: Host, server: Host) -> None:
    server.filter("input", "tcp dport 80 drop")


def drop_and_give_up(client: Host, server: Host) -> None:
    drop(client, server)
    client.sysctl("net.ipv4.tcp_syn_retries", 1)
    client.sysctl("net.ipv4.tcp_syn_linear_timeouts", 0)


def nobody_at_the_address(client: Host, _: Host) -> None:
    client.sysctl("net.ipv4.neigh.c0.retrans_time_ms", 50)


def nothing(_client: Host, _server: Host) -> None:
    pass


AWAY = ("192.0.2.1", "2001:db8::1")
CASES = [
    Case("no route", errno.ENETUNREACH, "network is unreachable", nothing, AWAY),
    Case("throw route", errno.ENETUNREACH, "network is unreachable", route("throw"), AWAY),
    Case("link down", errno.ENETUNREACH, "network is unreachable", lambda c, _: c.ip("link set c0 down")),
    Case("icmp net-unreachable", errno.ENETUNREACH, "network is unreachable", reject("icmp type net-unreachable")),
    Case("icmp net-prohibited", errno.ENETUNREACH, "network is unreachable", reject("icmp type net-prohibited")),
    Case("unreachable route", errno.EHOSTUNREACH, "no route to host", route("unreachable"), AWAY),
    Case("nobody at the address", errno.EHOSTUNREACH, "no route to host", nobody_at_the_address, ("10.9.0.77",),
         takes=0.15),
    Case("icmp host-unreachable", errno.EHOSTUNREACH, "no route to host", reject("icmp type host-unreachable")),
    Case("icmp admin-prohibited", errno.EHOSTUNREACH, "no route to host", reject("icmp type admin-prohibited")),
    Case("icmp host-prohibited", errno.EHOSTUNREACH, "no route to host", reject("icmp type host-prohibited")),
    Case("prohibit route", errno.EACCES, "permission denied", route("prohibit"), AWAY),
    Case("blackhole route", errno.EINVAL, "invalid argument", route("blackhole"), AWAY, local=True),
    Case("loopback as source", errno.EINVAL, "invalid argument", nothing, source=Source(ipv4="127.0.0.1"),
         local=True),
    Case("icmp prot-unreachable", errno.ENOPROTOOPT, "protocol not available", reject("icmp type prot-unreachable")),
    Case("closed port", errno.ECONNREFUSED, "refused", nothing, (SERVER, SERVER6)),
    Case("tcp reset", errno.ECONNREFUSED, "refused", reject("tcp reset"), (SERVER, SERVER6)),
    Case("icmp port-unreachable", errno.ECONNREFUSED, "refused", reject("icmp type port-unreachable")),
    Case("icmpv6 no-route", errno.ENETUNREACH, "network is unreachable", reject("icmpv6 type no-route"), (SERVER6,)),
    Case("icmpv6 addr-unreachable", errno.EHOSTUNREACH, "no route to host", reject("icmpv6 type addr-unreachable"),
         (SERVER6,)),
    Case("icmpv6 admin-prohibited", errno.EACCES, "permission denied", reject("icmpv6 type admin-prohibited"),
         (SERVER6,)),
    Case("icmpv6 policy-fail", errno.EACCES, "permission denied", reject("icmpv6 type policy-fail"), (SERVER6,)),
    Case("icmpv6 reject-route", errno.EACCES, "permission denied", reject("icmpv6 type reject-route"), (SERVER6,)),
    Case("icmpv6 port-unreachable", errno.ECONNREFUSED, "refused", reject("icmpv6 type port-unreachable"), (SERVER6,)),
    Case("user timeout", errno.ETIMEDOUT, "timed out in the kernel", drop, options=SocketOptions(user_timeout=0.7),
         takes=0.7),
    Case("SYN retries used up", errno.ETIMEDOUT, "timed out in the kernel", drop_and_give_up, takes=3.0),
    Case("address of another host", errno.EADDRNOTAVAIL, "cannot assign requested address", nothing,
         source=Source(ipv4=SERVER), local=True),
    Case("no such interface", errno.ENODEV, "no such device", nothing, source=Source(interface="c7"), local=True),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_errno(network: Network, case: Case) -> None:
    client, server = network
    case.fault(client, server)
    for host in case.targets:
        error, cost = client.trio(failing, (host, 80), case.source, case.options)
        assert error.errno == case.code
        assert type(error) is type(OSError(case.code, ""))
        assert not isinstance(error, DeadlineExceeded)
        target = re.escape(str(Endpoint(host, 80)))
        words = case.words if case.words in ("refused", "timed out in the kernel") else rf"failed \({case.words}\)"
        shape = (
            rf"\[Errno {case.code}\] local: \w+ for {target}: {case.words} \(from .+, after (\d+\.\d) ms\)"
            if case.local
            else rf"\[Errno {case.code}\] connect to {target} from .+ {words} after (\d+\.\d) ms"
        )
        match = re.fullmatch(shape, str(error))
        assert match, str(error)
        assert float(match[1]) <= cost.wall * 1000 + 0.1
        # Below the second after which a SYN is sent again: by then nearly every fault would be found.
        assert cost.wall < case.takes + 0.5 + multipath.HEARD_LATE, "whoever knows that it failed says so"
        assert cost.cpu < 0.1, "nothing spins while it waits"
        if case.code == errno.ETIMEDOUT:
            assert cost.wall > 0.5, "the kernel's patience, not ours"


def test_a_loopback_that_never_came_up(network: Network) -> None:
    with Host(loopback=False) as bare:
        error, _ = bare.trio(failing, ("127.0.0.1", 80), None, DEFAULT_OPTIONS)
        assert error.errno == errno.ENETUNREACH
        assert "connect to 127.0.0.1:80 from" in str(error)
        error, _ = bare.trio(failing, ("::1", 80), None, DEFAULT_OPTIONS)
        assert error.errno == errno.EADDRNOTAVAIL
        assert "local: connect for [::1]:80: cannot assign" in str(error)
        assert "no IPv6 address here" in error.__notes__[0]


def test_field_30_ipv6_switched_off(network: Network) -> None:
    """IPv6 that is switched off is named as that, and local ports are not blamed."""
    client, _ = network
    client.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    error, _ = client.trio(failing, (SERVER6, 80), None, DEFAULT_OPTIONS)
    assert error.errno == errno.EADDRNOTAVAIL
    assert "IPv6 is switched off" in error.__notes__[0]
    assert "port" not in error.__notes__[0]


def test_local_ports_used_up(network: Network) -> None:
    client, server = network
    client.sysctl("net.ipv4.ip_local_port_range", "40000 40001")

    async def main() -> None:
        async with no_leaks():
            streams = [await tcp_connect(listener.getsockname()) for _ in range(2)]
            for source in (None, Source(ipv4="10.9.0.1")):
                with pytest.raises(OSError, match=r"local: connect for 10\.9\.0\.2:\d+: cannot assign") as caught:
                    await tcp_connect(listener.getsockname(), source=source)
                assert caught.value.errno == errno.EADDRNOTAVAIL
                assert "ip_local_port_range" in caught.value.__notes__[0]
                del caught
            # Ports are counted per destination: another one is still reached, also from a bound address.
            streams.append(await tcp_connect(other.getsockname(), source=Source(ipv4="10.9.0.1")))
            for stream in streams:
                stream.abort()

    with server.listener(SERVER) as listener, server.listener(SERVER) as other:
        client.trio(main)


def test_a_black_hole_ends_with_our_deadline(network: Network) -> None:
    client, server = network
    drop(client, server)

    async def main() -> None:
        async with no_leaks(ports=[80]):
            for deadline in (lambda: 0, lambda: now() + 50):
                with pytest.raises(DeadlineExceeded, match=r"connect to 10\.9\.0\.2:80 from 10\.9\.0\.1 had no result"):
                    await tcp_connect((SERVER, 80), deadline())

    client.trio(main)


def test_a_link_that_goes_down_leaves_the_deadline_holding(network: Network) -> None:
    client, server = network
    drop(client, server)

    async def main() -> None:
        async with no_leaks(ports=[80]), trio.open_nursery() as nursery:

            async def connecting() -> None:
                with pytest.raises(DeadlineExceeded):
                    await tcp_connect((SERVER, 80), now() + 100)

            nursery.start_soon(connecting)
            await trio.testing.wait_all_tasks_blocked()
            client.ip("link set c0 down")

    client.trio(main)


def test_a_peer_that_vanishes_breaks_the_stream(network: Network) -> None:
    client, server = network

    async def main() -> None:
        async with no_leaks():
            stream = await tcp_connect(listener.getsockname(), options=SocketOptions(user_timeout=0.5))
            server.filter("prerouting", "iif s0 drop")
            await stream.send_all(b"x")
            for _ in range(2):  # the kernel tells it once, we as often as we are asked
                with pytest.raises(trio.BrokenResourceError, match="broke: connection timed out"):
                    await stream.receive_some(None, now() + 30_000)
            await stream.aclose()

    with server.listener(SERVER) as listener:
        client.trio(main)


def test_link_local_addresses_have_a_zone(network: Network) -> None:
    client, server = network
    server.ip("addr add fe80::2/64 dev s0 nodad")
    client.ip("addr add fe80::1/64 dev c0 nodad")
    with client.inside():
        index = socket.if_nametoindex("c0")

    async def main() -> None:
        async with no_leaks():
            for endpoint in (
                Endpoint("fe80::2", port, "c0"),
                Endpoint("fe80::2", port, index),
                Endpoint.parse(f"[fe80::2%c0]:{port}"),
            ):
                async with await tcp_connect(endpoint, now() + 5000) as stream:
                    assert stream.peer == endpoint
                    assert (stream.local.host, stream.local.scope_id) == (stream.local.host, index)
            with pytest.raises(OSError, match=r"local: socket for \[fe80::2%c7\]") as caught:
                await tcp_connect(Endpoint("fe80::2", port, "c7"))
            assert caught.value.errno == errno.ENODEV
            del caught
            async with await tcp_listen(Endpoint("fe80::1", 0, "c0")) as own:
                assert own.endpoint.scope_id == index
                source = Source(ipv6="fe80::1%c0")
                async with await tcp_connect(own.endpoint, now() + 5000, source=source), await own.accept() as far:
                    assert far.peer.scope_id == index

    with server.listener("::") as listener:
        port = listener.getsockname()[1]
        client.trio(main)


def test_a_source_picks_the_uplink(network: Network) -> None:
    client, server = network
    cable(client, server, 1)
    server.ip("addr add 10.8.0.1/32 dev lo")
    client.ip(
        "route add 10.8.0.1/32 via 10.9.0.2",
        "route add 10.8.0.1/32 via 10.9.1.2 table 101",
        "rule add from 10.9.1.1 lookup 101",
        "rule add oif c1 lookup 101",
    )

    async def main() -> None:
        async with no_leaks():

            async def comes_from(source: Source | None) -> str:
                stream = await tcp_connect(listener.getsockname(), now() + 5000, source=source)
                sock, peer = listener.accept()
                sock.close()
                await stream.aclose()
                assert isinstance(peer[0], str)
                return peer[0]

            assert await comes_from(None) == "10.9.0.1"
            for source in (Source(ipv4="10.9.1.1"), Source(interface="c1")):
                assert await comes_from(source) == "10.9.1.1"
            # With the first uplink dead, the second still leads there.
            server.filter("prerouting", "iif s0 drop")
            with pytest.raises(DeadlineExceeded):
                await tcp_connect(listener.getsockname(), now() + 100)
            assert await comes_from(Source(ipv4="10.9.1.1")) == "10.9.1.1"

    with server.listener("10.8.0.1") as listener:
        client.trio(main)
