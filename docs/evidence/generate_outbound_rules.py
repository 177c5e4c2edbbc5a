# ruff: noqa: INP001
"""Draw docs/evidence/outbound-rules.md from the tables that the engines obey, and from the names of the tests.

Run ``python docs/evidence/generate_outbound_rules.py``.
"""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from errno import errorcode
from pathlib import Path
from typing import Any, Final

import attrs

from trio_connect._engine.charge import CHARGES
from trio_connect._engine.circuit import CIRCUIT_DECISIONS, CIRCUIT_FACTS, TICKET_FACTS
from trio_connect._engine.shortage import SHORTAGE
from trio_connect._outbound_values import OutboundPolicy

PAGE: Final = Path(__file__).with_name("outbound-rules.md")
ROOT: Final = Path(__file__).parents[2]
STATES: Final = runpy.run_path(str(Path(__file__).with_name("generate_race_states.py")))

INTRODUCTION: Final = """\
# The rules of outbound destinations

This page is drawn from the tables that the engines of `trio_connect.outbound` obey, and from the names of the tests. Do
not edit it: run `python docs/evidence/generate_outbound_rules.py`.
"""

INVARIANTS: Final[dict[str, list[str]]] = {
    "Counting": [
        "The destination opens on exactly the Nth call in a row that reached nobody.",
        "Failures are counted over all sources together.",
        "A call of which several addresses failed counts once.",
        "A failed address beside one that worked counts 0 for the destination, and is in cooldown.",
        "Success, with the handshake done, sets failures and openings to 0.",
        "TCP followed by a failed handshake resets nothing, and the plan goes on.",
        "A cancel at any checkpoint changes no counter, no cooldown and no circuit.",
        "Time on an established connection never counts as connect time.",
    ],
    "Attribution": [
        "A source that cannot be bound is suspended; other sources go on in the same call.",
        "A failure of the source leaves the destination's state unchanged, bit for bit.",
        "With all sources suspended the caller is told the earliest end.",
        "Running out of descriptors never opens a circuit.",
        "A prohibited address is never dialled; `skip` goes on with the others, `reject` condemns.",
        "A source never reaches an address of another family, and that is not a failure.",
    ],
    "Opening and probing": [
        "While open, no socket is made.",
        "`until` is later than now, and not later than the maximum with its jitter.",
        "When due, at most `probe_limit` attempts run, however many tasks wait.",
        "A probe that succeeds closes the circuit and wakes all; they come by and by, not all at once.",
        "A probe that fails opens at once, with the next longer delay.",
        "A probe that was cancelled, or whose source failed, frees its place for the next.",
        "A probe whose owner does not say how it went loses its place after the lease.",
        "What an older generation reports is ignored, success included.",
        "`reset()` closes at once and wakes those who wait.",
        "Two destinations that opened together have different times.",
    ],
    "Admission": [
        "What is held is within every cap at every instant, in any interleaving.",
        "Several limits are taken together or not at all.",
        "The smallest cap is asked first.",
        "A waiter that is cancelled holds nothing and loses no wake-up.",
        "First come first served per destination; one backlog does not block another.",
        "In any time of length w at most burst + rate x w begin.",
        "When all candidates are throttled the soonest time is told, and no failure recorded.",
        "A throttled priority spills to the next in the same call.",
        "A time beyond the caller's deadline is said to be one.",
        "Limits are shared only by those who name the same group.",
    ],
    "Plans": [
        "Lower priority values first; within one the order follows the weights.",
        "Families alternate within a priority; both are there before the limit.",
        "Starts are `stagger` apart or at once after a failure; one winner, every loser closed before return.",
        "Addresses in cooldown go last and are not removed; only the circuit refuses.",
        "A loser that failed keeps its cooldown.",
        "A new resolution keeps what is known of addresses that stay, and forgets others only after a time.",
    ],
    "Resolution": [
        "Equal lookups at one time are one query.",
        'Null MX and SRV "." reject; without MX records the domain\'s own addresses serve.',
        "When the resolver cannot find out, the last answer serves.",
        "A and AAAA are asked for side by side.",
    ],
    "Structure": [
        "No task outlives the outbound; no descriptor is left after a cancel.",
        "Every decision has one record, and the records replay to the same state.",
    ],
}


def tests() -> dict[int, list[str]]:
    """Return the names of the tests of each number, with the file they stand in."""
    found: dict[int, list[str]] = {}
    for path in sorted([*(ROOT / "tests/outbound").glob("test_*.py"), *(ROOT / "tests/engine").glob("test_*.py")]):
        if path.parent.name == "engine" and path.stem not in {
            "test_charge", "test_circuit", "test_health", "test_limits", "test_plan", "test_turns",
        }:  # fmt: skip
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                match = re.match(r"test_(\d+)_", node.name)
                if match:
                    place = f"{path.parent.name}/{path.name}"
                    found.setdefault(int(match[1]), []).append(f"`{node.name}` ({place})")
    return found


def invariants() -> Iterator[str]:
    named = tests()
    number = 0
    for chapter, rules in INVARIANTS.items():
        yield f"### {chapter}"
        yield ""
        yield "| | rule | tests |"
        yield "|---|---|---|"
        for rule in rules:
            number += 1
            yield f"| {number} | {rule} | {'<br>'.join(named[number])} |"
        yield ""


def charges() -> Iterator[str]:
    yield "| phase | errno | charged to |"
    yield "|---|---|---|"
    process = ", ".join(sorted(errorcode[code] for code in SHORTAGE))
    yield f"| any | {process} | process |"
    for phase, row in CHARGES.items():
        for code, charged in row.items():
            name = "any other, or none" if code is None else errorcode[code]
            yield f"| {phase} | {name} | {charged} |"


def policy() -> Iterator[str]:
    text = " ".join((OutboundPolicy.__doc__ or "").split())
    yield "| field | default | what it is |"
    yield "|---|---|---|"
    names = [field.name for field in attrs.fields(OutboundPolicy)]
    for name, following in zip(names, [*names[1:], "Raises"], strict=True):
        match = re.search(rf" {name}: (.*?) {following}:", text)
        assert match is not None, name
        default: Any = getattr(attrs.fields(OutboundPolicy), name).default
        yield f"| `{name}` | `{default!r}` | {match[1]} |"


def render() -> str:
    """Return the page."""
    plain, diagram, grid = STATES["plain"], STATES["diagram"], STATES["grid"]
    facts, decisions = plain(CIRCUIT_FACTS), plain(CIRCUIT_DECISIONS)
    return "\n".join(
        [
            INTRODUCTION,
            "## The circuit of a destination",
            "",
            "`succeeded`, `failed` and `released` are what a ticket of the present generation says; `due`: somebody",
            "asks, and the time has come. An *illegal* pair raises and changes nothing.",
            "",
            *diagram(("closed",), facts, decisions),
            "",
            *grid(facts),
            "",
            "A ticket speaks once. A *late* word frees its place and changes nothing else.",
            "",
            *grid(plain(TICKET_FACTS)),
            "",
            "## Whom a failure is charged to",
            "",
            "What lost, was cancelled, was skipped or never started is charged to nobody.",
            "",
            *charges(),
            "",
            "## The policy",
            "",
            "Times are in seconds.",
            "",
            *policy(),
            "",
            "## The invariants, and the tests that hold them",
            "",
            *invariants(),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
