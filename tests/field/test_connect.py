"""Field reports about connecting and racing."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import faults
from tests.support.leaks import no_leaks
from trio_connect import (
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    RacePolicy,
    SocketOptions,
    Source,
    StaticResolver,
    TcpStream,
    connect,
    connectx,
    now,
)
from trio_connect._net import attempt
from trio_connect.queues import open_queue_set
from trio_connect.testing import VirtualNetwork


def test_field_03_the_range_of_local_ports_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A change of ip_local_port_range in a running program is seen within a second, so no self-connect is missed."""
    file = tmp_path / "ip_local_port_range"
    time = 1000.0
    monkeypatch.setattr(attempt, "_RANGE_FILE", str(file))
    monkeypatch.setattr(attempt, "monotonic", lambda: time)
    file.write_text("32768\t60999\n")
    attempt.forget_local_ports()
    try:
        assert attempt.local_ports() == range(32768, 61000)
        file.write_text("20000\t20001\n")
        time += 0.999
        assert attempt.local_ports() == range(32768, 61000), "it is not read for every connect"
        time += 0.001
        assert attempt.local_ports() == range(20000, 20002)
    finally:
        attempt.forget_local_ports()


FAST = SocketOptions(fast_open=True)
MANY = [Endpoint("192.0.2.1", 443), Endpoint("192.0.2.2", 443)]


async def some(endpoints: list[Endpoint]) -> AsyncIterator[Endpoint]:
    for endpoint in endpoints:
        yield endpoint


@pytest.mark.parametrize(
    "call",
    [
        lambda: connectx(MANY, options=FAST),
        lambda: connectx(MANY[:1], sources=[Source(ipv4="127.0.0.1"), Source(ipv4="127.0.0.2")], options=FAST),
        lambda: connectx(some(MANY), options=FAST),
        lambda: connect("many.test", 443, resolver=StaticResolver({"many.test": ["192.0.2.1"]}), options=FAST),
    ],
    ids=["connectx", "several sources", "an async iterable", "a name"],
)
async def test_field_04_fast_open_is_not_raced(call: Any) -> None:
    """A race in which the first address would win before anybody has answered is refused."""
    async with no_leaks():
        with pytest.raises(ValueError, match="fast_open cannot be raced"):
            await call()


async def test_field_04_fast_open_is_not_raced_in_a_queue_set() -> None:
    """Neither is it when it is submitted."""
    async with open_queue_set() as qs:
        for arguments in ({"endpoints": MANY}, {"endpoints": some(MANY)}):
            with pytest.raises(ValueError, match="fast_open cannot be raced"):
                qs.connectx(**arguments, options=FAST)


async def test_field_04_fast_open_with_one_candidate_or_with_an_establish() -> None:
    """One endpoint, or an establish that needs an answer, may use fast open."""

    async def establish(stream: TcpStream) -> TcpStream:
        await stream.send_all(b"?")
        assert await stream.receive_exactly(1) == b"?"
        return stream

    async with faults.echoing() as peer, no_leaks():
        endpoint = Endpoint(*peer.address.pair)
        for stream in (
            await connectx([endpoint, endpoint], options=FAST),
            await connect(endpoint.host, endpoint.port, options=FAST),
            await connectx([endpoint, Endpoint("127.9.9.9", endpoint.port)], options=FAST, establish=establish),
        ):
            assert stream.peer == endpoint
            stream.abort()
        async with open_queue_set() as qs:
            result = await qs.wait(qs.connectx([endpoint], options=FAST))
            assert result.ok


ENDLESS = {
    "all different": lambda: (Endpoint(f"192.0.{n >> 8 & 255}.{n & 255}", 443) for n in itertools.count()),
    "all the same": lambda: itertools.repeat(("192.0.2.1", 443)),
    "none that a source can reach": lambda: (Endpoint(f"2001:db8::{n & 65535:x}", 443) for n in itertools.count()),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_field_09_an_endless_iterable_is_read_no_further_than_a_race_goes(
    vnet: VirtualNetwork, autojump_clock: Any, kind: str
) -> None:
    """An iterable without end keeps the deadline and takes no memory: what can be tried is read, and no more."""
    for n in range(256):
        for m in range(2):
            vnet.host(f"192.0.{m}.{n}").blackhole()
    vnet.host("192.0.2.1").blackhole()
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        for item in ENDLESS[kind]():
            read += 1
            yield item

    started = trio.current_time()
    tracemalloc.start()
    try:
        with pytest.raises((DeadlineExceeded, ConnectFailed)):
            await connectx(endless(), now() + 300, sources=[Source(ipv4="192.0.2.254")])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert trio.current_time() - started < 0.301
    assert read == 64 if kind == "all different" else read <= 4096


@pytest.mark.parametrize("kind", ENDLESS)
async def test_field_09_so_is_an_endless_async_iterable(vnet: VirtualNetwork, autojump_clock: Any, kind: str) -> None:
    """The same of an async iterable that never waits."""
    for n in range(256):
        vnet.host(f"192.0.0.{n}").blackhole()
    vnet.host("192.0.2.1").blackhole()
    read = 0

    async def endless() -> AsyncIterator[Any]:
        nonlocal read
        for item in ENDLESS[kind]():
            read += 1
            yield item

    with pytest.raises((DeadlineExceeded, ConnectFailed)):
        await connectx(endless(), now() + 300, sources=[Source(ipv4="192.0.2.254")])
    assert read == 64 if kind == "all different" else read <= 4096


async def test_field_09_a_list_is_reported_as_a_whole(vnet: VirtualNetwork, autojump_clock: Any) -> None:
    """Of a list every endpoint is in the report, those beyond the 64th as not tried."""
    for n in range(70):
        vnet.host(f"192.0.2.{n + 1}").refuse()
    endpoints = [Endpoint(f"192.0.2.{n + 1}", 443) for n in range(70)]
    with pytest.raises(ConnectFailed) as caught:
        await connectx(endpoints, policy=RacePolicy(max_in_flight=70))
    assert [row.outcome for row in caught.value.report.attempts] == ["failed"] * 64 + ["not tried"] * 6
