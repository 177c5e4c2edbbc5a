"""What follows a connect, through queues: 64 bytes there and back on a thousand connections, and accepting a thousand.

Echo: each connection sends and then receives as much, again and again, all at once; the other end is in C, on the other
core. Accept: the other process connects as fast as it can and keeps what it has. CPU time of this process per round
trip, and per connection accepted; connecting and closing are not counted.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
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
from _native import FLOOR, NO_COMPILER, accepting_floor, echo_server, floor, held_connections, program
from trio_connect import Endpoint, TcpStream, now, tcp_connect, tcp_listen
from trio_connect.queues import Accepted, Connected, IOQueue, Popped, open_queue_set

CONNECTIONS = 1_000
RECORD = 64
SMALL = bytes(RECORD)
OUTSTANDING = 64
"""So many accepts are outstanding at a time."""

TASKS, EXCHANGE, SOCKET_STREAM = "tasks over TcpStream", "tasks over TcpStream.exchange", "tasks over trio.SocketStream"
QUEUES = "queues"
ASYNCIO, UVLOOP = "asyncio Protocol", "uvloop Protocol"
LISTENER, TRIO_LISTENER = "TcpListener.accept", "trio.SocketListener.accept"
EXERCISES = {"echo": TASKS, "accept": LISTENER}
"""With what each is compared."""

Measure = Callable[[int, int], Sample]
"""Given a port, and how many rounds or connections."""


# ---------------------------------------------------------------------- echo


async def on_tasks(connect: Any, body: Any, port: int, rounds: int) -> Sample:
    streams = [await connect(port) for _ in range(CONNECTIONS)]
    gc.collect()
    watch = Watch()
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(body, stream, rounds)
    sample = watch.read(CONNECTIONS * rounds)
    for stream in streams:
        await trio.aclose_forcefully(stream)
    return sample


async def open_ours(port: int) -> TcpStream:
    return await tcp_connect(("127.0.0.1", port), now() + 10_000)


async def open_trio(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


async def send_and_receive(stream: TcpStream, rounds: int) -> None:
    for _ in range(rounds):
        await stream.send_all(SMALL)
        await stream.receive_exactly(RECORD)


async def exchange(stream: TcpStream, rounds: int) -> None:
    for _ in range(rounds):
        await stream.exchange(SMALL, RECORD)


async def trios(stream: trio.SocketStream, rounds: int) -> None:
    for _ in range(rounds):
        await stream.send_all(SMALL)
        left = RECORD
        while left:
            left -= len(await stream.receive_some())


async def queues(port: int, rounds: int) -> Sample:
    async with open_queue_set(3 * CONNECTIONS) as qs:
        connected: list[IOQueue] = []
        for _ in range(CONNECTIONS):
            qs.stream().connect(Endpoint("127.0.0.1", port), now() + 10_000)
        while len(connected) < CONNECTIONS:
            for result in await qs.wait_next(64, now() + 10_000):
                assert isinstance(result.value, Connected), result
                connected.append(result.queue)
        gc.collect()
        watch = Watch()
        received: Counter[int] = Counter()
        for queue in connected:
            queue.push(SMALL)
            queue.pop()
        while qs.in_flight:
            for result in await qs.wait_next(64, now() + 10_000):
                value = result.value
                if isinstance(value, Popped):
                    queue = result.queue
                    assert value.data, result
                    received[id(queue)] = got = received[id(queue)] + len(value.data)
                    if got == RECORD * rounds:
                        continue
                    if not got % RECORD:
                        queue.push(SMALL)
                    queue.pop()
                else:
                    assert result.ok, result
        return watch.read(CONNECTIONS * rounds)


@attrs.define(eq=False)
class Player(asyncio.Protocol):
    """The other way round: the loop calls."""

    rounds: int
    done: asyncio.Future[None]
    received: int = 0
    transport: Any = attrs.field(init=False)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.received == RECORD * self.rounds:
            self.done.set_result(None)
        elif not self.received % RECORD:
            self.transport.write(SMALL)


async def on_protocols(port: int, rounds: int) -> Sample:
    loop = asyncio.get_running_loop()
    players = [Player(rounds, loop.create_future()) for _ in range(CONNECTIONS)]
    for player in players:
        await loop.create_connection(lambda player=player: player, "127.0.0.1", port)  # type: ignore[misc]
    gc.collect()
    watch = Watch()
    for player in players:
        player.transport.write(SMALL)
    await asyncio.gather(*(player.done for player in players))
    sample = watch.read(CONNECTIONS * rounds)
    for player in players:
        player.transport.abort()
    return sample


def echo_in_c(port: int, rounds: int) -> Sample:
    return floor("echo", [("127.0.0.1", port)] * CONNECTIONS, rounds)


# ---------------------------------------------------------------------- accept


async def listener_of_ours(_: int, count: int) -> Sample:
    async with await tcp_listen(("127.0.0.1", 0), backlog=65535) as listener:
        streams: list[TcpStream] = []
        with held_connections(("127.0.0.1", listener.endpoint.port), count):
            watch = Watch()
            while len(streams) < count:
                streams.append(await listener.accept(now() + 10_000))
            sample = watch.read(count)
        for stream in streams:
            stream.abort()
        return sample


async def listener_of_trio(_: int, count: int) -> Sample:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=65535)
    async with listener:
        streams: list[trio.SocketStream] = []
        with held_connections(("127.0.0.1", listener.socket.getsockname()[1]), count):
            watch = Watch()
            while len(streams) < count:
                streams.append(await listener.accept())
            sample = watch.read(count)
        for stream in streams:
            stream.socket.close()
        return sample


async def accepting_queues(_: int, count: int) -> Sample:
    async with open_queue_set(count + 2 * OUTSTANDING) as qs:
        queue = qs.stream()
        address = await queue.bind(("127.0.0.1", 0))
        assert isinstance(address, Endpoint)
        await queue.listen(65535)
        accepted: list[IOQueue] = []
        with held_connections(("127.0.0.1", address.port), count):
            watch = Watch()
            for _ in range(min(OUTSTANDING, count)):
                queue.accept()
            left = count - OUTSTANDING
            while len(accepted) < count:
                for result in await qs.wait_next(64, now() + 10_000):
                    assert isinstance(result.value, Accepted), result
                    accepted.append(result.value.queue)
                    if left > 0:
                        left -= 1
                        queue.accept()
            return watch.read(count)


def accept_in_c(port: int, count: int) -> Sample:
    return accepting_floor(("127.0.0.1", port), count)


# ---------------------------------------------------------------------- runs


def on_trio(call: Callable[..., Awaitable[Sample]], *first: Any) -> Measure:
    def run(*arguments: int) -> Sample:
        sample: Sample = trio.run(partial(call, *first), *arguments)
        return sample

    return run


def on_uvloop(port: int, rounds: int) -> Sample:
    sample: Sample = c.run_uvloop(on_protocols(port, rounds))
    return sample


CONTESTANTS: dict[str, dict[str, Measure]] = {
    "echo": {
        FLOOR: echo_in_c,
        TASKS: on_trio(on_tasks, open_ours, send_and_receive),
        EXCHANGE: on_trio(on_tasks, open_ours, exchange),
        SOCKET_STREAM: on_trio(on_tasks, open_trio, trios),
        QUEUES: on_trio(queues),
        ASYNCIO: lambda port, rounds: asyncio.run(on_protocols(port, rounds)),
        UVLOOP: on_uvloop,
    },
    "accept": {
        FLOOR: accept_in_c,
        LISTENER: on_trio(listener_of_ours),
        TRIO_LISTENER: on_trio(listener_of_trio),
        QUEUES: on_trio(accepting_queues),
    },
}


def measure(what: str, rounds: int, n: int) -> dict[str, Any]:
    """Measure in this process, which gets a network of its own."""
    notes = []
    try:
        enter_network()
    except NotPermittedError as exc:
        notes.append(f"NOTE: no network of its own ({exc}): measured on this machine's loopback")
    open_files()
    able = dict(CONTESTANTS[what])
    if missing("uvloop") and UVLOOP in able:
        del able[UVLOOP]
        notes.append("MISSING: uvloop is not installed")
    if program("_floor") is None:
        if what == "accept":
            return {"not_run": NO_COMPILER}
        del able[FLOOR]
        notes.append(NO_COMPILER)
    client, server = cores()
    with running_server(server) as ports, echo_server(server) as echo_port:
        pin_client(client)
        # For the floor that accepts: a port below the range of local ones, which nobody else listens on.
        port = max(ports.values()) + 1 if what == "accept" else echo_port or ports["echo"]
        samples = interleave({name: partial(how, port, n) for name, how in able.items()}, rounds)
    return {"notes": notes, "samples": {name: [(s.wall, s.cpu) for s in taken] for name, taken in samples.items()}}


def main() -> None:
    options = parser(__doc__, rounds=9, n=20)
    options.add_argument("--measure", choices=EXERCISES, help="measure in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.rounds, given.n)))
        return
    print(f"# Queues: what follows a connect\n\n{versions()}; median of {given.rounds} rounds")
    results: dict[str, Any] = {}
    bounds: list[Bound] = []
    for what, base in EXERCISES.items():
        n = given.n if what == "echo" else CONNECTIONS
        results[what] = found = inside(__file__, "--measure", what, "--rounds", str(given.rounds), "--n", str(n))
        samples: Samples = {name: [Sample(*pair) for pair in pairs] for name, pairs in found.get("samples", {}).items()}
        rows = [
            [name, show(ratio(samples, name, base)), show(statistics.median(s.cpu for s in taken) * 1e6, 1)]
            for name, taken in samples.items()
        ]
        print("\n" + table([f"{what}, {CONNECTIONS:,} connections", f"CPU / {base}", "CPU us each"], rows))
        for line in found.get("notes", [found.get("not_run")]):
            print(f"\n{line}")
        most = {"echo": 0.8, "accept": 0.6}[what]
        bounds.append(Bound(f"{what}: queues / {base}", ratio(samples, QUEUES, base), at_most=most))
        sys.stdout.flush()
    print_bounds(bounds)
    end(given, results, bounds)


if __name__ == "__main__":
    main()
