"""Every fault of the virtual network: the verdict in words and the exit code, in a race and each address by itself.

The rows of `FAULTS` are the table of docs/how-to/probe.md, which a test compares.
"""

# ruff: noqa: E501
# A verdict is one line, as on the page.
from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
import trio

from tests.support.tls import client_context, server_context
from trio_connect.testing import echo

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "probe.md"
V6, V4 = "2001:db8::1", "192.0.2.1"
Network: TypeAlias = Any


async def greet_in_tls(context: ssl.SSLContext, stream: trio.abc.Stream) -> None:
    tls = trio.SSLStream(stream, context, server_side=True)
    try:
        await tls.do_handshake()
        await tls.receive_some()
    except trio.BrokenResourceError:
        pass


def both(net: Network, make: Callable[[Any], object]) -> None:
    net.dns("host.test", [V6, V4])
    for address in (V6, V4):
        make(net.host(address, rtt=0.020))


def dead_v6(net: Network) -> None:
    net.dns("host.test", [V6, V4])
    net.host(V6).blackhole()
    net.host(V4, rtt=0.020).listen(80, echo)


def refused_v6(net: Network) -> None:
    net.dns("host.test", [V6, V4])
    net.host(V6, rtt=0.020).refuse()
    net.host(V4, rtt=0.020).listen(80, echo)


def dead_tls_on_v6(net: Network) -> None:
    net.dns("host.test", [V6, V4])
    net.host(V6, rtt=0.020).silent(443)
    net.host(V4, rtt=0.020).listen(443, partial(greet_in_tls, server_context("host.test")))


def no_dns(net: Network) -> None:
    net.dns("host.test", a_error=socket.EAI_AGAIN, aaaa_error=socket.EAI_AGAIN)


def silent_dns(net: Network) -> None:
    net.dns("host.test", [V6, V4], a_delay=float("inf"), aaaa_delay=float("inf"))


def slow(net: Network) -> None:
    both(net, lambda host: host.listen(80, echo, rtt=1.5))


def slow_aaaa(net: Network) -> None:
    net.dns("host.test", [V6, V4], aaaa_delay=2.0)
    for address in (V6, V4):
        net.host(address, rtt=0.020).listen(80, echo)


def expired(net: Network) -> None:
    both(net, lambda host: host.listen(443, partial(greet_in_tls, server_context("host.test", expired=True))))


@attrs.frozen
class Fault:
    """A row of the page: what is wrong, and what a race and ``--each`` say, with their exit codes."""

    name: str
    make: Callable[[Network], object]
    port: int
    race: tuple[int, str]
    each: tuple[int, str]


def same(code: int, text: str) -> tuple[tuple[int, str], tuple[int, str]]:
    return (code, text), (code, text)


