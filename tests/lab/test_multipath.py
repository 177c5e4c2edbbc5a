"""MPTCP over two paths, and over paths, peers and systems that do not let it through."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import trio

from tests.lab.netlab import Host, NotPermitted, cable
from tests.support import multipath
from tests.support.leaks import no_leaks
from trio_connect import (
    Multipath,
    RacePolicy,
    SocketOptions,
    TcpListener,
    TcpStream,
    connectx,
    now,
    tcp_connect,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        sys.platform != "linux" or not multipath.available(),
        reason="this kernel makes no MPTCP sockets (CONFIG_MPTCP, sysctl net.mptcp.enabled)",
    ),
]

Network: TypeAlias = tuple[Host, Host]

ROOT: Final = Path(__file__).parents[2]
SERVER: Final = "10.9.0.2"
ASKED: Final = SocketOptions(multipath=True)
TOTAL: Final = 8_000_000
STALL: Final = 0.5  # seconds, at most, that no byte comes when a path dies
DELAY: Final = 0.25  # RacePolicy.attempt_delay unless changed
# Option 30 of TCP, RFC 8684 section 3.
DROPS_THE_OPTION: Final = "tcp flags & (syn | ack) == syn tcp option 30 exists drop"


@contextlib.contextmanager
def listening(server: Host, host: str = SERVER, *, proto: int = multipath.IPPROTO_MPTCP) -> Iterator[socket.socket]:
    with server.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto)
    with sock:
        sock.bind((host, 0))
        sock.listen()
        yield sock


def two_paths(network: Network) -> None:
    """Let connections between the two hosts use both cables."""
    client, server = network
    cable(client, server, 1)
    for host, link in ((client, "c"), (server, "s")):
        for name in ("all", f"{link}0", f"{link}1"):
            host.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)
        host.run("ip", "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2")
    client.run("ip", "mptcp", "endpoint", "add", "10.9.1.1", "dev", "c1", "subflow")
    server.run("ip", "mptcp", "endpoint", "add", "10.9.1.2", "dev", "s1", "signal")


async def subflows(stream: TcpStream, count: int) -> None:
    """Wait until a connection has so many subflows."""
    with trio.fail_after(5):
        while stream.multipath != Multipath(subflows=count):  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.005)


def test_a_connection_survives_the_loss_of_a_path(network: Network) -> None:
    """Two subflows, one path killed while 8 MB flow: every byte arrives, and nothing stalls for long."""
    client, server = network
    two_paths(network)

    async def main() -> None:
        async with TcpListener.from_socket(raw) as listener:
            near = await tcp_connect(listener.endpoint, options=ASKED)
            far = await listener.accept()
            assert near.report.multipath is not None  # the second subflow may have been as quick
            await subflows(near, 2)
            await subflows(far, 2)
            received = 0
            longest = 0.0

            async def send() -> None:
                chunk = bytes(16_000)
                for number in range(TOTAL // len(chunk)):
                    if number == 100:
                        client.filter("output", "oif c0 drop")
                        server.filter("output", "oif s0 drop")
                    await near.send_all(chunk)
                    await trio.sleep(0.002)
                await near.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                last = time.perf_counter()
                with trio.fail_after(30):
                    while part := await far.receive_some():
                        received += len(part)
                        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
            assert received == TOTAL
            assert longest < STALL
            near.abort()
            far.abort()

    with listening(server) as raw:
        client.trio(main)


def test_an_option_that_is_dropped_costs_a_race_one_attempt_delay(network: Network) -> None:
    client, server = network
    server.filter("prerouting", DROPS_THE_OPTION)

    async def main() -> None:
        async with no_leaks(), TcpListener.from_socket(raw) as listener:
            for policy, delay in ((RacePolicy(), DELAY), (RacePolicy(attempt_delay=0.05), 0.05)):
                took = []
                for _ in range(4):
                    started = time.perf_counter()
                    near = await connectx([listener.endpoint], now() + 10_000, policy=policy, options=ASKED)
                    took.append(time.perf_counter() - started)
                    assert near.multipath is near.report.multipath is None
                    lost, won = near.report.attempts
                    assert (lost.outcome, lost.plain, won.outcome, won.plain) == ("lost", False, "won", True)
                    near.abort()
                assert min(took) >= delay
                # What else this machine does meanwhile is not counted; the first race loads what a race needs.
                assert min(took) < delay + 0.05

    with listening(server) as raw:
        client.trio(main)


def test_an_option_that_is_dropped_costs_a_single_connect_three_seconds(network: Network) -> None:
    client, server = network
    server.filter("prerouting", DROPS_THE_OPTION)

    async def main() -> None:
        async with no_leaks(), TcpListener.from_socket(raw) as listener:
            started = time.perf_counter()
            near = await tcp_connect(listener.endpoint, now() + 10_000, options=ASKED)
            assert 2.5 < time.perf_counter() - started < 4.5
            assert near.multipath is None
            near.abort()

    with listening(server) as raw:
        client.trio(main)


def test_plain_peers_and_plain_clients_fall_back(network: Network) -> None:
    client, server = network

    async def main() -> None:
        for raw, options in ((plain, ASKED), (asked, SocketOptions())):
            async with (
                no_leaks(),
                TcpListener.from_socket(raw) as listener,
                await tcp_connect(listener.endpoint, options=options) as near,
                await listener.accept() as far,
            ):
                await near.send_all(b"question")
                assert await far.receive_exactly(8) == b"question"
                assert near.multipath is far.multipath is near.report.multipath is None

    with listening(server, proto=0) as plain, listening(server) as asked:
        client.trio(main)


def test_switched_off(network: Network) -> None:
    client, server = network
    client.sysctl("net.mptcp.enabled", 0)

    async def main() -> None:
        async with no_leaks(), TcpListener.from_socket(raw) as listener:
            async with await tcp_connect(listener.endpoint, options=ASKED) as near:
                assert near.multipath is near.report.multipath is None
            # An option that only an MPTCP socket refuses is no trouble then.
            options = SocketOptions(multipath=True, user_timeout=3)
            async with await connectx([listener.endpoint], options=options) as near:
                assert near.multipath is None
                assert len(near.report.attempts) == 1

    async def silent() -> None:
        # A race that needs no plain attempt waits for its own, and makes no second connection.
        with pytest.raises(TimeoutError) as caught:
            await connectx([(SERVER, 80)], now() + 600, options=ASKED)
        assert len(caught.value.report.attempts) == 1  # type: ignore[attr-defined]

    with listening(server) as raw:
        client.trio(main)
    server.filter("prerouting", "tcp dport 80 drop")
    client.trio(silent)


def test_abort_gives_the_peer_a_reset(network: Network) -> None:
    client, server = network
    two_paths(network)

    async def main() -> None:
        async with TcpListener.from_socket(raw) as listener:
            near = await tcp_connect(listener.endpoint, options=ASKED)
            far = await listener.accept()
            await subflows(near, 2)
            near.abort()
            with pytest.raises(trio.BrokenResourceError) as caught:
                await far.receive_some(None, now() + 5000)
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            del caught
            await far.aclose()

    with listening(server) as raw:
        client.trio(main)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "suite",
    [
        "tests/net/test_conformance.py",
        "tests/net/test_sweeps.py",
        "tests/net/sockets/test_options.py",
        "tests/net/test_listening.py",
        "tests/lab/test_errnos.py",
    ],
)
def test_the_suites_of_tcp_hold_for_mptcp(suite: str) -> None:
    """All but what tests/support/multipath.py lists, with every connect and listener asking for MPTCP."""
    try:
        host = Host()
    except NotPermitted as exc:
        pytest.skip(str(exc))
    with host, host.inside():
        done = subprocess.run(
            ["env", "TRIO_CONNECT_MULTIPATH=1", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
             "-p", "no:xdist", "-m", "not slow and not alone", suite],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
