"""Sources with proxies: a proxy that fails is its source's failure, and a target that it cannot reach is not."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.net.racing import virtual
from tests.outbound.kit import at, connects, fails, opened, rules
from tests.support import tls
from tests.support.proxies import ProxyServer
from trio_connect import Source
from trio_connect.outbound import Candidate, DestinationDelayed, RequeueOne, SourceSuspended
from trio_connect.testing import VirtualNetwork, discard

PROXY, SPARE = "192.0.2.80", "192.0.2.81"
TARGET, TARGET6 = "192.0.2.1", "2001:db8::1"


def via(host: str = PROXY, **more: Any) -> Source:
    return Source(proxy=f"socks5://user:hunter2@{host}:1080", **more)


def proxied(net: VirtualNetwork, host: str = PROXY, **how: Any) -> ProxyServer:
    server = ProxyServer(**how)
    net.host(host).listen(1080, server.socks5, rtt=0.020)
    return server


@virtual
async def test_connections_go_through_the_proxy_of_their_source(net: VirtualNetwork) -> None:
    server = proxied(net)
    async with opened(sources=[via(name="office")]) as out:
        dest = out.destination("service", candidates=at(TARGET, TARGET6))
        async with dest.connect() as connection:
            assert connection.source == via(name="office")
            assert (connection.stream.peer.host, 25) in server.asked
        assert "hunter2" not in repr(dest.snapshot())


@virtual
async def test_tls_goes_through_it_too(net: VirtualNetwork) -> None:
    async def behind(stream: Any, _host: str, _port: int) -> None:
        async with trio.SSLStream(stream, tls.contexts().server, server_side=True) as secured:
            await discard(secured)

    proxied(net, behind=behind)
    net.dns(tls.NAME, a=[TARGET])
    async with opened(sources=[via()]) as out:
        dest = out.destination(tls.NAME, port=443)
        async with dest.connect(tls=tls.contexts().client) as connection:
            assert connection.stream.version == "TLSv1.3"


@virtual
async def test_a_dead_proxy_leaves_the_call_to_another_source_and_the_destination_as_it_was(
    net: VirtualNetwork,
) -> None:
    """Invariants 9 and 10, for a proxy. The third failure in five minutes suspends the source, for both families."""
    net.host(PROXY).refuse(after=0.010)
    server = proxied(net, SPARE)
    dead, good = via(weight=1000, name="dead"), via(SPARE, weight=0, name="good")
    async with opened(sources=[dead, good]) as out:
        dest = out.destination("service", candidates=at(TARGET))
        for _ in range(3):
            assert (await connects(dest)).source == good
        assert len(server.asked) == 3
        snapshot = dest.snapshot()
        assert (snapshot.state, snapshot.failures) == ("closed", 0)
        assert all(address.failures == 0 for address in snapshot.addresses)
        tried = len([row for row in net.trace.connections if row.host == PROXY])
        assert tried == 3
        other = out.destination("other", candidates=at(TARGET6))
        assert (await connects(other)).source == good
        assert len([row for row in net.trace.connections if row.host == PROXY]) == tried
        # After source_suspension it has its turn again.
        await trio.sleep(60.0)
        proxied(net)
        assert (await connects(dest)).source == dead


@virtual
async def test_with_that_source_alone_the_decision_names_the_proxy(net: VirtualNetwork) -> None:
    net.host(PROXY).refuse(after=0.010)
    async with opened(rules(failures_to_delay=1), sources=[via()]) as out:
        dest = out.destination("service", candidates=at(TARGET))
        for _ in range(2):
            decision = await fails(dest)
            assert type(decision) is RequeueOne
            assert decision.cause == "the source cannot be used"
        suspended = await fails(dest)
        assert type(suspended) is SourceSuspended
        assert "the proxy cannot be reached" in suspended.cause
        assert "hunter2" not in str(suspended)
        assert dest.snapshot().failures == 0


@pytest.mark.parametrize("ended_by", ["attempt_timeout", "connect_timeout"])
@virtual
async def test_a_proxy_that_is_a_black_hole_is_its_sources_failure_too(net: VirtualNetwork, ended_by: str) -> None:
    net.host(PROXY).blackhole()
    policy = rules(attempt_timeout=2.0) if ended_by == "attempt_timeout" else rules(connect_timeout=2.0)
    async with opened(policy, sources=[via()]) as out:
        dest = out.destination("service", candidates=at(TARGET))
        decision = await fails(dest)
        assert (type(decision), decision.cause) == (RequeueOne, "the source cannot be used")
        assert dest.snapshot().failures == 0


@virtual
async def test_what_the_proxy_cannot_reach_is_the_destinations_failure(net: VirtualNetwork) -> None:
    proxied(net, code=5)
    async with opened(rules(failures_to_delay=2), sources=[via()]) as out:
        dest = out.destination("service", candidates=at(TARGET))
        assert type(await fails(dest)) is RequeueOne
        decision = await fails(dest)
        assert type(decision) is DestinationDelayed
        assert "Connection refused by destination host" in decision.cause


@virtual
async def test_an_address_with_a_zone_holds_up_nobody_behind_it(net: VirtualNetwork) -> None:
    """No proxy knows the zones of this machine, so the race never starts it."""
    server = proxied(net)
    async with opened(sources=[via()]) as out:
        zoned = Candidate(("fe80::1%eth0", 25), priority=1, max_connections=1)
        dest = out.destination("service", candidates=[zoned, Candidate((TARGET, 25), priority=2)])
        began = trio.current_time()
        connection = await connects(dest)
        assert trio.current_time() - began < 1.0
        assert connection.stream.peer.host == TARGET
        assert [host for host, _ in server.asked] == [TARGET]
        assert "skipped" in [attempt.outcome for attempt in connection.stream.report.attempts]
        assert all(limit.held == 0 for limit in dest.snapshot().limits)
