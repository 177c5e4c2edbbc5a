"""64 bytes there and back, on one connection and on many at once: request and response, ours beside everybody else's.

Each connection is a task that sends and then receives exactly as much, again and again. The other end is an epoll loop
in C on the other core. CPU time of this process per round trip.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

import _contestants as c
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
    table,
    versions,
)
from _native import FLOOR, NO_COMPILER, echo_server, floor, program
from trio_connect import TcpStream, now, tcp_connect

AT_ONCE = (1, 10, 100, 1_000)
RECORD = 64
SMALL = bytes(RECORD)

OURS, EXCHANGE = "TcpStream", "TcpStream.exchange"
DEADLINE = ", with deadline"
TRIO, TRIO_DEADLINE = "trio.SocketStream", "trio.SocketStream, with fail_after"
ASYNCIO, UVLOOP = "asyncio streams", "uvloop streams"
NAMES = [FLOOR, OURS, OURS + DEADLINE, EXCHANGE, EXCHANGE + DEADLINE, TRIO, TRIO_DEADLINE, ASYNCIO, UVLOOP]

Body = Callable[[Any, int], Awaitable[None]]


# ---------------------------------------------------------------------- the contestants


async def ours(stream: TcpStream, n: int) -> None:
    for _ in range(n):
        await stream.send_all(SMALL)
        await stream.receive_exactly(RECORD)


async def ours_deadline(stream: TcpStream, n: int) -> None:
    for _ in range(n):
        deadline = now() + 10_000
        await stream.send_all(SMALL, deadline)
        await stream.receive_exactly(RECORD, deadline)


async def exchange(stream: TcpStream, n: int) -> None:
    for _ in range(n):
        await stream.exchange(SMALL, RECORD)


async def exchange_deadline(stream: TcpStream, n: int) -> None:
    for _ in range(n):
        await stream.exchange(SMALL, RECORD, now() + 10_000)


async def trios(stream: trio.SocketStream, n: int) -> None:
    for _ in range(n):
        await stream.send_all(SMALL)
        left = RECORD
        while left:
            left -= len(await stream.receive_some())


async def trios_deadline(stream: trio.SocketStream, n: int) -> None:
    for _ in range(n):
        with trio.fail_after(10):
            await stream.send_all(SMALL)
            left = RECORD
            while left:
                left -= len(await stream.receive_some())


async def asyncios(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], n: int) -> None:
    reader, writer = streams
    for _ in range(n):
        writer.write(SMALL)
        await writer.drain()
        await reader.readexactly(RECORD)


# ---------------------------------------------------------------------- runs


async def open_ours(port: int) -> TcpStream:
    return await tcp_connect(("127.0.0.1", port))


async def open_trio(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


def run_trio(connect: Callable[[int], Awaitable[Any]], body: Body, port: int, at_once: int, n: int) -> Sample:
    async def all_of(streams: list[Any], rounds: int) -> None:
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(body, stream, rounds)

    async def main() -> Sample:
        streams = [await connect(port) for _ in range(at_once)]
        await all_of(streams, n // 20 + 1)
        watch = Watch()
        await all_of(streams, n)
        sample = watch.read(at_once * n)
        for stream in streams:
            await trio.aclose_forcefully(stream)
        return sample

    return trio.run(main)


async def asyncio_main(port: int, at_once: int, n: int) -> Sample:
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(at_once)]
    await asyncio.gather(*(asyncios(pair, n // 20 + 1) for pair in streams))
    watch = Watch()
    await asyncio.gather(*(asyncios(pair, n) for pair in streams))
    sample = watch.read(at_once * n)
    for _, writer in streams:
        writer.transport.abort()
    return sample


def run_asyncio(port: int, at_once: int, n: int) -> Sample:
    return asyncio.run(asyncio_main(port, at_once, n))


def run_uvloop(port: int, at_once: int, n: int) -> Sample:
    sample: Sample = c.run_uvloop(asyncio_main(port, at_once, n))
    return sample


def run_floor(port: int, at_once: int, n: int) -> Sample:
    return floor("echo", [("127.0.0.1", port)] * at_once, n)


CONTESTANTS: dict[str, Callable[[int, int, int], Sample]] = {
    FLOOR: run_floor,
    OURS: partial(run_trio, open_ours, ours),
    OURS + DEADLINE: partial(run_trio, open_ours, ours_deadline),
    EXCHANGE: partial(run_trio, open_ours, exchange),
    EXCHANGE + DEADLINE: partial(run_trio, open_ours, exchange_deadline),
    TRIO: partial(run_trio, open_trio, trios),
    TRIO_DEADLINE: partial(run_trio, open_trio, trios_deadline),
    ASYNCIO: run_asyncio,
    UVLOOP: run_uvloop,
}


def measure(rounds: int, n: int) -> dict[str, Any]:
    """Run all contestants with all numbers of connections, in this process."""
    notes = []
    try:
        enter_network()
    except NotPermittedError as exc:
        notes.append(f"NOTE: no network of its own ({exc}): measured on this machine's loopback")
    open_files()
    able = dict(CONTESTANTS)
    if missing("uvloop"):
        del able[UVLOOP]
        notes.append("MISSING: uvloop is not installed")
    if program("_floor") is None:
        del able[FLOOR]
        notes.append(NO_COMPILER)
    client, server = cores()
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with running_server(server) as ports, echo_server(server) as echo_port:
        pin_client(client)
        port = echo_port or ports["echo"]
        for at_once in AT_ONCE:
            # One connection on a busy machine waits in each round trip for the other end to have its turn.
            turns = max(5, n // max(at_once, 5))
            samples = interleave({name: partial(how, port, at_once, turns) for name, how in able.items()}, rounds)
            found[str(at_once)] = {name: [(s.wall, s.cpu) for s in taken] for name, taken in samples.items()}
    return {"notes": notes, "samples": found}


def report(found: dict[str, Any]) -> list[Bound]:
    """Print the table and the bounds."""
    samples: dict[int, Samples] = {
        int(at_once): {name: [Sample(*pair) for pair in pairs] for name, pairs in taken.items()}
        for at_once, taken in found["samples"].items()
    }
    rows = []
    for name in NAMES:
        cells = []
        for at_once in AT_ONCE:
            taken = samples[at_once].get(name)
            each = f" ({statistics.median(s.cpu for s in taken) * 1e6:.1f} us)" if taken else ""
            cells.append(show(ratio(samples[at_once], name, TRIO)) + each)
        bold = "**" if name.startswith(OURS) else ""
        rows.append([f"{bold}{name}{bold}", *cells])
    print(table([f"CPU, as a multiple of {TRIO}", *(f"{at_once:,} connections" for at_once in AT_ONCE)], rows))
    for line in found["notes"]:
        print(f"\n{line}")
    bounds = [
        Bound(f"{at_once:,} connections: {name} / {TRIO}", ratio(samples[at_once], name, TRIO), at_most=most)
        for at_once in AT_ONCE[1:]
        for name, most in ((OURS, 0.75), (EXCHANGE, 0.65))
    ]
    print_bounds(bounds)
    return bounds


def main() -> None:
    options = parser(__doc__, rounds=25, n=3_000)  # short: what else the machine does then meets all alike
    options.add_argument("--measure", action="store_true", help="measure in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.rounds, given.n)))
        return
    print(f"# Ping-pong\n\n{versions()}; {given.rounds} rounds\n")
    sys.stdout.flush()
    found = inside(__file__, "--measure", "--rounds", str(given.rounds), "--n", str(given.n))
    end(given, found, report(found))


if __name__ == "__main__":
    main()
