"""One connection after the other: what a connect costs, ours beside everybody else's.

Two paths, each in a private network namespace. Inline: on plain loopback the handshake is over when connect(2)
returns. Asynchronous: loopback packets are processed by the other core, so that it is not over yet when connect(2) is
asked again at once; one pass of an event loop is often enough for it. `distance.py` has hosts for which it is not.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
from functools import partial
from typing import Any

import _contestants as c
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
    spread,
    steer_loopback,
    table,
    versions,
)

BASES = {
    "/ bare": c.BARE, "/ blocking": c.BLOCKING, "/ trio": c.TRIO, "/ asyncio": c.ASYNCIO, "/ uvloop": c.UVLOOP
}  # fmt: skip
TITLES = {
    "inline": "Inline path: the handshake is over when connect(2) returns",
    "asynchronous": "Asynchronous path: the handshake ends a little later",
}
OURS = (c.OURS, c.OURS_TUPLE, c.OURS_CONNECTX, c.OURS_LITERAL)
PROBES = 1000


def share_pending(port: int) -> float:
    """Return how often a second connect(2), asked at once, finds the handshake still going on."""
    pending = 0.0
    for address in spread(port, PROBES):
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, c.LG)
            if sock.connect_ex(address) == errno.EINPROGRESS:
                pending += sock.connect_ex(address) == errno.EALREADY
    return pending / PROBES


def measure(path: str, rounds: int, n: int, only: str) -> dict[str, Any]:
    """Run all contestants on one path, in this process."""
    note = ""
    client, server = cores()
    try:
        enter_network()
        if path == "asynchronous":
            steer_loopback(server)
    except NotPermittedError as exc:
        if path == "asynchronous":
            return {"not_run": str(exc)}
        note = f"no network of its own ({exc}): measured on this machine's loopback"
    able, absent = c.present(only)
    with running_server(server) as ports:
        pin_client(client)
        port = ports["accept"]
        pending = share_pending(port)
        addresses = spread(port, n)
        samples = interleave(
            {name: partial(contestant.measure, addresses) for name, contestant in able.items()}, rounds
        )
    return {
        "note": note,
        "missing": absent,
        "pending_share": pending,
        "samples": {name: [(s.wall, s.cpu) for s in taken] for name, taken in samples.items()},
    }


def bounds_of(path: str, samples: Samples) -> list[Bound]:
    def times_less(name: str) -> float:
        return 1 / ratio(samples, c.OURS, name)

    def against(name: str, base: str, most: float) -> Bound:
        return Bound(f"{path}: {name} / {base}", ratio(samples, name, base), at_most=most)

    bare, trios, asyncios = (1.25, 3.3, 2.2) if path == "inline" else (1.20, 2.2, 1.4)
    return [
        against(c.OURS, c.BARE, bare),
        Bound(f"{path}: {c.TRIO} / {c.OURS}", times_less(c.TRIO), at_least=trios),
        Bound(f"{path}: {c.ASYNCIO} / {c.OURS}", times_less(c.ASYNCIO), at_least=asyncios),
        against(c.OURS_CONNECTX, c.OURS, 1.10),
        against(c.OURS_LITERAL, c.OURS_CONNECTX, 1.15),
    ]


def report(path: str, found: dict[str, Any]) -> list[Bound]:
    """Print one path's table and its bounds."""
    print(f"\n## {TITLES[path]}\n")
    if "not_run" in found:
        print(f"NOT RUN: the asynchronous path needs a network of its own: {found['not_run']}")
        return bounds_of(path, {})
    samples = {name: [Sample(*pair) for pair in taken] for name, taken in found["samples"].items()}
    rows = []
    for name, taken in samples.items():
        cpu = sorted(sample.cpu * 1e6 for sample in taken)
        wall = sorted(sample.wall * 1e6 for sample in taken)
        middle = len(cpu) // 2
        bold = "**" if name in OURS else ""
        rows.append(
            [
                f"{bold}{name}{bold}",
                *(show(ratio(samples, name, base)) for base in BASES.values()),
                show(quiet_ratio(samples, name, c.BLOCKING)),
                f"{cpu[middle]:.1f} ({cpu[0]:.1f})",
                f"{wall[middle]:.1f}",
            ]
        )
    print(table(["CPU, median of ratios", *BASES, "quiet / blocking", "CPU us (best)", "wall us"], rows))
    for line in filter(None, [*found["missing"], found["note"] and "NOTE: " + found["note"]]):
        print(f"\n{line}")
    share = found["pending_share"]
    print(f"\nHandshakes still going on when connect(2) had returned: {share:.1%} of {PROBES}.")
    bounds = bounds_of(path, samples)
    if (share > 0.9) != (path == "asynchronous"):
        print(f"NOT JUDGED: that is not the {path} path")
        bounds = bounds_of(path, {})
    print_bounds(bounds)
    return bounds


def main() -> None:
    options = parser(__doc__, rounds=25, n=300)
    options.add_argument("--path", choices=TITLES, help="one path only")
    options.add_argument("--only", metavar="REGEX", default="", help="contestants whose name matches")
    options.add_argument("--measure", action="store_true", help="measure --path in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.path, given.rounds, given.n, given.only)))
        return
    print(f"# connect + close\n\n{versions()}; {given.rounds} rounds of {given.n}")
    results: dict[str, Any] = {}
    bounds: list[Bound] = []
    for path in [given.path] if given.path else TITLES:
        arguments = [
            "--measure",
            "--path",
            path,
            "--rounds",
            str(given.rounds),
            "--n",
            str(given.n),
            "--only",
            given.only,
        ]
        results[path] = inside(__file__, *arguments)
        bounds += report(path, results[path])
        sys.stdout.flush()
    end(given, results, bounds)


if __name__ == "__main__":
    main()
