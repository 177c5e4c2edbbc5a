"""The same scripted networks for us and for what Python has today, in virtual time: who connects when, with what waste.

Ours, trio's and anyio's connects run on the virtual network of `trio_connect.testing`; aiohappyeyeballs on an event
loop of asyncio whose clock jumps, with the same fates behind `sock_connect`. Nothing leaves this machine and no second
passes: the numbers are exact and the same on every machine.

    python benchmarks/scoreboard.py
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import selectors
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, Literal

import anyio
import attrs
import trio

from trio_connect import RacePolicy, connect
from trio_connect.testing import VirtualNetwork, echo, run

PORT = 443
Kind = Literal["ok", "hole", "refused"]


@attrs.frozen
class Fate:
    """What becomes of connects to one address, and after how many seconds."""

    kind: Kind
    after: float = 0.0


DEFAULT = RacePolicy()
HOLE = Fate("hole")
OK = Fate("ok", 0.020)


def six(n: int) -> str:
    return f"2001:db8::{n}"


def four(n: int) -> str:
    return f"192.0.2.{n}"


@attrs.frozen
class Scenario:
    """A name and what is behind it; the addresses in the resolver's order."""

    title: str
    fates: dict[str, Fate]
    aaaa_delay: float = 0.0
    a_delay: float = 0.0
    policy: RacePolicy = DEFAULT
    forgives: str = ""
    """Why ours may be later than the best."""


def _rows(kinds: str) -> dict[str, Fate]:
    """Read 6 and 4 for black holes, ^ after an address that answers in 20 ms."""
    fates: dict[str, Fate] = {}
    for n, family in enumerate(kinds.replace("^", ""), 1):
        fates[six(n) if family == "6" else four(n)] = HOLE
    if kinds.endswith("^"):
        fates[list(fates)[-1]] = OK
    return fates


REFUSALS = {four(n): Fate("refused", 0.0) for n in range(1, 41)}

# The first of the two tables of scenarios in tests/conformance.
RACES = [
    Scenario("A: v6 black hole, v4 ok", _rows("64^")),
    Scenario("B: six v6 black holes, one v4 ok", _rows("6666664^")),
    Scenario("C: 3 v6 and 2 v4 black holes, v4 ok", _rows("666444^")),
    Scenario(
        "D: v6 refused after 300 ms, v4 black hole, v4 ok",
        {six(1): Fate("refused", 0.3), four(1): HOLE, four(2): OK},
    ),
    Scenario(
        "E: 40 instant refusals, then ok",
        {**REFUSALS, four(41): OK},
        forgives="the floor of 10 ms between two starts, RFC 8305 section 5, 40 times",
    ),
    Scenario("F: six addresses, all of 700 ms", {four(n): Fate("ok", 0.7) for n in range(1, 7)}),
    Scenario(
        "G: 30 black holes, then ok, at most 64 in flight",
        _rows("4" * 31 + "^"),
        policy=RacePolicy(max_in_flight=64),
    ),
    Scenario(
        "G: the same with the default of 16 in flight",
        _rows("4" * 31 + "^"),
        forgives="the limit of 16 sockets at a time, each for at most 10 s",
    ),
]  # fmt: skip

_THREE = {six(1): HOLE, six(2): HOLE, six(3): HOLE, four(1): OK}

# The second table: what a late answer costs.
RESOLVING = [
    Scenario("AAAA 1 s late, A at 0", {six(1): OK, four(1): OK}, aaaa_delay=1.0),
    Scenario("A 1 s late, AAAA at 0", {six(1): OK, four(1): OK}, a_delay=1.0),
    Scenario("AAAA at 30 ms", {six(1): OK, four(1): OK}, aaaa_delay=0.030),
    Scenario("3 v6 black holes at 0, A (ok) at 100 ms", _THREE, a_delay=0.1),
    Scenario("3 v6 black holes at 0, A (ok) at 300 ms", _THREE, a_delay=0.3),
    Scenario(
        "2 v4 black holes at 0, AAAA (ok) at 100 ms",
        {six(1): OK, four(1): HOLE, four(2): HOLE},
        aaaa_delay=0.1,
        forgives="connecting begins 50 ms after the first answer, and v6 then waits for its turn of 250 ms",
    ),
    Scenario("v6 refused at 0, A (ok) at 300 ms", {six(1): Fate("refused", 0.0), four(1): OK}, a_delay=0.3),
]


@attrs.frozen
class Result:
    """One connect, times in milliseconds."""

    took: float
    attempts: int
    most_in_flight: int
    smallest_gap: float

    def __str__(self) -> str:
        gap = "-" if self.smallest_gap == math.inf else f"{self.smallest_gap:g}"
        return f"{self.took:g} ms, {self.attempts} tried, {self.most_in_flight} at once, gap {gap}"


