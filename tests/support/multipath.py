"""Have the tests of TCP run over MPTCP: every `tcp_connect` and `tcp_listen` of theirs then asks for it.

Switched on by the variable TRIO_CONNECT_MULTIPATH of the environment, which the laboratory sets for the suites that
must hold for both. Test modules import the two names after this has replaced them.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any, Final

import attrs
import pytest

import trio_connect
from trio_connect import SocketOptions

SWITCHED_ON: Final = bool(os.environ.get("TRIO_CONNECT_MULTIPATH"))

IPPROTO_MPTCP: Final = 262  # linux/in.h


NO_USER_TIMEOUT: Final = "an MPTCP socket refuses TCP_USER_TIMEOUT"
NO_RESET: Final = (
    "Linux closes an MPTCP connection without resetting a peer that goes on sending: that one fills the buffers, and "
    "learns of it after 60 seconds"
)
NO_ZONE: Final = "getsockname(2) of an MPTCP socket leaves the zone of a link-local address out"

DIFFERENCES: Final = {
    "test_trios_own_check_of_half_closeable_streams[kernel-tcp]": NO_RESET,
    "test_trios_own_check_of_half_closeable_streams[factory-tcp]": NO_RESET,
    "test_errno[user timeout]": NO_USER_TIMEOUT,
    "test_a_peer_that_vanishes_breaks_the_stream": NO_USER_TIMEOUT,
    "test_the_kernel_has_what_was_asked_for[kernel-user_timeout-1.2345-6-18-1235-1235]": NO_USER_TIMEOUT,
    "test_the_kernel_has_what_was_asked_for[factory-user_timeout-1.2345-6-18-1235-1235]": NO_USER_TIMEOUT,
    "test_link_local_addresses_have_a_zone": NO_ZONE,
}
"""The tests of the suites that hold for TCP and not for MPTCP, and why; the page on MPTCP says the same to users."""

HEARD_LATE: Final = 1.1 if SWITCHED_ON else 0.0
"""Seconds until an ICMP error that comes back inside connect(2) is heard: for MPTCP the next SYN has to be sent."""


def mark_differences(items: list[pytest.Item]) -> None:
    """Have each test in `DIFFERENCES` fail, or the list is out of date; what would take a minute is not run."""
    for item in items:
        why = DIFFERENCES.get(item.name)
        if why is not None:
            run = why != NO_RESET
            item.add_marker(pytest.mark.xfail(reason=why, strict=True, run=run))


def available() -> bool:
    """Say whether this kernel makes MPTCP sockets."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError:
        return False
    return True


def ask_for_multipath() -> None:
    """Replace the public `tcp_connect` and `tcp_listen` by ones that ask for MPTCP."""

    async def asking(call: Any, *args: Any, options: SocketOptions | None = None, **kwargs: Any) -> Any:
        options = attrs.evolve(options or SocketOptions(), multipath=True)
        return await call(*args, options=options, **kwargs)

    for name in ("tcp_connect", "tcp_listen"):
        setattr(trio_connect, name, partial(asking, getattr(trio_connect, name)))
