"""Names as the C library has them: `resolve` beside getaddrinfo(3), with the files in /etc and the DNS of a test."""

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
LOCAL = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"


def lookup(who: str, host: str, zone: Mapping[str, Any], etc: Mapping[str, str]) -> tuple[Any, list[str]]:
    """What a lookup found, and what the name server was asked for it."""
    done = subprocess.run(
        [sys.executable, str(HERE / "labrun.py"), sys.executable, "-m", "tests.lab.resolving"],
        input=json.dumps({"who": who, "host": host, "zone": zone, "etc": etc}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    return outcome["result"], outcome["asked"]


def scene(hosts: str = "", resolv: str = "", **etc: str) -> dict[str, str]:
    files = {name.replace("_", "."): text for name, text in etc.items()}
    return {"hosts": "127.0.0.1 localhost\n" + hosts, "resolv.conf": LOCAL + resolv, **files}


def same(host: str, zone: Mapping[str, Any], etc: Mapping[str, str]) -> tuple[Any, list[str]]:
    """Look up with both; they must find the same."""
    found, asked = lookup("ours", host, zone, etc)
    expected, _ = lookup("theirs", host, zone, etc)
    if isinstance(expected, str):
        assert str(found).startswith("failed: "), (found, expected)
    else:
        assert sorted(found) == sorted(expected)
    return found, asked


BOTH = {"api.test A": ["192.0.2.1"], "api.test AAAA": ["2001:db8::1"]}


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ("127.0.0.1 api.test\n", ["127.0.0.1"]),
        ("0.0.0.0 API.Test # blocked\n", ["0.0.0.0"]),
        ("2001:db8::7 other.test api.test\n192.0.2.7 api.test\n", ["2001:db8::7", "192.0.2.7"]),
        ("192.0.2.7\tapi.test\n192.0.2.8 api.test\n", ["192.0.2.7", "192.0.2.8"]),
    ],
)
def test_field_06_a_name_of_the_hosts_file_is_answered_from_it_alone(hosts: str, found: list[str]) -> None:
    """A pin or block in the hosts file holds for both families, and DNS is not asked."""
    ours, asked = same("api.test", BOTH, scene(hosts))
    assert sorted(ours) == sorted(found)
    assert asked == []


@pytest.mark.parametrize(
    "hosts", ["192.0.2.7 api.test.example\n", "#192.0.2.7 api.test\n", "fe80::1%lo api.test\n", "x api.test\n"]
)
def test_field_06_other_lines_are_no_answer(hosts: str) -> None:
    """Comments, longer names and lines that the C library cannot read leave the name to DNS."""
    _, asked = same("api.test", BOTH, scene(hosts))
    assert sorted(asked) == ["api.test A", "api.test AAAA"]


def test_field_06_a_pin_in_the_hosts_file_waits_for_no_name_server() -> None:
    """`connect` goes to the pinned address although DNS swallows every question."""
    zone = {"api.test A": "drop", "api.test AAAA": "drop"}
    found, asked = lookup("connect", "api.test", zone, scene("127.0.0.1 api.test\n"))
    assert (found, asked) == ("127.0.0.1", [])


@pytest.mark.parametrize("nsswitch", ["hosts: dns files\n", "hosts: dns [NOTFOUND=return] files\n", "hosts: files\n"])
def test_field_06_the_order_of_name_services_is_the_systems(nsswitch: str) -> None:
    """DNS before the hosts file, or no DNS at all, is as in getaddrinfo."""
    for host in ("api.test", "only.test"):
        same(host, BOTH, scene("192.0.2.7 api.test\n192.0.2.8 only.test\n", nsswitch_conf=nsswitch))


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "localhost.", "A.LocalHost"])
def test_field_07_localhost_asks_nobody(host: str) -> None:
    """`localhost` and what ends in it is loopback; no question leaves (RFC 6761 6.3)."""
    found, asked = lookup("ours", host, {f"{host.lower().strip('.')} A": ["192.0.2.66"]}, scene())
    assert set(found) <= {"127.0.0.1", "::1"}
    assert asked == []


