"""Reaping many connects in the order of completion: queue tokens against a nursery and its helpers.

Each contestant starts N connects at once, takes every connection as it comes, remembers it, and closes all in the end.
They all connect with `trio_connect.tcp_connect`; what differs is how the results are brought to the one who reaps:

  nursery, channel   a task for each connect that sends its stream through a memory channel; no errors, no order kept
  aioresult          ResultCapture and results_to_channel
  anyio              as_completed, on Trio
  queues, ...        one token each, taken one by one by `completions` or in batches by `wait_next`

CPU time of this process; the server is another one. On plain loopback a handshake is over when connect(2) returns, on
the asynchronous path it ends a little later. Also measured: what it costs to wait for 1,000
operations that do not complete, for one second.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio
import trio.testing

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
from trio_connect import Endpoint, TcpStream, now, tcp_connect
from trio_connect.queues import open_queue_set

SIZES = (100, 1_000, 5_000)
PATHS = ("inline", "asynchronous")
PENDING = 1_000
WARM_UP = 20

NURSERY = "nursery, channel"
AIORESULT = "aioresult"
ANYIO = "anyio"
ONE_BY_ONE = "queues, completions"
BATCHES = "queues, wait_next"

Body = Callable[[Sequence[Endpoint]], Awaitable[None]]


async def nursery_channel(endpoints: Sequence[Endpoint]) -> None:
    send, receive = trio.open_memory_channel[TcpStream](0)

    async def one(channel: trio.MemorySendChannel[TcpStream], endpoint: Endpoint) -> None:
        with channel:
            await channel.send(await tcp_connect(endpoint))

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
        captures = [ResultCapture.start_soon(nursery, tcp_connect, endpoint) for endpoint in endpoints]
        nursery.start_soon(results_to_channel, captures, send)
        streams = [capture.result() async for capture in receive]
    for stream in streams:
        await stream.aclose()


async def with_anyio(endpoints: Sequence[Endpoint]) -> None:
    from anyio import as_completed

    async with as_completed(*map(tcp_connect, endpoints)) as handles:
        streams = [handle.return_value async for handle in handles]
    for stream in streams:
        await stream.aclose()


async def completions(endpoints: Sequence[Endpoint]) -> None:
    async with open_queue_set(len(endpoints)) as qs:
        for endpoint in endpoints:
            qs.stream().connect(endpoint)
        results = [result async for result in qs.completions()]
        assert len(results) == len(endpoints)
        assert all(result.ok for result in results)


async def batches(endpoints: Sequence[Endpoint]) -> None:
    async with open_queue_set(len(endpoints)) as qs:
        for endpoint in endpoints:
            qs.stream().connect(endpoint)
        results: list[Any] = []
        while qs.in_flight:
            results += await qs.wait_next(64, now() + 50)
        assert len(results) == len(endpoints)
        assert all(result.ok for result in results)


CONTESTANTS: dict[str, tuple[Body, tuple[str, ...]]] = {
    NURSERY: (nursery_channel, ()),
    AIORESULT: (with_aioresult, ("aioresult",)),
    ANYIO: (with_anyio, ("anyio",)),
    ONE_BY_ONE: (completions, ()),
    BATCHES: (batches, ()),
}
OURS = (ONE_BY_ONE, BATCHES)


def measure_one(body: Body, endpoints: Sequence[Endpoint]) -> Sample:
    async def main() -> Sample:
        await body(endpoints[:WARM_UP])
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        await body(endpoints)
        count = len(endpoints)
        return Sample((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)

    return trio.run(main)


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


def measure(what: str, size: int, rounds: int) -> Any:
    """Measure in this process, which gets a network of its own."""
    try:
        enter_network()
    except NotPermittedError as exc:
        print(f"note: measured on this machine's loopback: {exc}", file=sys.stderr)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    client, server = cores()
    if what == "asynchronous":
        try:
            steer_loopback(server)
        except NotPermittedError as exc:
            print(f"note: the asynchronous path is not measured: {exc}", file=sys.stderr)
            return {}
    with running_server(server) as ports:
        pin_client(client)
        if what == "pending":
            return trio.run(pending, Endpoint("127.0.0.1", ports["full"]))
        endpoints = [Endpoint(*address) for address in spread(ports["accept"], size)]
        contestants = {
            name: partial(measure_one, body, endpoints)
            for name, (body, needs) in CONTESTANTS.items()
            if not missing(*needs)
        }
        samples = interleave(contestants, rounds)
        return {name: [[sample.wall, sample.cpu] for sample in found] for name, found in samples.items()}


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
            bounds += [
                Bound(f"{path}, {size:,}: {name} / {NURSERY}", ratio(samples, name, NURSERY), at_most=1.5)
                for name in OURS
            ]
    print(table(["path", "connects", "contestant", "CPU us each", "wall us each", f"CPU / {NURSERY}"], rows))
    idle = inside(__file__, "--measure", "pending", "0")
    results["pending"] = idle
    bounds.append(Bound(f"CPU per cent while {PENDING:,} wait", 100 * idle["cpu"] / idle["wall"], at_most=5))
    print_bounds(bounds)
    end(given, results, bounds)


if __name__ == "__main__":
    main()
