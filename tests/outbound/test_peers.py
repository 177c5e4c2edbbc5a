"""Destinations beside a retry with backoff (stamina) and a circuit breaker (purgatory), on one script, in virtual time.

A hundred tasks have one thing to send to one host, and begin in the first 25 seconds. All contestants back off from 1 s
by 1.6 to 120 s, give an attempt 10 s, and are told the same seconds when the host says "not now". The breaker opens
after 5 failures for 30 s. What is counted: connects that delivered nothing, how long after the host was back for good
the first and the last were delivered, and how many connects and sessions there were at once.

The table of the documentation page "Outbound destinations" is this module's: `python -m tests.outbound.test_peers`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import purgatory
import purgatory.domain.model
import pytest
import stamina
import trio

from tests.outbound.kit import opened
from trio_connect import TcpStream, now, tcp_connect
from trio_connect.outbound import DestinationFailed, NotAdmitted, OutboundPolicy, Overloaded
from trio_connect.testing import VirtualNetwork, run

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "outbound.md"
ADDRESS: Final = ("192.0.2.1", 25)
TASKS: Final = 100
SESSION: Final = 0.5
"""How long one delivery takes once it is greeted."""


@attrs.frozen
class Scenario:
    """What a host does, and from when on it is well."""

    name: str
    well_from: float
    script: Callable[[VirtualNetwork], object]
    throttles: bool = False


def dead(net: VirtualNetwork) -> None:
    net.host(ADDRESS[0]).refuse()


def flapping(net: VirtualNetwork) -> None:
    net.host(ADDRESS[0]).flap([(0, "down"), (30, "up"), (33, "down"), (70, "up"), (73, "down"), (120, "up")])


SCENARIOS: Final = [
    Scenario("dead for 120 s (refuses)", 120.0, dead),
    Scenario("flapping for 120 s (silent, up for 3 s twice)", 120.0, flapping),
    Scenario("throttling for 60 s (says 421 and until when)", 60.0, lambda net: None, throttles=True),
]


@attrs.frozen
class Outcome:
    wasted: int
    first: float
    last: float
    connecting: int
    sessions: int

    def row(self, scenario: Scenario, contestant: str) -> str:
        first, last = (f"{seconds:.1f} s" for seconds in (self.first, self.last))
        cells = (scenario.name, contestant, self.wasted, first, last, self.connecting, self.sessions)
        return f"| {' | '.join(map(str, cells))} |"

    @classmethod
    def on_page(cls, scenario: Scenario, contestant: str) -> Outcome:
        """What the page says."""
        (row,) = (
            line for line in PAGE.read_text(encoding="utf-8").splitlines()
            if line.startswith(f"| {scenario.name} | {contestant} |")
        )  # fmt: skip
        wasted, first, last, connecting, sessions = row.split(" | ")[2:]
        return cls(
            int(wasted), float(first.removesuffix(" s")), float(last.removesuffix(" s")),
            int(connecting), int(sessions.removesuffix(" |")),
        )  # fmt: skip


@attrs.define(eq=False)
class Host:
    """The server: greets, or says for how long not to come, and counts."""

    scenario: Scenario
    delivered: list[float] = attrs.field(factory=list)

    async def serve(self, stream: Any) -> None:
        left = self.scenario.well_from - trio.current_time() if self.scenario.throttles else 0.0
        if left > 0:
            await stream.send_all(f"421 {left}\r\n".encode())
            return
        await stream.send_all(b"220\r\n")
        if await stream.receive_some() == b"message":
            self.delivered.append(trio.current_time())
            await stream.send_all(b"250\r\n")


async def greeted(stream: TcpStream) -> None:
    line = (await stream.receive_until(b"\r\n", 100)).decode()
    if line.startswith("421"):
        raise Overloaded(float(line.split()[1]))


class Client:
    """What all contestants do on a connection, and how many of them at once."""

    open = most = 0

    async def session(self, stream: TcpStream) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await trio.sleep(SESSION)
            await stream.send_all(b"message")
            with trio.fail_after(10):
                await stream.receive_until(b"\r\n", 100)
        finally:
            self.open -= 1

    async def once(self) -> None:
        stream = await tcp_connect(ADDRESS, now() + 10_000)
        async with stream:
            with trio.fail_after(10):
                await greeted(stream)
            await self.session(stream)


# --- contestants ------------------------------------------------------------------------------------------------------


def worth_retrying(exc: Exception) -> bool | float:
    if isinstance(exc, Overloaded):
        return exc.seconds
    return isinstance(exc, OSError | trio.TooSlowError | trio.BrokenResourceError | purgatory.domain.model.OpenedState)


retries = partial(
    stamina.retry_context, worth_retrying, attempts=None, timeout=None,
    wait_initial=1.0, wait_exp_base=1.6, wait_max=120.0, wait_jitter=1.0,
)  # fmt: skip


@asynccontextmanager
async def with_stamina(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
    async def deliver() -> None:
        async for attempt in retries():
            with attempt:
                await client.once()

    yield deliver


@asynccontextmanager
async def with_purgatory(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
    class VirtualTime:
        time = staticmethod(trio.current_time)

    monkeypatch.setattr(purgatory.domain.model, "time", VirtualTime)
    breakers = purgatory.AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=30)

    async def deliver() -> None:
        async for attempt in retries():
            with attempt:
                async with await breakers.get_breaker("host"):
                    await client.once()

    yield deliver


@asynccontextmanager
async def with_outbound(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
    async with opened(OutboundPolicy()) as out:
        dest = out.destination("host", candidates=[ADDRESS])

        async def deliver() -> None:
            while True:
                try:
                    async with dest.connect(establish=greeted) as connection:
                        return await client.session(connection.stream)
                except (NotAdmitted, DestinationFailed) as exc:
                    await trio.sleep(exc.decision.seconds)
                except (OSError, trio.BrokenResourceError, trio.TooSlowError):
                    pass  # in the session: whether to connect again, and when, is the destination's to say

        yield deliver


CONTESTANTS: Final[dict[str, Callable[[Client, pytest.MonkeyPatch], Any]]] = {
    "stamina": with_stamina,
    "stamina and purgatory": with_purgatory,
    "`dest.connect`": with_outbound,
}


async def play(net: VirtualNetwork, scenario: Scenario, contestant: str) -> Outcome:
    host, client = Host(scenario), Client()
    net.host(ADDRESS[0]).listen(ADDRESS[1], host.serve, rtt=0.020)
    scenario.script(net)
    random.seed(0)
    stamina.instrumentation.set_on_retry_hooks([])

    async def one(deliver: Callable[[], Awaitable[None]], begins: float) -> None:
        await trio.sleep(begins)
        await deliver()

    async def become_well() -> None:
        await trio.sleep(scenario.well_from)
        net.host(ADDRESS[0]).recover()

    with pytest.MonkeyPatch.context() as monkeypatch:
        async with CONTESTANTS[contestant](client, monkeypatch) as deliver, trio.open_nursery() as nursery:
            nursery.start_soon(become_well)
            for number in range(TASKS):
                nursery.start_soon(one, deliver, number * 0.25)
    await trio.sleep(1)
    assert len(host.delivered) >= TASKS
    late = sorted(at - scenario.well_from for at in host.delivered if at >= scenario.well_from)
    return Outcome(len(net.trace.connections) - TASKS, late[0], late[-1], net.trace.live_max, client.most)


def played(scenario: Scenario, contestant: str) -> Outcome:
    return run(play, scenario, contestant)


HEADER: Final = (
    "| the host is | with | connects in vain | first after | last after | connecting at once | sessions at once |\n"
    "|---|---|---|---|---|---|---|"
)


# Each takes a second or two of simulation, nine in all.
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(each, id=kind, marks=[pytest.mark.slow] if kind == "flapping" else [])
        for each in SCENARIOS
        for kind in [each.name.split()[0]]
    ],
)
def test_fewer_in_vain_sooner_back_and_never_a_stampede(scenario):
    outcomes = {contestant: played(scenario, contestant) for contestant in CONTESTANTS}
    for contestant, outcome in outcomes.items():
        # In which order Trio runs tasks that wake at once is drawn anew in each run.
        said = attrs.astuple(Outcome.on_page(scenario, contestant))
        assert said == pytest.approx(attrs.astuple(outcome), rel=0.25, abs=3.0), outcome.row(scenario, contestant)
    ours = outcomes.pop("`dest.connect`")
    assert ours.wasted * 5 < outcomes["stamina"].wasted
    assert ours.connecting == OutboundPolicy().max_connecting
    assert ours.sessions <= OutboundPolicy().max_connections
    assert ours.last < 12
    assert ours.last < outcomes["stamina and purgatory"].last / 3


if __name__ == "__main__":
    print(HEADER)
    for each in SCENARIOS:
        for name in CONTESTANTS:
            print(played(each, name).row(each, name))
