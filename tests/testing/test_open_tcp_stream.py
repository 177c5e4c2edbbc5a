"""`trio.open_tcp_stream`, unmodified, on the virtual network: a baseline for every race of ours, to the millisecond."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
import pytest
import trio

from trio_connect.testing import VirtualNetwork, discard, run

V6 = tuple(f"2001:db8::{n:x}" for n in range(1, 65))
V4 = tuple(f"192.0.2.{n}" for n in range(1, 65))


@attrs.frozen
class Scenario:
    """What the addresses of a name do; the resolver gives them in this order."""

    refusing: tuple[str, ...] = ()
    black: tuple[str, ...] = ()
    good: tuple[str, ...] = ()
    after: float = 0.0
    rtt: float = 0.020

    def describe(self, net: VirtualNetwork) -> None:
        net.dns("api.test", [*self.refusing, *self.black, *self.good])
        for address in self.black:
            net.host(address).blackhole()
        for address in self.refusing:
            net.host(address).refuse(after=self.after)
        for address in self.good:
            net.host(address).listen(443, discard, rtt=self.rtt)


@attrs.frozen
class Seen:
    took: int  # ms
    attempts: int
    most_in_flight: int
    smallest_gap: int  # ms between two starts


def gaps(net: VirtualNetwork) -> list[float]:
    starts = [connection.started for connection in net.trace.connections]
    return [later - earlier for earlier, later in pairwise(starts)]


def open_it(scenario: Scenario, delay: float = 0.250) -> Seen:
    async def main(net: VirtualNetwork) -> Seen:
        scenario.describe(net)
        stream = await trio.open_tcp_stream("api.test", 443, happy_eyeballs_delay=delay)
        took = trio.current_time()
        await stream.aclose()
        return Seen(
            took=round(took * 1000),
            attempts=len(net.trace.connections),
            most_in_flight=net.trace.live_max,
            smallest_gap=round(min(gaps(net)) * 1000),
        )

    return run(main)


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        pytest.param(Scenario(black=V6[:1], good=V4[:1]), Seen(270, 2, 2, 250), id="A"),
        pytest.param(Scenario(black=V6[:6], good=V4[:1]), Seen(270, 2, 2, 250), id="B"),
        pytest.param(Scenario(black=(*V6[:3], *V4[:2]), good=V4[2:3]), Seen(1270, 6, 6, 250), id="C"),
        # The refusal at 300 ms is not used: only the newest attempt's failure starts the next one early.
        pytest.param(Scenario(refusing=V6[:1], after=0.3, black=V4[:1], good=V4[1:2]), Seen(520, 3, 2, 250), id="D"),
        # Forty starts at one instant.
        pytest.param(Scenario(refusing=V4[:40], good=V4[40:41]), Seen(20, 41, 1, 0), id="E"),
        pytest.param(Scenario(good=V4[:6], rtt=0.7), Seen(700, 3, 3, 250), id="F"),
        pytest.param(Scenario(black=V4[:30], good=V4[30:31]), Seen(7520, 31, 31, 250), id="G"),
    ],
)
def test_races_of_trio(scenario, expected):
    assert open_it(scenario) == expected


def test_only_the_second_slot_is_interleaved():
    async def main(net: VirtualNetwork) -> tuple[list[int], float]:
        Scenario(black=(*V6[:3], *V4[:2]), good=V4[2:3]).describe(net)
        async with await trio.open_tcp_stream("api.test", 443):
            return [6 if ":" in address else 4 for address in net.trace.starts], trio.current_time()

    assert run(main) == ([6, 4, 6, 6, 4, 4], 1.27)


def test_a_delay_of_infinity_means_one_at_a_time():
    scenario = Scenario(refusing=V4[:1], after=5.0, good=V4[1:2])
    assert open_it(scenario, math.inf) == Seen(5020, 2, 1, 5000)


@pytest.mark.parametrize(
    ("a_delay", "aaaa_delay", "expected"), [(0.0, 1.0, 1020), (1.0, 0.0, 1020), (0.0, 0.03, 50), (0.0, 0.0, 20)]
)
def test_one_slow_family_delays_the_other(a_delay, aaaa_delay, expected):
    async def main(net: VirtualNetwork) -> int:
        net.dns("api.test", a=V4[:1], aaaa=V6[:1], a_delay=a_delay, aaaa_delay=aaaa_delay)
        for address in (V4[0], V6[0]):
            net.host(address).listen(443, discard, rtt=0.02)
        async with await trio.open_tcp_stream("api.test", 443):
            return round(trio.current_time() * 1000)

    assert run(main) == expected


def test_all_fail():
    async def main(net: VirtualNetwork) -> None:
        net.dns("api.test", V4[:2])
        net.host(V4[0]).refuse(after=0.01)
        net.host(V4[1]).unreachable()
        await trio.open_tcp_stream("api.test", 443)

    with pytest.raises(OSError, match=r"all attempts to connect to api\.test:443 failed") as caught:
        run(main)
    assert caught.value.errno is None
    cause = caught.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    assert {type(error) for error in cause.exceptions} == {ConnectionRefusedError, OSError}
    # Who only has the exception has the picture too.
    (note,) = caught.value.__notes__
    assert "virtual network, seed 0" in note
    assert "192.0.2.1:443" in note
