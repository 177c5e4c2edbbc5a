"""What MPTCP costs a connect: ours over both kinds of TCP, beside bare sockets of both kinds.

The kernel makes two sockets for one connection and a key for each end, which bare sockets show. What we add on top must
not be more than over TCP: other options are set, and the kernel is asked once what was got.
"""

from __future__ import annotations

import json
import math
import socket
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import _contestants as c
from _harness import (
    Bound,
    NotPermittedError,
    Sample,
    cores,
    end,
    enter_network,
    inside,
    interleave,
    parser,
    pin_client,
    print_bounds,
    ratio,
    running_server,
    show,
    spread,
    table,
    versions,
)
from _server import IPPROTO_MPTCP
from trio_connect import Endpoint, SocketOptions, now, tcp_connect

BARE = "bare socket, TCP"
BARE_MULTIPATH = "bare socket, MPTCP"
OURS = "tcp_connect, with deadline"
OURS_MULTIPATH = "tcp_connect(options=SocketOptions(multipath=True)), with deadline"
ASKED = SocketOptions(multipath=True)


def bare(proto: int, addresses: Sequence[c.Address]) -> None:
    for address in addresses:
        sock = socket.SocketType(socket.AF_INET, c.STREAM, proto)
        sock.setsockopt(c.IPPROTO_TCP, c.TCP_NODELAY, 1)
        if sock.connect_ex(address):
            assert sock.connect_ex(address) == 0, "this is not the inline path"
        sock.setsockopt(c.SOL_SOCKET, c.SO_LINGER, c.LG)
        sock.close()


async def ours(options: SocketOptions, endpoints: Sequence[Endpoint]) -> None:
    for endpoint in endpoints:
        stream = await tcp_connect(endpoint, now() + 10_000, options=options)
        stream.abort()


async def ours_by_default(endpoints: Sequence[Endpoint]) -> None:
    for endpoint in endpoints:
        stream = await tcp_connect(endpoint, now() + 10_000)
        stream.abort()


def measure(rounds: int, n: int) -> dict[str, Any]:
    """Run all contestants in this process."""
    client, server = cores()
    try:
        enter_network()
    except NotPermittedError as exc:
        return {"not_run": str(exc)}
    with running_server(server) as ports:
        if "multipath" not in ports:
            return {"not_run": "this system has no MPTCP"}
        pin_client(client)
        plain, multipath = spread(ports["accept"], n), spread(ports["multipath"], n)
        blocking = partial(c.Contestant, run=c._blocking)  # noqa: SLF001
        on_trio = partial(c.Contestant, run=c._trio, target=lambda address: Endpoint(*address))  # noqa: SLF001
        samples = interleave(
            {
                BARE: partial(blocking(partial(bare, 0)).measure, plain),
                BARE_MULTIPATH: partial(blocking(partial(bare, IPPROTO_MPTCP)).measure, multipath),
                OURS: partial(on_trio(ours_by_default).measure, plain),
                OURS_MULTIPATH: partial(on_trio(partial(ours, ASKED)).measure, multipath),
            },
            rounds,
        )
    return {"samples": {name: [(s.wall, s.cpu) for s in taken] for name, taken in samples.items()}}


def report(found: dict[str, Any]) -> list[Bound]:
    what = "connect over MPTCP less what the kernel adds / connect over TCP"
    if "not_run" in found:
        print(f"NOT RUN: {found['not_run']}")
        return [Bound(what, math.nan, at_most=1.15)]
    samples = {name: [Sample(*pair) for pair in taken] for name, taken in found["samples"].items()}
    rows = []
    for name, taken in samples.items():
        cpu = sorted(sample.cpu * 1e6 for sample in taken)
        rows.append([name, show(ratio(samples, name, BARE)), f"{cpu[len(cpu) // 2]:.1f} ({cpu[0]:.1f})"])
    print(table(["CPU", "/ bare TCP", "us, median (best)"], rows))
    rounds = zip(samples[BARE], samples[BARE_MULTIPATH], samples[OURS], samples[OURS_MULTIPATH], strict=True)
    beyond = [(mine.cpu - (theirs.cpu - tcp.cpu)) / plain.cpu for tcp, theirs, plain, mine in rounds]
    bounds = [Bound(what, statistics.median(beyond), at_most=1.15)]
    print_bounds(bounds)
    return bounds


def main() -> None:
    options = parser(__doc__, rounds=75, n=100)  # short: what else the machine does then meets all alike
    options.add_argument("--measure", action="store_true", help="measure in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.rounds, given.n)))
        return
    print(f"# connect + close over MPTCP\n\n{versions()}; {given.rounds} rounds of {given.n}\n")
    found = inside(__file__, "--measure", "--rounds", str(given.rounds), "--n", str(given.n))
    end(given, {"multipath": found}, report(found))


if __name__ == "__main__":
    main()
