"""Connecting to hosts a round trip of one millisecond away, one at a time and many: what waiting for a handshake costs.

The steered loopback of `connect.py` answers so fast that one pass of an event loop is enough. Here that is so only when
other tasks make the pass a long one; else everybody has to wait, as on a real network. In a private network namespace,
each contestant as so many tasks that connect and close in turns, CPU time per connect.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import attrs
import trio

import _contestants as c
from _far import far_network
from _harness import (
    Bound,
    NotPermittedError,
    Sample,
    Samples,
    cores,
    end,
    inside,
    interleave,
    parser,
    pin_client,
    print_bounds,
    ratio,
    show,
    table,
    versions,
)
from _native import FLOOR

AT_ONCE = (1, 10, 100, 1_000)
NAMES = [
    FLOOR, c.BLOCKING, c.BARE, c.OURS, c.OURS_TUPLE, c.OURS_CONNECTX, c.TRIO, c.TRIO_BY_HAND_DEADLINE, c.ASYNCIO,
    c.ASYNCIO_SOCK, c.UVLOOP,
]  # fmt: skip
ROUND_TRIP = 0.001  # seconds

Body = Callable[[Sequence[Any]], Awaitable[None]]


def shared_out(targets: Sequence[Any], at_once: int) -> list[Sequence[Any]]:
    return [targets[first::at_once] for first in range(min(at_once, len(targets)))]


async def on_trio(body: Body, at_once: int, targets: Sequence[Any]) -> None:
    async with trio.open_nursery() as nursery:
        for share in shared_out(targets, at_once):
            nursery.start_soon(body, share)


async def on_asyncio(body: Body, at_once: int, targets: Sequence[Any]) -> None:
    await asyncio.gather(*map(body, shared_out(targets, at_once)))


def many(contestant: c.Contestant, at_once: int) -> c.Contestant:
    """Return a contestant that makes so many connections at once."""
    if contestant is c.ALL[FLOOR]:
        return attrs.evolve(contestant, body=at_once)
    if at_once == 1:
        return contestant
    spread_over = on_trio if contestant.run is c.ALL[c.OURS].run else on_asyncio
    return attrs.evolve(contestant, body=partial(spread_over, contestant.body, at_once))


def measure(rounds: int, n: int) -> dict[str, Any]:
    """Run all contestants with all numbers of tasks, in this process."""
    able, absent = c.present()
    try:
        with far_network(ROUND_TRIP) as hosts:
            pin_client(cores()[0])
            found: dict[str, dict[str, list[tuple[float, float]]]] = {}
            for at_once in AT_ONCE:
                names = [name for name in NAMES if name in able and (at_once == 1 or name != c.BLOCKING)]
                total = max(n, 2 * at_once)
                addresses = [hosts[i % len(hosts)] for i in range(total)]
                contestants = {name: partial(many(able[name], at_once).measure, addresses) for name in names}
                samples = interleave(contestants, rounds)
                found[str(at_once)] = {name: [(s.wall, s.cpu) for s in taken] for name, taken in samples.items()}
    except NotPermittedError as exc:
        return {"not_run": str(exc)}
    return {"missing": absent, "samples": found}


def bounds_of(samples: dict[int, Samples]) -> list[Bound]:
    bounds = []
    for at_once in AT_ONCE:
        taken = samples.get(at_once, {})
        bounds.append(Bound(f"{at_once:,} at once: {c.OURS} / {c.BARE}", ratio(taken, c.OURS, c.BARE), at_most=1.20))
        bounds += [
            Bound(f"{at_once:,} at once: {name} / {c.OURS}", 1 / ratio(taken, c.OURS, name), at_least=least)
            for name, least in ((c.TRIO, 1.8), (c.ASYNCIO, 1.4))
        ]
    return bounds


def report(found: dict[str, Any]) -> list[Bound]:
    """Print the table and the bounds."""
    samples = {
        int(at_once): {name: [Sample(*pair) for pair in pairs] for name, pairs in taken.items()}
        for at_once, taken in found["samples"].items()
    }
    rows = []
    for name in NAMES:
        cells = [show(ratio(samples[at_once], name, c.OURS)) for at_once in AT_ONCE]
        bold = "**" if name in (c.OURS, c.OURS_TUPLE, c.OURS_CONNECTX) else ""
        rows.append([f"{bold}{name}{bold}", *cells])
    print(table([f"CPU, as a multiple of {c.OURS}", *(f"{at_once:,} at once" for at_once in AT_ONCE)], rows))
    for line in found["missing"]:
        print(f"\n{line}")
    bounds = bounds_of(samples)
    print_bounds(bounds)
    return bounds


def main() -> None:
    options = parser(__doc__, rounds=15, n=140)  # short: what else the machine does then meets all alike
    options.add_argument("--measure", action="store_true", help="measure in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.rounds, given.n)))
        return
    print(f"# connect + close, a round trip of {ROUND_TRIP * 1000:g} ms away\n\n{versions()}; {given.rounds} rounds\n")
    sys.stdout.flush()
    found = inside(__file__, "--measure", "--rounds", str(given.rounds), "--n", str(given.n))
    if "not_run" in found:
        print(f"NOT RUN: the far network: {found['not_run']}")
        end(given, found, bounds_of({}))
        return
    end(given, found, report(found))


if __name__ == "__main__":
    main()