SILENT = same(
    28,
    "the IPv6 address is silent; the IPv4 address is silent: a filter drops what is sent there, or nobody has the address",
)
FAULTS = [
    Fault(
        "nothing", lambda net: both(net, lambda host: host.listen(80, echo)), 80,
        (0, "IPv6 works in 20 ms: nothing is wrong"),
        (0, "IPv6 works in 20 ms; IPv4 works in 20 ms: nothing is wrong"),
    ),
    Fault(
        "refused", lambda net: both(net, lambda host: host.refuse()), 80,
        *same(7, "the IPv6 address refuses; the IPv4 address refuses: the machine is up, and nothing listens on port 80 or a filter rejects"),
    ),
    Fault("black hole", lambda net: both(net, lambda host: host.blackhole()), 80, *SILENT),
    Fault(
        "ICMP unreachable", lambda net: both(net, lambda host: host.unreachable(errno.EHOSTUNREACH)), 80,
        *same(7, "the IPv6 address is unreachable (no route to host); the IPv4 address is unreachable (no route to host): no route leads there from here"),
    ),
    Fault(
        "rejected by a local packet filter", lambda net: both(net, lambda host: host.unreachable(errno.EACCES, after=0)), 80,
        *same(7, "the IPv6 address is forbidden here (permission denied); the IPv4 address is forbidden here (permission denied): the trouble is on this machine"),
    ),
    Fault(
        "IPv6 dead", dead_v6, 80,
        (0, "IPv4 works in 20 ms; the IPv6 address had not answered after 270 ms: a client without racing waits for it, and --each shows whether an answer ever comes"),
        (28, "IPv4 works in 20 ms; the IPv6 address is silent: every client without racing waits for it"),
    ),
    Fault(
        "IPv6 refused", refused_v6, 80,
        (0, "IPv4 works in 20 ms; the IPv6 address refuses: every client that does not go on to the next address fails on it"),
        (7, "IPv4 works in 20 ms; the IPv6 address refuses: every client that does not go on to the next address fails on it"),
    ),
    Fault(
        "slow", slow, 80,
        (0, "IPv6 works, but slowly: in 1.5 s; the IPv4 address had not answered after 1.25 s: that is as long as a lost packet that was sent again, so look for loss on the way"),
        (0, "IPv6 works, but slowly: in 1.5 s; IPv4 works, but slowly: in 1.5 s: that is as long as a lost packet that was sent again, so look for loss on the way"),
    ),
    Fault(
        "TLS dead", lambda net: both(net, lambda host: host.silent(443)), 443,
        *same(28, "the IPv6 address accepts and then says nothing in TLS; the IPv4 address accepts and then says nothing in TLS: something accepts connections, and the program behind it is stuck or speaks another protocol"),
    ),
    Fault(
        "TLS dead on IPv6", dead_tls_on_v6, 443,
        (0, "IPv4 works in 40 ms; the IPv6 address had connected and not answered in TLS after 310 ms: a client without racing waits for it, and --each shows whether an answer ever comes"),
        (28, "IPv4 works in 40 ms; the IPv6 address accepts and then says nothing in TLS: every client that takes the first address that connects hangs on it"),
    ),
    Fault(
        "certificate expired", expired, 443,
        *same(60, "the IPv6 address fails in TLS (certificate has expired); the IPv4 address fails in TLS (certificate has expired): the way there is fine, what answers is not what clients want"),
    ),
    Fault(
        "no TLS there", lambda net: both(net, lambda host: host.listen(443, echo)), 443,
        *same(35, "the IPv6 address fails in TLS (unexpected message); the IPv4 address fails in TLS (unexpected message): the way there is fine, what answers is not what clients want"),
    ),
    Fault(
        "DNS dead", no_dns, 80,
        *same(6, "the AAAA lookup of host.test failed after 0 ms (Temporary failure in name resolution); the A lookup of host.test failed after 0 ms (Temporary failure in name resolution): without an address there is nothing to connect to"),
    ),
    Fault(
        "DNS silent", silent_dns, 80,
        *same(28, "the AAAA lookup of host.test had no answer after 10 s; the A lookup of host.test had no answer after 10 s: the name servers are silent, or out of reach from here"),
    ),
    Fault(
        "AAAA slow", slow_aaaa, 80,
        (0, "IPv4 works in 20 ms; the AAAA lookup of host.test had no answer after 70 ms: every client that waits for both lookups is held up or fails"),
        (0, "IPv4 works in 20 ms; IPv6 works in 20 ms; the AAAA lookup of host.test took 2 s: every client that waits for both lookups is held up or fails"),
    ),
    Fault("no such name", lambda net: net.dns("host.test"), 80, *same(6, "there is no name host.test: look for a typing mistake, or in the zone")),
]  # fmt: skip


@pytest.mark.parametrize("each", [False, True], ids=["race", "each"])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_verdict_and_exit_code(fault, each, probe, vnet, autojump_clock, monkeypatch):
    fault.make(vnet)
    trusting = client_context()
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    words = [f"host.test:{fault.port}", "--alpn", "h2", *(["--each"] if each else [])]
    found = await probe(*words)
    assert (int(found.code), found.verdict) == (fault.each if each else fault.race)


def test_the_page_has_this_table():
    rows = ["| what is wrong | exit code | the verdict of a race | `--each` | its verdict |", "|---|---|---|---|---|"]
    for fault in FAULTS:
        each = ("the same", "") if fault.each == fault.race else fault.each
        rows.append(f"| {fault.name} | {fault.race[0]} | {fault.race[1]} | {each[0]} | {each[1]} |")
    table = "\n".join(rows)
    assert table in PAGE.read_text(), table
