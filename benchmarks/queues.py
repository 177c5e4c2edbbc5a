"""Many connects at once, each result taken as it comes: tokens and connect_each against a nursery, uvloop and C.

Each contestant starts N connects at once, takes every connection as it comes, remembers it, and closes all in the end.
On Trio they all connect with `trio_connect.tcp_connect` and a deadline; what differs is how the results are brought to
the one who reaps:

  nursery            a task for each connect that appends its stream to a list: the baseline; no errors, no order
  nursery, channel   likewise, through a memory channel
  aioresult          ResultCapture and results_to_channel
  anyio              as_completed, on Trio
  queues, ...        one token each, taken one by one by `completions` or in batches by `wait_next`
  connect_each       a block and a loop

CPU time of this process; the other end is another one. On plain loopback a handshake is over when connect(2) returns,
on the asynchronous path it ends a little later, and the third path has hosts a millisecond away. Also measured: what it
costs to wait for 1,000 operations that do not complete, for one second. `queues_traffic.py` has what follows a connect.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio
import trio.testing

import _contestants as c
from _far import far_network
from _harness import (
    Bound,
    NotPermittedError,
    Sample,
    Samples,
    Watch,
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
    steer_loopback,
    table,
    versions,
)
from _native import FLOOR, NO_COMPILER, floor, program
from trio_connect import Endpoint, TcpStream, connect_each, now, tcp_connect
from trio_connect.queues import open_queue_set

SIZES = (100, 1_000, 5_000)
PATHS = ("inline", "asynchronous", "1 ms away")
PENDING = 1_000
WARM_UP = 20

NURSERY = "nursery"
CHANNEL = "nursery, channel"
AIORESULT = "aioresult"
ANYIO = "anyio"
ONE_BY_ONE = "queues, completions"
BATCHES = "queues, wait_next"
EACH = "connect_each"

Body = Callable[[Sequence[Endpoint]], Awaitable[None]]
Measure = Callable[[Sequence[Endpoint]], Sample]


def patience() -> int:
    """Return the deadline of every connect, computed for it as a program would."""
    return now() + 10_000


async def nursery(endpoints: Sequence[Endpoint]) -> None:
    streams: list[TcpStream] = []

    async def one(endpoint: Endpoint) -> None:
        streams.append(await tcp_connect(endpoint, patience()))

    async with trio.open_nursery() as nursery:
        for endpoint in endpoints:
            nursery.start_soon(one, endpoint)
    for stream in streams:
        await stream.aclose()


async def nursery_channel(endpoints: Sequence[Endpoint]) -> None:
    send, receive = trio.open_memory_channel[TcpStream](0)

    async def one(channel: trio.MemorySendChannel[TcpStream], endpoint: Endpoint) -> None:
        with channel:
            await channel.send(await tcp_connect(endpoint, patience()))

    async with trio.open_nursery() as nursery:
        with send:
            for endpoint in endpoints:
                nursery.start_soon(one, send.clone(), endpoint)
        streams = [stream async for stream in receive]
    for stream in streams:
        await stream.aclose()


async def with_aioresult(endpoints: Sequence[Endpoint]) -> None:
    from aioresult import ResultCapture, results_to_channel

    send, receive = trio.open_memory_channel[Any](0)
    async with trio.open_nursery() as nursery:
        captures = [ResultCapture.start_soon(nursery, tcp_connect, endpoint, patience()) for endpoint in endpoints]
        nursery.start_soon(results_to_channel, captures, send)
        streams = [capture.result() async for capture in receive]
    for stream in streams:
        await stream.aclose()


async def with_anyio(endpoints: Sequence[Endpoint]) -> None:
    from anyio import as_completed

    async with as_completed(*(tcp_connect(endpoint, patience()) for endpoint in endpoints)) as handles:
        streams = [handle.return_value async for handle in handles]
    for stream in streams:
        await stream.aclose()


async def with_connect_each(endpoints: Sequence[Endpoint]) -> None:
    streams: list[TcpStream] = []
    async with connect_each(endpoints, patience()) as each:
        async for _, outcome in each:
            assert isinstance(outcome, TcpStream), outcome
            streams.append(outcome)
    for stream in streams:
        await stream.aclose()


async def completions(endpoints: Sequence[Endpoint]) -> None:
    async with open_queue_set(len(endpoints)) as qs:
        for endpoint in endpoints:
            qs.stream().connect(endpoint, patience())
        results = [result async for result in qs.completions()]
        assert len(results) == len(endpoints)
        assert all(result.ok for result in results)


async def batches(endpoints: Sequence[Endpoint]) -> None:
    async with open_queue_set(len(endpoints)) as qs:
        for endpoint in endpoints:
            qs.stream().connect(endpoint, patience())
        results: list[Any] = []
        while qs.in_flight:
            results += await qs.wait_next(64, now() + 50)
        assert len(results) == len(endpoints)
        assert all(result.ok for result in results)


async def on_a_loop(endpoints: Sequence[Endpoint]) -> None:
    loop = asyncio.get_running_loop()
    made = await asyncio.gather(
        *(loop.create_connection(asyncio.Protocol, endpoint.host, endpoint.port) for endpoint in endpoints)
    )
    for transport, _ in made:
        transport.close()
    await asyncio.sleep(0)


async def timed(body: Body, endpoints: Sequence[Endpoint]) -> Sample:
    await body(endpoints[:WARM_UP])
    gc.collect()
    watch = Watch()
    await body(endpoints)
    return watch.read(len(endpoints))


def on_trio(body: Body) -> Measure:
    def run(endpoints: Sequence[Endpoint]) -> Sample:
        return trio.run(timed, body, endpoints)

    return run


def on_asyncio(endpoints: Sequence[Endpoint]) -> Sample:
    return asyncio.run(timed(on_a_loop, endpoints))


def on_uvloop(endpoints: Sequence[Endpoint]) -> Sample:
    sample: Sample = c.run_uvloop(timed(on_a_loop, endpoints))
    return sample


def in_c(endpoints: Sequence[Endpoint]) -> Sample:
    return floor("connect", [(endpoint.host, endpoint.port) for endpoint in endpoints])


CONTESTANTS: dict[str, tuple[Measure, tuple[str, ...]]] = {
    FLOOR: (in_c, ()),
    NURSERY: (on_trio(nursery), ()),
    CHANNEL: (on_trio(nursery_channel), ()),
    AIORESULT: (on_trio(with_aioresult), ("aioresult",)),
    ANYIO: (on_trio(with_anyio), ("anyio",)),
    ONE_BY_ONE: (on_trio(completions), ()),
    BATCHES: (on_trio(batches), ()),
    EACH: (on_trio(with_connect_each), ()),
    c.ASYNCIO_PROTOCOL: (on_asyncio, ()),
    c.UVLOOP: (on_uvloop, ("uvloop",)),
}
OURS = (ONE_BY_ONE, BATCHES, EACH)


async def pending(endpoint: Endpoint) -> dict[str, float]:
    async with open_queue_set(2 * PENDING) as qs:
        for _ in range(PENDING // 2):
            qs.stream().connect(endpoint)
        for _ in range(PENDING // 2):
            queue = qs.datagram()
            await queue.bind(("127.0.0.1", 0))
            queue.pop()
        await trio.testing.wait_all_tasks_blocked(0.2)
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        batch = await qs.wait_next(64, now() + 1000)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert not batch
    return {"wall": wall, "cpu": cpu}


def compare(addresses: Sequence[tuple[str, int]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Run all contestants that can run here."""
    endpoints = [Endpoint(*address) for address in addresses]
    contestants = {
        name: partial(run, endpoints)
        for name, (run, needs) in CONTESTANTS.items()
        if not missing(*needs) and (name != FLOOR or program("_floor"))
    }
    samples = interleave(contestants, rounds)
    return {name: [(sample.wall, sample.cpu) for sample in found] for name, found in samples.items()}