def _gap(starts: list[float]) -> float:
    return min((round((b - a) * 1000, 3) for a, b in pairwise(starts)), default=math.inf)


# --- on the virtual network -------------------------------------------------------------------------------------------


def describe(net: VirtualNetwork, scenario: Scenario) -> None:
    for address, fate in scenario.fates.items():
        host = net.host(address)
        if fate.kind == "ok":
            host.listen(PORT, echo, rtt=fate.after)
        elif fate.kind == "refused":
            host.refuse(fate.after)
        else:
            host.blackhole()
    net.dns("peer.test", list(scenario.fates), aaaa_delay=scenario.aaaa_delay, a_delay=scenario.a_delay)


async def ours(scenario: Scenario) -> trio.abc.AsyncResource:
    return await connect("peer.test", PORT, policy=scenario.policy)


async def trios(_scenario: Scenario) -> trio.abc.AsyncResource:
    return await trio.open_tcp_stream("peer.test", PORT)


async def anyios(_scenario: Scenario) -> Any:
    return await anyio.connect_tcp("peer.test", PORT)


def on_the_virtual_network(call: Callable[[Scenario], Awaitable[Any]]) -> Callable[[Scenario], Result]:
    async def main(net: VirtualNetwork, scenario: Scenario) -> Result:
        describe(net, scenario)
        stream = await call(scenario)
        took = round(trio.current_time() * 1000, 3)
        await trio.aclose_forcefully(stream)
        starts = sorted(row.started for row in net.trace.connections)
        return Result(took, len(starts), net.trace.live_max, _gap(starts))

    def measure(scenario: Scenario) -> Result:
        return run(main, scenario)

    return measure


# --- on asyncio -------------------------------------------------------------------------------------------------------


class _Jumping(selectors.SelectSelector):
    """A selector that does not wait: it tells the loop how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += max(timeout, 0)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """A loop in virtual time, on which connects have the fates of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self._fates = scenario.fates
        self.starts: list[float] = []
        self.live = self.most = 0

    def time(self) -> float:
        return self._jumping.now

    async def sock_connect(self, _sock: socket.socket, address: Any) -> None:
        fate = self._fates[address[0]]
        self.starts.append(self.time())
        self.live += 1
        self.most = max(self.most, self.live)
        try:
            await asyncio.sleep(1e6 if fate.kind == "hole" else fate.after)
        finally:
            self.live -= 1
        if fate.kind == "refused":
            raise ConnectionRefusedError


def aiohappyeyeballs(scenario: Scenario) -> Result:
    import aiohappyeyeballs as peer

    # What its callers do: one lookup that waits for both families, then the list, with the delay that aiohttp sets.
    infos = [
        (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, PORT, 0, 0)) if ":" in address else
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, PORT))
        for address in scenario.fates
    ]  # fmt: skip

    async def main() -> float:
        await asyncio.sleep(max(scenario.a_delay, scenario.aaaa_delay))
        sock = await peer.start_connection(infos, happy_eyeballs_delay=0.250, interleave=1)
        sock.close()
        return loop.time()

    loop = _Loop(scenario)
    try:
        took = loop.run_until_complete(main())
    finally:
        loop.close()
    return Result(round(took * 1000, 3), len(loop.starts), loop.most, _gap(loop.starts))


OURS = "trio-connect"
CONTESTANTS: dict[str, Callable[[Scenario], Result]] = {
    OURS: on_the_virtual_network(ours),
    "trio": on_the_virtual_network(trios),
    "anyio": on_the_virtual_network(anyios),
}
if importlib.util.find_spec("aiohappyeyeballs") is not None:
    CONTESTANTS["aiohappyeyeballs"] = aiohappyeyeballs


def measure(scenario: Scenario) -> dict[str, Result]:
    return {name: contestant(scenario) for name, contestant in CONTESTANTS.items()}


def verdict(scenario: Scenario, results: dict[str, Result]) -> str:
    best = min(result.took for name, result in results.items() if name != OURS)
    late = round(results[OURS].took - best, 3)
    if late <= 0:
        return f"{-late:g} ms sooner than the best" if late else "as soon as the best"
    return f"{late:g} ms later: {scenario.forgives}"


def main() -> None:
    for heading, scenarios in (("Racing", RACES), ("Resolving", RESOLVING)):
        print(heading)
        for scenario in scenarios:
            results = measure(scenario)
            print(f"  {scenario.title}: {verdict(scenario, results)}")
            for name, result in results.items():
                print(f"    {name:17} {result}")
    if "aiohappyeyeballs" not in CONTESTANTS:
        print("aiohappyeyeballs is not installed: its rows are missing")


if __name__ == "__main__":
    main()
