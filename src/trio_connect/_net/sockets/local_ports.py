"""The ports that the kernel picks local ones from: only these can make a socket connect to itself by chance."""

from __future__ import annotations

import os
from math import inf
from time import monotonic
from typing import Final, final

from trio.lowlevel import enable_ki_protection

_LASTS: Final = 1.0  # seconds; reading it takes as long as a connect
_FILE: Final = "/proc/sys/net/ipv4/ip_local_port_range"


@enable_ki_protection  # a descriptor that is only a number is closed by nobody else
def _read() -> range:
    try:
        # Three system calls; open() makes nine.
        fd = os.open(_FILE, os.O_RDONLY)
        try:
            low, high = map(int, os.read(fd, 64).split())
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return range(1, 65536)  # unknown, as on every system but Linux: check each connection
    return range(low, high + 1)


@final
class _LocalPorts:
    """The range of ip_local_port_range, ip(7), which somebody may change while this program runs."""

    __slots__ = ("_range", "_stale_at")

    def __init__(self) -> None:
        self._range = range(0)
        self._stale_at = -inf

    def current(self) -> range:
        """Return the ports that the kernel picks local ones from, as they were a second ago at most."""
        if monotonic() >= self._stale_at:  # not Trio's clock, which tests let jump and stand still
            self._range = _read()
            self._stale_at = monotonic() + _LASTS
        return self._range

    def forget(self) -> None:
        """Have the next call read it again."""
        self._stale_at = -inf


_local_ports: Final = _LocalPorts()
local_ports: Final = _local_ports.current
forget_local_ports: Final = _local_ports.forget