@pytest.mark.parametrize(
    ("host", "zone", "resolv"),
    [
        (
            "db",
            {
                "db.dev.example A": ["192.0.2.1"],
                "db.prod.example AAAA": ["2001:db8::9"], "db.prod.example A": ["192.0.2.9"],
            },
            "search dev.example prod.example\n",
        ),
        (
            "db",
            {"db.dev.example AAAA": ["2001:db8::1"], "db.prod.example A": ["192.0.2.9"]},
            "search dev.example prod.example\n",
        ),
        ("db", {"db.prod.example A": ["192.0.2.9"]}, "search dev.example prod.example\n"),
        ("db", {"db A": ["192.0.2.9"]}, "search dev.example prod.example\n"),
        ("db", {"db A": ["192.0.2.9"]}, "search dev.example\noptions no-tld-query\n"),
        ("db", {}, "search dev.example prod.example\n"),
        ("api.x", {"api.x A": ["192.0.2.1"], "api.x.dev.example AAAA": ["2001:db8::9"]}, "search dev.example\n"),
        ("api.x", {"api.x.dev.example AAAA": ["2001:db8::9"]}, "search dev.example\n"),
        (
            "api.x",
            {"api.x A": ["192.0.2.1"], "api.x.dev.example AAAA": ["2001:db8::9"]},
            "search dev.example\noptions ndots:5\n",
        ),
        ("db.", {"db.dev.example A": ["192.0.2.1"]}, "search dev.example\n"),
        ("db", {"db.dev.example A": ["192.0.2.1"], "db.prod.example A": ["192.0.2.9"]}, "domain prod.example\n"),
        # After SERVFAIL the C library goes on, whatever one thinks of that.
        (
            "db",
            {
                "db.dev.example A": "SERVFAIL", "db.dev.example AAAA": "SERVFAIL",
                "db.prod.example A": ["192.0.2.9"], "db.prod.example AAAA": ["2001:db8::9"],
            },
            "search dev.example prod.example\n",
        ),
        (
            "db",
            {"db.dev.example A": "drop", "db.dev.example AAAA": "drop", "db.prod.example A": ["192.0.2.9"]},
            "search dev.example prod.example\n",
        ),
        ("127.1", {"127.1 A": ["192.0.2.66"]}, "search dev.example\n"),
    ],
)  # fmt: skip
def test_field_07_a_relative_name_is_one_host(host: str, zone: dict[str, Any], resolv: str) -> None:
    """Both families come from one candidate of the search list, the one that getaddrinfo takes."""
    same(host, zone, scene(resolv=resolv))


def test_field_07_no_candidate_after_the_right_one_is_asked_for() -> None:
    """What the list has behind the name that exists is never asked for."""
    found, asked = same("db", {"db.dev.example A": ["192.0.2.1"]}, scene(resolv="search dev.example prod.example\n"))
    assert found == ["192.0.2.1"]
    assert sorted(asked) == ["db.dev.example A", "db.dev.example AAAA"]


@pytest.mark.parametrize(
    ("gai", "first"),
    [
        ("", "2001:db8::1"),
        ("precedence ::ffff:0:0/96  100\n", "192.0.2.1"),
        ("#precedence ::ffff:0:0/96  100\n", "2001:db8::1"),
        ("precedence ::/0 10\nprecedence 2001:db8::/32 5\n", "192.0.2.1"),
        ("label ::ffff:0:0/96 1\nlabel ::/0 2\nlabel 2001:db8::1/128 3\n", "192.0.2.1"),
    ],
)
def test_field_06_gai_conf_orders(gai: str, first: str) -> None:
    """Labels and precedences of /etc/gai.conf order, as they do for getaddrinfo."""
    if not Path("/etc/gai.conf").exists():
        pytest.skip("this machine has no /etc/gai.conf to mount another one over")
    etc = scene(gai_conf=gai)
    ours, _ = lookup("ours", "api.test", BOTH, etc)
    theirs, _ = lookup("theirs", "api.test", BOTH, etc)
    assert ours == theirs
    assert ours[0] == first


def test_lines_68_70_and_71_where_there_is_no_route_to_ipv4_the_name_server_says_how_it_is_reached() -> None:
    """A namespace has IPv6 only, and a name server that knows the prefix; nothing is made up for the name itself."""
    zone = {
        "api.test A": ["192.0.2.1"],
        "ipv4only.arpa A": ["192.0.0.170", "192.0.0.171"],
        "ipv4only.arpa AAAA": ["2001:db8:64::c000:aa", "2001:db8:64::c000:ab"],
    }
    found, asked = lookup("nat64", "api.test", zone, scene())
    made = ["2001:db8:64::c000:201", ["192.0.2.1"]]
    name, prefix = ["api.test AAAA", "api.test A"], ["ipv4only.arpa. AAAA"]
    assert found == ["ENETUNREACH", [*made, name + prefix], "ENETUNREACH", [*made, []], ["2001:db8:64::/96"]]
    assert asked.count("ipv4only.arpa AAAA") == 1
    assert "ipv4only.arpa A" not in asked
