"""System calls per connect + close, counted by strace: exact numbers that no busy machine can disturb.

Each contestant runs twice, with different numbers of connections; the difference is what a connection costs. The
setsockopt(SO_LINGER) that every contestant closes with is not counted: it is there to leave no TIME_WAIT behind. A
traced client is so slow that its handshakes are always over when it looks: this is the inline path. For the
asynchronous one, ours connects to a listener whose backlog is full at first, so that its handshake takes a second and
outlasts the pass of the loop that comes before the first poll.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

import _contestants as c
from _harness import (
    HERE,
    Bound,
    NotPermittedError,
    cores,
    end,
    enter_network,
    inside,
    parser,
    print_bounds,
    running_server,
    show,
    table,
    versions,
)

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
"""A line of strace, with or without the number of a thread."""


def why_not() -> str | None:
    """Say why nothing can be traced here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else f"strace: {probe.stderr.strip().splitlines()[-1]}"


def count(name: str, port: int, n: int) -> Counter[str]:
    """Return the system calls of one contestant, by name."""
    found: Counter[str] = Counter()
    with tempfile.NamedTemporaryFile("r") as file:
        program = [sys.executable, str(HERE / "_contestants.py"), name, str(port), str(n)]
        subprocess.run(["strace", "-f", "-qq", "-o", file.name, *program], check=True)
        for line in file:
            match = CALL.match(line)
            if match and "SO_LINGER" not in match[2]:
                found[match[1]] += 1
    return found


def count_asynchronous() -> float:
    """Return the system calls of ours when the handshake has to be waited for: the least of a few connections."""
    with tempfile.NamedTemporaryFile("r") as file:
        program = [sys.executable, str(HERE / "_traced.py"), "pending", "2"]
        subprocess.run(["strace", "-qq", "-o", file.name, *program], check=True)
        names = [match[1] for line in file if "SO_LINGER" not in line and (match := CALL.match(line))]
    # Once a second the range of local ports is read anew: openat, read, close.
    trace = " ".join(names).replace("openat read close", "")
    parts = trace.split("getppid")[1::2]
    return min(len([name for name in part.split() if name != "futex"]) for part in parts)


def measure(few: int, many: int) -> dict[str, Any]:
    note = ""
    try:
        enter_network()
    except NotPermittedError as exc:
        note = f"no network of its own ({exc}): counted on this machine's loopback"
    able, absent = c.present()
    counts = {}
    with running_server(cores()[1]) as ports:
        for name in able:
            less, more = (count(name, ports["accept"], n) for n in (few, many))
            per = {call: (more[call] - less[call]) / (many - few) for call in more}
            counts[name] = {call: number for call, number in per.items() if number >= 0.05}
    return {"note": note, "missing": absent, "calls": counts, "asynchronous": count_asynchronous()}


def bounds_of(inline: float, asynchronous: float) -> list[Bound]:
    return [
        Bound("ours, inline: system calls", inline, at_most=6),
        Bound("ours, handshake outlasts the pass: system calls", asynchronous, at_most=10),
    ]


def main() -> None:
    options = parser(__doc__, rounds=1, n=100)
    options.add_argument("--measure", action="store_true", help="count in this process, print JSON")
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.n // 2, given.n + given.n // 2)))
        return
    print(f"# System calls per connect + close, on the inline path\n\n{versions()}\n")
    reason = why_not()
    if reason:
        print(f"NOT RUN: {reason}")
        end(given, {}, bounds_of(float("nan"), float("nan")))
        return
    found = inside(__file__, "--measure", "--n", str(given.n))
    rows = []
    for name, calls in found["calls"].items():
        parts = [f"{call} {show(number, 1)}" for call, number in sorted(calls.items(), key=lambda item: -item[1])]
        bold = "**" if name == c.OURS else ""
        rows.append([f"{bold}{name}{bold}", show(sum(calls.values()), 1), ", ".join(parts)])
    print(table(["contestant", "calls", "which"], rows))
    for line in filter(None, [*found["missing"], found["note"] and "NOTE: " + found["note"]]):
        print(f"\n{line}")
    bounds = bounds_of(round(sum(found["calls"][c.OURS].values()), 1), found["asynchronous"])
    print_bounds(bounds)
    end(given, found, bounds)


if __name__ == "__main__":
    main()
