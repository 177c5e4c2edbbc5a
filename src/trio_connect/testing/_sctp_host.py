"""Hosts with SCTP, and the packets between them."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Callable
from itertools import count
from typing import Any, Final, Protocol

from .. import Endpoint
from ._timeline import Timeline, Timer

_FIRST_PORT: Final = 49_152  # RFC 6335 section 6: where dynamic ports begin
_EVENT: Final = ("", 0, 0, "")


def os_error(code: int) -> OSError:
    """Return the `OSError` that the kernel would raise."""
    return OSError(code, os.strerror(code))


class HostedEnd(Protocol):
    """An end of an association, as its host knows it."""

    def schedule_heartbeats(self) -> None:
        """Start heartbeats on paths that were cut or healed."""
        ...


class Listening(Protocol):
    """A socket that listens, as its host knows it. `Any` stands for an end, which knows of hosts."""

    is_closed: bool

    def is_full(self) -> bool:
        """Say whether as many associations wait to be accepted as may."""
        ...

    def admit(self, client: Any, source: str) -> Any:
        """Make this end of an association that a client has begun."""
        ...


class SctpHost:
    """One machine. Made by `SctpNetwork.host`."""

    def __init__(self, addresses: tuple[str, ...], rtt: float) -> None:
        self.addresses: Final = addresses
        self.rtt: Final = rtt
        self.ends: Final[set[HostedEnd]] = set()
        self.listeners: Final[dict[tuple[str, int], Listening]] = {}

    def __repr__(self) -> str:
        return f"<SctpHost {', '.join(self.addresses)}>"

    @property
    def associations(self) -> int:
        """How many associations it has, those included that are being made and those that end in the background."""
        return len(self.ends)

    def route(self, local: tuple[str, ...], to: str) -> str | None:
        """Return the address that a packet comes from: the one with most leading bits in common, as for neighbours.

        Args:
          local: addresses of this host to choose from.
          to: where it goes.

        Returns:
          One of them, or None if all are of the other family.
        """
        family = Endpoint(to, 0).family
        mine = [each for each in local if Endpoint(each, 0).family == family]
        return max(mine, key=lambda each: _common_bits(each, to), default=None)


class Fabric:
    """A network, as its sockets use it: hosts by their addresses, time, and packets."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.hosts: dict[str, SctpHost] = {}
        self.down: set[str] = set()
        self._ids = count(1)
        self._ports = count(_FIRST_PORT)

    def owner(self, hosts: tuple[str, ...]) -> SctpHost:
        """Return the host that has all of these addresses; with none, the first host.

        Raises:
          OSError: EADDRNOTAVAIL, there is no such host.
        """
        owners = [self.hosts.get(each) for each in hosts] or [next(iter(self.hosts.values()), None)]
        if owners[0] is None or any(each is not owners[0] for each in owners):
            raise os_error(errno.EADDRNOTAVAIL)
        return owners[0]

    def new_id(self) -> int:
        """Return a number that no association has."""
        return next(self._ids)

    def new_port(self) -> int:
        """Return a port that no socket has."""
        return next(self._ports)

    def now(self) -> float:
        """Return the time, in seconds."""
        return self.timeline.now()

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do something after some time."""
        return self.timeline.at(self.timeline.now() + seconds, _EVENT, action)

    def carries(self, source: str | None, to: str) -> bool:
        """Say whether a packet that is sent now arrives."""
        return source is not None and to in self.hosts and not self.down & {source, to}

    def send(self, sender: SctpHost, local: tuple[str, ...], to: str, action: Callable[[], None]) -> None:
        """Send a packet that does something when it arrives."""
        self.carry(sender, local, to, lambda _host, _source: action())

    def carry(self, sender: SctpHost, local: tuple[str, ...], to: str, arrive: Callable[[SctpHost, str], None]) -> None:
        """Send a packet. It arrives with the host that it reached and the address it came from, or not at all."""
        source = sender.route(local, to)
        target = self.hosts.get(to)
        if source is None or target is None:
            return

        def arrived() -> None:
            if self.carries(source, to):
                arrive(target, source)

        self.later((sender.rtt + target.rtt) / 2, arrived)


def _common_bits(one: str, other: str) -> int:
    left, right = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return left.max_prefixlen - (int(left) ^ int(right)).bit_length()
