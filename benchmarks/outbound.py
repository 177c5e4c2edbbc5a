"""Admission to outbound destinations: what it costs while nothing is in the way, and what they weigh in memory.

1,000 destinations and 10 sources in one process. A contestant takes and gives back a permit 20,000 times, of one
destination after the other. No socket is opened, so all of it is admission: sources drawn, limits taken and given back,
the circuit asked and told.

  permit           no candidates: max_connections alone
  candidates       two candidates, so a plan is made too
  every limit      also caps of the group, the program and the candidate, and rates of source, group and candidate
  waiting          twenty calls for each destination at once, two places: most of them wait for their turn
  purgatory        its circuit breaker alone: neither sources nor limits

CPU time of this process. Memory is what Python has allocated (tracemalloc) once every destination was used.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio
import trio.testing

from _harness import (
    Bound,
    Sample,
    cores,
    end,
    interleave,
    missing,
    parser,
    pin_client,
    print_bounds,
    show,
    table,
    versions,
)
from trio_connect import Source
from trio_connect.outbound import Candidate, Destination, OutboundPolicy, Rate, open_outbound

DESTINATIONS, SOURCES = 1_000, 10
PER_DESTINATION = 20
FAST = 50.0
"""Microseconds of CPU that an admission may cost while nothing is in the way."""

QUICK = Rate(1_000_000, burst=1_000_000)
EVERY_LIMIT = OutboundPolicy(
    group_max_connections=1_000, total_connections=1_000_000, rate=QUICK, group_rate=QUICK
)  # fmt: skip
TWO = [Candidate(("192.0.2.1", 25)), Candidate(("192.0.2.2", 25))]
LIMITED = [Candidate(("192.0.2.1", 25), max_connections=1_000, rate=QUICK)]
TIGHT = OutboundPolicy(max_connections=1, group_max_connections=2)

CONTESTANTS: dict[str, tuple[OutboundPolicy, Sequence[Candidate] | None]] = {
    "permit": (OutboundPolicy(), None),
    "candidates": (OutboundPolicy(), TWO),
    "every limit": (EVERY_LIMIT, LIMITED),
}
IN_THE_WAY_OF_NOBODY = tuple(CONTESTANTS)


def sources() -> list[Source]:
    return [Source(f"127.0.0.{number}", name=f"source {number}") for number in range(1, SOURCES + 1)]


async def use(destination: Destination) -> None:
    async with destination.permit():
        pass


async def hold(destination: Destination) -> None:
    async with destination.permit():
        await trio.lowlevel.checkpoint()


async def in_turn(policy: OutboundPolicy, candidates: Sequence[Candidate] | None, count: int) -> Sample:
    async with open_outbound(policy=policy, sources=sources()) as out:
        all_of_them = [out.destination(f"d{number}", candidates=candidates) for number in range(count)]
        for destination in all_of_them:
            await use(destination)
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(PER_DESTINATION):
            for destination in all_of_them:
                async with destination.permit():
                    pass
        each = count * PER_DESTINATION
        return Sample((time.perf_counter() - wall) / each, (time.process_time() - cpu) / each)


async def waiting(count: int) -> Sample:
    async with open_outbound(policy=TIGHT, sources=sources()) as out:
        all_of_them = [out.destination(f"d{number}") for number in range(count)]
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for destination in all_of_them:
                for _ in range(PER_DESTINATION):
                    nursery.start_soon(hold, destination)
        each = count * PER_DESTINATION
        return Sample((time.perf_counter() - wall) / each, (time.process_time() - cpu) / each)


async def breaker(count: int) -> Sample:
    import purgatory

    breakers = purgatory.AsyncCircuitBreakerFactory()
    for number in range(count):
        await breakers.get_breaker(f"d{number}")
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(PER_DESTINATION):
        for number in range(count):
            async with await breakers.get_breaker(f"d{number}"):
                pass
    each = count * PER_DESTINATION
    return Sample((time.perf_counter() - wall) / each, (time.process_time() - cpu) / each)


async def weigh(count: int) -> dict[str, float]:
    """Return bytes for each destination that every source has used, with all limits, and for each call that waits."""
    tracemalloc.start()
    async with open_outbound(policy=EVERY_LIMIT, sources=sources()) as out, trio.open_nursery() as nursery:
        gc.collect()
        empty, _ = tracemalloc.get_traced_memory()
        all_of_them = [out.destination(f"d{number}", candidates=TWO) for number in range(count)]
        for destination in all_of_them:
            for _ in range(4 * SOURCES):
                await use(destination)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        full = out.destination("full", policy=TIGHT)
        for _ in range(count):
            nursery.start_soon(partial(sit, full))
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        waited, _ = tracemalloc.get_traced_memory()
        nursery.cancel_scope.cancel()
    tracemalloc.stop()
    return {"destination": (used - empty) / count, "waiting": (waited - used) / count}


async def sit(destination: Destination) -> None:
    async with destination.permit():
        await trio.sleep_forever()


def main() -> None:
    given = parser(__doc__, rounds=5, n=DESTINATIONS).parse_args()
    pin_client(cores()[0])
    runs: dict[str, Callable[[], Awaitable[Sample]]] = {
        **{name: partial(in_turn, *arguments, given.n) for name, arguments in CONTESTANTS.items()},
        "waiting": partial(waiting, given.n),
    }
    if not missing("purgatory"):
        runs["purgatory"] = partial(breaker, given.n)
    samples = interleave({name: partial(trio.run, run) for name, run in runs.items()}, given.rounds)
    each = f"{given.n:,} destinations, {SOURCES} sources, {given.n * PER_DESTINATION:,} admissions"
    print(f"# Admission\n\n{versions()}; {each}; median of {given.rounds} rounds\n")
    rows: list[list[str]] = []
    bounds: list[Bound] = []
    results: dict[str, Any] = {}
    for name, found in samples.items():
        cpu = statistics.median(sample.cpu for sample in found) * 1e6
        best = min(sample.cpu for sample in found) * 1e6
        wall = statistics.median(sample.wall for sample in found)
        rows.append([name, show(cpu, 1), show(best, 1), f"{1 / wall:,.0f}"])
        results[name] = {"cpu": cpu, "best": best, "wall": wall}
        if name in IN_THE_WAY_OF_NOBODY:
            bounds.append(Bound(f"{name}: CPU us, median", cpu, at_most=FAST))
    print(table(["contestant", "CPU us each", "best round", "a second"], rows))
    memory = results["memory"] = trio.run(weigh, given.n)
    print(
        f"\nMemory: {memory['destination'] / 1024:.1f} KiB for each destination that {SOURCES} sources have used, "
        f"{memory['waiting'] / 1024:.1f} KiB for each call that waits, its task included."
    )
    bounds.append(Bound("KiB for each destination", memory["destination"] / 1024, at_most=32))
    print_bounds(bounds)
    end(given, results, bounds)


if __name__ == "__main__":
    main()
