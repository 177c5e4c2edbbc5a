# ruff: noqa: INP001
"""Write docs/evidence/conformance.md from the names of the tests: ``python docs/evidence/generate_conformance.py``.

A test that holds a line of the checklist has its number in its name: ``test_line_45_...``, or for several
``test_lines_1_2_and_5_...``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

PAGE: Final = Path(__file__).with_name("conformance.md")
TESTS: Final = Path(__file__).parents[2] / "tests"

_NAME: Final = re.compile(r"test_lines?_(\d+(?:_(?:and_)?\d+)*)_")

NO_ECH: Final = "Python's `ssl` has no ECH"

# M must, S should, R recommended, m may, of RFC 8305 and draft-ietf-happy-happyeyeballs-v3; X where they are silent.
LINES: Final = {
    1: ("M", "IPv6 connectivity: AAAA is asked"),
    2: ("M", "IPv4 connectivity: A is asked"),
    3: ("M", "a known NAT64 prefix: A is asked even without IPv4"),
    4: ("S", "a service like HTTP: HTTPS is asked"),
    5: ("S", "questions go out in one instant, in the order SVCB or HTTPS, AAAA, A"),
    6: ("S", "connecting starts before all answers are in"),
    7: ("S", "one question's failure never cancels another"),
    8: ("R", "AAAA has come, and service records: start at once, A still pending"),
    9: ("R", "A first: wait at most 50 ms; AAAA at 10 ms starts at 10 ms, IPv6 first"),
    10: ("R", "A first, AAAA at 150 ms: start IPv4 at 50 ms, merge IPv6 at 150 ms"),
    11: ("R", "addresses complete, HTTPS 10 ms later: start at 10 ms"),
    12: ("R", "HTTPS never: start at 50 ms"),
    13: ("S", "address hints alone: start at once"),
    14: ("M", "after hints the real A and AAAA are still asked"),
    15: ("M", "real records replace hints"),
    16: ("S", "two services: the race begins while the addresses of one are asked"),
    17: ("R", "a host with IPv4 only: no AAAA; HTTPS at 10 ms starts at 10 ms"),
    18: ("M", "AliasMode asks again and does not open the gate"),
    19: ("R", "a negative AAAA ends the wait for it"),
    20: ("R", "all negative: a failure that names each question and its outcome"),
    21: ("R", "one family only: that one is preferred"),
    22: ("S", "the resolver is contacted over IPv6 first"),
    23: ("S", "no limit on the number of resolvers"),
    24: ("S", "late replies are read for a second, for the cache"),
    25: ("m", "stale answers start the race, fresh ones are merged"),
    26: ("S", "distinct sets of ALPN or ECH form groups"),
    27: ("S", "properties that are not critical form none"),
    28: ("S", "groups by ascending SVCB priority"),
    29: ("S", "groups of one priority are shuffled"),
    30: ("S", "addresses without a service record come last"),
    31: ("M", "RFC 6724 section 6 orders each group"),
    32: ("S", "lower round-trip time first, between rules 8 and 9"),
    33: ("S", "used before, ahead of never used, after that"),
    34: ("M", "history is divided along privacy boundaries"),
    35: ("M", "history is not used across provisioning domains"),
    36: ("S", "history is flushed when the domain changes"),
    37: ("M", "clients with different histories converge"),
    38: ("S", "families take turns, the preferred one first"),
    39: ("m", "how many of the preferred family come first can be set"),
    40: ("X", "the order is stable and follows from the answers alone"),
    41: ("X", "scope id, flow label and port survive sorting"),
    42: ("S", "one start each time the timer fires"),
    43: ("S", "a start leaves earlier attempts running"),
    44: ("R", "the default delay is 250 ms"),
    45: ("M", "10 ms between any two starts, after failures too"),
    46: ("R", "delays are raised to 100 ms"),
    47: ("S", "delays are lowered to 2 s"),
    48: ("R", "the delay follows the time of the first retransmission"),
    49: ("S", "resumed sessions have the same delay"),
    50: ("R", "each start arms the timer, the end of the list stops it"),
    51: ("S", "a success cancels and closes every other attempt before the return"),
    52: ("S", "endpoints that were not started are forgotten after it"),
    53: ("m", "so are lookups"),
    54: ("S", "a group is started before the next one, and runs on beside it"),
    55: ("S", "with TLS, others live until TLS is through"),
    56: ("S", "a middlebox that completes TCP and never TLS: the second path wins"),
    57: ("S", "the timer is extended once TCP is up and TLS pending"),
    58: ("M", "no ClientHello before the record that a client relies on"),
    59: ("M", "handshakes pend only if all three conditions hold"),
    60: ("S", "protected DNS and SVCB fails: abandon"),
    61: ("S", "an endpoint without a common ALPN is never tried"),
    62: ("S", "Alt-Svc is respected"),
    63: ("S", "a late endpoint is placed by sorting the whole list again"),
    64: ("S", "one that was removed after its start is not cancelled"),
    65: ("S", "one that was removed before is never started"),
    66: ("m", "an update starts the next early when an earlier attempt makes no progress"),
    67: ("m", "an expired ttl asks again, attempts live on"),
    68: ("S", "IPv6 only: ipv4only.arpa is asked"),
    69: ("M", "DNS64 answers are recognised before sorting"),
    70: ("M", "IPv4 without a route is synthesised, all prefix lengths"),
    71: ("M", "literals too"),
    72: ("X", "four blocks of IPv4 never are"),
    73: ("X", "last-resort synthesis 2 s after the last attempt"),
    74: ("X", "the deadline holds exactly in every state"),
    75: ("X", "no viable attempt is ended because another starts"),
    76: ("X", "a loser's close never blocks or delays the return"),
    77: ("X", "a cancel at any checkpoint leaves no socket and no task"),
    78: ("X", "every attempt is in the report once, with all that is known"),
    79: ("X", "the failure is one group, each member names its address"),
    80: ("X", "a limit on live attempts, and the next start waits"),
    81: ("X", "sources filter endpoints by family; the rest is reported as skipped"),
    82: ("X", "an infinite delay is one at a time, a delay of 0 is refused"),
    83: ("X", "two successes in one instant: one winner, the other closed"),
    84: ("X", "two races to one destination share their pace"),
    85: ("X", "an empty list is a typed error at once"),
}  # fmt: skip

BY_DESIGN: Final = {
    46: "values are used as given, never clamped. Below 10 ms is refused, where the RFC says MUST NOT; between 10 and "
    "100 ms is the caller's decision, and the default is 250 ms",
    47: "values are used as given, never clamped: a longer delay is a caller's way to one attempt at a time",
    22: "name servers are asked in the operator's order, as resolv.conf(5) promises: the first may be the only one "
    "that knows the inner names",
    73: "it is of RFC 8305 section 7.2 alone, and the editors' copy of v3 has deleted it. With a `Nat64` A is asked "
    "for beside AAAA, and what is synthesised of it is a candidate of the same race: a broken IPv6 address costs one "
    "attempt delay, and not two seconds after the last attempt",
}

LEFT_OUT: Final = {
    58: f"it is about clients that rely on a record to encrypt the ClientHello (ECH), and {NO_ECH}",
    59: f"likewise: {NO_ECH}, so no handshake has to wait for a record",
    60: f"likewise: {NO_ECH}. A record only adds endpoints; without it the authority's own are tried (RFC 9460, 3)",
    62: "Alt-Svc is HTTP's, and nothing here speaks HTTP or QUIC; who does passes `connectx` the endpoints it names",
}

INTRODUCTION: Final = """\
# Happy Eyeballs, line by line

