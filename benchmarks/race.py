"""One connection out of many addresses: what it costs when nothing has to be raced, and how late it is otherwise.

First: the first of two addresses answers, CPU time per connect, on the paths of `connect.py` and `distance.py`: plain
loopback, loopback whose packets another core processes, hosts a round trip of one millisecond away. Dead: one or eight
listeners whose backlog is full, then one that answers, wall time beyond the attempt delays that have to pass. Refused:
eight closed ports, then one that answers, CPU time, because nobody has anything to wait for. In private network
namespaces, contestants in turns.
"""

from __future__ import annotations

import asyncio
import errno
import json
import random
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

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
    enter_network,
    inside,
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
from trio_connect import Endpoint, History, RacePolicy, connect, connectx, now, tcp_connect

DELAY = 0.250
OURS, TRIO = "trio_connect.connectx", "trio.open_tcp_stream"
ASYNCIO, HAPPY = "asyncio create_connection", "aiohappyeyeballs"
SINGLE = "trio_connect.tcp_connect"
LITERAL = "trio_connect.connect, an address"
REMEMBERING = "trio_connect.connectx, with a history"
PATHS = {
    "inline": "plain loopback, the handshake is over when connect(2) returns",
    "asynchronous": "steered loopback, it ends a little later",
    "far": "1 ms away, it is waited for",
}
ROUND_TRIP = 0.001  # seconds
POLICY = RacePolicy(max_in_flight=9)

Addresses = Sequence[tuple[str, int]]


def info(address: tuple[str, int]) -> tuple[Any, ...]:
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address


