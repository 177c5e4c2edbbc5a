"""Connect by name, one after the other: `connect("api.test", ...)` beside `trio.open_tcp_stream` and asyncio.

A resolver of one's own that has both answers at once, as a cache has; and localhost by the system's. An order of
addresses is remembered for a second, so there is a row for a program that connects to a name more seldom. The two
paths of `connect.py`. Peers close with RST, and pass no deadline, for theirs are scopes; ours pass one in every call.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, AddressFamily
from typing import Any

import trio

from _contestants import LG, SO_LINGER, SOL_SOCKET, WARM_UP
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
    parser,
    pin_client,
    print_bounds,
    quiet_ratio,
    ratio,
    running_server,
    show,
    steer_loopback,
    table,
    versions,
)
from trio_connect import Answer, StaticResolver, connect, connectx, now
from trio_connect._net.names.ordering import forget_orders

NAME = "api.test"
V6, V4 = "::1", "127.0.0.1"
PATHS = ("inline", "asynchronous")

OURS = "connect(name, resolver=own)"
INSTALLED = "connect(name), the run's own resolver"
ANEW = "connect(name, resolver=own), not sorted for a second"
STATIC = "connect(name, resolver=StaticResolver(...))"
TRIO = "trio.open_tcp_stream(name), the run's own resolver"
LITERAL = "connectx([endpoint])"
OURS_LOCAL = 'connect("localhost")'
TRIO_LOCAL = 'trio.open_tcp_stream("localhost")'
ASYNCIO_LOCAL = 'asyncio.open_connection("localhost")'


class Own(trio.abc.HostnameResolver):
    """One resolver, spoken to in our words and in Trio's: both answers are there, after one pass of the loop."""

    def __init__(self) -> None:
        self._answers = {AF_INET6: Answer((V6,)), AF_INET: Answer((V4,))}

    async def addresses(self, _host: str, family: AddressFamily, /) -> Answer:
        await trio.lowlevel.checkpoint()
        return self._answers[family]

    async def getaddrinfo(self, _host: Any, port: Any, family: int = 0, *_: int) -> Any:
        await trio.lowlevel.checkpoint()
        found = (
            (AF_INET6, SOCK_STREAM, IPPROTO_TCP, "", (V6, port, 0, 0)),
            (AF_INET, SOCK_STREAM, IPPROTO_TCP, "", (V4, port)),
        )
        return [entry for entry in found if family in (0, entry[0])]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


Call = Callable[[], Awaitable[None]]


def contestants(port: int, n: int) -> dict[str, Callable[[], Sample]]:
    """Return the ways to connect, each as a measured loop of `n`."""
    own = Own()
    static = StaticResolver({NAME: [V6, V4]})

    async def ours() -> None:
        (await connect(NAME, port, now() + 10_000, resolver=own)).abort()

    async def anew() -> None:
        forget_orders()
        (await connect(NAME, port, now() + 10_000, resolver=own)).abort()

    async def with_static() -> None:
        (await connect(NAME, port, now() + 10_000, resolver=static)).abort()

    async def installed() -> None:
        (await connect(NAME, port, now() + 10_000)).abort()

    async def literal() -> None:
        (await connectx([(V6, port)], now() + 10_000)).abort()

    async def local() -> None:
        (await connect("localhost", port, now() + 10_000)).abort()

    async def trios(host: str) -> None:
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(SOL_SOCKET, SO_LINGER, LG)
        stream.socket.close()

    async def asyncios() -> None:
        _, writer = await asyncio.open_connection("localhost", port)
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, LG)
        writer.transport.abort()
        await asyncio.sleep(0)

    async def many(call: Call, resolver: Own | None) -> Sample:
        if resolver is not None:
            trio.socket.set_custom_hostname_resolver(resolver)
        for _ in range(WARM_UP):
            await call()
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(n):
            await call()
        return Sample((time.perf_counter() - wall) / n, (time.process_time() - cpu) / n)

    return {
        OURS: partial(trio.run, many, ours, None),
        ANEW: partial(trio.run, many, anew, None),
        INSTALLED: partial(trio.run, many, installed, own),
        STATIC: partial(trio.run, many, with_static, None),
        TRIO: partial(trio.run, many, partial(trios, NAME), own),
        LITERAL: partial(trio.run, many, literal, None),
        OURS_LOCAL: partial(trio.run, many, local, None),
        TRIO_LOCAL: partial(trio.run, many, partial(trios, "localhost"), None),
        ASYNCIO_LOCAL: lambda: asyncio.run(many(asyncios, None)),
    }


def measure(path: str, rounds: int, n: int) -> dict[str, Any]:
    """Run all contestants on one path, in this process."""
    client, server = cores()
    note = ""
    try:
        enter_network()
        if path == "asynchronous":
            steer_loopback(server)
    except NotPermittedError as exc:
        if path == "asynchronous":
            return {"not_run": str(exc)}
        note = f"no network of its own ({exc}): measured on this machine's loopback"
    with running_server(server) as ports:
        pin_client(client)
        if "accept6" not in ports:
            return {"not_run": "this machine has no IPv6, or its port is taken"}
        samples = interleave(contestants(ports["accept6"], n), rounds)
    return {"note": note, "samples": {name: [(s.wall, s.cpu) for s in taken] for name, taken in samples.items()}}


def report(path: str, found: dict[str, Any]) -> list[Bound]:
    """Print one path's table; return its bounds."""
    print(f"\n## {path}\n")
    samples: Samples = {}
    if "not_run" in found:
        print(f"NOT RUN: {found['not_run']}")
    else:
        samples = {name: [Sample(*pair) for pair in taken] for name, taken in found["samples"].items()}
        rows = []
        for name, taken in samples.items():
            base = TRIO_LOCAL if "localhost" in name else TRIO
            best = min(sample.cpu for sample in taken) * 1e6
            rows.append([name, show(ratio(samples, name, base)), show(quiet_ratio(samples, name, base)), show(best, 1)])
        print(table(["CPU", "/ trio", "quiet / trio", "us, best"], rows))
        if found["note"]:
            print(f"\nNOTE: {found['note']}")
    return [
        Bound(f"{path}: {OURS} / {TRIO}", ratio(samples, OURS, TRIO), at_most=1.1),
        Bound(f"{path}: {INSTALLED} / {TRIO}", ratio(samples, INSTALLED, TRIO), at_most=1.1),
        Bound(f"{path}: {OURS_LOCAL} / {TRIO_LOCAL}", ratio(samples, OURS_LOCAL, TRIO_LOCAL), at_most=1.2),
    ]


def main() -> None:
    options = parser(__doc__, rounds=15, n=200)
    options.add_argument("--path", choices=PATHS, help="one path only")
    options.add_argument("--measure", action="store_true", help="measure --path in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.path, given.rounds, given.n)))
        return
    print(f"# connect by name + close\n\n{versions()}; {given.rounds} rounds of {given.n}")
    results: dict[str, Any] = {}
    bounds: list[Bound] = []
    for path in [given.path] if given.path else PATHS:
        arguments = ["--measure", "--path", path, "--rounds", str(given.rounds), "--n", str(given.n)]
        results[path] = inside(__file__, *arguments)
        bounds += report(path, results[path])
        sys.stdout.flush()
    print_bounds(bounds)
    end(given, results, bounds)


if __name__ == "__main__":
    main()
