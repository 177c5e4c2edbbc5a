"""Real DNS with one thing wrong: what each resolver makes of it, how long it takes, and what it asks the server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.lab]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
V6, V4 = "2001:db8::1", "192.0.2.1"
A, AAAA = "web.test A udp", "web.test AAAA udp"
MANY = [f"192.0.2.{i}" for i in range(1, 61)]


def asking(
    who: str, zone: Mapping[str, Any], host: str = "web.test", *, how: str = "resolve", **etc: str
) -> dict[str, Any]:
    files = {"resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n", **etc}
    done = subprocess.run(
        [sys.executable, str(HERE / "labrun.py"), sys.executable, "-m", "tests.lab.asking"],
        input=json.dumps({"who": who, "host": host, "zone": zone, "etc": files, "how": how}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


# What is wrong, what is found, what the C library asks, what `DnsResolver` asks.
SCENES: dict[str, tuple[Any, Any, Any, list[str], list[str]]] = {
    "nothing": ([V6], [V4], [V4, V6], [A, AAAA], [A, AAAA]),
    "AAAA late": ({"records": [V6], "delay": 0.3}, [V4], [V4, V6], [A, AAAA], [A, AAAA]),
    "A late": ([V6], {"records": [V4], "delay": 0.3}, [V4, V6], [A, AAAA], [A, AAAA]),
    # Silence is asked again: twice by the C library (attempts:2), four times in ten seconds by us.
    "AAAA dropped": ({"drop": True}, [V4], [V4], [A, AAAA, AAAA], [A, *[AAAA] * 4]),
    "A dropped": ([V6], {"drop": True}, [V6], [A, A, AAAA], [*[A] * 4, AAAA]),
    "AAAA SERVFAIL": ({"rcode": "SERVFAIL"}, [V4], [V4], [A, AAAA, AAAA], [A, AAAA]),
    "A REFUSED": ([V6], {"rcode": "REFUSED"}, [V6], [A, A, AAAA], [A, AAAA]),
    "both SERVFAIL": ({"rcode": "SERVFAIL"}, {"rcode": "SERVFAIL"}, None, [A, A, AAAA, AAAA], [A, AAAA]),
    "A truncated": (
        [V6], {"records": MANY, "truncated": True}, sorted([*MANY, V6]),
        ["web.test A tcp", A, AAAA], ["web.test A tcp", A, AAAA],
    ),
    "A malformed": ([V6], {"records": [V4], "malformed": True}, [V6], [A, A, AAAA], [A, AAAA]),
}  # fmt: skip


@pytest.mark.parametrize("what", SCENES)
@pytest.mark.parametrize("who", ["system", "dns"])
def test_one_thing_wrong(who: str, what: str) -> None:
    """The other family is found all the same, and no more is asked than has to be."""
    aaaa, a, found, _, ours = SCENES[what]
    outcome = asking(who, {"web.test AAAA": aaaa, "web.test A": a})
    if found is None:
        assert outcome["result"].startswith("failed: ")
    else:
        assert outcome["result"] == found
    if who == "dns":
        assert outcome["asked"] == ours
        assert outcome["took"] < (11 if "dropped" in what else 1.5)
    else:
        # How often the C library asks is its own affair, and differs between its versions.
        assert {question.split()[1] for question in outcome["asked"]} == {"A", "AAAA"}
    print(f"{what}: {who} asked {len(outcome['asked'])} times, {outcome['took']:.2f} s")


HTTPS = "web.test HTTPS udp"


@pytest.mark.parametrize(
    ("https", "lookup", "asked"),
    [
        (["1 alt.test. alpn=h2 port=8443"], "found", [HTTPS, "alt.test A udp", "alt.test AAAA udp", A, AAAA]),
        ({"records": ["1 . alpn=h2"], "malformed": True}, "has a malformed HTTPS record", [HTTPS, A, AAAA]),
        ({"rcode": "SERVFAIL"}, "SERVFAIL", [HTTPS, A, AAAA]),
        ({"records": ["1 . alpn=h2"], "truncated": True}, "found", ["web.test HTTPS tcp", HTTPS, A, AAAA]),
        ({"drop": True}, "None", [HTTPS, A, AAAA]),
        ([], "none", [HTTPS, A, AAAA]),
    ],
    ids=["good", "malformed", "SERVFAIL", "truncated", "dropped", "none"],
)
@pytest.mark.parametrize("who", ["system", "services"])
def test_https_records_are_no_danger(who: str, https: Any, lookup: str, asked: list[str]) -> None:
    """Whatever comes of the records, the connect goes through, and a malformed one is not asked for again.

    The system's resolver never asks for them.
    """
    zone = {"web.test HTTPS": https, "web.test A": ["127.0.0.1"], "alt.test A": ["127.0.0.2"]}
    outcome = asking(who, zone, how="connect")
    if who == "system":
        assert (outcome["result"], outcome["asked"]) == ("127.0.0.1", [A, AAAA])
    else:
        assert outcome["result"] == "127.0.0.1"  # the alternative is tried first, and nobody listens there
        assert lookup in outcome["https"]
        assert outcome["asked"] == sorted(asked)
    assert outcome["took"] < 2
    print(f"{who} asked {len(outcome['asked'])} times, {outcome['took']:.3f} s")


def test_a_dead_first_server_of_resolv_conf() -> None:
    """Nothing listens on the first server's port: both go to the second one at once."""
    servers = "nameserver 127.0.0.9\nnameserver 127.0.0.1\noptions timeout:1 attempts:2\n"
    for who in ("system", "dns"):
        outcome = asking(who, {"web.test AAAA": [V6], "web.test A": [V4]}, **{"resolv.conf": servers})
        assert outcome["result"] == [V4, V6]
        assert outcome["took"] < 1
