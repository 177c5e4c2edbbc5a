# ruff: noqa: INP001
"""Write docs/evidence/field.md from the names of the tests: ``python docs/evidence/generate_field.py``.

A test that holds a number has it in its name: ``test_field_07_...``.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).with_name("field.md")
TESTS: Final = Path(__file__).parents[2] / "tests"

_NAME: Final = re.compile(r"test_field_(\d\d)_\w+")

# What happened, and what happens now.
CONNECTING: Final = {
    1: ("An ICMP error inside connect(2), as of a `REJECT` rule, was noticed after a second of spinning or sleep.",
        "SO_ERROR is asked whenever connect(2) says that it is still under way. It fails within a millisecond."),
    2: ("`connectx` cost 1.3 to 1.5 times `tcp_connect` whenever the handshake had to be waited for.",
        "Nothing of a race is built before the first wait has ended without an answer."),
    3: ("A connection of a socket with itself was missed once `ip_local_port_range` had changed in a running program.",
        "The range is read again when it is older than a second."),
    4: ("With TCP fast open and a known cookie, a dead first address won the race after 0.0 ms.",
        "`fast_open` with several candidates needs an establish or TLS; without one it is a ValueError."),
    5: ("IPv4-mapped addresses took a turn of IPv6.", "They count as IPv4, over which they travel."),
}  # fmt: skip
NAMES: Final = {
    6: ("A name in the hosts file was asked of DNS too, `gai.conf` was ignored, and nothing put IPv4 first.",
        "The hosts file alone answers for its names. `gai.conf` orders, and so does `RacePolicy.first_family`."),
    7: ("With a search list, the addresses of one relative name came from two hosts.",
        "Both families come from one candidate of the list. `localhost` is loopback, and no server is asked."),
    8: ("A lookup that failed beside attempts that failed was named nowhere.", "The text names it."),
    9: ("An answer of 4,000 addresses blocked the loop for 0.3 s, and an endless iterable filled the memory.",
        "Reading stops at the cap on candidates, before the kernel is asked for routes."),
    10: ("Control characters of a host came into error texts raw, and a host of a megabyte came whole.",
         "Texts escape what is not printable and shorten what is long."),
}  # fmt: skip
STREAMS: Final = {
    11: ("A receive of 2**30 bytes took 1 GiB and seconds of processor time though three bytes had come.",
         "Memory and time of a receive follow what has come, and a partial read is kept in place."),
    12: ("`receive_until` over a line of 64 MiB took 15 s.",
         "Its time is linear. No byte is searched twice or copied more than a few times."),
    13: ("`aclose` sent RST where more than 16 MiB stood unread, and twenty flooding peers blocked the loop.",
         "The bound comes from the socket itself, and discarding takes a fair share of each pass."),
    14: ("Tasks that waited on a socket or descriptor that we had handed out slept for ever when we closed it.",
         "They are woken with `trio.ClosedResourceError`, on every way that a connect or a stream can end."),
    15: ("`TcpListener.accept` skipped nine codes through kernel sockets and one through a factory's.",
         "One list for both: what accept(2) says of a connection that died while it waited."),
    16: ("Successful calls with deadline 0 through a socket factory were no checkpoint.", "Every call is one."),
    17: ("`from_socket(ssl_socket)` was accepted and failed later with an unrelated error.",
         "It is a TypeError, and what is refused stays as it was."),
    18: ("An interrupt or an exception in an observer left sockets of a race open.",
         "Sockets are closed and the winner is handed over before anybody is told."),
    19: ("A black hole that took the last descriptor made every good endpoint behind it fail with EMFILE.",
         "A candidate that met exhaustion of this machine is tried again when an attempt ends."),
    20: ("`open_queue_set` wrapped the exception of its body in a group when a cancel came in the same pass.",
         "It comes out as it is."),
    21: ("The mode of a unix-domain socket could be set only after every process could reach it.",
         "`unix_listen(path, mode=...)` sets it from the first moment; a relative path is removed also after a chdir."),
}  # fmt: skip
ESTABLISH: Final = {
    22: ("A nursery inside establish lost the failover: its group ended the race.",
         "A group of nothing but failures of an attempt fails that attempt."),
    23: ('Why an establish failed was nowhere: an expired certificate read "not established: 1".',
         "`Attempt.reason` says it, and so do the text, the events, the drawing and `ConnectFailed.errors`."),
    24: ("An establish that returned None gave an unrelated error and leaked the socket.",
         "None means good, and the result is the stream. One that is not async is a TypeError that names establish."),
    25: ("`errno` of a race was arbitrary when the furthest failure had no errno.", '"No errno" counts as a value.'),
}  # fmt: skip
NUMBERS: Final = {
    26: ('`tcp_connect(ep, 2000)` passed in virtual time and meant "now or never" in production.',
         "`now()` counts from so far away that a duration or a size is never mistaken for a deadline."),
    27: ("A loop of receives with one deadline never ended while the peer flooded.",
         "A call that begins at or after its deadline raises `DeadlineExceeded` and does nothing."),
    28: ("The way from a deadline to a cancel scope had to be guessed.",
         "`fail_at`, `move_on_at` and `deadline_after` are that way."),
    29: ("Numbers that overflow were OverflowErrors, and wrong arguments failed late.",
         "They are TypeErrors or ValueErrors of the call, which name the value and the rule."),
}  # fmt: skip
MESSAGES: Final = {
    30: ("Trouble of this machine did not say what to do.",
         "A missing zone, a source that cannot reach, IPv6 that is switched off and a refused option are named."),
    31: ('`DeadlineExceeded.report` of a receive printed "no connection".', "It is None there."),
    32: ('`connect("", 80)` did not say what was wrong.', 'It says "no host".'),
    33: ('Drawings were wider than a terminal, and "not tried" rows made failovers out of nothing.',
         "`draw(width=80)`, start times, one set of signs with a legend, `report.tried` and `report.failed`."),
}  # fmt: skip
QUEUES: Final = {
    34: ("An empty datagram was refused, a truncated one was not told, and a close could fail for want of room.",
         "It is legal (RFC 768), truncation is told, `close()` needs no room, and results know their target."),
    35: ("The virtual network did not know names beyond ASCII, and took interfaces that are not there.",
         "It answers for such names, and refuses what Linux refuses."),
}  # fmt: skip
PACKAGE: Final = {
    36: ("The pytest plugin imported the library in every run of pytest, and a failed connect printed our source.",
         "It imports the library when `vnet` is asked for, and our frames are hidden."),
    37: ("`make demo` ended in a traceback when its output was cut short, and internal methods had public names.",
         "It ends in silence. `__version__`, short signatures, and no public name without a promise."),
    38: ("The README began with what few want.", "It begins with the purpose, and with the call that most want."),
    39: ("Five tests failed now and then, under load above all.",
         "Each fixture has an address of its own and is ready when it says so; sizes come from the kernel's limits."),
    40: ("Faults that were put into the shells by hand went unnoticed.",
         "Each has a test that notices it. `tools/faults.py` puts them in again."),
    41: ("The suite ran on one Python only.", "`.ci/run` runs it on every supported Python that the machine has."),
}  # fmt: skip
ROWS: Final = {
    **CONNECTING, **NAMES, **STREAMS, **ESTABLISH, **NUMBERS, **MESSAGES, **QUEUES, **PACKAGE,
}  # fmt: skip

INTRODUCTION: Final = """\
# What went wrong in the field

