"""A thousand connects at once to a hundred names: what is asked of the name server, and what it costs.

`DnsResolver` beside the system's resolver, each with the same `connect`, in a network of its own, where resolv.conf has
the server. First with nothing known, then once more; and `connect` to the address itself, which is what remains without
names.
"""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from _harness import (
    HERE,
    Bound,
    NotPermittedError,
    cores,
    end,
    enter_network,
    inside,
    open_files,
    parser,
    pin_client,
    print_bounds,
    running_server,
    show,
    table,
    versions,
)
from trio_connect import DnsResolver, Resolver, SystemResolver, connect, now

NAMES = 100
ADDRESS = "127.0.0.1"
OURS, SYSTEM, LITERAL = "DnsResolver", "SystemResolver", "no names"


@contextmanager
def name_server(core: int) -> Iterator[Callable[[], int]]:
    """Run the name server; what is yielded says how often it has been asked since the last time."""
    command = [sys.executable, str(HERE / "_nameserver.py"), str(core), ADDRESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        stdin, stdout = server.stdin, server.stdout
        assert stdout.readline() == "ready\n"

        def asked() -> int:
            stdin.write("\n")
            stdin.flush()
            return int(stdout.readline())

        yield asked


def use_name_server() -> None:
    """Have this process, in a network of its own, find the server in resolv.conf.

    Raises:
      NotPermittedError: its files cannot be put over those in /etc.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("resolv.conf", f"nameserver {ADDRESS}\n"), ("nsswitch.conf", "hosts: files dns\n")):
            Path(folder, name).write_text(text)
            command = ["mount", "--bind", f"{folder}/{name}", f"/etc/{name}"]
            if Path("/etc", name).exists() and subprocess.run(command, check=False).returncode:
                raise NotPermittedError(f"/etc/{name} cannot be replaced")


Cost = tuple[float, float, int]


async def rounds(resolver: Resolver | None, port: int, n: int, asked: Callable[[], int]) -> list[Cost]:
    """CPU and wall time of each connect, and the questions of all, with nothing known and then again."""
    found = []

    async def one(number: int) -> None:
        host = ADDRESS if resolver is None else f"host{number % NAMES}.example.org"
        (await connect(host, port, now() + 60_000, resolver=resolver)).abort()

    for _ in range(2):
        asked()
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for number in range(n):
                nursery.start_soon(one, number)
        taken = (time.process_time() - cpu) / n, (time.perf_counter() - wall) / n
        found.append((*taken, asked()))
    return found


def measure(count: int, n: int) -> dict[str, Any]:
    """Run all contestants, in this process."""
    client, server = cores()
    try:
        enter_network()
        use_name_server()
    except NotPermittedError as exc:
        return {"not_run": str(exc)}
    open_files()
    best: dict[str, list[Cost]] = {}
    makers: dict[str, Callable[[], Resolver | None]] = {
        OURS: DnsResolver, SYSTEM: partial(SystemResolver, concurrency=64), LITERAL: lambda: None,
    }  # fmt: skip
    with running_server(server) as ports, name_server(server) as asked:
        pin_client(client)
        for _ in range(count):
            for name, make in makers.items():
                now_found = trio.run(rounds, make(), ports["accept"], n, asked)
                before = best.setdefault(name, now_found)
                best[name] = [min(one, other) for one, other in zip(before, now_found, strict=True)]
    return {"best": best}


def main() -> None:
    options = parser(__doc__, rounds=3, n=1000)
    options.add_argument("--measure", action="store_true", help="measure in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.rounds, given.n)))
        return
    print(f"# {given.n} connects at once to {NAMES} names\n\n{versions()}; best of {given.rounds} rounds\n")
    found = inside(__file__, "--measure", "--rounds", str(given.rounds), "--n", str(given.n))
    first = again = math.nan
    if "not_run" in found:
        print(f"NOT RUN: {found['not_run']}")
    else:
        best: dict[str, list[Cost]] = found["best"]
        rows = [
            [name, when, str(questions), show(cpu * 1e6, 0), show(wall * given.n * 1e3, 0)]
            for name, both in best.items()
            for when, (cpu, wall, questions) in zip(("nothing known", "again"), both, strict=True)
        ]
        print(table(["resolver", "", "questions", "CPU per connect, us", "all of them, ms"], rows))
        first, again = float(best[OURS][0][2]), float(best[OURS][1][2])
    bounds = [
        Bound(f"{OURS}: questions, nothing known", first, at_most=2 * NAMES),
        Bound(f"{OURS}: questions, again", again, at_most=0),
    ]
    print_bounds(bounds)
    end(given, found, bounds)


if __name__ == "__main__":
    main()
