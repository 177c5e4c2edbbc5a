"""Ten thousand connects to loopback by `connect_each`: time, CPU and memory, beside uvloop, asyncio and a loop in C.

Each contestant starts all connects at once, remembers every connection and closes all in the end. Memory is what the
process grows by at its peak, each contestant in a process of its own. Also measured: what one pending connect with a
deadline takes, by what Python has allocated.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
import tracemalloc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio.testing

import _contestants as c
from _harness import (
    Bound,
    NotPermittedError,
    Sample,
    Samples,
    cores,
    end,
    enter_network,
    inside,
    interleave,
    missing,
    open_files,
    parser,
    pin_client,
    print_bounds,
    ratio,
    running_server,
    show,
    spread,
    table,
    versions,
)
from _native import FLOOR, NO_COMPILER, program
from queues import BATCHES, EACH, NURSERY, on_trio, patience
from queues import CONTESTANTS as OTHERS
from trio_connect import Endpoint, TcpStream, connect_each, now

COUNT = 10_000
NAMES = (EACH, BATCHES, NURSERY, c.UVLOOP, c.ASYNCIO_PROTOCOL, FLOOR)


async def all_at_once(endpoints: Sequence[Endpoint]) -> None:
    streams: list[TcpStream] = []
    async with connect_each(endpoints, patience(), limit=len(endpoints)) as each:
        async for _, outcome in each:
            assert isinstance(outcome, TcpStream)
            streams.append(outcome)
    for stream in streams:
        await stream.aclose()


CONTESTANTS = OTHERS | {EACH: (on_trio(all_at_once), ())}


def can_run(name: str) -> bool:
    return not missing(*CONTESTANTS[name][1]) and (name != FLOOR or program("_floor") is not None)


def peak() -> int:
    """Return how much memory this process ever had, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def memory(name: str, endpoints: Sequence[Endpoint]) -> float:
    """Return what one run grows by, in KiB for each connect."""
    run, _ = CONTESTANTS[name]
    run(endpoints[:100])
    before = peak()
    run(endpoints)
    return (peak() - before) / len(endpoints)


async def pending(endpoint: Endpoint, count: int) -> float:
    """Return what Python has allocated for each of so many pending connects, in KiB."""
    async with connect_each([endpoint] * 100, now() + 600_000):
        await trio.testing.wait_all_tasks_blocked(0.05)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    async with connect_each(itertools.repeat(endpoint, count), now() + 600_000, limit=count):
        await trio.testing.wait_all_tasks_blocked(0.2)
        after, _ = tracemalloc.get_traced_memory()
    return (after - before) / count / 1024


def measure(what: str, count: int, rounds: int) -> Any:
    """Measure in this process, which gets a network of its own."""
    open_files()
    client, server = cores()
    try:
        enter_network()
    except NotPermittedError as exc:
        print(f"note: measured on this machine's loopback: {exc}", file=sys.stderr)
    with running_server(server) as ports:
        pin_client(client)
        endpoints = [Endpoint(*address) for address in spread(ports["accept"], count)]
        if what == "pending":
            return trio.run(pending, Endpoint("127.0.0.1", ports["full"]), count)
        if what != "time":
            return memory(what, endpoints)
        contestants = {name: partial(CONTESTANTS[name][0], endpoints) for name in NAMES if can_run(name)}
        samples = interleave(contestants, rounds)
    return {name: [(sample.wall, sample.cpu) for sample in found] for name, found in samples.items()}


def main() -> None:
    options = parser(__doc__, rounds=5, n=COUNT)
    options.add_argument("--measure", nargs=2, metavar=("WHAT", "COUNT"), help="measure here, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], int(given.measure[1]), given.rounds)))
        return
    count = str(given.n)
    found = inside(__file__, "--measure", "time", count, "--rounds", str(given.rounds))
    samples: Samples = {name: [Sample(*pair) for pair in pairs] for name, pairs in found.items()}
    grown = {name: inside(__file__, "--measure", name, count) for name in NAMES if can_run(name) and name != FLOOR}
    waits = inside(__file__, "--measure", "pending", count)
    print(f"# {given.n:,} connects to loopback\n\n{versions()}; median of {given.rounds} rounds\n")
    rows: list[list[str]] = []
    for name in NAMES:
        if name in samples:
            wall, cpu = (statistics.median(getattr(each, key) for each in samples[name]) for key in ("wall", "cpu"))
            numbers = [show(wall * given.n * 1e3, 0), show(cpu * 1e6, 1), show(grown.get(name, math.nan), 2)]
            rows.append([name, *numbers, show(ratio(samples, name, c.UVLOOP)), show(ratio(samples, name, FLOOR))])
        else:
            rows.append([name, *(["not measured"] + 4 * ["-"])])
    print(table(["contestant", "wall ms", "CPU us each", "KiB each", f"CPU / {c.UVLOOP}", f"CPU / {FLOOR}"], rows))
    print(f"\nOne pending connect with a deadline takes {waits:.2f} KiB.")
    if program("_floor") is None:
        print(f"\n{NO_COMPILER}")
    bounds = [
        Bound(f"{given.n:,}: {EACH} / {NURSERY}", ratio(samples, EACH, NURSERY), at_most=0.7),
        Bound(f"{given.n:,}: {EACH} / {c.UVLOOP}", ratio(samples, EACH, c.UVLOOP), at_most=1.0),
        Bound(f"{given.n:,}: {EACH} / {FLOOR}", ratio(samples, EACH, FLOOR), at_most=1.8),
        Bound("KiB for a pending connect with a deadline", waits, at_most=1.0),
    ]
    print_bounds(bounds)
    end(given, {"time": found, "memory": grown, "pending": waits}, bounds)


if __name__ == "__main__":
    main()