Faults that field reports, the suites of other libraries and real programs found in this library; what happened, what
happens now, and the tests that hold it. The numbers are in the names of the tests. What goes wrong elsewhere has
[a page of its own](regressions.md).

This page is written from the names of the tests. Do not edit it: run `python docs/evidence/generate_field.py`.

| no. | what happened | what happens now | held by |
|---|---|---|---|
"""


def find(folder: Path = TESTS) -> dict[int, list[tuple[str, str]]]:
    """Find file and name of the tests of each number, by the source alone.

    Raises:
      ValueError: a test names a number that does not exist.
    """
    found: dict[int, list[tuple[str, str]]] = {number: [] for number in ROWS}
    for path in sorted(folder.rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "test_field" not in source:  # parsing them all takes seconds
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (match := _NAME.fullmatch(node.name)):
                number = int(match[1])
                if number not in found:
                    raise ValueError(f"{path.name}: {node.name} names number {number}, and there are {len(ROWS)}")
                found[number].append((os.fspath(path.relative_to(folder)), node.name))
    return found


def render(folder: Path = TESTS) -> str:
    """Return the page."""
    held_by = {
        number: ", ".join(f"[`{name}`](../../tests/{file})" for file, name in tests)
        for number, tests in find(folder).items()
    }
    rows = (f"| {number} | {before} | {after} | {held_by[number]} |\n" for number, (before, after) in ROWS.items())
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
