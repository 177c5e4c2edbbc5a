"""`trio-connect probe` and `probe --each` of faults that a kernel makes: the exit code and the verdict."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from tests.lab.netlab import Host
from trio_connect.cli import main as command
from trio_connect.cli.probe import Job, run

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's"),
]

V4, V6 = "10.9.0.2", "fd00:0::2"


def refused(_client: Host, _server: Host) -> None:
    """Nobody listens."""


def black_hole(_client: Host, server: Host) -> None:
    server.filter("input", "tcp dport 80 drop")


def icmp_unreachable(_client: Host, server: Host) -> None:
    server.filter("input", "tcp dport 80 reject with icmpx type host-unreachable")


def rejected_here(client: Host, _server: Host) -> None:
    client.filter("output", "tcp dport 80 reject with icmpx type port-unreachable")


@pytest.mark.parametrize("each", [False, True], ids=["race", "each"])
@pytest.mark.parametrize(
    ("fault", "code", "what"),
    [
        (refused, 7, "refuses"),
        (black_hole, 28, "is silent"),
        (icmp_unreachable, 7, "is unreachable (no route to host)"),
        (rejected_here, 7, "refuses"),
    ],
)
def test_a_fault(
    network: tuple[Host, Host], fault: Callable[[Host, Host], None], code: int, what: str, each: bool
) -> None:
    fault(*network)
    words = ["probe", "host.test:80", "--resolve", f"host.test:80:{V6},{V4}", "--deadline", "0.6"]
    parsed = command._parser().parse_args([*words, *(["--each"] if each else [])])
    out = io.StringIO()
    job = Job(targets=tuple(parsed.targets), settings=command._settings(parsed), format="json", out=out)
    assert network[0].trio(run, job) == code
    finding = json.loads(out.getvalue())["targets"][0]["finding"]
    assert sorted(finding.split("; ")) == [f"the IPv4 address {what}", f"the IPv6 address {what}"]


def test_the_dead_family_behind_the_good_one(network: tuple[Host, Host]) -> None:
    network[1].filter("input", "ip6 version 6 tcp dport 80 drop")
    words = ["probe", "host.test:80", "--each", "--resolve", f"host.test:80:{V6},{V4}", "--deadline", "0.6"]
    parsed = command._parser().parse_args(words)
    out = io.StringIO()
    job = Job(targets=tuple(parsed.targets), settings=command._settings(parsed), format="json", out=out)
    with network[1].listener(V4, 80):
        assert network[0].trio(run, job) == 28
    finding, advice = (json.loads(out.getvalue())["targets"][0][key] for key in ("finding", "advice"))
    assert finding.startswith("IPv4 works in ")
    assert finding.endswith("; the IPv6 address is silent")
    assert advice == "every client without racing waits for it"
