"""Bytes after connecting: bulk both ways, many small records out of a full pipe, and one long line."""

from __future__ import annotations

import asyncio
import json
import socket
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
    Watch,
    cores,
    end,
    enter_network,
    inside,
    interleave,
    missing,
    parser,
    pin_client,
    print_bounds,
    quiet_ratio,
    ratio,
    running_server,
    show,
    table,
    versions,
)
from trio_connect import TcpStream, tcp_connect

OURS, TRIO, ASYNCIO, UVLOOP = "trio_connect.TcpStream", "trio.SocketStream", "asyncio streams", "uvloop streams"
BLOCKING = c.BLOCKING
MIB = 1 << 20
LINE = 16 * MIB
RECORD = 64
LARGE = bytes(MIB)

# ---------------------------------------------------------------------- ours


async def ours_send(stream: TcpStream, n: int) -> None:
    for _ in range(n):
        await stream.send_all(LARGE)


async def ours_receive(stream: TcpStream, n: int) -> None:
    left = n * MIB
    while left > 0:
        left -= len(await stream.receive_some())


async def ours_receive_into(stream: TcpStream, n: int) -> None:
    buffer = bytearray(MIB)
    for _ in range(n):
        await stream.receive_into(buffer)


async def ours_records(stream: TcpStream, n: int) -> None:
    take = stream.take
    for _ in range(n):
        while take(RECORD) is None:
            await stream.fill()


async def ours_records_exactly(stream: TcpStream, n: int) -> None:
    for _ in range(n):
        await stream.receive_exactly(RECORD)


async def ours_line(stream: TcpStream, n: int) -> None:
    for _ in range(n):
        await stream.receive_until(b"\n", LINE)


# ---------------------------------------------------------------------- trio


async def trio_send(stream: trio.SocketStream, n: int) -> None:
    for _ in range(n):
        await stream.send_all(LARGE)


async def trio_receive(stream: trio.SocketStream, n: int) -> None:
    left = n * MIB
    while left > 0:
        left -= len(await stream.receive_some())


async def trio_records(stream: trio.SocketStream, n: int) -> None:
    # What a program without exact reads does by hand.
    buffer = bytearray()
    for _ in range(n):
        while len(buffer) < RECORD:
            buffer += await stream.receive_some()
        bytes(buffer[:RECORD])
        del buffer[:RECORD]


async def trio_line(stream: trio.SocketStream, n: int) -> None:
    buffer = bytearray()
    for _ in range(n):
        searched = 0
        while (end := buffer.find(b"\n", searched)) < 0:
            searched = len(buffer)
            buffer += await stream.receive_some()
        bytes(buffer[:end])
        del buffer[: end + 1]


# ---------------------------------------------------------------------- asyncio and uvloop

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def asyncio_send(streams: Streams, n: int) -> None:
    _, writer = streams
    for _ in range(n):
        writer.write(LARGE)
        await writer.drain()


async def asyncio_receive(streams: Streams, n: int) -> None:
    reader, _ = streams
    left = n * MIB
    while left > 0:
        left -= len(await reader.read(65536))


async def asyncio_records(streams: Streams, n: int) -> None:
    reader, _ = streams
    for _ in range(n):
        await reader.readexactly(RECORD)


async def asyncio_line(streams: Streams, n: int) -> None:
    reader, _ = streams
    for _ in range(n):
        await reader.readuntil(b"\n")


# ---------------------------------------------------------------------- blocking


def blocking_send(sock: socket.socket, n: int) -> None:
    for _ in range(n):
        sock.sendall(LARGE)


def blocking_receive(sock: socket.socket, n: int) -> None:
    left = n * MIB
    while left > 0:
        left -= len(sock.recv(65536))


# ---------------------------------------------------------------------- runs