def measure(what: str, size: int, rounds: int) -> Any:
    """Measure in this process, which gets a network of its own."""
    open_files()
    client, server = cores()
    try:
        if what == PATHS[2]:
            with far_network(0.001) as hosts:
                pin_client(client)
                return compare([hosts[i % len(hosts)] for i in range(size)], rounds)
        enter_network()
        if what == PATHS[1]:
            steer_loopback(server)
    except NotPermittedError as exc:
        if what in PATHS[1:]:
            print(f"NOT RUN: {what}: {exc}", file=sys.stderr)
            return {}
        print(f"note: measured on this machine's loopback: {exc}", file=sys.stderr)
    with running_server(server) as ports:
        pin_client(client)
        if what == "pending":
            return trio.run(pending, Endpoint("127.0.0.1", ports["full"]))
        return compare(spread(ports["accept"], size), rounds)


def row(path: str, size: int, name: str, samples: Samples) -> list[str]:
    found = samples.get(name)
    if not found:
        return [path, f"{size:,}", name, "-", "-", "not measured"]
    cpu, wall = (statistics.median(getattr(sample, key) for sample in found) * 1e6 for key in ("cpu", "wall"))
    return [path, f"{size:,}", name, show(cpu, 1), show(wall, 1), show(ratio(samples, name, NURSERY))]


def main() -> None:
    options = parser(__doc__, rounds=9, n=0)
    options.add_argument("--measure", nargs=2, metavar=("WHAT", "SIZE"), help="measure here, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure[0], int(given.measure[1]), given.rounds)))
        return
    sizes = (given.n,) if given.n else SIZES
    print(f"# Reaping in the order of completion\n\n{versions()}; median of {given.rounds} rounds\n")
    bounds: list[Bound] = []
    results: dict[str, Any] = {}
    rows: list[list[str]] = []
    for path in PATHS:
        for size in sizes:
            found = inside(__file__, "--measure", path, str(size), "--rounds", str(given.rounds))
            results[f"{path} {size}"] = found
            samples: Samples = {name: [Sample(*pair) for pair in pairs] for name, pairs in found.items()}
            rows += [row(path, size, name, samples) for name in CONTESTANTS]
            if size == 1_000:
                bounds += [
                    Bound(f"{path}, {size:,}: {name} / {other}", ratio(samples, name, other), at_most=most)
                    for name in OURS
                    for other, most in ((NURSERY, 0.7), (c.UVLOOP, 1.0), (FLOOR, 1.8))
                ]
    print(table(["path", "connects", "contestant", "CPU us each", "wall us each", f"CPU / {NURSERY}"], rows))
    idle = inside(__file__, "--measure", "pending", "0")
    results["pending"] = idle
    bounds.append(Bound(f"CPU per cent while {PENDING:,} wait", 100 * idle["cpu"] / idle["wall"], at_most=0.5))
    if program("_floor") is None:
        print(f"\n{NO_COMPILER}")
    print_bounds(bounds)
    end(given, results, bounds)


if __name__ == "__main__":
    main()
