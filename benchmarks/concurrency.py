"""Ten thousand connects at once: to a server that answers, and to one that never does.

Each measurement is a process of its own. Live: all at once to a server that accepts them, CPU time from the first to
the last. Pending: to a listener whose backlog is full, so that all stay in SYN_SENT: memory each, what starting and
cancelling them costs, and how late deadlines fire when 2,500 of them come every second. Every call of ours has a
deadline; "a token" is a connect of a queue set.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import resource
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
import trio.testing

import _contestants as c
from _harness import (
    Bound,
    NotPermittedError,
    cores,
    end,
    enter_network,
    inside,
    missing,
    open_files,
    parser,
    pin_client,
    print_bounds,
    running_server,
    show,
    spread,
    table,
    versions,
)
from _native import FLOOR, NO_COMPILER, floor, program
from trio_connect import DeadlineExceeded, Endpoint, connect_each, now, tcp_connect
from trio_connect.queues import open_queue_set

OURS, TOKEN, TRIO, TRIO_BY_HAND = "tcp_connect, a task each", "queues, a token each", c.TRIO, c.TRIO_BY_HAND
ASYNCIO, ASYNCIO_SOCK, UVLOOP = c.ASYNCIO, c.ASYNCIO_SOCK, c.UVLOOP
EACH = "connect_each"
NAMES = [OURS, EACH, TOKEN, TRIO, TRIO_BY_HAND, ASYNCIO, ASYNCIO_SOCK, UVLOOP]
MODES = ["live", "cancel", "deadline"]
PER_SECOND = 2500
SPARE_FILES = 100
PATIENCE = 600_000
"""Milliseconds: longer than any of this takes."""

Connect = Callable[[Any], Awaitable[Any]]


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# ---------------------------------------------------------------------- the contestants


def ours(address: Any) -> Awaitable[Any]:
    return tcp_connect(address, now() + PATIENCE)


async def trio_stream(address: Any) -> Any:
    return (await trio.open_tcp_stream(*address)).socket


async def trio_by_hand(address: Any) -> Any:
    sock = trio.socket.socket()
    try:
        await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


async def asyncio_stream(address: Any) -> Any:
    return (await asyncio.open_connection(*address))[1].transport


async def asyncio_protocol(address: Any) -> Any:
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, *address)
    return transport


async def asyncio_sock(address: Any) -> Any:
    sock = socket.socket()
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def drop(connection: Any) -> None:
    (connection.abort if hasattr(connection, "abort") else connection.close)()


# ---------------------------------------------------------------------- on trio


async def trio_live(connect: Connect, addresses: Sequence[Any]) -> dict[str, float]:
    connections = []

    async def one(address: Any) -> None:
        connections.append(await connect(address))

    gc.collect()
    before, wall, cpu = resident(), time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(one, address)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {"wall": wall, "cpu": cpu, "memory": (resident() - before) / len(addresses)}
    for connection in connections:
        drop(connection)
    return found


async def trio_cancel(connect: Connect, addresses: Sequence[Any]) -> dict[str, float]:
    gc.collect()
    before, cpu = resident(), time.process_time()
    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(connect, address)
        await trio.testing.wait_all_tasks_blocked(0.2)
        started = time.process_time() - cpu
        memory = (resident() - before) / len(addresses)
        cpu = time.process_time()
        nursery.cancel_scope.cancel()
    return {"start": started, "memory": memory, "cancel": time.process_time() - cpu}


async def trio_deadline(connect: Connect, addresses: Sequence[Any]) -> dict[str, float]:
    late: list[float] = []

    async def one(address: Any, deadline: int) -> None:
        due = origin + deadline / 1000
        if connect is ours:
            try:
                await tcp_connect(address, deadline)
            except DeadlineExceeded:
                pass
        else:
            with trio.CancelScope(deadline=due):
                await connect(address)
        late.append(trio.current_time() - due)

    origin = trio.current_time() - now() / 1000  # of the clock of now(), in Trio's time
    first = now() + lead(len(addresses))
    async with trio.open_nursery() as nursery:
        for i, address in enumerate(addresses):
            nursery.start_soon(one, address, first + i * 1000 // PER_SECOND)
    return lateness(late)


# ---------------------------------------------------------------------- as tokens


async def token_live(addresses: Sequence[Any]) -> dict[str, float]:
    gc.collect()
    before, wall, cpu = resident(), time.perf_counter(), time.process_time()
    async with open_queue_set(len(addresses)) as qs:
        for address in addresses:
            qs.stream().connect(address, now() + PATIENCE)
        while qs.in_flight:
            results = await qs.wait_next(64, now() + PATIENCE)
            assert all(result.ok for result in results)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"wall": wall, "cpu": cpu, "memory": (resident() - before) / len(addresses)}


async def each_live(addresses: Sequence[Any]) -> dict[str, float]:
    gc.collect()
    before, wall, cpu = resident(), time.perf_counter(), time.process_time()
    connections = []
    async with connect_each(addresses, now() + PATIENCE) as each:
        async for _, outcome in each:
            assert not isinstance(outcome, OSError), outcome
            connections.append(outcome)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {"wall": wall, "cpu": cpu, "memory": (resident() - before) / len(addresses)}
    for connection in connections:
        connection.abort()
    return found


async def token_cancel(addresses: Sequence[Any]) -> dict[str, float]:
    gc.collect()
    before, cpu = resident(), time.process_time()
    async with open_queue_set(len(addresses)) as qs:
        tokens = [qs.stream().connect(address, now() + PATIENCE) for address in addresses]
        await trio.testing.wait_all_tasks_blocked(0.2)
        started = time.process_time() - cpu
        memory = (resident() - before) / len(addresses)
        cpu = time.process_time()
        for token in tokens:
            token.cancel()
        while qs.in_flight:
            await qs.wait_next(64, now() + PATIENCE)
        return {"start": started, "memory": memory, "cancel": time.process_time() - cpu}


async def token_deadline(addresses: Sequence[Any]) -> dict[str, float]:
    late: list[float] = []
    first = now() + lead(len(addresses))
    async with open_queue_set(len(addresses)) as qs:
        for i, address in enumerate(addresses):
            deadline = first + i * 1000 // PER_SECOND
            qs.stream().connect(address, deadline, data=deadline)
        while qs.in_flight:
            late += [(now() - result.data) / 1000 for result in await qs.wait_next(64, now() + PATIENCE)]
    return lateness(late)


# ---------------------------------------------------------------------- on asyncio


async def asyncio_live(connect: Connect, addresses: Sequence[Any]) -> dict[str, float]:
    gc.collect()
    before, wall, cpu = resident(), time.perf_counter(), time.process_time()
    connections = await asyncio.gather(*map(connect, addresses))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {"wall": wall, "cpu": cpu, "memory": (resident() - before) / len(addresses)}
    for connection in connections:
        drop(connection)
    return found


async def asyncio_cancel(connect: Connect, addresses: Sequence[Any]) -> dict[str, float]:
    gc.collect()
    before, cpu = resident(), time.process_time()
    tasks = [asyncio.ensure_future(connect(address)) for address in addresses]
    busy = math.inf
    while busy > 0.02:  # nothing counts the pending connects of a loop: they are there when it has become quiet
        busy = time.process_time()
        await asyncio.sleep(0.3)
        busy = time.process_time() - busy
    started = time.process_time() - cpu
    memory = (resident() - before) / len(addresses)
    cpu = time.process_time()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"start": started, "memory": memory, "cancel": time.process_time() - cpu}


async def asyncio_deadline(connect: Connect, addresses: Sequence[Any]) -> dict[str, float]:
    late: list[float] = []
    loop = asyncio.get_running_loop()

    async def one(address: Any, due: float) -> None:
        try:
            async with asyncio.timeout_at(due):
                await connect(address)
        except TimeoutError:
            pass
        late.append(loop.time() - due)

    first = loop.time() + lead(len(addresses)) / 1000
    await asyncio.gather(*[one(address, first + i / PER_SECOND) for i, address in enumerate(addresses)])
    return lateness(late)


def lead(count: int) -> int:
    """Return how many milliseconds to leave for starting so many connects before the first deadline."""
    return 1000 + count


def lateness(late: list[float]) -> dict[str, float]:
    late.sort()
    return {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "last": late[-1]}


ON_TRIO: dict[str, Connect] = {OURS: ours, TRIO: trio_stream, TRIO_BY_HAND: trio_by_hand}
ON_ASYNCIO: dict[str, Connect] = {
    ASYNCIO: asyncio_stream, ASYNCIO_SOCK: asyncio_sock, UVLOOP: asyncio_protocol
}  # fmt: skip


# ---------------------------------------------------------------------- one measurement


def measure(mode: str, name: str, n: int) -> dict[str, float]:
    """Measure one contestant in this process."""
    try:
        enter_network()
    except NotPermittedError as exc:
        print(f"note: measured on this machine's loopback: {exc}", file=sys.stderr)
    open_files()
    client, server = cores()
    with running_server(server) as ports:
        pin_client(client)
        addresses: list[Any] = spread(ports["accept" if mode == "live" else "full"], n)
        if name == FLOOR:
            sample = floor("connect", addresses)
            return {"wall": sample.wall * n, "cpu": sample.cpu * n, "memory": math.nan}
        if name in (OURS, EACH, TOKEN):  # made beforehand: a value that a program has
            addresses = [Endpoint(*address) for address in addresses]
        if name == EACH:
            return trio.run(each_live, addresses)
        if name == TOKEN:
            return trio.run({"live": token_live, "cancel": token_cancel, "deadline": token_deadline}[mode], addresses)
        if name in ON_TRIO:
            run = {"live": trio_live, "cancel": trio_cancel, "deadline": trio_deadline}[mode]
            return trio.run(run, ON_TRIO[name], addresses)
        main = {"live": asyncio_live, "cancel": asyncio_cancel, "deadline": asyncio_deadline}[mode]
        call = main(ON_ASYNCIO[name], addresses)
        found: dict[str, float] = c.run_uvloop(call) if name == UVLOOP else asyncio.run(call)
        return found


def report(results: dict[str, dict[str, list[dict[str, float]]]], names: Sequence[str], n: int) -> list[Bound]:
    def middle(mode: str, name: str, key: str) -> float:
        return statistics.median(found[key] for found in results[mode].get(name) or [{key: math.nan}])

    def against(mode: str, name: str, key: str) -> float:
        pairs = zip(results[mode].get(name) or [{key: math.nan}], results[mode][OURS], strict=False)
        return statistics.median(theirs[key] / mine[key] for theirs, mine in pairs)

    rows = [
        [
            f"**{name}**" if name in (OURS, EACH, TOKEN) else name,
            show(against("live", name, "cpu")),
            show(middle("live", name, "cpu") / n * 1e6, 1),
            show(middle("live", name, "wall"), 2),
            show(middle("live", name, "memory") / 1024, 1),
            show(middle("cancel", name, "memory") / 1024, 1),
            show(middle("cancel", name, "start") / n * 1e6, 1),
            show(middle("cancel", name, "cancel") / n * 1e6, 1),
            " / ".join(show(middle("deadline", name, key) * 1e3, 1) for key in ("p50", "p99", "last")),
        ]
        for name in names
    ]
    header = [
        f"{n:,} at once", "live: CPU / ours", "live: CPU us each", "live: wall s", "live: KiB each",
        "pending: KiB each", "pending: CPU us to start", "CPU us to cancel",
        f"ms late at {PER_SECOND:,}/s: p50 / p99 / last",
    ]  # fmt: skip
    print(table(header, rows))
    bounds = [
        Bound("live: trio.open_tcp_stream / ours", against("live", TRIO, "cpu"), at_least=4),
        Bound("pending, a task: KiB each", middle("cancel", OURS, "memory") / 1024, at_most=4.5),
        Bound("pending, a token: KiB each", middle("cancel", TOKEN, "memory") / 1024, at_most=1),
    ]
    print_bounds(bounds)
    return bounds


def main() -> None:
    options = parser(__doc__, rounds=3, n=10_000)
    options.add_argument("--measure", nargs=2, metavar=("MODE", "NAME"), help="measure here, print JSON")
    given = options.parse_args()
    if given.measure:
        mode, name = given.measure
        print(json.dumps(measure(mode, name, given.n)))
        return
    limit = open_files()
    if given.n + SPARE_FILES > limit:
        given.n = limit - SPARE_FILES
        print(f"NOTE: only {limit} files may be open here, so {given.n} connections\n")
    print(f"# Many at once\n\n{versions()}; median of {given.rounds} rounds\n")
    names = [name for name in NAMES if name != UVLOOP or not missing("uvloop")]
    if program("_floor") is None:
        print(f"{NO_COMPILER}\n")
    else:
        names.insert(0, FLOOR)
    results: dict[str, dict[str, list[dict[str, float]]]] = {mode: {name: [] for name in names} for mode in MODES}
    for round_ in range(given.rounds):
        for mode in MODES:
            if mode == "deadline" and round_:
                continue  # takes seconds each by nature, and lateness is a distribution already
            for name in names:
                if name in (FLOOR, EACH) and mode != "live":
                    continue
                results[mode][name].append(inside(__file__, "--measure", mode, name, "--n", str(given.n)))
    end(given, results, report(results, names, given.n))


if __name__ == "__main__":
    main()
