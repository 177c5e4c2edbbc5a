"""What cannot run in the laboratory says so where nobody overlooks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.netlab import Host, NotPermitted, cable
from trio_connect._net.sockets.local_ports import forget_local_ports

_reasons: dict[str, int] = {}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for reason, count in _reasons.items():
        terminalreporter.write_line(f"NOT RUN: {count} tests of tests/lab: {reason}")


@pytest.fixture
def network() -> Iterator[tuple[Host, Host]]:
    """A client and a server, joined by one cable."""
    try:
        client = Host()
    except NotPermitted as exc:
        _reasons[str(exc)] = _reasons.get(str(exc), 0) + 1
        pytest.skip(str(exc))
    # What the kernel picks ports from belongs to the namespace.
    forget_local_ports()
    with client, Host() as server:
        # Or the kernel keeps back some of the errors that it is to send.
        server.sysctl("net.ipv4.icmp_ratelimit", 0)
        server.sysctl("net.ipv6.icmp.ratelimit", 0)
        cable(client, server)
        yield client, server
    forget_local_ports()