def run_blocking(body: Callable[[Any, int], None], port: int, n: int) -> Sample:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body(sock, max(1, n // 20))
        watch = Watch()
        body(sock, n)
        return watch.read(n)


def run_trio(connect: Callable[[int], Awaitable[Any]], body: Any, port: int, n: int) -> Sample:
    async def main() -> Sample:
        async with await connect(port) as stream:
            await body(stream, max(1, n // 20))
            watch = Watch()
            await body(stream, n)
            return watch.read(n)

    return trio.run(main)


async def asyncio_main(body: Any, port: int, n: int, limit: int = 65536) -> Sample:
    streams = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    await body(streams, max(1, n // 20))
    watch = Watch()
    await body(streams, n)
    sample = watch.read(n)
    streams[1].transport.abort()
    return sample


def run_asyncio(body: Any, port: int, n: int, limit: int = 65536) -> Sample:
    return asyncio.run(asyncio_main(body, port, n, limit))


def run_uvloop(body: Any, port: int, n: int, limit: int = 65536) -> Sample:
    sample: Sample = c.run_uvloop(asyncio_main(body, port, n, limit))
    return sample


async def open_ours(port: int) -> TcpStream:
    return await tcp_connect(("127.0.0.1", port))


async def open_trio(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


on_ours, on_trio = partial(run_trio, open_ours), partial(run_trio, open_trio)

# title: (server, operations for --n 1000, {contestant: how})
EXERCISES: dict[str, tuple[str, int, dict[str, partial[Sample]]]] = {
    "bulk send, 1 MiB each": (
        "sink",
        60,
        {
            BLOCKING: partial(run_blocking, blocking_send),
            OURS: partial(on_ours, ours_send),
            TRIO: partial(on_trio, trio_send),
            ASYNCIO: partial(run_asyncio, asyncio_send),
            UVLOOP: partial(run_uvloop, asyncio_send),
        },
    ),
    "bulk receive, 1 MiB each": (
        "source",
        60,
        {
            BLOCKING: partial(run_blocking, blocking_receive),
            OURS: partial(on_ours, ours_receive),
            OURS + ", receive_into": partial(on_ours, ours_receive_into),
            TRIO: partial(on_trio, trio_receive),
            ASYNCIO: partial(run_asyncio, asyncio_receive),
            UVLOOP: partial(run_uvloop, asyncio_receive),
        },
    ),
    "64-byte records from a full pipe": (
        "source",
        40_000,
        {
            OURS + ", take and fill": partial(on_ours, ours_records),
            OURS + ", receive_exactly": partial(on_ours, ours_records_exactly),
            TRIO + " and a bytearray": partial(on_trio, trio_records),
            ASYNCIO + ", readexactly": partial(run_asyncio, asyncio_records),
            UVLOOP + ", readexactly": partial(run_uvloop, asyncio_records),
        },
    ),
}
RECORDS = "64-byte records from a full pipe"
LINES = {"lines": "one line of 16 MiB", "drops": "one line of 16 MiB, in pieces of 256 B"}
for kind, title in LINES.items():
    EXERCISES[title] = (
        kind,
        4,
        {
            OURS + ", receive_until": partial(on_ours, ours_line),
            TRIO + " and a bytearray": partial(on_trio, trio_line),
            ASYNCIO + ", readuntil": partial(run_asyncio, asyncio_line, limit=2 * LINE),
            UVLOOP + ", readuntil": partial(run_uvloop, asyncio_line, limit=2 * LINE),
        },
    )


def measure(rounds: int, n: int) -> dict[str, Any]:
    note = ""
    try:
        enter_network()
    except NotPermittedError as exc:
        note = f"no network of its own ({exc}): measured on this machine's loopback"
    client, server = cores()
    without_uvloop = bool(missing("uvloop"))
    found = {}
    with running_server(server) as ports:
        pin_client(client)
        for title, (kind, thousand, contestants) in EXERCISES.items():
            count = max(1, thousand * n // 1000)
            able = {
                name: partial(how, ports[kind], count)
                for name, how in contestants.items()
                if not (without_uvloop and name.startswith(UVLOOP))
            }
            samples = interleave(able, rounds)
            found[title] = {name: [(s.wall, s.cpu) for s in taken] for name, taken in samples.items()}
    return {"note": note, "missing": ["MISSING: uvloop is not installed"] if without_uvloop else [], "samples": found}


def main() -> None:
    options = parser(__doc__, rounds=9, n=1000)
    options.add_argument("--measure", action="store_true", help="measure in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.rounds, given.n)))
        return
    print(f"# Streams\n\n{versions()}; {given.rounds} rounds")
    found = inside(__file__, "--measure", "--rounds", str(given.rounds), "--n", str(given.n))
    bounds: list[Bound] = []
    for title, raw in found["samples"].items():
        samples = {name: [Sample(*pair) for pair in taken] for name, taken in raw.items()}
        mine = next(name for name in samples if name.startswith(OURS))
        rows = []
        for name, taken in samples.items():
            cpu = sorted(sample.cpu * 1e6 for sample in taken)
            wall = sorted(sample.wall * 1e6 for sample in taken)
            bold = "**" if name.startswith(OURS) else ""
            middle = len(cpu) // 2
            rows.append(
                [
                    f"{bold}{name}{bold}",
                    show(ratio(samples, name, mine)),
                    show(quiet_ratio(samples, name, mine)),
                    f"{cpu[middle]:.2f} ({cpu[0]:.2f})",
                    f"{wall[middle]:.2f}",
                ]
            )
        header = [title, "CPU / ours, median of ratios", "quiet", "CPU us (best)", "wall us"]
        print(f"\n{table(header, rows)}")
        if title == RECORDS:
            exactly = ratio(samples, ASYNCIO + ", readexactly", mine)
            bounds.append(Bound("records: asyncio readexactly / our take", exactly, at_least=1))
        if title in LINES.values():
            until = ratio(samples, mine, ASYNCIO + ", readuntil")
            bounds.append(Bound(f"{title}: our receive_until / asyncio readuntil", until, at_most=2))
    for line in filter(None, [*found["missing"], found["note"] and "NOTE: " + found["note"]]):
        print(f"\n{line}")
    sys.stdout.flush()
    print_bounds(bounds)
    end(given, found, bounds)


if __name__ == "__main__":
    main()
