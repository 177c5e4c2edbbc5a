"""The order that `connect` tries addresses in, as it was a second ago at most."""

from __future__ import annotations

from collections.abc import Iterable
from socket import AF_INET

import attrs
import pytest

from trio_connect import Endpoint, History, RacePolicy, Source
from trio_connect._net.names import ordering
from trio_connect._net.names.ordering import in_order, in_order_as_carried, in_recent_order
from trio_connect._policy import DEFAULT_POLICY

V6, V4 = (Endpoint(host, 443) for host in ("2001:db8::1", "192.0.2.1"))
GLOBAL = {V6: "2001:db8::9", V4: "192.0.2.9"}
NO_IPV6 = {V6: None, V4: "192.0.2.9"}


@pytest.fixture
def kernel(monkeypatch):
    """The routes of this machine, how often they were asked for, and the clock that orders grow old by."""

    class Kernel:
        routes = GLOBAL
        asked = 0
        now = 1_000.0

        def look_up(self, endpoints: Iterable[Endpoint], _sources: object) -> dict[Endpoint, str | None]:
            self.asked += 1
            return {endpoint: self.routes[endpoint] for endpoint in endpoints}

    fake = Kernel()
    monkeypatch.setattr(ordering, "look_up_routes", fake.look_up)
    monkeypatch.setattr(ordering, "monotonic", lambda: fake.now)
    monkeypatch.setattr(ordering, "_recent_orders", ordering._RecentOrders())
    return fake


def ordered(endpoints=(V4, V6), sources=(), policy=DEFAULT_POLICY, *, factory=False, resolver=False, history=None):
    return in_recent_order(endpoints, sources, policy, factory=factory, resolver=resolver, history=history)


def test_the_kernel_is_asked_once_a_second(kernel):
    assert ordered() == ordered([V4, V6]) == (V6, V4)
    assert kernel.asked == 1
    kernel.routes = NO_IPV6
    kernel.now += 0.999
    assert ordered() == (V6, V4)
    kernel.now += 0.001
    assert ordered() == (V4, V6)
    assert kernel.asked == 3  # of two addresses the second decides when the first has no good source
    kernel.routes = GLOBAL
    ordering._recent_orders.forget()
    assert ordered() == (V6, V4)


async def test_endpoints_that_are_equal_to_those_of_an_earlier_call_have_its_order(kernel):
    for _ in range(3):  # `order_endpoints` and `resolve` have new objects in every call
        assert in_order([attrs.evolve(V6), attrs.evolve(V4)], (), DEFAULT_POLICY, factory=False) == (V6, V4)


def test_what_makes_another_order_is_asked_for(kernel):
    assert ordered() == (V6, V4)
    assert ordered((V6, V4)) == (V6, V4)
    assert ordered(sources=[Source(ipv4="192.0.2.9")]) == (V6, V4)
    assert ordered(policy=RacePolicy(preferred_family_count=2)) == (V6, V4)
    assert kernel.asked == 4
    assert ordered(policy=RacePolicy(first_family=AF_INET)) == (V4, V6)


def test_nothing_is_remembered_of_one_endpoint_of_a_history_and_of_a_network_of_ones_own(kernel):
    assert ordered([V4]) == (V4,)
    assert kernel.asked == 0
    history = History()
    assert ordered(history=history) == ordered(history=history) == (V6, V4)
    assert kernel.asked == 2
    kernel.routes = NO_IPV6
    assert ordered(resolver=True) == ordered(factory=True) == (V6, V4)
    assert kernel.asked == 2


def test_no_more_is_remembered_than_a_few_hundred(kernel):
    for port in range(1, 1001):
        other = Endpoint("192.0.2.1", port)
        kernel.routes = {**GLOBAL, other: "192.0.2.9"}
        assert ordered((other, V6)) == (V6, other)
        assert len(ordering._recent_orders._found) <= 512


@pytest.mark.parametrize("factory", [False, True])
async def test_what_goes_through_a_nat64_is_sorted_as_ipv4_by_what_is_remembered_of_its_ipv6_address(kernel, factory):
    made, other = (Endpoint(f"64:ff9b::c000:20{n}", 443) for n in (1, 2))
    carried = {made: V4, other: Endpoint("192.0.2.2", 443)}
    history = History()

    def ordered_as_carried() -> tuple[Endpoint, ...]:
        # The kernel has no route for those that carry, and would have none to give.
        return in_order_as_carried((made, other, V6), carried, (), DEFAULT_POLICY, factory=factory, history=history)

    assert ordered_as_carried() == (V6, made, other)
    history.failed(made.sockaddr[:2], "refused")
    assert ordered_as_carried() == (V6, other, made)


async def test_a_run_is_asked_whether_it_has_a_resolver_where_nobody_has(kernel):
    assert ordered(resolver=None) == (V6, V4)
    assert kernel.asked == 1