What RFC 8305, its successor draft-ietf-happy-happyeyeballs-v3 and RFC 6724 ask for, and what users ask for where these
are silent; which tests hold each line, and what is left out. *M*: must, *S*: should, *R*: recommended, *m*: may,
*X*: the documents are silent.

This page is written from the names of the tests. Do not edit it: run `python docs/evidence/generate_conformance.py`.
"""

NOTES: Final = """\
## Exemptions

Line 26 is held for ALPN. ECH forms no groups: Python's `ssl` has none, so no endpoint can be reached with more security
than another. Groups go by their best SVCB priority, because RFC 9460 has clients follow the priorities.

Line 45 has two. An attempt to a loopback address does not arm the 10 ms, nor does one that failed before a packet left:
without a socket, a local address or a route there is nothing to protect the network from.

Lines 3 and 68 to 72 are those of a network that has IPv6 only. They hold for calls that are given a `Nat64`: nobody is
asked for a prefix by a program that has not said so, because the answer, which nobody signs, decides where its packets
for IPv4 go (RFC 7050 section 7), and because what was found has to be forgotten when a machine changes networks. The
option of router advertisements (RFC 8781) is not read; no portable call shows it to a program.
"""


@attrs.frozen
class Test:
    """A test, and the lines that its name says it holds."""

    file: str
    name: str
    lines: tuple[int, ...]


def find(folder: Path = TESTS) -> Iterator[Test]:
    """Find every test that has a line in its name, by the source alone."""
    for path in sorted(folder.rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "test_line" not in source:  # parsing them all takes seconds
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := _NAME.match(node.name)):
                lines = tuple(int(number) for number in re.findall(r"\d+", match[1]))
                yield Test(path.relative_to(folder).as_posix(), node.name, lines)


def held(found: Iterator[Test]) -> dict[int, list[Test]]:
    """Return the tests of each line.

    Raises:
      ValueError: a test names a line that does not exist.
    """
    by_line: dict[int, list[Test]] = {number: [] for number in LINES}
    for test in found:
        for number in test.lines:
            if number not in by_line:
                raise ValueError(f"{test.file}: {test.name} names line {number}, and there are {len(LINES)}")
            by_line[number].append(test)
    return by_line


def status(number: int, by: list[Test]) -> str:
    """Say what there is of one line.

    Raises:
      ValueError: neither a test nor a reason.
    """
    if number in BY_DESIGN:
        return f"**different by design**: {BY_DESIGN[number]}"
    if number in LEFT_OUT:
        return f"**left out**: {LEFT_OUT[number]}"
    if by:
        files = dict.fromkeys(test.file for test in by)
        names = (f"{len([t for t in by if t.file == file])} in `{file}`" for file in files)
        return f"tested: {', '.join(names)}"
    raise ValueError(f"line {number} ({LINES[number][1]}) has neither a test nor a reason for having none")


def render(folder: Path = TESTS) -> str:
    """Return the page."""
    by_line = held(find(folder))
    rows = [f"| {n} | {level} | {text} | {status(n, by_line[n])} |" for n, (level, text) in LINES.items()]
    tested = sum(n not in BY_DESIGN and bool(by) for n, by in by_line.items())
    others = f"{len(BY_DESIGN)} are different by design, {len(LEFT_OUT)} are left out"
    count = f"{tested} of {len(LINES)} lines are tested, {others}."
    details = [
        f"- **{n}** {LINES[n][1]}\n" + "".join(f"  - `{t.file}::{t.name}`\n" for t in by)
        for n, by in by_line.items()
        if by
    ]
    return "\n".join(
        [INTRODUCTION, count + "\n", "| line | level | what | here |", "|---|---|---|---|", *rows, "", NOTES,
         "## The tests\n", "".join(details)]
    )  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
