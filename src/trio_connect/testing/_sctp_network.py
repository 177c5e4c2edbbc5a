"""Hosts that speak SCTP over several addresses, in virtual time: for programs that use `trio_connect.sctp`.

Whatever a program does through `trio_connect.sctp` while the network is entered happens here. A socket stands on the
host whose address it is bound to, and an unbound one on the first host, so client and server may run side by side.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import os
from collections.abc import Callable
from itertools import count
from socket import AddressFamily
from types import TracebackType
from typing import TYPE_CHECKING, Final

from .. import Endpoint, sctp
from ._timeline import Timeline, Timer

if TYPE_CHECKING:
    from typing import Self

    from ._sctp_association import End
    from ._sctp_socket import FakeSctpSocket

_FIRST_PORT: Final = 49_152  # RFC 6335 section 6: where dynamic ports begin
_EVENT: Final = ("", 0, 0, "")


def os_error(code: int) -> OSError:
    """Return what the kernel would raise."""
    return OSError(code, os.strerror(code))


class SctpHost:
    """One machine. Made by `SctpNetwork.host`."""

    def __init__(self, addresses: tuple[str, ...], rtt: float) -> None:
        self.addresses: Final = addresses
        self.rtt: Final = rtt
        self.ends: Final[set[End]] = set()
        self.listeners: Final[dict[tuple[str, int], FakeSctpSocket]] = {}

    def __repr__(self) -> str:
        return f"<SctpHost {', '.join(self.addresses)}>"

    @property
    def associations(self) -> int:
        """How many associations it has, those included that are being made and those that end in the background."""
        return len(self.ends)

    def route(self, local: tuple[str, ...], to: str) -> str | None:
        """Return the address that a packet comes from: the one with most leading bits in common, as for neighbours."""
        family = Endpoint(to, 0).family
        mine = [each for each in local if Endpoint(each, 0).family == family]
        return max(mine, key=lambda each: _common_bits(each, to), default=None)


class SctpNetwork:
    """A network of hosts with several addresses each, for associations of `trio_connect.sctp`.

    Enter it inside of `trio.run`, best under a `trio.testing.MockClock`: its time is Trio's. While it is entered, a
    system task of its own moves the packets. An address that no host has is dead. One whose host does not listen at
    that port refuses.

    ::

        with SctpNetwork() as net:
            client = net.host("192.0.2.1", "198.51.100.1")
            server = net.host("192.0.2.2", "198.51.100.2", rtt=0.020)
            listener = await sctp.listen([("192.0.2.2", 38412), ("198.51.100.2", 38412)])
            ...
            net.cut("192.0.2.2")
    """

    def __init__(self) -> None:
        self._timeline = Timeline()
        self._hosts: dict[str, SctpHost] = {}
        self._down: set[str] = set()
        self._ids = count(1)
        self._ports = count(_FIRST_PORT)
        self._before: Callable[[AddressFamily], sctp.SctpSocket] | None = None

    def __enter__(self) -> Self:
        """Have `trio_connect.sctp` make its sockets here."""
        self._before = sctp.set_socket_factory(self._make)
        self.later(0, lambda: None)  # so that the task is there from now on, and in this run
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have it make them where it did before, and forget every association."""
        sctp.set_socket_factory(self._before)
        self._timeline.close()

    def host(self, *addresses: str, rtt: float = 0.001) -> SctpHost:
        """Add a host.

        Args:
          addresses: IPv4 and IPv6 addresses. A packet leaves from the one that has most leading bits in common with
            where it goes.
          rtt: seconds that the way to and from this host adds to each round trip.

        Raises:
          ValueError: no address, one that is no address, one that another host has; or a time below 0.
        """
        hosts = tuple(Endpoint(each, 0).host for each in addresses)
        if not hosts:
            raise ValueError("a host needs at least one address")
        if taken := [each for each in hosts if each in self._hosts]:
            raise ValueError(f"another host has {', '.join(taken)}")
        if not 0 <= rtt < math.inf:
            raise ValueError(f"rtt must be 0 or more seconds, got {rtt!r}")
        made = SctpHost(hosts, rtt)
        self._hosts |= dict.fromkeys(hosts, made)
        return made

    def cut(self, *addresses: str) -> None:
        """Lose every packet from and to these addresses, those included that are on their way.

        Raises:
          ValueError: no host has such an address.
        """
        self._down |= self._known(addresses)
        self._look()

    def heal(self, *addresses: str) -> None:
        """Undo a cut; the ends notice by their next heartbeat.

        Raises:
          ValueError: no host has such an address.
        """
        self._down -= self._known(addresses)
        self._look()

    def _known(self, addresses: tuple[str, ...]) -> set[str]:
        hosts = {Endpoint(each, 0).host for each in addresses}
        if strangers := hosts - self._hosts.keys():
            raise ValueError(f"no host has {', '.join(sorted(strangers))}")
        return hosts

    def _look(self) -> None:
        for host in dict.fromkeys(self._hosts.values()):
            for end in host.ends:
                end.look()

    # ------------------------------------------------------------------ for sockets and associations

    def _make(self, family: AddressFamily) -> sctp.SctpSocket:
        from ._sctp_socket import FakeSctpSocket

        return FakeSctpSocket(self, family)

    def owner(self, hosts: tuple[str, ...]) -> SctpHost:
        """Return the host that has all of these addresses; with none, the first host.

        Raises:
          OSError: EADDRNOTAVAIL, there is no such host.
        """
        owners = [self._hosts.get(each) for each in hosts] or [next(iter(self._hosts.values()), None)]
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
        return self._timeline.now()

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do something after some time."""
        return self._timeline.at(self._timeline.now() + seconds, _EVENT, action)

    def carries(self, source: str | None, to: str) -> bool:
        """Say whether a packet arrives now."""
        return source is not None and to in self._hosts and not self._down & {source, to}

    def carry(self, sender: SctpHost, local: tuple[str, ...], to: str, arrive: Callable[[SctpHost, str], None]) -> None:
        """Send a packet. It arrives with the host that it reached and the address it came from, or not at all."""
        source = sender.route(local, to)
        target = self._hosts.get(to)
        if source is None or target is None:
            return

        def arrived() -> None:
            if self.carries(source, to):
                arrive(target, source)

        self.later((sender.rtt + target.rtt) / 2, arrived)


def _common_bits(one: str, other: str) -> int:
    left, right = ipaddress.ip_address(one), ipaddress.ip_address(other)
    return left.max_prefixlen - (int(left) ^ int(right)).bit_length()