class Listed(trio.abc.HostnameResolver):
    """A resolver for Trio that answers with one list, whatever the name."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, *_args: Any, **_more: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [info(address) for address in self._addresses]

    async def getnameinfo(self, *_args: Any, **_more: Any) -> Any:
        raise OSError(errno.EOPNOTSUPP, "nobody asks")


async def ours(lists: Sequence[Sequence[Endpoint]]) -> None:
    for endpoints in lists:
        (await connectx(endpoints, now() + 60_000, policy=POLICY)).abort()


async def ours_ready(lists: Sequence[Sequence[Endpoint]]) -> None:
    for endpoints in lists:
        (await connectx(endpoints, now() + 60_000)).abort()


async def with_history(lists: Sequence[Sequence[Endpoint]]) -> None:
    history = History()
    for endpoints in lists:
        (await connectx(endpoints, now() + 60_000, history=history)).abort()


async def single(lists: Sequence[Sequence[Endpoint]]) -> None:
    for endpoints in lists:
        (await tcp_connect(endpoints[0], now() + 60_000)).abort()


async def literal(pairs: Sequence[Addresses]) -> None:
    for (host, port), _ in pairs:
        (await connect(host, port, now() + 60_000)).abort()


async def open_tcp_stream(lists: Sequence[Addresses]) -> None:
    for addresses in lists:
        trio.socket.set_custom_hostname_resolver(Listed(addresses))
        stream = await trio.open_tcp_stream("many.test", addresses[0][1], happy_eyeballs_delay=DELAY)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, c.LG)
        stream.socket.close()


async def create_connection(lists: Sequence[Addresses]) -> None:
    loop = asyncio.get_running_loop()
    for addresses in lists:
        current = [info(address) for address in addresses]

        async def getaddrinfo(*_args: Any, current: Any = current, **_more: Any) -> Any:
            return current

        loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
        transport, _ = await loop.create_connection(
            asyncio.Protocol, "many.test", addresses[0][1], happy_eyeballs_delay=DELAY
        )
        transport.abort()


async def happy(lists: Sequence[Addresses]) -> None:
    import aiohappyeyeballs

    for addresses in lists:
        infos = [info(address) for address in addresses]
        (await aiohappyeyeballs.start_connection(infos, happy_eyeballs_delay=DELAY)).close()


async def timed(body: Any, lists: Any) -> Sample:
    wall, cpu = time.perf_counter(), time.process_time()
    await body(lists)
    return Sample((time.perf_counter() - wall) / len(lists), (time.process_time() - cpu) / len(lists))


def on_trio(body: Any, lists: Any) -> Sample:
    return trio.run(timed, body, lists)


def on_asyncio(body: Any, lists: Any) -> Sample:
    return asyncio.run(timed(body, lists))


RACERS: dict[str, tuple[Any, Any]] = {
    OURS: (ours, on_trio),
    TRIO: (open_tcp_stream, on_trio),
    ASYNCIO: (create_connection, on_asyncio),
    HAPPY: (happy, on_asyncio),
}


@contextmanager
def full_listeners(count: int, port: int) -> Iterator[list[tuple[str, int]]]:
    """Listeners on one port whose backlogs are full: the kernel drops every further SYN."""
    with ExitStack() as stack:
        addresses = [(f"127.7.7.{i + 1}", port) for i in range(count)]
        for address in addresses:
            listener = stack.enter_context(socket.socket())
            listener.bind(address)
            listener.listen(0)
            for _ in range(3):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(address)
        yield addresses


def first_answers(pairs: Sequence[Addresses], rounds: int) -> Samples:
    """Measure connects of which the first address answers."""
    ready = [[Endpoint(*address) for address in pair] for pair in pairs]
    contestants = {
        SINGLE: (single, on_trio, ready),
        OURS: (ours_ready, on_trio, ready),
        REMEMBERING: (with_history, on_trio, ready),
        LITERAL: (literal, on_trio, pairs),
        TRIO: (open_tcp_stream, on_trio, pairs),
    }
    return in_turns(contestants, rounds)


def measure(path: str, rounds: int, n: int) -> dict[str, Any]:
    """Run all contestants on one path, in this process."""
    note = ""
    client, server = cores()
    absent = missing("aiohappyeyeballs")
    samples: dict[str, Samples] = {}
    try:
        if path == "far":
            with far_network(ROUND_TRIP) as hosts:
                pin_client(client)
                pairs = [[hosts[i % 250], hosts[-1]] for i in range(n)]
                samples["first"] = first_answers(pairs, rounds)
            return {"note": note, "missing": [], "samples": as_numbers(samples)}
        enter_network()
        if path == "asynchronous":
            steer_loopback(server)
    except NotPermittedError as exc:
        if path != "inline":
            return {"not_run": str(exc)}
        note = f"no network of its own ({exc}): measured on this machine's loopback"
    racers = {name: racer for name, racer in RACERS.items() if not (absent and name == HAPPY)}
    with running_server(server) as ports:
        pin_client(client)
        port = ports["accept"]
        samples["first"] = first_answers([[address, ("127.9.9.9", port)] for address in spread(port, n)], rounds)
        if path == "inline":
            good = ("127.0.0.1", port)
            # The address carries the port, so every contestant can be given listeners on one port of other addresses.
            for k, times in ((1, max(4, rounds // 2)), (8, 3)):
                with full_listeners(k, port + 1000) as dead:
                    lists = [[*dead, good]]
                    samples[f"dead {k}"] = in_turns(on_lists(racers, lists), times)
            refused = [(f"127.4.0.{i + 1}", 9) for i in range(8)]
            lists = [[*refused, good]] * 10
            samples["refused"] = in_turns(on_lists(racers, lists), 3 * rounds)
    return {"note": note, "missing": absent, "samples": as_numbers(samples)}


def as_numbers(samples: dict[str, Samples]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return {
        kind: {name: [(s.wall, s.cpu) for s in taken] for name, taken in found.items()}
        for kind, found in samples.items()
    }


def on_lists(racers: dict[str, tuple[Any, Any]], lists: Sequence[Addresses]) -> dict[str, tuple[Any, Any, Any]]:
    """Give every contestant its addresses in the form that it takes, parsed before the clock runs."""
    ready = [[Endpoint(*address) for address in addresses] for addresses in lists]
    return {name: (*racer, ready if name == OURS else lists) for name, racer in racers.items()}


def in_turns(contestants: dict[str, tuple[Any, Any, Any]], rounds: int) -> Samples:
    samples: Samples = {name: [] for name in contestants}
    names = list(contestants)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            body, run, lists = contestants[name]
            samples[name].append(run(body, lists))
    return samples


def of_first(path: str, found: dict[str, Any]) -> list[Bound]:
    """Print what the connects cost whose first address answers, and return the bounds."""
    print(f"\n## The first address answers: {PATHS[path]}\n")
    first: Samples = {}
    if "not_run" in found:
        print(f"NOT RUN: {found['not_run']}")
    else:
        first = {name: [Sample(*pair) for pair in taken] for name, taken in found["samples"]["first"].items()}
        rows = [[name, *(show(ratio(first, name, base)) for base in (LITERAL, OURS, SINGLE))] for name in first]
        print(table(["CPU, median of ratios", "/ connect", "/ connectx", "/ tcp_connect"], rows))
    bounds = [
        Bound(f"first answers, {path}: connectx / tcp_connect", ratio(first, OURS, SINGLE), at_most=1.10),
        Bound(f"first answers, {path}: connect(address) / connectx", ratio(first, LITERAL, OURS), at_most=1.15),
    ]
    if path == "inline":
        bounds.append(Bound("first answers: trio.open_tcp_stream / connectx", ratio(first, TRIO, OURS), at_least=3.4))
    return bounds


def of_others(found: dict[str, Any]) -> list[Bound]:
    """Print how late the connects are whose first addresses are of no use, and return the bounds."""
    kinds = {
        kind: {name: [Sample(*pair) for pair in taken] for name, taken in samples.items()}
        for kind, samples in found["samples"].items()
    }
    print("\n## Dead or refusing addresses before the good one\n")
    waits = {"dead 1": DELAY, "dead 8": 8 * DELAY}
    refused = kinds["refused"]
    rows = []
    late: dict[tuple[str, str], float] = {}
    for name in RACERS:
        row = [name]
        for kind, wait in waits.items():
            walls = [(sample.wall - wait) * 1000 for sample in kinds[kind].get(name, [])]
            late[name, kind] = statistics.median(walls) if walls else float("nan")
            row.append(f"{late[name, kind]:+.2f} ms" if walls else "-")
        rows.append([*row, show(ratio(refused, name, OURS))])
    print(table(["median", "beyond 1 x 250 ms", "beyond 8 x 250 ms", "8 refused: CPU / connectx"], rows))
    for line in filter(None, [*found["missing"], found["note"] and "NOTE: " + found["note"]]):
        print(f"\n{line}")
    return [
        Bound("1 dead: ms beyond the delay", late[OURS, "dead 1"], at_most=2.0),
        Bound("8 dead: ms beyond the delays", late[OURS, "dead 8"], at_most=2.0),
        Bound("8 refused: trio.open_tcp_stream / connectx", 1 / ratio(refused, OURS, TRIO), at_least=3.0),
    ]


def main() -> None:
    options = parser(__doc__, rounds=15, n=300)
    options.add_argument("--path", choices=PATHS, help="one path only")
    options.add_argument("--measure", action="store_true", help="measure --path in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.path, given.rounds, given.n)))
        return
    print(f"# races\n\n{versions()}; {given.rounds} rounds of {given.n}")
    results: dict[str, Any] = {}
    bounds: list[Bound] = []
    for path in [given.path] if given.path else PATHS:
        arguments = ["--measure", "--path", path, "--rounds", str(given.rounds), "--n", str(given.n)]
        results[path] = inside(__file__, *arguments)
        bounds += of_first(path, results[path])
        if path == "inline":
            bounds += of_others(results[path])
        sys.stdout.flush()
    print_bounds(bounds)
    end(given, results, bounds)


if __name__ == "__main__":
    main()
